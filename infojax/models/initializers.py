"""Initialisers that flax does not have."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def fan_in_uniform(fan_in: int) -> Callable[..., jax.Array]:
    """PyTorch's default for linear layers, convolutions and their biases: U(-1 / sqrt(fan_in), 1 / sqrt(fan_in))."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -(fan_in**-0.5), fan_in**-0.5)

    return init


def flat_xavier(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Xavier's uniform distribution, whose fans are those of the matrix (all but the last axis, last axis).

    MAE's patch embedding begins so.
    """
    flat = (math.prod(shape[:-1]), shape[-1])
    return jax.nn.initializers.xavier_uniform()(key, flat, dtype).reshape(shape)
