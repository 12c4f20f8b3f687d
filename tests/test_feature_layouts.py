"""Layers, prompts and tokens; folders; PyTorch's files and tables; weights: against NumPy, torch and pyarrow."""

import json
import os
import pickle
import re
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import infojax as ij
from infojax import measure
from infojax.analysis.prompts import with_prompts
from infojax.analysis.rows import ArrayRows
from infojax.features import layouts
from infojax.features.arrays import open_features
from infojax.features.axes import axes
from infojax.features.files import open_arrays
from infojax.features.folders import open_together
from infojax.features.sources import FeatureFileError
from infojax.features.torch_files import open_torch
from infojax.features.weights import open_weights

L, B, T, D = 3, 4, 5, 7


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def hidden():
    """Hidden states (L, B, T, D)."""
    return np.random.default_rng(0).normal(size=(L, B, T, D)).astype(np.float32)


def rows_of(opened):
    """{layer: its measured rows}, read in blocks of three."""
    found = {layer: np.concatenate(list(rows.blocks(3))) for layer, rows in opened.layers.items()}
    return {k: rows if opened.kept is None else rows[opened.kept] for k, rows in found.items()}


def problem(path, **flags):
    with pytest.raises(FeatureFileError) as caught:
        open_features(str(path), **flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Axes


@pytest.mark.parametrize("letters", ["lbtd", "bltd", "btld", "btdl", "dtbl", "tlbd"])
@pytest.mark.parametrize("write", [np.save, lambda p, a: np.save(p, np.asfortranarray(a))], ids=["C", "F"])
def test_layers_and_tokens_of_any_order_of_axes(hidden, letters, write):
    write("h.npy", hidden.transpose([("lbtd").index(letter) for letter in letters]))
    rows_first = hidden if letters.index("b") < letters.index("t") else hidden.swapaxes(1, 2)
    opened = open_features("h.npy", axes=letters)
    assert list(opened.layers) == ["layer 0", "layer 1", "layer 2"] and opened.kept is None
    for k, found in enumerate(rows_of(opened).values()):
        np.testing.assert_array_equal(found, rows_first[k].reshape(-1, D))
    some = np.array([0, 1, 4, 5, 11, 19])
    np.testing.assert_array_equal(opened.layers["layer 1"].take(some), rows_first[1].reshape(-1, D)[some])
    assert "as 3 layers (axes '" in opened.used


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".safetensors", ".pt"])
def test_every_kind_of_file_has_axes(hidden, suffix):
    save = {
        ".npz": lambda: np.savez_compressed("h.npz", h=hidden),
        ".safetensors": lambda: save_file({"h": hidden}, "h.safetensors"),
        ".h5": lambda: pytest.importorskip("h5py").File("h.h5", "w").create_dataset("h", data=hidden).file.close(),
        ".pt": lambda: pytest.importorskip("torch").save({"h": torch_of(hidden)}, "h.pt"),
    }
    save[suffix]()
    for letters, k in (("lbtd", 2), ("blnd", 1)):
        moved = hidden[k] if letters[0] == "l" else hidden[:, k]
        found = rows_of(open_features(f"h{suffix}", axes=letters))[f"layer {k}"]
        np.testing.assert_array_equal(found, moved.reshape(-1, D))


def test_rows_that_lie_far_apart_are_read_piece_by_piece(hidden, monkeypatch):
    np.save("h.npy", hidden)
    monkeypatch.setattr(layouts, "GAP_BYTES", 4)
    fetched = []
    real = layouts._fill
    monkeypatch.setattr(layouts, "_fill", lambda stream, n: fetched.append(n) or real(stream, n))
    rows = open_features("h.npy", axes="bnld").layers["layer 2"]
    assert rows.shape == (L * B, D)
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks(5))), hidden[:, :, 2].reshape(-1, D))
    assert max(fetched) == 4 * D


@pytest.mark.parametrize(
    ("text", "letters"),
    [("l b t d", "lbtd"), ("n,l,d", "nld"), ("nd", "nd"), ("Layer,Token,Dim", "ltd"), ("batch seq hidden", "btd")],
)
def test_how_axes_are_written(text, letters):
    assert axes(text) == letters


