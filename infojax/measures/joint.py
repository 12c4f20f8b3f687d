"""Joint entropy, mutual information, MIR and HDR: of two feature sets, of two Gram matrices, of features and a head.

For Gram matrices K1, K2 of the same samples (unit diagonal) the joint entropy is H(K1 o K2), o the elementwise
product; MI = H(K1) + H(K2) - H(K1 o K2); MIR = MI / min(H(K1), H(K2)); HDR = |H(K1) - H(K2)| / max(H(K1), H(K2)).

0 <= MI <= min(H1, H2) for alpha = 1 only: for other alpha the same expression can be negative. MIR depends on
the number of samples and on the mean energy s of the features (`Interplay`), so it should not be compared across
different n. A ratio with a zero denominator is nan, with zero gradient.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from infojax.measures import arrays, moments, roots, spectra
from infojax.measures.entropy import (
    density_from_gram,
    entropy_of_density,
    smaller_density,
    weighted,
)


def _pair_entropies(z1, z2, alpha, center, weights):
    """H(G1), H(G2), H(G1 o G2) over the samples that have a direction in both sets."""
    z1, z2 = arrays.as_rows(z1, "z1"), arrays.as_rows(z2, "z2")
    if z1.shape[0] != z2.shape[0]:
        raise ValueError(
            f"z1 has {z1.shape[0]} rows, z2 has {z2.shape[0]}: both must hold the same samples in the same order "
            "(ij.head_rows(head, labels) gives one head row a sample)"
        )
    dtype = jnp.promote_types(z1.dtype, z2.dtype)
    z1, z2 = z1.astype(dtype), z2.astype(dtype)
    u1, p1 = spectra.directions(z1, weights, center)
    u2, p2 = spectra.directions(z2, weights, center)
    # A sample without a direction in one set is left out of all three entropies, so that MI >= 0 holds.
    p = jnp.where(p2 <= 0, 0, p1)
    p = arrays.safe_divide(p, jnp.sum(p))
    n, rank = z1.shape[0], z1.shape[1] * z2.shape[1]
    if n > rank:
        pairs = (u1[:, :, None] * u2[:, None, :]).reshape(n, rank)
        joint = smaller_density(pairs, p)
    else:
        root = arrays.safe_sqrt(p)[:, None]
        joint = arrays.matmul(u1 * root, (u1 * root).T) * arrays.matmul(u2, u2.T)
    densities = smaller_density(u1, p), smaller_density(u2, p), joint
    return spectra.in_turn(lambda rho: entropy_of_density(rho, alpha, n), *densities)


def _pair_entropies_from_gram(k1, k2, alpha, weights):
    k1, k2 = arrays.as_square(k1, "k1"), arrays.as_square(k2, "k2")
    if k1.shape != k2.shape:
        raise ValueError(f"k1 is {k1.shape}, k2 is {k2.shape}: both must be Gram matrices of the same samples")
    # A sample without a direction in one set has a zero diagonal there; it is left out of all three.
    w = arrays.sample_weights(weights, len(k1), k1.dtype)
    w = jnp.where((jnp.diagonal(k1) <= 0) | (jnp.diagonal(k2) <= 0), 0, w)
    return spectra.in_turn(lambda k: entropy_of_density(density_from_gram(k, w), alpha), k1, k2, k1 * k2)


def _mi(h1, h2, joint):
    return h1 + h2 - joint


def _mir(h1, h2, joint):
    return arrays.safe_divide(_mi(h1, h2, joint), jnp.minimum(h1, h2), jnp.nan)


def _hdr(h1, h2):
    return arrays.safe_divide(jnp.abs(h1 - h2), jnp.maximum(h1, h2), jnp.nan)


def joint_entropy(z1, z2, *, alpha=1.0, center=False, weights=None):
    """Joint matrix entropy H_alpha(G(Z1) o G(Z2)), in nats.

    The smaller of the N x N matrix and the (D1 D2) x (D1 D2) second moment of the row-wise Kronecker product is
    decomposed.

    Args:
      z1, z2: (N, D1) and (N, D2) features of the same samples.
      alpha: order, a static positive number.
      center: subtract the (weighted) mean of each set before normalising.
      weights: (N,) non-negative or None; a 0/1 mask equals the subset.
    Returns:
      0-d array, at least max(H1, H2). Samples whose row is zero in either set are left out.
    Raises:
      ValueError: different numbers of rows, wrong ranks, alpha not positive.
    References:
      Song et al. 2024; Tan et al. 2024, Definition 3.2.
    """
    return _pair_entropies(z1, z2, alpha, center, weights)[2]


def mutual_information(z1, z2, *, alpha=1.0, center=False, weights=None):
    """Matrix mutual information H(G(Z1)) + H(G(Z2)) - H(G(Z1) o G(Z2)), in nats.

    In [0, min(H1, H2)] for alpha = 1. For other alpha it is not a mutual information: it can be negative.
    Arguments, exclusions and errors as `joint_entropy`.
    """
    return _mi(*_pair_entropies(z1, z2, alpha, center, weights))


def mir(z1, z2, *, alpha=1.0, center=False, weights=None):
    """Matrix mutual information ratio MI(G(Z1), G(Z2)) / min(H(G(Z1)), H(G(Z2))).

    In [0, 1] for alpha = 1; nan (0/0) if either entropy is zero. Depends on the number of samples: compare
    values at one n only. Arguments, exclusions and errors as `joint_entropy`.
    """
    return _mir(*_pair_entropies(z1, z2, alpha, center, weights))


def hdr(z1, z2, *, alpha=1.0, center=False, weights=None):
    """Matrix entropy difference ratio |H1 - H2| / max(H1, H2) of H1 = H(G(Z1)), H2 = H(G(Z2)).

    In [0, 1]; nan (0/0) if both entropies are zero. Arguments, exclusions and errors as `joint_entropy`.
    """
    return _hdr(*_pair_entropies(z1, z2, alpha, center, weights)[:2])


def joint_entropy_from_gram(k1, k2, *, alpha=1.0, weights=None):
    """Joint matrix entropy H_alpha(K1 o K2), each matrix divided by its trace; see `joint_entropy`.

    Args:
      k1, k2: (n, n) Gram matrices of the same samples, with unit (or zero) diagonals.
      alpha: order, a static positive number.
      weights: (n,) non-negative or None.
    Returns:
      0-d array, nats.
    Raises:
      ValueError: the matrices are not square or differ in size.
    """
    return _pair_entropies_from_gram(k1, k2, alpha, weights)[2]


def mutual_information_from_gram(k1, k2, *, alpha=1.0, weights=None):
    """Matrix mutual information of two Gram matrices; see `mutual_information` and `joint_entropy_from_gram`."""
    return _mi(*_pair_entropies_from_gram(k1, k2, alpha, weights))


def mir_from_gram(k1, k2, *, alpha=1.0, weights=None):
    """MIR of two Gram matrices, for instance Theorem 3's G(W) and G(M); see `mir`, `joint_entropy_from_gram`."""
    return _mir(*_pair_entropies_from_gram(k1, k2, alpha, weights))


