"""Random views for self-supervised learning, made on the device: crop and resize, flip, colours, blur, solarise.

The operations are torchvision's on Pillow pictures, in the order crop, flip, colour jitter, grey, blur, solarise, with
float32 pixels from 0 to 255, clipped but not rounded after each: within one level of Pillow's, which rounds. Every
sample has its own draws. A `Recipe` is data; `RECIPES` has those of the papers.

References:
  Chen et al. 2020 (SimCLR), appendix A; Grill et al. 2020 (BYOL), appendix B; solo-learn's recipes for CIFAR.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from infojax.data.augment import normalise

LUMINANCE = (0.299, 0.587, 0.114)
INTERPOLATIONS = ("bicubic", "bilinear")
TRIES = 10  # crops drawn until one fits into the picture, as in torchvision


class Recipe(NamedTuple):
    """How a view is drawn.

    Attributes:
      area: range of the crop's share of the picture; ratio: range of width over height, log-uniform.
      flip: probability of a horizontal flip.
      jitter: strengths of brightness, contrast, saturation and hue; jitter_share: probability of any jitter.
      grey: probability that colours are dropped.
      blur: probability of a Gaussian blur with a standard deviation drawn uniformly from `sigma`, in pixels.
      solarise: probability that pixels of 128 and more are inverted.
      interpolation: "bicubic" (a = -0.5) or "bilinear", both antialiased.
    """

    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_share: float = 0.8
    grey: float = 0.0
    blur: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)
    solarise: float = 0.0
    interpolation: str = "bicubic"


_SIMCLR = Recipe(jitter=(0.8, 0.8, 0.8, 0.2), grey=0.2, blur=0.5)
_BYOL = Recipe(jitter=(0.4, 0.4, 0.2, 0.1), grey=0.2)
_VICREG = Recipe((0.2, 1.0), jitter=(0.4, 0.4, 0.2, 0.1), grey=0.2, solarise=0.1)
_SPECTRAL = Recipe((0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), grey=0.2)
# name -> the two views. "..._small": for pictures of about 32 x 32, without blur.
RECIPES: dict[str, tuple[Recipe, Recipe]] = {
    "simclr": (_SIMCLR, _SIMCLR),
    "simclr_small": (_SIMCLR._replace(jitter=(0.4, 0.4, 0.4, 0.1), blur=0.0),) * 2,  # Google's for CIFAR
    "byol": (_BYOL._replace(blur=1.0), _BYOL._replace(blur=0.1, solarise=0.2)),  # Barlow Twins' too
    "byol_small": (_BYOL, _BYOL._replace(solarise=0.2)),
    "vicreg_small": (_VICREG, _VICREG),
    "spectral_small": (_SPECTRAL, _SPECTRAL),
    "mae": (Recipe((0.2, 1.0)),) * 2,
}


class Draws(NamedTuple):
    """The random parameters of the views of n samples.

    Attributes:
      top, left, height, width: of the crop, (n,) whole numbers of pixels, float32.
      flip, jitter, grey, blur, solarise: (n,) whether each is applied.
      factors: (n, 4) of brightness, contrast and saturation, and the shift of the hue in turns.
      order: (n, 4) which of these comes first, second, ...
      sigma: (n,) of the blur.
    """

    top: jax.Array
    left: jax.Array
    height: jax.Array
    width: jax.Array
    flip: jax.Array
    jitter: jax.Array
    grey: jax.Array
    blur: jax.Array
    solarise: jax.Array
    factors: jax.Array
    order: jax.Array
    sigma: jax.Array


def draw_views(key: jax.Array, n: int, height: int, width: int, recipe: Recipe) -> Draws:
    """The `Draws` of n samples of height x width pixels, by a `Recipe`."""
    keys = jax.random.split(key, 5)
    box = _boxes(keys[0], n, height, width, recipe)
    shares = jnp.array([recipe.flip, recipe.jitter_share, recipe.grey, recipe.blur, recipe.solarise], jnp.float32)
    does = jax.random.uniform(keys[1], (n, 5), jnp.float32) < shares[None]
    strength = np.asarray(recipe.jitter, np.float32)
    centre = np.array([1, 1, 1, 0], np.float32)
    low = np.maximum(centre - strength, [0, 0, 0, -0.5]).astype(np.float32)
    share = jax.random.uniform(keys[2], (n, 4), jnp.float32)
    factors = low[None] + share * (centre + strength - low)[None]
    order = jnp.argsort(jax.random.uniform(keys[3], (n, 4), jnp.float32), axis=1).astype(jnp.int32)
    sigma = jax.random.uniform(keys[4], (n,), jnp.float32, *recipe.sigma)
    return Draws._make((*box, *does.T, factors, order, sigma))


def _boxes(key, n, height, width, recipe):
    """(top, left, height, width): the first of ten crops that fits, else the largest central one in range."""
    keys = jax.random.split(key, 3)
    low, high = recipe.area
    area = height * width * jax.random.uniform(keys[0], (TRIES, n), jnp.float32, low, high)
    ratio = jnp.exp(jax.random.uniform(keys[1], (TRIES, n), jnp.float32, *np.log(recipe.ratio)))
    w, h = jnp.round(jnp.sqrt(area * ratio)), jnp.round(jnp.sqrt(area / ratio))
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = jnp.argmax(fits, axis=0)[None]
    (w,), (h,) = (jnp.take_along_axis(x, first, axis=0) for x in (w, h))
    narrow, wide = recipe.ratio
    whole_w, whole_h = min(width, round(height * wide)), min(height, round(width / narrow))
    lost = ~jnp.any(fits, axis=0)
    w, h = jnp.where(lost, whole_w, w), jnp.where(lost, whole_h, h)
    place = jax.random.uniform(keys[2], (2, n), jnp.float32)
    top, left = (
        jnp.minimum(jnp.floor(u * (room + 1)), room) for u, room in zip(place, (height - h, width - w), strict=True)
    )
    return jnp.where(lost, (height - h) // 2, top), jnp.where(lost, (width - w) // 2, left), h, w


def apply_views(images: jax.Array, draws: Draws, recipe: Recipe, size: int | None = None) -> jax.Array:
    """The views of images given by `draws`.

    Args:
      images: (n, H, W, 3), or with 1 channel, whose colours are not jittered; uint8, or floats from 0 to 255.
      size: of the result; by default that of the images.
    Returns:
      (n, size, size, channels), or (n, H, W, channels), float32 from 0 to 255.
    Raises:
      ValueError: unknown interpolation, or wrong number of channels.
    """
    n, height, width, channels = images.shape
    if channels not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels, got {channels}")
    rows, columns = (size, size) if size else (height, width)
    x = crop(images, draws.top, draws.left, draws.height, draws.width, (rows, columns), recipe.interpolation)
    if recipe.flip:
        x = _where(draws.flip, x[:, :, ::-1], x)
    if any(recipe.jitter):
        x = _where(draws.jitter, jitter(x, draws.factors, draws.order), x)
    if recipe.grey and channels == 3:
        x = _where(draws.grey, jnp.broadcast_to(luminance(x), x.shape), x)
    if recipe.blur:
        x = _where(draws.blur, gaussian_blur(x, draws.sigma, blur_radius(max(rows, columns))), x)
    if recipe.solarise:
        x = _where(draws.solarise, solarise(x), x)
    return x


def _where(does, x, otherwise):
    return jnp.where(does[:, None, None, None], x, otherwise)


def view(key: jax.Array, images: jax.Array, recipe: Recipe, size: int | None = None) -> jax.Array:
    """A random view of each image, see `apply_views`; (n, size, size, channels) float32 from 0 to 255."""
    n, height, width, _ = images.shape
    return apply_views(images, draw_views(key, n, height, width, recipe), recipe, size)


def view_transforms(
    mean: Any, std: Any, recipes: tuple[Recipe, Recipe], *, flip: bool = True
) -> Mapping[str, Callable[..., jax.Array]]:
    """The transforms "plain", "view1" and "view2": (key, uint8 samples) -> network input.

    Args:
      mean, std: per channel, on the scale 0 to 255.
      flip: False where left and right differ in meaning, as for digits.
    """

    def of(recipe):
        recipe = recipe if flip else recipe._replace(flip=0.0)
        return lambda key, x: normalise(view(key, x, recipe), mean, std)

    one, two = recipes
    return {"plain": lambda key, x: normalise(x, mean, std), "view1": of(one), "view2": of(two)}


# Operations


def crop(
    images: jax.Array,
    top: jax.Array,
    left: jax.Array,
    height: jax.Array,
    width: jax.Array,
    size: tuple[int, int],
    interpolation: str = "bicubic",
) -> jax.Array:
    """A box of each image, resized with antialiasing like Pillow: two products with weight matrices.

    Args:
      images: (n, H, W, channels); top, left, height, width: (n,) of the box, within the image.
      size: rows and columns of the result.
    Returns:
      (n, *size, channels) float32, clipped to 0 to 255.
    Raises:
      ValueError: unknown interpolation.
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}; got {interpolation!r}")
    x = images.astype(jnp.float32)
    down = _resizing(top, height, size[0], x.shape[1], interpolation)
    across = _resizing(left, width, size[1], x.shape[2], interpolation)
    x = jnp.clip(jnp.einsum("npw,nhwc->nhpc", across, x, precision="highest"), 0, 255)  # as Pillow between its passes
    return jnp.clip(jnp.einsum("noh,nhpc->nopc", down, x, precision="highest"), 0, 255)