@pytest.mark.parametrize(
    ("text", "said"),
    [("l d", "no axis of rows"), ("n l", "no axis of columns"), ("n n d", "n is named twice"), ("n q d", "'q' is no")],
)
def test_axes_that_make_no_rows(text, said, capsys):
    np.save("z.npy", np.ones((2, 3)))
    assert measure.main(["z.npy", "--axes", text]) == 2
    assert said in capsys.readouterr().err


def test_what_nothing_decides_is_asked_for(hidden):
    np.save("h.npy", hidden[:, 0])
    said = problem("h.npy")
    assert said.startswith(
        "h.npy has shape (3, 5, 7); pass --axes 'l n d' (3 layers of 5 rows x 7 columns), 'n l d' (5 "
    )
    assert (
        "'b t d' (15 rows x 7 columns), 'n d d' (3 rows x 35 columns): n samples, b prompts, t tokens, l layers" in said
    )
    np.savez("f.npz", z=np.ones((6, 2, 3)), y=np.arange(6) % 2)
    assert "'n l d' (2 layers of 6 rows x 3 columns)" in problem("f.npz") and "'l n d'" not in problem("f.npz")
    assert "(3, 5, 7), 3 axes; --axes 'n d' names 2" in problem("h.npy", axes="nd")
    np.save("one.npy", hidden[:1, 0])
    assert "pass --axes" in problem("one.npy")  # a batch of one prompt is no single row


def test_what_shapes_and_names_decide_is_not_asked_for(hidden):
    mask = np.ones((B, T), np.int64)
    for letters, array in (("lbtd", hidden), ("bltd", hidden.swapaxes(0, 1)), ("btld", hidden.transpose(1, 2, 0, 3))):
        np.savez("f.npz", hidden_states=array, attention_mask=mask)
        opened = open_features("f.npz")
        assert f"(axes '{' '.join(letters)}')" in opened.used
        np.testing.assert_array_equal(rows_of(opened)["layer 1"], hidden[1].reshape(-1, D))
    np.savez("f.npz", last_hidden_state=hidden[0], input_ids=mask)
    assert open_features("f.npz").layers["features"].shape == (B * T, D)
    np.savez("f.npz", z=hidden[:, 0], y=np.arange(T))  # a layer is no sample: labels are one per row
    assert list(open_features("f.npz").layers) == ["layer 0", "layer 1", "layer 2"]
    np.savez("f.npz", z=hidden[0, 0].reshape(T, D, 1, 1), y=np.arange(T))  # pooled maps
    assert open_features("f.npz").layers["features"].shape == (T, D)
    np.savez("f.npz", hidden_states=np.ones((4, 4, 4, 2)), attention_mask=np.ones((4, 4)))
    assert "pass --axes 'b l t d'" in problem("f.npz") and "'l b t d'" in problem("f.npz")


# Tokens of prompts


def test_masks_and_lengths_leave_padding_out(hidden):
    lengths = np.array([5, 2, 1, 4])
    mask = np.arange(T) < lengths[:, None]
    real = mask.reshape(-1)
    for extra in ({"attention_mask": mask.astype(np.int64)}, {"lengths": lengths}):
        np.savez("f.npz", hidden_states=hidden, y=np.arange(B), **extra)
        opened = open_features("f.npz", axes="lbtd")
        np.testing.assert_array_equal(rows_of(opened)["layer 2"], hidden[2].reshape(-1, D)[real])
        np.testing.assert_array_equal(opened.labels, np.repeat(np.arange(B), T)[real])
        np.testing.assert_array_equal(opened.prompts, np.repeat(np.arange(B), T)[real])
        assert f"{next(iter(extra))} leaves out 8 of 20 rows" in opened.used
        assert "each label for all tokens of its prompt" in opened.used
    assert open_features("f.npz", axes="lbtd", mask="none").kept is None
    np.savez("f.npz", hidden_states=hidden, attention_mask=mask, ids=np.arange(20).reshape(B, T))
    np.testing.assert_array_equal(open_features("f.npz", axes="lbtd", labels="ids").labels, np.arange(20)[real])


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.ones((B, T + 1)), "attention_mask has shape (4, 6), the rows of f.npz: h have (4, 5) (axes 'l b t d')"),
        (np.full((B, T), -1e9), "there are entries other than 0 and 1"),
        (np.zeros((B, T)), "attention_mask leaves out all 20 rows"),
        (np.full((B, T), "no"), "has dtype <U2, which is not a number"),
    ],
)
def test_masks_that_do_not_fit(hidden, mask, said):
    np.savez("f.npz", h=hidden, attention_mask=mask)
    assert said in problem("f.npz", axes="lbtd")
    np.savez("f.npz", h=hidden, lengths=np.array([1, 2, 3, 9]))
    assert "a length is not from 0 to 5" in problem("f.npz", axes="lbtd")


