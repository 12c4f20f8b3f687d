"""What the benches read from compiled programs, and what a bench of limited time keeps."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

import infojax as ij
from infojax.bench import (
    crossmodal,
    gpu,
    gpu_speed,
    images,
    measures,
    peers,
    pods,
    selfsup,
    semisup,
    stages,
    torch_selfsup,
)
from infojax.bench.__main__ import main as bench
from infojax.bench.collectives import Collective, bytes_moved, collectives
from infojax.data import open_dataset
from infojax.objectives import Seeds, init_state
from infojax.objectives.selfsup import barlow_twins, nt_xent, spectral_contrastive, vicreg
from infojax.train.draw import draw
from infojax.train.step import make_step


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
        (["peers", "--only", "CoOp"], "--only is for the bench pods and images and semisup and selfsup, and peers"),
        (["semisup", "--json", "-", "--only", "fixmatch+fixmach"], "no method 'fixmach'; did you mean fixmatch"),
        (["selfsup", "--json", "-", "--only", "moco"], "--only moco: no method 'moco'; there is spectral, barlow,"),
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


def plain(study):
    """The study with views that cost nothing to compile."""
    return lambda *given: study(*given)._replace(transforms=dict.fromkeys(VIEWS, lambda key, x: x / 255))


VIEWS = ("weak", "strong", "view1", "view2")


@pytest.fixture
def quickly_compiled():
    """Programs whose numbers and speed do not matter."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def test_shares_of_nested_programs():
    """Medians in turn on a clock of ours: differences over the last program, which sum to 1 whatever the noise."""
    now, order = [0.0], []
    taken = {"views": [9, 1, 1, 5], "forward": [9, 3, 2, 3], "average": [9, 8, 12, 10]}  # the first is the warm-up

    def call(name):
        order.append(name)
        now[0] += taken[name].pop(0)

    calls = {name: lambda name=name: call(name) for name in taken}
    seconds = stages.interleaved(calls, 3, lambda: now[0])
    assert order == ["views", "forward", "average"] * 4
    assert seconds == {"views": [1, 1, 5], "forward": [3, 2, 3], "average": [8, 12, 10]}
    expected = {"views_share": 0.1, "forward_share": 0.2, "average_share": 0.7, "noise_share": 0}
    assert stages.shares(seconds) == pytest.approx(expected)


def test_few_labels_and_two_views_of_the_bench_of_one_gpu(monkeypatch, quickly_compiled):
    """In their small form: a semi-supervised step in two precisions, Barlow Twins and MAE in bf16."""
    monkeypatch.setattr(semisup, "study", plain(semisup.study))
    monkeypatch.setattr(selfsup, "view_transforms", lambda *given: dict.fromkeys(VIEWS, lambda key, x: x / 255))
    few, (barlow, mae) = list(gpu.few_labels(True)), gpu.selfsup(True)
    assert [(row["method"], row["precision"]) for row in few] == [("fixmatch", "bf16"), ("fixmatch", "TF32")]
    assert min(row["steps_per_s"] for row in few) > 0
    assert (barlow["network"], mae["network"]) == ("vit_small", "mae_base")
    assert barlow["views_over_step"] > 0 and barlow["images_per_s"] > 0
    assert mae["decoder_tokens_per_s"] / mae["encoder_tokens_per_s"] == pytest.approx(5 / 2)  # 4 patches, 1 seen


def test_a_program_that_takes_longer_than_one_with_more_parts():
    """The part between has nothing, and how much longer it took is told."""
    found = stages.shares({"views": [1.0], "forward": [6.0], "backward": [5.0], "update": [4.5], "average": [5.0]})
    expected = {"views": 0.2, "forward": 0.7, "backward": 0, "update": 0, "average": 0.1, "noise": 0.3}
    assert found == pytest.approx({f"{name}_share": share for name, share in expected.items()})


