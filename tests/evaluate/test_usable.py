"""V-information of layers: linear decoders against scikit-learn's logistic regression, and the conventions."""

import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from infojax.evaluate import Decoding, layer_shapes, usable
from infojax.evaluate.forward import Sample
from infojax.evaluate.usable import shuffled_digits
from infojax.models import build
from infojax.objectives import Model
from infojax.train.networks import as_net

RNG = np.random.default_rng(0)
CLASSES, WIDTH = 3, 6
COUNTS = {"train": (27, 27, 27), "test": (36, 27, 18)}
MEANS = 0.7 * RNG.normal(size=(CLASSES, 4))


def sample(split):
    labels = RNG.permutation(np.repeat(np.arange(CLASSES), COUNTS[split]))
    x = MEANS[labels] + RNG.normal(size=(len(labels), 4))
    return Sample(split, jnp.asarray(x, jnp.float32), jnp.asarray(labels, jnp.int32))


SAMPLES = [sample("train"), sample("test")]
MODULE = build("mlp", CLASSES, widths=(WIDTH,))
NET = as_net(MODULE, jax.ShapeDtypeStruct((2, 4), jnp.float32))
ENCODER = NET.init(jax.random.key(5))  # no feature that tells a few samples apart: the best weights are finite
SHAPES = layer_shapes(NET, lambda key, x: x, SAMPLES[0].x)
NETWORK = {"raw": Model(*ENCODER, NET)}


def plain(key, x):
    return x


def net_of(layer):
    return NET if layer == "input" else as_net(MODULE, jax.ShapeDtypeStruct((2, WIDTH), jnp.float32), start=layer)


# Full batches of all samples, until nothing moves: the infimum over linear decoders.
STEPS = 250
FALLING = optax.adam(optax.cosine_decay_schedule(0.5, STEPS), b2=0.99)
LINEAR = Decoding(net_of, FALLING, plain, CLASSES, batch_size=81, epochs=STEPS, rest_loss=0.0)


def rows(kind, decoding=LINEAR, layers=("layer1",), network=NETWORK, samples=SAMPLES):
    return list(usable(kind, NET, samples, SHAPES, layers, decoding, [0])([network]))


def encodings(of):
    return np.asarray(NET.apply(*ENCODER, of.x, train=False, stop="layer1")[0])


def logistic(h, labels):
    return LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(h, labels)


def bits_of(labels):
    share = np.unique(labels, return_counts=True)[1] / len(labels)
    return -np.sum(share * np.log2(share))


@pytest.fixture(scope="module")
def sufficiency():
    return rows("sufficiency")


@pytest.fixture(scope="module")
def minimality():
    return rows("minimality")


def test_sufficiency_is_that_of_logistic_regression(sufficiency):
    for row, of, other in zip(sufficiency, SAMPLES, reversed(SAMPLES), strict=True):
        fitted = logistic(encodings(of), of.labels)
        bits = bits_of(of.labels) - log_loss(of.labels, fitted.predict_proba(encodings(of))) / math.log(2)
        held_out = log_loss(other.labels, fitted.predict_proba(encodings(other))) / math.log(2)
        assert 0.2 < bits < 1.4  # neither nothing nor all
        assert row["sufficiency"] == pytest.approx(bits, abs=2e-3)
        assert row["sufficiency_held_out"] == pytest.approx(bits_of(other.labels) - held_out, abs=0.03)
        place = {"run": 0, "split": of.split, "n": 81, "layer": "layer1", "depth": 1, "sufficiency_rested": 0}
        assert place.items() <= row.items()


def test_minimality_is_the_mean_over_digits(minimality):
    for row, of in zip(minimality, SAMPLES, strict=True):
        digits, h = shuffled_digits(np.asarray(of.labels), CLASSES), encodings(of)
        bits = []
        for column in digits.T:
            loss = log_loss(column, logistic(h, column).predict_proba(h), labels=np.unique(column))
            bits.append(bits_of(column) - loss / math.log(2))
        assert digits.shape[1] == {"train": 3, "test": 4}[of.split]  # 27 = 3^3 of a class, and 36 > 27
        np.testing.assert_allclose(row["minimality_digits"], bits, atol=5e-3)
        assert row["minimality"] == pytest.approx(np.mean(bits), abs=5e-3) and row["below_zero"] == []


def test_the_sum_over_digits(minimality):
    summed = rows("minimality", LINEAR._replace(digits="sum"))
    for row, mean in zip(summed, minimality, strict=True):
        assert row["minimality"] == pytest.approx(len(row["minimality_digits"]) * mean["minimality"], rel=1e-4)
        assert "sum over digits" in row["estimate"]


def test_given_the_label_every_class_has_decoders_of_its_own():
    [row, _] = rows("minimality", LINEAR._replace(condition="label"))
    labels, h = np.asarray(SAMPLES[0].labels), encodings(SAMPLES[0])
    digits, by_class = shuffled_digits(labels, CLASSES), []
    for c in range(CLASSES):
        mine = labels == c
        losses = [log_loss(d, logistic(h[mine], d).predict_proba(h[mine])) for d in digits[mine].T]
        by_class.append([bits_of(d) - loss / math.log(2) for d, loss in zip(digits[mine].T, losses, strict=True)])
    np.testing.assert_allclose(row["minimality_digits"], np.mean(by_class, axis=0), atol=0.03)