def test_what_is_stored_transposed_is_told():
    z, y, w = np.random.default_rng(0).normal(size=(12, 3)), np.arange(12) % 2, np.ones((2, 3))
    np.savez("f.npz", z=z.T, y=y)
    assert "the features are stored transposed, (D, N): pass --axes 'd n'" in problem("f.npz")
    np.testing.assert_array_equal(rows_of(open_features("f.npz", axes="dn"))["features"], z)
    np.savez("f.npz", z=z, y=y, w=w.T)
    assert "f.npz: w has shape (3, 2), the head must be (C, D) with D = 3" in problem("f.npz")
    assert "it is stored transposed; save its transpose" in problem("f.npz")


def test_labels_that_fit_no_axis(hidden):
    np.savez("f.npz", h=hidden, y=np.arange(6))
    assert "y has shape (6,), the labels must be (20,), one per row of f.npz: h (3, 4, 5, 7)" in problem(
        "f.npz", axes="lbtd"
    )
    np.savez("f.npz", h=np.ones((4, 3)), y=np.eye(4))
    assert "if its rows are one-hot, save labels.argmax(axis=1)" in problem("f.npz")


# Folders and globs


def vllm(hidden, lengths, folder="out"):
    os.mkdir(folder)
    for k, length in enumerate(lengths):
        states = np.ascontiguousarray(hidden[:, k, :length].swapaxes(0, 1)).astype(ml_dtypes.bfloat16)
        save_file({"hidden_states": states, "token_ids": np.arange(length)}, f"{folder}/req-{k}a{9 - k}.safetensors")


def test_a_folder_of_vllm(hidden):
    lengths = [5, 2, 1, 4]
    vllm(hidden, lengths)
    for name in ("out", "out/*.safetensors"):
        opened = open_features(name)
        assert "4 files, joined, req-0a9.safetensors to req-3a6.safetensors" in opened.used
        for k, rows in enumerate(rows_of(opened).values()):
            want = np.concatenate([hidden[k, b, :n] for b, n in enumerate(lengths)]).astype(ml_dtypes.bfloat16)
            np.testing.assert_array_equal(rows, want)
        np.testing.assert_array_equal(opened.prompts, np.repeat(np.arange(4), lengths))
    vllm(hidden, [3], "square")  # as many tokens as layers
    assert "(axes 't l d')" in open_features("square").used
    one = open_features("out/req-1a8.safetensors")
    assert {layer: rows.shape for layer, rows in one.layers.items()} == {f"layer {k}": (2, D) for k in range(L)}


def test_prompts_are_read_in_one_pass_whatever_the_blocks():
    z, prompts = np.random.default_rng(0).normal(size=(23, 4)), np.repeat(np.arange(5), [2, 8, 5, 3, 5])

    class OnePass(ArrayRows):
        passes = 0

        def blocks(self, *given):
            self.passes += 1
            return super().blocks(*given)

        def take(self, indices):
            raise AssertionError("a compressed file is unpacked from its start for each of these")

    wanted = [ij.matrix_entropy(z[prompts == k], center=True) for k in range(5)]
    for chunk in (1, 4, 5, 100):
        rows = OnePass(z)
        found = with_prompts(ij.analyze(z), rows, prompts, chunk)
        assert rows.passes == 1 and found.measures["prompt_entropy"] == pytest.approx(np.mean(wanted), abs=1e-5)


