"""The two convolutional networks of the thesis on layerwise compression, f+ and f- (Cheong 2025, section 2.3).

Three blocks and a classifier. Batch normalisation uses the statistics of the current batch, in evaluation too, and
keeps no running ones: the output for a sample depends on the batch around it.

Reference: Z. Cheong, Explaining Deep Neural Networks using Information Theory and Geometry, Chalmers 2025; its code
calls them CIFARNet (f+) and MNISTNet (f-).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from infojax.models.convolution import conv_general_dilated
from infojax.models.initializers import fan_in_uniform
from infojax.models.normalisation import BatchStatistics
from infojax.models.output import Output
from infojax.models.pooling import max_pool
from infojax.models.stages import cut


class ThesisCNN(nn.Module):
    """f+ (skip) or f-: blocks "layer1" to "layer3", then logits.

    A block of f+: x <- relu(x + bn(conv 3x3 (x))), then relu(max pool 2 (bn(conv 3x3 to d_l (x)))); then the global
    maximum and a linear layer. A block of f-: relu(max pool 3 (bn(conv 5x5 to d_l (x)))); then the rest is flattened,
    and a linear layer. Convolutions have no biases and keep the size. 558,625 (f+) and 66,074 (f-) parameters for 10
    classes and 32 x 32 x 3; 557,397 and 65,274 for 28 x 28 x 1. PyTorch's default initialisation.

    Args:
      num_classes: C.
      skip: True for f+, False for f-.
      channels: d_1, d_2, d_3.
      pool: size and stride of the max pooling; None means 2 for f+, 3 for f-.
      dtype: of the computation; parameters, embedding and logits are float32.
    Call:
      x: (N, H, W, channels); train: without effect.
      start, stop: names of features, see `infojax.models.stages`: x is then the output of stage `start`, and the result
        the array of stage `stop`.
    Returns:
      `Output`, features "layer1" to "layer3", (N, H', W', d_l).
    Raises:
      ValueError: `channels` are not three, or pooling leaves nothing of an image.
    """

    num_classes: int
    skip: bool = True
    channels: tuple[int, ...] = (64, 128, 256)
    pool: int | None = None
    dtype: jnp.dtype = jnp.float32
    of_batch = True  # the output for a sample depends on the batch around it, in evaluation too

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, start: str | None = None, stop: str | None = None) -> Any:
        if len(self.channels) != 3:
            raise ValueError(f"channels must be three, of the three blocks; got {self.channels}")
        stages, features = dict(zip(("layer1", "layer2", "layer3"), self.channels, strict=True)), {}
        for name, channels in cut(stages, start, stop).items():
            x = features[name] = self._block(x.astype(self.dtype), channels, name)
        if stop:
            return x
        x = jnp.max(x, axis=(1, 2)) if self.skip else x.reshape(len(x), -1)
        embedding, init = x.astype(jnp.float32), fan_in_uniform(x.shape[-1])
        logits = nn.Dense(self.num_classes, kernel_init=init, bias_init=init, name="head")(embedding)
        return Output(logits, embedding, features)

    def _block(self, x, channels, name):
        if self.skip:
            x = nn.relu(x + self._conv(x, x.shape[-1], 3, f"{name}_a"))
        x = self._conv(x, channels, 3 if self.skip else 5, f"{name}_b")
        size = (2 if self.skip else 3) if self.pool is None else self.pool
        if min(x.shape[1:3]) < size:
            raise ValueError(
                f"{name}: max pooling by {size} leaves nothing of {x.shape[1]} x {x.shape[2]}; take larger images or a "
                "smaller `pool`"
            )
        return nn.relu(max_pool(x, size))

    def _conv(self, x, channels, size, name):
        conv = nn.Conv(
            channels,
            (size, size),
            padding=size // 2,
            use_bias=False,
            kernel_init=fan_in_uniform(size * size * x.shape[-1]),
            dtype=self.dtype,
            conv_general_dilated=conv_general_dilated,
            name=f"{name}_conv",
        )
        return BatchStatistics(name=f"{name}_bn")(conv(x))
