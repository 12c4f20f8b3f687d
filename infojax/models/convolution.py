"""`lax.conv_general_dilated` with a kernel derivative that XLA's CPU convolutions compute fast.

The derivative with respect to the kernel is itself a convolution, whose window is the whole image and whose channels
are the batch. On CPU that one takes up to thirteen times as long as the forward pass (64 images of 32 x 32 x 32: 229 ms
against 17 on 2 cores of an EPYC); summed over pieces of the batch it takes as long as the forward pass (19 ms). The
value and the derivative with respect to the images are untouched, and so is everything on other platforms.

Where the kernel is as large as the image (5x5 on 3 x 3: the third block of f-) the convolution is one matrix product on
CPU, of fewer multiplications; figures are in `_dense`.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# Milliseconds of the derivative in a 3x3 kernel, 64 images, c to c channels, on 2 cores of a Xeon, by number of pieces:
#
#                    jaxlib 0.10.2: 1   2   4   8  16  32        jaxlib 0.12.0: 1   2   4   8  16  32
#   32 x 32, c =  32               39  41  23  15  14  11                      40  40  27  20  22  26
#   32 x 32, c =  64              140 161 154  80  55  55                     136 165 161  91  55  71
#   16 x 16, c = 128              137  95  53  41  44  41                     133 141  86  50  47  63
#    8 x  8, c = 256               44  38  38  38  57  75                     119  74  42  46  63  91
#    4 x  4, c = 512               39  41  43  72 112 186                      57  44  61  76 119 211
OLD = jax.version.__version_info__ < (0, 11)
MOST_PIECES = 32  # each is compiled; larger batches get larger pieces, up to twice as slow but far faster than unsplit


def _positions(pixels: int) -> float:
    """Output pixels per piece, for images of that many pixels: optimal, or nearly, in the table above."""
    return 2048 if OLD else 128 * math.sqrt(pixels)


def conv_general_dilated(x: jax.Array, kernel: jax.Array, *args: Any, **settings: Any) -> jax.Array:
    """`lax.conv_general_dilated` with x (N, H, W, C) and kernel (h, w, C, D), or other axes with N first throughout.

    On a CPU, pictures no larger than the kernel take one matrix product, and the derivative with respect to the kernel
    is computed in pieces of the batch. Differentiable in both modes.
    """

    def conv(x, kernel):
        return lax.conv_general_dilated(x, kernel, *args, **settings)

    whole = partial(_conv, conv=conv)
    if (
        x.ndim != 4
        or x.shape[3] != kernel.shape[2]
        or any(n > m for n, m in zip(x.shape[1:3], kernel.shape, strict=False))
    ):
        return whole(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=partial(_dense, conv=conv), default=whole)


def _dense(x, kernel, conv):
    """The same for (N, H, W, C) and (h, w, C, D) with H <= h and W <= w, as (N, H W C) times (H W C, H' W' D).

    400 images of 3 x 3 x 32 by 5x5 to 64 channels, with both derivatives: 4 ms, and 67 as a convolution.
    """
    n, height, width, channels = x.shape
    pixels, taps = height * width, kernel.shape[0] * kernel.shape[1]
    with jax.ensure_compile_time_eval():  # which tap links a pixel to one of the result; 0: none
        ones = jnp.eye(pixels).reshape(pixels, height, width, 1)
        numbers = jnp.arange(1.0, taps + 1).reshape(*kernel.shape[:2], 1, 1)
        leads = jnp.rint(conv(ones, numbers)).astype(jnp.int32)[..., 0]
    flat = kernel.reshape(taps, channels, -1)
    matrix = jnp.concatenate([jnp.zeros_like(flat[:1]), flat])[leads.reshape(pixels, -1)]  # (H W, H' W', C, D)
    matrix = matrix.transpose(0, 2, 1, 3).reshape(pixels * channels, -1)
    return (x.reshape(n, -1) @ matrix).reshape(n, *leads.shape[1:], kernel.shape[3])


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _conv(x, kernel, conv):
    return conv(x, kernel)


@_conv.defjvp
def _conv_jvp(conv, primals, tangents):
    """conv(dx, kernel) + conv(x, dkernel), the second for pieces of x: its transpose is a sum over pieces."""
    (x, kernel), (dx, dkernel) = primals, tangents
    y = conv(x, kernel)

    def by_pieces(x, dkernel):
        return jnp.concatenate([conv(piece, dkernel) for piece in jnp.array_split(x, _pieces(y.shape))])

    return y, conv(dx, kernel) + lax.platform_dependent(x, dkernel, cpu=by_pieces, default=conv)


def _pieces(shape):
    """The number of pieces into which the batch is cut."""
    pixels = math.prod(shape[1:-1])
    return max(1, min(math.ceil(shape[0] * pixels / _positions(pixels)), MOST_PIECES, shape[0]))