def test_log_c_for_the_entropy(sufficiency):
    found = rows("sufficiency", LINEAR._replace(entropy="log_c"))
    assert found[0]["sufficiency"] == pytest.approx(sufficiency[0]["sufficiency"], abs=1e-5)  # classes are even
    more = math.log2(3) - bits_of(SAMPLES[1].labels)
    assert found[1]["sufficiency"] == pytest.approx(sufficiency[1]["sufficiency"] + more, abs=1e-5) and more > 0.02


SHORT = LINEAR._replace(batch_size=10, epochs=2)


def test_the_running_loss_is_that_of_the_last_epoch_before_its_updates():
    """At a learning rate of nothing both are the loss of the first weights."""
    still = SHORT._replace(tx=optax.sgd(0.0), batch_size=81, epochs=1)
    evaluated, running = (rows("sufficiency", still._replace(value=v))[0] for v in ("evaluated", "running"))
    assert running["sufficiency"] == pytest.approx(evaluated["sufficiency"], abs=1e-5)
    moving = SHORT._replace(tx=optax.sgd(0.5), batch_size=81, epochs=3)
    evaluated, running = (rows("sufficiency", moving._replace(value=v))[0] for v in ("evaluated", "running"))
    assert running["sufficiency"] < evaluated["sufficiency"] - 1e-3


def test_what_is_worse_than_chance_is_kept_and_named():
    wild = SHORT._replace(tx=optax.sgd(30.0), epochs=1)
    [row, _] = rows("sufficiency", wild)
    assert row["sufficiency"] < 0 and "sufficiency" in row["below_zero"]


def test_a_decoder_that_leaves_the_finite_numbers_has_no_value():
    [row, _] = rows("minimality", SHORT._replace(tx=optax.sgd(1e38), epochs=3))
    assert math.isnan(row["minimality"]) and row["below_zero"] == []


def test_one_decoder_of_a_program_leaves_the_finite_numbers():
    """The others have their values, as if it were not there."""

    def some_broken(layer):
        """Decoders of some seeds have no finite loss in training, and a finite one at the end."""
        net = net_of(layer)

        def init(key):
            params, state = net.init(key)
            return {"net": params, "broken": jax.random.bernoulli(key).astype(jnp.float32)}, state

        def apply(params, state, h, train, **kwargs):
            output, state = net.apply(params["net"], state, h, train=train, **kwargs)
            factor = jnp.where(params["broken"] == 1, jnp.nan, 1.0) if train else 1.0
            return output._replace(logits=factor * output.logits), state

        return net._replace(init=init, apply=apply)

    ways = (SHORT._replace(net_of=some_broken, how=how) for how in ("dispatch", "vmap"))
    (alone, _), (together, _) = (rows("minimality", way) for way in ways)
    assert 0 < np.isnan(alone["minimality_digits"]).sum() < 3
    np.testing.assert_allclose(together["minimality_digits"], alone["minimality_digits"], atol=1e-4)


def test_all_digits_in_one_program():
    alone, together = (rows("minimality", SHORT._replace(how=h, fused=h == "vmap")) for h in ("dispatch", "vmap"))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_allclose(a["minimality_digits"], b["minimality_digits"], atol=1e-4)


def test_encoded_once_or_in_every_batch():
    """The same for a network whose features do not depend on the batch; a budget decides."""
    once, each, auto = (
        rows("minimality", SHORT._replace(encodings=e, budget=0)) for e in ("once", "each_batch", "auto")
    )
    for a, b, c in zip(once, each, auto, strict=True):
        np.testing.assert_allclose(a["minimality_digits"], b["minimality_digits"], atol=1e-4)
        assert b["minimality_digits"] == c["minimality_digits"]


def test_decoders_rest(minimality):
    [row, _] = rows("sufficiency", LINEAR._replace(rest_loss=1.0))
    assert row["sufficiency_rested"] == 1 and bits_of(SAMPLES[0].labels) - row["sufficiency"] < 1.0 / math.log(2)


def test_the_input_is_decoded_once_for_all_evaluations(monkeypatch):
    """And gives the rows of a second evaluation, as a resumed run computes them anew."""
    module, trained = sys.modules["infojax.evaluate.usable"], []
    fit = module.fit
    monkeypatch.setattr(module, "fit", lambda *a, **k: trained.append(1) or fit(*a, **k))
    run = usable("sufficiency", NET, SAMPLES, SHAPES, ("input", "layer1"), SHORT, [0])
    other = NET.init(jax.random.key(7))
    moved = {"raw": Model(*other, NET)}
    first, second = list(run([NETWORK])), list(run([moved]))
    assert len(trained) == 4 + 2  # two splits
    assert [row["layer"] for row in first] == ["input", "input", "layer1", "layer1"]
    assert first[:2] == second[:2] == rows("sufficiency", SHORT, ("input",), moved)
    assert first[2]["sufficiency"] != second[2]["sufficiency"]


def test_digits_are_an_arbitrary_name_of_each_sample():
    labels = np.tile(np.arange(4), 64)
    digits = shuffled_digits(labels, 4)
    assert digits.shape == (256, 3)
    for c in range(4):
        assert len({tuple(d) for d in digits[labels == c]}) == 64
    first = digits[:, 0].reshape(4, 64)  # by the place in the sample: no part of it has one digit alone
    assert all(np.bincount(part, minlength=4).max() < 32 for part in first)
