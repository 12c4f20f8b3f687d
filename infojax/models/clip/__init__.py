"""CLIP: image and text towers, tokenizer, and the conversion of published weights.

  sizes, variables = clip.load("open_clip_model.safetensors")
  model, tokenize = clip.CLIP(sizes), clip.Tokenizer()
  logits = model.apply(variables, images, tokenize(["a photo of a cat.", "a photo of a dog."]))

`images` are (N, S, S, 3) pixels from 0 to 255, minus MEAN, over STD. References: Radford et al. 2021.
"""

from infojax.models.clip.convert import WeightsError, convert, load, read, to_openai
from infojax.models.clip.image import ImageResNet, ImageTransformer
from infojax.models.clip.model import (
    ARCHITECTURES,
    CLIP,
    MEAN,
    STD,
    Architecture,
    image_tower,
    text_tower,
    tokenizer,
    unit,
)
from infojax.models.clip.text import TextTransformer, embed
from infojax.models.clip.tokenizer import TextTooLong, Tokenizer

__all__ = [
    "ARCHITECTURES", "Architecture", "CLIP", "ImageResNet", "ImageTransformer", "MEAN", "STD", "TextTooLong",
    "TextTransformer", "Tokenizer", "WeightsError", "convert", "embed", "image_tower", "load", "read", "text_tower",
    "to_openai", "tokenizer", "unit",
]  # fmt: skip
