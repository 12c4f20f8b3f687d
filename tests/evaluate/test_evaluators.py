"""Evaluators against the measures applied by hand to the network's outputs."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import infojax as ij
from infojax.data import channel_moments, open_dataset, transforms
from infojax.evaluate import (
    Evaluation,
    Outputs,
    Sample,
    classify,
    fixed_sample,
    forward,
    interplay,
    neural_collapse,
    on_sample,
)
from infojax.models import MLP, Output
from infojax.objectives import Head, Model, Net
from infojax.train.networks import as_net

DIGITS = open_dataset()
TEST = DIGITS.split("test")
PLAIN = transforms(*channel_moments(TEST))["plain"]
MODULE = MLP(10, widths=(24,))


@pytest.fixture(scope="module")
def setting():
    net = as_net(MODULE, jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32))
    raw, ema = (net.init(jax.random.key(seed)) for seed in (0, 1))
    models = {"raw": Model(*raw, net), "ema": Model(*ema, net)}
    sample = fixed_sample("test", TEST, 230)
    outputs = MODULE.apply({"params": raw[0]}, PLAIN(None, sample.x), train=False)
    return models, sample, outputs


def test_fixed_sample():
    first, again, other = (fixed_sample("test", TEST, 100, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.x, again.x)
    assert not np.array_equal(first.x, other.x) and len(first.labels) == 100
    pictures = {row.tobytes() for row in np.asarray(first.x)}
    assert len(pictures) == 100 and pictures <= {row.tobytes() for row in TEST.x}
    assert len(fixed_sample("test", TEST).labels) == len(fixed_sample("test", TEST, 10**6).labels) == 355


@pytest.mark.parametrize("batch_size", [50, 64, 230, 500])
def test_forward_by_batches(setting, batch_size):
    models, sample, outputs = setting
    found = forward(PLAIN, batch_size)(models["raw"], sample.x)
    np.testing.assert_allclose(found.logits, outputs.logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.embedding, outputs.embedding, rtol=1e-4, atol=1e-5)


def test_classify(setting):
    models, sample, outputs = setting
    found = dict(on_sample(forward(PLAIN), sample, [classify])(models))
    log_p = np.asarray(jax.nn.log_softmax(outputs.logits))
    assert found["split"] == "test" and found["n"] == 230
    assert found["loss"] == pytest.approx(float(-log_p[np.arange(230), np.asarray(sample.labels)].mean()), rel=1e-5)
    assert found["accuracy"] == pytest.approx(float(np.mean(log_p.argmax(1) == np.asarray(sample.labels))), abs=1e-6)
    assert found["loss_ema"] != found["loss"] and "accuracy_ema" in found


def test_interplay(setting):
    models, sample, outputs = setting
    found = dict(on_sample(forward(PLAIN), sample, [interplay])(models))
    z, y = np.asarray(outputs.embedding, np.float64), np.asarray(sample.labels)
    head = np.asarray(models["raw"].params["head"]["kernel"], np.float64).T
    v = head[y]
    centred = z - z.mean(0)
    means = np.stack([z[y == c].mean(0) for c in range(10)]) - z.mean(0)
    with jax.enable_x64(True):
        expected = {
            "entropy_features": ij.matrix_entropy(z), "entropy_head": ij.matrix_entropy(v),
            "joint_entropy": ij.joint_entropy(z, v), "mutual_information": ij.mutual_information(z, v),
            "mir": ij.mir(z, v), "hdr": ij.hdr(z, v), "mir_centered": ij.mir(centred, v),
            "entropy_features_centered": ij.matrix_entropy(centred), "entropy_head_weights": ij.matrix_entropy(head),
            "effective_rank_from_gram": np.exp(ij.matrix_entropy(z)), "entropy_means": ij.matrix_entropy(means),
            "mir_means": ij.mir(head, means), "hdr_means": ij.hdr(head, means),
        }  # fmt: skip
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    expected["mean_energy"] = np.sum(unit.mean(0) ** 2)
    limits = ij.nc_limits(10, counts=np.bincount(y), mean_energy=expected["mean_energy"])
    expected |= {"limit_mir": limits.mir, "limit_entropy_features": limits.entropy_features}
    corners = np.asarray(ij.etf(10))[y]  # collapsed features of these very samples, whose classes are not equal
    with jax.enable_x64(True):
        expected["limit_mir_centered"] = ij.mir(corners - corners.mean(0), corners)
        expected["limit_entropy_features_centered"] = ij.matrix_entropy(corners - corners.mean(0))
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(value), rel=2e-5, abs=1e-5), name


def test_neural_collapse(setting):
    models, sample, outputs = setting
    head = models["raw"].params["head"]
    for convention in ("thesis", "papyan"):
        found = dict(on_sample(forward(PLAIN), sample, [partial(neural_collapse, convention=convention)])(models))
        assert found["convention"] == convention and found["n"] == 230
        expected = ij.neural_collapse(
            np.asarray(outputs.embedding), np.asarray(sample.labels), np.asarray(head["kernel"]).T,
            np.asarray(head["bias"]), num_classes=10, convention=convention,
        )  # fmt: skip
        for name in ("nc1", "nc2_equinorm", "nc3", "nc4", "cdnv", "davies_bouldin"):
            assert found[name] == pytest.approx(float(getattr(expected, name)), rel=1e-4), name
        logits = np.asarray(outputs.logits, np.float64)
        whole = np.mean(np.sum((logits - np.eye(10)[np.asarray(sample.labels)]) ** 2, 1)) / 2
        assert found["mse_nc1"] + found["mse_nc2_nc3"] + found["mse_head"] == pytest.approx(whole, rel=1e-4)


def test_a_collapsed_network_is_at_its_limits():
    """A network whose embedding is the simplex ETF of its labels: everything meets its limit."""
    etf = jnp.asarray(ij.etf(4, 6), jnp.float32)
    labels = jnp.arange(40) % 4

    def apply(params, model_state, x, train, stop=None):
        return Output(etf[x] @ etf.T, etf[x], {}), model_state

    net = Net(None, apply, head=lambda params: Head(etf, jnp.zeros(4)))
    models, sample = {"raw": Model({}, {}, net)}, Sample("train", labels, labels)
    found = dict(on_sample(forward(lambda key, x: x), sample, [interplay])(models))
    for name in ("entropy_features", "entropy_head", "joint_entropy", "mutual_information", "mir", "hdr"):
        assert found[name] == pytest.approx(found[f"limit_{name}"], abs=2e-5), name
    assert found["hdr_means"] == pytest.approx(0, abs=1e-5) and found["effective_rank_means"] == pytest.approx(
        3, abs=1e-4
    )
    collapsed = dict(on_sample(forward(lambda key, x: x), sample, [neural_collapse])(models))
    assert collapsed["nc1"] == pytest.approx(0, abs=1e-6) and collapsed["nc3"] == pytest.approx(0, abs=1e-6)
    assert dict(on_sample(forward(lambda key, x: x), sample, [classify])(models))["accuracy"] == 1


def test_unequal_classes_have_limits():
    """Less mean energy than such counts give a simplex is possible away from collapse, and no error."""
    labels = jnp.asarray(np.repeat([0, 1, 2], (300, 60, 40)))
    rng = np.random.default_rng(0)
    z = np.asarray(ij.etf(3, 6))[np.asarray(labels)] + 0.6 * rng.standard_normal((400, 6))
    z = jnp.asarray(z - z.mean(0), jnp.float32)
    head = jnp.asarray(ij.etf(3, 6), jnp.float32)
    outputs, head = {"raw": Outputs(z @ head.T, z)}, Head(head, jnp.zeros(3))
    found = dict(interplay(Evaluation(Sample("train", labels, labels), outputs, head)))
    limits = ij.nc_limits(3, counts=[300, 60, 40])
    assert found["mean_energy"] < 0.1 and found["limit_mir"] == pytest.approx(limits.mir)
    assert found["limit_hdr_centered"] > 0.01  # the centred simplex is bent


def test_one_forward_pass_for_all_measures(setting):
    models, sample, _ = setting
    passes = []
    net = models["raw"].net
    counted = net._replace(apply=lambda *args, **kw: passes.append(1) or net.apply(*args, **kw))
    models = {name: replace(model, net=counted) for name, model in models.items()}
    with jax.disable_jit():
        dict(on_sample(forward(PLAIN, 115), sample, [classify, neural_collapse, classify])(models))
    assert len(passes) == 2 * 2  # two batches, raw and averaged weights


@pytest.mark.parametrize(
    ("scale", "which", "says"),
    [(np.inf, "raw", "embedding"), (np.inf, "ema", "embedding_ema"), (3e38, "raw", "logits"), (2.2e38, "raw", "loss")],
)
def test_what_is_not_finite_is_named_and_not_decomposed(setting, capfd, scale, which, says):
    """2.2e38 is within float32, but not twice it: logits of 2.2e38 and -2.2e38 have an infinite loss."""
    models, sample, _ = setting
    z = jnp.ones((230, 24)).at[:, 1].set(-1)
    logits = jnp.zeros((230, 10)).at[:, 0].set(-jnp.float32(scale)).at[:, 1].set(jnp.float32(scale))
    wrong = {
        "embedding": Outputs(logits, z * jnp.float32(scale)),
        "logits": Outputs(1.5 * logits, z),
        "loss": Outputs(logits, z),
    }
    harmless = Outputs(jnp.zeros((230, 10)), z)

    def through(model, x):
        return wrong[says.split("_")[0]] if model is models[which] else harmless

    found = dict(on_sample(through, sample, [classify, interplay, neural_collapse])(models))
    assert found["not_finite"] == says
    assert ("mir" in found) == (says == "loss")
    assert "DLASCL" not in "".join(capfd.readouterr())


def test_values_that_are_nan_by_right_say_nothing_of_the_network(setting):
    models, sample, _ = setting

    def measure(evaluation):
        yield "nc1", float("nan")
        yield "losses_in_bits", float("inf")

    assert "not_finite" not in dict(on_sample(forward(PLAIN), sample, [measure])(models))
