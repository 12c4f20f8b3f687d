"""Augmentation on the device: uint8 images in, uint8 images out, `normalise` last; all random choices from one key."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infojax.data.randaugment import cutout, randaugment


def weak(key: jax.Array, images: jax.Array, *, pad: int = 4, flip: bool = True) -> jax.Array:
    """Flips left and right with probability 1/2, then crops at random from the image padded by reflection.

    Args:
      images: (N, H, W, channels) uint8.
      pad: pixels on each side, 0 <= pad < min(H, W); 4 in TorchSSL for every size, 12 in FixMatch and USB for 96 x 96.
      flip: False where left and right differ in meaning, as for digits.
    Returns:
      (N, H, W, channels) uint8.
    Raises:
      ValueError: a pad outside its range.
    """
    if images.ndim != 4 or images.dtype != jnp.uint8:
        raise ValueError(f"images must be (N, H, W, channels) uint8; got {images.shape} {images.dtype}")
    n, height, width, channels = images.shape
    if not 0 <= pad < min(height, width):
        raise ValueError(f"pad must be in [0, {min(height, width)}) for images of {height} x {width}, got {pad}")
    key_flip, key_crop = jax.random.split(key)
    row, column = jax.random.randint(key_crop, (2, n, 1), -pad, pad + 1, jnp.int32)
    row = _reflected(np.arange(height, dtype=np.int32)[None] + row, height)
    column = _reflected(np.arange(width, dtype=np.int32)[None] + column, width)
    if flip:
        column = jnp.where(jax.random.uniform(key_flip, (n, 1), jnp.float32) < 0.5, width - 1 - column, column)
    source = (row[:, :, None] * width + column[:, None, :]).reshape(n, height * width, 1)
    flat = images.reshape(n, height * width, channels)
    return jnp.take_along_axis(flat, source, 1, mode="promise_in_bounds").reshape(images.shape)


def _reflected(i, size):
    """Coordinates outside [0, size) mirrored at the first and the last pixel, which are not repeated."""
    return size - 1 - jnp.abs(size - 1 - jnp.abs(i))


def strong(key: jax.Array, images: jax.Array, *, num_operations: int = 3, pad: int = 4, flip: bool = True) -> jax.Array:
    """TorchSSL's strong view: RandAugment and Cutout on the whole image first, then an independent `weak`.

    Args:
      images: (N, H, W, channels) uint8.
      num_operations: of RandAugment, per image; pad, flip: as of `weak`.
    Returns:
      (N, H, W, channels) uint8.
    """
    key_operations, key_cutout, key_weak = jax.random.split(key, 3)
    images = cutout(key_cutout, randaugment(key_operations, images, num_operations))
    return weak(key_weak, images, pad=pad, flip=flip)


def normalise(images: jax.Array, mean: jax.Array, std: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
    """(images - mean) / std per channel; mean and std on the scale 0 to 255."""
    mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    if not mean.size == std.size in (1, images.shape[-1]):
        raise ValueError(
            f"mean and std must have one entry, or {images.shape[-1]}, one per channel; got {mean.size} and {std.size}"
        )
    shape = (1,) * (images.ndim - 1) + (-1,)
    return ((images.astype(jnp.float32) - mean.reshape(shape)) / std.reshape(shape)).astype(dtype)


def transforms(
    mean: Any = None, std: Any = None, *, pad: int = 4, flip: bool = True
) -> dict[str, Callable[..., jax.Array]]:
    """Name -> (key, stored samples) -> network input; without mean and std the samples stay as they are.

    "plain" only normalises; "weak" and "strong" are the views above, normalised.
    """
    if mean is None:
        return {"plain": lambda key, x: x}
    views = {"plain": lambda key, x, **_: x, "weak": weak, "strong": strong}
    return {
        name: lambda key, x, view=view: normalise(view(key, x, pad=pad, flip=flip), mean, std)
        for name, view in views.items()
    }
