"""EfficientNet-Lite0 and MiniLM, two pretrained towers from Python packages, joined by a ridge regression.

The regression maps the sentence "a photo of a NAME." to the row of that class in the image network's classifier, so
that texts and images meet in the space of the image features. It has the interface of `infojax.models.clip`;
docs/bridge_to_safetensors.py writes its file.
"""

from infojax.models.bridge.convert import IGNORED, WORDS, convert, is_bridge
from infojax.models.bridge.image import LITE0, EfficientNetLite, Stage
from infojax.models.bridge.model import MEAN, STD, Architecture, Bridge, image_tower, text_tower, tokenizer
from infojax.models.bridge.ridge import retrieval, ridge, targets
from infojax.models.bridge.text import SentenceBert
from infojax.models.bridge.tokenizer import Tokenizer

__all__ = [
    "Architecture", "Bridge", "EfficientNetLite", "IGNORED", "LITE0", "MEAN", "STD", "SentenceBert", "Stage",
    "Tokenizer", "WORDS", "convert", "image_tower", "is_bridge", "retrieval", "ridge", "targets", "text_tower",
    "tokenizer",
]  # fmt: skip
