"""ResNet as torchvision builds it, with a stem for small images too.

Convolutions without biases, batch normalisation with PyTorch's momentum 0.1 (decay 0.9 here), ReLU
after the sum, 1x1 convolution and batch normalisation on the shortcut where the shape changes.

References:
  He et al. 2016; the 3x3 stem without pooling is that of SimCLR and most CIFAR code.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from infojax.models.convolution import conv_general_dilated
from infojax.models.initializers import fan_in_uniform
from infojax.models.output import Output
from infojax.models.stages import cut

STEMS = ("cifar", "imagenet")
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}  # blocks of each group


def _conv(net, x, channels, size, stride, name, padding=None):
    conv = nn.Conv(
        channels,
        (size, size),
        stride,
        padding=size // 2 if padding is None else padding,
        use_bias=False,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        dtype=net.dtype,
        conv_general_dilated=conv_general_dilated,
        name=name,
    )
    return conv(x)


def _norm(net, x, train, name):
    return nn.BatchNorm(not train, momentum=net.norm_decay, epsilon=1e-5, dtype=net.dtype, name=name)(x)


class _Block(nn.Module):
    """Two 3x3 convolutions, or a bottleneck: 1x1, 3x3 with the stride, 1x1 to four times the channels."""

    channels: int
    stride: int
    norm_decay: float
    dtype: jnp.dtype
    bottleneck: bool = False

    @nn.compact
    def __call__(self, x, train):
        sizes = (1, 3, 1) if self.bottleneck else (3, 3)
        widths = [self.channels] * (len(sizes) - 1) + [self.channels * (4 if self.bottleneck else 1)]
        y, strided = x, sizes.index(3)
        for i, (size, width) in enumerate(zip(sizes, widths, strict=True)):
            y = _conv(self, y, width, size, self.stride if i == strided else 1, f"conv{i + 1}")
            y = _norm(self, y, train, f"bn{i + 1}")
            y = y if i == len(sizes) - 1 else nn.relu(y)
        if self.stride > 1 or x.shape[-1] != widths[-1]:
            x = _norm(self, _conv(self, x, widths[-1], 1, self.stride, "shortcut"), train, "shortcut_bn")
        return nn.relu(x + y)


class ResNet(nn.Module):
    """ResNet-18 has 11,173,962 parameters with the CIFAR stem and 10 classes, 11,689,512 with ImageNet's and 1,000.

    ResNet-50 has 25,557,032 with ImageNet's stem and 1,000 classes, the stride in the blocks' 3x3 convolution ("v1.5").

    Args:
      num_classes: C.
      depth: 18, 34, 50 or 101.
      stem: "cifar" (3x3, stride 1) or "imagenet" (7x7, stride 2, and 3x3 max pooling, stride 2).
      stem_padding: of the CIFAR stem; solo-learn has 2, which turns 32 x 32 into 34 x 34.
      norm_decay: of the running statistics of batch normalisation.
      dtype: of the computation; parameters, statistics, embedding and logits are float32.
    Call:
      x: (N, H, W, channels) normalised images; train: batch statistics, which update `batch_stats`.
      start, stop: names of features, see `infojax.models.stages`: x is then the output of stage `start`, and the result
        the array of stage `stop`.
    Returns:
      `Output`; embedding (N, 512), or (N, 2048) from depth 50 on; features "group1" to "group4", (N, H', W', C') each.
    Raises:
      ValueError: unknown stem or depth.
    """

    num_classes: int
    depth: int = 18
    stem: str = "cifar"
    stem_padding: int = 1
    norm_decay: float = 0.9
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, start: str | None = None, stop: str | None = None) -> Any:
        if self.stem not in STEMS:
            raise ValueError(f"stem must be one of {', '.join(STEMS)}; got {self.stem!r}")
        if self.depth not in DEPTHS:
            raise ValueError(f"depth must be one of {', '.join(map(str, DEPTHS))}; got {self.depth}")
        if start is None:
            x = self._stem(x, train)
        features = {}
        for name, group in cut({f"group{i + 1}": i for i in range(4)}, start, stop).items():
            for i in range(DEPTHS[self.depth][group]):
                stride, bottleneck = 2 if group and not i else 1, self.depth >= 50
                block = _Block(
                    64 * 2**group, stride, self.norm_decay, self.dtype, bottleneck, name=f"{name}_block{i + 1}"
                )
                x = block(x, train)
            features[name] = x
        if stop:
            return x
        embedding = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        init = fan_in_uniform(embedding.shape[1])
        logits = nn.Dense(self.num_classes, kernel_init=init, bias_init=init, name="head")(embedding)
        return Output(logits, embedding, features)

    def _stem(self, x, train):
        if self.stem == "cifar":
            return nn.relu(_norm(self, _conv(self, x, 64, 3, 1, "conv1", self.stem_padding), train, "bn1"))
        x = nn.relu(_norm(self, _conv(self, x, 64, 7, 2, "conv1"), train, "bn1"))
        return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
