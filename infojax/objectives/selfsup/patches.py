"""Images as rows of patches, and back."""

import math

import jax


def patchify(images: jax.Array, patch: int) -> jax.Array:
    """(N, H, W, channels) to (N, L, patch^2 * channels): patches row by row, each as rows, columns, channels.

    Raises:
      ValueError: patches do not tile the images.
    """
    n, height, width, channels = images.shape
    if height % patch or width % patch:
        raise ValueError(f"patches of {patch} do not tile images of {height} x {width}")
    tiles = images.reshape(n, height // patch, patch, width // patch, patch, channels).swapaxes(2, 3)
    return tiles.reshape(n, -1, patch * patch * channels)


def unpatchify(patches: jax.Array, patch: int, rows: int | None = None) -> jax.Array:
    """The inverse of `patchify`; `rows` of patches, by default as many as columns.

    Raises:
      ValueError: L patches do not fill that many rows, or the last axis is not patch^2 numbers per channel.
    """
    n, count, pixels = patches.shape
    side = math.isqrt(count) if rows is None else rows
    columns = side if rows is None else count // max(side, 1)
    if side < 1 or side * columns != count or pixels % patch**2:
        what = "a square" if rows is None else f"{rows} rows"
        raise ValueError(f"{count} patches of {pixels} numbers are not {what} of patches of {patch} x {patch} pixels")
    tiles = patches.reshape(n, side, columns, patch, patch, pixels // patch**2).swapaxes(2, 3)
    return tiles.reshape(n, side * patch, columns * patch, pixels // patch**2)