def _resizing(start, length, size, pixels, interpolation):
    """(n, size, pixels) weights of pixels in the output: the filter at the distance of centres, widened to shrink."""
    scale = (length / size)[:, None, None]
    stretch = jnp.maximum(scale, 1)
    centre = start[:, None, None] + (np.arange(size, dtype=np.float32)[None, :, None] + 0.5) * scale
    pixel = np.arange(pixels, dtype=np.float32)[None, None]
    x = jnp.abs(pixel + 0.5 - centre) / stretch
    if interpolation == "bilinear":
        weights = jnp.maximum(1 - x, 0)
    else:
        near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
        weights = jnp.where(x < 1, near, jnp.where(x < 2, far, 0))
    start, end = start[:, None, None], (start + length)[:, None, None]
    weights = jnp.where((pixel >= start) & (pixel < end), weights, 0)
    return weights / jnp.sum(weights, axis=-1, keepdims=True)


def luminance(x: jax.Array) -> jax.Array:
    """(n, H, W, 1) luminance of RGB; a single channel is returned unchanged."""
    if x.shape[-1] == 1:
        return x
    shares = enumerate(LUMINANCE)
    return sum(share * x[..., i : i + 1] for i, share in shares)  # type: ignore[return-value]  # not the 0 of no terms


def jitter(x: jax.Array, factors: jax.Array, order: jax.Array) -> jax.Array:
    """Brightness, contrast, saturation and hue of x (n, H, W, channels) changed.

    factors, order: (n, 4), see `Draws`. Brightness, contrast and saturation blend with black, the mean luminance, and
    the luminance of each pixel: base + factor (x - base). Saturation and hue leave a single channel alone.
    """
    colours = x.shape[-1] == 3

    def one(planes, operation):  # channels first, so that loops on a CPU run over whole planes
        which, own = operation[:, None, None], jnp.take_along_axis(factors, operation[:, None], 1)[:, :, None]
        grey = sum(share * plane for share, plane in zip(LUMINANCE, planes, strict=True)) if colours else planes[0]
        mean = jnp.mean(grey, axis=(1, 2), keepdims=True)
        base = jnp.where(which == 1, mean, jnp.where(which == 2, grey, 0.0))
        blended = jnp.clip(base[None] + own[None] * (planes - base[None]), 0, 255)
        if colours:
            return jnp.where(which[None] == 3, _turned(planes, own), blended), None
        return jnp.where(which[None] < 2, blended, planes), None

    return jnp.moveaxis(jax.lax.scan(one, jnp.moveaxis(x, -1, 0), order.T)[0], 0, -1)


