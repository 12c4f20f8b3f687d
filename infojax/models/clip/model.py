"""Both towers by the name of a published architecture."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from infojax.models.clip.image import ImageResNet, ImageTransformer
from infojax.models.clip.text import TextTransformer
from infojax.models.clip.tokenizer import Tokenizer

MEAN = (122.7709383, 116.7460125, 104.09373615)  # by which pixels from 0 to 255 are normalised
STD = (68.5005327, 66.6321579, 70.32316305)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Sizes of a CLIP model.

    Attributes:
      features: of the joint space (E).
      image_size: side of the images.
      image_layers: a number of blocks (ViT), or those of four stages (ResNet).
      image_width: of the blocks, or channels after the stem; patch: of a ViT.
      text_width, text_layers, context, vocabulary: of the text tower.
      head_width: channels of an attention head, in both towers.
      activation: "quick_gelu" (OpenAI's weights) or "gelu" (most of open_clip's own).
    """

    features: int = 512
    image_size: int = 224
    image_layers: int | tuple[int, ...] = 12
    image_width: int = 768
    patch: int = 16
    text_width: int = 512
    text_layers: int = 12
    context: int = 77
    vocabulary: int = 49408
    head_width: int = 64
    activation: str = "quick_gelu"


ARCHITECTURES = {
    "RN50": Architecture(1024, 224, (3, 4, 6, 3), 64),
    "RN101": Architecture(512, 224, (3, 4, 23, 3), 64),
    "RN50x4": Architecture(640, 288, (4, 6, 10, 6), 80, text_width=640),
    "RN50x16": Architecture(768, 384, (6, 8, 18, 8), 96, text_width=768),
    "RN50x64": Architecture(1024, 448, (3, 15, 36, 10), 128, text_width=1024),
    "ViT-B/32": Architecture(patch=32),
    "ViT-B/16": Architecture(),
    "ViT-L/14": Architecture(768, 224, 24, 1024, 14, text_width=768),
    "ViT-L/14@336px": Architecture(768, 336, 24, 1024, 14, text_width=768),
}


def image_tower(sizes: Architecture, dtype: Any = jnp.float32) -> ImageTransformer | ImageResNet:
    """The image tower: images (N, S, S, 3) to features (N, E)."""
    if isinstance(sizes.image_layers, int):
        heads = sizes.image_width // sizes.head_width
        return ImageTransformer(
            sizes.features, sizes.image_width, sizes.image_layers, heads, sizes.patch, sizes.activation, dtype
        )
    heads = 32 * sizes.image_width // sizes.head_width
    return ImageResNet(sizes.features, sizes.image_width, tuple(sizes.image_layers), heads, dtype)


def text_tower(sizes: Architecture, dtype: Any = jnp.float32, remat: bool = False) -> TextTransformer:
    """The text tower: ids (n, L), or embeddings (n, L, width) and `end` (n,), to features (n, E)."""
    heads = sizes.text_width // sizes.head_width
    return TextTransformer(
        sizes.features, sizes.text_width, sizes.text_layers, heads, sizes.context, sizes.vocabulary, sizes.activation,
        remat, dtype,
    )  # fmt: skip


def tokenizer(sizes: Architecture) -> Tokenizer:
    """The tokenizer of a model."""
    return Tokenizer(sizes.context)


class CLIP(nn.Module):
    """Both towers and the temperature; `infojax.models.clip.convert` makes its variables of published weights.

    Args:
      sizes: `Architecture`; dtype: of the computation.
    Call:
      images: (N, S, S, 3), normalised by MEAN and STD; texts: (M, L) ids of `Tokenizer`.
    Returns:
      Logits (N, M): exp(logit_scale) times the cosines of the features.
    """

    sizes: Architecture = ARCHITECTURES["ViT-B/16"]
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        self.image = image_tower(self.sizes, self.dtype)
        self.text = text_tower(self.sizes, self.dtype)
        self.logit_scale = self.param("logit_scale", lambda _: jnp.asarray(np.log(1 / 0.07), jnp.float32))

    def __call__(self, images: jax.Array, texts: jax.Array) -> jax.Array:
        images, texts = unit(self.encode_image(images)), unit(self.encode_text(texts))
        return jnp.exp(self.logit_scale) * jnp.matmul(images, texts.T, precision=jax.lax.Precision.HIGHEST)

    def encode_image(self, images: jax.Array) -> jax.Array:
        """(N, E) features, not normalised."""
        return self.image(images)

    def encode_text(self, texts: jax.Array, end: jax.Array | None = None) -> jax.Array:
        """(M, E) features, not normalised, of ids or of embeddings with `end`."""
        return self.text(texts, end)


def unit(features: jax.Array) -> jax.Array:
    """Rows of features (..., E) over their norms; a row of zeros stays so, with gradient zero."""
    square = jnp.sum(features * features, axis=-1, keepdims=True)
    return jnp.where(square > 0, features * jax.lax.rsqrt(jnp.where(square > 0, square, 1)), 0)
