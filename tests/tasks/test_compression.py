"""The study of layerwise compression: its recipe, data, rows, end, and how it continues."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infojax.data import Arrays
from infojax.main import main
from infojax.tasks import compression
from infojax.tasks.build import prepare
from infojax.tasks.config import ConfigError
from infojax.train.runlog import read_rows
from tests.tasks.test_config import get_config

ROOT = Path(__file__).parents[2]
FILE = f"--config={ROOT}/configs/compression.py"
# Two perceptron layers, three epochs, decoders of two epochs.
SMALL = [
    "--config.model.options.widths=12", "--config.model.options.widths=8", "--config.model.options.norm=True",
    "--config.epochs=3", "--config.usable.sufficiency_every=2", "--config.usable.minimality_every=3",
    "--config.usable.layers=layer1",
    "--config.usable.layers=input", "--config.usable.sufficiency_epochs=2", "--config.usable.minimality_epochs=2",
]  # fmt: skip
QUIET = ["--config.report.draw=False", "--config.devices=1"]


def command(folder, *flags, choices="tiny,model=mlp"):
    return [f"{FILE}:{choices}", *SMALL, *flags, f"--workdir={folder}"]


def run(folder, *flags, **choices):
    assert main(command(folder, *flags, **choices)) == 0
    return [row for row in read_rows(folder) if row["kind"] != "timing"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder, "--config.devices=1")


def test_rows(whole):
    _, rows = whole
    measured = [(row["step"], row["evaluator"], row["split"], row.get("layer")) for row in rows if "evaluator" in row]
    each = [("train", "layer1"), ("train", "layer2"), ("train", None), ("test", "layer1"), ("test", "layer2")]
    for step in (0, 5, 10, 15):
        found = [place[2:] for place in measured if place[:2] == (step, "layers")]
        assert found == [*each, ("test", None)]
    usable = [(row["step"], row["layer"], row["depth"], row["split"]) for row in rows if "sufficiency" in row]
    places = [("input", 0), ("layer1", 1)]
    assert usable == [
        (step, *place, split) for step in (0, 10, 15) for place in places for split in ("train", "test")
    ]  # fmt: skip
    assert [row["step"] for row in rows if "minimality" in row] == [0] * 4 + [15] * 4
    train = [row for row in rows if row["kind"] == "train"]
    assert [row["step"] for row in train] == [5, 10, 15] and all(row["resting"] == 0 for row in train)
    assert all(row["n"] == 340 and row["dim"] in (8, 12) for row in rows if "nc1" in row and "layer" in row)
    inputs = [row["minimality"] for row in rows if "minimality" in row and row["layer"] == "input"]
    assert inputs[:2] == inputs[2:]  # the input does not change


def test_the_page(whole):
    folder, _ = whole
    page = (folder / "report.html").read_text()
    drawn = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"compression_curves", "layers", "gaps", "separation", "usable", "planes", "binning"} <= drawn
    assert "equi-separation" in page and "layer2" in page


def test_it_continues_to_the_same_rows(whole, tmp_path):
    """A run of two of three epochs, then all: what was trained in evaluators comes again as it was."""
    import shutil

    folder, rows = whole
    shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "15")
    again = run(tmp_path / "run", *QUIET)
    assert [{**row, "time": 0} for row in again] == [{**row, "time": 0} for row in rows]


def test_it_ends_at_its_loss(tmp_path):
    rows = run(tmp_path, *QUIET, "--config.objective.rest_loss=2.2", "--config.usable.minimality_every=0")
    last = rows[-1]["step"]
    train = [row for row in rows if row["kind"] == "train"]
    assert last == train[-1]["step"] < 15 and train[-1]["resting"] == 1 and train[-1]["epoch_loss"] <= 2.2
    assert [row["step"] for row in rows if "sufficiency" in row][-1] == last  # measured at its end
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["state"] == "finished"


def test_devices_measure_alike(whole, tmp_path):
    """Batches of 68 over 4 devices; batch statistics are those of the whole batch."""
    rows = run(tmp_path, QUIET[0], "--config.devices=4", "--config.usable.minimality_every=0")
    for name in ("nc1", "sufficiency", "equi_separation"):
        ours, theirs = ([row[name] for row in found if name in row and row["step"] <= 5] for found in (rows, whole[1]))
        np.testing.assert_allclose(ours, theirs, rtol=2e-2)


def test_amortised_means_are_older_than_the_weights(whole, tmp_path):
    rows = run(
        tmp_path, *QUIET, "--config.amortised=True", "--config.usable.minimality_every=0",
        "--config.usable.sufficiency_every=0",
    )  # fmt: skip
    ours, theirs = (
        {(row["step"], row["split"], row["layer"]): row["nc1"] for row in found if "nc1" in row and "layer" in row}
        for found in (rows, whole[1])
    )
    for place, value in ours.items():
        if place[0] == 0 or place[1] == "test":  # no epoch before; no training pass
            assert value == pytest.approx(theirs[place], rel=1e-4)
        else:
            assert value != pytest.approx(theirs[place], rel=1e-3)


# The recipe


def test_the_text_and_the_released_code():
    text, released = (get_config("compression", f"paper,data=fashion_mnist,variant={v}") for v in ("text", "released"))
    shared = {"lr": 2e-3, "b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.01}
    assert shared.items() <= text.optimizer.to_dict().items() and text.optimizer == released.optimizer
    assert (text.optimizer.decayed, text.optimizer.schedule, text.optimizer.clip) == ("all", "constant", 0)
    assert (text.data.scale, text.epochs, text.objective.rest_loss, text.amortised) == (255.0, 50.0, 0.02, False)
    assert (released.data.scale, released.epochs, released.objective.rest_loss) == (1.0, 20.0, 0.0)
    assert released.amortised and released.model.param_dtype == released.model.dtype == "bfloat16"
    assert (released.usable.sufficiency_epochs, released.usable.minimality_epochs) == (20, 50)
    assert (released.usable.value, released.usable.encodings) == ("running", "each_batch")
    assert text.usable.value == "evaluated" and text.usable.sufficiency_every == text.usable.minimality_every == 1
    assert text.data.per_class == 1000 and text.objective.batch_size == 400


def test_an_epoch_is_that_of_the_data():
    config = get_config("compression", "tiny,model=wide_resnet")
    config.objective.batch_size = 100
    study = compression.study(config)
    assert study.per_epoch == study.objective.epoch_steps == 4
    assert study.intervals == {"log": 4, "evaluate": 4, "checkpoint": 4}
    assert config.model.options.norm_decay == 0.9  # running statistics that follow


def test_released_everything_is_bfloat16():
    config = get_config("compression", "tiny,model=mlp,variant=released")
    config.model.options.widths = (12, 8)
    run = prepare(compression.study(config), config)
    leaves = jax.tree.leaves((run.state.params, run.state.opt_state))
    assert {leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)} == {jnp.dtype("bfloat16")}
    state, metrics = jax.jit(run.step)(run.objective, run.state, run.constants, run.seeds)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("bfloat16")}
    pixels = run.study.transforms["plain"](None, run.constants["data"]["train"]["x"])
    assert np.isfinite(metrics["loss"]) and float(jnp.max(pixels)) == 255
    assert set(state.method.moments) == {"layer1", "layer2"}


def test_everything_decays_as_in_pytorch():
    config = get_config("compression", "tiny,model=mlp")
    tx = compression.study(config).ctx.optimizers["main"].tx
    params = {"bias": np.ones(3), "kernel": np.ones((2, 2))}
    changes, _ = tx.update(jax.tree.map(np.zeros_like, params), tx.init(params), params)
    for leaf in jax.tree.leaves(changes):
        np.testing.assert_allclose(leaf, -2e-3 * 0.01, rtol=1e-6)


# Its data

LABELS = np.array([0, 1, 0, 2, 1, 0, 2, 2, 1, 0, 1, 2])
SOURCE = Arrays(np.arange(12)[:, None], LABELS)


def chosen(key="per_class", **settings):
    settings = {"per_class": 0, "test_per_class": 0, "imbalance": 1.0} | settings
    return compression.first_of_each_class(SOURCE, 3, key, settings).x[:, 0].tolist()


def test_the_first_samples_of_each_class():
    assert chosen() == list(range(12))
    assert chosen(per_class=2) == [0, 1, 2, 3, 4, 6]
    assert chosen("test_per_class", per_class=2) == list(range(12))
    with pytest.raises(ConfigError, match="data.per_class is 5, but the smallest class has 4"):
        chosen(per_class=5)


def test_unbalanced_classes():
    """4, 2, 1 of the classes; test stays as it is."""
    assert chosen(imbalance=4.0) == [0, 1, 2, 3, 4, 5, 9]
    assert chosen("test_per_class", imbalance=4.0) == list(range(12))


def test_random_labels_are_the_same_labels_elsewhere():
    true, drawn = (
        compression.study(get_config("compression", f"tiny,model=mlp,labels={x}")) for x in ("true", "random")
    )
    a, b = (np.asarray(study.data["train"]["labels"]) for study in (true, drawn))
    np.testing.assert_array_equal(np.bincount(a), np.bincount(b))
    assert np.mean(a == b) < 0.2
    np.testing.assert_array_equal(true.data["train"]["x"], drawn.data["train"]["x"])


# What is refused, in one line

BAD = {
    "a layer": ("--config.layers=leyer1", "layers: no layer 'leyer1'; did you mean layer1"),
    "a layer to read": ("--config.usable.layers=block*", "usable.layers: no layer 'block*'"),
    "a convention": ("--config.usable.digits=average", "usable.digits cannot be 'average'"),
    "epochs": (
        "--config.usable.minimality_epochs=0",
        "usable.minimality_epochs must be a whole number of at least 1 and at most 2,147,483,647, got 0",
    ),
    "a sweep": ("--config.sweep.name=rest_loss", "no sweep"),
    "an amortised input": ("--config.amortised=True --config.layers=*", "leave it out of layers"),
    "classes in batches": ("--config.usable.condition=label --config.usable.encodings=each_batch", "encodes once"),
    "the learning rate": ("--config.optimizer.lr=-1.0", "optimizer.lr must be a positive number"),
    "the scale": ("--config.data.scale=0.0", "data.scale must be a positive number"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, tmp_path, capsys):
    flags, says = BAD[name]
    assert main([f"{FILE}:tiny,model=mlp", *flags.split(), f"--workdir={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1 and not (tmp_path / "run").exists()


# Other networks


@pytest.mark.parametrize(
    ("model", "options", "layers"),
    [
        ("f_minus", {"pool": 2}, ["layer1", "layer2", "layer3"]),
        ("vit_tiny", {"size": (16, 2, 2), "patch": 4}, ["block1", "block2"]),
        ("wide_resnet", {"depth": 10, "width": 1}, ["group1", "group2", "group3"]),
    ],
)
def test_layers_and_decoders_of_other_networks(model, options, layers):
    """Every decoder of the config takes what its layer gives, and has its own parameters."""
    config = get_config("compression", f"tiny,model={model}")
    config.model.options = dict(config.model.options) | options
    study = compression.study(config)
    prepared = prepare(study, config)
    evaluators = list(study.evaluators(prepared.tools(config.evaluate), lambda step: True))
    rows = list(evaluators[2].run([prepared.first_models()]))
    assert [row["layer"] for row in rows if "layer" in row] == [*layers, *layers]
