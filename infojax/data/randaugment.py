"""RandAugment and Cutout as in TorchSSL, for a whole batch at once.

TorchSSL's operations are Pillow's, so these are too: on uint8, with Pillow's rounding, bit for bit. The exception is
`Rotate`: Pillow takes sine and cosine in float64, which moves about one pixel in a million. Every image draws its own
operations, so a batch goes through all of them, in five steps that leave the images that did not draw them unchanged.

References:
  Cubuk et al. 2020; TorchSSL datasets/augmentation/randaugment.py; Pillow ImageOps, ImageEnhance, Geometry.c.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

OPERATIONS = {  # name -> range of the magnitude, which is drawn uniformly
    "AutoContrast": (0.0, 1.0),
    "Brightness": (0.05, 0.95),
    "Color": (0.05, 0.95),
    "Contrast": (0.05, 0.95),
    "Equalize": (0.0, 1.0),
    "Identity": (0.0, 1.0),
    "Posterize": (4.0, 8.0),
    "Rotate": (-30.0, 30.0),  # degrees
    "Sharpness": (0.05, 0.95),
    "ShearX": (-0.3, 0.3),
    "ShearY": (-0.3, 0.3),
    "Solarize": (0.0, 256.0),
    "TranslateX": (-0.3, 0.3),  # of the width
    "TranslateY": (-0.3, 0.3),
}
NAMES = tuple(OPERATIONS)
GREY = (125, 123, 114)  # what Cutout paints; an image of one channel gets its luminance
UNIT = 1 << 16  # Pillow's affine maps are fixed-point numbers with 16 fractional bits


def randaugment(key: jax.Array, images: jax.Array, num_operations: int = 3) -> jax.Array:
    """Applies `num_operations` operations to each image, drawn with replacement, each with its own magnitude.

    Args:
      images: (N, H, W, 3) or (N, H, W, 1) uint8; with one channel, Color is the identity.
    Returns:
      (N, H, W, channels) uint8.
    """
    key_operation, key_magnitude = jax.random.split(key)
    draws = (num_operations, len(images))
    operations = jax.random.randint(key_operation, draws, 0, len(NAMES), jnp.int32)
    low, high = np.asarray(list(OPERATIONS.values()), np.float32).T
    share = jax.random.uniform(key_magnitude, draws, jnp.float32)
    magnitudes = jnp.take(low, operations) + share * jnp.take(high - low, operations)
    return apply_operations(images, operations, magnitudes)


def apply_operations(images: jax.Array, operations: jax.Array, magnitudes: jax.Array) -> jax.Array:
    """Image i goes through NAMES[operations[k, i]] with magnitudes[k, i] for k = 0, 1, ...

    Args:
      images: (N, H, W, channels) uint8; operations: (K, N) int; magnitudes: (K, N) float32, ranges in OPERATIONS.
    Returns:
      (N, H, W, channels) uint8.
    Raises:
      ValueError: wrong type or number of channels.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or not len(images):
        raise ValueError(f"images must be (N, H, W, 1 or 3) uint8, got {images.dtype}{list(images.shape)}")

    def layer(x, drawing):
        operation, magnitude = (value[:, None, None, None] for value in drawing)
        drawn = {name: operation == i for i, name in enumerate(NAMES)}
        for names, step in STEPS.items():
            any_of = functools.reduce(jnp.logical_or, (drawn[name] for name in names))
            x = _where(any_of, functools.partial(step, drawn=drawn, magnitude=magnitude), x)
        return x, None

    x, _ = jax.lax.scan(layer, jnp.moveaxis(images, 3, 1).astype(jnp.int32), (operations, magnitudes))
    return jnp.moveaxis(x, 1, 3).astype(jnp.uint8)


def _where(drawn, step, x):
    """step(x) for the images that drew it.

    On CPU the step is a separate branch, skipped if no image drew it: XLA would fuse the gathers of one step into the
    arithmetic of another, which then no longer vectorises (three times slower). On a GPU a branch costs more than it
    saves.
    """

    def chosen(x):
        return jnp.where(drawn, step(x), x)

    def branch(x):
        return jax.lax.cond(jnp.any(drawn), chosen, lambda x: x, x)

    return jax.lax.platform_dependent(x, cpu=branch, default=chosen)


