"""SimCLR: each view must identify its twin among all other pictures of the batch."""

import jax
import jax.numpy as jnp
import optax

from infojax.measures.arrays import matmul
from infojax.objectives.objective import objective
from infojax.objectives.selfsup.common import TwoBranches, pair, unit


def nt_xent(z1: jax.Array, z2: jax.Array, temperature: float | jax.Array = 0.5) -> jax.Array:
    """NT-Xent: mean over the 2B views of -log exp(s_ip / t) / sum_{k != i} exp(s_ik / t), s the cosines, p the twin.

    `optax.losses.ntxent` of both views in one array has the same value; it makes a (2B, 2B, D) array of products where
    this is one product of matrices. Google's code reports the sum of the two halves, twice this. Finite at any
    temperature that keeps 1 / t finite.

    Args:
      z1, z2: (B, D) projections of two views.
      temperature: t > 0.
    Returns:
      Scalar.
    References:
      Chen et al. 2020, equation 1.
    """
    z1, z2 = pair(z1, z2)
    n, u = len(z1), unit(jnp.concatenate([z1, z2]))
    cosines = jnp.where(jnp.eye(2 * n, dtype=bool), -jnp.inf, matmul(u, u.T) / temperature)
    twin = jnp.roll(jnp.arange(2 * n), n)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(cosines, twin))


@objective
class SimCLR(TwoBranches):
    """scale `nt_xent` of the projections.

    Attributes:
      temperature: 0.5 in SimCLR's recipe for CIFAR, 0.2 in solo-learn's.
      scale: of the loss: 2 in Google's code.
    """

    temperature: float = 0.5
    scale: float = 1.0

    def compared(self, one: jax.Array, two: jax.Array) -> jax.Array:
        return self.scale * nt_xent(one, two, self.temperature)
