"""EfficientNet-Lite: inverted bottlenecks without squeeze-and-excitation, ReLU6 throughout.

References:
  Tan and Le 2019, "EfficientNet"; Lite: https://github.com/tensorflow/tpu, models/official/efficientnet/lite.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp


class Stage(NamedTuple):
    """Equal blocks, of which the first has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


LITE0 = (
    Stage(1, 3, 1, 1, 16), Stage(2, 3, 2, 6, 24), Stage(2, 5, 2, 6, 40), Stage(3, 3, 2, 6, 80), Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192), Stage(1, 3, 1, 6, 320),
)  # fmt: skip


def _conv(x, channels, kernel, stride, dtype, name):
    return nn.Conv(channels, (kernel, kernel), stride, padding="SAME", use_bias=False, dtype=dtype, name=name)(x)


def _norm(x, dtype, name):
    """The published statistics, at training too: the tower is frozen."""
    return nn.BatchNorm(use_running_average=True, epsilon=1e-3, dtype=dtype, name=name)(x)


class Depthwise(nn.Module):
    """A kernel (k, k, 1, C) of each channel's own, padded as TensorFlow's "SAME"; (N, H, W, C) in and out.

    A sum of shifted products: XLA has no fast grouped convolution for CPUs, and this fuses on other devices, too.
    """

    kernel: int
    stride: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        k, s, channels = self.kernel, self.stride, x.shape[-1]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (k, k, 1, channels)).astype(self.dtype)
        height, width = (-(-size // s) for size in x.shape[1:3])  # of the output
        missing = [max((out - 1) * s + k - size, 0) for out, size in zip((height, width), x.shape[1:3], strict=True)]
        x = jnp.pad(x.astype(self.dtype), ((0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)))
        found = jnp.zeros((), self.dtype)
        for i in range(k):
            for j in range(k):
                part = x[:, i : i + (height - 1) * s + 1 : s, j : j + (width - 1) * s + 1 : s]
                found = found + part * kernel[i : i + 1, j : j + 1]
        return found


class MBConv(nn.Module):
    """Expansion (left out if it is 1), depthwise convolution, projection; a shortcut where the shape stays."""

    kernel: int
    stride: int
    expansion: int
    channels: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y, wide = x, x.shape[-1] * self.expansion
        if self.expansion != 1:
            y = nn.relu6(_norm(_conv(y, wide, 1, 1, self.dtype, "expand_conv"), self.dtype, "bn0"))
        y = Depthwise(self.kernel, self.stride, self.dtype, name="depthwise_conv")(y)
        y = nn.relu6(_norm(y, self.dtype, "bn1"))
        y = _norm(_conv(y, self.channels, 1, 1, self.dtype, "project_conv"), self.dtype, "bn2")
        return x + y if self.stride == 1 and x.shape[-1] == self.channels else y


class EfficientNetLite(nn.Module):
    """Lite0 by default, 3,371,008 parameters without its classifier.

    Args:
      features: channels of the head (E); stem: channels after the first convolution; neither is scaled.
      stages: of the blocks between.
      dtype: of the computation; parameters are float32.
    Call:
      x: (N, H, W, 3) images, (pixels - 127) / 128; train: without effect.
    Returns:
      (N, E) float32, the mean over positions, not normalised.
    """

    features: int = 1280
    stem: int = 32
    stages: tuple[Stage, ...] = LITE0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.relu6(_norm(_conv(x, self.stem, 3, 2, self.dtype, "conv_stem"), self.dtype, "bn0"))
        number = 0
        for stage in map(Stage._make, self.stages):
            for repeat in range(stage.repeats):
                stride = 1 if repeat else stage.stride
                block = MBConv(
                    stage.kernel, stride, stage.expansion, stage.channels, self.dtype, name=f"blocks_{number}"
                )
                x, number = block(x), number + 1
        x = nn.relu6(_norm(_conv(x, self.features, 1, 1, self.dtype, "conv_head"), self.dtype, "bn1"))
        return jnp.mean(x.astype(jnp.float32), axis=(1, 2))
