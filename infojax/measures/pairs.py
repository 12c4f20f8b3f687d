"""Similarity of two sets of features of the same samples: linear CKA, plain and debiased, at once, streamed, as a map.

Linear CKA is HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) of K = Z1 Z1^T and L = Z2 Z2^T. The plain estimate of HSIC is
||Z1c^T Z2c||_F^2 of the centred features; it is biased upwards if there are many columns compared with samples. The
debiased one is Song et al.'s U-statistic HSIC_1, which leaves out the diagonals of K and L:

  n (n - 3) HSIC_1 = tr K'L' + 1'K'1 1'L'1 / ((n - 1)(n - 2)) - 2 / (n - 2) 1'K'L'1,   K' = K without its diagonal.

All of it follows from sums over samples, of order two and four, about any point near the mean, so it can be streamed.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from infojax.measures import arrays, conversion, scalars
from infojax.measures.arrays import ArrayLike
from infojax.measures.singular import centered_rows
from infojax.measures.views import same_samples


class CKAMoments(NamedTuple):
    """Sums over samples about `centers`, for linear CKA; those of several batches add (`add_cka_moments`).

    With x = z1 - centers[0], y = z2 - centers[1], a = |x|^2, b = |y|^2, weighted by w:

    Attributes:
      count: sum of w.
      sums: of x, y.
      cross: of x y^T, x x^T, y y^T.
      skewed: of a x, b x, a y, b y.
      fourth: of a b, a a, b b.
      traces: of a, b.
    """

    centers: tuple[jax.Array, jax.Array]
    count: jax.Array  # type: ignore[assignment]  # shadows tuple.count, which is not needed
    sums: tuple[jax.Array, jax.Array]
    cross: tuple[jax.Array, jax.Array, jax.Array]
    skewed: tuple[jax.Array, jax.Array, jax.Array, jax.Array]
    fourth: tuple[jax.Array, jax.Array, jax.Array]
    traces: tuple[jax.Array, jax.Array]


def cka_moments(
    z1: ArrayLike,
    z2: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    centers: tuple[ArrayLike, ArrayLike] | None = None,
) -> CKAMoments:
    """`CKAMoments` of one batch.

    Args:
      z1, z2: (N, D1) and (N, D2) features of the same samples, of moderate scale: sums are of order four, so divide
        features beyond 1e-5 or 1e5 by a power of two in float32 (`linear_cka` does this itself).
      weights: (N,) non-negative or None.
      centers: a point near the mean of each, (D1,) and (D2,): use `moments.centers` of the first batch for all others;
        None takes the batch's own means. They affect only the rounding of the result.
    Returns:
      `CKAMoments`.
    """
    z1, z2 = same_samples(z1, z2)
    w = arrays.sample_weights(weights, len(z1), z1.dtype)
    z1, z2 = (jnp.where(w[:, None] <= 0, 0, z) for z in (z1, z2))
    if centers is None:
        share = arrays.safe_divide(w, jnp.sum(w))
        centers = tuple(jax.lax.stop_gradient(jnp.sum(share[:, None] * z, axis=0)) for z in (z1, z2))
    c1, c2 = (jnp.asarray(arrays.as_float(c, "centers")).astype(z1.dtype) for c in centers)
    for c, z, name in ((c1, z1, "z1"), (c2, z2, "z2")):
        if c.shape != (z.shape[1],):
            raise ValueError(f"centers must hold one point for each; that of {name} must be ({z.shape[1]},)")
    return _moments(z1, z2, w, c1, c2)


@jax.jit
def _moments(z1, z2, w, c1, c2):
    x, y = (jnp.where(w[:, None] <= 0, 0, z - c[None]) for z, c in ((z1, c1), (z2, c2)))
    a, b = jnp.sum(x * x, axis=1), jnp.sum(y * y, axis=1)
    wx, wy = w[:, None] * x, w[:, None] * y

    def product(p, q):
        return jnp.matmul(p.T, q, precision="highest")

    return CKAMoments(
        centers=(c1, c2),
        count=jnp.sum(w),
        sums=(jnp.sum(wx, axis=0), jnp.sum(wy, axis=0)),
        cross=(product(wx, y), product(wx, x), product(wy, y)),
        skewed=(product(wx, a), product(wx, b), product(wy, a), product(wy, b)),
        fourth=(jnp.sum(w * a * b), jnp.sum(w * a * a), jnp.sum(w * b * b)),
        traces=(jnp.sum(w * a), jnp.sum(w * b)),
    )


def add_cka_moments(first: CKAMoments, second: CKAMoments) -> CKAMoments:
    """`CKAMoments` of both batches, which must share their centers; under shard_map psum all fields but `centers`."""
    for name, value in (("first", first), ("second", second)):
        if not isinstance(value, CKAMoments):
            raise TypeError(f"{name} must be CKAMoments, as cka_moments makes them; got {conversion.described(value)}")
    pairs = list(zip(first.centers, second.centers, strict=True))
    if any(a.shape != b.shape or (arrays.on_host(a, b) and bool((a != b).any())) for a, b in pairs):
        raise ValueError("moments about different centers do not add: pass centers=first.centers to cka_moments")
    return jax.tree.map(jnp.add, first, second)._replace(centers=first.centers)


def linear_cka_from_moments(moments: CKAMoments, *, debiased: bool = False) -> jax.Array:
    """`linear_cka` from the `CKAMoments` of all samples; 0-d. debiased: a static True or False.

    Raises:
      TypeError: moments are not `CKAMoments`.
    """
    if not isinstance(moments, CKAMoments):
        raise TypeError(f"moments must be CKAMoments, as cka_moments makes them; got {conversion.described(moments)}")
    return _cka_of_moments(moments, _static_flag(debiased, "debiased"))


@partial(jax.jit, static_argnums=1)
def _cka_of_moments(m, debiased):
    n = jnp.where(m.count > 0, m.count, 1)
    (x, y), (a, b) = m.sums, m.traces
    # For features without variance, the result of a subtraction is rounding.
    noise = [n * len(c) * (16 * jnp.finfo(c.dtype).eps * jnp.max(jnp.abs(c), initial=0)) ** 2 for c in m.centers]
    flat = (a <= noise[0]) | (b <= noise[1])
    if not debiased:

        def centred(cross, p, q):
            return jnp.sum((cross - jnp.outer(p, q) / n) ** 2)

        return _ratio(centred(m.cross[0], x, y), centred(m.cross[1], x, x), centred(m.cross[2], y, y), flat)

    def hsic(cross, p, q, trace_p, trace_q, p_skewed, q_skewed, fourth):
        """p_skewed: the sum of |q|^2 p; q_skewed: the sum of |p|^2 q."""
        mixed = jnp.sum(jnp.outer(p, q) * cross) - p @ p_skewed - q @ q_skewed + fourth
        return _u_statistic(m.count, jnp.sum(cross**2) - fourth, (p @ p - trace_p) * (q @ q - trace_q), mixed)

    (ax, bx, ay, by), (ab, aa, bb) = m.skewed, m.fourth
    with jax.default_matmul_precision("highest"):
        return _ratio(
            hsic(m.cross[0], x, y, a, b, bx, ay, ab),
            hsic(m.cross[1], x, x, a, a, ax, ax, aa),
            hsic(m.cross[2], y, y, b, b, by, by, bb),
            flat,
        )


@partial(jax.jit, static_argnums=3)
def _cka_of_grams(gram1, gram2, w, debiased):
    """Linear CKA from Gram matrices (N, N) of centred features."""

    def hsic(k, m):
        product = w @ (k * m) @ w
        if not debiased:
            return product
        (dk, dl), (rk, rl) = (jnp.diagonal(k), jnp.diagonal(m)), (k @ w, m @ w)
        sums = (w @ rk - w @ dk) * (w @ rl - w @ dl)
        return _u_statistic(jnp.sum(w), product - w @ (dk * dl), sums, w @ ((rk - dk) * (rl - dl)))

    with jax.default_matmul_precision("highest"):
        flat = (w @ jnp.diagonal(gram1) <= 0) | (w @ jnp.diagonal(gram2) <= 0)
        return _ratio(hsic(gram1, gram2), hsic(gram1, gram1), hsic(gram2, gram2), flat)


def _u_statistic(n, product, sums, mixed):
    """n (n - 3) HSIC_1 from tr K'L', 1'K'1 1'L'1 and 1'K'L'1; nan for n <= 3."""
    usable = n > 3
    n1, n2 = jnp.where(usable, n - 1, 1), jnp.where(usable, n - 2, 1)
    return jnp.where(usable, product + sums / (n1 * n2) - 2 * mixed / n2, jnp.nan)