def hdr_from_gram(k1, k2, *, alpha=1.0, weights=None):
    """HDR of two Gram matrices, for instance Theorem 3's G(W) and G(M); see `hdr`, `joint_entropy_from_gram`."""
    return _hdr(*_pair_entropies_from_gram(k1, k2, alpha, weights)[:2])


def head_rows(head, labels):
    """V = W[y]: the head row of each sample's class, the second feature set of the papers' MIR and HDR.

    Args:
      head: (C, D) classifier weights (no bias).
      labels: (N,) integers; labels outside [0, C) give zero rows, which every measure leaves out.
    Returns:
      (N, D).
    """
    head, labels = arrays.as_rows(head, "head"), jnp.asarray(labels)
    labels = arrays.as_labels(labels, labels.size)
    known = (labels >= 0) & (labels < head.shape[0])
    return jnp.where(known[:, None], head[jnp.where(known, labels, 0)], 0)


class Interplay(NamedTuple):
    """What features and a head say about the same samples; see `interplay`. Entropies in nats, all 0-d arrays.

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


def interplay(z, labels, head, *, weights=None, center=False, route=None):
    """Entropies, MI, MIR and HDR between features and the head rows of their labels, exact.

    Equal to the measures of (G(Z), G(V)), V = head_rows(head, labels), at a fraction of the cost. H(G(V)) needs
    only C x C. The joint matrix G(Z) o G(V) = sum_c R_c (x) w_c w_c^T in the feature space (R_c the second
    moment of class c's unit rows, w_c unit head rows) has the spectrum of a matrix with one row per class and
    direction that the class uses: at most sum_c min(n_c, D) instead of N.

    Args:
      z: (N, D) features, the classifier's input.
      labels: (N,) integers; samples labelled outside [0, C) have weight zero.
      head: (C, D') classifier weights, no bias.
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
    z, head = arrays.as_rows(z), arrays.as_rows(head, "head")
    dtype = jnp.promote_types(z.dtype, head.dtype)
    z, head, labels = z.astype(dtype), head.astype(dtype), arrays.as_labels(labels, z.shape[0])
    (n, dim), num_classes = z.shape, head.shape[0]
    if route not in (None, "gram", "classes"):
        raise ValueError(f"route must be 'gram', 'classes' or None; got {route!r}")
    host = arrays.on_host(z, labels, head) and (weights is None or arrays.on_host(jnp.asarray(weights)))
    if route is None:
        route = "gram" if n <= num_classes * min(n, dim) and not host else "classes"
    w = arrays.sample_weights(weights, n, dtype)
    u, p, labels, cosines, class_p, mean = _weighted_directions(z, labels, head, w, center)
    if route == "gram":
        factors, owner = weighted(u, p), labels
        features = smaller_density(u, p)
    elif host:
        factors, owner = _factors_of_rows(u, p, labels)
        features = spectra.smaller_gram(factors)
    else:
        second = moments.class_second_moments(weighted(u, p), labels, num_classes)
        factors, owner = _factors(second)
        features = jnp.sum(second, axis=0)
    return _assemble(features, factors, owner, cosines, class_p, mean, jnp.sum(p > 0), n)


@jax.jit
def _weighted_directions(z, labels, head, weights, center):
    """Unit rows, their probabilities, labels in range, cosines of head rows, class probabilities, mean direction."""
    w, head_live = spectra.unit_rows(head)
    known = (labels >= 0) & (labels < len(head))
    labels = jnp.where(known, labels, 0)
    mass = jnp.where(known & head_live[labels], weights, 0)
    u, p = spectra.directions(z, mass, center)
    class_p = jax.ops.segment_sum(p, labels, len(head))
    return u, p, labels, arrays.matmul(w, w.T), class_p, arrays.matmul(p[None], u)[0]


def interplay_from_stats(stats, head):
    """`interplay` from streamed moments: exact, without the samples.

    Args:
      stats: `ClassStats` of the *unit rows* (`unit_rows(z)[0]`) with scatter="class"; O(C D^2) memory.
      head: (C, D') classifier weights.
    Returns:
      `Interplay`; num_samples is the sum of the weights.
    Raises:
      ValueError: the statistics hold no per-class scatter.
    """
    if stats.scatter is None or stats.scatter.ndim != 3:
        raise ValueError("interplay_from_stats needs the scatter of each class: ClassStats.init(..., scatter='class')")
    second, cosines, class_p, mean, total = _class_moments(stats, arrays.as_rows(head, "head"))
    return _assemble(jnp.sum(second, axis=0), *_factors(second), cosines, class_p, mean, total, total)


@jax.jit
def _class_moments(stats, head):
    """Class second moments of trace class_p, cosines of head rows, class_p, mean direction, number of samples."""
    w, head_live = spectra.unit_rows(head.astype(stats.mean.dtype))
    second = stats.scatter + stats.count[:, None, None] * stats.mean[:, :, None] * stats.mean[:, None, :]
    # Unit rows have second moments of trace n_c; a zero row adds nothing to it.
    second = jnp.where(head_live[:, None, None], second, 0)
    class_p = jnp.trace(second, axis1=1, axis2=2)
    total = jnp.sum(class_p)
    sums = jnp.where(head_live[:, None], stats.count[:, None] * stats.mean, 0)
    mean = arrays.safe_divide(jnp.sum(sums, axis=0), total)
    second, class_p = arrays.safe_divide(second, total), arrays.safe_divide(class_p, total)
    return second, arrays.matmul(w, w.T), class_p, mean, total


def _assemble(features, factors, owner, cosines, class_p, mean, num_samples, samples):
    # The factors may come from decompositions too: nothing else is decomposed before they are known.
    densities = (
        spectra.after(features, factors),
        _head_density(cosines, class_p),
        _joint_density(factors, owner, cosines),
    )
    entropies = spectra.in_turn(lambda rho: entropy_of_density(rho, 1, samples), *densities)
    return _interplay_of(*entropies, class_p, mean, num_samples)


@jax.jit
def _head_density(cosines, class_p):
    """sqrt(p_c p_c') <w_c, w_c'> (C, C): the non-zero spectrum of G(V) / N."""
    root = arrays.safe_sqrt(class_p)
    return root[:, None] * cosines * root[None, :]


@jax.jit
def _interplay_of(h1, h2, h12, class_p, mean, num_samples):
    return Interplay(
        entropy_features=h1,
        entropy_head=h2,
        joint_entropy=h12,
        mutual_information=_mi(h1, h2, h12),
        mir=_mir(h1, h2, h12),
        hdr=_hdr(h1, h2),
        mean_energy=jnp.sum(mean * mean),
        num_samples=num_samples,
        num_classes_present=jnp.sum(class_p > 0),
    )


def _joint_density(rows, owner, cosines):
    """(B B^T)_ij <w_owner(i), w_owner(j)>: G(Z) o G(V) if B holds the weighted unit rows of the samples.

    Its non-zero spectrum depends on the rows of class c only through R_c = B_c^T B_c, so any other factor of R_c
    with fewer rows may stand in for them.
    """
    if arrays.on_host(rows, owner, cosines):
        rows, owner, cosines = np.asarray(rows), np.asarray(owner), np.asarray(cosines)
        joint = rows @ rows.T
        joint *= cosines[np.ix_(owner, owner)]
        return joint
    return arrays.matmul(rows, rows.T) * cosines[owner][:, owner]


def _factors(second):
    """Factors (rows, owner) of the class second moments (C, D, D)."""
    num_classes, dim, _ = second.shape
    owner = np.repeat(np.arange(num_classes), dim)
    if arrays.on_host(second):
        rows = [_short_factor(r) for r in np.asarray(second)]
        return np.concatenate(rows), np.repeat(np.arange(num_classes), [len(r) for r in rows])
    # The symmetric square root: the one factor whose derivative exists at repeated eigenvalues.
    return jax.vmap(roots.psd_sqrt)(second).reshape(num_classes * dim, dim), owner


def _factors_of_rows(u, p, labels):
    """Factors (rows, owner) of concrete weighted unit rows: min(n_c, D) rows for class c."""
    rows = np.asarray(u) * np.sqrt(np.asarray(p))[:, None]
    order = np.argsort(np.asarray(labels), kind="stable")
    order = order[np.asarray(p)[order] > 0]
    classes, starts = np.unique(np.asarray(labels)[order], return_index=True)
    groups = [rows[index] for index in np.split(order, starts[1:])]
    groups = [_short_factor(g.T @ g) if len(g) > g.shape[1] else g for g in groups]
    return np.concatenate(groups), np.repeat(classes, [len(g) for g in groups])


def _short_factor(second):
    """B (rank, D) with B^T B = the positive semi-definite `second` (D, D)."""
    if not np.isfinite(second).all():
        return np.full((1, len(second)), np.nan, second.dtype)
    w, v = np.linalg.eigh(second)
    keep = spectra.support(w) > 0
    return np.sqrt(w[keep])[:, None] * v[:, keep].T
