"""Semi-supervised studies: which samples have labels, and what a run leaves."""

from pathlib import Path

import jax
import numpy as np
import pytest

from infojax.data import Dataset, Joined, labelled, open_dataset
from infojax.main import main
from infojax.objectives import Batch, Facts, Seeds, init_state
from infojax.objectives.semisup import METHODS
from infojax.tasks import semisup
from infojax.tasks.build import data as build
from infojax.tasks.config import ConfigError
from infojax.train.draw import indices
from infojax.train.runlog import read_rows
from tests.tasks.test_config import get_config

CONFIG = f"--config={Path(__file__).parents[2]}/configs/semisup.py:tiny,model=mlp"
SHORT = [
    "--config.model.options.widths=(16,)",
    "--config.steps=2",
    "--config.evaluate.points=0",
    "--config.log.every=1",
]
SHORT += ["--config.devices=1", "--config.report.draw=False"]


def listed(file):
    return np.loadtxt(file, dtype=int)


def test_each_seed_has_its_own_draw_of_labelled_samples(tmp_path):
    """A run among three is the lone run of its seed, in its rows as in its labelled samples."""
    flags = [f"{CONFIG},method=freematch_mi", *SHORT, "--config.evaluate.every=2"]
    assert main([flags[0] + ",seeds=3", *flags[1:], f"--workdir={tmp_path}/three"]) == 0
    assert main([*flags, "--config.seed=1", f"--workdir={tmp_path}/alone"]) == 0
    draws = [listed(tmp_path / "three" / f"labelled_{seed}.txt") for seed in range(3)]
    for seed, draw in enumerate(draws):
        np.testing.assert_array_equal(draw, labelled(open_dataset(), 40, seed))
        assert seed == 0 or len(np.intersect1d(draw, draws[0])) < 20
    np.testing.assert_array_equal(listed(tmp_path / "alone" / "labelled.txt"), draws[1])
    three, alone = (
        [row for row in read_rows(tmp_path / name) if row["kind"] != "timing"] for name in ("three", "alone")
    )
    assert [row["labelled_seed"] for row in three if row["step"] == 1] == [0, 1, 2]
    mine = [row for row in three if row["run"] == 1]
    logged = next(row for row in alone if row["kind"] == "train")
    assert len(mine) == len(alone) and {"mask_ratio", "mi", "threshold"} <= logged.keys()
    for row, same in zip(mine, alone, strict=True):
        numbers = {name: x for name, x in same.items() if isinstance(x, float) and name != "time"}
        assert {name: row[name] for name in numbers} == pytest.approx(numbers, rel=1e-4, abs=1e-6)
    train = [row["loss"] for row in three if row["kind"] == "train"]
    assert len(set(train)) == 6


def test_one_draw_for_all_seeds(tmp_path):
    flags = [f"{CONFIG},method=supervised,labels=40,seeds=2", *SHORT, "--config.data.labelled_seed=5"]
    assert main([*flags, f"--workdir={tmp_path}"]) == 0
    np.testing.assert_array_equal(listed(tmp_path / "labelled.txt"), labelled(open_dataset(), 40, 5))
    assert all("labelled_seed" not in row for row in read_rows(tmp_path))


