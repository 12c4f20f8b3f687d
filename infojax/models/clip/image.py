"""CLIP's image towers: a vision transformer, and a ResNet with an anti-aliased stem and an attention pool.

References:
  Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", section 2.4.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from infojax.models.clip.blocks import EPSILON, Block, layer_norm, project


class ImageTransformer(nn.Module):
    """ViT: patches, a class token, positions, a norm before and after the blocks; the class token is projected.

    Args:
      features: of the joint space (E).
      width, layers, heads: of the blocks; patch: side of a patch.
      activation: "quick_gelu" (OpenAI) or "gelu".
      dtype: of the computation; parameters are float32.
    Call:
      x: (N, S, S, 3) normalised images; train: without effect.
    Returns:
      (N, E) float32, not normalised.
    Raises:
      ValueError: patches do not tile the image.
    """

    features: int
    width: int = 768
    layers: int = 12
    heads: int = 12
    patch: int = 16
    activation: str = "quick_gelu"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        n, height, width, _ = x.shape
        if height % self.patch or width % self.patch:
            raise ValueError(f"patches of {self.patch} do not tile images of {height} x {width}")
        init = nn.initializers.normal(self.width**-0.5)
        kernel = (self.patch, self.patch)
        x = nn.Conv(self.width, kernel, kernel, "VALID", use_bias=False, dtype=self.dtype, name="conv1")(x)
        x = x.reshape(n, -1, self.width)
        token = self.param("class_embedding", init, (self.width,))
        x = jnp.concatenate([jnp.broadcast_to(token, (n, 1, self.width)).astype(x.dtype), x], axis=1)
        x = x + self.param("positional_embedding", init, x.shape[1:])[None].astype(x.dtype)
        x = layer_norm("ln_pre", self.dtype)(x)
        for i in range(self.layers):
            x = Block(self.heads, activation=self.activation, dtype=self.dtype, name=f"block{i}")(x)
        x = layer_norm("ln_post")(x[:, 0].astype(jnp.float32))
        return project(x, self.param("proj", init, (self.width, self.features)))


class ImageResNet(nn.Module):
    """ModifiedResNet: a stem of three convolutions, average pooling before every stride, attention in place of a pool.

    Batch normalisation always uses its running statistics: the tower is for given weights, not for training.

    Args:
      features: of the joint space (E).
      width: channels after the stem; the last stage has 32 times as many.
      layers: blocks of the four stages.
      heads: of the attention pool.
      dtype: of the computation; parameters and statistics are float32.
    Call:
      x: (N, S, S, 3) normalised images, S a multiple of 32; train: without effect.
    Returns:
      (N, E) float32, not normalised.
    """

    features: int
    width: int = 64
    layers: tuple[int, ...] = (3, 4, 6, 3)
    heads: int = 32
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        if any(side % 32 for side in x.shape[1:3]):
            raise ValueError(f"sides of images must be multiples of 32, got {x.shape[1]} x {x.shape[2]}")
        x = x.astype(self.dtype)
        for i, (channels, stride) in enumerate(((self.width // 2, 2), (self.width // 2, 1), (self.width, 1)), 1):
            x = nn.relu(_norm(self, _conv(self, x, channels, 3, f"conv{i}", stride), f"bn{i}"))
        x = nn.avg_pool(x, (2, 2), (2, 2))
        for stage, blocks in enumerate(self.layers, 1):
            for i in range(blocks):
                stride = 2 if stage > 1 and i == 0 else 1
                x = _Bottleneck(self.width * 2 ** (stage - 1), stride, self.dtype, name=f"layer{stage}_{i}")(x)
        return _AttentionPool(self.features, self.heads, self.dtype, name="attnpool")(x).astype(jnp.float32)


def _conv(net, x, channels, size, name, stride=1):
    # Explicit padding: "SAME" pads a stride of 2 on one side only.
    pad = ((size // 2, size // 2),) * 2
    conv = nn.Conv(channels, (size, size), (stride, stride), pad, use_bias=False, dtype=net.dtype, name=name)
    return conv(x)


def _norm(net, x, name):
    return nn.BatchNorm(True, epsilon=EPSILON, dtype=net.dtype, name=name)(x)


class _Bottleneck(nn.Module):
    """1x1, 3x3, average pool of the stride, 1x1 with four times the channels; batch normalisation after each."""

    channels: int
    stride: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        window = (self.stride, self.stride)
        y = nn.relu(_norm(self, _conv(self, x, self.channels, 1, "conv1"), "bn1"))
        y = nn.relu(_norm(self, _conv(self, y, self.channels, 3, "conv2"), "bn2"))
        y = nn.avg_pool(y, window, window)
        y = _norm(self, _conv(self, y, 4 * self.channels, 1, "conv3"), "bn3")
        if self.stride > 1 or x.shape[-1] != 4 * self.channels:
            x = nn.avg_pool(x, window, window)
            x = _norm(self, _conv(self, x, 4 * self.channels, 1, "downsample_0"), "downsample_1")
        return nn.relu(x + y)


class _AttentionPool(nn.Module):
    """Attention of the mean pixel over itself and all pixels, each with its position."""

    features: int
    heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        n, width = len(x), x.shape[-1]
        x = x.reshape(n, -1, width)
        x = jnp.concatenate([jnp.mean(x, axis=1, keepdims=True), x], axis=1)
        init = nn.initializers.normal(width**-0.5)
        x = x + self.param("positional_embedding", init, x.shape[1:])[None].astype(x.dtype)

        def project(rows, name):
            rows = nn.Dense(width, kernel_init=init, dtype=self.dtype, name=name)(rows)
            return rows.reshape(n, -1, self.heads, width // self.heads)

        q, k, v = project(x[:, :1], "q_proj"), project(x, "k_proj"), project(x, "v_proj")
        pooled = jax.nn.dot_product_attention(q, k, v).reshape(n, width)
        return nn.Dense(self.features, kernel_init=init, dtype=self.dtype, name="c_proj")(pooled)
