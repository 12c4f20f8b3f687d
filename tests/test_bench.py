"""What the benches read from compiled programs, and what a bench of limited time keeps."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import infojax as ij
from infojax.bench import crossmodal, gpu, gpu_speed, images, measures, peers, pods, selfsup, semisup, torch_selfsup
from infojax.bench.__main__ import main as bench
from infojax.bench.collectives import Collective, bytes_moved, collectives
from infojax.data import open_dataset
from infojax.objectives.selfsup import barlow_twins, nt_xent, spectral_contrastive, vicreg


class Program:
    """Some HLO, as XLA prints it."""

    def __init__(self, *lines):
        self.lines = lines

    def as_text(self):
        return "\n".join(self.lines)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "the following arguments are required: name"),
        (["mesures"], "argument name: invalid choice: 'mesures'"),
        (["measures", "--json", "."], "--json .: is a folder, expected a file"),
        (["measures", "--json", "no/where.json"], "no folder "),
        (["measures", "--minutes", "3"], "--minutes is for the bench gpu, and measures has none"),
        (["gpu", "--minutes", "-1"], "argument --minutes: '-1': expected a positive number"),
        (["gpu", "--minutes", "nan"], "argument --minutes: 'nan': expected a positive number"),
        (["gpu", "--minutes", "0.5", "--json", "."], "--json .: is a folder, expected a file"),
        (["images", "--classes", "0"], "argument --classes: '0': expected a whole number"),
        (["images", "--classes", "9", "--images", "3"], "expected one for each of the 9 classes"),
        (["images", "--out", __file__], "is a file, expected a folder"),
        (["peers", "--only", "CoOp"], "--only is for the bench pods and images, and peers has none"),
        (["pods", "--json", "-", "--only", "GPT"], "--only GPT: expected a part of supervised, WRN-28-2; "),
        (["images", "--json", "-", "--only", "GPT"], "--only GPT: expected reading or training"),
    ],
)
def test_what_is_refused_before_the_long_work(argv, says, capsys):
    assert bench(argv) == 2
    said = capsys.readouterr()
    assert says in said.err and said.err.count("\n") == 1 and not said.out


def test_rows_before_an_interruption_are_kept(tmp_path, monkeypatch, capsys):
    def run(quick):
        yield {"work": "H", "seconds": 0.25}
        raise KeyboardInterrupt

    monkeypatch.setattr(peers, "run", run)
    assert bench(["peers", "--json", str(tmp_path / "rows.jsonl")]) == 130
    said = capsys.readouterr()
    assert "seconds" in said.out and "0.25" in said.out and said.err.count("\n") == 1
    assert json.loads((tmp_path / "rows.jsonl").read_text())["seconds"] == 0.25


def test_collectives_of_a_text():
    program = Program(
        "%fused_computation.200 (param_0: bf16[4,4]) -> bf16[8,4] {",
        '  %gather.1 = bf16[8,4]{1,0} all-gather(%x), channel_id=2, metadata={op_name="a"}',
        "%async_collective_fusion.68 (param_0: bf16[4,4]) -> bf16[8,4] {",
        '  %gather.2 = bf16[8,4]{1,0:T(8,128)S(1)} all-gather(%x), channel_id=2, metadata={op_name="a"}',
        "ENTRY %main.50_spmd (param.11: f32[1024,32]) -> f32[] {",
        "  %r = (f32[10]{0:T(128)S(1)}, f32[10,128]{1,0:T(8,128)}) all-reduce(%a, %b), channel_id=1, to_apply=%add",
        "  %again = f32[8,4]{1,0} all-reduce(%y), channel_id=1",
        "  %twice = f32[8,4]{1,0} all-reduce(%again), channel_id=1",
        "  %cp = (f32[4,64]{1,0}, f32[4,64]{1,0}, u32[]{:S(2)}, u32[]) collective-permute-start(%z), channel_id=3",
        "  %done = f32[4,64]{1,0} collective-permute-done(%cp)",
        "  %scalar = f32[] all-reduce-start(%s), channel_id=4",
        "  %dot = f32[512,512]{1,0} dot(%all-reduce.1, %ag)",
    )
    reduced = [("all-reduce", 40 + 5120), ("all-reduce", 128), ("all-reduce", 128)]
    expected = [("all-gather", 64), *reduced, ("collective-permute", 1024), ("all-reduce", 4)]
    assert collectives(program) == [Collective(*pair) for pair in expected]
    assert bytes_moved(program) == {"all-reduce": 5420, "all-gather": 64, "collective-permute": 1024}


def test_a_bench_of_one_gpu_keeps_what_it_finished(tmp_path, monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(gpu.time, "monotonic", lambda: now[0])

    def broken(quick):
        yield {"n": 1}
        raise FloatingPointError("of\nthis part")

    def slow(quick):
        while True:
            assert (
                len((tmp_path / "gpu.jsonl").read_text().splitlines()) >= 2
            )  # rows are there as soon as they are known
            now[0] += 25
            yield {"seconds": now[0]}

    monkeypatch.setattr(gpu, "PARTS", {"broken": broken, "slow": slow, "last": broken})
    rows = gpu.run(minutes=1, out=tmp_path)
    assert rows == [
        {"kind": "broken", "n": 1},
        {"kind": "broken", "failed": "FloatingPointError: of this part"},
        {"kind": "slow", "seconds": 25.0},
        {"kind": "slow", "seconds": 50.0},
        {"kind": "slow", "left_out": "the time was up in part slow"},
        {"kind": "last", "left_out": "the time was up in part last"},
    ]
    assert [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()] == rows
    assert "| 25 |  |\n| 50 |  |" in (tmp_path / "gpu.md").read_text()


def test_the_bench_of_one_gpu_runs_on_a_cpu():
    """The eigensolver's error and one training step, in their small form."""
    (solved,) = gpu.eigensolver(quick=True)
    assert solved["rank"] == 32 and solved["not_finite"] == 0 and solved["largest_error_over_largest"] < 1e-5
    assert abs(solved["entropy_error"]) < 1e-4
    case = gpu_speed.Case("wrn_28_2", "float32", 8, quick=True)
    state = case.many(1)()
    assert int(state.step) == 1 and all(np.isfinite(leaf).all() for leaf in state.params["net"]["head"].values())


