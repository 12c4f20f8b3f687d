"""How far classes lie apart for their width: CDNV and the Davies-Bouldin index, means over pairs of classes.

Classes without samples are left out: C then means the number of classes present. Class means mu_c, their mean mu_C.
"""

import jax
import jax.numpy as jnp

from infojax.measures import arrays
from infojax.measures.moments import class_stats
from infojax.measures.passes import second_pass
from infojax.measures.variability import mean_rounding


@jax.jit
def cdnv_from_stats(stats):
    """CDNV and its mean over partners for each class, from `ClassStats`; see `cdnv`.

    Returns:
      CDNV (0-d) and (C,) means over c' != c; nan for absent classes.
    """
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

    Differences first: ||a||^2 + ||b||^2 - 2 <a, b> loses classes that lie close together.
    """

    def to_all(mean):
        return jnp.sum((stats.mean - mean[None]) ** 2, axis=1)

    distance = jax.lax.map(to_all, stats.mean)
    return jnp.where(distance <= mean_rounding(stats) ** 2, 0, distance)


def cdnv(z, labels, num_classes=None, *, weights=None):
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
    return cdnv_from_stats(class_stats(z, labels, num_classes, weights=weights))[0]


@jax.jit
def davies_bouldin_from_sums(stats, distance):
    """Davies-Bouldin index from `ClassStats` and the sums `SecondPass.distance`; see `davies_bouldin`."""
    present = stats.count > 0
    spread = arrays.safe_divide(distance, stats.count)
    apart = arrays.safe_sqrt(_squared_distances(stats))
    both = spread[:, None] + spread[None, :]
    ratio = arrays.safe_divide(both, apart, jnp.where(both > mean_rounding(stats), jnp.inf, jnp.nan))
    pair = present[:, None] & present[None, :] & ~jnp.eye(len(present), dtype=bool)
    worst = jnp.max(jnp.where(pair, ratio, 0), axis=1, initial=0)
    mean = arrays.safe_divide(jnp.sum(worst), jnp.sum(present), jnp.nan)
    return jnp.where(jnp.sum(present) > 1, mean, jnp.nan)


def davies_bouldin(z, labels, num_classes=None, *, weights=None):
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
    stats = class_stats(z, labels, num_classes, weights=weights)
    return davies_bouldin_from_sums(stats, second_pass(stats, z, labels, weights=weights).distance)
