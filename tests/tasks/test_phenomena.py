"""The four studies of related networks: what they train together, what they leave in the rows, how they continue."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from infojax.main import main
from infojax.objectives import Seeds
from infojax.parallel import make_mesh, replicated
from infojax.tasks import connectivity, grokking, pruning, temperature
from infojax.tasks.build import list_runs, mesh_of, on_mesh, prepare
from infojax.tasks.config import ConfigError
from infojax.train.runlog import read_rows
from tests.tasks.test_config import get_config

ROOT = Path(__file__).parents[2]
# Evaluated at the end only, and at 0.
SHORT = ["--config.steps=6", "--config.evaluate.every=6", "--config.log.every=3", "--config.devices=1"]
SMALL = ["--config.evaluate.train_samples=40", "--config.evaluate.test_samples=40"]


def small(name, string="", steps=12, **flat):
    """A config of the digits and a small perceptron."""
    config = get_config(name, string or ("" if name == "grokking" else "tiny,model=mlp"))
    config.steps, config.epochs, config.devices = steps, None, 1
    if name != "grokking":
        config.model.options = dict(widths=(16,))
    config.update_from_flattened_dict(flat)
    return config


def trained(study, config, steps):
    """The state after a number of steps, run by run as {facts: parameters}."""
    run = prepare(study, config)
    state = run.state
    step = run.step.compiled()
    for _ in range(steps):
        state, _ = step(run.objective, state, run.constants, run.seeds)
    params = [jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), state.params) for i in range(len(run.runs))]
    return [facts.facts for facts in run.runs], params


def distance(a, b):
    return max(np.abs(x - y).max() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


# What is trained together


def test_the_runs_of_a_path_study():
    config = small("connectivity", "tiny,model=mlp,seeds=2", **{"path.fork": 5})
    runs = list_runs(connectivity.study(config), config)
    assert [run.facts for run in runs] == [
        {"lr": lr, "seed": seed, "end": end} for lr in (3e-2, 3e-3, 3e-4) for seed in (0, 1) for end in (0, 1)
    ]
    assert [run.seeds for run in runs[:4]] == [
        Seeds(0, 0, 0, 0, 5), Seeds(0, 1, 1, 0, 5), Seeds(2, 2, 2, 2, 5), Seeds(2, 3, 3, 2, 5),
    ]  # fmt: skip
    config = small("connectivity", "tiny,model=mlp,init=different")
    assert [run.seeds.init for run in list_runs(connectivity.study(config), config)[:2]] == [0, 1]


@pytest.mark.parametrize("fork", [0, 4])
def test_two_networks_are_one_until_they_fork(fork):
    config = small("connectivity", **{"path.fork": fork, "sweep.values": (0.03,)})
    study = connectivity.study(config)
    for steps in (fork, fork + 1):
        _, (first, second) = trained(study, config, steps)
        assert (distance(first, second) == 0) == (steps == fork)


def test_other_parameters_from_the_beginning():
    config = small("connectivity", "tiny,model=mlp,init=different", **{"sweep.values": (0.03,)})
    _, (first, second) = trained(connectivity.study(config), config, 0)
    assert distance(first, second) > 0.1


def test_a_swept_learning_rate_is_the_learning_rate():
    swept = small("connectivity", **{"sweep.values": (0.03, 0.003)})
    facts, found = trained(connectivity.study(swept), swept, 12)
    alone = small("connectivity", **{"sweep.values": (0.003,), "optimizer.lr": 0.003})
    _, expected = trained(connectivity.study(alone), alone, 12)
    assert facts[2] == {"lr": 0.003, "seed": 0, "end": 0}
    assert distance(found[2], expected[0]) < 1e-6 < distance(found[0], expected[0])


def test_temperatures_and_seeds():
    config = small("temperature", "tiny,model=mlp,seeds=2")
    runs = list_runs(temperature.study(config), config)
    assert [(run.facts["temperature"], run.facts["seed"]) for run in runs] == [
        (t, seed) for t in (1.0, 2.0, 5.0, 10.0) for seed in (0, 1)
    ]
    assert runs[-1].floats == {"temperature": 10.0} and runs[-1].seeds == Seeds(1, 1, 1)


def test_the_grokking_preset_is_the_papers():
    paper = get_config("grokking", "paper")
    study = grokking.study(paper)
    assert len(study.data["train"]["labels"]) == 3830 and study.ctx.facts.total_steps == 50_000
    state = jax.eval_shape(study.ctx.nets["net"].init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 226_816
    assert study.objective.views[0].size == "all" and study.objective.log_softmax == "float64"


def test_everything_decays_and_the_first_update_is_nothing():
    """AdamW with decay 1 on all parameters: where no gradient comes, p <- p (1 - lr)."""
    config = small("grokking", steps=100, **{"optimizer.warmup_steps": 2})
    config.data.options.p = 7
    study = grokking.study(config)
    params, zero = {"bias": np.ones(3), "kernel": np.ones((2, 2))}, {"bias": np.zeros(3), "kernel": np.zeros((2, 2))}
    tx = study.ctx.optimizers["main"].tx
    state = tx.init(params)
    for rate in (0.0, 0.5, 1.0, 1.0):
        changes, state = tx.update(zero, state, params)
        for leaf in jax.tree.leaves(changes):
            np.testing.assert_allclose(leaf, -rate * config.optimizer.lr, rtol=1e-6, atol=0)


# What they leave


def rows_of(folder):
    return [row for row in read_rows(folder) if row["kind"] == "eval"]


@pytest.fixture(scope="module")
def connected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("connected")
    string = f"--config={ROOT}/configs/connectivity.py:tiny,model=wide_resnet,seeds=2"
    flags = ["--config.path.points=3", "--config.sweep.values=0.03", "--config.model.options.width=1", *SMALL]
    flags += ["--config.path.recompute_samples=64", "--config.evaluate.batch_size=32"]
    assert main([string, *SHORT, *flags, f"--workdir={folder}"]) == 0
    return folder, [string, *SHORT, *flags, f"--workdir={folder}"]


def test_rows_of_a_path(connected):
    folder, _ = connected
    path = [row for row in rows_of(folder) if row["evaluator"] == "path"]
    assert [(row["run"], row["seed"], row.get("weight")) for row in path] == [
        (run, seed, weight) for run, seed in ((0, 0), (2, 1)) for weight in (0.0, 0.5, 1.0, None)
    ]
    assert all(row["step"] == 6 and row["split"] == "test" for row in path)
    for row in path:
        names = ("accuracy", "loss", "mir", "hdr") if "weight" in row else ("barrier_loss", "barrier_error")
        assert all(np.isfinite(row[f"{name}{ending}"]) for name in names for ending in ("", "_recomputed"))
    ends = {row["run"]: row for row in rows_of(folder) if row["evaluator"] == "classifier" and row["step"] == 6}
    for row, run in ((path[0], 0), (path[2], 1)):  # the ends are the networks themselves
        assert row["accuracy"] == ends[run]["accuracy"] and row["mir"] == pytest.approx(ends[run]["mir"], abs=1e-6)
    assert (folder / "figures" / "connectivity.svg").exists()
    assert "barrier of error" in (folder / "report.html").read_text()


def test_a_finished_run_stays_as_it_is(connected):
    folder, command = connected
    before = read_rows(folder)
    assert main([*command, "--config.report.draw=False"]) == 0
    assert read_rows(folder) == before


def test_rows_of_pruning(tmp_path):
    string = f"--config={ROOT}/configs/pruning.py:tiny,model=mlp,seeds=2"
    flags = [*SMALL, "--config.sparsities=0.0", "--config.sparsities=0.9"]
    assert main([string, *SHORT, *flags, f"--workdir={tmp_path}"]) == 0
    rows = [row for row in rows_of(tmp_path) if row["evaluator"] == "pruned"]
    assert [(row["seed"], row["sparsity"]) for row in rows] == [(0, 0.0), (0, 0.9), (1, 0.0), (1, 0.9)]
    for row in rows:
        assert row["n"] == 40 and row["split"] == "test"
        assert all(f"{name}{end}" in row for name in ("accuracy", "mir_features", "mir") for end in ("", "_layerwise"))
    assert rows[0]["hdr_features"] == 0 < rows[1]["hdr_features"]
    assert (tmp_path / "figures" / "pruning.svg").exists()


def test_rows_of_temperatures(tmp_path):
    string = f"--config={ROOT}/configs/temperature.py:tiny,model=mlp,seeds=2"
    flags = ["--config.sweep.values=1.0", "--config.sweep.values=10.0", *SMALL]
    assert main([string, *SHORT, *flags, f"--workdir={tmp_path}"]) == 0
    rows = [row for row in rows_of(tmp_path) if "silhouette" in row]
    assert [(row["temperature"], row["seed"]) for row in rows] == [(1.0, 0), (1.0, 1), (10.0, 0), (10.0, 1)]
    maps = [row for row in rows_of(tmp_path) if "tsne_x" in row]
    assert [(row["temperature"], row["seed"], len(row["tsne_x"])) for row in maps] == [(1.0, 0, 40), (10.0, 0, 40)]
    assert {path.stem for path in (tmp_path / "figures").glob("*.csv")} >= {"swept", "tsne"}
    points = (tmp_path / "figures" / "tsne.csv").read_text().splitlines()
    assert len(points) == 1 + 80


def test_rows_of_grokking(tmp_path):
    """Mod 7 with all but a few pairs: train and test are right within some hundred steps, and the marks say when."""
    flags = ["--config.data.options.p=7", "--config.data.options.train_fraction=0.9", "--config.model.options.dim=32"]
    flags += ["--config.model.options.width=64", "--config.steps=300", "--config.evaluate.points=4"]
    flags += ["--config.evaluate.accuracy_every=20", "--config.devices=1"]
    assert main([f"--config={ROOT}/configs/grokking.py:tiny,seeds=2", *flags, f"--workdir={tmp_path}"]) == 0
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["num_classes"] == 7 and config["steps_per_epoch"] is None
    rows = rows_of(tmp_path)
    curve = [row for row in rows if row["evaluator"] == "accuracy" and (row["run"], row["split"]) == (0, "train")]
    whole = [row for row in rows if row["evaluator"] == "classifier" and (row["run"], row["split"]) == (0, "train")]
    assert sorted({row["step"] for row in [*curve, *whole]} & set(range(0, 301, 20))) == list(range(0, 301, 20))
    assert not {row["step"] for row in curve} & {row["step"] for row in whole}
    assert whole[-1]["accuracy"] == 1 and whole[-1]["n"] == 44 and np.isfinite(whole[-1]["mir"])
    page = (tmp_path / "report.html").read_text()
    assert "Phases, on test" in page and (tmp_path / "figures" / "grokking.svg").exists()


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_full_batches_on_several_devices(devices):
    """Splits that no number of devices divides: as on one, in training and in evaluation."""
    found = []
    for count in (1, devices):
        config = small("grokking", steps=100, devices=0 if count > 1 else 1)
        config.data.options.update(p=13, train_fraction=0.4)  # 67 and 102 pairs
        config.model.options.update(dim=16, heads=2, width=32)
        study = grokking.study(config)
        mesh = None if count == 1 else make_mesh(count)
        prepared = replace(prepare(study, config), study=on_mesh(study, mesh), mesh=mesh)
        tools, model = prepared.tools(config.evaluate), replicated(prepared.first_models()["raw"], mesh)
        found.append([tools.through(model, tools.sample(split).x) for split in ("train", "test")])
        assert [len(outputs.logits) for outputs in found[-1]] == [67, 102]
    for one, several in zip(*found, strict=True):
        np.testing.assert_allclose(one.logits, several.logits, rtol=1e-5, atol=1e-6)


def test_a_full_batch_takes_as_many_devices_as_divide_it():
    config = small("grokking", steps=100, devices=0)
    study = grokking.study(config)  # 739 pairs, a prime number
    assert mesh_of(study, config.devices) is None
    config.data.options.train_fraction = 0.5  # 924
    assert mesh_of(grokking.study(config), config.devices).size == 4
    config.devices = 8
    with pytest.raises(ConfigError, match="devices is 8, which does not divide the batch of 924"):
        mesh_of(grokking.study(config), config.devices)


# Bad input


@pytest.mark.parametrize(
    ("task", "flat", "message"),
    [
        (temperature, {"sweep.name": "strength"}, "sweep.name must be temperature"),
        (temperature, {"sweep.values": (1.0, -1.0)}, "sweep.values must be different numbers, positive"),
        (temperature, {"tsne_seed": -1}, "tsne_seed must be from 0"),
        (connectivity, {"path.recompute_samples": -5}, "recompute_samples must be at least 0"),
        (connectivity, {"sweep.values": (0.1, -0.1)}, "learning rates must be positive"),
        (connectivity, {"path.init": "some"}, "path.init cannot be 'some'"),
        (connectivity, {"path.weights": "averaged"}, "path.weights cannot be"),
        (connectivity, {"path.points": 1}, "path.points must be at least 2"),
        (connectivity, {"path.fork": 12}, "path.fork must be from 0 to below 12"),
        (connectivity, {"path.fork": 3, "path.init": "different"}, "cannot fork later"),
        (connectivity, {"seed": 2**30}, r"below 2\^30"),
        (pruning, {"sparsities": (0.5, 1.0)}, "sparsities must be different numbers"),
        (pruning, {"sparsities": ()}, "sparsities must be different numbers"),
        (pruning, {"sparsities": ("a", "b")}, "sparsities must be different numbers"),
        (pruning, {"sparsities": (0.5, 0.5)}, "sparsities must be different numbers"),
        (grokking, {"objective.batch_size": "512"}, "objective.batch_size cannot be '512'"),
        (grokking, {"objective.term": "bogus"}, "objective.term cannot be"),
        (grokking, {"evaluate.accuracy_every": -1}, "accuracy_every must be at least 0"),
        (grokking, {"data.options.p": 10}, "p must be a prime"),
        (grokking, {"optimizer.warmup_steps": 12}, "warmup_steps must be from 0"),
        (grokking, {"model.options.heads": 5}, None),
    ],
)
def test_bad_configs(task, flat, message):
    config = small(task.__name__.rpartition(".")[2], **flat)
    if message is None:  # found when the network is built
        with pytest.raises(ConfigError, match="heads must divide dim"):
            prepare(task.study(config), config)
        return
    with pytest.raises(Exception, match=message) as found:
        list_runs(task.study(config), config)
    assert type(found.value).__name__ in ("ConfigError", "DataError")
