"""NC1, the within-class variability, in every published convention; equi-separation over layers.

tr(S_W S_B^+) is computed in two passes, each a sum over samples: `ClassStats` first, then `within_energy` around
those class means. It streams (add the results of the batches), shards (psum them), takes O(C D) memory and keeps
its digits in float32, where one-pass formulas subtract numbers a million times larger than the result.

Classes without samples are left out: C then means the number of classes present. Class means mu_c, sample mean
mu_G, mean of the class means mu_C.
"""

from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from infojax.measures import arrays, by_class, moments, roots, sample_blocks, scalars, scale
from infojax.measures.arrays import ArrayLike
from infojax.measures.moments import ClassStats
from infojax.measures.stats_arguments import takes_stats


class Convention(NamedTuple):
    """One published form of NC1 = scale * tr(S_W S_B^+); "samples" weights class c by n_c / N, "classes" by 1 / C."""

    within: str  # S_W = sum_c a_c Cov_c
    between: str  # S_B = sum_c b_c (mu_c - m)(mu_c - m)^T
    center: str  # m: "samples" is mu_G, "classes" is mu_C
    per_class: bool = False  # divided by C
    quotient: bool = False  # uses tr S_W / tr S_B instead


# With balanced classes they agree up to the factor C (except the quotient). Taken from the released code.
NC1_CONVENTIONS = MappingProxyType({
    "thesis": Convention("samples", "samples", "samples"),
    "papyan": Convention("samples", "classes", "classes"),
    "tding1": Convention("samples", "classes", "samples", per_class=True),
    "rhubarbwu": Convention("samples", "classes", "classes", per_class=True),
    "equi_separation": Convention("classes", "classes", "samples"),
    "trace_quotient": Convention("samples", "classes", "classes", quotient=True),
})  # fmt: skip


def nc1_convention(name: str) -> Convention:
    """The `Convention` of a name; ValueError for one that is not in `NC1_CONVENTIONS`."""
    return NC1_CONVENTIONS[scalars.one_of(name, "convention", NC1_CONVENTIONS)]


def class_weights(stats: ClassStats, kind: str) -> jax.Array:
    """(C,) weights n_c / N ("samples") or 1 / C ("classes"), zero for absent classes; they sum to one."""
    w = stats.count if kind == "samples" else (stats.count > 0).astype(stats.count.dtype)
    return arrays.safe_divide(w, jnp.sum(w))


def centered_means(stats: ClassStats, kind: str) -> jax.Array:
    """mu_c - mu_G ("samples") or mu_c - mu_C ("classes"), (C, D); zero rows for absent classes."""
    center = arrays.matmul(class_weights(stats, kind)[None], stats.mean)
    return jnp.where((stats.count > 0)[:, None], stats.mean - center, 0)


def mean_rounding(stats: ClassStats) -> jax.Array:
    """4 eps max_c ||mu_c|| (0-d), the rounding error of a class mean: smaller differences count as zero."""
    eps = jnp.finfo(stats.mean.dtype).eps
    largest = jnp.max(jnp.sum(stats.mean**2, axis=1), initial=0)
    return jax.lax.stop_gradient(4 * eps * arrays.safe_sqrt(largest))


def significant(rows: jax.Array, noise: float | jax.Array) -> jax.Array:
    """The rows (n, D); those no longer than `noise`, which are rounding errors, are set to exactly zero."""
    zero = jnp.sum(rows * rows, axis=1, keepdims=True) <= noise**2
    return jnp.where(zero, 0, rows)


def significant_means(stats: ClassStats) -> jax.Array:
    """mu_c - mu_C (C, D); zero for absent classes and for means closer to mu_C than their rounding error."""
    stats, s = scale.normalised_stats(stats)
    return s * significant(centered_means(stats, "classes"), mean_rounding(stats))


