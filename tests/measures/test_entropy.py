"""Entropies, effective ranks and coding rates against closed forms, mpmath, NumPy and finite differences."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from helpers import (
    central_difference,
    cosine_gram,
    entropy_gradient,
    features,
    gradient_and_hvp,
    gram_entropy,
    grid_rows,
    half,
    positive_definite,
    power_law,
    random_symmetric,
    rotation,
    shifted_simplex,
    simplex,
    simplex_gram,
    spectrum_entropy,
    unit,
    with_spectrum,
)
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jax.test_util import check_grads

import infojax as ij
from infojax.measures.entropy import density_from_gram

FEATURES = features()
POSITIVE_DEFINITE = positive_definite()
ALPHAS = [0.5, 1.0, 1.3, 2.0, 3.0]

# Few shapes, many sizes: a weight of zero is a row that is not there.
ROWS = grid_rows(8, 5)
WEIGHTS = arrays(float, 8, elements=st.sampled_from([0.0, 0.0, 0.25, 1.0, 1.0, 3.0]))
COUNTS = st.permutations([0, 0, 0, 1, 1, 2, 2, 3])  # five rows of eight, nine with their copies
ORDER = st.sampled_from([0.5, 1.0, 1.01, 2.0, 3.0])


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def binary_entropy(x):
    return -x * math.log(x) - (1 - x) * math.log1p(-x)


# --- the Gram matrix -------------------------------------------------------------------------------------------


def test_gram_is_the_matrix_of_cosines():
    z = FEATURES["N > D"]
    np.testing.assert_allclose(ij.gram(z), cosine_gram(z), rtol=0, atol=1e-15)
    k = np.asarray(ij.gram(FEATURES["zero rows"]))
    live = FEATURES["zero rows"].any(axis=1)
    np.testing.assert_allclose(np.diag(k), live, rtol=0, atol=1e-15)
    assert not k[~live].any() and not k[:, ~live].any()


def test_density_has_trace_one_and_selects_its_block():
    k = FEATURES["N > D"] @ FEATURES["N > D"].T
    weights = np.array([1, 0, 2, 0.5, 0, 1, 3, 1.0])
    kept = weights > 0
    rho = np.asarray(density_from_gram(k, weights))
    root = np.sqrt(weights[kept])
    block = root[:, None] * k[np.ix_(kept, kept)] * root
    np.testing.assert_allclose(rho[np.ix_(kept, kept)], block / np.trace(block), rtol=0, atol=1e-15)
    assert not rho[~kept].any() and np.trace(rho) == pytest.approx(1, abs=1e-15)
    assert not np.any(density_from_gram(k, np.zeros(8)))


# --- values ----------------------------------------------------------------------------------------------------


COMPILED = {alpha: jax.jit(partial(ij.matrix_entropy, alpha=alpha)) for alpha in (*ALPHAS, 10.0)}


@pytest.mark.parametrize("name", FEATURES)
def test_entropy_of_the_zoo(name):
    z = FEATURES[name]
    live = z[z.any(axis=1)]
    for alpha in COMPILED:
        expected = gram_entropy(cosine_gram(live), alpha) if len(live) else 0.0
        ways = {
            "features": ij.matrix_entropy(z, alpha=alpha),
            "Gram": ij.matrix_entropy_from_gram(ij.gram(z), alpha=alpha),
        }
        if z.shape == (8, 5):
            ways["compiled"] = COMPILED[alpha](z)
        for way, value in ways.items():
            assert value.shape == ()
            # alpha < 1 lifts rounding errors: an eigenvalue of 1e-16 adds its square root
            assert float(value) == pytest.approx(expected, abs=1e-12 if alpha >= 1 else 1e-7), (alpha, way)
            if np.linalg.matrix_rank(unit(live) if len(live) else z) <= 1:
                assert float(value) == 0, (alpha, way)  # exactly: ratios must see 0 / 0


@pytest.mark.parametrize("num_classes", [2, 10, 113])
def test_simplex_entropy_is_log_of_one_less(num_classes):
    expected = pytest.approx(math.log(num_classes - 1), abs=1e-9)
    assert float(ij.matrix_entropy_from_gram(simplex_gram(num_classes))) == expected
    assert float(ij.matrix_entropy(simplex(num_classes))) == expected


@pytest.mark.parametrize("alpha", [0.5, 1.01, 2.0, 5.0])
def test_simplex_entropy_is_the_same_for_every_order(alpha):
    for num_classes in (2, 10):
        got = float(ij.matrix_entropy_from_gram(simplex_gram(num_classes), alpha=alpha))
        assert got == pytest.approx(math.log(num_classes - 1), abs=1e-9)


@pytest.mark.parametrize("num_classes", [10, 100])
@pytest.mark.parametrize("s", [0, 0.01, None, 0.5, 0.9, 0.99])
def test_shifted_simplex_entropy(num_classes, s):
    # Theorem 2 of the paper needs a global mean of zero; a common mean of energy s changes H, and centring restores it.
    s = 1 / num_classes if s is None else s
    z = np.repeat(shifted_simplex(num_classes, s), 2, axis=0)
    flat = math.log(num_classes - 1)
    expected = (binary_entropy(s) if s else 0) + (1 - s) * flat
    assert float(ij.matrix_entropy(z)) == pytest.approx(expected, abs=1e-10)
    if s == 1 / num_classes:
        assert expected == pytest.approx(math.log(num_classes))
    assert float(ij.matrix_entropy(z, center=True)) == pytest.approx(flat, abs=1e-10)


@pytest.mark.parametrize(("cosine", "expected"), [(0.3, 0.6474466390), (0.9, 0.1985152433)])
def test_entropy_of_two_rows(cosine, expected):
    z = np.array([[1, 0], [cosine, math.sqrt(1 - cosine**2)]])
    assert expected == pytest.approx(binary_entropy((1 + cosine) / 2), abs=1e-10)
    assert float(ij.matrix_entropy(z)) == pytest.approx(expected, abs=1e-10)


def test_identity_against_ones():
    # A public fork takes powers of the entries instead of the matrix: the same number for every K.
    for alpha in (*ALPHAS, 50.0):
        assert float(ij.matrix_entropy_from_gram(np.eye(9), alpha=alpha)) == pytest.approx(math.log(9), abs=1e-13)
        assert float(ij.matrix_entropy_from_gram(np.ones((9, 9)), alpha=alpha)) == 0


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1 + 1e-9, 1.0001, 2.0, 5.0, 50.0])
@pytest.mark.parametrize("name", ["generic", "ill conditioned", "repeated"])
def test_entropy_to_thirty_digits(name, alpha):
    k = with_spectrum([1e-9, 1e-5, 1e-3, 1, 10]) if name == "ill conditioned" else POSITIVE_DEFINITE[name]
    with mpmath.workdps(30):
        w = list(mpmath.eigsy(mpmath.matrix(k.tolist()), eigvals_only=True))
        p = [x / sum(w) for x in w]
        if alpha == 1:
            expected = -sum(x * mpmath.log(x) for x in p)
        else:
            expected = mpmath.log(sum(x ** mpmath.mpf(alpha) for x in p)) / (1 - mpmath.mpf(alpha))
    # A perturbation of 1e-16 K moves sqrt(1e-10) by 1e-11.
    tolerance = 2e-11 if alpha < 1 and name == "ill conditioned" else 1e-14 * 5
    assert abs(float(ij.matrix_entropy_from_gram(k, alpha=alpha)) - float(expected)) < tolerance


def test_limits_of_the_order():
    k = with_spectrum([0.1, 0.4, 0.9, 1.7, 3.0, 0, 0])
    assert float(ij.matrix_entropy_from_gram(k, alpha=1e-9)) == pytest.approx(math.log(5), abs=1e-8)
    smallest = -math.log(3 / 6.1)  # min-entropy
    assert float(ij.matrix_entropy_from_gram(k, alpha=1e6)) == pytest.approx(smallest, abs=1e-5)


def test_orders_next_to_one_in_float32():
    z = power_law(8, 5, decay=1).astype(np.float32)
    with jax.enable_x64(False):
        for alpha in (1 - 1e-6, 1.0001, 1.01):
            value = float(ij.matrix_entropy(z, alpha=alpha))
            assert value == pytest.approx(gram_entropy(cosine_gram(z.astype(float)), alpha), abs=1e-6), alpha


# --- properties ------------------------------------------------------------------------------------------------


@given(ROWS, WEIGHTS, ORDER, st.booleans())
def test_between_zero_and_log_rank(z, weights, alpha, center):
    entropy = float(ij.matrix_entropy(z, alpha=alpha, weights=weights, center=center))
    kept = z[(weights > 0) & z.any(axis=1)]
    size = min(len(kept), 5)
    assert 0 <= entropy <= (math.log(size) if size else 0) + 1e-12
    if alpha >= 1 and not center:
        assert entropy <= math.log(max(np.linalg.matrix_rank(kept), 1)) + 1e-9 if size else entropy == 0


@given(ROWS, WEIGHTS, ORDER, st.integers(0, 99))
def test_invariances(z, weights, alpha, seed):
    rng = np.random.default_rng(seed)
    entropy = partial(ij.matrix_entropy, alpha=alpha)
    # alpha < 1: rounding of exactly dependent rows counts with a fractional power
    expected = pytest.approx(float(entropy(z, weights=weights)), abs=1e-11 if alpha >= 1 else 1e-4)
    order = rng.permutation(8)
    assert float(entropy(z[order], weights=weights[order])) == expected
    scales = rng.choice([-1, 1], (8, 1)) * 10 ** rng.uniform(-6, 6, (8, 1))  # signs too: D K D has K's spectrum
    assert float(entropy(z * scales, weights=weights)) == expected
    assert float(entropy(z @ rotation(5, seed), weights=weights)) == expected
    assert float(entropy(z, weights=7.5 * weights)) == expected


def test_duplicating_every_sample_changes_nothing():
    z = FEATURES["zero rows"]
    expected = pytest.approx(float(ij.matrix_entropy(z)), abs=1e-13)
    assert float(ij.matrix_entropy(np.concatenate([z, z]))) == expected
    shares = np.repeat([0.25, 0.75], 8)
    assert float(ij.matrix_entropy(np.concatenate([z, -2 * z]), weights=shares)) == expected


def test_what_is_not_invariant():
    z = FEATURES["N > D"]
    entropy = float(ij.matrix_entropy(z))
    assert abs(float(ij.matrix_entropy(z, center=True)) - entropy) > 1e-3
    assert abs(float(ij.matrix_entropy(z * np.linspace(1, 3, 5))) - entropy) > 1e-3
    assert abs(float(ij.matrix_entropy(z + 1)) - entropy) > 1e-2
    shifted = float(ij.matrix_entropy(z + 1, center=True))
    assert shifted == pytest.approx(float(ij.matrix_entropy(z, center=True)), abs=1e-13)


@given(ROWS, WEIGHTS)
def test_both_sides_have_one_spectrum(z, weights):
    # 8 x 5: features decompose the 5 x 5 side, the Gram matrix is the other; wider features the other way round.
    features = float(ij.matrix_entropy(z, weights=weights))
    assert float(ij.matrix_entropy_from_gram(ij.gram(z), weights=weights)) == pytest.approx(features, abs=1e-12)
    wide = np.hstack([z, np.zeros((8, 6))]) @ rotation(11)
    assert float(ij.matrix_entropy(wide, weights=weights)) == pytest.approx(features, abs=1e-12)


@given(ROWS, WEIGHTS)
def test_never_increases_with_the_order(z, weights):
    alphas = [0.5, 0.99, 1.0, 1.01, 1.49, 1.51, 2.0, 3.0]  # every branch, and both sides of where they meet
    values = [float(ij.matrix_entropy(z, alpha=alpha, weights=weights)) for alpha in alphas]
    assert all(a >= b - 1e-12 for a, b in zip(values, values[1:], strict=False))


@given(arrays(float, 5, elements=st.floats(0.01, 1)))
def test_slope_in_the_order_at_one(w):
    p = w / w.sum()
    k = with_spectrum(p)
    slope = -np.sum(p * (np.log(p) - p @ np.log(p)) ** 2) / 2
    above, below = (float(ij.matrix_entropy_from_gram(k, alpha=1 + h)) for h in (1e-4, -1e-4))
    assert (above - below) / 2e-4 == pytest.approx(slope, abs=1e-6)
    # so 1.01 is no stand-in for 1
    step = float(ij.matrix_entropy_from_gram(k, alpha=1.01) - ij.matrix_entropy_from_gram(k))
    assert step == pytest.approx(0.01 * slope, abs=2e-3 * abs(slope) + 1e-12)


@given(ROWS, COUNTS, ORDER, st.booleans())
def test_a_mask_is_the_subset_and_an_integer_weight_repeats_a_row(z, counts, alpha, center):
    tolerance = 1e-11 if alpha >= 1 else 1e-4
    entropy = partial(ij.matrix_entropy, alpha=alpha, center=center)
    counts = np.array(counts)
    kept = counts > 0
    padded = np.where(kept[:, None], z, np.nan)  # whatever the padding holds
    assert float(entropy(padded, weights=kept)) == pytest.approx(float(entropy(z[kept])), abs=tolerance)
    repeated = float(entropy(np.repeat(z, counts, axis=0)))
    assert float(entropy(padded, weights=counts)) == pytest.approx(repeated, abs=tolerance)


@given(ROWS)
def test_effective_ranks(z):
    live = z[z.any(axis=1)]
    assume(len(live) > 0)
    of_gram = float(ij.effective_rank_from_gram(ij.gram(z)))
    assert of_gram == pytest.approx(math.exp(float(ij.matrix_entropy(z))), rel=1e-12)
    # Singular values are roots of eigenvalues: a flatter distribution, so a larger rank.
    of_rows = float(ij.effective_rank(ij.unit_rows(z)[0]))
    assert of_gram - 1e-9 <= of_rows <= min(len(live), 5) + 1e-9
    s = np.linalg.svd(z, compute_uv=False)
    assert float(ij.stable_rank(z)) == pytest.approx((s**2).sum() / s[0] ** 2, rel=1e-12)
    assert float(ij.effective_rank(z)) == pytest.approx(math.exp(spectrum_entropy(s / s.sum())), rel=1e-9)
    p = s / s.sum() + 1e-7
    assert float(ij.rankme(z)) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-9)


# --- ranks and rates -------------------------------------------------------------------------------------------


def test_which_effective_rank():
    # log D - (D - 1) / 2N to leading order for the squared singular values, a quarter of that for their roots
    z = np.random.default_rng(0).standard_normal((600, 20))
    assert float(ij.effective_rank(z)) == pytest.approx(20 * math.exp(-19 / 4800), abs=0.02)
    assert float(ij.effective_rank_from_gram(unit(z).T @ unit(z))) == pytest.approx(20 * math.exp(-19 / 1200), abs=0.08)


def test_effective_rank_of_roy_and_vetterli():
    # Their properties: 1 for rank one, the dimension for equal singular values, any scale, orthogonal maps.
    a = np.outer([1.0, 2, 3], [1.0, -1])
    assert float(ij.effective_rank(a)) == pytest.approx(1, abs=1e-14)
    assert float(ij.effective_rank(5 * rotation(6)[:, :4])) == pytest.approx(4, abs=1e-13)
    p = np.array([0.5, 0.25, 0.25])
    a = rotation(6)[:, :3] * (7 * p) @ rotation(3, 1)
    assert float(ij.effective_rank(a)) == pytest.approx(2 ** (0.5 + 0.5 + 0.5), abs=1e-13)  # 1.5 bits
    assert float(ij.effective_rank(np.zeros((4, 3)))) == 0
    assert float(ij.effective_rank_from_gram(np.zeros((3, 3)))) == 0
    weights = np.array([1, 0, 0, 2.0])
    expected = math.exp(binary_entropy(1 / 3))
    assert float(ij.effective_rank_from_gram(np.eye(4), weights=weights)) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rankme_of_rank_one(dtype):
    # Singular values at rounding level must not count: the paper's eps is all that is left in m - 1 of them.
    def closed_form(m, eps):
        return math.exp(-(1 + eps) * math.log1p(eps) - (m - 1) * eps * math.log(eps))

    assert closed_form(2048, 1e-7) == pytest.approx(1.0033, abs=1e-4)
    assert closed_form(2048, 1e-5) == pytest.approx(1.27, abs=0.01)
    z = np.outer(np.linspace(1, 2, 200), np.linspace(-3, 1, 150)).astype(dtype)
    rtol = 2e-6 if dtype == np.float32 else 1e-12
    assert float(ij.rankme(z)) == pytest.approx(closed_form(150, 1e-7), rel=rtol)
    assert float(ij.rankme(z, eps=1e-5)) == pytest.approx(closed_form(150, 1e-5), rel=rtol)
    assert float(ij.rankme(np.zeros((3, 4)))) == 0


def test_stable_rank():
    assert float(ij.stable_rank(np.diag([2.0, 1, 1]))) == pytest.approx(1.5, abs=1e-14)
    assert float(ij.stable_rank(np.zeros((3, 4)))) == 0
    assert float(ij.stable_rank(FEATURES["rank one"])) == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("name", ["N > D", "N < D", "simplex", "rank one", "zero rows", "all zero", "uneven scales"])
def test_coding_rate_in_its_three_forms(name):
    z = FEATURES[name]
    live = z.any(axis=1)
    u = np.divide(z, np.linalg.norm(z, axis=1, keepdims=True), out=np.zeros_like(z), where=live[:, None])
    dim, eye = z.shape[1], np.eye(z.shape[1])
    logdet = lambda k: np.linalg.slogdet(k)[1]  # noqa: E731
    weights = np.array([0, 1, 2.5, 1, 1, 0, 3, 0.5])
    for mu, w in ((1.0, None), (0.3, weights), (3.0, weights)):
        b = live.sum() if w is None else w[live].sum()
        g = (u.T * (1 if w is None else w)) @ u
        expected = {
            "code": logdet(eye + mu / dim * g),
            "paper": logdet(mu * eye + g),
            "mcr2": logdet(eye + mu * dim / b * g) / 2 if b else 0,
        }
        for form, value in expected.items():
            got = float(ij.coding_rate(z, mu, form=form, weights=w))
            assert got == pytest.approx(value, abs=1e-12 * max(1, abs(value))), form
        # The printed parameter is the reciprocal of the code's, up to D.
        paper = float(ij.coding_rate(z, dim / mu, form="paper"))
        assert paper == pytest.approx(float(ij.coding_rate(z, mu)) + dim * math.log(dim / mu), abs=1e-12)


@given(ROWS, st.sampled_from([0.1, 1.0, 30.0]))
def test_coding_rate_is_least_at_rank_one_and_largest_for_a_tight_frame(z, mu):
    n = int(z.any(axis=1).sum())
    rank = min(n, 5)
    rate = float(ij.coding_rate(z, mu))
    least, largest = math.log1p(mu * n / 5), rank * math.log1p(mu * n / (5 * rank)) if n else 0
    assert least - 1e-12 <= rate <= largest + 1e-12


def test_coding_rate_at_its_extremes():
    assert float(ij.coding_rate(FEATURES["rank one"], 2.0)) == pytest.approx(math.log1p(2 * 8 / 5), abs=1e-13)
    frame = np.concatenate([rotation(4), rotation(4, 1)]) @ np.eye(4, 5)
    assert float(ij.coding_rate(frame, 2.0)) == pytest.approx(4 * math.log1p(2 / 5 * 2), abs=1e-13)


# --- derivatives -----------------------------------------------------------------------------------------------


GRAM_DERIVATIVES = {
    alpha: gradient_and_hvp(lambda k, alpha=alpha: ij.matrix_entropy_from_gram((k + k.T) / 2, alpha=alpha))
    for alpha in ALPHAS
}


@pytest.mark.parametrize("name", POSITIVE_DEFINITE)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_first_and_second_derivatives_at_positive_definite_matrices(name, alpha):
    k, e = POSITIVE_DEFINITE[name], random_symmetric(5)
    gradient, hvp = GRAM_DERIVATIVES[alpha](k, e)
    numerical = central_difference(partial(gram_entropy, alpha=alpha), k, e, 3e-4)
    assert float((gradient * e).sum()) == pytest.approx(numerical, abs=1e-10)
    slope = lambda k: np.asarray(GRAM_DERIVATIVES[alpha](k, e)[0])  # noqa: E731  right, as just seen
    np.testing.assert_allclose(hvp, central_difference(slope, k, e, 3e-4), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["generic", "identity", "simplex + 0.1", "repeated"])
def test_check_grads(name):
    # Forward and reverse, each over each; the tolerance is that of its finite differences.
    k = POSITIVE_DEFINITE[name]
    check_grads(SYMMETRISED_ENTROPY, (k,), order=2, modes=["fwd", "rev"], atol=1e-5, rtol=1e-5)


SYMMETRISED_ENTROPY = jax.jit(lambda k: ij.matrix_entropy_from_gram((k + k.T) / 2))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_derivatives_at_the_identity(alpha):
    # H = log(tr K^a / (tr K)^a) / (1 - a) at K = I + E: tr K^a = n + a tr E + a (a - 1) / 2 tr E^2 + ..., so
    # H = log n - (a / 2n) (tr E^2 - (tr E)^2 / n) + ...; a = 1 the same, from tr K log K = tr E + tr E^2 / 2 + ...
    e, eye = random_symmetric(5), np.eye(5)
    gradient, hvp = GRAM_DERIVATIVES[alpha](eye, e)
    np.testing.assert_allclose(gradient, 0, rtol=0, atol=1e-15)
    np.testing.assert_allclose(hvp, -alpha / 5 * (e - np.trace(e) / 5 * eye), rtol=0, atol=1e-14)


ENTROPY_GRADIENT = jax.jit(jax.grad(lambda z, w, center=False: ij.matrix_entropy(z, weights=w, center=center)))


@pytest.mark.parametrize("name", FEATURES)
def test_gradient_is_the_closed_form_even_where_features_collapse(name):
    z = FEATURES[name]
    for weights in (np.ones(len(z)), np.arange(len(z)) % 3.0, np.zeros(len(z))):
        gradient = np.asarray(ENTROPY_GRADIENT(z, weights))
        expected = entropy_gradient(z, weights)
        norm = np.linalg.norm(z, axis=1, keepdims=True)
        # compared per unit of relative change: the gradient of a row scales with the inverse of its length
        np.testing.assert_allclose(gradient * norm, expected * norm, rtol=0, atol=1e-9)
        assert np.isfinite(gradient).all()
        assert not gradient[weights == 0].any() and not gradient[norm[:, 0] == 0].any()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_gradient_of_every_order_is_finite_where_features_collapse(alpha):
    gradient = jax.jit(jax.grad(partial(ij.matrix_entropy, alpha=alpha)))
    for name, z in FEATURES.items():
        if z.shape == (8, 5):
            g = gradient(z)
            assert np.isfinite(g).all(), name
            if np.linalg.matrix_rank(z) == 1:
                np.testing.assert_allclose(g, 0, atol=1e-7)
    v = np.random.default_rng(0).standard_normal((8, 5))
    z = FEATURES["N > D"]
    expected = central_difference(lambda z: gram_entropy(cosine_gram(z), alpha), z, v, 1e-3)
    assert float((gradient(z) * v).sum()) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_hessian_of_a_singular_gram_is_that_of_the_smaller_side(alpha):
    # K = Z Z^T (8 x 8, rank 5) against Z^T Z (5 x 5): one function of the features, to second order.
    v = np.random.default_rng(0).standard_normal((8, 5))
    large = gradient_and_hvp(lambda a: ij.matrix_entropy_from_gram(a @ a.T, alpha=alpha))
    small = gradient_and_hvp(lambda a: ij.matrix_entropy_from_gram(a.T @ a, alpha=alpha))
    for name in ("N > D", "zero rows"):
        for a, b in zip(large(FEATURES[name], v), small(FEATURES[name], v), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("center", [False, True])
def test_masked_rows_have_gradient_zero_and_the_others_that_of_the_subset(center):
    z = FEATURES["N > D"]
    mask = np.array([1, 0, 1, 1, 0, 0, 1, 1.0])  # five of eight
    kept = mask > 0
    gradient = np.asarray(ENTROPY_GRADIENT(np.where(kept[:, None], z, np.nan), mask, center))
    assert (gradient[~kept] == 0).all()
    subset = ENTROPY_GRADIENT(z[kept], np.ones(5), center)
    np.testing.assert_allclose(gradient[kept], subset, rtol=0, atol=1e-15)
    if not center:
        np.testing.assert_allclose(gradient[kept], entropy_gradient(z[kept]), rtol=0, atol=1e-14)


def test_gradient_in_the_weights():
    z, weights = FEATURES["N > D"], np.array([1, 2, 0.5, 1, 3, 1, 0.1, 1])
    k, v = cosine_gram(z), np.random.default_rng(0).standard_normal(8)
    numerical = central_difference(lambda w: gram_entropy(np.sqrt(np.outer(w, w)) * k), weights, v, 1e-3)
    for f in (lambda w: ij.matrix_entropy(z, weights=w), lambda w: ij.matrix_entropy_from_gram(k, weights=w)):
        assert float(jax.jit(jax.grad(f))(weights) @ v) == pytest.approx(numerical, abs=1e-9)


@pytest.mark.parametrize("measure", [ij.effective_rank, ij.rankme, ij.stable_rank, ij.coding_rate])
def test_gradients_of_ranks_and_rates(measure):
    v = np.random.default_rng(0).standard_normal((8, 5))
    gradient = jax.jit(jax.grad(measure))
    for name in ("N > D", "zero rows"):
        z = FEATURES[name]
        along = np.where(z.any(axis=1, keepdims=True), v, 0)
        numerical = central_difference(lambda z: float(measure(z)), z, along, 1e-4)
        assert float((gradient(z) * along).sum()) == pytest.approx(numerical, rel=1e-7)
    for name in ("rank one", "all equal", "all zero", "duplicated rows", "axes", "one row left"):
        assert np.isfinite(gradient(FEATURES[name])).all(), name


def test_effective_rank_is_stationary_at_equal_singular_values():
    gradient = jax.jit(jax.grad(ij.effective_rank))(2 * rotation(8)[:, :5])
    np.testing.assert_allclose(gradient, 0, rtol=0, atol=1e-12)


# --- dtypes and scales -----------------------------------------------------------------------------------------

MEASURES = {
    "matrix_entropy": ij.matrix_entropy,
    "matrix_entropy, alpha = 0.7": partial(ij.matrix_entropy, alpha=0.7),
    "matrix_entropy, alpha = 1.3": partial(ij.matrix_entropy, alpha=1.3),
    "matrix_entropy, alpha = 2": partial(ij.matrix_entropy, alpha=2),
    "matrix_entropy, alpha = 3": partial(ij.matrix_entropy, alpha=3),
    "matrix_entropy, centred": partial(ij.matrix_entropy, center=True),
    "effective_rank": ij.effective_rank,
    "rankme": ij.rankme,
    "stable_rank": ij.stable_rank,
    "coding_rate": ij.coding_rate,
}
GRAM_MEASURES = {
    **{
        f"matrix_entropy_from_gram, alpha = {alpha}": partial(ij.matrix_entropy_from_gram, alpha=alpha)
        for alpha in (0.7, 1.0, 1.3, 2.0, 3.0)
    },
    "effective_rank_from_gram": ij.effective_rank_from_gram,
}


def all_of(measures):
    return lambda *args: {name: f(*args) for name, f in measures.items()}


@pytest.mark.parametrize("compiled", [False, True])
def test_low_precision_input_costs_only_its_own_rounding(compiled):
    z = np.random.default_rng(0).integers(-4, 5, (8, 5))  # exact in every type
    exact = all_of(MEASURES)(z)
    assert {value.dtype for value in exact.values()} == {jnp.dtype(jnp.float64)}
    with jax.enable_x64(False):
        for dtype in [jnp.bfloat16] if compiled else [jnp.float32, jnp.bfloat16, half(), jnp.int8]:
            measures = all_of(MEASURES)
            values = (jax.jit(measures) if compiled else measures)(jnp.asarray(z, dtype))
            for name, value in values.items():
                assert value.dtype == jnp.float32 and value.shape == (), (name, dtype)
                assert float(value) == pytest.approx(float(exact[name]), rel=2e-6), (name, dtype)


@pytest.mark.parametrize("decay", [1.0, 2.0])
def test_float32_error_of_a_power_law(decay):
    # A cut at n eps times the largest eigenvalue, where the solver errs by less than eps, cost 5e-3 nats here; sqrt(n)
    # eps, the cut in use, 7e-4.
    z = power_law(400, 256, decay=decay)
    exact = gram_entropy(unit(z).T @ unit(z))
    with jax.enable_x64(False):
        for run in (ij.matrix_entropy, jax.jit(ij.matrix_entropy)):
            assert float(run(z.astype(np.float32))) == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize("measure", [ij.matrix_entropy, ij.coding_rate])
def test_the_scale_of_rows_does_not_matter_in_float32(measure):
    z = FEATURES["N > D"]
    with jax.enable_x64(False):
        f = jax.jit(jax.value_and_grad(measure))
        value, gradient = f(jnp.asarray(z, jnp.float32))
        for scale in (1e-30, 1e-15, 1e15, 1e30):
            scales = np.where(np.arange(8) % 2, scale, 1)[:, None]
            scaled, slope = f(jnp.asarray(z * scales, jnp.float32))
            assert float(scaled) == pytest.approx(float(value), rel=2e-6)
            np.testing.assert_allclose(np.asarray(slope, float) * scales, gradient, rtol=0, atol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_nan_in_nan_out(compiled):
    measures = jax.jit(all_of(MEASURES)) if compiled else all_of(MEASURES)
    for bad in (np.nan, np.inf):
        z = FEATURES["N > D"].copy()
        z[2, 1] = bad
        assert [name for name, value in measures(z).items() if not np.isnan(value)] == []


@pytest.mark.parametrize("compiled", [False, True])
def test_nan_in_a_gram_gives_nan(compiled):
    measures = jax.jit(all_of(GRAM_MEASURES)) if compiled else all_of(GRAM_MEASURES)
    for place in ((1, 1), (1, 2)):
        k = np.array(ij.gram(FEATURES["N > D"]))
        k[place] = k[place[::-1]] = np.nan
        assert [name for name, value in measures(k).items() if not np.isnan(value)] == []
        # but not where the weights leave it out
        kept = np.arange(8) != 1
        expected = gram_entropy(cosine_gram(FEATURES["N > D"][kept]))
        assert float(ij.matrix_entropy_from_gram(k, weights=kept)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_of_nan(bad):
    """Refused where it is concrete; inside a compiled program the result is nan."""
    weights = np.ones(8)
    weights[3] = bad
    with pytest.raises(ValueError, match="weights must be non-negative and finite; row 3 has"):
        ij.matrix_entropy(FEATURES["N > D"], weights=weights)
    assert np.isnan(jax.jit(lambda w: ij.matrix_entropy(FEATURES["N > D"], weights=w))(weights))


# --- arguments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [-1.0, -math.inf, math.nan])
def test_order_must_not_be_negative(alpha):
    for f in (ij.matrix_entropy, ij.matrix_entropy_from_gram):
        with pytest.raises(ValueError, match="alpha must be a number from 0 to infinity; got"):
            f(np.eye(3), alpha=alpha)


def test_wrong_shapes_are_named():
    for f in (ij.gram, ij.matrix_entropy, ij.rankme, ij.coding_rate):
        with pytest.raises(ValueError, match=r"features must be \(N, D\).*got shape \(3,\)"):
            f(np.ones(3))
    for f in (ij.effective_rank, ij.stable_rank):
        with pytest.raises(ValueError, match=r"matrix must be \(N, D\).*\(2, 2, 2\)"):
            f(np.ones((2, 2, 2)))
    for f in (ij.matrix_entropy_from_gram, ij.effective_rank_from_gram):
        with pytest.raises(ValueError, match=r"gram must be a square matrix; got shape \(2, 3\)"):
            f(np.ones((2, 3)))
    for f, x in ((ij.matrix_entropy, np.ones((4, 2))), (ij.matrix_entropy_from_gram, np.eye(4))):
        with pytest.raises(ValueError, match=r"weights must have shape \(4,\), one per sample; got \(3,\)"):
            f(x, weights=np.ones(3))
    with pytest.raises(ValueError, match="form must be one of code, paper, mcr2; got 'tcr'"):
        ij.coding_rate(np.ones((4, 2)), form="tcr")


def test_no_rows_at_all():
    for z in (np.zeros((0, 3)), np.zeros((3, 0))):
        for f in (ij.matrix_entropy, ij.effective_rank, ij.stable_rank):
            assert float(f(z)) == 0
    assert float(ij.coding_rate(np.zeros((0, 3)))) == 0
    assert ij.gram(np.zeros((0, 3))).shape == (0, 0)
