"""The family of effective ranks, all functions of the singular values of the features: one decomposition serves all.

The literature defines some of them by the singular values of the raw features, others by the eigenvalues of their
covariance, which are the squared singular values of the centred features over N. Every `*_from_spectrum` takes
singular values, so that all can share `singular_values`; `spectral_ranks` does just that.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from infojax.measures import arrays, scalars
from infojax.measures.arrays import ArrayLike
from infojax.measures.singular import spectrum_of

FIT_RANGE = (11, 100)  # eigenvalues in the published fit of alpha-ReQ, counted from 1


def _spectrum(s: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Singular values, descending, divided by a power of two near the largest one; and their sum."""
    s = arrays.as_float(s, "singular_values")
    if s.ndim != 1:
        raise ValueError(f"singular_values must be (K,); got shape {s.shape}")
    arrays.check_not_negative(s, "singular_values")
    return _sorted(s)


@jax.jit
def _sorted(s):
    s = jnp.sort(arrays.normalised(s)[0], descending=True)
    return s, jnp.sum(s)


@jax.jit
def _exp_entropy(p: jax.Array) -> jax.Array:
    return jnp.exp(-jnp.sum(jnp.where(p == 0, 0, p * jnp.log(jnp.where(p == 0, 1, p)))))


def _share(share: Any, name: str) -> Any:
    return scalars.number(share, name, "a number of at least 0 and below 1", lambda x: 0 <= x < 1)


@jax.jit
def _reaching(parts: jax.Array, delta: float | jax.Array) -> jax.Array:
    """The least k with sum_{i <= k} parts_i >= (1 - delta) sum_i parts_i, as a float; 0 if there are none."""
    parts = jax.lax.stop_gradient(parts)
    sums, whole = jnp.cumsum(parts), jnp.sum(parts)
    # A sum that falls short of the share only by rounding has reached it: 99 of 100 equal values are 99 %.
    short = sums < (1 - delta) * whole * (1 - 4 * max(len(parts), 4) ** 0.5 * jnp.finfo(parts.dtype).eps)
    return jnp.where(whole > 0, jnp.sum(short) + 1, whole).astype(parts.dtype)


def effective_rank_from_spectrum(s: ArrayLike) -> jax.Array:
    """`effective_rank` from singular values (K,): exp(-sum_i p_i log p_i), p_i = s_i / sum_j s_j; 0 if all vanish."""
    s, total = _spectrum(s)
    return jnp.where(total == 0, 0, _exp_entropy(arrays.safe_divide(s, total)))


def rankme_from_spectrum(s: ArrayLike, eps: float | jax.Array = 1e-7) -> jax.Array:
    """`rankme` from singular values (K,): as `effective_rank_from_spectrum` with eps added to every p_i."""
    s, total = _spectrum(s)
    return jnp.where(total == 0, 0, _exp_entropy(arrays.safe_divide(s, total) + _share(eps, "eps")))


def covariance_rank_from_spectrum(s: ArrayLike, eps: float | jax.Array = 0.0) -> jax.Array:
    """`covariance_rank` from singular values (K,) of the centred features: `rankme_from_spectrum` of their squares."""
    s, _ = _spectrum(s)
    return jnp.where(jnp.sum(s) == 0, 0, _exp_entropy(arrays.safe_divide(s * s, jnp.sum(s * s)) + _share(eps, "eps")))


def participation_ratio_from_spectrum(s: ArrayLike) -> jax.Array:
    """`participation_ratio` from singular values (K,) of the centred features: (sum s^2)^2 / sum s^4."""
    s, _ = _spectrum(s)
    return arrays.safe_divide(jnp.sum(s**2) ** 2, jnp.sum(s**4))


def stable_rank_from_spectrum(s: ArrayLike) -> jax.Array:
    """`stable_rank` from singular values (K,): sum s^2 / max s^2; 0 if all vanish."""
    s, _ = _spectrum(s)
    return jnp.sum(arrays.safe_divide(s, jnp.max(s, initial=0)) ** 2)


