"""Matrix entropies and effective ranks of one set of features, or of one Gram matrix.

All entropies are in nats. The papers write samples as columns; here rows are samples.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient
from jax.typing import DTypeLike

from infojax.measures import arrays, host, scalars, spectra
from infojax.measures.arrays import AnyArray, ArrayLike
from infojax.measures.spectra import SpectralFunction

LARGEST_ORDER = 1e30  # above it, the entropy equals that of order infinity to more digits than any dtype has


def gram(z: ArrayLike) -> jax.Array:
    """Cosine Gram matrix G(Z)_ij = <z_i, z_j> / (||z_i|| ||z_j||).

    Args:
      z: (N, D) features. A zero row has no direction: its row and column of G are zero.
    Returns:
      (N, N), unit diagonal (0 for zero rows).
    References:
      Song et al., "Unveiling the Dynamics of Information Interplay in Supervised Learning", ICML 2024, section 3.
    """
    u, _ = spectra.unit_rows(arrays.as_rows(z))
    return arrays.matmul(u, u.T)


def density_from_gram(k: ArrayLike, weights: ArrayLike | None = None) -> jax.Array:
    """Trace-one matrix rho_ij = sqrt(w_i w_j) K_ij / sum_i w_i K_ii of a Gram matrix; zero if the trace is zero.

    Args:
      k: (n, n) symmetric positive semi-definite.
      weights: (n,) non-negative or None; a 0/1 mask gives the density of the selected block. The derivative with
        respect to a weight that is zero is defined as zero.
    Returns:
      (n, n).
    """
    k = arrays.as_square(k)
    return _weighted_density(k, arrays.sample_weights(weights, k.shape[0], k.dtype))


@jax.jit
def _weighted_density(k, w):
    root = arrays.safe_sqrt(w)
    k = root[:, None] * used_block(k, w) * root[None, :]
    return arrays.safe_divide(k, jnp.trace(k))


@jax.jit
def used_block(k: jax.Array, w: jax.Array) -> jax.Array:
    """K (n, n) over a power of two near max |K|, with zeros in the rows and columns of weight zero; w: (n,)."""
    unused = (w[:, None] <= 0) | (w[None, :] <= 0)
    return arrays.normalised(jnp.where(unused, 0, k))[0]


def smaller_density(u: jax.Array, p: jax.Array) -> jax.Array:
    """The smaller of sum_i p_i u_i u_i^T (D, D) and sqrt(p_i p_j) <u_i, u_j> (N, N), for u (N, D) and p (N,).

    Both have the same non-zero spectrum.
    """
    return spectra.smaller_gram(weighted(u, p))


@jax.jit
def weighted(u: jax.Array, p: jax.Array) -> jax.Array:
    """Rows sqrt(p_i) u_i (N, D) of u (N, D) and p (N,)."""
    return u * arrays.safe_sqrt(p)[:, None]


def density_of_features(z: AnyArray, weights: ArrayLike | None = None, center: bool = False) -> AnyArray:
    """`smaller_density` of the directions of z (N, D), see `spectra.directions`; in NumPy if z is, where possible."""
    w, center = (
        None if weights is None else arrays.sample_weights(weights, len(z), z.dtype),
        scalars.flag(center, "center"),
    )
    if isinstance(z, np.ndarray) and arrays.stays_on_host(*(x for x in (w, center) if isinstance(x, jax.Array))):
        return host.density(z, None if w is None else np.asarray(w), bool(center))
    z, weights = jnp.asarray(z), arrays.sample_weights(w, len(z), z.dtype)
    return spectra.smaller_gram(_density_factor(z, weights, center))


@jax.jit
def _density_factor(z, weights, center):
    return weighted(*spectra.directions(z, weights, center))


@functools.cache
def _renyi_terms(alpha):
    """f and f' of the trace from which the alpha-entropy follows, for eigenvalues that sum to one."""
    if alpha == 1:
        return (
            lambda x: -x * jnp.log(x),
            SpectralFunction(lambda x: -jnp.log(x) - 1, lambda a, b: -log_divided(a, b)),
        )
    power = SpectralFunction(lambda x: alpha * x ** (alpha - 1), lambda a, b: alpha * _power_divided(a, b, alpha - 1))
    if near_one(alpha):
        # tr rho^alpha = 1 + tr(rho (rho^(alpha - 1) - 1)): the second term keeps its digits as alpha -> 1.
        return (
            lambda x: x * jnp.expm1((alpha - 1) * jnp.log(x)),
            SpectralFunction(lambda x: power.value(x) - 1, power.divided),
        )
    return lambda x: x**alpha, power


