"""Entropies, MI, MIR and HDR between features and a classifier's head for the same samples, exact.

The second feature set is the head row of each label, V = W[y], whose Gram matrix has C distinct rows. The joint entropy
then needs one matrix row per class and direction that the class uses, instead of one per sample.
"""

from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from infojax.measures import arrays, class_blocks, cores, roots, scalars, spectra
from infojax.measures import host as in_numpy
from infojax.measures.arrays import AnyArray, ArrayLike
from infojax.measures.entropy import entropy_of_density, entropy_of_spectrum, smaller_density, weighted
from infojax.measures.joint import hdr_of, mi_of, mir_of
from infojax.measures.moments import ClassStats
from infojax.measures.stats_arguments import takes_stats

Number: TypeAlias = float | jax.Array
# The arguments of `assemble`, in its order.
Ingredients: TypeAlias = tuple[jax.Array, AnyArray, AnyArray, jax.Array, jax.Array, jax.Array, Number, Number]


def head_rows(head: ArrayLike, labels: ArrayLike) -> jax.Array:
    """V = W[y]: the head row of each sample's class, the second feature set of the papers' MIR and HDR.

    Args:
      head: (C, D) classifier weights (no bias).
      labels: (N,) integers; labels outside [0, C) give zero rows, which every measure leaves out.
    Returns:
      (N, D).
    """
    head, labels = arrays.as_rows(head, "head"), arrays.as_labels(labels)
    labels = arrays.as_labels(labels, labels.size)
    arrays.warn_of_unknown_classes(labels, len(head))
    known = (labels >= 0) & (labels < head.shape[0])
    return jnp.where(known[:, None], head[jnp.where(known, labels, 0)], 0)


class Interplay(NamedTuple):
    """Information measures of features and a head; see `interplay`. Entropies in nats, all 0-d arrays.

    entropy_features: H(G(Z)). entropy_head: H(G(V)), V = W[y]. joint_entropy: H(G(Z) o G(V)).
    mutual_information, mir, hdr: as the functions of those names.
    mean_energy: s = ||sum_i p_i u_i||^2, u_i the unit rows: 0 for centred directions, 1 if all are equal. The
      theoretical limits hold at s = 0; `nc_limits(C, mean_energy=s)` gives them elsewhere.
    num_samples: samples counted (positive weight, known label, non-zero rows). num_classes_present: their classes.
    """

    entropy_features: jax.Array
    entropy_head: jax.Array
    joint_entropy: jax.Array
    mutual_information: jax.Array
    mir: jax.Array
    hdr: jax.Array
    mean_energy: jax.Array
    num_samples: jax.Array
    num_classes_present: jax.Array


def interplay(
    z: ArrayLike,
    labels: ArrayLike,
    head: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    center: bool = False,
    route: str | None = None,
) -> Interplay:
    """Entropies, MI, MIR and HDR between features and the head rows of their labels, exact.

    Equal to the measures of (G(Z), G(V)), V = head_rows(head, labels), at a fraction of the cost. H(G(V)) needs
    only the smaller of C x C and D x D. The joint matrix G(Z) o G(V) = sum_c R_c (x) w_c w_c^T in the feature space
    (R_c the second moment of class c's unit rows, w_c unit head rows) has the spectrum of a matrix with one row per
    class and direction that the class uses: at most sum_c min(n_c, D) instead of N.

    Args:
      z: (N, D) features, the classifier's input.
      labels: (N,) integers; samples labelled outside [0, C) have weight zero (of C or more: with a warning).
      head: (C, D) classifier weights, no bias. Zero columns change no angle: use them to pad features of another
        layer, or head rows, to the same width.
      weights: (N,) non-negative or None; a 0/1 mask equals the subset, in value and gradient.
      center: subtract the weighted feature mean before normalising; the head is not touched.
      route: "gram" (N x N), "classes" (class compression) or None: the Gram where N <= C min(N, D), which is
        known at trace time; eager calls on the CPU compress to the concrete sum_c min(n_c, D).
    Returns:
      `Interplay`. MIR is nan where an entropy is zero (C = 2 at collapse, one class), HDR where both are.
    Raises:
      ValueError: shapes do not fit, unknown route.
    References:
      Song et al. 2024, Definitions of MIR and HDR; Theorem 3 for the limits.
    """
    return assemble(*ingredients(z, labels, head, weights, center, route))


