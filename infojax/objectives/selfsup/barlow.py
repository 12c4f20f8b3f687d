"""Barlow Twins: the cross-correlation of two views is the identity."""

import jax
import jax.numpy as jnp

from infojax.measures.arrays import matmul
from infojax.objectives.objective import objective
from infojax.objectives.selfsup.common import TwoBranches, off_diagonal, pair


def standardised(z: jax.Array) -> jax.Array:
    """(z - mean) / sqrt(variance + 1e-5) of each feature over the batch, biased variance: BatchNorm without affine."""
    z = z - jnp.mean(z, axis=0, keepdims=True)
    return z / jnp.sqrt(jnp.mean(z**2, axis=0, keepdims=True) + 1e-5)


def cross_correlation(z1: jax.Array, z2: jax.Array) -> jax.Array:
    """C = standardised(z1)^T standardised(z2) / B, (D, D), of the global batch."""
    z1, z2 = pair(z1, z2)
    return matmul(standardised(z1).T, standardised(z2)) / len(z1)


def barlow_twins(z1: jax.Array, z2: jax.Array, strength: float | jax.Array = 0.0051) -> jax.Array:
    """sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2 of C = `cross_correlation`.

    Args:
      z1, z2: (B, D) projections of two views.
      strength: lambda.
    Returns:
      Scalar.
    References:
      Zbontar et al. 2021.
    """
    c = cross_correlation(z1, z2)
    return jnp.sum((1 - jnp.diagonal(c)) ** 2) + strength * off_diagonal(c)


@objective
class BarlowTwins(TwoBranches):
    """scale `barlow_twins` of the projections.

    Attributes:
      strength: lambda.
      scale: of the loss: 1 in the paper's code, 0.1 in solo-learn's recipe for CIFAR.
    """

    strength: float = 0.0051
    scale: float = 1.0

    def compared(self, one: jax.Array, two: jax.Array) -> jax.Array:
        return self.scale * barlow_twins(one, two, self.strength)