def between_factor(stats: ClassStats, convention: Convention) -> jax.Array:
    """F (C, D) with S_B = F^T F: rows sqrt(b_c) (mu_c - m), see `Convention`."""
    root = arrays.safe_sqrt(class_weights(stats, convention.between))
    return root[:, None] * centered_means(stats, convention.center)


@takes_stats
def between_inverse(stats: ClassStats, *, convention: str = "thesis") -> jax.Array:
    """A root T (D, min(C, D)) of S_B^+ = T T^T: the energy d^T S_B^+ d of a deviation d is ||T^T d||^2.

    With the factor F (C, D) of S_B = F^T F, T = F^+ if C < D, else (F^T F)^(+1/2); or R^-1 of F = Q R, which is half
    as large, for a concrete F of full rank on the CPU. All come from F itself, whose singular values in float32
    resolve twice as many orders of magnitude as the eigenvalues of S_B. Treated as noise are singular values below
    10 eps sqrt(max(C, D)) of the largest, or below the rounding error of the class means.

    Args:
      stats: `ClassStats`.
      convention: a key of `NC1_CONVENTIONS`.
    Returns:
      (D, C) or (D, D).
    """
    factor, rtol, s = _factor_and_noise(stats, convention)
    if arrays.stays_on_host(factor, rtol, s):
        return jax.device_put(roots.host_inverse(*map(np.asarray, (factor, rtol))) / np.asarray(s))
    return _root_of_inverse(factor, rtol, s)


@jax.jit
def _root_of_inverse(factor, rtol, s):
    return (roots.pseudo_inverse if len(factor) < factor.shape[1] else roots.inverse_root)(factor, rtol) / s


@partial(jax.jit, static_argnames="convention")
def _factor_and_noise(stats, convention):
    stats, s = scale.normalised_stats(stats)
    factor = between_factor(stats, nc1_convention(convention))
    eps, (num_classes, dim) = jnp.finfo(factor.dtype).eps, factor.shape
    norm = arrays.safe_sqrt(jnp.sum(factor * factor))
    rtol = jax.lax.stop_gradient(
        jnp.maximum(10 * eps * max(num_classes, dim) ** 0.5, arrays.safe_divide(mean_rounding(stats), norm))
    )
    return factor, rtol, s


def energies(inverse: jax.Array, deviation: jax.Array) -> jax.Array:
    """(n,) energies ||T^T d||^2 of the rows d of `deviation` (n, D) for the root T (D, r) of `between_inverse`."""
    return _squared_lengths(arrays.matmul(deviation, inverse))


@jax.jit
def _squared_lengths(rows):
    return jnp.sum(rows * rows, axis=1)


@takes_stats
def within_energy(
    inverse: ArrayLike, stats: ClassStats, z: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None
) -> jax.Array:
    """Sums over the samples of each class of (z_i - mu_c)^T S_B^+ (z_i - mu_c): the second pass of NC1.

    Args:
      inverse: `between_inverse(stats)`.
      stats: `ClassStats` of all samples (the first pass).
      z, labels, weights: one batch, as `class_stats` takes them.
    Returns:
      (C,); add the results of all batches (or psum them), then `nc1_from_energy`.
    """
    z, labels, w = moments.samples_around(stats, z, labels, weights)
    if arrays.on_host(z, inverse):
        samples = by_class.samples(z, labels, w, stats.num_classes)
        root = by_class.root_of(np.asarray(inverse, z.dtype))
        (sums,) = by_class.values_around(samples, np.asarray(stats.mean, z.dtype), root.energies)
        return jax.device_put(sums.astype(z.dtype))

    def add(total, *block):
        deviation, owners, w = sample_blocks.deviations(*block, stats.mean)
        return total + sample_blocks.class_sums(w * energies(inverse, deviation), owners, len(total))

    zeros = jnp.zeros(stats.num_classes, z.dtype)
    return sample_blocks.fold_blocks(add, zeros, sample_blocks.BLOCK_ROWS, z, labels, w)


