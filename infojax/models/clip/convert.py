"""Published weights as variables of `CLIP`: OpenAI's, open_clip's and Hugging Face's names, without PyTorch.

OpenAI and open_clip name and shape alike. Hugging Face splits the projections of the attention and transposes the last
ones; its names are translated to OpenAI's first, so that there is one table. Half-precision tensors become float32.
"""

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from infojax.models.clip.model import CLIP, Architecture

# What files hold besides weights: sizes, masks, counters.
IGNORED = re.compile(
    r"^(input_resolution|context_length|vocab_size|attn_mask)$"
    r"|\.(num_batches_tracked|position_ids|attn_mask)$"
)
BLOCK = {
    "qkv/kernel": "attn.in_proj_weight", "qkv/bias": "attn.in_proj_bias",
    "out/kernel": "attn.out_proj.weight", "out/bias": "attn.out_proj.bias",
    "fc/kernel": "mlp.c_fc.weight", "fc/bias": "mlp.c_fc.bias",
    "proj/kernel": "mlp.c_proj.weight", "proj/bias": "mlp.c_proj.bias",
}  # fmt: skip
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
HF_BLOCK = {
    "self_attn.out_proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
}  # fmt: skip
HF_NAMES = {
    "logit_scale": "logit_scale",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "text_projection.weight": "text_projection",
    "visual_projection.weight": "visual.proj",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",  # sic
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
}


class WeightsError(ValueError):
    """Weights that are missing, or are not those of a CLIP model; the message is one line."""


def load(
    path: str | Path, *, sizes: Architecture | None = None, activation: str = "quick_gelu"
) -> tuple[Architecture, dict[str, Any]]:
    """(architecture, variables of `CLIP`) of a safetensors file; see `convert`.

    Raises:
      WeightsError: it is not there, not such a file, or does not hold a CLIP model.
    """
    state = read(path)
    try:
        return convert(state, sizes=sizes, activation=activation)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file.

    Raises:
      WeightsError: it is not there, or not such a file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = Path(path).expanduser()
    if not path.is_file():
        raise WeightsError(f"found no file {path}; expected the weights of a CLIP model as safetensors")
    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        hint = "; docs/clip_to_safetensors.py converts OpenAI's .pt files" if path.suffix == ".pt" else ""
        raise WeightsError(f"{path} is not a safetensors file ({' '.join(str(error).split())}){hint}") from None


def convert(
    state: Mapping[str, np.ndarray], *, sizes: Architecture | None = None, activation: str = "quick_gelu"
) -> tuple[Architecture, dict[str, Any]]:
    """(architecture, variables of `CLIP`) of the tensors of a CLIP model.

    Args:
      state: name -> tensor, by OpenAI's, open_clip's or Hugging Face's names.
      sizes: read off the shapes by default, with heads of 64 channels, as all of OpenAI's models have.
      activation: "quick_gelu", or "gelu" for models of open_clip whose names do not end in "-quickgelu".
    Raises:
      WeightsError: names the tensors that are missing, not known or of another shape.
    """
    state = openai_names(state)
    sizes = sizes or dataclasses.replace(architecture_of(state), activation=activation)
    side = sizes.image_size
    shapes = jax.eval_shape(
        CLIP(sizes).init, jax.random.key(0), jnp.zeros((1, side, side, 3)), jnp.zeros((1, sizes.context), jnp.int32)
    )
    return sizes, filled(shapes, openai_name, state, sizes)


def filled(shapes: Any, name_of: Callable[[str], str], state: Mapping[str, np.ndarray], sizes: Any) -> dict[str, Any]:
    """Variables of these shapes from tensors of PyTorch, as float32.

    Args:
      name_of: the tensor's name for a variable, "params/image/conv1/kernel"; sizes: what messages say of the model.
    Raises:
      WeightsError: names the tensors that are missing, not known or of another shape.
    """
    expected = flax.traverse_util.flatten_dict(shapes, sep="/")
    names = {path: name_of(path) for path in expected}
    known, given = set(names.values()), set(state)
    if known != given:
        raise WeightsError("; ".join(_difference(known, given)))
    variables = {}
    for path, leaf in expected.items():
        value = _as_flax(path, np.asarray(state[names[path]]))
        if value.shape != leaf.shape:
            raise WeightsError(f"{names[path]} is {state[names[path]].shape}, which does not fit {sizes}")
        variables[path] = jnp.asarray(value, jnp.float32)
    return flax.traverse_util.unflatten_dict(variables, sep="/")