def test_parts_of_a_semi_supervised_step():
    found = semisup.parts("freematch_mi", quick=True)
    shares = [found[f"{part}_share"] for part in ("views", "forward", "backward", "average", "rest")]
    assert found["rows"] == 8 * (1 + 2 * 7) and sum(shares) == pytest.approx(1) and found["steps_per_s"] > 0
    assert found["convolution_share"] == 0  # of an MLP


def test_the_convolutions_of_a_program_are_found(monkeypatch):
    """Two equal ones in a compiled part and their three derivatives, that for the data left out: five, of which each is
    timed once with those like it."""
    monkeypatch.setattr(semisup, "best", lambda run, repeats: run() is None or 1.0)

    def loss(kernel, x):
        once = jax.jit(lambda x: jax.lax.conv(x, kernel, (1, 1), "SAME"))
        return jnp.sum(once(once(x)) ** 2)

    program = jax.make_jaxpr(jax.grad(loss))(jnp.ones((2, 2, 3, 3)), jnp.ones((1, 2, 4, 4)))
    assert semisup.convolutions(program.jaxpr, 1) == 5


def test_parts_of_a_self_supervised_step():
    """M-MAE has the share of its determinant; one of 4 patches is seen, with the class token."""
    found = selfsup.parts("mmae", quick=True, reached=1e9)
    assert 0 < found["views_share"] and 0 < found["logdet_share"] and 0 < found["share_of_peak"]
    assert found["encoder_tokens_per_s"] / found["images_per_s"] == pytest.approx(17)
    assert found["decoder_tokens_per_s"] / found["images_per_s"] == pytest.approx(65)


@pytest.mark.parametrize("name", torch_selfsup.LOSSES[:4])
def test_losses_of_pytorch_are_ours(name):
    """Otherwise the two steps that are compared do different work."""
    torch = pytest.importorskip("torch")
    ours = {"barlow": barlow_twins, "simclr": nt_xent, "vicreg": partial(vicreg, form="paper"),
            "spectral": partial(spectral_contrastive, form="haochen")}[name]  # fmt: skip
    z = np.random.default_rng(0).normal(size=(2, 12, 5)).astype(np.float32)
    z = z / np.linalg.norm(z, axis=-1, keepdims=True)
    found = float(torch_selfsup.branches(name, *torch.tensor(z)))
    assert found == pytest.approx(float(ours(*jnp.asarray(z))), rel=1e-5)


def test_a_masked_step_of_pytorch_learns():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    step = torch_selfsup.masked("mmae", selfsup.sizes(quick=True))
    parts = step.__closure__[step.__code__.co_freevars.index("parts")].cell_contents
    before = parts["embed"].weight.detach().clone()
    step()
    assert torch.isfinite(parts["embed"].weight).all() and not torch.equal(parts["embed"].weight, before)