@takes_stats
@partial(jax.jit, static_argnames="convention")
def nc1_from_energy(energy: ArrayLike, stats: ClassStats, *, convention: str = "thesis") -> tuple[jax.Array, jax.Array]:
    """NC1 and its value for each class from the sums of `within_energy`.

    Args:
      energy: (C,) sums over all samples, for the same convention.
      stats: `ClassStats`.
      convention: a key of `NC1_CONVENTIONS`.
    Returns:
      NC1 (0-d) = sum_c a_c v_c (times 1 / C if the convention divides), and v_c = tr(Cov_c S_B^+) (C,) with the same
      factor. nan where S_B is zero (fewer than two classes present, or equal class means), and for classes without
      samples.
    """
    rule = nc1_convention(convention)
    stats, _ = scale.normalised_stats(stats)
    if rule.quotient:
        return _trace_quotient(stats, rule)
    present = stats.count > 0
    share = arrays.safe_divide(1.0, jnp.sum(present)) if rule.per_class else 1.0
    value = share * arrays.safe_divide(jnp.asarray(energy), stats.count)
    defined = has_between(stats, rule)
    total = jnp.sum(class_weights(stats, rule.within) * value)
    return jnp.where(defined, total, jnp.nan), jnp.where(defined & present, value, jnp.nan)


def has_between(stats: ClassStats, rule: Convention) -> jax.Array:
    """Whether S_B is not zero (0-d boolean): at least two classes have samples and their means differ."""
    spread = jnp.sum(between_factor(stats, rule) ** 2)
    return (jnp.sum(stats.count > 0) > 1) & (spread > mean_rounding(stats) ** 2)


def _trace_quotient(stats, rule):
    between = jnp.where(has_between(stats, rule), jnp.sum(between_factor(stats, rule) ** 2), 0)
    variance = arrays.safe_divide(stats.squares, stats.count)
    value = arrays.safe_divide(variance, between, jnp.nan)
    total = arrays.safe_divide(jnp.sum(class_weights(stats, rule.within) * variance), between, jnp.nan)
    return total, jnp.where(stats.count > 0, value, jnp.nan)


def nc1(
    z: ArrayLike,
    labels: ArrayLike,
    num_classes: int | None = None,
    *,
    convention: str = "thesis",
    weights: ArrayLike | None = None,
) -> jax.Array:
    """NC1, the within-class variability: tr(S_W S_B^+) in the named convention, 0 at collapse.

    thesis: S_W = (1/N) sum_i d_i d_i^T, d_i = z_i - mu_{y_i}; S_B = sum_c (n_c / N)(mu_c - mu_G)(mu_c - mu_G)^T.
    papyan: S_B = (1/C) sum_c about the mean of the class means mu_C. tding1: (1/C) sum_c about mu_G, all divided
    by C. rhubarbwu: papyan's divided by C. equi_separation: S_W the plain mean of the class covariances, S_B =
    (1/C) sum_c about mu_G. trace_quotient: tr S_W / tr S_B with papyan's matrices. With 500, 8 x 20 and 40 samples
    in ten classes they give 0.427 to 0.013 for the same features; with balanced classes the first five agree up to
    the factor C.

    Time O(N D min(C, D)), memory O(N D); streamed: `class_stats`, `between_inverse`, `within_energy`,
    `nc1_from_energy` in O(C D). Invariant to rotation, shift and scale of the features, not to general linear maps
    unless S_B is invertible.

    Args:
      z: (N, D) features.
      labels: (N,) integers; samples labelled outside [0, C) have weight zero (of C or more: with a warning).
      num_classes: C; inferred from concrete labels if None.
      convention: one of the above.
      weights: (N,) non-negative or None.
    Returns:
      0-d array; nan where S_B is zero (fewer than two classes present, equal class means).
    Raises:
      ValueError: shapes do not fit, unknown convention, C unknown under jit.
    References:
      Thesis "Compression in DNNs", equation 2.1 (for any class counts); Papyan, Han and Donoho, PNAS 2020;
      Zhu et al. 2021 (tding1); He and Su, PNAS 2023; Tirer et al. 2023 (quotient).
    """
    rule = nc1_convention(convention)
    z, stats, _ = scale.first_pass(z, labels, num_classes, weights, squares=rule.quotient)
    energy = stats.squares
    if not rule.quotient:
        energy = within_energy(between_inverse(stats, convention=convention), stats, z, labels, weights)
    return nc1_from_energy(energy, stats, convention=convention)[0]


