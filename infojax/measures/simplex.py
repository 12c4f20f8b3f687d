"""NC2 and NC3: how far class means and head rows are from a simplex ETF, and from each other.

Classes without samples are left out: C then means the number of classes present. Class means mu_c, their mean mu_C.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from infojax.measures import arrays, scalars, scale
from infojax.measures.arrays import ArrayLike
from infojax.measures.moments import ClassStats
from infojax.measures.stats_arguments import takes_stats
from infojax.measures.variability import significant_means


class NC2(NamedTuple):
    """Convergence of C vectors to a simplex ETF, where all values are 0. See `nc2_from_means`."""

    equinorm: jax.Array
    equiangularity: jax.Array
    etf_distance: jax.Array
    norms: jax.Array  # (C,), nan for absent classes
    angles: jax.Array  # (C,) mean |cos + 1 / (C - 1)| to the other classes


def nc2_from_means(means: ArrayLike, present: ArrayLike | None = None) -> NC2:
    """NC2 of C vectors m_c: class means minus their mean, or head rows (not centred, as in published work).

    equinorm = std(||m_c||) / mean(||m_c||), std with C - 1 (Papyan et al.);
    equiangularity = mean over c != c' of |cos(m_c, m_c') + 1 / (C - 1)|;
    etf_distance = || M M^T / ||M M^T||_F - (I - J / C) / sqrt(C - 1) ||_F (Zhu et al.), rows of M the m_c.

    Args:
      means: (C, D), already centred if required.
      present: (C,) booleans, classes to count; all if None.
    Returns:
      `NC2`; nan with fewer than two classes, or where all vectors vanish.
    """
    means = arrays.as_rows(means, "means")
    scalars.check_size(f"pairs of {len(means):,} classes", len(means), len(means))
    if present is None:
        return _nc2(means, jnp.ones(len(means), bool))
    present = jnp.asarray(arrays.as_array(present, "present"))
    if present.shape != (len(means),):
        raise ValueError(f"present must have shape ({len(means)},), one per class; got {present.shape}")
    return _nc2(means, present.astype(bool))


@jax.jit
def _nc2(means, mask):
    m, s = arrays.normalised(jnp.where(mask[:, None], means, 0))
    c = jnp.sum(mask).astype(means.dtype)
    enough = c > 1
    others = jnp.where(enough, c - 1, 1)
    norms = arrays.safe_sqrt(jnp.sum(m * m, axis=1))
    average = arrays.safe_divide(jnp.sum(norms), c)
    variance = jnp.sum(jnp.where(mask, (norms - average) ** 2, 0)) / others
    equinorm = arrays.safe_divide(arrays.safe_sqrt(variance), average, jnp.nan)
    gram = arrays.matmul(m, m.T)
    pair = mask[:, None] & mask[None, :] & ~jnp.eye(len(m), dtype=bool)
    cosine = arrays.safe_divide(gram, norms[:, None] * norms[None, :])
    angles = jnp.sum(jnp.where(pair, jnp.abs(cosine + 1 / others), 0), axis=1) / others
    angles = jnp.where(mask & (average <= 0), jnp.nan, angles)
    equiangularity = jnp.sum(jnp.where(mask, angles, 0)) / jnp.where(enough, c, 1)
    etf_distance = _distance_to_etf(gram, mask)
    return NC2(
        *(jnp.where(enough, x, jnp.nan) for x in (equinorm, equiangularity, etf_distance)),
        norms=jnp.where(mask, s * norms, jnp.nan),
        angles=jnp.where(mask & enough, angles, jnp.nan),
    )


def _distance_to_etf(a, mask):
    """|| A / ||A||_F - (I - J / C) / sqrt(C - 1) ||_F over the classes in mask; nan if A is zero."""
    c = jnp.sum(mask).astype(a.dtype)
    both = mask[:, None] & mask[None, :]
    a = jnp.where(both, a, 0)
    norm = arrays.safe_sqrt(jnp.sum(a * a))
    etf = jnp.where(both, jnp.eye(len(a), dtype=a.dtype) - 1 / jnp.maximum(c, 1), 0) / jnp.sqrt(jnp.maximum(c - 1, 1))
    gap = arrays.safe_divide(a, norm) - etf
    return jnp.where((norm > 0) & (c > 1), arrays.safe_sqrt(jnp.sum(gap * gap)), jnp.nan)


@takes_stats
def nc2_from_stats(stats: ClassStats) -> NC2:
    """`NC2` of the class means about their own mean, m_c = mu_c - mu_C, from `ClassStats`; see `nc2_from_means`.

    Means closer to mu_C than their rounding error count as zero.
    """
    return nc2_from_means(significant_means(stats), stats.count > 0)


def nc2(z: ArrayLike, labels: ArrayLike, num_classes: int | None = None, *, weights: ArrayLike | None = None) -> NC2:
    """NC2: how far the centred class means are from a simplex ETF; see `nc2_from_means`.

    Args:
      z, labels, num_classes, weights: as `nc1`.
    Returns:
      `NC2` (equinorm, equiangularity, etf_distance, and per-class norms and angles).
    """
    _, stats, s = scale.first_pass(z, labels, num_classes, weights, squares=False)
    found = nc2_from_stats(stats)
    return found._replace(norms=s * found.norms)


@takes_stats
def nc3_from_stats(stats: ClassStats, head: ArrayLike, *, convention: str = "papyan") -> jax.Array:
    """NC3 from `ClassStats`: papyan || W / ||W||_F - M / ||M||_F ||_F^2, or etf; 0-d, see `nc3`.

    Args:
      stats: `ClassStats`; head: (C, D).
      convention: papyan or etf.
    """
    if convention not in ("papyan", "etf"):
        raise ValueError(f"convention must be papyan or etf; got {convention!r}")
    if convention == "papyan":
        return jnp.sum(duality_gap(stats, head))
    means, w, mask = means_and_head(stats, head)
    return _distance_to_etf(arrays.matmul(arrays.normalised(w)[0], arrays.normalised(means)[0].T), mask)


def means_and_head(stats: ClassStats, head: ArrayLike) -> tuple[jax.Array, jax.Array, jax.Array]:
    """mu_c - mu_C (C, D) and head rows (C, D), both zero for absent classes; and which classes are present (C,).

    Raises:
      ValueError: the head does not have the shape of the class means.
    """
    head = arrays.as_rows(head, "head").astype(stats.mean.dtype)
    if head.shape != stats.mean.shape:
        raise ValueError(f"head must be (C, D) = {stats.mean.shape}; got {head.shape}")
    mask = stats.count > 0
    return significant_means(stats), jnp.where(mask[:, None], head, 0), mask


@jax.jit
def duality_gap(stats: ClassStats, head: ArrayLike) -> jax.Array:
    """(C,) contributions || w_c / ||W||_F - m_c / ||M||_F ||^2 of the classes to Papyan's NC3."""
    means, w, _ = means_and_head(stats, head)
    rows = [arrays.normalised(x)[0] for x in (w, means)]
    norms = [arrays.safe_sqrt(jnp.sum(x * x)) for x in rows]
    first, second = (arrays.safe_divide(x, norm) for x, norm in zip(rows, norms, strict=True))
    # nan enters last: a derivative that passes through it is nan even where the value is not selected.
    vanishes = (norms[0] <= 0) | (norms[1] <= 0)
    return jnp.where(vanishes, jnp.nan, jnp.sum((first - second) ** 2, axis=1))


def nc3(
    z: ArrayLike, labels: ArrayLike, head: ArrayLike, *, convention: str = "papyan", weights: ArrayLike | None = None
) -> jax.Array:
    """NC3, self-duality of class means and head; 0 at collapse.

    papyan: || W / ||W||_F - M / ||M||_F ||_F^2, rows of M the class means minus mu_C.
    etf: || W M^T / ||W M^T||_F - (I - J / C) / sqrt(C - 1) ||_F (tding1, rhubarbwu).

    Args:
      z: (N, D) features; labels: (N,) integers; head: (C, D) classifier weights.
      convention: papyan or etf.
      weights: (N,) non-negative or None.
    Returns:
      0-d array; nan where the head or all centred means vanish.
    Raises:
      ValueError: shapes do not fit, unknown convention.
    """
    z = arrays.as_host_rows(z)
    labels = arrays.as_labels(labels, len(z))
    head = arrays.as_head(head, z.shape[1], labels)
    _, stats, _ = scale.first_pass(z, labels, head.shape[0], weights, squares=False)
    return nc3_from_stats(stats, head, convention=convention)
