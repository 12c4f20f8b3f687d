"""The parts of a head's squared error against the error itself and against NumPy's least squares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import infojax as ij

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(4), (30, 20, 10, 5))
CENTRES = 3 * RNG.standard_normal((4, 6))
Z = CENTRES[LABELS] + 0.5 * RNG.standard_normal((65, 6)) + 2
HEAD, BIAS = RNG.standard_normal((4, 6)), RNG.standard_normal(4)
W = RNG.uniform(0, 2, 65)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def best_head(z, labels, weights):
    """(5..., C): least squares with an intercept, by NumPy."""
    root = np.sqrt(weights)[:, None]
    with_one = np.column_stack([z, np.ones(len(z))])
    return np.linalg.lstsq(root * with_one, root * np.eye(4)[labels], rcond=1e-10)[0]


@pytest.mark.parametrize("weights", [None, W])
@pytest.mark.parametrize("bias", [None, BIAS])
def test_parts_against_least_squares(weights, bias):
    w = np.ones(65) if weights is None else weights
    found = ij.squared_error(Z, LABELS, HEAD, bias, weights=weights)
    b = 0 if bias is None else bias
    whole = np.average(np.sum((Z @ HEAD.T + b - np.eye(4)[LABELS]) ** 2, 1), weights=w) / 2
    assert float(sum(found)) == pytest.approx(whole, rel=1e-10)
    solution = best_head(Z, LABELS, w)
    answers = np.column_stack([Z, np.ones(65)]) @ solution
    least = np.average(np.sum((answers - np.eye(4)[LABELS]) ** 2, 1), weights=w) / 2
    assert float(found.nc1 + found.nc2_nc3) == pytest.approx(least, rel=1e-9)
    means = np.stack([np.average(answers[LABELS == c], axis=0, weights=w[LABELS == c]) for c in range(4)])
    spread = np.average(np.sum((answers - means[LABELS]) ** 2, 1), weights=w) / 2
    assert float(found.nc1) == pytest.approx(spread, rel=1e-8)


def test_the_best_head_has_nothing_left_to_gain():
    solution = best_head(Z, LABELS, np.ones(65))
    assert float(ij.squared_error(Z, LABELS, solution[:-1].T, solution[-1]).head) == pytest.approx(0, abs=1e-12)


def test_fewer_dimensions_than_classes_and_absent_classes():
    flat = Z[:, :2]
    found = ij.squared_error(flat, LABELS, HEAD[:, :2])
    assert float(found.nc2_nc3) > 0.05  # four corners of a simplex do not fit into the plane
    assert float(sum(found)) == pytest.approx(
        np.mean(np.sum((flat @ HEAD[:, :2].T - np.eye(4)[LABELS]) ** 2, 1)) / 2, rel=1e-10
    )
    two = LABELS < 2
    whole = np.mean(np.sum((Z[two] @ HEAD.T - np.eye(4)[LABELS[two]]) ** 2, 1)) / 2
    assert float(sum(ij.squared_error(Z[two], LABELS[two], HEAD))) == pytest.approx(whole, rel=1e-10)


def test_collapse():
    """At exact collapse the best head makes no error, whatever the rank of the features."""
    etf = np.asarray(ij.etf(4, 6))
    found = ij.squared_error(etf[LABELS], LABELS, etf)
    assert float(found.nc1) == pytest.approx(0, abs=1e-12) and float(found.nc2_nc3) == pytest.approx(0, abs=1e-12)
    with jax.enable_x64(False):
        found = ij.squared_error(jnp.asarray(etf[LABELS], jnp.float32), LABELS, jnp.asarray(etf, jnp.float32))
        assert found.nc1.dtype == jnp.float32 and float(found.nc1 + found.nc2_nc3) < 1e-6


def test_streams_and_gradients():
    stats = ij.ClassStats.init(4, 6, scatter="within", dtype=jnp.float64)
    for part in np.split(RNG.permutation(65), 5):
        stats = stats.update(Z[part], LABELS[part])
    whole = ij.squared_error(Z, LABELS, HEAD, BIAS)
    np.testing.assert_allclose(ij.squared_error_from_stats(stats, HEAD, BIAS), whole, rtol=1e-10)
    check_grads(lambda z, head: ij.squared_error(z, LABELS, head, BIAS), (Z, HEAD), 1, rtol=1e-5)


def test_statistics_without_scatter_are_refused():
    with pytest.raises(ValueError, match="within"):
        ij.squared_error_from_stats(ij.class_stats(Z, LABELS), HEAD)