@takes_stats
def nc1_from_stats(stats: ClassStats, *, convention: str = "thesis") -> jax.Array:
    """NC1 from moments that hold the within-class scatter; see `nc1`.

    The scatter in directions in which the class means hardly differ is lost in the rounding of that in the others: in
    float32 the relative error grows as eps cond(S_B). `within_energy`, in a second pass, is more accurate.

    Args:
      stats: `ClassStats` with scatter="within" or "class" ("class" for equi_separation; any for trace_quotient).
      convention: a key of `NC1_CONVENTIONS`.
    Returns:
      0-d array; nan where S_B is zero.
    Raises:
      ValueError: unknown convention, or the statistics lack the scatter it needs.
    """
    rule = nc1_convention(convention)
    stats, _ = scale.normalised_stats(stats)
    if rule.quotient:
        return _trace_quotient(stats, rule)[0]
    if stats.kind is None or (rule.within == "classes" and stats.kind != "class"):
        need = "class" if rule.within == "classes" else "within"
        raise ValueError(
            f"nc1_from_stats needs the within-class scatter for convention {convention!r}: "
            f"ClassStats.init(..., scatter={need!r}); without it, stream within_energy in a second pass"
        )
    root = between_inverse(stats, convention=convention)
    inverse = arrays.matmul(root, root.T)
    # The trace of a product of positive semi-definite matrices, but a sum of products of either sign.
    trace = arrays.not_negative(jnp.tensordot(stats.scatter, inverse, axes=2, precision="highest"))
    if stats.kind == "class":
        return nc1_from_energy(trace, stats, convention=convention)[0]
    share = arrays.safe_divide(1.0, jnp.sum(stats.count > 0)) if rule.per_class else 1.0
    value = share * arrays.safe_divide(trace, jnp.sum(stats.count))
    return jnp.where(has_between(stats, rule), value, jnp.nan)


def equi_separation(values: ArrayLike, depth: ArrayLike | None = None) -> jax.Array:
    """Pearson correlation of log NC1 with depth: -1 is the law of equi-separation (geometric decay by layer).

    Args:
      values: (L,) positive NC1 of the layers, in order.
      depth: (L,) or None for 0, 1, ..., L - 1.
    Returns:
      0-d array in [-1, 1]; nan for fewer than two layers, a value that is not positive, or constant values.
    References:
      He and Su, "A law of data separation in deep learning", PNAS 2023; the thesis uses the three hidden layers.
    """
    values = arrays.as_float(values, "values")
    if values.ndim != 1:
        raise ValueError(f"values must be (L,), one NC1 per layer; got shape {values.shape}")
    x = jnp.arange(values.shape[0], dtype=values.dtype) if depth is None else arrays.as_float(depth, "depth")
    if x.shape != values.shape:
        raise ValueError(f"depth must be {values.shape}, one per layer; got shape {x.shape}")
    positive = values > 0
    y = jnp.log(jnp.where(positive, values, 1))
    # For constant values, differences from the first entry are exactly zero; from a rounded mean they are not.
    x, y = (arrays.normalised(v - v[:1] - jnp.mean(v - v[:1]))[0] for v in (x, y))
    norms = arrays.safe_sqrt(jnp.sum(x * x)) * arrays.safe_sqrt(jnp.sum(y * y))
    r = jnp.clip(arrays.safe_divide(jnp.sum(x * y), norms), -1, 1)
    return jnp.where(jnp.all(positive) & ~(norms <= 0), r, jnp.nan)