@pytest.mark.parametrize(
    ("text", "says"),
    [("3 5 x", "'x' is none"), ("3 5 3", "one comes twice"), ("", "there are none"), ("1442", "is none")],
)
def test_lists_of_labelled_samples_that_are_none(text, says, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text(text)
    flags = [f"--config.data.labelled={tmp_path}/mine.txt", f"--workdir={tmp_path}/run"]
    assert main([CONFIG, *SHORT, *flags]) == 2
    assert says in capsys.readouterr().err


def test_a_list_that_is_no_text_and_one_with_a_byte_order_mark(tmp_path):
    (tmp_path / "list.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ConfigError, match=r"data.labelled: .*list.npy is no text in UTF-8"):
        semisup.indices_of(str(tmp_path / "list.npy"), 9)
    (tmp_path / "list.txt").write_bytes("\ufeff1\r\n2\r\n".encode())
    assert semisup.indices_of(str(tmp_path / "list.txt"), 9).tolist() == [1, 2]


def test_classes_without_a_labelled_sample_are_told():
    assert semisup.note_missing((4, 0, 4)) == ["1 of 3 classes have no labelled sample: 1"]
    assert semisup.note_missing((4, 4)) == []


def test_more_labels_than_samples(tmp_path, capsys):
    assert main([f"{CONFIG},labels=5000", *SHORT, f"--workdir={tmp_path}"]) == 2
    assert "data.labels" in capsys.readouterr().err


def test_what_a_method_selects_is_measured_at_fixed_weights(tmp_path):
    """MIR and HDR are those of the rows that the mask keeps; mask and guesses come from the teacher of MPL."""
    flags = ["--config.evaluate.every=2", "--config.evaluate.unlabelled_samples=90", f"--workdir={tmp_path}"]
    assert main([f"{CONFIG},method=mpl", *SHORT, *flags]) == 0
    rows = [row for row in read_rows(tmp_path) if row.get("split") == "unlabelled_selected"]
    assert [row["step"] for row in rows] == [0, 2] and rows[0]["n"] <= 90
    for row in rows:
        assert row["n"] == round(90 * row["mask_ratio"]) and 0 <= row["pseudo_accuracy"] <= 1
        assert ("mir" in row) == (row["n"] > 0)


def test_a_permutation_needs_a_batch_of_labelled_samples(tmp_path, capsys):
    flags = ["--config.objective.replacement=False", "--config.objective.batch_size=41", f"--workdir={tmp_path}"]
    assert main([CONFIG, *SHORT, *flags]) == 2
    assert "batch_size is 41, but there are 40 labelled samples" in capsys.readouterr().err


def test_labels_that_do_not_divide_into_classes(tmp_path, capsys):
    assert main([f"{CONFIG},labels=45", *SHORT, f"--workdir={tmp_path}"]) == 2
    assert "data.labels: must be a multiple of 10 (classes)" in capsys.readouterr().err


def test_the_tiny_preset_of_every_method_trains():
    """Two steps on views of digits, the second after warm-ups; one program has the updates of all methods."""
    studies, states = {}, {}
    for name in METHODS:
        config = get_config("semisup", f"tiny,method={name},labels=40,model=mlp")
        config.model.options.widths, config.objective.batch_size = (16,), 2
        if name == "dash":
            config.objective.update(warmup=1, averaged=1)
        studies[name] = semisup.study(config)
        states[name] = init_state(studies[name].objective, Seeds(), studies[name].ctx)
    source = open_dataset().split("train").read(np.arange(14))
    key, fixmatch = jax.random.key(0), studies["fixmatch"]
    views = {name: jax.jit(fixmatch.transforms[name])(key, source[0]) for name in ("weak", "strong")}

    def batch_of(method):
        labelled, *rest = (
            Batch({own: views[kind][: view.size] for own, kind in view.named.items()}, source[1][: view.size], places)
            for view, places in ((view, np.arange(view.size)) for view in method.views)
        )
        return {"labelled": labelled} | ({"unlabelled": rest[0]} if rest else {})

    @jax.jit
    def updated(states):
        return {
            name: one.objective.update(states[name], {}, batch_of(one.objective), key, one.ctx)
            for name, one in studies.items()
        }

    after, metrics = states, {}
    for _ in range(2):
        found = updated(after)
        after, metrics = ({name: pair[i] for name, pair in found.items()} for i in (0, 1))
    for name in METHODS:
        assert int(after[name].step) == 2 and np.isfinite(float(metrics[name]["loss"])), name
        moved = jax.tree.map(
            lambda a, b: float(abs(a - b).max()), after[name].params["net"], states[name].params["net"]
        )
        assert min(jax.tree.leaves(moved)) > 0, (name, moved)
        expected = {"loss", "grad_norm", "supervised_loss"} if name != "mpl" else {"loss", "feedback", "teacher_loss"}
        assert expected | ({"unsupervised_loss"} if name != "supervised" else set()) <= metrics[name].keys(), name


def stl10(folder):
    """Official files of three training pictures per class, their folds, and 40 pictures without labels."""
    (folder / "stl10_binary").mkdir()
    rng, labels = np.random.default_rng(0), np.arange(30, dtype=np.uint8) % 10 + 1
    sizes = {"train_X": 30, "test_X": 10, "unlabeled_X": 40}
    files = {f"{name}.bin": rng.integers(0, 256, (n, 3, 96, 96), np.uint8).tobytes() for name, n in sizes.items()}
    files |= {"train_y.bin": labels.tobytes(), "test_y.bin": labels[:10].tobytes()}
    files["fold_indices.txt"] = "\n".join(" ".join(map(str, range(start, start + 20))) for start in (0, 10)).encode()
    for name, content in files.items():
        (folder / "stl10_binary" / name).write_bytes(content)


def test_the_protocol_of_stl10(tmp_path):
    """All pictures are unlabelled, the training ones among them; drawn by class, or the official folds by number."""
    stl10(tmp_path)
    config = get_config("semisup", "small,method=fixmatch,data=stl10,labels=20,model=mlp,seeds=2")
    assert get_config("semisup", "paper,data=stl10").model.name == "wrn_37_2"
    config.data.dir = str(tmp_path)
    drawn = semisup.study(config)
    assert drawn.data["unlabelled"]["x"].shape == (70, 96, 96, 3)
    np.testing.assert_array_equal(drawn.data["unlabelled"]["labels"][:40], -1)
    np.testing.assert_array_equal(drawn.data["unlabelled"]["labels"][40:], np.arange(30) % 10)
    assert drawn.ctx.facts.label_counts == (2,) * 10 and drawn.ctx.facts.num_unlabelled == 70
    config.data.protocol = "fold"
    folds = semisup.study(config)
    for i, rows in enumerate(folds.constants["parts"]["labelled"]):
        expected = open_dataset("stl10", tmp_path).split("train").read(np.arange(10 * i, 10 * i + 20))
        np.testing.assert_array_equal(folds.data["labelled"]["x"][rows], expected[0])
        np.testing.assert_array_equal(folds.data["labelled"]["labels"][rows], expected[1])
    assert folds.files["labelled_1.txt"].split() == [str(i) for i in range(10, 30)]
    for labels, seeds, says in ((40, 1, "no fold 0 of 40 labels; there are 2 of 20"), (20, 3, "no fold 2 of 20")):
        config.data.labels, config.seeds = labels, seeds
        with pytest.raises(ConfigError, match=says):
            semisup.study(config)
    config = get_config("semisup", "tiny,method=fixmatch,labels=40,model=mlp")
    config.data.protocol = "fold"
    with pytest.raises(ConfigError, match="no fold 0 of 40 labels; there are none"):
        semisup.study(config)


class Numbered:
    """A split of 96 x 96 pictures that are made when they are read; each says in its first pixels which one it is."""

    shape = (96, 96, 3)

    def __init__(self, split, labels):
        self.split, self.labels = split, np.asarray(labels, np.int32)

    def __len__(self):
        return len(self.labels)

    def read(self, indices):
        x = np.zeros((len(indices), *self.shape), np.uint8)
        x[:, 0, 0] = np.stack([indices // 2**16, indices // 2**8 % 2**8, indices % 2**8], 1)
        x[:, 0, 1] = self.split
        return x, self.labels[indices]


@pytest.fixture
def full_size(monkeypatch):
    """STL-10 at its published size, without its pixels: 100,000 + 5,000 + 8,000 pictures and ten folds of 1,000."""
    rng = np.random.default_rng(0)
    by_class = rng.permutation(np.arange(5000) % 10)
    folds = [np.sort(np.concatenate([rng.choice(np.flatnonzero(by_class == c), 100, False) for c in range(10)]))
             for _ in range(10)]  # fmt: skip
    splits = {"train": Numbered(1, by_class), "test": Numbered(2, np.arange(8000) % 10)}
    splits["unlabelled"] = Numbered(3, np.full(100_000, -1))
    names = tuple(map(str, range(10)))
    known = {name: (lambda source=source: source) for name, source in splits.items()}
    dataset = Dataset("stl10", 10, names, known, (112.4,) * 3, (68.4,) * 3, folds=lambda: folds)
    monkeypatch.setattr(semisup, "open_dataset", lambda *given, **options: dataset)
    return splits["train"].labels, folds


def test_the_protocol_of_stl10_at_its_published_size(full_size, monkeypatch):
    """105,000 unlabelled pictures are 2.9 GB: read step by step where less is free for them, from both splits."""
    labels, folds = full_size
    size = 105_000 * 96 * 96 * 3
    monkeypatch.setattr(build, "memory", lambda: size - 1)
    config = get_config("semisup", "paper,method=fixmatch,data=stl10,labels=1000,seeds=2")
    config.data.protocol = "fold"
    one = semisup.study(config)
    assert "data.stream: the 2.9 GB of 105,000 training samples are read step by step" in one.notes
    assert one.ctx.facts == Facts(10, 2**20, (100,) * 10, num_unlabelled=105_000)
    assert one.per_epoch == pytest.approx(105_000 / 448)
    sizes = jax.tree.map(np.size, jax.eval_shape(one.ctx.nets["net"].init, jax.random.key(0))[0])
    assert sum(jax.tree.leaves(sizes)) == 5_933_770  # of TorchSSL's WRN-37-2

    few, parts = one.data["labelled"], one.constants["parts"]["labelled"]
    assert parts.shape == (2, 1000) and len(few["x"]) == len(np.union1d(*folds[:2]))
    for rows, fold in zip(parts, folds, strict=False):
        pixels = np.asarray(few["x"][rows, 0, :2], int)
        np.testing.assert_array_equal(pixels[:, 0] @ [2**16, 2**8, 1], fold)
        np.testing.assert_array_equal(pixels[:, 1, 0], 1)
        np.testing.assert_array_equal(few["labels"][rows], labels[fold])

    every, view = one.streams["unlabelled"], one.objective.views[1]
    drawn = np.concatenate([indices(view, 1, Seeds(0, 0, 0), step, len(every)) for step in range(40)])
    assert view.size == 448 and 0 <= drawn.min() and 100_000 < drawn.max() < 105_000
    assert np.mean(drawn >= 100_000) == pytest.approx(5 / 105, abs=4 * np.sqrt(5 * 100 / 105**2 / len(drawn)))
    x, found = every.read(np.array([104_999, 0, 99_999, 100_000]))
    assert x[:, 0, 1, 0].tolist() == [1, 3, 3, 1] and found.tolist() == [labels[-1], -1, -1, labels[0]]
    assert (x[:, 0, 0].astype(int) @ [2**16, 2**8, 1]).tolist() == [4999, 0, 99_999, 0]


def test_the_memory_that_the_pictures_of_stl10_need(full_size, monkeypatch):
    """Bytes of all pictures, of the training ones too: with that much free they are not streamed."""
    config = get_config("semisup", "paper,data=stl10,labels=40")
    every = Joined(Numbered(3, np.full(100_000, -1)), Numbered(1, np.zeros(5000)))
    monkeypatch.setattr(build, "in_memory", lambda source: "in memory")
    for room, streamed in ((2_903_039_999, True), (2_903_040_000, False)):
        monkeypatch.setattr(build, "memory", lambda room=room: room)
        assert (build.loaded(config, every)[0] is every) == streamed