def interplay_and_spectra(
    z: ArrayLike, labels: ArrayLike, head: ArrayLike, *, weights: ArrayLike | None = None, center: bool = False
) -> tuple[Interplay, tuple[jax.Array, ...]]:
    """`interplay`, and the eigenvalues of its three densities: features, head, joint. Not to be differentiated."""
    return assemble_with_spectra(*ingredients(z, labels, head, weights, center))


def ingredients(
    z: ArrayLike,
    labels: ArrayLike,
    head: ArrayLike,
    weights: ArrayLike | None = None,
    center: bool = False,
    route: str | None = None,
) -> Ingredients:
    """The arguments of `assemble`, from the arguments of `interplay`, which are checked."""
    z, center = arrays.as_host_rows(z), scalars.flag(center, "center")
    labels = arrays.as_labels(labels, len(z))
    head = arrays.as_head(head, z.shape[1], labels)
    dtype = jnp.promote_types(z.dtype, head.dtype)
    z, head = z.astype(dtype, copy=False) if isinstance(z, np.ndarray) else z.astype(dtype), head.astype(dtype)
    (n, dim), num_classes = z.shape, head.shape[0]
    if route not in (None, "gram", "classes"):
        raise ValueError(f"route must be 'gram', 'classes' or None; got {route!r}")
    w = arrays.sample_weights(weights, n, dtype)
    host = arrays.stays_on_host(z, labels, head, w) and not isinstance(center, jax.core.Tracer)
    if route is None:
        route = "gram" if n <= num_classes * min(n, dim) and not host else "classes"
    if host:
        u, p, labels, unit_head, class_p, mean = _directions_in_numpy(z, labels, head, w, bool(center))
    else:
        u, p, labels, unit_head, class_p, mean = weighted_directions(jnp.asarray(z), labels, head, w, center)
    if route == "gram":
        factors, owner = weighted(u, p), labels
        features = smaller_density(u, p)
    elif host:
        features, factors, owner = _factors_of_rows(u * np.sqrt(p)[:, None], labels, p > 0)
    else:
        second = class_blocks.class_second_moments(weighted(u, p), labels, num_classes)
        factors, owner = factors_of_moments(second)
        features = jnp.sum(second, axis=0)
    return features, factors, owner, unit_head, class_p, mean, jnp.asarray(np.sum(p > 0)) if host else jnp.sum(p > 0), n


def _directions_in_numpy(z, labels, head, weights, center):
    """`weighted_directions`."""
    labels, weights = np.asarray(labels), np.asarray(weights)
    w, head_live = in_numpy.unit_rows(np.asarray(head))
    known = (labels >= 0) & (labels < len(w))
    labels = np.where(known, labels, 0)
    u, p = in_numpy.directions(z, np.where(known & head_live[labels], weights, 0), center)
    class_p = np.bincount(labels, weights=p, minlength=len(w)).astype(z.dtype)
    return u, p, labels, w, class_p, p @ u


