"""Neural collapse: NC2, NC3, NC4, CDNV, Davies-Bouldin, and all of them with NC1 in `neural_collapse`.

Everything is computed in two passes, each a sum over samples: `ClassStats` first, then the sums of `SecondPass`
around those class means. So it streams (add the sums of the batches), shards (psum them) and takes O(C D) memory.

Classes without samples are left out: C then means the number of classes present. Class means mu_c, their mean mu_C.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from infojax.measures import moments, spectra
from infojax.measures.moments import class_stats
from infojax.measures.variability import (
    between_inverse,
    centered_means,
    class_weights,
    energies,
    mean_rounding,
    nc1_convention,
    nc1_from_energy,
    significant,
)


class NC2(NamedTuple):
    """Convergence of C vectors to a simplex ETF; all values are 0 there. See `nc2_from_means`."""

    equinorm: jax.Array
    equiangularity: jax.Array
    etf_distance: jax.Array
    norms: jax.Array  # (C,), nan for absent classes
    angles: jax.Array  # (C,) mean |cos + 1 / (C - 1)| to the other classes


@jax.jit
def nc2_from_means(means, present=None):
    """NC2 of C vectors m_c: class means minus their mean, or head rows (as they are, the published practice).

    equinorm = std(||m_c||) / mean(||m_c||), std with C - 1 (Papyan et al.);
    equiangularity = mean over c != c' of |cos(m_c, m_c') + 1 / (C - 1)|;
    etf_distance = || M M^T / ||M M^T||_F - (I - J / C) / sqrt(C - 1) ||_F (Zhu et al.), rows of M the m_c.

    Args:
      means: (C, D), already centred where that is wanted.
      present: (C,) booleans, classes to count; all if None.
    Returns:
      `NC2`; nan with fewer than two classes, or where all vectors vanish.
    """
    means = spectra.as_rows(means, "means")
    mask = jnp.ones(means.shape[0], bool) if present is None else present
    m = jnp.where(mask[:, None], means, 0)
    c = jnp.sum(mask).astype(means.dtype)
    enough = c > 1
    others = jnp.where(enough, c - 1, 1)
    norms = spectra.safe_sqrt(jnp.sum(m * m, axis=1))
    average = spectra.safe_divide(jnp.sum(norms), c)
    variance = jnp.sum(jnp.where(mask, (norms - average) ** 2, 0)) / others
    equinorm = spectra.safe_divide(spectra.safe_sqrt(variance), average, jnp.nan)
    gram = spectra.matmul(m, m.T)
    pair = mask[:, None] & mask[None, :] & ~jnp.eye(len(m), dtype=bool)
    cosine = spectra.safe_divide(gram, norms[:, None] * norms[None, :])
    angles = jnp.sum(jnp.where(pair, jnp.abs(cosine + 1 / others), 0), axis=1) / others
    angles = jnp.where(mask & (average <= 0), jnp.nan, angles)
    equiangularity = jnp.sum(jnp.where(mask, angles, 0)) / jnp.where(enough, c, 1)
    etf_distance = _distance_to_etf(gram, mask)
    return NC2(
        *(jnp.where(enough, x, jnp.nan) for x in (equinorm, equiangularity, etf_distance)),
        norms=jnp.where(mask, norms, jnp.nan),
        angles=jnp.where(mask & enough, angles, jnp.nan),
    )


def _distance_to_etf(a, mask):
    """|| A / ||A||_F - (I - J / C) / sqrt(C - 1) ||_F over the classes in mask; nan if A is zero."""
    c = jnp.sum(mask).astype(a.dtype)
    both = mask[:, None] & mask[None, :]
    a = jnp.where(both, a, 0)
    norm = spectra.safe_sqrt(jnp.sum(a * a))
    etf = jnp.where(both, jnp.eye(len(a), dtype=a.dtype) - 1 / jnp.maximum(c, 1), 0) / jnp.sqrt(jnp.maximum(c - 1, 1))
    gap = spectra.safe_divide(a, norm) - etf
    return jnp.where((norm > 0) & (c > 1), spectra.safe_sqrt(jnp.sum(gap * gap)), jnp.nan)


def nc2_from_stats(stats):
    """`NC2` of the class means about their own mean mu_C, from `ClassStats`."""
    return nc2_from_means(significant(centered_means(stats, "classes"), mean_rounding(stats)), stats.count > 0)


def nc2(z, labels, num_classes=None, *, weights=None):
    """NC2: how far the centred class means are from a simplex ETF; see `nc2_from_means`.

    Args:
      z, labels, num_classes, weights: as `nc1`.
    Returns:
      `NC2` (equinorm, equiangularity, etf_distance, and per-class norms and angles).
    """
    return nc2_from_stats(class_stats(z, labels, num_classes, weights=weights))


def nc3_from_stats(stats, head, *, convention="papyan"):
    """NC3 from `ClassStats`; see `nc3`."""
    if convention not in ("papyan", "etf"):
        raise ValueError(f"convention must be papyan or etf; got {convention!r}")
    gap = _duality_gap(stats, head)
    means, w, mask = _means_and_head(stats, head)
    if convention == "papyan":
        return jnp.sum(gap)
    return _distance_to_etf(spectra.matmul(w, means.T), mask)


def _means_and_head(stats, head):
    head = spectra.as_rows(head, "head").astype(stats.mean.dtype)
    if head.shape != stats.mean.shape:
        raise ValueError(f"head must be (C, D) = {stats.mean.shape}; got {head.shape}")
    mask = stats.count > 0
    means = significant(centered_means(stats, "classes"), mean_rounding(stats))
    return means, jnp.where(mask[:, None], head, 0), mask


@jax.jit
def _duality_gap(stats, head):
    """(C,) contributions || w_c / ||W||_F - m_c / ||M||_F ||^2 of the classes to Papyan's NC3."""
    means, w, _ = _means_and_head(stats, head)
    scaled = [spectra.safe_divide(x, spectra.safe_sqrt(jnp.sum(x * x)), jnp.nan) for x in (w, means)]
    return jnp.sum((scaled[0] - scaled[1]) ** 2, axis=1)


