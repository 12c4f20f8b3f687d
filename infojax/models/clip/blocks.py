"""What both of CLIP's transformers are made of."""

import flax.linen as nn
import jax
import jax.numpy as jnp

EPSILON = 1e-5  # of every normalisation; flax's own default is 1e-6


def quick_gelu(x: jax.Array) -> jax.Array:
    """x sigmoid(1.702 x), which OpenAI's weights were trained with."""
    return x * nn.sigmoid(1.702 * x)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": lambda x: nn.gelu(x, approximate=False)}


def layer_norm(name: str, dtype: jnp.dtype = jnp.float32) -> nn.LayerNorm:
    """LayerNorm whose statistics are float32 whatever the dtype of its input."""
    return nn.LayerNorm(EPSILON, dtype=dtype, use_fast_variance=False, name=name)


def project(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Float32 outputs of a tower (n, width) in the joint space (n, E), in float32 on every device."""
    return jnp.matmul(x, kernel, precision=jax.lax.Precision.HIGHEST)


class Block(nn.Module):
    """x + attention(ln_1(x)), then x + mlp(ln_2(x)); (n, length, width) in and out.

    Args:
      heads: of the attention; causal: whether a token sees only itself and those before it.
      activation: a key of ACTIVATIONS.
      dtype: of the computation; parameters are float32.
    """

    heads: int
    causal: bool = False
    activation: str = "quick_gelu"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n, length, width = x.shape
        scale = width**-0.5

        def dense(size, deviation, name):
            return nn.Dense(size, kernel_init=nn.initializers.normal(deviation), dtype=self.dtype, name=name)

        y = dense(3 * width, scale, "qkv")(layer_norm("ln_1", self.dtype)(x))
        q, k, v = jnp.moveaxis(y.reshape(n, length, 3, self.heads, width // self.heads), 2, 0)
        y = jax.nn.dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + dense(width, scale, "out")(y.reshape(n, length, width))
        y = dense(4 * width, (2 * width) ** -0.5, "fc")(layer_norm("ln_2", self.dtype)(x))
        return x + dense(width, scale, "proj")(ACTIVATIONS[self.activation](y))
