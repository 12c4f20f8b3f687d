"""The family of effective ranks: loops in float64, closed forms, degenerate input; dormant units and norms of rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import infojax as ij

RNG = np.random.default_rng(0)
Z = (RNG.normal(size=(60, 24)) * np.arange(1, 25.0) ** -0.7 + 0.5).astype(np.float32)
WIDE = np.ascontiguousarray(Z[:12])


def by_hand(z, center):
    """Each definition as a loop over the singular values of an SVD."""
    z = np.asarray(z, np.float64)
    s = np.linalg.svd(z - z.mean(0) if center else z, compute_uv=False)
    s = s[s > 1e-9 * s[0]]

    def exp_entropy(p):
        return np.exp(-sum(x * np.log(x) for x in p))

    def reached(parts):
        total, k = 0.0, 0
        while total < 0.99 * sum(parts):
            total, k = total + parts[k], k + 1
        return k

    squares = s**2
    return {
        "effective_rank": exp_entropy(s / s.sum()),
        "rankme": exp_entropy(np.r_[s, np.zeros(min(z.shape) - len(s))] / s.sum() + 1e-7),
        "covariance_rank": exp_entropy(squares / squares.sum()),
        "participation_ratio": squares.sum() ** 2 / (squares**2).sum(),
        "stable_rank": squares.sum() / squares[0],
        "numerical_rank": np.linalg.matrix_rank(z - z.mean(0) if center else z),
        "srank": reached(s),
        "approximate_rank": reached(squares),
    }


def line(s, first, last):
    """Slope and R^2 of the weighted fit of log s^2 on -log i, by numpy's solver."""
    i = np.arange(first, last + 1)
    y, root = 2 * np.log(s[i - 1]), 1 / np.sqrt(i)
    design = np.c_[-np.log(i), np.ones(len(i))]
    slope, shift = np.linalg.lstsq(design * root[:, None], y * root, rcond=None)[0]
    missed = y - design @ [slope, shift]
    return slope, 1 - (missed**2).sum() / ((y - y.mean()) ** 2).sum()


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("z", [Z, WIDE], ids=["N > D", "N < D"])
def test_the_family_is_its_definitions(z, center):
    expected = by_hand(z, center)
    compiled = jax.jit(functools.partial(ij.spectral_ranks, center=center))(z)
    for found in (ij.spectral_ranks(z, center=center), compiled):
        for name, value in expected.items():
            if name == "numerical_rank" and center:
                continue  # of centred features in float32 the last one is a matter of rounding
            assert float(getattr(found, name)) == pytest.approx(value, rel=2e-4), name
    np.testing.assert_allclose(
        ij.singular_values(z, center=center),
        np.linalg.svd(np.float64(z) - center * np.float64(z).mean(0), compute_uv=False),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip


def test_single_functions_take_their_own_spectrum():
    plain, centred = by_hand(Z, False), by_hand(Z, True)
    for name, values in {
        "srank": plain, "approximate_rank": plain, "numerical_rank": plain, "participation_ratio": centred,
        "covariance_rank": centred,
    }.items():  # fmt: skip
        assert float(getattr(ij, name)(Z)) == pytest.approx(values[name], rel=1e-5), name
    s = ij.singular_values(Z)
    for name in ("effective_rank", "rankme", "stable_rank"):
        assert float(getattr(ij, f"{name}_from_spectrum")(s)) == pytest.approx(float(getattr(ij, name)(Z)), rel=1e-5)
    assert float(ij.participation_ratio(Z, center=False)) == pytest.approx(plain["participation_ratio"], rel=1e-5)


def test_alpha_req_is_the_weighted_fit():
    s = np.linalg.svd(np.float64(Z) - np.float64(Z).mean(0), compute_uv=False)
    for fit_range, last in (((11, 100), 24), ((2, 9), 9)):
        slope, r2 = line(s, fit_range[0], last)
        found = ij.alpha_req(Z, fit_range=fit_range)
        np.testing.assert_allclose(found[:2], [slope, r2], rtol=1e-3)
        assert float(found.points) == last - fit_range[0] + 1
    exact = ij.alpha_req_from_spectrum(np.arange(1, 201.0) ** -0.6)
    np.testing.assert_allclose(exact, [1.2, 1, 90], rtol=1e-5)
    flat = ij.alpha_req_from_spectrum(np.ones(200))
    assert float(flat.alpha) == pytest.approx(0, abs=1e-6) and np.isnan(flat.r2)
    short = ij.alpha_req(Z[:5])  # four eigenvalues, none in 11, ..., 100
    assert np.isnan(short.alpha) and float(short.points) == 0


# Printed by reptrix (arnab39/reptrix e5adeca) for the features below: get_alpha(...)[0], [3], get_rankme.
REPTRIX = {"alpha": 1.337401928165221, "fit_R2_100": 0.9792807194780454, "rankme": 25.59328}


def test_reptrix():
    rng = np.random.default_rng(0)
    z = (rng.standard_normal((300, 130)) * np.arange(1, 131.0) ** -0.6 + 1).astype(np.float32)
    found = ij.alpha_req(z, r2_from=12)
    assert float(found.alpha) == pytest.approx(REPTRIX["alpha"], rel=1e-4)
    assert float(found.r2) == pytest.approx(REPTRIX["fit_R2_100"], rel=1e-4)
    assert float(ij.covariance_rank(z, eps=1e-7)) == pytest.approx(REPTRIX["rankme"], rel=1e-4)
    assert abs(float(ij.rankme(z)) - REPTRIX["rankme"]) > 0.1  # which is no RankMe


def test_closed_forms():
    """k equal singular values: every rank is k; 99 of 100 equal ones are 99 %."""
    eye = np.eye(100, dtype=np.float32)
    found = ij.spectral_ranks(eye)
    for name in ("effective_rank", "covariance_rank", "participation_ratio", "stable_rank", "numerical_rank"):
        assert float(getattr(found, name)) == pytest.approx(100, rel=1e-5), name
    assert float(found.srank) == float(found.approximate_rank) == 99
    assert float(ij.srank(eye, delta=0)) == 100 and float(ij.srank(np.outer(Z[:, 0], Z[0]))) == 1
    # a rank-one matrix of 2,048 columns: 1.003 by the paper's eps, 1.266 by that of ports, and exactly one without
    one = np.outer(np.arange(1, 65.0), np.ones(2048)).astype(np.float32)
    for eps in (1e-7, 1e-5):
        exact = np.exp(-(1 + eps) * np.log1p(eps) - 2047 * eps * np.log(eps))
        assert float(ij.rankme_from_spectrum(np.r_[1.0, np.zeros(2047)], eps)) == pytest.approx(exact, rel=1e-5)
    assert float(ij.spectral_ranks(one).effective_rank) == 1


@pytest.mark.parametrize("name", ["zeros", "rows equal", "one sample", "no samples", "duplicates"])
def test_degenerate_features(name):
    z = {
        "zeros": np.zeros((6, 4)), "rows equal": np.tile(1e4 * Z[:1, :4] + 3, (6, 1)), "one sample": Z[:1, :4],
        "no samples": Z[:0, :4], "duplicates": np.repeat(Z[:2, :4], 3, axis=0),
    }[name].astype(np.float32)  # fmt: skip
    rank = {"zeros": (0, 0), "rows equal": (1, 0), "one sample": (1, 0), "no samples": (0, 0), "duplicates": (2, 1)}
    for function in (ij.spectral_ranks, jax.jit(ij.spectral_ranks, static_argnames="center")):
        for center, expected in zip((False, True), rank[name], strict=True):
            found = function(z, center=center)
            assert float(found.numerical_rank) == expected
            for key in ("effective_rank", "participation_ratio", "stable_rank", "covariance_rank"):
                value = float(getattr(found, key))
                assert value == 0 if expected == 0 else 1 - 1e-5 <= value <= expected + 1e-5
    gradient = jax.grad(lambda z: ij.spectral_ranks(z, center=True).covariance_rank)(jnp.asarray(z))
    assert np.isfinite(gradient).all()


def test_masks_weights_and_scales():
    mask = (np.arange(60) % 4 != 1).astype(np.float32)
    z = np.where(mask[:, None] > 0, Z, np.nan)
    for center in (False, True):
        expected = ij.spectral_ranks(Z[mask > 0], center=center)
        for function in (ij.spectral_ranks, jax.jit(ij.spectral_ranks, static_argnames="center")):
            found = function(z, center=center, weights=mask)
            for key in ("effective_rank", "covariance_rank", "srank", "approximate_rank", "participation_ratio"):
                assert float(getattr(found, key)) == pytest.approx(float(getattr(expected, key)), rel=1e-4)
            np.testing.assert_allclose(found.alpha_req[:2], expected.alpha_req[:2], rtol=1e-2)
    base = ij.singular_values(Z, center=True)
    for scale in (1e-30, 1e30):
        np.testing.assert_allclose(ij.singular_values(np.float32(Z * scale), center=True), base * scale, rtol=1e-5)


def test_a_spectrum_of_float64_is_exact_on_request():
    with jax.enable_x64(True):
        z = np.diag(10.0 ** -np.arange(12))
        assert (
            np.count_nonzero(ij.singular_values(z)) <= 12 and np.count_nonzero(ij.singular_values(z, exact=True)) == 12
        )
        assert float(ij.numerical_rank(z)) == 12 and float(ij.numerical_rank(z, rtol=1e-5)) == 5


def test_gradient_is_that_of_differences():
    with jax.enable_x64(True):
        z, step = jnp.asarray(Z[:15, :6], jnp.float64), 1e-5 * np.random.default_rng(1).normal(size=(15, 6))
        for key in ("effective_rank", "covariance_rank", "participation_ratio", "stable_rank"):
            f = jax.jit(lambda z, key=key: getattr(ij.spectral_ranks(z, center=True), key))
            slope = float(jnp.sum(jax.grad(f)(z) * step))
            assert slope == pytest.approx(float(f(z + step) - f(z - step)) / 2, rel=1e-5), key


def test_dormant_units_norms_and_spread():
    z = np.maximum(Z - 0.6, 0)
    score = np.abs(z).mean(0) / np.abs(z).mean()
    for tau in (0.0, 0.1, 0.5):
        assert float(ij.dormant_ratio(z, tau=tau)) == pytest.approx(np.mean(score <= tau))
        printed = 100 * np.mean(np.abs(z).mean(0) / (np.abs(z).mean() + 1e-6) <= tau)  # as the ports print it
        assert 100 * float(ij.dormant_ratio(z, tau=tau)) == pytest.approx(printed)
    assert float(ij.dormant_ratio(0 * z)) == 1 and np.isnan(ij.dormant_ratio(z[:0]))
    norms = np.linalg.norm(np.float64(Z), axis=1)
    np.testing.assert_allclose(ij.feature_norms(Z), [norms.mean(), norms.std(), norms.min(), norms.max()], rtol=1e-5)
    mask = (np.arange(60) < 40).astype(np.float32)
    np.testing.assert_allclose(ij.feature_norms(Z, weights=mask), ij.feature_norms(Z[:40]), rtol=1e-6)
    assert np.isnan(ij.feature_norms(Z[:0])).all()
    u = Z / np.linalg.norm(Z, axis=1, keepdims=True)
    assert float(ij.feature_std(Z)) == pytest.approx(np.sqrt(24) * u.std(0, ddof=1).mean(), rel=1e-4)
    assert float(ij.feature_std(Z, weights=mask)) == pytest.approx(float(ij.feature_std(Z[:40])), rel=1e-5)
    assert float(ij.feature_std(np.tile(Z[:1], (5, 1)))) == 0 and np.isnan(ij.feature_std(Z[:1]))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ij.srank(Z, delta=1.0), "delta must be a number of at least 0 and below 1"),
        (lambda: ij.numerical_rank(Z, rtol=-1), "rtol must be a number of at least 0 and below 1"),
        (lambda: ij.alpha_req(Z, fit_range=(5, 5)), r"fit_range\[1\] must be at least 6; got 5"),
        (lambda: ij.alpha_req(Z, fit_range=(5,)), r"fit_range must be two whole numbers, first and last; got \(5,\)"),
        (lambda: ij.alpha_req(Z, fit_range=(1, 5), r2_from=6), "r2_from must be at most 5; got 6"),
        (lambda: ij.srank_from_spectrum(Z), r"singular_values must be \(K,\); got shape \(60, 24\)"),
        (lambda: ij.srank_from_spectrum([1.0, -2.0]), "singular_values must not be negative; its least entry is -2"),
        (lambda: jax.jit(lambda c: ij.singular_values(Z, center=c))(True), "center is traced, but must be a static"),
        (lambda: ij.dormant_ratio(Z, tau=-1), "tau must be a number of at least 0"),
        (lambda: ij.uniformity(Z, t=30), "t must be a positive number up to 20"),
    ],
)
def test_bad_requests(call, says):
    with pytest.raises(ValueError, match=says):
        call()