@partial(jax.jit, static_argnames="axis")
def weighted_directions(
    z: jax.Array, labels: jax.Array, head: jax.Array, weights: jax.Array, center: bool, axis: str | None = None
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """Unit rows and probabilities of samples and classes, from z (N, D), labels (N,), head (C, D) and weights (N,).

    Returns:
      u (N, D) unit rows, p (N,) their probabilities, labels (N,) in [0, C), unit head rows (C, D), class_p (C,), mean
        direction sum_i p_i u_i (D,). Under `axis` the last two are sums over all devices.
    """
    w, head_live = spectra.unit_rows(head)
    known = (labels >= 0) & (labels < len(head))
    labels = jnp.where(known, labels, 0)
    mass = jnp.where(known & head_live[labels], weights, 0)
    u, p = spectra.directions(z, mass, center, axis)
    class_p, mean = jax.ops.segment_sum(p, labels, len(head)), arrays.matmul(p[None], u)[0]
    return u, p, labels, w, arrays.total(class_p, axis), arrays.total(mean, axis)


@takes_stats
def interplay_from_stats(stats: ClassStats, head: ArrayLike) -> Interplay:
    """`interplay` from streamed moments: exact, without the samples.

    Args:
      stats: `ClassStats` of the *unit rows* (`unit_rows(z)[0]`) with scatter="class"; O(C D^2) memory.
      head: (C, D) classifier weights.
    Returns:
      `Interplay`; num_samples is the sum of the weights.
    Raises:
      ValueError: the statistics hold no per-class scatter.
    """
    if stats.scatter is None or stats.scatter.ndim != 3:
        raise ValueError("interplay_from_stats needs the scatter of each class: ClassStats.init(..., scatter='class')")
    return assemble(*ingredients_of_stats(stats, head))


def ingredients_of_stats(stats: ClassStats, head: ArrayLike) -> Ingredients:
    """The arguments of `assemble`, from streamed moments of unit rows with scatter="class" and the head (C, D)."""
    second, unit_head, class_p, mean, total = class_moments(stats, arrays.as_rows(head, "head"))
    return jnp.sum(second, axis=0), *factors_of_moments(second), unit_head, class_p, mean, total, total


@jax.jit
def class_moments(stats: ClassStats, head: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """What `assemble` needs of the `ClassStats` of unit rows, with scatter="class", and a head (C, D).

    Returns:
      Second moments R_c (C, D, D) of trace class_p, zero where the head row is; unit head rows (C, D); class_p (C,);
      mean
        direction (D,); the sum of the weights (0-d).
    """
    w, head_live = spectra.unit_rows(head.astype(stats.mean.dtype))
    assert stats.scatter is not None  # checked by the callers
    second = stats.scatter + stats.count[:, None, None] * stats.mean[:, :, None] * stats.mean[:, None, :]
    # The second moment of a class's unit rows has trace n_c; a zero row adds nothing to it.
    second = jnp.where(head_live[:, None, None], second, 0)
    class_p = jnp.trace(second, axis1=1, axis2=2)
    total = jnp.sum(class_p)
    sums = jnp.where(head_live[:, None], stats.count[:, None] * stats.mean, 0)
    mean = arrays.safe_divide(jnp.sum(sums, axis=0), total)
    second, class_p = arrays.safe_divide(second, total), arrays.safe_divide(class_p, total)
    return second, w, class_p, mean, total


def assemble(
    features: jax.Array,
    factors: AnyArray,
    owner: AnyArray,
    unit_head: jax.Array,
    class_p: jax.Array,
    mean: jax.Array,
    num_samples: Number,
    samples: Number,
) -> Interplay:
    """`Interplay` from a density of the features, factors of the classes, head rows and class frequencies.

    Args:
      features: density of the features, (D, D) or (N, N).
      factors: (R, D) rows that hold B_c with B_c^T B_c = R_c; owner: (R,) class of each.
      unit_head: (C, D'); class_p: (C,); mean: (D,) mean direction.
      num_samples: as it is reported; samples: N, for the rounding error of the entropies.
    """
    densities = _densities(features, factors, owner, unit_head, class_p)
    entropies = spectra.in_turn(lambda rho: entropy_of_density(rho, 1, samples, unit_head.dtype), *densities)
    return _interplay_of(*entropies, class_p, mean, num_samples)


def assemble_with_spectra(
    features: jax.Array,
    factors: AnyArray,
    owner: AnyArray,
    unit_head: jax.Array,
    class_p: jax.Array,
    mean: jax.Array,
    num_samples: Number,
    samples: Number,
) -> tuple[Interplay, tuple[jax.Array, ...]]:
    """`assemble`, and the eigenvalues of the three densities; not to be differentiated."""
    found = spectra.in_turn(spectra.eigenvalues, *_densities(features, factors, owner, unit_head, class_p))
    entropies = [entropy_of_spectrum(w, samples) for w in found]
    return _interplay_of(*entropies, class_p, mean, num_samples), found


def _densities(features, factors, owner, unit_head, class_p):
    return (
        # The factors may also come from decompositions: nothing else is decomposed before they are known.
        spectra.after(features, factors),
        smaller_density(unit_head, class_p),
        _joint_density(factors, owner, unit_head),
    )


@jax.jit
def _interplay_of(h1, h2, h12, class_p, mean, num_samples):
    return Interplay(
        entropy_features=h1,
        entropy_head=h2,
        joint_entropy=h12,
        mutual_information=mi_of(h1, h2, h12),
        mir=mir_of(h1, h2, h12),
        hdr=hdr_of(h1, h2),
        mean_energy=jnp.sum(mean * mean),
        num_samples=num_samples,
        num_classes_present=jnp.sum(class_p > 0),
    )


def _joint_density(rows, owner, unit_head):
    """(B B^T)_ij <w_owner(i), w_owner(j)>: G(Z) o G(V) if B holds the weighted unit rows of the samples.

    Its non-zero spectrum depends on the rows of class c only through R_c = B_c^T B_c, so any other factor of R_c with
    fewer rows may replace them.
    """
    if len(unit_head) > len(rows):  # C x C is the larger table: the head of a vocabulary
        unit_head, owner = unit_head[owner], np.arange(len(rows))
    cosines = arrays.matmul(unit_head, unit_head.T)
    if arrays.on_host(rows, owner, cosines):
        rows, owner, cosines = np.asarray(rows), np.asarray(owner), np.asarray(cosines)
        joint = rows @ rows.T
        joint *= cosines.take(owner, axis=0).take(owner, axis=1)
        return joint
    return arrays.matmul(rows, rows.T) * cosines[owner][:, owner]


def factors_of_moments(second: jax.Array) -> tuple[AnyArray, AnyArray]:
    """Factors B_c of the second moments R_c = B_c^T B_c (C, D, D): their rows (R, D), and the class (R,) of each
    row."""
    num_classes, dim, _ = second.shape
    owner = np.repeat(np.arange(num_classes), dim)
    if arrays.on_host(second):
        rows = [_short_factor(r) for r in np.asarray(second)]
        return np.concatenate(rows), np.repeat(np.arange(num_classes), [len(r) for r in rows])
    return jax.vmap(factor)(second).reshape(num_classes * dim, dim), owner


# The symmetric square root: the only factor whose derivative exists at repeated eigenvalues.
factor = roots.psd_sqrt


def _factors_of_rows(rows, labels, used):
    """Density of concrete weighted unit rows, and factors (rows, owner), min(n_c, D) rows for class c, in float64.

    The spectrum of a float64 matrix takes no longer than that of a float32 one and keeps small eigenvalues.
    """
    order = np.flatnonzero(used)
    order = order[np.argsort(labels[order], kind="stable")]
    classes, starts = np.unique(labels[order], return_index=True)
    groups = [rows[index].astype(np.float64) for index in np.split(order, starts[1:])]
    with cores.one_thread(), np.errstate(all="ignore"):
        groups = [_short_factor(g.T @ g) if len(g) > g.shape[1] else g for g in groups]
    factors = np.concatenate(groups)
    short, long = (factors, factors.T) if len(factors) < factors.shape[1] else (factors.T, factors)
    return short @ long, factors, np.repeat(classes, [len(g) for g in groups])


def _short_factor(second):
    """B (rank, D) with B^T B = the positive semi-definite `second` (D, D)."""
    if not np.isfinite(second).all():
        return np.full((1, len(second)), np.nan, second.dtype)
    w, v = np.linalg.eigh(second)
    keep = spectra.support(w) > 0
    return np.sqrt(w[keep])[:, None] * v[:, keep].T
