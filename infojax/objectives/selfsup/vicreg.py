"""VICReg: views agree, every feature varies, features are uncorrelated."""

import jax
import jax.numpy as jnp

from infojax.measures.arrays import matmul
from infojax.measures.scalars import one_of
from infojax.objectives.objective import objective
from infojax.objectives.selfsup.common import (
    TwoBranches,
    off_diagonal,
    pair,
)  # fmt: skip

SHARE = {"paper": 1.0, "code": 0.5}  # form -> of each branch's variance term


def vicreg(
    z1: jax.Array,
    z2: jax.Array,
    invariance: float | jax.Array = 25.0,
    variance: float | jax.Array = 25.0,
    covariance: float | jax.Array = 1.0,
    *,
    form: str = "paper",
) -> jax.Array:
    """lambda mean (z1 - z2)^2 + mu [v(z1) + v(z2)] + nu [c(z1) + c(z2)].

    v = mean_j max(0, 1 - sqrt(var_j + 1e-4)), c = sum_{i != j} cov_ij^2 / D, with B - 1 in both. "code" takes the mean
    of the two v, as the authors' code does, where the paper's equation has their sum.

    Args:
      z1, z2: (B, D) projections of two views, B > 1.
      invariance, variance, covariance: lambda, mu, nu.
    Returns:
      Scalar.
    Raises:
      ValueError: unknown form, or shapes that differ.
    References:
      Bardes, Ponce and LeCun 2022; facebookresearch/vicreg main_vicreg.py.
    """
    one_of(form, "form", SHARE)
    z1, z2 = pair(z1, z2)
    value = invariance * jnp.mean((z1 - z2) ** 2)
    for z in (z1, z2):
        z = z - jnp.mean(z, axis=0, keepdims=True)
        moments = matmul(z.T, z) / (len(z) - 1)
        deviation = jnp.sqrt(jnp.diagonal(moments) + 1e-4)
        value += variance * SHARE[form] * jnp.mean(jnp.maximum(1 - deviation, 0))
        value += covariance * off_diagonal(moments) / len(moments)
    return value


@objective
class VICReg(TwoBranches):
    """scale `vicreg` of the projections.

    Attributes:
      invariance, variance, covariance, form: of `vicreg`.
      scale: of the loss.
    """

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    scale: float = 1.0
    form: str = "paper"

    def compared(self, one: jax.Array, two: jax.Array) -> jax.Array:
        weights = self.invariance, self.variance, self.covariance
        return self.scale * vicreg(one, two, *weights, form=self.form)
