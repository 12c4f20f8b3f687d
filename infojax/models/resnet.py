"""ResNet-18 as torchvision builds it, with the stem for small images.

Two 3x3 convolutions a block without biases, batch normalisation with PyTorch's momentum 0.1 (decay 0.9 here), ReLU
after the sum, 1x1 convolution and batch normalisation on the shortcut where the shape changes.

References:
  He et al. 2016; the 3x3 stem without pooling is that of SimCLR's and most CIFAR codes.
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
    channels: int
    stride: int
    norm_decay: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, train):
        y = _conv(self, x, self.channels, 3, self.stride, "conv1")
        y = nn.relu(_norm(self, y, train, "bn1"))
        y = _norm(self, _conv(self, y, self.channels, 3, 1, "conv2"), train, "bn2")
        if self.stride > 1 or x.shape[-1] != self.channels:
            x = _norm(self, _conv(self, x, self.channels, 1, self.stride, "shortcut"), train, "shortcut_bn")
        return nn.relu(x + y)


class ResNet18(nn.Module):
    """ResNet-18; 11,173,962 parameters with the CIFAR stem and 10 classes, 11,689,512 with ImageNet's and 1,000.

    Args:
      num_classes: C.
      stem: "cifar" (3x3, stride 1) or "imagenet" (7x7, stride 2, and 3x3 max pooling, stride 2).
      stem_padding: of the CIFAR stem; solo-learn has 2, which makes 34 x 34 of 32 x 32.
      norm_decay: of the running statistics of batch normalisation.
      dtype: of the computation; parameters, statistics, embedding and logits are float32.
    Call:
      x: (N, H, W, channels) normalised images; train: batch statistics, which update `batch_stats`.
      start, stop: names of features, see `infojax.models.stages`: x is then the output of stage `start`, and the result
        the array of stage `stop`.
    Returns:
      `Output`; embedding (N, 512); features "group1" to "group4", (N, H', W', C') each.
    Raises:
      ValueError: unknown stem.
    """

    num_classes: int
    stem: str = "cifar"
    stem_padding: int = 1
    norm_decay: float = 0.9
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, start: str | None = None, stop: str | None = None) -> Any:
        if self.stem not in STEMS:
            raise ValueError(f"stem must be one of {', '.join(STEMS)}; got {self.stem!r}")
        if start is None:
            x = self._stem(x, train)
        features = {}
        for name, group in cut({f"group{i + 1}": i for i in range(4)}, start, stop).items():
            for i in range(2):
                stride = 2 if group and not i else 1
                block = _Block(64 * 2**group, stride, self.norm_decay, self.dtype, name=f"{name}_block{i + 1}")
                x = block(x, train)
            features[name] = x
        if stop:
            return x
        embedding = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        init = fan_in_uniform(512)
        logits = nn.Dense(self.num_classes, kernel_init=init, bias_init=init, name="head")(embedding)
        return Output(logits, embedding, features)

    def _stem(self, x, train):
        if self.stem == "cifar":
            return nn.relu(_norm(self, _conv(self, x, 64, 3, 1, "conv1", self.stem_padding), train, "bn1"))
        x = nn.relu(_norm(self, _conv(self, x, 64, 7, 2, "conv1"), train, "bn1"))
        return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
