"""Parameters under the names of published PyTorch checkpoints, and back: ViT, MAE and ResNet.

  timm: `facebookresearch/mae` and timm, blocks.0.attn.qkv.weight
  huggingface: `ViTMAEForPreTraining`, `ViTForImageClassification` and their encoders alone, with or without "vit."
  torchvision: ResNet, layer1.0.conv1.weight
  infojax: the names used here, block1/qkv/kernel, of another network's parameters

Linear kernels are transposed, convolutions go from (out, in, H, W) to (H, W, in, out), query, key and value become one
matrix, in this order. Arrays are read elsewhere, for instance by `safetensors.numpy.load_file`.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from infojax.models.mae import MAE
from infojax.models.vit import ViT, resized_positions, sincos_positions

Arrays = Mapping[str, Any]
# Our names -> published names, for whole parts of a path; \1 is the number of a block, from 0 there and from 1 here.
_BLOCK = {
    "timm": {"out": "attn.proj", "qkv": "attn.qkv", "mlp1": "mlp.fc1", "mlp2": "mlp.fc2"},
    "huggingface": {
        "norm1": "layernorm_before", "norm2": "layernorm_after", "out": "attention.output.dense",
        "qkv": "attention.attention", "mlp1": "intermediate.dense", "mlp2": "output.dense",
    },
    "torchvision": {"shortcut": "downsample.0", "shortcut_bn": "downsample.1"},
}  # fmt: skip
_TOP = {
    "timm": {
        "token": "cls_token", "position": "pos_embed", "patches": "patch_embed.proj", "prediction": "decoder_pred",
        "block": "blocks", "decoder_block": "decoder_blocks", "decoder_position": "decoder_pos_embed",
    },
    "huggingface": {
        "token": "vit.embeddings.cls_token", "position": "vit.embeddings.position_embeddings",
        "patches": "vit.embeddings.patch_embeddings.projection", "norm": "vit.layernorm", "head": "classifier",
        "mask_token": "decoder.mask_token", "decoder_embed": "decoder.decoder_embed",
        "decoder_norm": "decoder.decoder_norm", "prediction": "decoder.decoder_pred", "block": "vit.encoder.layer",
        "decoder_block": "decoder.decoder_layers", "decoder_position": "decoder.decoder_pos_embed",
    },
    "torchvision": {"head": "fc"},
}  # fmt: skip
STYLES = (*_TOP, "infojax")
_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_LEFT_OUT = re.compile(r"(decoder|prediction|mask_token|head|classifier|fc\.|vit\.pooler|.*num_batches_tracked)")


def from_published(arrays: Arrays, module: Any, variables: Any) -> tuple[Any, list[str]]:
    """(variables with the values of a published checkpoint, notes on what either has that the other lacks).

    If the checkpoint has no classifier, or one for another number of classes, the head stays as it is; so does the norm
    of a ViT with pool="mean" if the checkpoint has none for the mean, as in MAE's fine-tuning.

    Args:
      arrays: name -> array, of one of STYLES.
      module: `ViT`, `MAE` or a ResNet.
      variables: from `module.init`, whose head may stay.
    Raises:
      ValueError: missing or unknown names, a different shape, or positions that differ from the module's.
    """
    style = style_of(arrays)
    arrays = {_prefixed(re.sub(r"^(module|model)\.", "", name), style): value for name, value in arrays.items()}
    if isinstance(module, ViT) and module.pool == "mean" and not isinstance(module, MAE):  # its norm is after the mean
        arrays = {name: value for name, value in arrays.items() if not re.match(r"(norm|vit\.layernorm)[./]", name)}
        arrays = {name.replace("fc_norm.", "norm."): value for name, value in arrays.items()}
    flat, used = flatten_dict(variables), set()
    found: dict[tuple[str, ...], np.ndarray] = {}
    missing: list[str] = []
    fresh: list[tuple[str, ...]] = []
    told: list[str] = []
    for path, leaf in flat.items():
        names = published_names(path[1:], style)
        may_stay = path[1] == "head" or (path[1] == "norm" and getattr(module, "pool", "") == "mean")
        if path[1:] == ("position",):
            table, note = _positions(names[0], arrays, leaf.shape, style)
            found |= {} if table is None else {path: table}
            missing += names * (table is None)
            told += [note] if note else []
            used.update(names)
            continue
        if not all(name in arrays for name in names):
            fresh += [path] * may_stay
            missing += names[:1] * (not may_stay)
            continue
        used.update(names)
        value = _here(path, [np.asarray(arrays[name]) for name in names], style)
        if value.shape != leaf.shape and path[1] == "head":
            fresh.append(path)
            used.difference_update(names)
            continue
        _check_shape(names[0], np.shape(arrays[names[0]]), value.shape, leaf.shape)
        found[path] = value.astype(leaf.dtype)
    unused = [name for name in arrays if name not in used]
    if isinstance(module, ViT):
        unused = [name for name in unused if not _fixed_positions(name, arrays, module, style)]
    unknown = [name for name in unused if not _LEFT_OUT.match(name)]
    if missing or unknown:
        lists = (("lacks", missing), ("has unknown", unknown))
        raise ValueError(f"the checkpoint {'; it '.join(f'{what} {_some(names)}' for what, names in lists if names)}")
    notes = [f"initial values stay in: {_some(sorted({'.'.join(path[1:-1]) for path in fresh}))}"] if fresh else []
    notes += told
    notes += [f"left out of the checkpoint: {_some(unused)}"] if unused else []
    return unflatten_dict(flat | found), notes


def to_published(module: Any, variables: Any, style: str, grid: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
    """name -> array as in published checkpoints of a style, including the fixed positions of an MAE.

    Args:
      module: `ViT`, `MAE` or a ResNet; variables: its own, "params" and perhaps "batch_stats".
      style: one of STYLES.
      grid: rows and columns of patches, for modules with fixed positions.
    Raises:
      ValueError: an unknown style, or no grid where one is needed.
    """
    if style not in STYLES:
        raise ValueError(f"style must be one of {', '.join(STYLES)}; got {style!r}")
    found: dict[str, np.ndarray] = {}
    for path, leaf in flatten_dict(jax.tree.map(np.asarray, variables)).items():
        names, value = published_names(path[1:], style), leaf
        if path[-1] == "kernel" and style != "infojax":
            value = leaf.T if leaf.ndim == 2 else leaf.transpose(3, 2, 0, 1)
        parts = np.split(value, len(names))
        found |= {name: np.ascontiguousarray(part) for name, part in zip(names, parts, strict=True)}
    if getattr(module, "position", "") == "sincos":
        if grid is None:
            raise ValueError("grid is None; give the rows and columns of patches, of which there are fixed positions")
        widths = {"position": module.dimensions[0]}
        widths |= {"decoder_position": module.decoder[0]} if "mask_token" in variables["params"] else {}
        for name, width in widths.items():
            found[published_names((name,), style)[0]] = np.pad(sincos_positions(*grid, width), ((1, 0), (0, 0)))[None]
    return found


def style_of(names: Iterable[str]) -> str:
    """Which of STYLES a checkpoint's names follow.

    Raises:
      ValueError: none.
    """
    names = list(names)
    for style, mark in (
        ("infojax", "/"),
        ("huggingface", "encoder.layer."),
        ("timm", "blocks."),
        ("torchvision", "layer1.0."),
    ):
        if any(mark in name for name in names):
            return style
    raise ValueError(f"the names {_some(names)} are not those of a ViT, a MAE or a ResNet that is known here")


def published_names(path: tuple[str, ...], style: str) -> list[str]:
    """The published names of a parameter or statistic: one, or three for query, key and value."""
    if style == "infojax":
        return ["/".join(path)]
    top, *rest = path
    name = _TOP[style].get(top, top)
    if found := re.fullmatch(r"group(\d+)_block(\d+)", top):
        name = f"layer{found[1]}.{int(found[2]) - 1}"
    elif found := re.fullmatch(r"(block|decoder_block)(\d+)", top):
        name = f"{_TOP[style].get(found[1], found[1])}.{int(found[2]) - 1}"
    inner = [_LEAVES.get(part, part) if part == path[-1] else _BLOCK[style].get(part, part) for part in rest]
    names = [".".join([name, *inner])]
    if style == "huggingface" and "qkv" in path:
        head, leaf = names[0].rsplit(".", 1)
        names = [f"{head}.{part}.{leaf}" for part in ("query", "key", "value")]
    return names


def _prefixed(name, style):
    """Hugging Face's encoders alone lack the prefix."""
    plain = style == "huggingface" and not re.match(r"(vit|decoder|classifier)\.", name)
    return f"vit.{name}" if plain else name


