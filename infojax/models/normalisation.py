"""Normalisation that flax does not have."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class BatchStatistics(nn.Module):
    """(x - mean) / sqrt(var + 1e-5) * scale + bias, mean and biased variance over all axes but the last.

    Batch normalisation with the statistics of the current batch, in evaluation too, and no running ones: the output for
    a sample depends on the batch around it.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        axes = tuple(range(x.ndim - 1))
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        scale, bias = jnp.expand_dims(scale, axes), jnp.expand_dims(bias, axes)
        wide = x.astype(jnp.float32)
        mean = jnp.mean(wide, axis=axes, keepdims=True)
        var = jnp.mean(jnp.square(wide - mean), axis=axes, keepdims=True)
        return ((wide - mean) / jnp.sqrt(var + 1e-5) * scale + bias).astype(x.dtype)
