"""Initial values that flax does not name."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def fan_in_uniform(fan_in: int) -> Callable[..., jax.Array]:
    """PyTorch's default for linear layers, convolutions and their biases: U(-1 / sqrt(fan_in), 1 / sqrt(fan_in))."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -(fan_in**-0.5), fan_in**-0.5)

    return init
