"""How far apart classes lie relative to their width: CDNV, the Davies-Bouldin index and the silhouette.

Classes without samples are left out: C then means the number of classes present. Class means mu_c, their mean mu_C.
"""

import jax
import jax.numpy as jnp
import numpy as np

from infojax.measures import arrays, scalars, scale
from infojax.measures.arrays import ArrayLike
from infojax.measures.moments import ClassStats
from infojax.measures.passes import second_pass
from infojax.measures.stats_arguments import takes_stats
from infojax.measures.variability import mean_rounding


@takes_stats
@jax.jit
def cdnv_from_stats(stats: ClassStats) -> tuple[jax.Array, jax.Array]:
    """CDNV and, for each class, its mean over partners, from `ClassStats`; see `cdnv`.

    Returns:
      CDNV (0-d) and (C,) means over c' != c; nan for absent classes.
    """
    stats, _ = scale.normalised_stats(stats)
    present = stats.count > 0
    variance = arrays.safe_divide(stats.squares, stats.count)
    distance = _squared_distances(stats)
    both = variance[:, None] + variance[None, :]
    ratio = arrays.safe_divide(both, 2 * distance, jnp.where(both > mean_rounding(stats) ** 2, jnp.inf, jnp.nan))
    pair = present[:, None] & present[None, :] & ~jnp.eye(len(present), dtype=bool)
    others = jnp.sum(present) - 1
    per_class = arrays.safe_divide(jnp.sum(jnp.where(pair, ratio, 0), axis=1), others, jnp.nan)
    mean = arrays.safe_divide(jnp.sum(jnp.where(present, per_class, 0)), jnp.sum(present), jnp.nan)
    return mean, jnp.where(present, per_class, jnp.nan)


def _squared_distances(stats):
    """||mu_c - mu_c'||^2 (C, C); exactly 0 where it is below rounding.

    Computed from differences: ||a||^2 + ||b||^2 - 2 <a, b> loses the distances of classes that are close together.
    """

    scalars.check_size(f"pairs of {stats.num_classes:,} classes", stats.num_classes, stats.num_classes)

    def to_all(mean):
        return jnp.sum((stats.mean - mean[None]) ** 2, axis=1)

    distance = jax.lax.map(to_all, stats.mean)
    return jnp.where(distance <= mean_rounding(stats) ** 2, 0, distance)


def cdnv(
    z: ArrayLike, labels: ArrayLike, num_classes: int | None = None, *, weights: ArrayLike | None = None
) -> jax.Array:
    """Class-distance normalised variance, the mean over pairs c != c' of (v_c + v_c') / (2 ||mu_c - mu_c'||^2).

    v_c = E ||z - mu_c||^2 over class c (dividing by n_c).

    Args:
      z, labels, num_classes, weights: as `nc1`.
    Returns:
      0-d array, 0 at collapse; inf where two class means coincide with spread around them, nan where they coincide
      without (0/0) or with fewer than two classes present.
    References:
      Galanti, Gyorgy and Hutter, "On the role of neural collapse in transfer learning", ICLR 2022.
    """
    return cdnv_from_stats(scale.first_pass(z, labels, num_classes, weights)[1])[0]


@takes_stats
@jax.jit
def davies_bouldin_from_sums(stats: ClassStats, distance: ArrayLike) -> jax.Array:
    """`davies_bouldin` (0-d) from `ClassStats` and the sums (C,) of distances to class means, `SecondPass.distance`."""
    stats, s = scale.normalised_stats(stats)
    present = stats.count > 0
    spread = arrays.safe_divide(distance / s, stats.count)
    apart = arrays.safe_sqrt(_squared_distances(stats))
    both = spread[:, None] + spread[None, :]
    pair = present[:, None] & present[None, :] & ~jnp.eye(len(present), dtype=bool)
    # 0 / 0: nan enters last, since the derivative of a maximum propagates it even where it is not selected.
    neither = pair & (apart <= 0) & ~(both > mean_rounding(stats))
    ratio = arrays.safe_divide(both, apart, jnp.where(neither, 0, jnp.inf))
    worst = jnp.max(jnp.where(pair, ratio, 0), axis=1, initial=0)
    mean = arrays.safe_divide(jnp.sum(worst), jnp.sum(present))
    return jnp.where((jnp.sum(present) > 1) & ~jnp.any(neither), mean, jnp.nan)


def davies_bouldin(
    z: ArrayLike, labels: ArrayLike, num_classes: int | None = None, *, weights: ArrayLike | None = None
) -> jax.Array:
    """Davies-Bouldin index: mean over classes of max_{c' != c} (s_c + s_c') / ||mu_c - mu_c'||, lower is tighter.

    s_c is the mean Euclidean distance of class c to its centroid. scikit-learn's davies_bouldin_score, streamed and
    differentiable.

    Args:
      z, labels, num_classes, weights: as `nc1`.
    Returns:
      0-d array; inf where two centroids coincide with spread around them; nan with fewer than two classes.
    References:
      Davies and Bouldin 1979.
    """
    z, stats, _ = scale.first_pass(z, labels, num_classes, weights, squares=False)
    return davies_bouldin_from_sums(stats, second_pass(stats, z, labels, weights=weights).distance)


def silhouette(z: ArrayLike, labels: ArrayLike, block: int = 256) -> float:
    """Mean over samples of (b - a) / max(a, b), Euclidean: 1 at collapse; on the host, in float64, O(N^2 D).

    a is the mean distance to the other samples of the same class, b the smallest mean distance to the samples of
    another class; samples alone in their class count as 0, as in scikit-learn's silhouette_score. Distances to a class
    are computed about its mean, so that neither a shift of all features nor distant classes cost digits, as they would
    about the origin, where |x|^2 + |y|^2 - 2 <x, y> cancels.

    Args:
      z: (N, D) finite features; labels: (N,) integers; concrete.
      block: samples processed at a time.
    Returns:
      float; nan with fewer than two classes, or if every class has one sample.
    References:
      Rousseeuw 1987.
    """
    z, (classes, owner) = np.asarray(z, np.float64), np.unique(np.asarray(labels), return_inverse=True)
    if not 2 <= len(classes) < len(z):
        return float("nan")
    z = np.ldexp(z, -np.frexp(np.abs(z).max(initial=0))[1])
    counts = np.bincount(owner)
    mean = np.empty((len(z), len(classes)))  # distance of each sample to each class
    for c, count in enumerate(counts):
        members = np.flatnonzero(owner == c)
        # The mean of differences from a member, since a sum of numbers far from zero would be rounded.
        center = z[members[0]] + np.mean(z[members] - z[members[0]], axis=0)
        others = z[members] - center
        for first in range(0, len(z), block):
            rows = slice(first, first + block)
            square = _square_distances(z[rows] - center, others)
            square[np.arange(first, first + len(square))[:, None] == members[None, :]] = 0
            mean[rows, c] = np.sqrt(square).sum(axis=1) / np.maximum(count - (owner[rows] == c), 1)
    own = mean[np.arange(len(z)), owner]
    mean[np.arange(len(z)), owner] = np.inf
    other = mean.min(axis=1)
    larger = np.maximum(own, other)
    value = np.divide(other - own, larger, out=np.zeros_like(larger), where=larger > 0)
    return float(np.mean(np.where(counts[owner] > 1, value, 0)))


def _square_distances(x, y):
    """|x_i - y_j|^2 (n, m) of rows near the origin."""
    square = np.sum(x * x, axis=1)[:, None] + np.sum(y * y, axis=1)[None, :] - 2 * (x @ y.T)
    return np.maximum(square, 0)
