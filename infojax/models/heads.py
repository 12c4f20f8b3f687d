"""Projectors and predictors of self-supervised methods."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from infojax.models.initializers import fan_in_uniform


class Projector(nn.Module):
    """Linear layers with ReLU between them, PyTorch's default initialisation.

    With `norm`, every hidden layer has batch normalisation in place of its bias, and the last layer has no bias
    (Barlow Twins, BYOL); without it all have biases (SimCLR's recipe in solo-learn).

    Args:
      widths: of the layers, the last being that of the output.
      norm: batch normalisation of the hidden layers.
      norm_decay: of its running statistics.
      dtype: of the computation; parameters, statistics and output are float32.
    Call:
      x: (N, D); train: batch statistics.
    Returns:
      (N, widths[-1]) float32.
    """

    widths: tuple[int, ...]
    norm: bool = True
    norm_decay: float = 0.9
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i, width in enumerate(self.widths, 1):
            init, last = fan_in_uniform(x.shape[-1]), i == len(self.widths)
            layer = nn.Dense(width, not self.norm, self.dtype, kernel_init=init, bias_init=init, name=f"layer{i}")
            x = layer(x)
            if not last:
                if self.norm:
                    x = nn.BatchNorm(not train, momentum=self.norm_decay, dtype=self.dtype, name=f"norm{i}")(x)
                x = nn.relu(x)
        return x.astype(jnp.float32)
