"""Random resized crops on the device."""

import jax
import jax.numpy as jnp


def random_resized_crop(
    key: jax.Array, images: jax.Array, *, area: tuple[float, float] = (0.08, 1.0), flip: bool = True
) -> jax.Array:
    """A random part of each image at the size of the whole, flipped left and right with probability 1/2.

    Its share of the image's area is uniform in `area`, the logarithm of its aspect ratio uniform between those of 3/4
    and 4/3, its place uniform. A side longer than the image's is cut; torchvision draws anew, up to ten times.

    Args:
      images: (N, H, W, channels) uint8.
    Returns:
      (N, H, W, channels) uint8.
    """
    n, height, width, _ = images.shape
    keys = jax.random.split(key, 4)
    share = jax.random.uniform(keys[0], (n,), minval=area[0], maxval=area[1])
    ratio = jnp.exp(jax.random.uniform(keys[1], (n,), minval=jnp.log(3 / 4), maxval=jnp.log(4 / 3)))  # width / height
    pixels = share * height * width
    sides = jnp.stack([jnp.sqrt(pixels / ratio), jnp.sqrt(pixels * ratio)], axis=1)
    whole = jnp.array([[height, width]], jnp.float32)
    sides = jnp.minimum(sides, whole)
    corners = jax.random.uniform(keys[2], (n, 2)) * (whole - sides)
    found = resized_crops(images, corners, sides)
    mirrored = jax.random.uniform(keys[3], (n, 1, 1, 1)) < 0.5
    return jnp.where(mirrored & flip, found[:, :, ::-1], found)


def resized_crops(images: jax.Array, corners: jax.Array, sides: jax.Array) -> jax.Array:
    """Parts of images at the size of the whole, bicubic and antialiased, as Pillow's resize with a box.

    Args:
      images: (N, H, W, channels) uint8.
      corners: (N, 2) upper and left end, in pixels; sides: (N, 2) height and width of the parts.
    Returns:
      (N, H, W, channels) uint8, rounded.
    """
    whole = jnp.array(images.shape[1:3], jnp.float32)

    def crop(image, corner, side):
        scale = whole / side
        x = image.astype(jnp.float32)
        return jax.image.scale_and_translate(x, x.shape, (0, 1), scale, -corner * scale, "cubic", antialias=True)

    return jnp.clip(jnp.rint(jax.vmap(crop)(images, corners, sides)), 0, 255).astype(jnp.uint8)