def test_parts_of_a_semi_supervised_step(monkeypatch, quickly_compiled):
    monkeypatch.setattr(semisup, "study", plain(semisup.study))
    found = semisup.parts("pi_model", quick=True)
    shares = [found[f"{part}_share"] for part in stages.STAGES]
    assert found["rows"] == 8 * 3 and sum(shares) == pytest.approx(1) and min(shares) >= 0
    assert found["steps_per_s"] > 0 and found["network_over_step"] > 0


def test_stages_of_a_step_with_two_descents():
    """Meta Pseudo Labels has no single loss: its forward and backward passes are part of its update."""
    one = plain(semisup.study)("mpl", True)
    found = stages.programs(one.objective, one.ctx, one.transforms)
    assert list(found) == ["update", "average", "views"]


def test_a_stage_has_the_numbers_of_the_step():
    """Loss and gradient norm are those that the update logs, of the same batch and draws; the shapes are the step's."""
    one = plain(semisup.study)("mixmatch", True)
    state, data = init_state(one.objective, Seeds(), one.ctx), {"data": one.data}
    batch = stages.batch_of(one.objective, one.transforms, one.data)
    drawn = draw(one.data, one.objective.views, one.transforms, Seeds(), 0)
    assert jax.tree.map(jnp.shape, batch) == jax.tree.map(jnp.shape, drawn)
    found = stages.programs(one.objective, one.ctx, one.transforms)
    loss, _ = found["forward"](one.objective, state, data, batch)
    (value, _), slopes = found["backward"](one.objective, state, data, batch)
    after, metrics = found["average"](one.objective, state, data, batch)
    assert float(loss) == pytest.approx(float(metrics["loss"]), rel=1e-5) == float(value)
    assert float(optax.tree.norm(slopes)) == pytest.approx(float(metrics["grad_norm"]), rel=1e-5)
    assert int(after.step) == 1


@pytest.mark.parametrize("name", (*semisup.PASSES, "freematch_hd"))
def test_the_rows_that_pass_through_the_network_are_the_methods(name):
    """Sizes of the groups in the order of the passes, gradient or not; VAT's Hessian-vector product has one more."""
    one = plain(semisup.study)(name, True)
    task, sizes = one.objective, []

    def counted(net):
        def apply(params, model_state, x, **options):
            sizes.append(len(x))
            return net.apply(params, model_state, x, **options)

        return net._replace(apply=apply)

    nets = {key: counted(net) if key in ("net", "teacher") else net for key, net in one.ctx.nets.items()}
    ctx = one.ctx._replace(nets=nets)
    state = jax.eval_shape(lambda: init_state(task, Seeds(), ctx))
    sizes.clear()
    jax.eval_shape(
        lambda state, data: make_step(ctx, one.transforms)(task, state, {"data": data}, Seeds()), state, one.data
    )
    if name == "mpl":
        sizes.remove(8 * 15)  # the teacher's guesses, which its own loss computes again: one pass in the compiled step
    groups = sum(semisup.passes(name, task), ())
    assert sorted(sizes) == sorted(groups + (8,) * (name == "vat"))


def test_parts_of_a_self_supervised_step(monkeypatch, quickly_compiled):
    """M-MAE has the time of its determinant; one of 4 patches is seen, with the class token."""
    monkeypatch.setattr(selfsup, "study", plain(selfsup.study))
    found = selfsup.parts("mmae", quick=True, reached=1e9)
    assert (
        sum(found[f"{part}_share"] for part in stages.STAGES) == pytest.approx(1)
        and 0 < found["logdet_over_step"]
        and 0 < found["share_of_peak"]
    )
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


def test_a_step_of_byol_in_pytorch_learns_and_its_target_follows():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    step = torch_selfsup.two_branches("byol", selfsup.sizes(quick=True))
    names = step.__code__.co_freevars
    weights = {
        name: next(step.__closure__[names.index(name)].cell_contents.parameters())
        for name in ("both", "predictor", "target")
    }
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    torch.testing.assert_close(before["both"], before["target"])
    step()
    assert not torch.equal(weights["predictor"], before["predictor"])
    moved = weights["both"] - before["both"]
    assert moved.abs().max() > 0
    torch.testing.assert_close(weights["target"], before["target"] + 0.01 * moved)


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