def cutout(key: jax.Array, images: jax.Array, largest: float = 0.5) -> jax.Array:
    """Paints a grey square, side ~ U(0, largest) of the width, centre ~ U(1, W) x U(1, H).

    All as in the reference: the centre (its np.random.uniform(W) draws from [1, W], NumPy's upper end being 1), the
    square shifted inwards at the left and upper borders, cut off at the right and lower ones, and one pixel wider than
    its side.

    References:
      DeVries and Taylor 2017.
    """
    n, height, width, _ = images.shape
    share, x, y = jax.random.uniform(key, (3, n), jnp.float32)
    return paint_squares(images, 1 + x * (width - 1), 1 + y * (height - 1), share * largest * width)


def paint_squares(images: jax.Array, x: jax.Array, y: jax.Array, side: jax.Array) -> jax.Array:
    """Cutout with centres (x, y) and sides given in pixels, (N,) each; a side of zero paints nothing."""
    _, height, width, channels = images.shape

    def covered(centre, size):
        first = jnp.floor(jnp.maximum(centre - side / 2, 0))
        last = jnp.floor(jnp.minimum(first + side, size))
        pixel = np.arange(size, dtype=np.float32)[None, :]
        return (pixel >= first[:, None]) & (pixel <= last[:, None]) & (side > 0)[:, None]

    inside = covered(y, height)[:, :, None, None] & covered(x, width)[:, None, :, None]
    fill = GREY if channels == 3 else _luminance(np.reshape(GREY, (1, 3, 1, 1))).ravel()
    return jnp.where(inside, jnp.asarray(fill, jnp.uint8)[None, None, None], images)


# The steps. x: (N, channels, H, W) int32; drawn: operation -> (N, 1, 1, 1) bool; magnitude: (N, 1, 1, 1).


def _luminance(x):
    """Pillow's grey, (N, 1, H, W)."""
    if x.shape[1] == 1:
        return x
    return (19595 * x[:, 0:1] + 38470 * x[:, 1:2] + 7471 * x[:, 2:3] + 32768) >> 16


def _blend(x, drawn, magnitude):
    """base + magnitude (x - base), base: black, luminance, mean luminance, or the smoothed image."""
    grey = _luminance(x)
    pixels = x.shape[2] * x.shape[3]
    mean = (2 * jnp.sum(grey, axis=(2, 3), keepdims=True) + pixels) // (2 * pixels)  # rounded half up
    base = jnp.where(drawn["Color"], grey, jnp.where(drawn["Contrast"], mean, 0))
    base = jnp.where(drawn["Sharpness"], _smooth(x), base)
    blends = drawn["Brightness"] | drawn["Color"] | drawn["Contrast"] | drawn["Sharpness"]
    # Pillow rounds the product, then the sum; a compiler may fuse the two into one rounding. Both halves of the
    # magnitude have an exact product, so that only their sum is rounded, fused or not.
    upper = jnp.floor(magnitude * 4096) / 4096
    difference = (x - base).astype(jnp.float32)
    change = upper * difference + (magnitude - upper) * difference
    return jnp.where(blends, jnp.clip(base.astype(jnp.float32) + change, 0, 255).astype(jnp.int32), x)


