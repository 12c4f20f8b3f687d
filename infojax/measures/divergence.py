"""Divergences between two positive semi-definite matrices, each divided by its trace: rho = K / tr K. In nats."""

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from infojax.measures import arrays, spectra
from infojax.measures.arrays import ArrayLike
from infojax.measures.entropy import density_from_gram, entropy_of_density, log_divided

LOG = spectra.SpectralFunction(jnp.log, log_divided)


def _densities(k1, k2):
    k1, k2 = arrays.as_square(k1, "k1"), arrays.as_square(k2, "k2")
    if k1.shape != k2.shape:
        raise ValueError(f"k1 is {k1.shape}, k2 is {k2.shape}: both must have the same size")
    return density_from_gram(k1), density_from_gram(k2)


def matrix_jsd(k1: ArrayLike, k2: ArrayLike) -> jax.Array:
    """Matrix (quantum) Jensen-Shannon divergence H((rho1 + rho2) / 2) - (H(rho1) + H(rho2)) / 2.

    In [0, log 2]: 0 iff rho1 = rho2, log 2 iff their supports are orthogonal. Its square root is a metric.

    Args:
      k1, k2: (n, n) symmetric positive semi-definite, of the same samples or the same features.
    Returns:
      0-d array, nats.
    Raises:
      ValueError: not square, or sizes differ.
    References:
      Tan et al. 2024, figure 5; Hoyos-Osorio and Sanchez-Giraldo, "The representation Jensen-Shannon divergence".
    """
    rho1, rho2 = _densities(k1, k2)
    first, second, mixed = spectra.in_turn(entropy_of_density, rho1, rho2, (rho1 + rho2) / 2)
    return arrays.not_negative(mixed - (first + second) / 2)


def _jsd(p, q):
    """Classical Jensen-Shannon divergence of two arrays of probabilities."""

    def terms(x, m):
        zero = (x <= 0) | (m <= 0)
        return jnp.where(zero, 0, x * jnp.log(jnp.where(zero, 1, x) / jnp.where(zero, 1, m)))

    m = (p + q) / 2
    return arrays.not_negative(jnp.sum(terms(p, m) + terms(q, m)) / 2)


def spectrum_jsd(k1: ArrayLike, k2: ArrayLike) -> jax.Array:
    """Jensen-Shannon divergence of the two sorted spectra: blind to rotations of one matrix.

    Args:
      k1, k2: (n, n) symmetric positive semi-definite.
    Returns:
      0-d array in [0, log 2], nats; at most `matrix_jsd`, and equal to it where the eigenvectors agree.
      Not differentiable where an eigenvalue repeats (sorting has a kink there) unless its partners are equal too.
    Raises:
      ValueError: not square, or sizes differ.
    """
    rho1, rho2 = _densities(k1, k2)
    return _jsd(*spectra.in_turn(spectra.eigenvalues, rho1, rho2))


def eigenspace_jsd(k1: ArrayLike, k2: ArrayLike) -> jax.Array:
    """Jensen-Shannon divergence of the Nussbaum-Szkola pair P_ij = a_i <u_i, v_j>^2, Q_ij = b_j <u_i, v_j>^2.

    rho1 = sum_i a_i u_i u_i^T, rho2 = sum_j b_j v_j v_j^T. The same construction with the Kullback-Leibler
    divergence gives the quantum relative entropy exactly. The definition behind the "eigenspace JSD" of Tan et
    al. 2024, figure 5, was not available: this one is inferred. A metric, not a loss: eigenvectors enter, so it
    is basis-dependent where eigenvalues repeat, and its gradients are stopped.

    Args:
      k1, k2: (n, n) symmetric positive semi-definite.
    Returns:
      0-d array in [0, log 2], nats.
    Raises:
      ValueError: not square, or sizes differ.
    """
    rho1, rho2 = (stop_gradient(rho) for rho in _densities(k1, k2))
    a, u = jnp.linalg.eigh(rho1)
    b, v = jnp.linalg.eigh(spectra.after(rho2, a))
    overlap = arrays.matmul(u.T, v) ** 2
    return _jsd(spectra.support(a)[:, None] * overlap, spectra.support(b)[None, :] * overlap)


def matrix_cross_entropy(p: ArrayLike, q: ArrayLike) -> jax.Array:
    """Matrix cross entropy MCE(P, Q) = tr(-P log Q + Q); the matrices are not divided by their traces.

    For trace-one matrices it is minimal over Q at Q = P, where it is H(P) + 1. The released Matrix-SSL code leaves out
    tr Q and expands log Q to fourth order around the identity; here log Q is exact.

    Args:
      p, q: (n, n) symmetric positive semi-definite.
    Returns:
      0-d array, nats; inf where P has mass on the null space of Q. Second derivatives in Q need distinct eigenvalues.
    Raises:
      ValueError: not square, or sizes differ.
    References:
      Zhang et al., "Matrix information theory for self-supervised learning" (Matrix-SSL), 2024.
    """
    p, q = arrays.as_square(p, "p"), arrays.as_square(q, "q")
    if p.shape != q.shape:
        raise ValueError(f"p is {p.shape}, q is {q.shape}: both must have the same size")
    value = jnp.trace(q) - jnp.sum(p * spectra.matrix_function(LOG, q))
    w, v = jnp.linalg.eigh(spectra.after(stop_gradient(q), value))
    mass = jnp.einsum("ji,jk,ki->i", v, stop_gradient(p), v, precision="highest")
    outside = jnp.sum(jnp.where(spectra.support(w) == 0, mass, 0))
    noise = len(w) * jnp.finfo(w.dtype).eps * jnp.trace(stop_gradient(p))
    return jnp.where(outside > noise, jnp.inf, value)