def numerical_rank_from_spectrum(s: ArrayLike, rtol: float | jax.Array | None = None) -> jax.Array:
    """`numerical_rank` from singular values (K,): number above rtol (K eps if None) times the largest; a float."""
    s, total = _spectrum(s)
    rtol = _rtol(s.shape, s) if rtol is None else _share(rtol, "rtol")
    count = jnp.sum(s > rtol * jnp.max(s, initial=0))
    return jnp.where(jnp.isnan(total), total, count).astype(s.dtype)


def srank_from_spectrum(s: ArrayLike, delta: float | jax.Array = 0.01) -> jax.Array:
    """`srank` from singular values (K,): the least k with sum_{i <= k} s_i >= (1 - delta) sum_i s_i."""
    return _reaching(_spectrum(s)[0], _share(delta, "delta"))


def approximate_rank_from_spectrum(s: ArrayLike, delta: float | jax.Array = 0.01) -> jax.Array:
    """`approximate_rank` from singular values (K,): `srank_from_spectrum` of their squares."""
    return _reaching(_spectrum(s)[0] ** 2, _share(delta, "delta"))


class AlphaReQ(NamedTuple):
    """The decay l_i ~ i^-alpha of the eigenvalues of a covariance, fitted to i = first, ..., last.

    alpha: the exponent. r2: of the fit of log l_i, unweighted. points: eigenvalues used, those in the range that are
    not zero. All 0-d; alpha is nan with fewer than two points, r2 also where all l_i are equal.
    """

    alpha: jax.Array
    r2: jax.Array
    points: jax.Array


def alpha_req_from_spectrum(
    s: ArrayLike, *, fit_range: tuple[int, int] = FIT_RANGE, r2_from: int | None = None
) -> AlphaReQ:
    """`alpha_req` from singular values (K,) of the centred features: the exponent of s_i^2 ~ i^-alpha, see `AlphaReQ`.

    Args:
      fit_range: first and last i of the fit, counted from 1.
      r2_from: the first i that counts for r2, within the range; None for all of it.
    Raises:
      ValueError: the range is not two whole numbers in ascending order, or r2_from lies outside it.
    """
    s, _ = _spectrum(s)
    if not isinstance(fit_range, tuple | list) or len(fit_range) != 2:
        raise ValueError(f"fit_range must be two whole numbers, first and last; got {fit_range!r}")
    first = scalars.whole_number(fit_range[0], "fit_range[0]", 1)
    last = scalars.whole_number(fit_range[1], "fit_range[1]", first + 1)
    judged = first if r2_from is None else scalars.whole_number(r2_from, "r2_from", first, last)
    return _fit(s, first, last, judged)


@partial(jax.jit, static_argnums=(1, 2, 3))
def _fit(s, first, last, judged):
    i = jnp.arange(1, len(s) + 1, dtype=s.dtype)
    inside = (i >= first) & (i <= last) & ~(s <= 0)
    x, y = -jnp.log(i), jnp.where(inside, 2 * jnp.log(jnp.where(inside, s, 1)), 0)
    w = jnp.where(inside, 1 / i, 0)
    w = arrays.safe_divide(w, jnp.sum(w))
    dx, dy = x - jnp.sum(w * x), y - jnp.sum(w * y)
    across = jnp.sum(w * dx * dx)
    slope = arrays.safe_divide(jnp.sum(w * dx * dy), across)
    seen = inside & (i >= judged)
    mean = arrays.safe_divide(jnp.sum(jnp.where(seen, y, 0)), jnp.sum(seen))
    spread = jnp.sum(jnp.where(seen, (y - mean) ** 2, 0))
    missed = jnp.sum(jnp.where(seen, (dy - slope * dx) ** 2, 0))
    noise = (64 * jnp.finfo(s.dtype).eps) ** 2 * jnp.sum(seen)  # a flat spectrum has no variance to explain
    r2 = 1 - arrays.safe_divide(missed, jnp.where(spread <= noise, 0, spread), jnp.nan)
    # nan enters last: a derivative that passes through it is nan even where the value is not selected.
    slope, r2 = (jnp.where(across > 0, x, jnp.nan) for x in (slope, r2))
    return AlphaReQ(slope, r2, jnp.sum(inside).astype(s.dtype))


