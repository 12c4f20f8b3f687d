"""LiDAR against loops in float64, its bounds and degenerate cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import infojax as ij


def drawn(n, q, dim, seed=0):
    rng = np.random.default_rng(seed)
    scales = np.geomspace(1, 0.1, dim)
    return (rng.normal(size=(n, 1, dim)) * scales + 0.5 * rng.normal(size=(n, q, dim))).astype(np.float32)


def by_hand(z, convention, delta):
    """The definition, view by view, with the symmetric root of S_w."""
    z = np.asarray(z, np.float64)
    n, q, dim = z.shape
    means = [views.mean(0) for views in z]
    grand = np.mean(means, axis=0)
    s_b, s_w = np.zeros((dim, dim)), np.zeros((dim, dim))
    for mean, views in zip(means, z, strict=True):
        s_b += np.outer(mean - grand, mean - grand)
        for view in views:
            s_w += np.outer(view - mean, view - mean)
    s_b /= n - (convention == "unbiased")
    s_w = s_w / (n * (q - (convention == "unbiased"))) + delta * np.eye(dim)
    w, v = np.linalg.eigh(s_w)
    root = v @ np.diag(w**-0.5) @ v.T
    found = np.maximum(np.linalg.eigvalsh(root @ s_b @ root), 0)
    if convention == "unbiased":
        p = (found + 1e-8) / (found + 1e-8).sum()
        return np.exp(-(p * np.log(p)).sum())
    p = found / found.sum()
    if convention == "normalized":
        p = p[p > 1e-14]
        return -(p * np.log(p)).sum() / np.log(min(n, dim))
    return np.exp(-((p + 1e-7) * np.log(p + 1e-7)).sum())


@pytest.mark.parametrize("convention", ij.LIDAR_CONVENTIONS)
@pytest.mark.parametrize(("n", "q", "dim"), [(30, 4, 8), (6, 3, 20), (5, 2, 5)])
def test_lidar_is_its_definition(convention, n, q, dim):
    z = drawn(n, q, dim)
    for delta in (1e-4, 0.1):
        expected = by_hand(z, convention, delta)
        assert ij.lidar(z, convention=convention, delta=delta) == pytest.approx(expected, rel=2e-4)
        with jax.enable_x64(True):
            found = ij.lidar(z.astype(np.float64), convention=convention, delta=delta)
            assert found == pytest.approx(expected, rel=1e-6)
    plain, biased = (by_hand(z, name, 0.1) for name in ("paper", "unbiased"))
    assert abs(plain - biased) > 1e-3 * plain  # of few views the conventions differ


def test_bounds_and_invariances():
    """At most min(n - 1, D); an orthogonal map and a shift change nothing; linear maps only through delta."""
    with jax.enable_x64(True):
        z = drawn(40, 3, 6).astype(np.float64)
        value = float(ij.lidar(z))
        assert 1 < value <= 6 * (1 + 1e-4) and ij.lidar(z[:3]) <= 2 * (1 + 1e-4)
        rng = np.random.default_rng(1)
        turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
        assert ij.lidar(z @ turn + 5) == pytest.approx(value, rel=1e-9)
        assert ij.lidar(z @ rng.normal(size=(6, 6)), delta=1e-12) == pytest.approx(
            float(ij.lidar(z, delta=1e-12)), rel=1e-6
        )
        line = np.zeros((9, 2, 4))
        line[:, :, 1] = np.arange(9.0)[:, None]
        assert ij.lidar(line) == pytest.approx(1.0, abs=1e-5)  # one direction
        noise = rng.normal(size=(1, 4, 6)) - rng.normal(size=(1, 4, 6)).mean(1, keepdims=True)
        assert ij.lidar(np.repeat(noise, 5, axis=0)) == 0  # equal means
    assert ij.lidar(drawn(7, 2, 1), convention="normalized") == 0  # one dimension


def test_gradient_and_jit():
    z = drawn(12, 3, 5)
    with jax.enable_x64(True):
        z = jnp.asarray(z, jnp.float64)
        for convention in ij.LIDAR_CONVENTIONS:
            check_grads(lambda z, c=convention: ij.lidar(z, convention=c), (z,), 1, modes=["rev"], rtol=1e-4)
        np.testing.assert_allclose(jax.jit(ij.lidar)(z), ij.lidar(z), rtol=1e-9)


@pytest.mark.parametrize(
    ("z", "settings", "says"),
    [
        (np.ones((4, 3)), {}, r"z must be \(n, q, D\), two views or more of two samples or more; got \(4, 3\)"),
        (np.ones((4, 1, 3)), {}, r"got \(4, 1, 3\)"),
        (np.ones((1, 4, 3)), {}, r"got \(1, 4, 3\)"),
        (drawn(4, 2, 3), {"convention": "reptrix"}, "paper, unbiased, normalized; got 'reptrix'"),
        (drawn(4, 2, 3), {"delta": 0.0}, "delta must be"),
        (drawn(4, 2, 3), {"eps": -1.0}, "eps must be a number of at least 0"),
    ],
)  # fmt: skip
def test_bad_requests(z, settings, says):
    with pytest.raises(ValueError, match=says):
        ij.lidar(z, **settings)


@pytest.mark.parametrize("convention", ["paper", "unbiased", "normalized"])
@pytest.mark.parametrize("scale", [1e-30, 1e-24, 1e20, 1e30])
def test_no_square_under_or_overflows(convention, scale):
    """float32 agrees with float64, however large or small delta and eps are in comparison."""
    z = np.float32(drawn(10, 4, 6) * scale)
    with jax.enable_x64(True):
        expected = float(ij.lidar(np.float64(z), convention=convention))
    with jax.enable_x64(False):
        assert float(ij.lidar(z, convention=convention)) == pytest.approx(expected, rel=2e-5)
