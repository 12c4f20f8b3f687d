"""Joint entropy, mutual information, MIR and HDR of two feature sets or of two Gram matrices.

For Gram matrices K1, K2 of the same samples (unit diagonal) the joint entropy is H(K1 o K2), o the elementwise
product; MI = H(K1) + H(K2) - H(K1 o K2); MIR = MI / min(H(K1), H(K2)); HDR = |H(K1) - H(K2)| / max(H(K1), H(K2)).

0 <= MI <= min(H1, H2) for alpha = 1 only: for other alpha the same expression can be negative. MIR depends on
the number of samples and on the mean energy s of the features (`Interplay`), so it should not be compared across
different n. A ratio with a zero denominator is nan, with zero gradient.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infojax.measures import arrays, spectra
from infojax.measures.arrays import ArrayLike
from infojax.measures.entropy import density_from_gram, entropy_of_density, smaller_density, used_block


def _pair_entropies(
    z1: Any, z2: Any, alpha: float, center: bool, weights: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """H(G1), H(G2), H(G1 o G2) over the samples that have a direction in both sets."""
    densities = pair_densities(z1, z2, center, weights)
    return spectra.in_turn(lambda rho: entropy_of_density(rho, alpha, len(z1)), *densities)


def pair_densities(
    z1: ArrayLike, z2: ArrayLike, center: bool = False, weights: ArrayLike | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Densities of G1, G2 and G1 o G2 over the samples that have a direction in both sets, on their smaller sides.

    Args:
      z1, z2: (N, D1) and (N, D2) features of the same samples.
      center, weights: as `joint_entropy` takes them.
    Returns:
      Square matrices of sides min(N, D1), min(N, D2), min(N, D1 D2).
    Raises:
      ValueError: z1 and z2 differ in rows.
    """
    z1, z2 = arrays.as_rows(z1, "z1"), arrays.as_rows(z2, "z2")
    if z1.shape[0] != z2.shape[0]:
        raise ValueError(
            f"z1 has {z1.shape[0]} rows, z2 has {z2.shape[0]}: both must hold the same samples in the same order "
            "(ij.head_rows(head, labels) gives one head row per sample)"
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
    return smaller_density(u1, p), smaller_density(u2, p), joint


def _pair_entropies_from_gram(
    k1: ArrayLike, k2: ArrayLike, alpha: float, weights: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    k1, k2 = arrays.as_square(k1, "k1"), arrays.as_square(k2, "k2")
    if k1.shape != k2.shape:
        raise ValueError(f"k1 is {k1.shape}, k2 is {k2.shape}: both must be Gram matrices of the same samples")
    # A sample without a direction in one set has a zero diagonal there; it is left out of all three.
    w = arrays.sample_weights(weights, len(k1), k1.dtype)
    w = jnp.where((jnp.diagonal(k1) <= 0) | (jnp.diagonal(k2) <= 0), 0, w)
    k1, k2 = used_block(k1, w), used_block(k2, w)  # scaled, or their product would overflow or underflow first
    return spectra.in_turn(lambda k: entropy_of_density(density_from_gram(k, w), alpha), k1, k2, k1 * k2)


def mi_of(
    h1: jax.Array, h2: jax.Array, joint: jax.Array, alpha: float = 1.0, noise: float | jax.Array = np.inf
) -> jax.Array:
    """MI = H1 + H2 - H12 from 0-d entropies; for alpha = 1, rounding errors of up to `noise` below 0 become 0."""
    value = h1 + h2 - joint
    return arrays.not_negative(value, noise) if alpha == 1 else value


def mir_of(
    h1: jax.Array, h2: jax.Array, joint: jax.Array, alpha: float = 1.0, noise: float | jax.Array = np.inf
) -> jax.Array:
    """MIR = (H1 + H2 - H12) / min(H1, H2) from 0-d entropies, `alpha` and `noise` as in `mi_of`; nan if one is zero."""
    return arrays.safe_divide(mi_of(h1, h2, joint, alpha, noise), jnp.minimum(h1, h2), jnp.nan)


def _noise(k):
    """Rounding error of an entropy of k. An MI of matrices without a unit diagonal may be negative beyond it."""
    return len(k) * jnp.finfo(arrays.as_square(k, "k1").dtype).eps


def hdr_of(h1: jax.Array, h2: jax.Array) -> jax.Array:
    """HDR = |H1 - H2| / max(H1, H2) from 0-d entropies; nan where both are zero."""
    return arrays.safe_divide(jnp.abs(h1 - h2), jnp.maximum(h1, h2), jnp.nan)


def joint_entropy(
    z1: ArrayLike, z2: ArrayLike, *, alpha: float = 1.0, center: bool = False, weights: ArrayLike | None = None
) -> jax.Array:
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


def mutual_information(
    z1: ArrayLike, z2: ArrayLike, *, alpha: float = 1.0, center: bool = False, weights: ArrayLike | None = None
) -> jax.Array:
    """Matrix mutual information H(G(Z1)) + H(G(Z2)) - H(G(Z1) o G(Z2)), in nats.

    In [0, min(H1, H2)] for alpha = 1. For other alpha it is not a mutual information: it can be negative.
    Arguments, exclusions and errors as `joint_entropy`.
    """
    return mi_of(*_pair_entropies(z1, z2, alpha, center, weights), alpha)


def mir(
    z1: ArrayLike, z2: ArrayLike, *, alpha: float = 1.0, center: bool = False, weights: ArrayLike | None = None
) -> jax.Array:
    """Matrix mutual information ratio MI(G(Z1), G(Z2)) / min(H(G(Z1)), H(G(Z2))).

    In [0, 1] for alpha = 1; nan (0/0) if either entropy is zero. Depends on the number of samples: compare
    values at one n only. Arguments, exclusions and errors as `joint_entropy`.
    """
    return mir_of(*_pair_entropies(z1, z2, alpha, center, weights), alpha)


def hdr(
    z1: ArrayLike, z2: ArrayLike, *, alpha: float = 1.0, center: bool = False, weights: ArrayLike | None = None
) -> jax.Array:
    """Matrix entropy difference ratio |H1 - H2| / max(H1, H2) of H1 = H(G(Z1)), H2 = H(G(Z2)).

    In [0, 1]; nan (0/0) if both entropies are zero. Arguments, exclusions and errors as `joint_entropy`.
    """
    return hdr_of(*_pair_entropies(z1, z2, alpha, center, weights)[:2])


def joint_entropy_from_gram(
    k1: ArrayLike, k2: ArrayLike, *, alpha: float = 1.0, weights: ArrayLike | None = None
) -> jax.Array:
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


def mutual_information_from_gram(
    k1: ArrayLike, k2: ArrayLike, *, alpha: float = 1.0, weights: ArrayLike | None = None
) -> jax.Array:
    """Matrix mutual information of two (n, n) Gram matrices, 0-d, nats; see `mutual_information`.

    Arguments and errors as of `joint_entropy_from_gram`.
    """
    return mi_of(*_pair_entropies_from_gram(k1, k2, alpha, weights), alpha, _noise(k1))


def mir_from_gram(k1: ArrayLike, k2: ArrayLike, *, alpha: float = 1.0, weights: ArrayLike | None = None) -> jax.Array:
    """MIR of two (n, n) Gram matrices, for instance Theorem 3's G(W) and G(M); 0-d, see `mir`.

    Arguments and errors as of `joint_entropy_from_gram`.
    """
    return mir_of(*_pair_entropies_from_gram(k1, k2, alpha, weights), alpha, _noise(k1))


def hdr_from_gram(k1: ArrayLike, k2: ArrayLike, *, alpha: float = 1.0, weights: ArrayLike | None = None) -> jax.Array:
    """HDR of two (n, n) Gram matrices, for instance Theorem 3's G(W) and G(M); 0-d, see `hdr`.

    Arguments and errors as of `joint_entropy_from_gram`.
    """
    return hdr_of(*_pair_entropies_from_gram(k1, k2, alpha, weights)[:2])