class SpectralRanks(NamedTuple):
    """Every effective rank of one spectrum, 0-d each; see the functions of the same names."""

    effective_rank: jax.Array
    rankme: jax.Array
    covariance_rank: jax.Array
    participation_ratio: jax.Array
    stable_rank: jax.Array
    numerical_rank: jax.Array
    srank: jax.Array
    approximate_rank: jax.Array
    alpha_req: AlphaReQ


def spectral_ranks_from_spectrum(
    s: ArrayLike,
    rtol: float | jax.Array | None = None,
    *,
    delta: float | jax.Array = 0.01,
    eps: float | jax.Array = 1e-7,
) -> SpectralRanks:
    """`spectral_ranks` from singular values (K,). rtol: of the numerical rank; preferably max(N, D) eps."""
    s, _ = _spectrum(s)
    return SpectralRanks(
        effective_rank=effective_rank_from_spectrum(s),
        rankme=rankme_from_spectrum(s, eps),
        covariance_rank=covariance_rank_from_spectrum(s),
        participation_ratio=participation_ratio_from_spectrum(s),
        stable_rank=stable_rank_from_spectrum(s),
        numerical_rank=numerical_rank_from_spectrum(s, rtol),
        srank=srank_from_spectrum(s, delta),
        approximate_rank=approximate_rank_from_spectrum(s, delta),
        alpha_req=alpha_req_from_spectrum(s),
    )


def spectral_ranks(
    z: ArrayLike,
    *,
    center: bool = False,
    weights: ArrayLike | None = None,
    delta: float | jax.Array = 0.01,
    eps: float | jax.Array = 1e-7,
) -> SpectralRanks:
    """Every effective rank of the features from one decomposition of their smaller side.

    By definition, effective_rank, rankme, stable_rank, numerical_rank, srank and approximate_rank use the raw features
    (center=False), covariance_rank, participation_ratio and alpha_req the centred ones (center=True). This function
    computes all of them from the spectrum that `center` selects.

    Args:
      z: (N, D) features.
      center: subtract the (weighted) mean of the rows.
      weights: (N,) non-negative or None; row i counts as sqrt(w_i) z_i.
      delta: of srank and approximate_rank. eps: of rankme.
    Returns:
      `SpectralRanks`; zeros for zero features, and nan for alpha_req without two eigenvalues in its range.
    """
    s, _ = spectrum_of(z, center, weights)
    return spectral_ranks_from_spectrum(s, _rtol(np.shape(z), s), delta=delta, eps=eps)


def _rtol(shape: tuple[int, ...], s: jax.Array) -> float:
    """The relative tolerance of NumPy's matrix_rank: max(N, D) eps."""
    return min(max(shape, default=1) * float(jnp.finfo(s.dtype).eps), 0.5)


def srank(z: ArrayLike, *, delta: float | jax.Array = 0.01, weights: ArrayLike | None = None) -> jax.Array:
    """srank_delta, the least k with sum_{i <= k} s_i >= (1 - delta) sum_i s_i, s_i the singular values of the raw Z.

    `approximate_rank` uses squares: on a 256 x 512 matrix from reinforcement learning it is 215 instead of 247.

    Args:
      z: (N, D) features. delta: in [0, 1). weights: (N,) non-negative or None.
    Returns:
      0-d float in [1, min(N, D)], 0 for zero features; piecewise constant, with gradient zero.
    References:
      Kumar et al., "Implicit under-parameterization inhibits data-efficient deep reinforcement learning", ICLR 2021.
    """
    return srank_from_spectrum(spectrum_of(z, False, weights)[0], delta)


