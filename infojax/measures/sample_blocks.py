"""Passes over samples in blocks, and sums over the samples of each class in compiled programs."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infojax.measures import arrays
from infojax.measures.arrays import AnyArray

BLOCK_ROWS = 4096  # enough for a matrix product to run at full speed


def fold_blocks(f: Callable[..., Any], carry: Any, block: int, *samples: AnyArray) -> Any:
    """carry = f(carry, *rows) over blocks of `block` samples: arrays of N rows, the last of them the weights.

    So N x C or N x D temporaries never exist as a whole. Concrete CPU arrays are processed in a Python loop, so that
    `f` may use BLAS; in a compiled program the last block overlaps the previous one, with weight zero for rows that
    were already seen.
    """
    n = samples[0].shape[0]
    if n <= block:
        return f(carry, *samples)
    if arrays.on_host(*samples):
        samples = [np.asarray(x) for x in samples]  # views: slicing a jax array compiles for each offset
        for i in range(0, n, block):
            carry = f(carry, *(x[i : i + block] for x in samples))
        return carry

    def step(carry, start):
        first = jnp.minimum(start, n - block)
        *rows, w = (jax.lax.dynamic_slice_in_dim(x, first, block) for x in samples)
        return f(carry, *rows, jnp.where(first + jnp.arange(block) < start, 0, w)), None

    return scanned(step, carry, jnp.arange(0, n, block), samples[0])


def known_samples(
    z: AnyArray, labels: AnyArray, w: AnyArray, num_classes: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rows, labels and weights, of which those of samples that do not count are zero.

    Args:
      z, labels, w: (N, D), (N,) and (N,).
    Returns:
      (N, D), zero where the weight is zero or the label outside [0, C); (N,) labels, 0 there; (N,) weights, 0 there.
    """
    known = (labels >= 0) & (labels < num_classes)
    w = jnp.where(known, w, 0)
    return jnp.where(w[:, None] > 0, z, 0), jnp.where(known, labels, 0), w


@partial(jax.jit, static_argnums=2)
def class_sums(values: jax.Array, labels: jax.Array, num_classes: int) -> jax.Array:
    """(C,) sums of values (N,) over the samples of each class, by labels (N,) in [0, C).

    Sums are taken in blocks first: from 2^24 on, adding 1 to a float32 total changes nothing.
    """
    n = len(values)
    # At least two blocks: with one, XLA would add sample by sample to whatever the caller adds the sums to.
    size = max(min(BLOCK_ROWS, -(-n // 2)), 1)
    blocks = max(-(-n // size), 1)
    sums = jax.ops.segment_sum(values, labels + num_classes * (jnp.arange(n) // size), num_classes * blocks)
    return jnp.sum(sums.reshape(blocks, num_classes), axis=0)


@jax.jit
def deviations(
    z: jax.Array, labels: jax.Array, w: jax.Array, mean: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """z_i - mean_{labels_i} (N, D), labels and weights (N,), both as `known_samples` returns them; mean: (C, D)."""
    z, labels, w = known_samples(z, labels, w, len(mean))
    return z - mean[labels], labels, w


def scanned(f: Callable, carry: Any, steps: jax.Array, like: AnyArray) -> Any:
    """The carry after carry, _ = f(carry, step) for each of steps (n,), by lax.scan; a single step is called directly.

    like: an array that varies over devices as the carry will.
    """
    if len(steps) == 1:
        return f(carry, steps[0])[0]
    # In shard_map a carry must be marked as device-varying from the start, like `like`: so add a zero made from it.
    zero = 0 * jnp.isnan(like.reshape(-1)[0])
    return jax.lax.scan(f, jax.tree.map(lambda x: x + zero.astype(x.dtype), carry), steps)[0]
