"""The parts of a head's squared error against the error itself and against NumPy's least squares."""

import jax
import jax.numpy as jnp
import mpmath as mp
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


def best_head(z, labels, weights, num_classes=4):
    """(5..., C): least squares with an intercept, by NumPy."""
    root = np.sqrt(weights)[:, None]
    with_one = np.column_stack([z, np.ones(len(z))])
    return np.linalg.lstsq(root * with_one, root * np.eye(num_classes)[labels], rcond=1e-10)[0]


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


def exact_parts(z, labels, head, bias):
    """[nc1, nc2_nc3, head] in 60 digits: the normal equations of least squares, by mpmath. Needs N > D."""
    (n, dim), num_classes = z.shape, len(head)
    share = [mp.mpf(int(np.sum(labels == c))) / n for c in range(num_classes)]
    mean = [mp.fsum(z[:, d]) / n for d in range(dim)]
    x = mp.matrix(n, dim)
    y = mp.matrix(n, num_classes)
    for i, d in np.ndindex(n, dim):
        x[i, d] = z[i, d] - mean[d]
    for i, c in np.ndindex(n, num_classes):
        y[i, c] = int(labels[i] == c) - share[c]
    best = (x.T * x) ** -1 * (x.T * y)
    answer = x * best
    given = mp.matrix(z.tolist()) * mp.matrix(head.T.tolist())
    parts = [mp.mpf(0)] * 3
    for c, k in np.ndindex(num_classes, num_classes):
        rows = np.flatnonzero(labels == k)
        center = mp.fsum(answer[int(i), c] for i in rows) / len(rows)
        parts[0] += mp.fsum((answer[int(i), c] - center) ** 2 for i in rows) / n / 2
        parts[1] += share[k] * (center - int(c == k) + share[c]) ** 2 / 2
        parts[2] += mp.fsum((given[int(i), c] + bias[c] - answer[int(i), c] - share[c]) ** 2 for i in rows) / n / 2
    return np.array(parts)


MEANS, NOISE = 2 * RNG.standard_normal((3, 4)), RNG.standard_normal((14, 4))
DIRECTION, SMALL_LABELS = RNG.standard_normal((14, 4)), np.arange(14) % 3


def _parts(z, head, bias):
    return jnp.stack(ij.squared_error(z, SMALL_LABELS, head, bias))


_forward = jax.jit(lambda z, head, bias, t: jax.jvp(lambda z: _parts(z, head, bias), (z,), (t,)))
_reverse = jax.jit(jax.jacrev(_parts))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("dim", [4, 2, 1])  # beside the means; no direction beside them; less than C - 1
def test_near_collapse(dim, dtype):
    """Values and derivatives against 60 digits, for the spread d within classes down to the rounding of float32."""
    with mp.workdps(60):
        for d in 10.0 ** -np.arange(1, 8 if dtype == np.float64 else 6):
            z = (MEANS[SMALL_LABELS] + d * NOISE)[:, :dim].astype(dtype)
            head, bias = HEAD[:3, :dim].astype(dtype), BIAS[:3].astype(dtype)
            t = (d * DIRECTION[:, :dim]).astype(dtype)
            wide = [mp_array(x) for x in (z, head, bias, t)]
            step = mp.mpf(10) ** -20
            right = exact_parts(wide[0], SMALL_LABELS, *wide[1:3])
            higher, lower = (exact_parts(wide[0] + s * wide[3], SMALL_LABELS, *wide[1:3]) for s in (step, -step))
            slope = (higher - lower) / (2 * step)
            value, forward = _forward(z, head, bias, t)
            reverse = np.sum(np.asarray(_reverse(z, head, bias), np.float64) * t, axis=(1, 2))
            # Condition numbers of this Sigma_W and of these means are below 30. Means are off by eps m / 2 in each
            # of four columns, which adds eps^2 m^2 to a Sigma_W whose least eigenvalue is above d^2 / 5.
            eps = float(jnp.finfo(dtype).eps)
            off = 5**0.5 * eps * np.abs(MEANS).max() / d
            np.testing.assert_allclose(value, right.astype(float), rtol=900 * eps + off**2)
            for found in (forward, reverse):
                error = np.abs(np.asarray(found, np.float64) - slope.astype(float))
                assert (error <= (900 * eps + off) * np.maximum(np.abs(slope), right).astype(float)).all()


