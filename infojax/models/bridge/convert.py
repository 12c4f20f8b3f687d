"""The file of a bridge: tensors by the names of the two packages they came from, after "image." and "text."."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infojax.models.bridge.model import Architecture, Bridge
from infojax.models.clip.convert import LEAVES, WeightsError, filled

WORDS = "tokenizer.words"  # the vocabulary, lines of UTF-8 as bytes
EMBEDDINGS = {
    "token_embedding": "text.embeddings.word_embeddings.weight",
    "positional_embedding": "text.embeddings.position_embeddings.weight",
    "type_embedding": "text.embeddings.token_type_embeddings.weight",
    "text_projection": "text_projection",
}
LAYER = {
    "embedding_norm": "embeddings.LayerNorm", "query": "attention.self.query", "key": "attention.self.key",
    "value": "attention.self.value", "out": "attention.output.dense", "attention_norm": "attention.output.LayerNorm",
    "fc": "intermediate.dense", "proj": "output.dense", "output_norm": "output.LayerNorm",
}  # fmt: skip
# Not of the towers: the classifier, BERT's pooler for its own training task, positions, counters.
IGNORED = re.compile(r"^image\._fc\.|^text\.pooler\.|\.(position_ids|num_batches_tracked)$")


def is_bridge(names: Sequence[str] | Mapping[str, Any]) -> bool:
    """Whether tensors of these names are a bridge."""
    return "image._conv_stem.weight" in names


def convert(state: Mapping[str, np.ndarray], *, sizes: Architecture | None = None) -> tuple[Architecture, dict]:
    """(architecture, variables of `Bridge`) of the tensors of a file.

    Args:
      sizes: Lite0 and a BERT whose sizes are read off the shapes by default, with heads of 32 channels as MiniLM's.
    Raises:
      WeightsError: names the tensors that are missing, not known or of another shape.
    """
    state = {name: tensor for name, tensor in state.items() if not IGNORED.search(name)}
    if WORDS not in state:
        raise WeightsError(f"no tensor {WORDS}, the vocabulary; docs/bridge_to_safetensors.py writes it")
    try:
        words = tuple(bytes(state.pop(WORDS)).decode().split("\n"))
    except UnicodeDecodeError:
        raise WeightsError(f"{WORDS} is no text; docs/bridge_to_safetensors.py writes it as bytes of UTF-8") from None
    sizes = dataclasses.replace(sizes or architecture_of(state), words=words)
    if len(words) != sizes.vocabulary:
        raise WeightsError(f"{WORDS} has {len(words):,} words, but {sizes.vocabulary:,} have embeddings")
    images, ids = jnp.zeros((1, sizes.image_size, sizes.image_size, 3)), jnp.zeros((1, 2), jnp.int32)
    shapes = jax.eval_shape(Bridge(sizes).init, jax.random.key(0), images, ids)
    return sizes, filled(shapes, file_name, state, sizes)


def architecture_of(state: Mapping[str, np.ndarray]) -> Architecture:
    """The sizes that the shapes of the text tower tell.

    Raises:
      WeightsError: a tensor that tells them is missing.
    """
    first = "text.encoder.layer.0.intermediate.dense.weight"
    for name in (*EMBEDDINGS.values(), first):
        if name not in state:
            raise WeightsError(f"no tensor {name}: these are not the weights of a bridge")
    vocabulary, width = state[EMBEDDINGS["token_embedding"]].shape
    layers = {found[1] for found in map(re.compile(r"text\.encoder\.layer\.(\d+)\.").match, state) if found}
    context = len(state[EMBEDDINGS["positional_embedding"]])
    return Architecture(
        text_width=width, text_layers=len(layers), text_hidden=len(state[first]), context=context, vocabulary=vocabulary
    )


def file_name(path: str) -> str:
    """A tensor's name: "params/image/blocks_0/bn1/scale" is "image._blocks.0._bn1.weight"."""
    _, tower, *parts = path.split("/")
    if tower == "logit_scale":
        return tower
    if len(parts) == 1:
        return EMBEDDINGS[parts[0]]
    *inner, leaf = parts
    if tower == "image":
        return ".".join(["image", *(f"_{part}".replace("_blocks_", "_blocks.") for part in inner), LEAVES[leaf]])
    layer = [f"encoder.layer.{inner[0].removeprefix('layer')}"] if len(inner) == 2 else []
    return ".".join(["text", *layer, LAYER[inner[-1]], LEAVES[leaf]])
