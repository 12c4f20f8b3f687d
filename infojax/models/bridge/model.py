"""Both towers and what joins them."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from infojax.models.bridge.image import LITE0, EfficientNetLite, Stage
from infojax.models.bridge.text import SentenceBert
from infojax.models.bridge.tokenizer import Tokenizer

MEAN, STD = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)  # by which pixels from 0 to 255 are normalised


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Sizes of a bridge; by default EfficientNet-Lite0 and all-MiniLM-L6-v2.

    Attributes:
      features: of the joint space (E), that of the image tower.
      image_size: side of the images; stem: channels after the first convolution; stages: of the image tower.
      text_width, text_layers, text_hidden, context, vocabulary: of the text tower.
      head_width: channels of an attention head.
      words: the vocabulary in the order of its ids.
    """

    features: int = 1280
    image_size: int = 224
    stem: int = 32
    stages: tuple[Stage, ...] = dataclasses.field(default=LITE0, repr=False)
    text_width: int = 384
    text_layers: int = 6
    text_hidden: int = 1536
    context: int = 512
    vocabulary: int = 30522
    head_width: int = 32
    words: tuple[str, ...] = dataclasses.field(default=(), repr=False)


def image_tower(sizes: Architecture, dtype: Any = jnp.float32) -> EfficientNetLite:
    """The image tower: images (N, S, S, 3) to features (N, E)."""
    return EfficientNetLite(sizes.features, sizes.stem, sizes.stages, dtype)


def text_tower(sizes: Architecture, dtype: Any = jnp.float32, remat: bool = False) -> SentenceBert:
    """The text tower: ids (n, L), or embeddings (n, L, width) and `end` (n,), to features (n, E)."""
    heads = sizes.text_width // sizes.head_width
    return SentenceBert(
        sizes.features, sizes.text_width, sizes.text_layers, heads, sizes.text_hidden, sizes.context, sizes.vocabulary,
        remat, dtype,
    )  # fmt: skip


def tokenizer(sizes: Architecture) -> Tokenizer:
    """The tokenizer of a model."""
    return Tokenizer(sizes.words, sizes.context)


class Bridge(nn.Module):
    """Both towers, with the regression's map in the text tower, and the temperature; called as `clip.CLIP`."""

    sizes: Architecture = Architecture()

    def setup(self) -> None:
        self.image = image_tower(self.sizes)
        self.text = text_tower(self.sizes)
        self.logit_scale = self.param("logit_scale", lambda _: jnp.asarray(np.log(100.0), jnp.float32))

    def __call__(self, images: jax.Array, texts: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Features (N, E) and (M, E), not normalised."""
        return self.image(images), self.text(texts)