@pytest.mark.parametrize("name", semisup.BESIDE)
def test_the_step_in_pytorch_learns(name, monkeypatch):
    torch = pytest.importorskip("torch")
    from infojax.bench import torch_models

    class Small(torch.nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.head = torch.nn.Linear(3, classes)

        def forward(self, x):
            return self.head(x.mean((2, 3)))

    monkeypatch.setitem(torch_models.MODELS, "wrn_28_2", Small)
    built, build = [], torch_models.build
    monkeypatch.setattr(torch_models, "build", lambda *given: built.append(build(*given)) or built[-1])
    step = semisup.torch_step(name, 4, 2, torch.channels_last)
    before = built[0][0].head.weight.detach().clone()
    step()
    after = built[0][0].head.weight.detach()
    assert torch.isfinite(after).all() and not torch.equal(before, after)


def test_what_people_paste_finds_the_same_numbers():
    z, labels, head, _ = measures.features(90, 4, 20)
    ours = {
        "entropy": ((z,), ij.matrix_entropy(z)),
        "mutual_information": ((z, labels, head), ij.interplay(z, labels, head).mutual_information),
        "nc1": ((z, labels), ij.nc1(z, labels)),
        "two_spectra": ((z,), ij.matrix_entropy(z)),
        "effective_rank": ((z,), ij.effective_rank(z)),
    }
    for name, (given, expected) in ours.items():
        assert getattr(peers, f"{name}_numpy")(*given) == pytest.approx(float(expected), rel=1e-3), name
    pytest.importorskip("torch")
    for name, (given, expected) in ours.items():
        assert getattr(peers, f"{name}_torch")(*given) == pytest.approx(float(expected), rel=1e-3), name


def test_versions_take_turns_and_must_agree(monkeypatch, capsys):
    monkeypatch.setattr(peers, "PAUSE", 0)
    monkeypatch.setattr(peers, "TURN", 1e-4)
    turns = []
    found = peers.taken({"infojax": lambda: turns.append("a") or 1.0, "numpy": lambda: turns.append("b") or 1.001}, 0)
    assert found.keys() == {"infojax", "numpy"} and min(found.values()) > 0
    assert "".join(turns).startswith("ab") and "ba" in "".join(turns)
    with pytest.raises(ValueError, match="numpy found 2.0, infojax 1.0"):
        peers.taken({"infojax": lambda: 1.0, "numpy": lambda: 2.0}, 0)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert any("OPENBLAS_CORETYPE is set (Haswell)" in line for line in peers.warnings())


def test_prompts_of_the_whole_context_give_the_same_features():
    """What the bench compares: prompts at the length of the longest, and padded to 77 tokens."""
    short, long = (crossmodal.prompts_of(crossmodal.TINY, 7, full) for full in (False, True))
    assert short.tokens.shape == (7, 25) and long.tokens.shape == (7, 77)
    np.testing.assert_array_equal(short.end, long.end)
    np.testing.assert_array_equal(short.tokens, long.tokens[:, :25])
    np.testing.assert_array_equal(long.slot[:, 25:], -1)


def test_a_coop_step_is_planned_and_run():
    row = crossmodal.coop_step(crossmodal.TINY, 4, False, 2, True, "float32", True)
    assert row["tokens"] == 23 and row["plan_gib"] > 0 and row["seconds"] > 0


def test_made_up_pictures_have_the_spectra_of_photographs(tmp_path):
    images.write(tmp_path, classes=2, images=80)
    train, test = (open_dataset("folder", tmp_path, size=64).split(split) for split in ("train", "test"))
    assert (len(train), len(test)) == (76, 4) and np.bincount(train.labels).tolist() == [38, 38]
    sizes = set()
    for path in train.paths:
        with Image.open(path) as picture:
            sizes.add(picture.size[::-1])
    assert sizes == set(images.SIZES)
    grey = images.texture(np.random.default_rng(0))[..., 1]
    power = np.abs(np.fft.rfft2(grey - grey.mean())) ** 2
    frequency = np.hypot(np.fft.fftfreq(1024)[:, None], np.fft.rfftfreq(1024)[None])
    low, high = (np.mean(power[(frequency > f) & (frequency < 1.2 * f)]) for f in (0.01, 0.08))
    assert np.log(low / high) / np.log(8) == pytest.approx(2.2, abs=0.2)  # amplitudes 1 / f^1.1


def test_seconds_of_a_step_on_paper():
    """Arithmetic or memory, then the ring; beyond 256 chips their share of the reduced bytes in the network."""
    inside = pods.seconds_on_paper(197e10, 819e6, 100e6, 50e6, 8)
    assert inside == pytest.approx(0.01 + (2 * 100e6 + 50e6) * 7 / 8 / 200e9)
    assert pods.seconds_on_paper(0, 819e7, 0, 0, 1) == pytest.approx(0.01)
    between = pods.seconds_on_paper(0, 0, 256e6, 0, 512)
    assert between == pytest.approx(2 * 256e6 * 255 / 256 / 200e9 + 2 * 1e6 * 0.5 / 3.125e9)