def nc3(z, labels, head, *, convention="papyan", weights=None):
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
    head = spectra.as_rows(head, "head")
    return nc3_from_stats(class_stats(z, labels, head.shape[0], weights=weights), head, convention=convention)


def nc4(z, labels, head, bias=None, *, weights=None):
    """NC4: share of samples on which the head and the nearest class centre disagree; 0 at collapse.

    mean_i [ argmax_c (<w_c, z_i> + b_c) != argmin_c ||z_i - mu_c|| ]; only classes present have a centre. Ties go to
    the lowest class, so where all class means coincide the value says nothing.

    Args:
      z: (N, D); labels: (N,) integers; head: (C, D).
      bias: (C,) or None. Leaving out a trained bias changes the value (rhubarbwu's code does).
      weights: (N,) non-negative or None.
    Returns:
      0-d array in [0, 1]; nan without samples. Piecewise constant: its gradient is zero.
    References:
      Papyan, Han and Donoho, PNAS 2020.
    """
    head = spectra.as_rows(head, "head")
    stats = class_stats(z, labels, head.shape[0], weights=weights)
    disagreement = second_pass(stats, z, labels, head, bias, weights=weights).disagreement
    return spectra.safe_divide(jnp.sum(disagreement), jnp.sum(stats.count), jnp.nan)


@jax.jit
def cdnv_from_stats(stats):
    """CDNV and its mean over partners for each class, from `ClassStats`; see `cdnv`.

    Returns:
      CDNV (0-d) and (C,) means over c' != c; nan for absent classes.
    """
    present = stats.count > 0
    variance = spectra.safe_divide(stats.squares, stats.count)
    distance = _squared_distances(stats)
    both = variance[:, None] + variance[None, :]
    ratio = spectra.safe_divide(both, 2 * distance, jnp.where(both > mean_rounding(stats) ** 2, jnp.inf, jnp.nan))
    pair = present[:, None] & present[None, :] & ~jnp.eye(len(present), dtype=bool)
    others = jnp.sum(present) - 1
    per_class = spectra.safe_divide(jnp.sum(jnp.where(pair, ratio, 0), axis=1), others, jnp.nan)
    mean = spectra.safe_divide(jnp.sum(jnp.where(present, per_class, 0)), jnp.sum(present), jnp.nan)
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
    spread = spectra.safe_divide(distance, stats.count)
    apart = spectra.safe_sqrt(_squared_distances(stats))
    both = spread[:, None] + spread[None, :]
    ratio = spectra.safe_divide(both, apart, jnp.where(both > mean_rounding(stats), jnp.inf, jnp.nan))
    pair = present[:, None] & present[None, :] & ~jnp.eye(len(present), dtype=bool)
    worst = jnp.max(jnp.where(pair, ratio, 0), axis=1, initial=0)
    mean = spectra.safe_divide(jnp.sum(worst), jnp.sum(present), jnp.nan)
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


