"""WideResNet as used in semi-supervised learning (Zagoruyko and Komodakis 2016), in its two published variants.

Pre-activation blocks of two 3x3 convolutions with biases, leaky ReLU (0.1), batch normalisation with decay 0.999 and
epsilon 1e-3, global average pooling. The variants differ in two ways:

- The first block of a group that changes the number of channels. google (FixMatch and its relatives) feeds
  act(bn1(x)) to conv1 and the raw x to the shortcut. torchssl feeds the raw x to both: there bn1 is computed and keeps
  running statistics, but has no effect (an error of that code, which its published numbers contain). The very first
  block gives act(bn1(x)) to both branches in both variants; only where its number of channels stays the same (width 1)
  does torchssl's shortcut take the raw x.
- Padding of 3x3 convolutions with stride 2: one pixel on each side (torchssl), or TensorFlow's "same", which for even
  sizes is one pixel at the bottom and right (google).

PyTorch tracks the unbiased batch variance, Flax the biased one: running variances differ by n / (n - 1), with n the
number of samples times pixels in a batch.

References: TorchSSL models/nets/wrn.py and wrn_var.py; google-research/fixmatch libml/models.py.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from infojax.models.convolution import conv_general_dilated
from infojax.models.initializers import fan_in_uniform
from infojax.models.output import Output
from infojax.models.stages import cut

VARIANTS = ("torchssl", "google")


def _conv(net, x, channels, size, stride, name):
    torch = net.variant == "torchssl"
    conv = nn.Conv(
        channels,
        (size, size),
        stride,
        padding=size // 2 if torch else "SAME",
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        bias_init=fan_in_uniform(size * size * x.shape[-1]) if torch else nn.initializers.zeros,
        dtype=net.dtype,
        conv_general_dilated=conv_general_dilated,
        name=name,
    )
    return conv(x)


def _normalised(net, x, train, name):
    """act(bn(x)): batch normalisation and the activation."""
    norm = nn.BatchNorm(not train, momentum=net.norm_decay, epsilon=1e-3, dtype=net.dtype, name=name)
    return nn.leaky_relu(norm(x), 0.1)


class _Block(nn.Module):
    channels: int
    stride: int
    very_first: bool
    variant: str
    norm_decay: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, train):
        changes = x.shape[-1] != self.channels or self.stride > 1
        y = _normalised(self, x, train, "bn1")
        if self.very_first and (changes or self.variant == "google"):
            x = y
        elif changes and self.variant == "torchssl":
            y = x
        y = _conv(self, y, self.channels, 3, self.stride, "conv1")
        y = _normalised(self, y, train, "bn2")
        y = _conv(self, y, self.channels, 3, 1, "conv2")
        return y + (_conv(self, x, self.channels, 1, self.stride, "shortcut") if changes else x)


class WideResNet(nn.Module):
    """WRN-depth-width; (28, 2) has 1,469,642 parameters for 10 classes, (28, 8) 23,409,092 for 100.

    Args:
      num_classes: C.
      depth: number of layers, 6 n + 4, with n blocks per group.
      width: factor by which the channels 16, 32, 64 (and 128) of the groups are multiplied.
      groups: 3, or 4 as for STL-10: with depth=28, width=2, first_stride=2 the "WRN-37-2" (5,933,770 parameters).
      first_stride: stride of the first group.
      variant: "torchssl" (the published tables of TorchSSL) or "google"; see the module.
      norm_decay: decay of the running statistics of batch normalisation. 0.999 suits 2^20 steps: in a run of a few
        thousand they lag behind the weights, and evaluation suffers; with 0.9 they follow within tens of steps.
      dtype: dtype of the computation; parameters, statistics, embedding and logits are float32.
    Call:
      x: (N, H, W, channels) normalised images; train: batch statistics, which update `batch_stats`.
      start, stop: names of features, see `infojax.models.stages`: x is then the output of stage `start`, and the result
        the array of stage `stop`.
    Returns:
      `Output`; features "group1", ..., (N, H', W', C') each.
    Raises:
      ValueError: unknown variant, or a depth that is not 6 n + 4.
    """

    num_classes: int
    depth: int = 28
    width: int = 2
    groups: int = 3
    first_stride: int = 1
    variant: str = "torchssl"
    norm_decay: float = 0.999
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, start: str | None = None, stop: str | None = None) -> Any:
        if self.variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}; got {self.variant!r}")
        blocks, rest = divmod(self.depth - 4, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 10, 16, 22, 28, ... (6 n + 4); got {self.depth}")
        if start is None:
            x = _conv(self, x, 16, 3, 1, "conv1")
        features = {}
        for name, group in cut({f"group{i + 1}": i for i in range(self.groups)}, start, stop).items():
            for i in range(blocks):
                block = _Block(
                    channels=16 * self.width * 2**group,
                    stride=1 if i else (2 if group else self.first_stride),
                    very_first=group == i == 0,
                    variant=self.variant,
                    norm_decay=self.norm_decay,
                    dtype=self.dtype,
                    name=f"{name}_block{i + 1}",
                )
                x = block(x, train)
            features[name] = x
        if stop:
            return x
        x = _normalised(self, x, train, "bn")
        embedding = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        shape = "normal" if self.variant == "torchssl" else "truncated_normal"
        init = nn.initializers.variance_scaling(1.0, "fan_avg", shape)  # type: ignore[arg-type]  # Xavier
        logits = nn.Dense(self.num_classes, kernel_init=init, name="head")(embedding)
        return Output(logits, embedding, features)