def order_of(alpha: Any) -> float:
    """alpha as a number from 0 to infinity, both included.

    Raises:
      ValueError: it is not such a number, or it is traced, as each order is compiled separately.
    """
    if isinstance(alpha, jax.core.Tracer):
        raise ValueError("alpha is traced, but must be a static number: jit with static_argnames='alpha'")
    alpha = float(scalars.number(alpha, "alpha", "a number from 0 to infinity", lambda x: x >= 0))
    return alpha if alpha < LARGEST_ORDER else np.inf


def near_one(alpha: float) -> bool:
    """Whether to use the form of the Rényi trace that stays accurate as alpha -> 1."""
    return abs(alpha - 1) < 0.5


def _gap(a, b):
    """r = (a - b) / b and log(a / b), both to full relative precision, with r = 1 if a = b; and the mask a = b."""
    r = (a - b) / b  # assumes a <= b, or a large power of a / b would overflow
    close = jnp.abs(r) < 0.5
    log_ratio = jnp.where(close, jnp.log1p(jnp.where(close, r, 0)), jnp.log(a) - jnp.log(b))
    return jnp.where(r == 0, 1, r), log_ratio, r == 0


def log_divided(a: jax.Array, b: jax.Array) -> jax.Array:
    """(log a - log b) / (a - b) of positive a and b, elementwise; its limit 1 / a where a = b."""
    a, b = jnp.minimum(a, b), jnp.maximum(a, b)
    r, log_ratio, equal = _gap(a, b)
    return jnp.where(equal, 1, log_ratio / r) / b


def _power_divided(a, b, p):
    a, b = jnp.minimum(a, b), jnp.maximum(a, b)
    r, log_ratio, equal = _gap(a, b)
    return b ** (p - 1) * jnp.where(equal, p, jnp.expm1(p * log_ratio) / r)


def entropy_of_density(
    rho: AnyArray, alpha: float = 1.0, samples: float | jax.Array = 0, dtype: DTypeLike | None = None
) -> jax.Array:
    """Entropy of a trace-one positive semi-definite rho, in nats; 0 for rho = 0.

    H_1 = -tr(rho log rho); H_alpha = log(tr rho^alpha) / (1 - alpha); H_2 = -log ||rho||_F^2 without a decomposition;
    H_0 = log rank, of the eigenvalues that are not noise (`spectra.support`), with derivative 0; H_inf = -log of the
    largest eigenvalue, with a subgradient as derivative where it is repeated. An entropy below the rounding error of a
    rank-one density is returned as exactly 0.

    Args:
      rho: (n, n).
      alpha: order, a static number from 0 to infinity; 1 is the von Neumann entropy, exactly.
      samples: number of terms summed into rho, whose rounding errors add up.
      dtype: of these terms, if not that of rho.
    Returns:
      0-d array in [0, log n].
    """
    alpha = order_of(alpha)
    if isinstance(rho, np.ndarray) and alpha == 1:
        w = spectra.support(host.eigenvalues(rho)).astype(np.float64)
        entropy = -np.sum(w * np.log(np.where(w > 0, w, 1)))
        dtype = np.dtype(dtype or rho.dtype)
        noise = max(len(rho), 32 * float(samples) ** 0.5) * np.finfo(dtype).eps
        return jax.device_put(dtype.type(0 if entropy <= noise else entropy))
    rho = jnp.asarray(rho, dtype)
    if alpha in (0, np.inf):
        w = spectra.eigenvalues(rho)
        top = jnp.max(w, initial=0)
        rank = jnp.where(jnp.isnan(top), top, jnp.maximum(jnp.sum(w > 0), 1))
        entropy = jnp.log(stop_gradient(rank)) if alpha == 0 else -jnp.log(jnp.where(top <= 0, 1, top))
    elif alpha == 2:
        purity = jnp.sum(rho * rho)
        entropy = -jnp.log(jnp.where(purity <= 0, 1, purity))
    else:
        f, slope = _renyi_terms(alpha)
        if alpha == 1:
            entropy = spectra.trace_function(f, slope, rho)
        elif near_one(alpha):
            trace = spectra.trace_function(f, slope, rho)
            entropy = jnp.log1p(trace) / (1 - alpha)
        else:
            # Powers of eigenvalues relative to the largest, so that a large alpha does not underflow.
            top = stop_gradient(jnp.max(spectra.eigenvalues(rho)))
            top = jnp.where(top <= 0, 1, top)
            trace = spectra.trace_function(f, slope, rho / top)
            log_trace = jnp.log(jnp.where(trace <= 0, 1, trace))
            entropy = (log_trace + alpha * jnp.log(top)) / (1 - alpha)
    return _noise_to_zero(entropy, rho.shape[0], samples)


