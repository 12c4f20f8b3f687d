"""Logistic regression against scikit-learn's, and the frozen features of a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infojax.data import Arrays, DataError
from infojax.evaluate.probe import accuracy, frozen_features, logistic_regression, standard
from infojax.models import build
from infojax.objectives import Model
from infojax.train.networks import as_net

linear_model = pytest.importorskip("sklearn.linear_model")


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 150)
    x = rng.normal(size=(4, 10))[labels] + 1.5 * rng.normal(size=(150, 10))
    x = (100 + 5 * x).astype(np.float32)  # far from the origin
    x[:, 3] = 7.0  # a constant feature
    return x, labels


@pytest.mark.parametrize(("c", "block"), [(1.0, 65_536), (0.01, 64), (30.0, 65_536)])
def test_logistic_regression_is_scikit_learns(sample, c, block):
    x, labels = sample
    z = standard(x)(x)
    expected = linear_model.LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(z.astype(np.float64), labels)
    found = logistic_regression(z, labels, 4, c, tolerance=1e-6, block=block)
    assert found.gradient < 1e-5 and 1 < found.steps < 1000
    weights = np.asarray(found.head.weights)
    np.testing.assert_allclose(weights, expected.coef_, atol=2e-3 * np.abs(expected.coef_).max())
    bias = np.asarray(found.head.bias)
    np.testing.assert_allclose(bias - bias.mean(), expected.intercept_ - expected.intercept_.mean(), atol=2e-3)
    assert accuracy(found.head, z, labels, block=40) == pytest.approx(expected.score(z, labels))
    logits = z @ expected.coef_.T + expected.intercept_
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(150), labels]
    np.testing.assert_allclose(found.loss, losses.mean() + (expected.coef_**2).sum() / (2 * c * 150), rtol=1e-5)


def test_not_converged_is_said(sample):
    x, labels = sample
    found = logistic_regression(standard(x)(x), labels, 4, steps=2)
    assert not found.converged and found.steps == 2 and found.gradient > 1e-4
    with pytest.raises(ValueError, match="c must be positive, got 0"):
        logistic_regression(x, labels, 4, 0)
    with pytest.raises(ValueError, match=r"got \(150, 10\) and 3 labels"):
        logistic_regression(x, labels[:3], 4)


def test_standard(sample):
    x, _ = sample
    z = standard(x)(x)
    np.testing.assert_allclose(z.mean(0), np.zeros(10), atol=1e-4)
    np.testing.assert_allclose(z.std(0), [1, 1, 1, 0, 1, 1, 1, 1, 1, 1], atol=1e-4)


def test_frozen_features():
    """All samples in their order, the last batch short; layers are averaged over positions; NaN is refused."""
    rng = np.random.default_rng(0)
    source = Arrays(rng.integers(0, 256, (11, 8, 8, 3), dtype=np.uint8), np.arange(11) % 3)
    net = as_net(build("vit_tiny", 3, size=(24, 2, 3), patch=4), jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32))
    model = Model(*net.init(jax.random.key(0)), net)

    def transform(key, x):
        return x.astype(jnp.float32) / 255

    whole = model(transform(None, source.x))
    for layer, expected in (("embedding", whole.embedding), ("block1", whole.features["block1"].mean(1))):
        found, labels = frozen_features(model, transform, source, layer, batch_size=4)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(labels, source.labels)
    with pytest.raises(DataError, match="the features of 11 of 11 samples are NaN or Inf"):
        frozen_features(model, lambda key, x: transform(key, x) / 0 * 0, source)