def test_prompts_are_measured_on_the_rows_that_count(capsys):
    z, y = np.random.default_rng(0).normal(size=(3, 5, 4)), np.tile([0, 1, 0, -1, 9], (3, 1))
    save_file({"hidden_states": z, "labels": y}, "all.safetensors")
    save_file({"hidden_states": z[:, :3].copy(), "labels": y[:, :3].copy()}, "rest.safetensors")
    found = []
    for name in ("all", "rest"):
        flags = ["--axes", "btd", "--json", "-", "--ignore-index", "9"]
        assert measure.main([f"{name}.safetensors", *flags]) == 0
        report = json.loads(capsys.readouterr().out)[f"{name}.safetensors"]
        found.append({k: v for k, v in next(iter(report.values()))["measures"].items() if "prompt" in k or "data" in k})
    assert found[0] == pytest.approx(found[1]) and len(found[0]) == 3


def test_ragged_folders_end_in_one_line(hidden):
    vllm(hidden, [5, 2])
    save_file({"hidden_states": np.ones((4, L, D + 1)), "token_ids": np.arange(4)}, "out/req-7.safetensors")
    assert "req-7.safetensors: hidden_states is (4, 3, 8) float64, but out/req-0a9.safetensors: hidden_st" in problem(
        "out"
    )
    save_file({"hidden_states": np.ones((4, L, D)), "token_ids": np.arange(3)}, "out/req-7.safetensors")
    assert "may differ only in their number of rows" in problem("out")
    np.savez("out/req-8.npz", other=np.ones(3))
    assert "no such array" in problem("out", features="hidden_states") or "which array" in problem("out")
    os.mkdir("empty")
    assert "empty: a folder without feature files" in problem("empty")
    assert "no such file" in problem("nothing/*.npy")


def test_a_folder_of_thingsvision():
    z = np.random.default_rng(0).normal(size=(12, 3))
    for layer, factor in (("layer10", 2.0), ("layer9", 1.0)):
        os.makedirs(f"out/{layer}")
        for start, stop in ((0, 5), (5, 10), (10, 12)):
            np.save(f"out/{layer}/features_{start}-{stop}.npy", factor * z[start:stop])
    opened = open_features("out", layers="layer*")
    assert list(opened.layers) == ["layer9", "layer10"]  # by number
    np.testing.assert_array_equal(rows_of(opened)["layer10"], 2 * z)
    np.testing.assert_array_equal(opened.layers["layer9"].take(np.array([1, 4, 5, 11])), z[[1, 4, 5, 11]])
    assert "which array holds the features? " in problem("out")


def test_files_of_a_folder_are_arrays_unless_they_are_parts():
    z = np.random.default_rng(0).normal(size=(6, 3))
    os.mkdir("out")
    np.save("out/features.npy", z)
    np.save("out/labels.npy", np.arange(6) % 2)
    opened = open_features("out")
    np.testing.assert_array_equal(rows_of(opened)["features"], z)
    np.testing.assert_array_equal(opened.labels, np.arange(6) % 2)
    os.mkdir("parts")
    for k in range(3):
        np.save(f"parts/{k}.npy", z[2 * k : 2 * k + 2])
    assert "which array holds the features? 0 (2, 3)" in problem("parts")
    np.testing.assert_array_equal(rows_of(open_features("parts", parts=True))["features"], z)
    assert list(open_features("parts", layers="*").layers) == ["0", "1", "2"]
    assert "files are joined along their first axis, which with --axes 'd n' is not an axis of rows" in problem(
        "parts", parts=True, axes="dn"
    )


# PyTorch's files