class SecondPass(NamedTuple):
    """Sums over the samples of each class, (C,) each; add those of several batches field by field.

    energy: (z - mu_c)^T S_B^+ (z - mu_c), zeros without `inverse`. distance: ||z - mu_c||.
    disagreement: head and nearest class centre differ, zeros without a head.
    """

    energy: jax.Array
    distance: jax.Array
    disagreement: jax.Array


def second_pass(stats, z, labels, head=None, bias=None, *, inverse=None, weights=None):
    """`SecondPass` of one batch around the class means of all samples.

    Args:
      stats: `ClassStats` of all samples.
      z, labels, weights: one batch, as `class_stats` takes them.
      head: (C, D) or None; bias: (C,) or None.
      inverse: `between_inverse(stats)` or None.
    Returns:
      `SecondPass`.
    """
    z, labels, w = moments.samples_around(stats, z, labels, weights)
    scorers = None if head is None else _scorers(stats, head, bias)

    def add(sums, *block):
        deviation, owners, w = moments.deviations(*block, stats.mean)
        distance = _lengths(deviation)
        energy = jnp.zeros_like(w) if inverse is None else energies(inverse, deviation)
        differ = jnp.zeros_like(w) if scorers is None else _disagreement(scorers, block[0], owners, distance)
        added = (moments.class_sums(w * x, owners, stats.num_classes) for x in (energy, distance, differ))
        return SecondPass(*map(jnp.add, sums, added))

    zeros = jnp.zeros(stats.num_classes, z.dtype)
    return moments.fold_blocks(add, SecondPass(zeros, zeros, zeros), moments.BLOCK_ROWS, z, labels, w)


@jax.jit
def _lengths(rows):
    return spectra.safe_sqrt(jnp.sum(rows * rows, axis=1))


class _Scorers(NamedTuple):
    """Linear scores whose argmax is the head's class and the nearest centre, and what else decides NC4.

    ||z - mu_c||^2 = ||z - mu_C||^2 - 2 <m_c, z> + 2 <m_c, mu_C> + ||m_c||^2 with m_c = mu_c - mu_C.
    """

    head: jax.Array
    bias: jax.Array
    means: jax.Array
    offset: jax.Array
    reach: jax.Array  # (C,) just under half the distance of mu_c to the nearest other centre
    poison: jax.Array  # nan if the head or the bias holds one, which argmax would hide; else 0


@jax.jit
def _scorers(stats, head, bias):
    means, _, mask = _means_and_head(stats, head)
    head = spectra.as_rows(head, "head").astype(means.dtype)
    bias = jnp.zeros(len(head), means.dtype) if bias is None else spectra.as_float(bias).astype(means.dtype)
    if bias.shape != (len(head),):
        raise ValueError(f"bias must have shape ({len(head)},); got {bias.shape}")
    center = spectra.matmul(class_weights(stats, "classes")[None], stats.mean)
    square = jnp.sum(means * means, axis=1)
    offset = -jnp.sum(means * center, axis=1) - square / 2
    apart = 0.999 * (square[:, None] + square[None, :]) - 2 * spectra.matmul(means, means.T)
    apart = jnp.where(mask[None, :] & ~jnp.eye(len(mask), dtype=bool), apart, jnp.inf)
    return _Scorers(
        head, bias, means, jnp.where(mask, offset, -jnp.inf), 0.499 * spectra.safe_sqrt(jnp.min(apart, axis=1)),
        poison=0 * (jnp.sum(head) + jnp.sum(bias)),
    )  # fmt: skip


def _disagreement(scorers, rows, owners, distance):
    """1 for samples whose head class is not the nearest centre, else 0; nan where that cannot be told."""
    if spectra.on_host(rows, owners, distance, *scorers):
        rows, owners, near, (head, bias, means, offset, reach, _) = jax.tree.map(
            np.asarray, (rows, owners, distance, scorers)
        )
        # A centre is the nearest one if no other lies within twice its distance: no need to look.
        unsure = np.flatnonzero(~(near < reach[owners]))
        nearest = owners.copy()
        with np.errstate(all="ignore"):
            nearest[unsure] = np.argmax(rows[unsure] @ means.T + offset, axis=1)
            differ = np.argmax(rows @ head.T + bias, axis=1) != nearest
        differ = jnp.asarray(differ)
    else:
        scores = ((scorers.head, scorers.bias), (scorers.means, scorers.offset))
        chosen, nearest = (jnp.argmax(spectra.matmul(rows, a.T) + b[None], axis=1) for a, b in scores)
        differ = chosen != nearest
    return differ.astype(distance.dtype) + 0 * distance + scorers.poison