def architecture_of(state: Mapping[str, np.ndarray]) -> Architecture:
    """The sizes that the shapes of a model tell, by OpenAI's rules; heads have 64 channels.

    Raises:
      WeightsError: a tensor that tells them is missing.
    """

    def shape(name):
        if name not in state:
            raise WeightsError(f"no tensor {name}: these are not the weights of a CLIP model")
        return state[name].shape

    def count(pattern):
        return len({found.group(1) for found in map(re.compile(pattern).match, state) if found})

    vocabulary, text_width = shape("token_embedding.weight")
    text = dict(
        features=shape("text_projection")[1], text_width=text_width, vocabulary=vocabulary,
        context=shape("positional_embedding")[0], text_layers=count(r"transformer\.resblocks\.(\d+)\."),
    )  # fmt: skip
    if "visual.proj" in state:
        width, _, patch, _ = shape("visual.conv1.weight")
        side = patch * round((shape("visual.positional_embedding")[0] - 1) ** 0.5)
        blocks = count(r"visual\.transformer\.resblocks\.(\d+)\.")
        return Architecture(image_size=side, image_layers=blocks, image_width=width, patch=patch, **text)
    side = 32 * round((shape("visual.attnpool.positional_embedding")[0] - 1) ** 0.5)
    stages = tuple(count(rf"visual\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4))
    width = shape("visual.layer1.0.conv1.weight")[0]
    return Architecture(image_size=side, image_layers=stages, image_width=width, **text)


def openai_name(path: str) -> str:
    """OpenAI's name of a variable of `CLIP`: "params/text/block0/ln_1/bias" is "transformer.resblocks.0.ln_1.bias"."""
    _, *parts = path.split("/")
    if parts == ["logit_scale"]:
        return "logit_scale"
    tower, *parts = parts
    prefix = "visual." if tower == "image" else ""
    if parts == ["token_embedding"]:
        return "token_embedding.weight"
    if len(parts) == 1 or parts[-1] == "positional_embedding":
        return prefix + ".".join(parts)
    block = re.fullmatch(r"block(\d+)", parts[0])
    if block:
        inner = "/".join(parts[1:])
        return f"{prefix}transformer.resblocks.{block[1]}." + BLOCK.get(inner, f"{parts[1]}.{LEAVES[parts[-1]]}")
    where = ".".join(re.sub(r"^(layer\d+|downsample)_(\d+)$", r"\1.\2", part) for part in parts[:-1])
    return f"{prefix}{where}.{LEAVES[parts[-1]]}"


def openai_names(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of a state dict by OpenAI's names, from these or Hugging Face's; what is not a weight is left out."""
    kept = {name: tensor for name, tensor in state.items() if not IGNORED.search(name)}
    return _from_hugging_face(kept) if any(name.startswith("text_model.") for name in kept) else kept


def _from_hugging_face(state):
    renamed: dict[str, Any] = {}
    for name, tensor in state.items():
        found = re.fullmatch(r"(text|vision)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if name in HF_NAMES:
            renamed[HF_NAMES[name]] = tensor.T if "projection" in name else tensor
        elif found and found[3] in HF_BLOCK:
            renamed[f"{_resblock(found)}{HF_BLOCK[found[3]]}.{found[4]}"] = tensor
        elif found and found[3] == "self_attn.q_proj":
            parts = [state.get(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
            if all(part is not None for part in parts):
                renamed[f"{_resblock(found)}attn.in_proj_{found[4]}"] = np.concatenate(parts)
        elif not (found and found[3] in ("self_attn.k_proj", "self_attn.v_proj")):
            renamed[name] = tensor
    return renamed


def _resblock(found):
    return f"{'visual.' if found[1] == 'vision' else ''}transformer.resblocks.{found[2]}."


def _as_flax(path, tensor):
    """A tensor in flax's order of axes: kernels of PyTorch have their outputs first."""
    if not path.endswith("/kernel"):
        return tensor
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T


def to_openai(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inverse of `convert`: tensors by OpenAI's names, in PyTorch's order of axes, to be saved as safetensors."""
    order: dict[int, Callable[[np.ndarray], np.ndarray]] = {4: lambda x: x.transpose(3, 2, 0, 1), 2: lambda x: x.T}
    state = {}
    for path, leaf in flax.traverse_util.flatten_dict(variables, sep="/").items():
        value = np.asarray(leaf)
        value = order[value.ndim](value) if path.endswith("/kernel") else value
        state[openai_name(path)] = np.array(value, order="C")
    return state


def _difference(known, given):
    """A line about names: missing ones, and unknown ones with the nearest name."""
    for what, names in (("missing", known - given), ("not known", given - known)):
        if names:
            first = sorted(names)[:3]
            more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
            near = difflib.get_close_matches(first[0], known - given, 1) if what == "not known" else []
            yield f"{len(names):,} {what}: {', '.join(first)}{more}" + (f" (did you mean {near[0]}?)" if near else "")