def _smooth(x):
    """Pillow's SMOOTH: 3 x 3 means with weight 5 of 13 on the centre, rounded; the border stays as it is."""
    rows = x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * x[:, :, 1:-1, 1:-1]
    return x.at[:, :, 1:-1, 1:-1].set((2 * sums + 13) // 26)


def _bits(x, drawn, magnitude):
    """Posterize keeps the floor(magnitude) upper bits; Solarize inverts what is not below the magnitude."""
    kept = jnp.where(drawn["Posterize"], jnp.floor(magnitude), 8).astype(jnp.int32)
    x = x & (0xFF << (8 - kept))
    return jnp.where(drawn["Solarize"] & (x >= magnitude), 255 - x, x)


def _equalize(x, drawn, magnitude):
    """a -> (step // 2 + pixels below a) // step per channel, step = (pixels below the largest value) // 255."""

    def below_each(plane):  # of one channel, (pixels,); one scatter for all would be summed over the devices
        histogram = jnp.zeros(256, jnp.int32).at[plane].add(1, mode="promise_in_bounds")
        return (jnp.cumsum(histogram) - histogram).at[plane].get(mode="promise_in_bounds")

    below = jax.vmap(below_each)(x.reshape(x.shape[0] * x.shape[1], -1)).reshape(x.shape)
    step = jnp.max(below, axis=(2, 3), keepdims=True) // 255
    return jnp.where(step > 0, jnp.minimum(_quotient(step // 2 + below, step), 255), x)


def _autocontrast(x, drawn, magnitude):
    """a -> floor(255 (a - low) / (high - low)) per channel, one less where Pillow's float64 slips."""
    low, high = jnp.min(x, axis=(2, 3), keepdims=True), jnp.max(x, axis=(2, 3), keepdims=True)
    span, numerator = high - low, 255 * (x - low)
    exact = _quotient(numerator, span)
    bit = jnp.where(_quotient(exact, 15) * 15 == exact, _quotient(exact, 15), 17 + _quotient(exact, 17))
    slip = jnp.asarray(_slips())[low, high] >> bit & 1
    return jnp.where(span > 0, exact - jnp.where(exact * span == numerator, slip, 0), x)


def _quotient(a, b):
    """a // b for 0 <= a < 2^22 and b > 0 by float32, which vectorises; the half outweighs the rounding."""
    return ((a + jnp.float32(0.5)) / jnp.maximum(b, 1)).astype(jnp.int32)


@functools.cache
def _slips():
    """(256, 256) int32: where Pillow's autocontrast of the range [low, high] is one below the exact integer.

    Pillow computes int(x * scale + offset) in float64, scale = 255 / (high - low), offset = -low * scale; where the
    exact value is an integer q, the rounded one may fall below it. That happens only at multiples of 15 (bits 1 to 17)
    and of 17 (bits 18 to 31): any other integer needs a span that 51 or 85 divides, and those never slip.
    """
    low, high = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    span = np.maximum(high - low, 1)
    scale = 255.0 / span
    table = np.zeros((256, 256), np.uint32)
    for bit in range(1, 32):
        q = 15 * bit if bit < 18 else 17 * (bit - 17)
        x = low + q * span // 255
        slips = (q * span % 255 == 0) & ((x * scale + -low * scale).astype(int) < q)
        table |= np.where(slips & (high > low), np.uint32(1 << bit), np.uint32(0))
    return table.astype(np.int32)


def _move(x, drawn, magnitude):
    """Nearest pixel of an affine map, black outside: source = (a X + b Y + c, d X + e Y + f) >> 16."""
    n, channels, height, width = x.shape
    v = magnitude[..., 0]

    def drawn_else(name, value, otherwise):
        return jnp.where(drawn[name][..., 0], value, otherwise)

    # Rotation about the centre; 1 - cos as 2 sin^2 of half the angle keeps the digits.
    angle = jnp.where(drawn["Rotate"][..., 0], -v * (jnp.pi / 180), 0.0)
    sine, versine = jnp.sin(angle), 2 * jnp.sin(angle / 2) ** 2
    a = e = UNIT - _fixed(versine)
    b, d = _fixed(sine), _fixed(-sine)
    c = _fixed(0.5 + versine * (width / 2 - 0.5) - sine * (height / 2 - 0.5))
    f = _fixed(0.5 + versine * (height / 2 - 0.5) + sine * (width / 2 - 0.5))
    # A shear is exact in fixed point, a translation in pixels.
    b, c = drawn_else("ShearX", _fixed(v), b), drawn_else("ShearX", UNIT // 2 + _fixed(v / 2), c)
    d, f = drawn_else("ShearY", _fixed(v), d), drawn_else("ShearY", UNIT // 2 + _fixed(v / 2), f)
    c = drawn_else("TranslateX", UNIT // 2 + UNIT * jnp.floor(v * width + 0.5).astype(jnp.int32), c)
    f = drawn_else("TranslateY", UNIT // 2 + UNIT * jnp.floor(v * height + 0.5).astype(jnp.int32), f)

    row, column = np.arange(height, dtype=np.int32)[None, :, None], np.arange(width, dtype=np.int32)[None, None, :]
    from_column, from_row = (a * column + b * row + c) >> 16, (d * column + e * row + f) >> 16
    inside = (from_column >= 0) & (from_column < width) & (from_row >= 0) & (from_row < height)
    source = jnp.where(inside, from_row * width + from_column, 0).reshape(n, 1, height * width)
    source = jnp.broadcast_to(source, (n, channels, height * width))
    moved = jnp.take_along_axis(x.reshape(source.shape), source, 2, mode="promise_in_bounds")
    return jnp.where(inside[:, None], moved.reshape(x.shape), 0)


def _fixed(v):
    """floor(65536 v + 1/2), without the rounding of that sum in float32."""
    scaled = v * UNIT
    whole = jnp.floor(scaled)
    return (whole + (scaled - whole >= 0.5)).astype(jnp.int32)


STEPS = {  # the operations of each step; an image draws one operation per layer, so their order does not matter
    ("Brightness", "Color", "Contrast", "Sharpness"): _blend,
    ("Posterize", "Solarize"): _bits,
    ("AutoContrast",): _autocontrast,
    ("Equalize",): _equalize,
    ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"): _move,
}