def _ratio(hsic, first, second, flat):
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)); nan if a set is constant or its own HSIC is not positive."""
    defined = (first > 0) & (second > 0) & ~flat
    norm = jnp.sqrt(jnp.where(defined, first, 1)) * jnp.sqrt(jnp.where(defined, second, 1))
    return jnp.where(defined, jnp.where(defined, hsic, 0) / norm, jnp.nan)


def _static_flag(value, name):
    if isinstance(value, jax.core.Tracer):
        raise ValueError(f"{name} is traced, but must be a static True or False: jit with static_argnames={name!r}")
    return bool(scalars.flag(value, name))


def linear_cka(z1: ArrayLike, z2: ArrayLike, *, debiased: bool = False, weights: ArrayLike | None = None) -> jax.Array:
    """Linear centred kernel alignment ||Z1c^T Z2c||_F^2 / (||Z1c^T Z1c||_F ||Z2c^T Z2c||_F) of centred features.

    Invariant to rotations, shifts and scales of either set. Computed through Gram matrices of the samples if those are
    smaller than D1 x D2; `cka_moments` streams.

    Args:
      z1, z2: (N, D1) and (N, D2) features of the same samples.
      debiased: HSIC by the U-statistic of Song et al.: 0 on average for independent features, where the plain value
        approaches 1 with more columns than samples.
      weights: (N,) non-negative or None: counts of samples, so that a 0/1 mask equals the subset.
    Returns:
      0-d array in [0, 1], or below 0 by chance if debiased; nan where a set has no variance, and, if debiased, for
      fewer than four samples or where the estimate of HSIC(K, K) is not positive.
    References:
      Kornblith et al., "Similarity of neural network representations revisited", ICML 2019; Song et al., "Feature
      selection via dependence maximization", JMLR 2012; Murphy et al., "Correcting biased CKA measures", 2024.
    """
    z1, z2 = same_samples(z1, z2)
    w = arrays.sample_weights(weights, len(z1), z1.dtype)
    return _map([z1], [z2], w, _static_flag(debiased, "debiased"))[0, 0]


def linear_cka_map(
    layers: Sequence[ArrayLike] | ArrayLike,
    others: Sequence[ArrayLike] | ArrayLike | None = None,
    *,
    debiased: bool = False,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """`linear_cka` of every pair of layers: the heat map of one network, or of two.

    Args:
      layers: a list of L1 arrays (N, D_l), or one array (L1, N, D).
      others: the same for a second network and the same samples, or None for the layers themselves.
      debiased, weights: as `linear_cka`.
    Returns:
      (L1, L2).
    """
    first = _rows_of(layers, "layers")
    second = None if others is None else _rows_of(others, "others")
    if second is not None and len(second[0]) != len(first[0]):
        raise ValueError(f"layers have {len(first[0])} rows, others {len(second[0])}: both must hold the same samples")
    w = arrays.sample_weights(weights, len(first[0]), first[0].dtype)
    return _map(first, second, w, _static_flag(debiased, "debiased"))


def _rows_of(layers, name):
    layers = list(layers) if getattr(layers, "ndim", 0) == 3 else layers
    if isinstance(layers, str | bytes) or not isinstance(layers, Sequence) or not len(layers):
        raise ValueError(f"{name} must be a list of (N, D) arrays; got {conversion.described(layers)}")
    found = [arrays.as_rows(z, f"{name}[{i}]") for i, z in enumerate(layers)]
    if len({len(z) for z in found}) > 1:
        raise ValueError(f"{name} must hold the same samples; they have {', '.join(str(len(z)) for z in found)} rows")
    dtype = jnp.result_type(*found)
    return [z.astype(dtype) for z in found]


def _map(first, second, w, debiased):
    sides = [_sides(first, w)]
    sides.append(sides[0] if second is None else _sides(second, w))
    return jnp.stack([jnp.stack([_pair(*x, *y, w, debiased) for y in sides[1]]) for x in sides[0]])


def _sides(layers, w):
    """For each layer, the centred features at a moderate scale, and their Gram matrix if that is the smaller side."""
    found = [_centred(z, w) for z in layers]
    return [(z, arrays.matmul(z, z.T) if len(z) <= z.shape[1] else None) for z in found]


@jax.jit
def _centred(z, w):
    z = arrays.normalised(jnp.where(w[:, None] <= 0, 0, z))[0]
    return arrays.normalised(centered_rows(z, w, jnp))[0]


def _pair(x, gram1, y, gram2, w, debiased):
    if (gram1 is None or gram2 is None) and len(x) ** 2 >= x.shape[1] * y.shape[1]:
        zeros = tuple(jnp.zeros(z.shape[1], z.dtype) for z in (x, y))
        return _cka_of_moments(_moments(x, y, w, *zeros), debiased)
    grams = (arrays.matmul(z, z.T) if gram is None else gram for z, gram in ((x, gram1), (y, gram2)))
    return _cka_of_grams(*grams, w, debiased)
