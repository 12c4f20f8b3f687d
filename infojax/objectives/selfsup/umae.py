"""U-MAE: MAE with features that are spread evenly."""

import jax
import jax.numpy as jnp

from infojax.measures.spectra import smaller_gram
from infojax.objectives.contract import Context, Metrics
from infojax.objectives.objective import objective
from infojax.objectives.selfsup.common import unit
from infojax.objectives.selfsup.mae import MAE, scaled_gradient


def uniformity(z: jax.Array) -> jax.Array:
    """mean_{ij} <u_i, u_j>^2 over all pairs, i = j included, u = z / |z|: |U^T U|_F^2 / B^2, in [1 / min(B, D), 1].

    Args:
      z: (B, D) of the global batch.
    References:
      Zhang, Wang and Wang 2022, "How Mask Matters"; its code's mean over all pairs.
    """
    return jnp.sum(smaller_gram(unit(z)) ** 2) / len(z) ** 2


@objective
class UMAE(MAE):
    """MAE + lambda `uniformity` of the class tokens.

    Attributes:
      strength: lambda.
      gradient_scale: of the term's gradient. The released code gathers the batch of W GPUs without summing the
        gradients that come back, so that they are 1 / W of the true ones: 1 / 8 with its scripts.
    """

    strength: float = 0.01
    gradient_scale: float = 1.0

    def regulariser(self, token: jax.Array, ctx: Context) -> tuple[jax.Array, Metrics]:
        value = uniformity(ctx.gather(token))
        return scaled_gradient(self.strength * value, self.gradient_scale), {"token_uniformity": value}