def torch_of(array):
    torch = pytest.importorskip("torch")
    return torch.from_numpy(np.array(array))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["model-00001-of-00003", "model-00003-of-00003"], "2 of 3 shards are there"),
        (["features_0-2", "features_4-6"], "the rows from 2 to 4 are in no file"),
        (["model-00002-of-00002"], "1 of 2 shards are there"),
    ],
)
def test_half_of_a_checkpoint_or_of_a_set_is_no_whole(files, said, tmp_path):
    for name in files:
        np.save(tmp_path / f"{name}.npy", np.eye(2))
    for path in (tmp_path, tmp_path / "*.npy"):
        with pytest.raises(FeatureFileError, match=f"{said}; get the others, pass --parts to join those"):
            open_together(str(path))
    together = open_together(str(tmp_path), parts=True)
    assert [array.full_shape for array in together.arrays.values()] == [(2 * len(files), 2)]
    assert len(files) == 1 or said in together.notes


@pytest.mark.parametrize(
    "files",
    [
        ["2026-01", "2026-03"],
        ["layer1-0", "layer2-1"],
        ["run0-2", "run1-3"],
        ["0-9", "0-11"],
        ["a-00000-of-00002", "b-00000-of-00002"],
    ],
)
def test_dates_versions_and_other_pairs_of_numbers_are_no_ranges_of_rows(files, tmp_path):
    for name in files:
        np.save(tmp_path / f"{name}.npy", np.eye(2))
    assert set(open_together(str(tmp_path)).arrays) == set(files)


def test_columns_of_single_numbers_and_masks_get_the_right_advice(tmp_path):
    np.savez(tmp_path / "columns.npz", a=np.arange(3.0), b=np.arange(3.0))
    with pytest.raises(
        FeatureFileError, match=r"no array has rows and columns, \(N, D\), for the features; it holds a"
    ):
        open_features(str(tmp_path / "columns.npz"))
    np.savez(tmp_path / "masked.npz", features=np.eye(3), keep=np.ones(3, bool), my_mask=np.ones(3))
    unused = open_features(str(tmp_path / "masked.npz")).unused
    assert "(--mask keep)" in unused and "(--mask my_mask)" in unused


def test_tensors_are_those_that_torch_saved():
    torch = pytest.importorskip("torch")
    base = torch.arange(60, dtype=torch.float32).reshape(6, 10)
    saved = {
        "plain": base,
        "transposed": base.T,
        "view": base[1:5:2, 3:7],
        "expanded": base[:1].expand(4, 10),
        "half": base.half(),
        "nested": {"bf16": base.bfloat16(), "list": [base[0], torch.nn.Parameter(base[1])]},
        "int": torch.arange(6),
        "bool": torch.tensor([True, False]),
        "f8": base.to(torch.float8_e4m3fn),
        "u16": torch.tensor([[1, 65535]], dtype=torch.uint16),
        "empty": torch.zeros(0, 3),
        "labels": [3, 1, 2],
        "epoch": 7,
    }
    torch.save(saved, "f.pt")
    arrays = open_arrays("f.pt")
    flat = saved | {"nested.bf16": saved["nested"]["bf16"], "nested.list.0": base[0], "nested.list.1": base[1]}
    for name, array in arrays.items():
        if name == "empty":
            assert array.full_shape == (0, 3)
        elif name == "labels":
            assert array.load().tolist() == [3, 1, 2]
        else:
            want = flat[name].detach()
            want = want.float().numpy() if want.dtype in (torch.bfloat16, torch.float8_e4m3fn) else want.numpy()
            np.testing.assert_array_equal(array.load().astype(want.dtype), want)
    assert arrays.keys() == (flat.keys() - {"nested", "epoch"}) and arrays["half"].dtype == np.float16
    np.testing.assert_array_equal(arrays["transposed"].take(np.array([2, 9])), base.T[[2, 9]].numpy())
    torch.save(base, "f.pt")
    assert list(open_arrays("f.pt")) == ["features"]
    torch.save(torch.nn.Linear(3, 2).state_dict(), "m.bin")
    assert {name: a.full_shape for name, a in open_arrays("m.bin").items()} == {"weight": (2, 3), "bias": (2,)}
    torch.save({"hidden_states": tuple(torch.ones(2, 3, 4) * k for k in range(3))}, "h.pt")
    assert [rows.shape for rows in open_features("h.pt", axes="btd").layers.values()] == [(6, 4)] * 3


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch /tmp/files-bomb",))


