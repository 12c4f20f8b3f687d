"""Spectral contrastive learning: views of a sample agree, all other pairs are orthogonal."""

import jax
import jax.numpy as jnp

from infojax.measures.arrays import matmul
from infojax.measures.scalars import one_of
from infojax.objectives.objective import objective
from infojax.objectives.selfsup.common import (
    TwoBranches,
    off_diagonal,
    pair,
    unit,
)  # fmt: skip

FORMS = ("paper", "haochen")


def spectral_contrastive(
    z1: jax.Array,
    z2: jax.Array,
    *,
    form: str = "paper",
    strength: float | jax.Array = 1.0,
    radius: float | jax.Array = 1.0,
) -> jax.Array:
    """Spectral contrastive loss of two views of B samples.

      "paper":   sum_i |u1_i - u2_i|^2 + lambda sum_{i != j} <u1_i, u2_j>^2, u = z / |z|;
      "haochen": (-2 mean_i <v1_i, v2_i> + mean_{i != j} <v1_i, v2_j>^2) / mu, v = z where |z|^2 <= mu, else of that
                 length: shorter vectors stay.

    On unit vectors "paper" with lambda = 1 / (B - 1) is B ("haochen" + 2), mu = 1.

    Args:
      z1, z2: (B, D), B > 1.
      strength: lambda of "paper"; its value in the paper's experiments is not known.
      radius: mu of "haochen": 1 for CIFAR, 10 for ImageNet.
    Returns:
      Scalar.
    Raises:
      ValueError: unknown form, or shapes that differ.
    References:
      HaoChen et al. 2021; Tan et al. 2024, "Information Flow in Self-Supervised Learning", section 4.
    """
    one_of(form, "form", FORMS)
    z1, z2 = pair(z1, z2)
    if form == "paper":
        u1, u2 = unit(z1), unit(z2)
        return jnp.sum((u1 - u2) ** 2) + strength * off_diagonal(matmul(u1, u2.T))
    v1, v2 = (clipped(z, radius) for z in (z1, z2))
    pairs = len(z1) * (len(z1) - 1)
    return (-2 * jnp.mean(jnp.sum(v1 * v2, axis=1)) + off_diagonal(matmul(v1, v2.T)) / pairs) / radius


def clipped(z: jax.Array, radius: float | jax.Array) -> jax.Array:
    """Rows of z (B, D) whose squared norm is above `radius` scaled to that squared norm; the others stay."""
    long = jnp.sum(z**2, axis=1, keepdims=True) > radius
    return jnp.where(long, jnp.sqrt(radius) * unit(z), z)


@objective
class Spectral(TwoBranches):
    """`spectral_contrastive` of the projections.

    It trains with HaoChen's form, whose recipe is published; "paper" is about batch_size times as steep.
    """

    form: str = "haochen"
    strength: float = 1.0
    radius: float = 1.0

    def compared(self, one: jax.Array, two: jax.Array) -> jax.Array:
        return spectral_contrastive(one, two, form=self.form, strength=self.strength, radius=self.radius)
