"""A linear layer, for heads beside a network's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Linear(nn.Module):
    """x W + b, W from Glorot's normal distribution and b = 0, as TorchSSL's rotation head begins.

    Args:
      features: outputs.
    Call:
      x: (N, D); train: without effect.
    Returns:
      (N, features) float32.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        layer = nn.Dense(self.features, kernel_init=nn.initializers.xavier_normal(), name="head")
        return layer(x.astype(jnp.float32))
