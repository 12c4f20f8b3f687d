"""Joint entropy, MI, MIR and HDR where the joint matrix is too large to decompose: estimates with error bars.

If class compression leaves at most EXACT_SIDE rows (sum_c min(n_c, D), or the smaller of N and D1 D2 for two feature
sets), the measure is computed exactly ("gram" or "classes"); otherwise the matrix is only multiplied by vectors
(`trace.estimate_entropy_of`), in time linear in N and without any N x N array ("estimate"). All functions are called
eagerly, since their cost depends on the data. alpha = 1 only.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from infojax.measures import arrays, head_interplay, scalars, spectra
from infojax.measures.arrays import ArrayLike
from infojax.measures.entropy import density_of_features, entropy_of_spectrum, smaller_density, weighted
from infojax.measures.head_interplay import Interplay
from infojax.measures.head_stages import COMPRESSED, COUNTS, FACTORED, packed
from infojax.measures.interval import Estimate, computed, ratio, total_of
from infojax.measures.joint import pair_densities
from infojax.measures.moments import ClassStats
from infojax.measures.operators import Matrix, Pairs
from infojax.measures.stats_arguments import takes_stats
from infojax.measures.trace import Compiled, estimate_entropy_of, on_one_device

# A spectrum of this size takes 1 s in float32 on two CPU cores, less than an estimate.
EXACT_SIDE = 4096
# Floats of the second moments of all classes (512 MiB), used to compress more than 2 D samples per class.
CLASS_MOMENTS = 2**27
# Floats of a joint matrix of two feature sets that is stored for products: N = 11,585 (512 MiB in float32).
STORED = 2**27


class Effort(NamedTuple):
    """How much work an estimate may take.

    Attributes:
      tolerance: half the requested width of [lower, upper], nats.
      confidence: probability that the true value lies in it.
      seed: of the random vectors.
      vectors: maximum number of them.
      exact_side: matrices of up to this many rows are decomposed.
    """

    tolerance: float = 5e-3
    confidence: float = 0.95
    seed: int = 0
    vectors: int = 128
    exact_side: int = EXACT_SIDE


def _effort(given, *concrete):
    if unknown := given.keys() - set(Effort._fields):
        alpha = "; only alpha = 1 is estimated, and matrix_entropy(alpha=2) needs no estimate" * ("alpha" in unknown)
        raise TypeError(f"unknown keyword {sorted(unknown)[0]!r}; expected {', '.join(Effort._fields)}{alpha}")
    effort = Effort(**given)
    scalars.positive(effort.tolerance, "tolerance")
    scalars.number(effort.confidence, "confidence", "a number between 0 and 1", lambda x: 0 < x < 1)
    for name, least, most in (("seed", -(2**63), 2**63 - 1), ("vectors", 1, 10**6), ("exact_side", 0, None)):
        scalars.whole_number(getattr(effort, name), name, least, most)
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(concrete)):
        raise ValueError(
            "estimates need concrete arrays, which decide what is computed: call them outside jit, grad, vmap"
        )
    return effort


class InterplayEstimate(NamedTuple):
    """`Interplay` with an `Estimate` for each entropy and for the quantities computed from them.

    On exact routes the bounds only cover rounding. `values` is the plain `Interplay`.
    """

    entropy_features: Estimate
    entropy_head: Estimate
    joint_entropy: Estimate
    mutual_information: Estimate
    mir: Estimate
    hdr: Estimate
    mean_energy: float
    num_samples: float
    num_classes_present: int

    @property
    def values(self) -> Interplay:
        """`Interplay` of the estimated values, without their bounds."""
        plain = (x.value if isinstance(x, Estimate) else x for x in self)
        return Interplay(*map(jax.device_put, plain))


def estimate_interplay(
    z: ArrayLike,
    labels: ArrayLike,
    head: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    center: bool = False,
    compiled: Compiled = on_one_device,
    exact: Callable[..., tuple[Interplay, tuple[jax.Array, ...]]] = head_interplay.interplay_and_spectra,
    **effort: Any,
) -> InterplayEstimate:
    """`interplay` for any number of samples, classes and columns: exact if that is cheap, else estimated.

    Args:
      z, labels, head, weights, center: as `interplay` takes them; concrete arrays.
      compiled, exact: see `parallel.estimate_interplay`.
      effort: fields of `Effort`: tolerance=5e-3, confidence=0.95, seed=0, vectors=128, exact_side=4096.
    Returns:
      `InterplayEstimate`. A product takes O(N D + C^2 D); memory is O(N D), plus four times C D^2 (up to 512 MiB)
      where classes are compressed.
    Raises:
      ValueError: shapes do not fit.
    """
    effort = _effort(effort, z, labels, head, weights)
    z, center = arrays.as_rows(z), scalars.flag(center, "center")
    labels = arrays.as_labels(labels, len(z))
    head = arrays.as_head(head, z.shape[1], labels)
    dtype = jnp.promote_types(z.dtype, head.dtype)
    z, head = z.astype(dtype), head.astype(dtype)
    (n, dim), w = z.shape, arrays.sample_weights(weights, len(z), dtype)
    u, p, labels, unit_head, class_p, mean = head_interplay.weighted_directions(z, labels, head, w, center)
    counts = np.asarray(compiled(COUNTS)(labels, p, unit_head))
    sides = np.minimum(counts, dim)
    if not sides.any() or (sides.sum() <= effort.exact_side and min(n, dim) <= effort.exact_side):
        route = "classes" if sides.sum() < counts.sum() else "gram"
        return _exact(*exact(z, labels, head, weights=jnp.where(p > 0, w, 0), center=center), n, route, sides.sum())
    unit_head, class_p, labels, counts = _present(unit_head, class_p, labels, counts)
    rows = weighted(u, p)
    del u  # it is as large as the features
    if 2 * sides.sum() < counts.sum() and len(counts) * dim * dim <= CLASS_MOMENTS:
        operator = compiled(COMPRESSED)(rows, labels, unit_head)
    else:
        # At most N / C: for classes of one sample, the tail of a vocabulary, larger blocks would be mostly padding.
        size = max(min(int(counts.max(initial=0)), dim, -(-int(counts.sum()) // max(len(counts), 1))), 1)
        shape = (int(np.sum(-(-counts // size))), size) if compiled is on_one_device else None
        operator = packed(rows, labels, unit_head, jnp.where(p > 0, jnp.arange(n), -1), shape, compiled)
    features = entropy_of_rows(rows, effort, n, compiled)
    return _assemble(features, operator, unit_head, class_p, mean, counts.sum(), effort, compiled)


@takes_stats
def estimate_interplay_from_stats(
    stats: ClassStats, head: ArrayLike, *, compiled: Compiled = on_one_device, **effort: Any
) -> InterplayEstimate:
    """`estimate_interplay` from streamed moments, without the samples.

    Args:
      stats: `ClassStats` of the *unit rows* (`unit_rows(z)[0]`) with scatter="class"; O(C D^2) memory.
      head: (C, D) classifier weights.
      effort: fields of `Effort`.
    Returns:
      `InterplayEstimate`; num_samples is the sum of the weights.
    """
    if stats.kind != "class":
        raise ValueError("estimate_interplay_from_stats needs ClassStats.init(..., scatter='class')")
    effort = _effort(effort, stats, head)
    if stats.mean.size <= effort.exact_side:
        found = head_interplay.assemble_with_spectra(*head_interplay.ingredients_of_stats(stats, head))
        return _exact(*found, float(jnp.sum(stats.count)), "classes", stats.mean.size)
    second, unit_head, class_p, mean, count = head_interplay.class_moments(stats, arrays.as_rows(head, "head"))
    features = _computed(jnp.sum(second, axis=0), int(count))
    operator = compiled(FACTORED)(second, unit_head)
    return _assemble(features, operator, unit_head, class_p, mean, float(count), effort, compiled)


def estimate_joint_entropy(
    z1: ArrayLike,
    z2: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    center: bool = False,
    compiled: Compiled = on_one_device,
    **effort: Any,
) -> Estimate:
    """`joint_entropy` of two feature sets, alpha = 1: exact if min(N, D1 D2) is small, else estimated.

    Args:
      z1, z2, weights, center: as `joint_entropy` takes them; concrete arrays.
      effort: fields of `Effort`.
    Returns:
      `Estimate`. A product costs 2 N^2 operations where N^2 floats may be stored (512 MiB), else 4 N D1 D2.
    Raises:
      ValueError: shapes do not fit.
    """
    effort = _effort(effort, z1, z2, weights)
    z1, z2 = arrays.as_rows(z1, "z1"), arrays.as_rows(z2, "z2")
    n = len(z1)
    if len(z2) != n or min(n, z1.shape[1] * z2.shape[1]) <= effort.exact_side:
        return _computed(pair_densities(z1, z2, center, weights)[2], n)
    dtype = jnp.promote_types(z1.dtype, z2.dtype)
    u, p = spectra.directions(z1.astype(dtype), weights, center)
    v, q = spectra.directions(z2.astype(dtype), weights, center)
    p = jnp.where(q <= 0, 0, p)
    rows, sample = weighted(u, arrays.safe_divide(p, jnp.sum(p))), jnp.where(p > 0, jnp.arange(n), -1)
    if n * n <= STORED and compiled is on_one_device:
        operator = Matrix(arrays.matmul(rows, rows.T) * arrays.matmul(v, v.T), sample)
    else:
        operator = Pairs(rows, v, sample)
    return _estimate(operator, effort, compiled)


def estimate_matrix_entropy(
    z: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    center: bool = False,
    compiled: Compiled = on_one_device,
    **effort: Any,
) -> Estimate:
    """`matrix_entropy` of features, alpha = 1: exact if min(N, D) is small, else estimated.

    Args and errors as `estimate_joint_entropy`, of one feature set.
    """
    effort = _effort(effort, z, weights)
    z = arrays.as_rows(z)
    if min(z.shape) <= effort.exact_side and compiled is on_one_device:
        return _computed(density_of_features(z, weights, center), len(z))
    return entropy_of_rows(weighted(*spectra.directions(z, weights, center)), effort, len(z), compiled)


def estimate_matrix_entropy_from_gram(k: ArrayLike, *, compiled: Compiled = on_one_device, **effort: Any) -> Estimate:
    """`matrix_entropy_from_gram` of a stored (n, n) matrix k, alpha = 1, always estimated: O(n^2) per product.

    Args and errors as `estimate_joint_entropy`; k is divided by its trace.
    """
    settings = _effort(effort, k)
    k = arrays.as_square(k)
    operator = Matrix(arrays.safe_divide(k, jnp.trace(k)), jnp.arange(len(k)))
    return _estimate(operator, settings, compiled)


def entropy_of_rows(rows: jax.Array, effort: Effort, samples: float, compiled: Compiled = on_one_device) -> Estimate:
    """H of the density B^T B of the weighted unit rows B (N, D), in nats.

    Exact from the smaller Gram matrix if min(N, D) <= effort.exact_side, else estimated. samples: N, which sets the
    rounding error.
    """
    if min(rows.shape) <= effort.exact_side:
        return _computed(spectra.smaller_gram(rows), samples)
    one = jnp.ones((1, 1), rows.dtype)
    labels = jnp.zeros(len(rows), jnp.int32)
    return _estimate(packed(rows, labels, one, jnp.arange(len(rows)), None, compiled), effort, compiled)


def _estimate(operator, effort, compiled):
    return estimate_entropy_of(
        operator, tolerance=effort.tolerance, confidence=effort.confidence, seed=effort.seed,
        vectors=effort.vectors, compiled=compiled,
    )  # fmt: skip


def _present(unit_head, class_p, labels, counts):
    """Head, probabilities, labels and counts of the classes that occur."""
    present = np.flatnonzero(counts)
    if len(present) == len(counts):
        return unit_head, class_p, labels, counts
    number = np.zeros(len(counts), np.int32)
    number[present] = np.arange(len(present))
    return unit_head[present], class_p[present], jnp.asarray(number)[labels], counts[present]


def _assemble(features, operator, unit_head, class_p, mean, num_samples, effort, compiled):
    if min(unit_head.shape) <= effort.exact_side:
        head = _computed(smaller_density(unit_head, class_p), len(unit_head))
    else:
        head = entropy_of_rows(weighted(unit_head, class_p), effort, len(unit_head))
    joint = _estimate(operator, effort, compiled)
    return assembled(features, head, joint, jnp.sum(mean * mean), num_samples, jnp.sum(class_p > 0))


def assembled(
    features: Estimate,
    head: Estimate,
    joint: Estimate,
    mean_energy: float | jax.Array,
    num_samples: float | jax.Array,
    num_classes_present: float | jax.Array,
) -> InterplayEstimate:
    """`InterplayEstimate` from the estimates of H(G1), H(G2) and H(G1 o G2).

    Intervals add up, standard errors add in quadrature; MIR and HDR are quotients of intervals (`interval.ratio`).
    """
    mi = total_of((1, features), (1, head), (-1, joint))
    smaller, larger = sorted((features, head), key=lambda e: e.value)
    difference = total_of((1, larger), (-1, smaller))
    difference = difference._replace(lower=max(difference.lower, 0.0))
    return InterplayEstimate(
        features, head, joint, mi, ratio(mi, smaller), ratio(difference, larger),
        float(mean_energy), float(num_samples), int(num_classes_present),
    )  # fmt: skip


def _computed(rho, samples, route="gram"):
    w = spectra.eigenvalues(rho)
    return computed(float(entropy_of_spectrum(w, samples)), w, samples, route)


def _exact(found, spectra_of, samples, route, side):
    """`InterplayEstimate` of exact results, with the values of `Interplay`; side: size of the largest matrix."""
    sides = (int(side), None, int(side))
    entropies = [computed(float(h), w, samples, route, k) for h, w, k in zip(found[:3], spectra_of, sides, strict=True)]
    bounded = assembled(*entropies, found.mean_energy, found.num_samples, found.num_classes_present)
    ratios = {name: float(getattr(found, name)) for name in ("mutual_information", "mir", "hdr")}
    return bounded._replace(**{name: getattr(bounded, name)._replace(value=value) for name, value in ratios.items()})


__all__ = [
    "Effort", "Estimate", "InterplayEstimate", "estimate_interplay", "estimate_interplay_from_stats",
    "estimate_joint_entropy", "estimate_matrix_entropy", "estimate_matrix_entropy_from_gram",
]  # fmt: skip
