"""All of neural collapse: NC1 to NC4, CDNV and Davies-Bouldin of one set of features, sharing two passes.

Everything is computed in two passes, each a sum over samples: `ClassStats` first, then the sums of `SecondPass`
around those class means. So it streams (add the sums of the batches), shards (psum them) and takes O(C D) memory.

Classes without samples are left out: C then means the number of classes present. Class means mu_c, their mean mu_C.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from infojax.measures import arrays, scale
from infojax.measures.arrays import ArrayLike
from infojax.measures.moments import ClassStats, infer_num_classes
from infojax.measures.passes import SecondPass, same_classifier, second_pass
from infojax.measures.separation import cdnv_from_stats, davies_bouldin_from_sums
from infojax.measures.simplex import duality_gap, means_and_head, nc2_from_means, nc2_from_stats, nc3_from_stats
from infojax.measures.stats_arguments import takes_stats
from infojax.measures.variability import between_inverse, nc1_convention, nc1_from_energy


class PerClass(NamedTuple):
    """Values of each class, (C,) each; nan for absent classes. See the aggregates of the same name."""

    count: jax.Array  # type: ignore[assignment]  # shadows tuple.count, which is not needed
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


def neural_collapse(
    z: ArrayLike,
    labels: ArrayLike,
    head: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    num_classes: int | None = None,
    convention: str = "thesis",
    weights: ArrayLike | None = None,
) -> NeuralCollapse:
    """NC1 to NC4, CDNV and Davies-Bouldin of features and (if given) a head, sharing two passes.

    Args:
      z: (N, D) features, the classifier's input.
      labels: (N,) integers; samples labelled outside [0, C) have weight zero (of C or more: with a warning).
      head: (C, D) classifier weights or None; bias: (C,) or None.
      num_classes: C; taken from the head, or inferred from concrete labels, if None.
      convention: of NC1; a key of `NC1_CONVENTIONS`.
      weights: (N,) non-negative or None.
    Returns:
      `NeuralCollapse`.
    Raises:
      ValueError: shapes do not fit, unknown convention, C unknown under jit.
    """
    z, given = arrays.as_host_rows(z), labels
    labels = arrays.as_labels(labels, len(z))
    if head is not None:
        head = arrays.as_head(head, z.shape[1], labels)
        rows = len(head)
        if num_classes not in (None, rows):
            raise ValueError(f"num_classes is {num_classes}, but the head has {rows} rows; leave num_classes out")
        num_classes = rows
    bias = arrays.as_bias(bias, head)
    num_classes = infer_num_classes(given, num_classes)  # from labels that are not traced
    z, stats, s = scale.first_pass(z, labels, num_classes, weights)
    inverse = None if nc1_convention(convention).quotient else between_inverse(stats, convention=convention)
    classifier = same_classifier(head, bias, s)
    sums = second_pass(stats, z, labels, *classifier, inverse=inverse, weights=weights)
    return with_unit(collapse_from_passes(stats, sums, head, convention=convention), s)


def with_unit(found: NeuralCollapse, s: jax.Array) -> NeuralCollapse:
    """`NeuralCollapse` of z from that of z / s, s 0-d: only nc2_norm (C,), the norms of the class means, has a unit."""
    return found._replace(per_class=found.per_class._replace(nc2_norm=s * found.per_class.nc2_norm))


@takes_stats
@partial(jax.jit, static_argnames="convention")
def collapse_from_passes(
    stats: ClassStats, sums: SecondPass, head: ArrayLike | None = None, *, convention: str = "thesis"
) -> NeuralCollapse:
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
        rows = nc2_from_means(means_and_head(stats, head)[1], present)
        dual = jnp.where(present, duality_gap(stats, head), jnp.nan)
        of_head = dict(
            nc2_equinorm_head=rows.equinorm,
            nc2_equiangularity_head=rows.equiangularity,
            nc2_etf_distance_head=rows.etf_distance,
            nc3=nc3_from_stats(stats, head),
            nc3_etf=nc3_from_stats(stats, head, convention="etf"),
            nc4=arrays.safe_divide(jnp.sum(sums.disagreement), jnp.sum(stats.count), jnp.nan),
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
            nc4=None if head is None else arrays.safe_divide(sums.disagreement, stats.count, jnp.nan),
            cdnv=cdnv_per_class,
        ),
    )