@jax.jit
def entropy_of_spectrum(w: jax.Array, samples: float | jax.Array = 0) -> jax.Array:
    """H = -sum_i w_i log w_i of the eigenvalues w (n,) of a density (`spectra.eigenvalues`): 0-d, nats.

    The same number as `entropy_of_density` with alpha = 1. samples: N, which sets below what H counts as zero.
    """
    return _noise_to_zero(spectra.spectral_sum(_renyi_terms(1)[0], w), w.shape[0], samples)


@jax.jit
def _noise_to_zero(entropy, size, samples):
    noise = jnp.maximum(size, 32 * jnp.sqrt(samples)) * jnp.finfo(entropy.dtype).eps
    return jnp.where(entropy <= noise, 0, entropy)


def matrix_entropy(
    z: ArrayLike, *, alpha: float = 1.0, center: bool = False, weights: ArrayLike | None = None
) -> jax.Array:
    """Matrix entropy of features: H_alpha of rho = G(Z) / N, G the cosine Gram matrix.

    H_1(rho) = -tr(rho log rho), H_alpha(rho) = log(tr rho^alpha) / (1 - alpha). The smaller of the N x N Gram and
    the D x D second moment of the unit rows is decomposed (none for alpha = 2).

    Args:
      z: (N, D) features of any float or integer type; computed in float32 or better.
      alpha: order, a static number from 0 to infinity; 1 (the papers') is the von Neumann entropy, 0 the log of the
        rank, infinity -log of the largest eigenvalue.
      center: subtract the (weighted) feature mean before the rows are normalised. The papers do not.
      weights: (N,) non-negative sample weights; a 0/1 mask equals the subset, in value and gradient. The
        derivative with respect to a zero weight is defined as zero.
    Returns:
      0-d array, nats, in [0, log rank]. Zero rows are left out; no rows at all give 0.
    Raises:
      ValueError: z is not (N, D), weights are negative, alpha is negative or traced.
    References:
      Song et al. 2024, Definition of matrix entropy; Skean et al. 2023 for alpha != 1.
    """
    z = arrays.as_host_rows(z)
    return entropy_of_density(density_of_features(z, weights, center), alpha, len(z), z.dtype)


def matrix_entropy_from_gram(k: ArrayLike, *, alpha: float = 1.0, weights: ArrayLike | None = None) -> jax.Array:
    """Matrix entropy H_alpha(K / tr K) of a Gram matrix; see `matrix_entropy`.

    Args:
      k: (n, n) symmetric positive semi-definite; its diagonal need not be 1.
      alpha: order, a static number from 0 to infinity.
      weights: (n,) non-negative or None.
    Returns:
      0-d array, nats; 0 for a zero matrix.
    Raises:
      ValueError: k is not square, alpha is negative or traced.
    """
    return entropy_of_density(density_from_gram(k, weights), alpha)


def singular_values(a: AnyArray) -> jax.Array:
    """(min(n, m),) singular values of a (n, m) in descending order; those at rounding level are set to exactly zero."""
    if arrays.on_host(a):
        a = np.asarray(a)
        if not np.isfinite(a).all():
            return jnp.full(min(a.shape), jnp.nan, a.dtype)
        return jnp.asarray(host.singular_values(a))
    s = jnp.linalg.svd(a, compute_uv=False)
    return jnp.where(s <= host.noise_of(a.shape) * jnp.finfo(s.dtype).eps * jnp.max(s, initial=0), 0, s)


