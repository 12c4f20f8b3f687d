"""The bottleneck's study and the cloud of three classes: what they leave in the rows, what they refuse."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from infojax.evaluate import Evaluation, Outputs, Sample
from infojax.evaluate.cloud import cloud
from infojax.main import main
from infojax.objectives import Head
from infojax.tasks import bottleneck, simplex
from infojax.tasks.build import prepare
from infojax.tasks.config import ConfigError
from infojax.train.runlog import read_rows
from tests.tasks.test_config import get_config

ROOT = Path(__file__).parents[2]
SHORT = ["--config.steps=4", "--config.evaluate.every=4", "--config.log.every=2", "--config.devices=1"]
FRESH, QUIET = "--config.fresh.epochs=1", "--config.report.draw=False"


def small(name, **flat):
    config = get_config(name, "tiny")
    config.steps, config.epochs, config.devices = 4, None, 1
    config.update_from_flattened_dict(flat)
    return config


def test_digits_and_their_entropies():
    study = bottleneck.study(small("bottleneck"))
    digits = np.asarray(study.data["train"]["digits"])
    assert digits.shape == (1000, 2)
    np.testing.assert_allclose(study.constants["entropies"]["digits"], np.log(10), rtol=1e-6)
    labels = np.asarray(study.data["train"]["labels"])
    assert sorted(digits[labels == 3].tolist()) == [[i, j] for i in range(10) for j in range(10)]
    whole = bottleneck.study(small("bottleneck", **{"data.train_samples": 0}))  # up to 146 of a class: 0 or 1 hundred
    entropies = np.asarray(whole.constants["entropies"]["digits"])
    assert entropies.shape == (3,) and entropies[0] < np.log(2) and entropies[2] > 2.29


@pytest.mark.parametrize(("layer", "parts"), [("layer1", {"layer2", "layer3", "head"}), ("layer3", {"head"})])
def test_decoders_are_what_follows_the_cut(layer, parts):
    config = small("bottleneck", **{"objective.layer": layer, "sweep.name": "", "sweep.values": ()})
    run = prepare(bottleneck.study(config), config)
    assert set(run.state.params["digits"]) == parts
    assert run.state.params["digits"]["head"]["kernel"].shape == (2, 128, 10)


def test_a_cut_convolutional_network_can_be_built():
    config = get_config("bottleneck", "small,model=f_minus,data=synthetic")
    config.data.options = dict(num_train=100, num_test=20, size=28, channels=1)
    config.data.train_samples, config.objective.batch_size, config.devices = 0, 20, 1
    config.sweep = dict(name="", values=())
    run = prepare(bottleneck.study(config), config)
    assert set(run.state.params["digits"]) == {"layer3_b_conv", "layer3_b_bn", "head"}


def test_rows_of_a_sweep(tmp_path):
    sweep = ["--config.sweep.values=1.0", "--config.sweep.values=1000.0"]
    assert main([f"--config={ROOT}/configs/bottleneck.py", *SHORT, FRESH, QUIET, *sweep, f"--workdir={tmp_path}"]) == 0
    rows = [row for row in read_rows(tmp_path) if row["kind"] == "train"]
    assert [(row["step"], row["beta"]) for row in rows] == [(2, 1.0), (2, 1000.0), (4, 1.0), (4, 1000.0)]
    for row in rows:
        assert row["sufficiency"] == pytest.approx((np.log(10) - row["cross_entropy"]) / np.log(2), abs=1e-4)
        assert np.isfinite(row["minimality"]) and row["grad_norm"] > 0
    fresh = [row for row in read_rows(tmp_path) if row.get("evaluator") == "usable"]
    assert len(fresh) == 8 and {(row["step"], row["layer"]) for row in fresh} == {(4, "layer2")}
    assert {row["beta"] for row in fresh if "minimality" in row} == {1.0, 1000.0}
    measured = [row for row in read_rows(tmp_path) if row.get("evaluator") == "classifier"]
    assert {(row["step"], row["beta"], row["split"]) for row in measured} == {
        (step, beta, split) for step in (0, 4) for beta in (1.0, 1000.0) for split in ("train", "test")
    }


def test_rows_of_the_simplex(tmp_path):
    assert main([f"--config={ROOT}/configs/simplex.py", *SHORT, QUIET, f"--workdir={tmp_path}"]) == 0
    rows = [row for row in read_rows(tmp_path) if row.get("evaluator") == "cloud"]
    assert [(row["step"], row["split"], row["n"]) for row in rows] == [(0, "train", 300), (4, "train", 300)]
    for row in rows:
        z, labels = np.stack([row[f"cloud_{axis}"] for axis in "xyz"], axis=1), np.asarray(row["labels"])
        assert z.shape == (300, 3) and np.shape(row["head"]) == (3, 3)
        np.testing.assert_allclose(row["means"], [z[labels == c].mean(0) for c in range(3)], atol=1e-4)
        np.testing.assert_allclose(z.mean(0), 0, atol=1e-4)


def evaluation(n, dim=3):
    rng = np.random.default_rng(0)
    outputs = Outputs(jnp.zeros((n, 3)), jnp.asarray(rng.normal(5.0, 1.0, (n, dim)), jnp.float32))
    sample = Sample("train", jnp.zeros((n, 1)), jnp.arange(n) % 3)
    return Evaluation(sample, {"raw": outputs}, Head(jnp.eye(3, dim), jnp.zeros(3)))


def test_a_cloud_of_many_shows_some_and_averages_all():
    sample = evaluation(1000)
    found = dict(cloud(sample))
    assert len(found["cloud_x"]) == len(found["labels"]) == 300 and found["head"] == np.eye(3).tolist()
    z = np.asarray(sample.outputs["raw"].embedding, np.float64)
    z -= z.mean(0)
    np.testing.assert_allclose(found["means"], [z[c::3].mean(0) for c in range(3)], atol=1e-4)
    shown = np.stack([found[f"cloud_{axis}"] for axis in "xyz"], axis=1)
    places = [np.flatnonzero(np.abs(z - point).max(axis=1) < 1e-4) for point in shown]
    assert [int(place[0]) % 3 for place in places] == found["labels"] and len({int(p[0]) for p in places}) == 300


def test_a_cloud_has_three_dimensions():
    with pytest.raises(ValueError, match="3 dimensions; this one has 4"):
        dict(cloud(evaluation(9, dim=4)))


@pytest.mark.parametrize(
    ("task", "flat", "message"),
    [
        (bottleneck, {"objective.layer": "layer9"}, "objective.layer cannot be 'layer9'; did you mean layer"),
        (bottleneck, {"objective.inner": 0}, "objective.inner must be at least 1, got 0"),
        (bottleneck, {"objective.reset_every": -1}, "objective.reset_every must be at least 0"),
        (bottleneck, {"objective.batch_size": 1001}, "objective.batch_size must be from 1 to 1000"),
        (bottleneck, {"sweep.values": (1.0, -1.0)}, "objective.beta must be at least 0, got -1.0"),
        (bottleneck, {"optimizer.final": 0.0}, "optimizer.final must be positive"),
        (bottleneck, {"objective.transform": "strange"}, "objective.transform cannot be 'strange'"),
        (simplex, {"model.options.widths": (64, 4)}, r"widths must end with 3, got \(64, 4\)"),
    ],
)
def test_bad_configs(task, flat, message):
    with pytest.raises(ConfigError, match=message):
        task.study(small(task.__name__.rpartition(".")[2], **flat))
