"""The primitives against SciPy, mpmath and brute force, derivatives of every order that is promised included."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.linalg
from helpers import central_difference, features, gradient_and_hvp, half, positive_definite, random_symmetric, rotation

from infojax.measures import arrays, roots, spectra
from infojax.measures.divergence import LOG
from infojax.measures.entropy import _renyi_terms, log_divided

FEATURES = features()
POSITIVE_DEFINITE = positive_definite()
SQUARE_ROOT = spectra.SpectralFunction(jnp.sqrt, lambda a, b: 1 / (jnp.sqrt(a) + jnp.sqrt(b)))
SQUARE = spectra.SpectralFunction(lambda x: x * x, lambda a, b: a + b)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def bidiagonal_blocks(a, e, order):
    """[[A, E, 0], [0, A, E], [0, 0, A]] for order 2: f of it holds D^k f(A)[E, ..., E] / k! in block (0, k)."""
    blocks = order + 1
    return np.kron(np.eye(blocks), a) + np.kron(np.eye(blocks, k=1), e)


def taylor(f, order):
    """Compiled (x, e) -> f(x) and the derivatives of f(x + t e) in t at 0 up to an order, forward over forward."""

    def derivatives(x, e):
        along, values = (lambda t: f(x + t * e)), []
        for _ in range(order + 1):
            values.append(along(0.0))
            along = jax.jacfwd(along)
        return values

    return jax.jit(derivatives)


def _x_log_x_minus_x(x):
    return x * jnp.log(x) - x


def neg_entropy(k):
    """tr(K log K - K), whose gradient is log K."""
    return spectra.trace_function(_x_log_x_minus_x, LOG, k)


# --- types and shapes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "double", "expected"),
    [
        ("half", False, "float32"),
        ("bfloat16", False, "float32"),
        ("float32", False, "float32"),
        ("float32", True, "float32"),
        ("float64", True, "float64"),
        ("int32", False, "float32"),
        ("int8", True, "float64"),
        ("bool", False, "float32"),
    ],
)
def test_computed_in_float32_or_better(given, double, expected):
    with jax.enable_x64(double):
        x = arrays.as_float(np.ones((2, 2), half() if given == "half" else jnp.dtype(given)))
        assert x.dtype == expected and isinstance(x, jax.Array)


def test_wrong_shapes_and_types_are_named():
    with pytest.raises(ValueError, match=r"features must be \(N, D\).*\(3,\)"):
        arrays.as_rows(np.ones(3))
    with pytest.raises(ValueError, match=r"head must be \(C, D\).*\(1, 2, 3\)"):
        arrays.as_rows(np.ones((1, 2, 3)), "head")
    with pytest.raises(ValueError, match=r"k1 must be a square matrix.*\(2, 3\)"):
        arrays.as_square(np.ones((2, 3)), "k1")
    with pytest.raises(ValueError, match=r"weights must have shape \(4,\).*\(4, 1\)"):
        arrays.sample_weights(np.ones((4, 1)), 4, jnp.float32)
    with pytest.raises(TypeError, match="real array, got complex"):
        arrays.as_float(np.ones(2, complex))


def test_smaller_gram_is_smaller():
    a = np.random.default_rng(0).standard_normal((6, 4))
    np.testing.assert_allclose(spectra.smaller_gram(a), a.T @ a, rtol=0, atol=1e-14)
    np.testing.assert_allclose(spectra.smaller_gram(a.T), a.T @ a, rtol=0, atol=1e-14)
    assert spectra.smaller_gram(a[:0]).tolist() == spectra.smaller_gram(a[:, :0]).tolist() == [[0.0]]


# --- guarded scalars -------------------------------------------------------------------------------------------


def test_guarded_square_root_and_quotient():
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(arrays.safe_sqrt)))(jnp.array([4.0, 0.0, -1.0]))
    np.testing.assert_array_equal(value, [2, 0, 0])
    np.testing.assert_array_equal(slope, [0.25, 0, 0])
    quotient = jax.jit(jax.vmap(jax.value_and_grad(arrays.safe_divide, argnums=(0, 1)), (None, 0, None)))
    value, slopes = quotient(3.0, jnp.array([2.0, 0.0, -1.0]), 7.0)
    np.testing.assert_array_equal(value, [1.5, 7, 7])
    np.testing.assert_array_equal(slopes, [[0.5, 0, 0], [-0.75, 0, 0]])


RATIOS = np.concatenate([10.0 ** np.arange(-14, 15), 1 + 10.0 ** np.arange(-15, -1), 1 - 10.0 ** np.arange(-15, -1)])


def test_divided_difference_of_log_has_full_precision():
    # In the second derivative of every entropy. Both orders, since either argument may be the smaller.
    with mpmath.workdps(40):
        expected = [float(mpmath.log(x) / (mpmath.mpf(x) - 1)) if x != 1 else 1.0 for x in RATIOS]
    ones = jnp.ones(len(RATIOS))
    np.testing.assert_allclose(log_divided(RATIOS, ones), expected, rtol=1e-12)
    np.testing.assert_allclose(log_divided(ones, RATIOS), expected, rtol=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 0.9999, 1.0001, 1.3, 3.0, 10.0, 50.0])
def test_divided_differences_of_powers_have_full_precision(alpha):
    ratios = RATIOS[RATIOS <= 1]  # eigenvalues come relative to the largest
    with mpmath.workdps(80):
        p = mpmath.mpf(alpha) - 1
        expected = [float(alpha * ((mpmath.mpf(x) ** p - 1) / (mpmath.mpf(x) - 1) if x != 1 else p)) for x in ratios]
    divided, ones = _renyi_terms(alpha)[1].divided, jnp.ones(len(ratios))
    np.testing.assert_allclose(divided(ones, ratios), expected, rtol=1e-11)
    np.testing.assert_allclose(divided(ratios, ones), expected, rtol=1e-11)


def test_divided_differences_scale():
    a, b = jnp.array([2.0, 3.0]), jnp.array([0.5, 3.0])
    np.testing.assert_allclose(log_divided(7 * a, 7 * b), log_divided(a, b) / 7, rtol=1e-14)
    np.testing.assert_allclose(log_divided(a, b), [np.log(4) / 1.5, 1 / 3], rtol=1e-14)
    for alpha in (0.5, 1.2, 3.0):
        expected = [alpha * (2.0 ** (alpha - 1) - 0.5 ** (alpha - 1)) / 1.5, alpha * (alpha - 1) * 3 ** (alpha - 2)]
        np.testing.assert_allclose(_renyi_terms(alpha)[1].divided(a, b), expected, rtol=1e-13)


# --- unit rows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FEATURES)
def test_unit_rows(name):
    z = FEATURES[name]
    u, live = spectra.unit_rows(jnp.asarray(z))
    norm = np.linalg.norm(z, axis=1)
    np.testing.assert_array_equal(live, norm > 0)
    expected = np.divide(z, norm[:, None], out=np.zeros_like(z), where=norm[:, None] > 0)
    np.testing.assert_allclose(u, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-5, 1.0, 1e18, 1e19, 1e30, 1e37])
def test_unit_rows_do_not_under_or_overflow(scale):
    z = np.random.default_rng(0).uniform(-1, 1, (4, 3))
    u, live = spectra.unit_rows(jnp.asarray(z * scale, jnp.float32))
    assert u.dtype == jnp.float32 and live.all()
    np.testing.assert_allclose(u, z / np.linalg.norm(z, axis=1, keepdims=True), rtol=0, atol=3e-7)


def test_unit_rows_below_the_floor_have_no_direction():
    z = jnp.array([[3.0, -4.0], [1e-3, 0.0], [-0.5, 0.0]])
    u, live = spectra.unit_rows(z, 0.5)
    np.testing.assert_allclose(u, [[0.6, -0.8], [0, 0], [0, 0]], atol=1e-15)
    assert live.tolist() == [True, False, False]
    u, live = spectra.unit_rows(z, jnp.array([[9.0], [0.0], [0.0]]))
    assert live.tolist() == [False, True, True]


def test_unit_rows_have_the_derivatives_of_a_projection():
    ct, e = np.random.default_rng(0).standard_normal((2, 8, 5))

    def closed_form(z):
        norm = np.linalg.norm(z, axis=1, keepdims=True)
        u = z / np.where(norm > 0, norm, 1)
        return (ct - u * (ct * u).sum(1, keepdims=True)) / np.where(norm > 0, norm, np.inf)

    derivatives = gradient_and_hvp(lambda z: jnp.sum(ct * spectra.unit_rows(z)[0]))
    for name in ("N > D", "zero rows", "rank one with signs"):
        z = FEATURES[name]
        along = np.where(z.any(axis=1, keepdims=True), e, 0)  # a zero row has no direction to move to
        gradient, hvp = derivatives(z, along)
        np.testing.assert_allclose(gradient, closed_form(z), rtol=0, atol=1e-14)
        expected = central_difference(closed_form, z, along, 1e-4)
        np.testing.assert_allclose(hvp, expected, rtol=0, atol=1e-9)


def test_a_row_with_nan_stays_nan():
    u, _ = spectra.unit_rows(jnp.array([[1.0, 1.0], [jnp.nan, 2.0], [jnp.inf, 0.0]]))
    assert np.isnan(np.asarray(u)).any(axis=1).tolist() == [False, True, True]


# --- directions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("center", [False, True])
def test_directions_are_those_of_the_samples_that_count(center):
    z = FEATURES["N > D"]
    weights = np.array([1, 0, 2, 0.5, 0, 1, 3, 1.0])
    kept = weights > 0
    rows = z[kept] - (weights[kept] @ z[kept] / weights.sum() if center else 0)
    u, p = spectra.directions(z, weights, center)
    np.testing.assert_allclose(p, weights / weights.sum(), atol=1e-15)
    np.testing.assert_allclose(np.asarray(u)[kept], rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-14)


def test_rows_equal_to_the_mean_have_no_direction():
    z = 1e6 + np.array([[0.1, 0.2], [0.1, 0.2], [0.1, 0.2]])
    for dtype in (jnp.float32, jnp.float64):
        u, p = spectra.directions(jnp.asarray(z, dtype), None, True)
        assert not np.any(u) and not np.any(p)  # and not the unit vectors of three rounding errors
    u, p = spectra.directions(jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]), None, True)
    np.testing.assert_allclose(p, [0.5, 0.5, 0], atol=1e-15)


def test_no_sample_left_gives_probabilities_zero():
    for weights in (np.zeros(8), None):
        z = FEATURES["N > D"] if weights is not None else FEATURES["all zero"]
        for center in (False, True):
            u, p = spectra.directions(z, weights, center)
            assert not np.any(u) and not np.any(p)


# --- spectra ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FEATURES)
def test_eigenvalues_are_the_same_on_the_host_and_in_a_program(name):
    k = FEATURES[name] @ FEATURES[name].T
    host, traced = spectra.eigenvalues(jnp.asarray(k)), jax.jit(spectra.eigenvalues)(k)
    expected = np.linalg.eigvalsh(k)
    top = expected[-1]
    for w in (host, traced):
        np.testing.assert_allclose(w, expected, rtol=0, atol=1e-14 * max(top, 1e-300))
        assert (w >= 0).all()
        # noise is zero, exactly
        assert int((w > 0).sum()) == np.linalg.matrix_rank(k, tol=len(k) * np.finfo(float).eps * top, hermitian=True)


def test_eigenvalues_of_a_batch():
    k = jnp.stack([jnp.asarray(m) for m in POSITIVE_DEFINITE.values()])
    np.testing.assert_allclose(spectra.eigenvalues(k), np.linalg.eigvalsh(k), rtol=0, atol=1e-13)
    np.testing.assert_allclose(jax.vmap(spectra.eigenvalues)(k), np.linalg.eigvalsh(k), rtol=0, atol=1e-13)


@pytest.mark.parametrize("traced", [False, True])
def test_eigenvalues_of_nan_are_nan(traced):
    f = jax.jit(spectra.eigenvalues) if traced else spectra.eigenvalues
    for place in ((1, 2), (0, 0)):
        k = np.eye(8)
        k[place] = k[place[::-1]] = np.nan
        assert np.isnan(f(k)).any(), place


# --- functions of matrices -------------------------------------------------------------------------------------


FUNCTIONS = {
    "log": (taylor(partial(spectra.matrix_function, LOG), 1), scipy.linalg.logm),
    "sqrt": (taylor(partial(spectra.matrix_function, SQUARE_ROOT), 1), scipy.linalg.sqrtm),
    "square": (taylor(partial(spectra.matrix_function, SQUARE), 1), lambda k: k @ k),
}


@pytest.mark.parametrize("name", POSITIVE_DEFINITE)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_matrix_function_and_its_derivative(name, function):
    (ours, oracle), k, e = FUNCTIONS[function], POSITIVE_DEFINITE[name], random_symmetric(5)
    value, derivative = ours(k, e)
    both = oracle(bidiagonal_blocks(k, e, 1))
    np.testing.assert_allclose(value, both[:5, :5], rtol=0, atol=1e-12)
    np.testing.assert_allclose(derivative, both[:5, 5:], rtol=0, atol=1e-12 * np.abs(both).max())


def test_matrix_function_of_a_singular_matrix_lives_on_its_support():
    q = rotation(5)[:, :2]
    k = (q * np.array([3.0, 0.5])) @ q.T
    value, _ = FUNCTIONS["log"][0](k, k)
    np.testing.assert_allclose(value, (q * np.log([3.0, 0.5])) @ q.T, rtol=0, atol=1e-14)
    value, _ = FUNCTIONS["log"][0](jnp.zeros((5, 5)), k)
    assert not np.any(value)


def test_derivative_of_a_function_of_a_singular_matrix_is_right_where_the_rank_is_kept():
    a, da = np.random.default_rng(3).standard_normal((2, 5, 2))

    def log_on_support(a):
        w, v = np.linalg.eigh(a @ a.T)
        return (v[:, 3:] * np.log(w[3:])) @ v[:, 3:].T

    _, got = FUNCTIONS["log"][0](a @ a.T, a @ da.T + da @ a.T)
    np.testing.assert_allclose(got, central_difference(log_on_support, a, da), rtol=0, atol=1e-8)


NEG_ENTROPY = gradient_and_hvp(neg_entropy)


@pytest.mark.parametrize("name", POSITIVE_DEFINITE)
def test_trace_function_to_second_order(name):
    k, e = POSITIVE_DEFINITE[name], random_symmetric(5, 1)
    w = np.linalg.eigvalsh(k)
    assert float(neg_entropy(k)) == pytest.approx(float((w * np.log(w) - w).sum()), rel=1e-13)
    gradient, hvp = NEG_ENTROPY(k, e)
    both = scipy.linalg.logm(bidiagonal_blocks(k, e, 1))
    np.testing.assert_allclose(gradient, both[:5, :5], rtol=0, atol=1e-12)
    np.testing.assert_allclose(hvp, both[:5, 5:], rtol=0, atol=1e-12 * np.abs(both).max())


def test_second_derivative_of_an_ill_conditioned_matrix():
    w, e = np.array([1e-9, 1e-4, 1e-4, 1.0, 10.0]), random_symmetric(5)
    a, b = np.meshgrid(w, w, indexing="ij")
    divided = np.where(a == b, 1 / a, np.log(a / b) / np.where(a == b, 1, a - b))
    _, hvp = NEG_ENTROPY(np.diag(w), e)
    np.testing.assert_allclose(hvp, divided * e, rtol=1e-11)


SIDES = [gradient_and_hvp(lambda a: neg_entropy(a @ a.T)), gradient_and_hvp(lambda a: neg_entropy(a.T @ a))]


@pytest.mark.parametrize("name", ["N > D", "power law", "duplicated rows", "rank two", "rank one", "zero rows"])
def test_derivatives_of_a_singular_gram_are_those_of_its_smaller_side(name):
    # tr f(A A^T) = tr f(A^T A), though the left one is singular: one gradient, and one Hessian where A keeps its rank.
    a, e = FEATURES[name], np.random.default_rng(2).standard_normal((8, 5))
    rank = np.linalg.matrix_rank(a)
    if rank < 5:
        e = a @ random_symmetric(5) + random_symmetric(8) @ a  # moves A without raising its rank
    (large, hvp), (small, expected) = (side(a, e) for side in SIDES)
    np.testing.assert_allclose(large, small, rtol=0, atol=1e-11)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(hvp, expected, rtol=0, atol=1e-11 * scale)

    def gradient(a):  # 2 log(A A^T) A through the singular value decomposition
        u, s, vt = np.linalg.svd(a, full_matrices=False)
        return 2 * (u[:, :rank] * s[:rank] * np.log(s[:rank] ** 2)) @ vt[:rank]

    np.testing.assert_allclose(large, gradient(a), rtol=0, atol=1e-11)
    if rank == 5:
        numerical = central_difference(gradient, a, e, 1e-4)
        np.testing.assert_allclose(hvp, numerical, rtol=0, atol=1e-6 * scale)


def test_plain_jax_cannot_do_this():
    """Why the custom rules exist: the naive formula has no Hessian at repeated eigenvalues, ours is exact."""

    def naive(k):
        w, v = jnp.linalg.eigh(k)
        return jnp.trace((v * (w * jnp.log(w) - w)[None, :]) @ v.T)

    naive = gradient_and_hvp(naive)
    k, e = np.eye(5), random_symmetric(5)
    assert np.isnan(naive(k, e)[1]).any()
    np.testing.assert_allclose(NEG_ENTROPY(k, e)[1], e, rtol=0, atol=1e-14)  # log(I + E) = E + ...
    singular = np.diag([np.e, np.e, 1.0, 0.0, 0.0])
    assert np.isnan(naive(singular, e)[0]).any()
    np.testing.assert_allclose(NEG_ENTROPY(singular, e)[0], np.diag([1, 1, 0, 0, 0]), rtol=0, atol=1e-14)


# --- square roots and Lyapunov equations -----------------------------------------------------------------------

SQUARE_ROOT_TO_THIRD_ORDER = taylor(roots.psd_sqrt, 3)


@pytest.mark.parametrize("name", POSITIVE_DEFINITE)
def test_square_root_to_third_order(name):
    k, e = POSITIVE_DEFINITE[name], 0.05 * random_symmetric(5)
    blocks = scipy.linalg.sqrtm(bidiagonal_blocks(k, e, 3))
    for order, got in enumerate(SQUARE_ROOT_TO_THIRD_ORDER(k, e)):
        expected = math.factorial(order) * blocks[:5, 5 * order : 5 * order + 5]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12 * np.abs(expected).max(), err_msg=f"{order}")


@jax.jit
def reverse_derivatives_of_the_square_root(k, e, c):
    """Gradient of <C, sqrt K>, and its first and second derivatives along e, forward over reverse; reverse twice."""
    gradient = jax.grad(lambda k: jnp.sum(c * roots.psd_sqrt(k)))
    along = lambda k: jax.jvp(gradient, (k,), (e,))[1]  # noqa: E731
    twice = jax.grad(lambda k: jnp.sum(e * gradient(k)))(k)
    return gradient(k), *jax.jvp(along, (k,), (e,)), twice


@pytest.mark.parametrize("name", POSITIVE_DEFINITE)
def test_square_root_to_third_order_in_reverse(name):
    k, e, c, f = (POSITIVE_DEFINITE[name], *(0.05 * random_symmetric(5, seed) for seed in range(3)))
    # f(A + s E + t F) for nilpotent s (s^3 = 0) and t (t^2 = 0): the coefficient of s^m t is D^(m+1) f[E, ..., F] / m!.
    s, t = np.kron(np.eye(3, k=1), np.eye(2)), np.kron(np.eye(3), np.eye(2, k=1))
    blocks = scipy.linalg.sqrtm(np.kron(np.eye(6), k) + np.kron(s, e) + np.kron(t, f)).reshape(6, 5, 6, 5)
    first, second, third = ((c * blocks[0, :, 2 * m + 1, :]).sum() for m in range(3))
    gradient, hvp, beyond, twice = (float((x * f).sum()) for x in reverse_derivatives_of_the_square_root(k, e, c))
    assert gradient == pytest.approx(first, rel=1e-9)
    assert hvp == pytest.approx(second, rel=1e-9) and twice == pytest.approx(second, rel=1e-9)
    assert beyond == pytest.approx(2 * third, rel=1e-8)


def test_square_root_of_a_singular_matrix():
    assert not np.any(roots.psd_sqrt(jnp.zeros((5, 5))))
    # Perturbed within the rank, as the second moment of a class with fewer samples than dimensions is.
    a, da = np.random.default_rng(0).standard_normal((2, 5, 2))

    def root(a):
        u, s, _ = np.linalg.svd(a, full_matrices=False)
        return (u * s) @ u.T

    value, derivative = SQUARE_ROOT_TO_THIRD_ORDER(a @ a.T, a @ da.T + da @ a.T)[:2]
    np.testing.assert_allclose(value, root(a), rtol=0, atol=1e-14)
    np.testing.assert_allclose(derivative, central_difference(root, a, da), rtol=0, atol=1e-9)


LYAPUNOV_TO_THIRD_ORDER = taylor(lambda sc: roots.lyapunov(sc[0], sc[1]), 3)


@pytest.mark.parametrize("name", POSITIVE_DEFINITE)
def test_lyapunov_to_third_order(name):
    s, c = POSITIVE_DEFINITE[name], random_symmetric(5, 1)
    ds, dc = 0.05 * random_symmetric(5), random_symmetric(5, 2)
    np.testing.assert_allclose(roots.lyapunov(s, c), scipy.linalg.solve_continuous_lyapunov(s, c), rtol=0, atol=1e-13)
    # (S + t dS) X + X (S + t dS) = C + t dC, solved for the Taylor coefficients of vec X.
    eye = np.eye(5)
    operator, moved = (np.kron(m, eye) + np.kron(eye, m) for m in (s, ds))
    coefficients = [np.linalg.solve(operator, c.ravel())]
    for order in (1, 2, 3):
        right = (dc.ravel() if order == 1 else 0) - moved @ coefficients[-1]
        coefficients.append(np.linalg.solve(operator, right))
    got = LYAPUNOV_TO_THIRD_ORDER(np.stack([s, c]), np.stack([ds, dc]))
    for order, value in enumerate(got):
        expected = math.factorial(order) * coefficients[order].reshape(5, 5)
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_lyapunov_is_zero_on_the_null_space():
    s = np.diag([2.0, 1.0, 0.0])
    np.testing.assert_allclose(
        roots.lyapunov(s, np.ones((3, 3))), [[1 / 4, 1 / 3, 1 / 2], [1 / 3, 1 / 2, 1], [1 / 2, 1, 0]], atol=1e-15
    )


# --- pseudo-inverse and log det --------------------------------------------------------------------------------


def low_rank(rows, columns, rank, seed):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, rank)), rng.standard_normal((rank, columns))


@pytest.mark.parametrize(("rows", "columns", "rank"), [(6, 3, 3), (3, 5, 3), (5, 4, 2)])
def test_pseudo_inverse_and_its_derivative(rows, columns, rank):
    b, c = low_rank(rows, columns, rank, 0)
    db, dc = low_rank(rows, columns, rank, 1)
    ct = np.random.default_rng(2).standard_normal((columns, rows))

    @jax.jit
    def derivatives(a, da):
        pinv = partial(roots.pseudo_inverse, rtol=1e-9)
        return *jax.jvp(pinv, (a,), (da,)), jax.grad(lambda a: jnp.sum(ct * pinv(a)))(a)

    da = b @ dc + db @ c
    value, forward, reverse = derivatives(b @ c, da)
    np.testing.assert_allclose(value, np.linalg.pinv(b @ c, rcond=1e-9), rtol=0, atol=1e-12)
    numerical = central_difference(  # along a path of matrices of this rank
        lambda t: np.linalg.pinv((b + t * db) @ (c + t * dc), rcond=1e-9), 0.0, 1.0, 1e-4
    )
    np.testing.assert_allclose(forward, numerical, rtol=0, atol=1e-8 * np.abs(numerical).max())
    assert float((reverse * da).sum()) == pytest.approx(float((ct * forward).sum()), rel=1e-12)


def test_pseudo_inverse_at_repeated_singular_values():
    a, e = rotation(4)[:, :3] * 2.0, np.random.default_rng(0).standard_normal((4, 3))
    value, first, second = taylor(lambda a: roots.pseudo_inverse(a, 1e-9), 2)(a, e)
    inverse = lambda a: np.linalg.solve(a.T @ a, a.T)  # noqa: E731  full column rank
    np.testing.assert_allclose(value, inverse(a), rtol=0, atol=1e-14)
    np.testing.assert_allclose(first, central_difference(inverse, a, e), rtol=0, atol=1e-10)
    twice = lambda a: central_difference(inverse, a, e, 1e-3)  # noqa: E731
    np.testing.assert_allclose(second, central_difference(twice, a, e, 1e-3), rtol=0, atol=1e-7)
    assert not np.any(roots.pseudo_inverse(jnp.zeros((4, 3)), 1e-9))


def test_pseudo_inverse_drops_singular_values_up_to_the_cut():
    a = np.diag([1.0, 1e-3, 1e-6])
    np.testing.assert_allclose(roots.pseudo_inverse(a, 1e-4), np.diag([1, 1e3, 0]), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.diag(roots.pseudo_inverse(a, 1e-7)), [1, 1e3, 1e6], rtol=1e-12)


def test_logdet():
    k = POSITIVE_DEFINITE["generic"]
    value, gradient = jax.jit(jax.value_and_grad(spectra.logdet))(k)
    assert float(value) == pytest.approx(np.linalg.slogdet(k)[1], rel=1e-12)
    np.testing.assert_allclose(gradient, np.linalg.inv(k), rtol=0, atol=1e-12)
    assert np.isnan(spectra.logdet(jnp.diag(jnp.array([1.0, -1.0]))))


# --- precision -------------------------------------------------------------------------------------------------


def test_matrix_products_ask_for_full_precision():
    """On TPU and recent GPUs the default rounds float32 to bfloat16 or TF32; the program must ask for more."""
    a, k = jnp.ones((6, 4), jnp.float32), jnp.ones((4, 4), jnp.float32)
    programs = [
        (arrays.matmul, (k, k)),
        (spectra.smaller_gram, (a,)),
        (jax.grad(lambda a: jnp.sum(spectra.smaller_gram(a))), (a,)),
        (lambda z: spectra.directions(z, None, True), (a,)),
        (partial(spectra.matrix_function, LOG), (k,)),
        (jax.jacfwd(partial(spectra.matrix_function, LOG)), (k,)),
        (jax.grad(neg_entropy), (k,)),
        (jax.hessian(neg_entropy), (k,)),
        (roots.psd_sqrt, (k,)),
        (roots.lyapunov, (k, k)),
        (jax.jacrev(jax.jacfwd(roots.psd_sqrt)), (k,)),
        (lambda a: roots.pseudo_inverse(a, 1e-3), (a,)),
        (jax.jacfwd(lambda a: roots.pseudo_inverse(a, 1e-3)), (a,)),
    ]
    for f, arguments in programs:
        dots = [line for line in jax.jit(f).lower(*arguments).as_text().splitlines() if "dot_general" in line]
        assert dots and all("HIGHEST" in line for line in dots), (f, dots)