def zip_of(path, data: bytes, numbers: bytes = b"", **members):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", numbers)
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)


def tensor_pickle(offset=0, shape=(2, 2), strides=(2, 1), count=4, key="0") -> bytes:
    """What torch.save writes of a tensor of floats, by hand."""

    def number(n):
        return b"J" + n.to_bytes(4, "little", signed=True) if n < 2**31 else b"\x8a\x08" + n.to_bytes(8, "little")

    def numbers(found):
        return b"(" + b"".join(map(number, found)) + b"t"

    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x00" + key.encode() + b"X\x03\x00\x00\x00cpu"
    )
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(count) + b"tQ" + number(offset)
        + numbers(shape) + numbers(strides) + b"\x89ccollections\nOrderedDict\n)RtR."
    )  # fmt: skip


def test_a_pickle_that_tries_to_run_is_never_run():
    assert not os.path.exists("/tmp/files-bomb")
    for protocol in range(6):
        zip_of("f.pt", pickle.dumps({"z": Bomb()}, protocol))
        said = problem("f.pt")
        assert re.search(
            r"holds (\S+\.system|the instruction \w+), which is not a tensor; code in a file is never run", said
        )
    for name in ("builtins\neval", "torch._utils\n_rebuild_qtensor", "torch\nload", "torch.storage\n_load_from_bytes"):
        zip_of("f.pt", b"\x80\x02c" + name.encode() + b"\nX\x01\x00\x00\x001\x85R.")
        assert f"holds {name.replace(chr(10), '.')}, which is not a tensor" in problem("f.pt")
    assert not os.path.exists("/tmp/files-bomb")


def test_damaged_files_of_torch_end_in_one_line():
    zip_of("f.pt", tensor_pickle(), np.arange(4, dtype="<f4").tobytes())
    np.testing.assert_array_equal(open_arrays("f.pt")["features"].load(), [[0, 1], [2, 3]])
    zip_of("f.pt", tensor_pickle(), np.arange(4, dtype=">f4").tobytes(), byteorder="big")
    np.testing.assert_array_equal(open_arrays("f.pt")["features"].load(), [[0, 1], [2, 3]])
    for changes in ({"offset": 2}, {"strides": (3, 1)}, {"shape": (2**40, 2)}, {"key": "7"}, {"strides": (2,)}):
        zip_of("f.pt", tensor_pickle(**changes), bytes(16))
        said = problem("f.pt")
        assert "truncated: features ends at byte" in said or "are missing" in said or "unknown kind" in said
    for data in (b"", b"\x80\x02", tensor_pickle()[:40], b"\x80\x02K\x01K\x02s.", b"\x80\x02]" + b"(l" * 9, b"h\x07."):
        zip_of("f.pt", data)
        problem("f.pt")
    nested = pickle.dumps([], 2)
    deep = b"\x80\x02" + b"]" * 200 + b"a" * 199 + b"."
    zip_of("f.pt", deep)
    assert "nested more than 50 deep" in problem("f.pt")
    zip_of("f.pt", b"\x80\x02r\xff\xff\xff\x7f" + nested)
    problem("f.pt")  # an index of two billion into the memo
    with open("f.pt", "wb") as file:
        file.write(b"PK\x03\x04 no zip")
    assert "is not a file of torch.save, or is truncated" in problem("f.pt")
    np.savez("z", z=np.ones((2, 2)))
    os.rename("z.npz", "z.pt")
    assert "is not a file of torch.save: it has 0 members data.pkl" in problem("z.pt")


def test_a_huge_header_is_not_read(monkeypatch):
    from infojax.features import torch_files

    monkeypatch.setattr(torch_files, "MOST_PICKLE", 100)
    zip_of("f.pt", tensor_pickle(), bytes(16))
    assert re.search(r"f.pt: its data.pkl has \d+ bytes, at most 100 are read", problem("f.pt"))