def _weighted_singular_values(a, weights, name):
    """`singular_values` of rows sqrt(w_i) a_i at a moderate scale."""
    a = arrays.as_host_rows(a, name)
    if weights is None and isinstance(a, np.ndarray):
        largest = max(a.max(initial=0), -a.min(initial=0))
        if not a.size or host.MODERATE[0] <= largest <= host.MODERATE[1]:
            return singular_values(a)
    a = jnp.asarray(a)
    if weights is not None:
        w = arrays.sample_weights(weights, len(a), a.dtype)
        a = weighted(jnp.where(w[:, None] <= 0, 0, a), w)
    return singular_values(arrays.normalised(a)[0])


def effective_rank(a: ArrayLike, *, weights: ArrayLike | None = None) -> jax.Array:
    """Effective rank exp(-sum_i p_i log p_i), p_i = s_i / sum_j s_j, of the singular values s_i of A.

    Not the same number as `effective_rank_from_gram(gram(a))`, whose p_i are the *squared* singular values of the
    row-normalised A: on 300 x 20 Gaussian entries, column j scaled by 1 / j, 12.38 against 6.01.

    Args:
      a: (N, D) matrix; it is neither centred nor are its rows normalised.
      weights: (N,) non-negative or None; row i counts as sqrt(w_i) a_i, so that a 0/1 mask equals the subset.
    Returns:
      0-d array in [1, min(N, D)]; 0 for a zero matrix. First derivatives are right at repeated singular
      values; second derivatives need distinct ones.
    References:
      Roy and Vetterli, "The effective rank", EUSIPCO 2007.
    """
    s = _weighted_singular_values(a, weights, "matrix")
    total = jnp.sum(s)
    p = arrays.safe_divide(s, total)
    entropy = -jnp.sum(jnp.where(p == 0, 0, p * jnp.log(jnp.where(p == 0, 1, p))))
    return jnp.where(total == 0, 0, jnp.exp(entropy))


def effective_rank_from_gram(k: ArrayLike, *, weights: ArrayLike | None = None) -> jax.Array:
    """Effective rank of a Gram matrix, exp(H_1(K / tr K)): the papers' erank(G).

    Args:
      k: (n, n) symmetric positive semi-definite.
      weights: (n,) non-negative or None.
    Returns:
      0-d array in [1, n]; 0 for a zero matrix.
    """
    rho = density_from_gram(k, weights)
    return jnp.where(jnp.trace(rho) == 0, 0, jnp.exp(entropy_of_density(rho)))


def rankme(z: ArrayLike, eps: float | jax.Array = 1e-7, *, weights: ArrayLike | None = None) -> jax.Array:
    """RankMe: exp(-sum_i p_i log p_i), p_i = s_i / sum_j s_j + eps, of the singular values s_i of Z.

    Args:
      z: (N, D) features, neither centred nor normalised.
      eps: 1e-7 in the paper. Ports use 1e-5, which gives 1.26 for a rank-one 2048-dimensional matrix.
      weights: (N,) non-negative or None, as in `effective_rank`; masking rows keeps the number of singular values of
        all N rows, each with its eps.
    Returns:
      0-d array; 0 for a zero matrix.
    References:
      Garrido et al., "RankMe: assessing the downstream performance of pretrained self-supervised
      representations by their rank", ICML 2023, equation 1.
    """
    eps = scalars.number(eps, "eps", "a number of at least 0 and below 1", lambda x: 0 <= x < 1)
    s = _weighted_singular_values(z, weights, "features")
    total = jnp.sum(s)
    p = arrays.safe_divide(s, total) + eps
    return jnp.where(total == 0, 0, jnp.exp(-jnp.sum(p * jnp.log(jnp.where(p == 0, 1, p)))))


def stable_rank(a: ArrayLike, *, weights: ArrayLike | None = None) -> jax.Array:
    """Stable rank ||A||_F^2 / ||A||_2^2.

    Args:
      a: (N, D) matrix, neither centred nor normalised.
      weights: (N,) non-negative or None, as in `effective_rank`.
    Returns:
      0-d array in [1, rank A]; 0 for a zero matrix.
    """
    s = _weighted_singular_values(a, weights, "matrix")
    top = jnp.max(s, initial=0)
    return jnp.sum(arrays.safe_divide(s, top) ** 2)
