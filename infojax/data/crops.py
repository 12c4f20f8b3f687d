"""Random resized crops on the device."""

import jax
import jax.numpy as jnp


def random_resized_crop(
    key: jax.Array, images: jax.Array, *, scale: tuple[float, float] = (0.08, 1.0), flip: bool = True
) -> jax.Array:
    """A random part of each image at the size of the whole, flipped left and right with probability 1/2.

    Its area is uniform in `scale` times the image's, the logarithm of its aspect ratio uniform between 3/4 and 4/3, its
    place uniform; sides are cut to the image's where they would exceed it (torchvision draws up to ten times instead).
    Bicubic, antialiased.

    Args:
      images: (N, H, W, channels) uint8.
    Returns:
      (N, H, W, channels) uint8.
    """
    n, height, width, channels = images.shape
    keys = jax.random.split(key, 4)
    area = jax.random.uniform(keys[0], (n,), minval=scale[0], maxval=scale[1])
    ratio = jnp.exp(jax.random.uniform(keys[1], (n,), minval=-jnp.log(4 / 3), maxval=jnp.log(4 / 3)))
    sides = jnp.stack([jnp.minimum(jnp.sqrt(area / ratio), 1), jnp.minimum(jnp.sqrt(area * ratio), 1)], axis=1)
    corner = jax.random.uniform(keys[2], (n, 2)) * (1 - sides)  # of the image's height and width

    def crop(image, sides, corner):
        whole = jnp.array([height, width], jnp.float32)
        shift = -corner * whole / sides
        return jax.image.scale_and_translate(
            image.astype(jnp.float32), image.shape, (0, 1), 1 / sides, shift, "cubic", antialias=True
        )

    found = jnp.clip(jnp.rint(jax.vmap(crop)(images, sides, corner)), 0, 255).astype(jnp.uint8)
    mirrored = flip & (jax.random.uniform(keys[3], (n, 1, 1, 1)) < 0.5)
    return jnp.where(mirrored, found[:, :, ::-1], found)