def test_files_of_torch_before_1_6():
    torch = pytest.importorskip("torch")
    z = torch.arange(12.0).reshape(3, 4)
    saved = {"z": z, "transposed": z.T, "net": {"y": torch.arange(3), "half": torch.ones(2, 2).half()}}
    torch.save(saved, "f.pt", _use_new_zipfile_serialization=False)
    arrays = open_torch(Path("f.pt"))
    assert sorted(arrays) == ["net.half", "net.y", "transposed", "z"]
    for name, expected in (("z", z), ("transposed", z.T), ("net.half", saved["net"]["half"])):
        np.testing.assert_array_equal(arrays[name].load(), expected.numpy(), err_msg=name)
        assert arrays[name].dtype == expected.numpy().dtype
    assert arrays["net.y"].load().ravel().tolist() == [0, 1, 2]
    whole = Path("f.pt").read_bytes()
    Path("f.pt").write_bytes(whole[:-20])
    assert "truncated" in problem("f.pt")
    Path("f.pt").write_bytes(whole[:300])
    assert len(problem("f.pt").splitlines()) == 1
    torch.save({"z": Path("x")}, "f.pt", _use_new_zipfile_serialization=False)
    assert "code in a file is never run" in problem("f.pt")


# Tables


@pytest.mark.parametrize("kind", ["parquet", "arrow", "stream", "feather"])
def test_columns_of_tables(kind):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import feather, parquet

    z = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    names = np.array(["cat", "dog"])[np.arange(50) % 2]
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(z.reshape(-1)), 4)
    table = pa.table({"features": z.tolist(), "fixed": fixed, "label": names, "deep": z.reshape(50, 2, 2).tolist()})
    path = {"stream": "f.arrow"}.get(kind, f"f.{kind}")
    if kind == "parquet":
        parquet.write_table(table, path, row_group_size=16)
    elif kind == "feather":
        feather.write_feather(table, path, chunksize=16)
    else:
        new = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
        with pa.OSFile(path, "wb") as sink, new(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=16)
    opened = open_features(path)
    np.testing.assert_allclose(rows_of(opened)["features"], z, rtol=1e-7)
    assert opened.labels.tolist() == names.tolist()
    some = np.array([0, 15, 16, 40, 49])
    np.testing.assert_array_equal(open_arrays(path)["fixed"].take(some), z[some])
    assert [r.shape for r in open_features(path, features="deep", axes="nld").layers.values()] == [(50, 2)] * 2