def mp_array(x):
    return np.vectorize(lambda entry: mp.mpf(float(entry)), otypes=[object])(x)


SHAPES = {
    "fewer dimensions than C - 1": (60, 3, 6, 6),
    "no direction beside the means": (50, 4, 5, 5),
    "fewer samples than dimensions": (20, 40, 4, 4),
    "as many samples as classes": (5, 7, 5, 5),
    "absent classes": (40, 7, 5, 3),
    "one class": (30, 5, 3, 1),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_rank_and_its_derivatives(name):
    """Against NumPy's least squares and finite differences in features, head, bias and weights."""
    n, dim, num_classes, present = SHAPES[name]
    rng = np.random.default_rng(1)
    labels = np.arange(n) % present
    arguments = (
        2 * rng.standard_normal((num_classes, dim))[labels] + 0.5 * rng.standard_normal((n, dim)),
        rng.standard_normal((num_classes, dim)),
        rng.standard_normal(num_classes),
        rng.uniform(0.5, 2, n),
    )
    tangents = [rng.standard_normal(x.shape) for x in arguments]

    def parts(z, head, bias, w):
        return jnp.stack(ij.squared_error(z, labels, head, bias, weights=w))

    def right(z, head, bias, w):
        solution, one_hot = best_head(z, labels, w, num_classes), np.eye(num_classes)[labels]
        answers = np.column_stack([z, np.ones(n)]) @ solution
        means = np.stack([np.average(answers, axis=0, weights=w * (labels == c)) for c in range(present)])[labels]
        rows = answers - means, means - one_hot, z @ head.T + bias - answers
        return np.array([np.average(np.sum(x**2, axis=1), weights=w) / 2 for x in rows])

    value, slope = jax.jit(lambda a, t: jax.jvp(parts, a, t))(arguments, tuple(tangents))
    assert (np.asarray(value) >= 0).all()
    np.testing.assert_allclose(value, right(*arguments), rtol=1e-9, atol=1e-18)
    higher, lower = (right(*(x + h * t for x, t in zip(arguments, tangents, strict=True))) for h in (1e-5, -1e-5))
    np.testing.assert_allclose(slope, (higher - lower) / 2e-5, rtol=1e-6, atol=1e-9)


def test_second_derivatives():
    labels, t, h = SMALL_LABELS, DIRECTION, 1e-5

    def slope(z):
        return jax.grad(lambda z: jnp.dot(jnp.array([1.0, 2.0, 0.1]), _parts(z, HEAD[:3, :4], BIAS[:3])))(z)

    z = MEANS[labels] + 0.5 * NOISE
    bend = jax.jit(lambda z: jax.jvp(slope, (z,), (t,)))
    right = (bend(z + h * t)[0] - bend(z - h * t)[0]) / (2 * h)
    np.testing.assert_allclose(bend(z)[1], right, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("s", [2.0**-60, 2.0**60])
def test_scales(s):
    z, head = jnp.asarray(Z, jnp.float32), jnp.asarray(HEAD, jnp.float32)

    def whole(z, head):
        return sum(ij.squared_error(z, LABELS, head))

    np.testing.assert_array_equal(ij.squared_error(z * s, LABELS, head / s), ij.squared_error(z, LABELS, head))
    np.testing.assert_allclose(jax.grad(whole)(z * s, head / s) * s, jax.grad(whole)(z, head), rtol=1e-5)


def test_fewer_samples_than_dimensions_in_float32():
    """The best head makes no error; rounding errors made its squared error negative."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        z, head = (1 + rng.standard_normal(shape).astype(np.float32) for shape in ((20, 40), (3, 40)))
        found = ij.squared_error(z, np.arange(20) % 3, head)
        assert found.nc1.dtype == np.float32
        assert 0 <= float(found.nc1) < 1e-6 and 0 <= float(found.nc2_nc3) < 1e-6