def turned(x: jax.Array, shift: jax.Array) -> jax.Array:
    """RGB with hues shifted by `shift` turns of the colour circle, (n, 1, 1, 1); value and saturation are kept."""
    return jnp.moveaxis(_turned(jnp.moveaxis(x, -1, 0), shift[..., 0]), 0, -1)


def _turned(planes, shift):
    """`turned` of (3, n, H, W)."""
    r, g, b = planes
    value = jnp.maximum(jnp.maximum(r, g), b)
    chroma = value - jnp.minimum(jnp.minimum(r, g), b)
    red, green = value == r, value == g
    over = jnp.where(red, g - b, jnp.where(green, b - r, r - g)) / jnp.where(chroma > 0, chroma, 1)
    sector = jnp.where(red, 0.0, jnp.where(green, 2.0, 4.0)) + over + 6 * shift

    def channel(offset):
        k = offset + sector
        k = k - 6 * jnp.floor(k / 6)  # the remainder, of which there is no fast instruction
        return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    return jnp.stack([channel(offset) for offset in (5, 3, 1)])


def blur_radius(size: int) -> int:
    """Radius of a blur in pixels: the kernel is a tenth of the picture, 23 for 224 as in SimCLR."""
    return max(1, round(size / 20))


def gaussian_blur(x: jax.Array, sigma: jax.Array, radius: int) -> jax.Array:
    """Each image blurred with its own standard deviation and a kernel of 2 radius + 1 pixels, borders reflected.

    Args:
      x: (n, H, W, channels) with sides above the radius; sigma: (n,) in pixels.
    """
    distance = np.arange(-radius, radius + 1, dtype=np.float32)
    weights = jnp.exp(-((distance[None] / sigma[:, None]) ** 2) / 2)
    weights = (weights / jnp.sum(weights, axis=1, keepdims=True))[:, :, None, None, None]
    for axis in (1, 2):
        pads = [(radius, radius) if i == axis else (0, 0) for i in range(4)]
        wide = jnp.pad(x, pads, mode="reflect")
        parts = (jax.lax.slice_in_dim(wide, i, i + x.shape[axis], axis=axis) for i in range(len(distance)))
        x = functools.reduce(jnp.add, (weights[:, i] * part for i, part in enumerate(parts)))
    return x


def solarise(x: jax.Array) -> jax.Array:
    """255 - x where x (any shape) is 128 or more, else x."""
    return jnp.where(x >= 128, 255 - x, x)