def approximate_rank(z: ArrayLike, *, delta: float | jax.Array = 0.01, weights: ArrayLike | None = None) -> jax.Array:
    """Approximate rank, the least k with sum_{i <= k} s_i^2 >= (1 - delta) sum_i s_i^2: `srank` of the variance.

    Args, Returns: as `srank`.
    References:
      Yang et al., "Harnessing structures for value-based planning and reinforcement learning", ICLR 2020; as in Dohare
      et al., "Loss of plasticity in deep continual learning", Nature 2024.
    """
    return approximate_rank_from_spectrum(spectrum_of(z, False, weights)[0], delta)


def numerical_rank(
    z: ArrayLike, *, rtol: float | jax.Array | None = None, weights: ArrayLike | None = None
) -> jax.Array:
    """Number of singular values above rtol times the largest one: numpy.linalg.matrix_rank, from an SVD.

    Args:
      z: (N, D) matrix. rtol: if None, max(N, D) times the machine epsilon of its dtype. weights: (N,) or None.
    Returns:
      0-d float; 0 for a zero matrix, with gradient zero.
    """
    s, _ = spectrum_of(z, False, weights, exact=True)
    return numerical_rank_from_spectrum(s, _rtol(np.shape(z), s) if rtol is None else rtol)


def participation_ratio(z: ArrayLike, *, center: bool = True, weights: ArrayLike | None = None) -> jax.Array:
    """Participation ratio (sum_i l_i)^2 / sum_i l_i^2 of the eigenvalues l_i of the covariance.

    exp H_2 of the normalised eigenvalues, hence at most `covariance_rank`, their exp H_1.

    Args:
      z: (N, D) features. center: subtract the mean; without it l_i are those of the second moment.
      weights: (N,) non-negative or None.
    Returns:
      0-d array in [1, min(N - 1, D)]; 0 if all rows are equal.
    References:
      Gao et al., "A theory of multineuronal dimensionality, dynamics and measurement", 2017.
    """
    return participation_ratio_from_spectrum(spectrum_of(z, center, weights)[0])


def covariance_rank(
    z: ArrayLike, *, center: bool = True, eps: float | jax.Array = 0.0, weights: ArrayLike | None = None
) -> jax.Array:
    """Effective rank exp(-sum_i p_i log p_i), p_i = l_i / sum_j l_j + eps, of the eigenvalues l_i of the covariance.

    Called RankMe (with eps = 1e-7) in reptrix and in studies of language models that use it; RankMe itself uses the
    singular values of features that are not centred.

    Args:
      z: (N, D) features. center: subtract the mean. eps: added to every p_i. weights: (N,) non-negative or None.
    Returns:
      0-d array in [1, min(N - 1, D)] for eps = 0; 0 if all rows are equal.
    References:
      Li et al., "Tracing the representation geometry of language models from pretraining to post-training", 2025.
    """
    return covariance_rank_from_spectrum(spectrum_of(z, center, weights)[0], eps)


def alpha_req(
    z: ArrayLike,
    *,
    fit_range: tuple[int, int] = FIT_RANGE,
    r2_from: int | None = None,
    weights: ArrayLike | None = None,
) -> AlphaReQ:
    """alpha-ReQ: the exponent of the power law l_i ~ i^-alpha of the eigenvalues of the covariance.

    Least squares of log l_i on -log i with weights 1 / i over i = 11, ..., 100, as published; the head of the spectrum
    is left out. Eigenvalues that are zero up to rounding are left out too, and so are indices beyond min(N, D).

    Args:
      z: (N, D) features; they are centred by this function.
      fit_range: first and last index, counted from 1, both included.
      r2_from: first index of R^2; None for that of the fit. reptrix's fit_R2_100 starts one later: 12.
      weights: (N,) non-negative or None.
    Returns:
      `AlphaReQ`.
    References:
      Agrawal et al., "alpha-ReQ: assessing representation quality in self-supervised learning by measuring
      eigenspectrum decay", NeurIPS 2022; the fit is that of Stringer et al., Nature 2019.
    """
    return alpha_req_from_spectrum(spectrum_of(z, True, weights)[0], fit_range=fit_range, r2_from=r2_from)