def test_tables_that_are_no_arrays(monkeypatch):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def written(**columns):
        parquet.write_table(pa.table(columns), "f.parquet")
        array = next(iter(open_arrays("f.parquet").values()))
        with pytest.raises(FeatureFileError) as caught:
            array.load()
        return str(caught.value)

    assert "z: its lists have from 1 to 2 entries; expected equal lengths" in written(z=[[1.0, 2.0], [1.0]])
    assert "1 values are missing (null)" in written(z=[1.0, None])
    assert "is of the type timestamp" in written(z=pa.array([0], pa.timestamp("s")))
    with open("f.parquet", "r+b") as file:
        file.truncate(30)
    assert "cannot be read" in problem("f.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "needs pyarrow: pip install pyarrow" in problem("f.parquet")


# Weights


def test_weights_of_a_checkpoint(capsys):
    random = np.random.default_rng(0)
    w = {"fc.weight": random.normal(size=(8, 30)), "tall": random.normal(size=(40, 6)).astype(np.float16)}
    w["conv.weight"] = random.normal(size=(4, 3, 2, 2)).astype(np.float32)
    w["one"] = np.outer(np.linspace(1, 2, 300), np.linspace(1, 3, 200)) * 1e-200  # of rank one, squares underflow
    w["zero"], w["bad"] = np.zeros((2, 2)), np.full((2, 3), np.nan)
    save_file(w | {"fc.bias": np.ones(8), "ids": np.arange(6).reshape(2, 3)}, "m.safetensors")
    assert measure.main(["m.safetensors", "--weights", "--json", "-", "--chunk", "7"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)["m.safetensors"]
    assert "6 weight matrices, 1 of which flatten all axes but the first, left out, with fewer than two axes or" in err
    for name in ("fc.weight", "tall", "conv.weight"):
        s = np.linalg.svd(w[name].astype(np.float64).reshape(len(w[name]), -1), compute_uv=False)
        p = s / s.sum()
        want = {"effective_rank": np.exp(-np.sum(p * np.log(p))), "stable_rank": np.sum(s**2) / s[0] ** 2}
        want |= {"spectral_norm": s[0], "frobenius_norm": np.sqrt(np.sum(s**2))}
        assert found[name]["measures"] == pytest.approx(want, rel=1e-9)
    of_one = found["one"]["measures"]
    assert of_one["effective_rank"] == pytest.approx(1, rel=1e-12)
    assert of_one["spectral_norm"] == pytest.approx(np.linalg.norm(w["one"] * 1e200) * 1e-200, rel=1e-9)
    assert found["zero"]["measures"]["stable_rank"] == 0 and found["zero"]["warnings"] == ["the matrix is zero"]
    assert set(found["bad"]["measures"].values()) == {None} and "nan or inf" in found["bad"]["warnings"][0]
    assert measure.main(["m.safetensors", "--weights"]) == 0
    assert re.search(r"fc\.weight +8 +30 +\d", capsys.readouterr().out)
    assert measure.main(["m.safetensors", "--weights", "--labels", "y"]) == 2
    assert "--labels is of features" in capsys.readouterr().err


def test_weights_in_shards():
    save_file({"a.weight": np.ones((3, 2))}, "m-00001-of-00002.safetensors")
    save_file({"b.weight": np.ones((2, 2))}, "m-00002-of-00002.safetensors")
    found, told = open_weights("m-*.safetensors")
    assert {name: weight.shape for name, weight in found.items()} == {"a.weight": (3, 2), "b.weight": (2, 2)}
    assert "2 files" in told
    np.save("y.npy", np.arange(3))
    with pytest.raises(FeatureFileError, match="holds no weight matrix"):
        open_weights("y.npy")


def test_the_command_measures_layers_of_hidden_states(hidden, capsys):
    """From the file to numbers: the effective rank of each layer, against a float64 SVD in NumPy."""
    import json

    vllm(hidden, [5, 2, 1, 4])
    assert measure.main(["out", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)["out"]
    assert list(found) == ["layer 0", "layer 1", "layer 2"]
    for k, entry in enumerate(found.values()):
        rows = np.concatenate([hidden[k, b, :n] for b, n in enumerate([5, 2, 1, 4])]).astype(ml_dtypes.bfloat16)
        s = np.linalg.svd(rows.astype(np.float64), compute_uv=False)
        p = s / s.sum()
        assert entry["measures"]["effective_rank"] == pytest.approx(np.exp(-np.sum(p * np.log(p))), rel=1e-6)
        groups = np.repeat(np.arange(4), [5, 2, 1, 4])
        of_prompts = ij.prompt_entropy(rows.astype(np.float32), groups=groups)
        expected = {
            "prompt_entropy": of_prompts.mean, "prompt_entropy_std": of_prompts.std,
            "dataset_entropy": ij.dataset_entropy(rows.astype(np.float32), groups=groups),
        }  # fmt: skip
        for name, value in expected.items():
            assert entry["measures"][name] == pytest.approx(float(value), rel=1e-4), name
            assert entry["conventions"][name].endswith("; 4 prompts")
    np.save("one.npy", hidden[:, :1])
    assert measure.main(["one.npy", "--axes", "l b t d", "--json", "-"]) == 0
    entry = json.loads(capsys.readouterr().out)["one.npy"]["layer 0"]
    assert entry["measures"]["prompt_entropy_std"] is None and "dataset_entropy" not in entry["measures"]


def test_inputs_in_folders_are_not_overwritten(hidden, capsys):
    vllm(hidden, [5, 2])
    assert measure.main(["out", "--json", "out/req-1a8.safetensors"]) == 2
    assert "is also an input, and would be overwritten" in capsys.readouterr().err
    assert open_together("out").rows == (5, 2)
