"""Divergences of two matrices against SciPy, classical special cases, inequalities and finite differences."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from helpers import (
    central_difference,
    cosine_gram,
    features,
    gradient_and_hvp,
    half,
    positive_definite,
    random_symmetric,
    rotation,
    with_spectrum,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon

import infojax as ij

POSITIVE_DEFINITE = positive_definite()
DIVERGENCES = (ij.matrix_jsd, ij.spectrum_jsd, ij.eigenspace_jsd)
ALL = (*DIVERGENCES, ij.matrix_cross_entropy)

FACTORS = arrays(float, (5, 5), elements=st.integers(-4, 4).map(lambda x: x / 2))
SPECTRA = arrays(float, 5, elements=st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0, 3.0])).filter(np.any)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def normalised(k):
    return k / np.trace(k)


def classical(p, q):
    """Jensen-Shannon divergence of two vectors, each divided by its sum."""
    return jensenshannon(np.ravel(p), np.ravel(q)) ** 2


def entropy(rho):
    p = np.linalg.eigvalsh(rho)
    p = p[p > 1e-14]
    return -(p * np.log(p)).sum()


def dense_jsd(k1, k2):
    r1, r2 = normalised(k1), normalised(k2)
    return entropy((r1 + r2) / 2) - (entropy(r1) + entropy(r2)) / 2


def nussbaum_szkola(k1, k2):
    """The pair of classical distributions P_ij = a_i <u_i, v_j>^2, Q_ij = b_j <u_i, v_j>^2."""
    (a, u), (b, v) = (np.linalg.eigh(normalised(k)) for k in (k1, k2))
    overlap = (u.T @ v) ** 2
    return a[:, None] * overlap, b[None, :] * overlap


def generic_pair(seed=0):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, 5, 7))
    return cosine_gram(a), 3 * cosine_gram(b)


# --- values ----------------------------------------------------------------------------------------------------


@given(FACTORS, FACTORS)
def test_matrix_jsd_is_that_of_the_definition(a, b):
    k1, k2 = a @ a.T + np.diag([1.0, 0, 0, 0, 0]), b @ b.T + np.diag([0, 0, 0, 0, 1.0])
    value = float(ij.matrix_jsd(k1, k2))
    assert value == pytest.approx(dense_jsd(k1, k2), abs=1e-12)
    assert 0 <= value <= math.log(2) + 1e-12
    assert value == pytest.approx(float(ij.matrix_jsd(k2, k1)), abs=1e-14)
    assert value == pytest.approx(float(ij.matrix_jsd(5 * k1, 0.1 * k2)), abs=1e-12)
    q = rotation(5)
    assert value == pytest.approx(float(ij.matrix_jsd(q @ k1 @ q.T, q @ k2 @ q.T)), abs=1e-12)


@given(FACTORS, FACTORS, FACTORS)
def test_root_of_matrix_jsd_is_a_metric(a, b, c):
    k1, k2, k3 = (x @ x.T + 0.1 * np.eye(5) for x in (a, b, c))
    d = [math.sqrt(ij.matrix_jsd(*pair)) for pair in ((k1, k2), (k2, k3), (k1, k3))]
    assert d[2] <= d[0] + d[1] + 1e-7


@given(SPECTRA, SPECTRA)
def test_matrices_with_common_eigenvectors_give_the_classical_divergence(p, q):
    u = rotation(5)
    k1, k2 = (u * p) @ u.T, (u * q) @ u.T
    assert float(ij.matrix_jsd(k1, k2)) == pytest.approx(classical(p, q), abs=1e-12)
    assert float(ij.spectrum_jsd(k1, k2)) == pytest.approx(classical(np.sort(p), np.sort(q)), abs=1e-12)
    if len(set(p)) == len(set(q)) == 5:
        assert float(ij.eigenspace_jsd(k1, k2)) == pytest.approx(classical(p, q), abs=1e-12)


@given(SPECTRA, SPECTRA, st.integers(0, 99))
def test_spectrum_jsd_sees_only_the_spectra_and_is_at_most_matrix_jsd(p, q, seed):
    k1, k2 = with_spectrum(p, seed), with_spectrum(q, seed + 1)
    value = float(ij.spectrum_jsd(k1, k2))
    assert value == pytest.approx(classical(np.sort(p), np.sort(q)), abs=1e-12)
    # Ky Fan: the spectrum of a sum is majorised by the sum of the sorted spectra.
    assert 0 <= value <= float(ij.matrix_jsd(k1, k2)) + 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_eigenspace_jsd_is_that_of_the_nussbaum_szkola_pair(seed):
    k1, k2 = generic_pair(seed)
    p, q = nussbaum_szkola(k1, k2)
    value = float(ij.eigenspace_jsd(k1, k2))
    assert value == pytest.approx(classical(p, q), abs=1e-12)
    assert value == pytest.approx(float(ij.eigenspace_jsd(k2, k1)), abs=1e-13)
    u = rotation(5, seed)
    assert value == pytest.approx(float(ij.eigenspace_jsd(u @ k1 @ u.T, u @ k2 @ u.T)), abs=1e-12)
    # The pair is the right one: its Kullback-Leibler divergence is the quantum relative entropy.
    r1, r2 = normalised(k1), normalised(k2)
    relative = np.trace(r1 @ (scipy.linalg.logm(r1) - scipy.linalg.logm(r2)))
    assert (p * np.log(p / q)).sum() == pytest.approx(relative, abs=1e-12)


def test_equal_matrices_and_orthogonal_supports():
    k, _ = generic_pair()
    left, right = np.diag([1.0, 3, 0, 0, 0]), np.diag([0, 0, 0, 2.0, 0.5])
    for divergence in DIVERGENCES:
        assert 0 <= float(divergence(k, 7 * k)) < 1e-14
    for divergence in (ij.matrix_jsd, ij.eigenspace_jsd):
        assert float(divergence(left, right)) == pytest.approx(math.log(2), abs=1e-14)
    u = rotation(5)
    assert float(ij.spectrum_jsd(k, u @ k @ u.T)) < 1e-14
    assert float(ij.matrix_jsd(k, u @ k @ u.T)) > 0.01 and float(ij.eigenspace_jsd(k, u @ k @ u.T)) > 0.01


@given(FACTORS, FACTORS)
def test_matrix_cross_entropy_against_the_matrix_logarithm(a, b):
    p, q = a @ a.T, b @ b.T + 0.1 * np.eye(5)
    expected = np.trace(q) - np.trace(p @ scipy.linalg.logm(q))
    value = float(ij.matrix_cross_entropy(p, q))
    assert value == pytest.approx(expected, abs=1e-9)
    # Klein: least at Q = P, where it is tr(P - P log P).
    w = np.linalg.eigvalsh(p)
    w = w[w > 1e-12]
    assert value >= (w - w * np.log(w)).sum() - 1e-9


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rank", [1, 3, 5])
def test_matrix_cross_entropy_of_a_matrix_with_itself(dtype, rank):
    for seed in range(8):
        a = np.random.default_rng(seed).standard_normal((5, rank))
        rho = normalised(a @ a.T)
        value = float(ij.matrix_cross_entropy(rho.astype(dtype), rho.astype(dtype)))
        assert value == pytest.approx(entropy(rho) + 1, abs=1e-5 if dtype == np.float32 else 1e-12)


def test_matrix_cross_entropy_outside_the_support_is_infinite():
    q = rotation(4)
    p, singular = (q * [1.0, 2, 1, 0]) @ q.T, (q * [1.0, 2, 0, 0]) @ q.T
    assert ij.matrix_cross_entropy(p, singular) == math.inf
    expected = 3 - 2 * math.log(2)  # tr Q - tr P log Q of P = Q
    assert float(ij.matrix_cross_entropy(singular, singular)) == pytest.approx(expected, abs=1e-13)
    inside = (q * [0.0, 2, 0, 0]) @ q.T
    assert float(ij.matrix_cross_entropy(inside, singular)) == pytest.approx(expected, abs=1e-13)


def test_zero_matrices():
    zero, k = np.zeros((5, 5)), generic_pair()[0]
    for divergence in DIVERGENCES:
        assert float(divergence(zero, zero)) == 0
    assert float(ij.matrix_cross_entropy(zero, k)) == pytest.approx(np.trace(k))
    assert ij.matrix_cross_entropy(k, zero) == math.inf


# --- derivatives -----------------------------------------------------------------------------------------------

JSD_DERIVATIVES = gradient_and_hvp(lambda ks: ij.matrix_jsd(*(ks + ks.mT) / 2))
MCE_DERIVATIVES = gradient_and_hvp(lambda pq: ij.matrix_cross_entropy(*(pq + pq.mT) / 2))


@pytest.mark.parametrize("derivatives", [JSD_DERIVATIVES, MCE_DERIVATIVES], ids=["jsd", "cross entropy"])
@pytest.mark.parametrize("name", ["generic", "identity", "repeated"])
def test_derivatives_at_positive_definite_pairs(derivatives, name):
    ks = np.stack([POSITIVE_DEFINITE[name], POSITIVE_DEFINITE["generic"] + np.eye(5)])
    e = np.stack([random_symmetric(5), random_symmetric(5, 1)])
    gradient, hvp = derivatives(ks, e)
    f = ij.matrix_jsd if derivatives is JSD_DERIVATIVES else ij.matrix_cross_entropy
    numerical = central_difference(lambda ks: float(f(*ks)), ks, e, 1e-3)
    assert float((gradient * e).sum()) == pytest.approx(numerical, abs=1e-8)
    slope = lambda ks: np.asarray(derivatives(ks, e)[0])  # noqa: E731
    np.testing.assert_allclose(hvp, central_difference(slope, ks, e, 1e-3), rtol=0, atol=1e-7)


def test_matrix_jsd_of_equal_matrices_is_stationary_with_the_metric_of_bogoliubov_kubo_mori():
    # J(rho + X, rho) = (1/8) sum_ij X_ij^2 (log a_i - log a_j) / (a_i - a_j) + ... in the eigenvectors of rho.
    for name in ("generic", "identity", "simplex + 0.1", "repeated"):
        k, e = POSITIVE_DEFINITE[name], random_symmetric(5)
        ks, direction = np.stack([k, k]), np.stack([e, np.zeros((5, 5))])
        gradient, hvp = JSD_DERIVATIVES(ks, direction)
        np.testing.assert_allclose(gradient, 0, rtol=0, atol=1e-14)
        rho, trace = normalised(k), np.trace(k)
        a, u = np.linalg.eigh(rho)
        x = u.T @ (e / trace - rho * np.trace(e) / trace) @ u
        gap = a[:, None] - a[None, :]
        close = abs(gap) < 1e-9
        divided = np.where(close, 1 / a[:, None], np.log(a[:, None] / a[None, :]) / np.where(close, 1, gap))
        assert float((hvp[0] * e).sum()) == pytest.approx((x**2 * divided).sum() / 4, rel=1e-8), name


def test_matrix_cross_entropy_is_stationary_at_equal_matrices():
    for name in ("generic", "identity", "repeated"):
        k = POSITIVE_DEFINITE[name]
        gradient, _ = MCE_DERIVATIVES(np.stack([k, k]), np.zeros((2, 5, 5)))
        np.testing.assert_allclose(gradient[1], 0, rtol=0, atol=1e-13)
        np.testing.assert_allclose(gradient[0], -scipy.linalg.logm(k), rtol=0, atol=1e-12)


FEATURES = {name: z for name, z in features().items() if z.shape == (8, 5)}
FEATURE_GRADIENTS = jax.jit(
    jax.grad(lambda z1, z2: ij.matrix_jsd(ij.gram(z1), ij.gram(z2)) + ij.spectrum_jsd(z1.T @ z1, z2.T @ z2), (0, 1))
)


@pytest.mark.parametrize("name", FEATURES)
def test_gradients_of_singular_pairs_are_finite(name):
    z1, z2 = FEATURES[name], FEATURES["N > D"]
    for pair in ((z1, z2), (z1, z1)):
        assert all(np.isfinite(g).all() for g in FEATURE_GRADIENTS(*pair))


def test_eigenspace_jsd_passes_no_gradient():
    gradients = jax.grad(ij.eigenspace_jsd, argnums=(0, 1))(*generic_pair())
    assert not np.any(gradients)


# --- dtypes, nan, arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("divergence", ALL)
def test_low_precision_input_costs_only_its_own_rounding(divergence):
    rng = np.random.default_rng(0)
    a, b = rng.integers(-2, 3, (2, 5, 5))
    k1, k2 = a @ a.T + np.eye(5, dtype=int), b @ b.T + 2 * np.eye(5, dtype=int)
    exact = divergence(k1, k2)
    assert exact.dtype == jnp.float64
    with jax.enable_x64(False):
        for d1, d2 in ((jnp.float32, jnp.float32), (jnp.bfloat16, half()), (jnp.int32, jnp.bfloat16)):
            value = divergence(jnp.asarray(k1, d1), jnp.asarray(k2, d2))
            assert value.dtype == jnp.float32 and value.shape == ()
            assert float(value) == pytest.approx(float(exact), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("divergence", ALL)
@pytest.mark.parametrize("compiled", [False, True])
def test_nan_in_nan_out(divergence, compiled):
    k1, k2 = generic_pair()
    f = jax.jit(divergence) if compiled else divergence
    for place in ((1, 1), (1, 2)):
        bad = k1.copy()
        bad[place] = bad[place[::-1]] = np.nan
        assert np.isnan(f(bad, k2)) and np.isnan(f(k2, bad)), place


@pytest.mark.parametrize("divergence", ALL)
def test_wrong_shapes_are_named(divergence):
    first, second = ("p", "q") if divergence is ij.matrix_cross_entropy else ("k1", "k2")
    with pytest.raises(ValueError, match=rf"{first} is \(3, 3\), {second} is \(4, 4\): both must have the same size"):
        divergence(np.eye(3), np.eye(4))
    with pytest.raises(ValueError, match=rf"{first} must be a square matrix; got shape \(3, 4\)"):
        divergence(np.ones((3, 4)), np.eye(3))
    with pytest.raises(ValueError, match=rf"{second} must be a square matrix; got shape \(3,\)"):
        divergence(np.eye(3), np.ones(3))