class PerClass(NamedTuple):
    """Values of each class, (C,) each; nan for absent classes. See the aggregates of the same name."""

    count: jax.Array
    nc1: jax.Array
    nc2_norm: jax.Array
    nc2_angle: jax.Array
    nc3: jax.Array | None
    nc4: jax.Array | None
    cdnv: jax.Array


class NeuralCollapse(NamedTuple):
    """All collapse statistics, 0-d arrays that vanish at neural collapse; those of the head are None without one.

    nc1 (in the stated convention), nc2_* of the class means, nc2_*_head of the head rows, nc3 (Papyan's), nc3_etf,
    nc4, cdnv, davies_bouldin, per_class: `PerClass`.
    """

    nc1: jax.Array
    nc2_equinorm: jax.Array
    nc2_equiangularity: jax.Array
    nc2_etf_distance: jax.Array
    nc2_equinorm_head: jax.Array | None
    nc2_equiangularity_head: jax.Array | None
    nc2_etf_distance_head: jax.Array | None
    nc3: jax.Array | None
    nc3_etf: jax.Array | None
    nc4: jax.Array | None
    cdnv: jax.Array
    davies_bouldin: jax.Array
    per_class: PerClass


def neural_collapse(z, labels, head=None, bias=None, *, num_classes=None, convention="thesis", weights=None):
    """NC1 to NC4, CDNV and Davies-Bouldin of features and (if given) a head, sharing two passes.

    Args:
      z: (N, D) features, the classifier's input.
      labels: (N,) integers; samples labelled outside [0, C) have weight zero.
      head: (C, D) classifier weights or None; bias: (C,) or None.
      num_classes: C; taken from the head, or inferred from concrete labels, if None.
      convention: of NC1; a key of `NC1_CONVENTIONS`.
      weights: (N,) non-negative or None.
    Returns:
      `NeuralCollapse`.
    Raises:
      ValueError: shapes do not fit, unknown convention, C unknown under jit.
    """
    if head is not None:
        num_classes = spectra.as_rows(head, "head").shape[0]
    stats = class_stats(z, labels, num_classes, weights=weights)
    inverse = None if nc1_convention(convention).quotient else between_inverse(stats, convention=convention)
    sums = second_pass(stats, z, labels, head, bias, inverse=inverse, weights=weights)
    return collapse_from_passes(stats, sums, head, convention=convention)


@partial(jax.jit, static_argnames="convention")
def collapse_from_passes(stats, sums, head=None, *, convention="thesis"):
    """`NeuralCollapse` from the two passes over the samples.

    Args:
      stats: `ClassStats` of all samples.
      sums: `SecondPass` of all samples, with the `inverse` of the same convention.
      head: the (C, D) head that `sums` was made with, or None.
      convention: of NC1.
    """
    value, nc1_per_class = nc1_from_energy(sums.energy, stats, convention=convention)
    means = nc2_from_stats(stats)
    spread, cdnv_per_class = cdnv_from_stats(stats)
    present, dual = stats.count > 0, None
    of_head = dict.fromkeys(
        ("nc2_equinorm_head", "nc2_equiangularity_head", "nc2_etf_distance_head", "nc3", "nc3_etf", "nc4")
    )
    if head is not None:
        rows = nc2_from_means(_means_and_head(stats, head)[1], present)
        dual = jnp.where(present, _duality_gap(stats, head), jnp.nan)
        of_head = dict(
            nc2_equinorm_head=rows.equinorm,
            nc2_equiangularity_head=rows.equiangularity,
            nc2_etf_distance_head=rows.etf_distance,
            nc3=nc3_from_stats(stats, head),
            nc3_etf=nc3_from_stats(stats, head, convention="etf"),
            nc4=spectra.safe_divide(jnp.sum(sums.disagreement), jnp.sum(stats.count), jnp.nan),
        )
    return NeuralCollapse(
        nc1=value,
        nc2_equinorm=means.equinorm,
        nc2_equiangularity=means.equiangularity,
        nc2_etf_distance=means.etf_distance,
        **of_head,
        cdnv=spread,
        davies_bouldin=davies_bouldin_from_sums(stats, sums.distance),
        per_class=PerClass(
            count=stats.count,
            nc1=nc1_per_class,
            nc2_norm=means.norms,
            nc2_angle=means.angles,
            nc3=dual,
            nc4=None if head is None else spectra.safe_divide(sums.disagreement, stats.count, jnp.nan),
            cdnv=cdnv_per_class,
        ),
    )