def _here(path, values, style):
    value = np.concatenate(values)
    if path[-1] == "kernel" and style != "infojax":
        return value.T if value.ndim == 2 else value.transpose(2, 3, 1, 0)
    return value


def _positions(name, arrays, shape, style):
    """(learned positions of a shape, a note): resized for another square grid; those of an MAE of infojax begin fixed.

    Raises:
      ValueError: they do not fit.
    """
    new = math.isqrt(shape[1] - 1)
    square = new * new == shape[1] - 1
    if name not in arrays and style == "infojax" and square:
        sines = np.pad(sincos_positions(new, new, shape[2]), ((1, 0), (0, 0)))[None]
        return sines, "positions begin as fixed sines and cosines"
    if name not in arrays:
        return None, ""
    value = np.asarray(arrays[name])
    old = math.isqrt(max(value.shape[1] - 1, 0)) if value.ndim == 3 else 0
    if value.shape != shape and square and value.shape == (1, 1 + old * old, shape[2]):
        return resized_positions(value, new), f"positions of {old} x {old} patches are resized to {new} x {new}"
    _check_shape(name, value.shape, value.shape, shape)
    return value.astype(np.float32), ""


def _check_shape(name, there, here, needed):
    if here != needed:
        raise ValueError(f"{name} has the shape {there}, here {here}, but this model needs {needed}")


def _fixed_positions(name, arrays, module, style):
    """Whether a name is that of fixed positions, which are then computed here.

    Raises:
      ValueError: they are not sines and cosines of a square grid.
    """
    decoder = name == published_names(("decoder_position",), style)[0]
    if module.position == "learned" or not (decoder or name == published_names(("position",), style)[0]):
        return False
    table = np.asarray(arrays[name], np.float32)[0, 1:]
    side = round(len(table) ** 0.5)
    fits = side * side == len(table) and table.shape[1] % 4 == 0
    if fits and np.allclose(table, sincos_positions(side, side, table.shape[1]), atol=1e-4):
        return True
    raise ValueError(
        f"{name} is not the fixed sines and cosines of a square grid"
        + ("" if decoder else f"; take position='learned' instead of {module.position!r}")
    )


def _some(names):
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
