"""Roles: finds the features, labels, head, bias and mask among the arrays of a file, by name or by a flag.

A flag of `python -m infojax.measure` names an array of the same file, FILE, FILE:NAME or none. An ambiguous role gives
a one-line error with the flag to pass.
"""

import fnmatch
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from infojax.features.axes import HIDDEN
from infojax.features.files import OPENERS, open_arrays
from infojax.features.sources import FeatureFileError, StoredArray
from infojax.suggestions import suggest

ROLE_NAMES = {
    "features": ("features", "feats", "embeddings", "z", "x", "h", *HIDDEN),
    "labels": ("labels", "y", "targets"),
    "head": ("head", "weight", "w"),
    "bias": ("bias", "b"),
    "mask": ("attention_mask", "lengths", "seq_lens", "sequence_lengths"),
}
LAST_LAYERS = ("fc", "classifier", "head", "lm_head", "linear")
# Names used if none of the above occurs and only one array has such a name; a head among them must also fit.
LIKELY_NAMES = {
    "features": ("feature", "embedding", "representations", "representation"),
    "labels": ("label", "target", "class", "y_true"),
    "head": tuple(f"{name}.weight" for name in LAST_LAYERS),
    "bias": tuple(f"{name}.bias" for name in LAST_LAYERS),
    "mask": (),
}


def listed(arrays: dict[str, StoredArray], most: int = 12) -> str:
    """`z (60, 6) float64, y (60,) int64`, for messages."""
    shown = [f"{name} {array}" for name, array in list(arrays.items())[:most]]
    more = [f"and {len(arrays) - most} more"] if len(arrays) > most else []
    return ", ".join(shown + more)


def _without_network(name: str) -> str:
    """`fc.weight` for `module.fc.weight`, as network wrappers write it; other names unchanged."""
    parts = name.split(".")
    return ".".join(parts[-2:]) if parts[-1] in ("weight", "bias") else name


def _recognise(arrays: dict, path: str, role: str, prefix: str = "") -> StoredArray | None:
    """The array whose name indicates `role`; None if `role` is optional and there is none.

    `prefix` goes before the name in a flag's value: `FILE:` for an array of another file.
    """
    found = {name: a for name, a in arrays.items() if name.lower() in ROLE_NAMES[role]}
    likely = {name: a for name, a in arrays.items() if _without_network(name.lower()) in LIKELY_NAMES[role]}
    found = found or (likely if len(likely) == 1 else {})
    found = {name: a for name, a in found.items() if not a.refusal} or found
    if len(found) == 1:
        return next(iter(found.values()))
    if not found and role != "features":
        return None
    candidates = found or {name: a for name, a in arrays.items() if len(a.full_shape) > 1}
    if not candidates:
        raise FeatureFileError(
            f"{path}: no array has rows and columns, (N, D), for the {role}; it holds {listed(arrays)}; save the "
            "columns as one array"
        )
    flags = [f"--{role} {shlex.quote(prefix + name)}" for name in list(candidates)[:4]]
    several = ", or --layers 'GLOB' for several" if role == "features" else ""
    weights = role == "features" and any("weight" in name for name in candidates)
    network = "; if these are the weights of a network, pass --weights" if weights else ""
    raise FeatureFileError(
        f"{path}: which array holds the {role}? {listed(found or arrays)}; "
        f"pass {' or '.join(flags)}{several if len(candidates) > 1 else ''}{network}"
    )


def find(arrays: dict, path: str, role: str, key: str | None) -> StoredArray | None:
    """The array for `--role key`, where None means no flag."""
    if key is None:
        return _recognise(arrays, path, role)
    if key in arrays:
        return arrays[key]
    if role == "features":
        raise FeatureFileError(
            f"{path}: --features {key}: no such array{suggest(key, arrays, listed=False)}; it holds {listed(arrays)}"
        )
    if key == "none":
        return None
    file, _, name = (key, "", "") if os.path.isfile(key) else key.rpartition(":")
    if os.path.isfile(file):
        return _find_elsewhere(file, name, role)
    if Path(key).suffix.lower() in OPENERS:
        open_arrays(key)  # raises that there is no such file, with suggestions
    raise FeatureFileError(
        f"{path}: --{role} {key}: neither an array of this file nor a file{suggest(key, arrays, listed=False)}; "
        f"it holds {listed(arrays)}"
    )


def _find_elsewhere(file: str, name: str, role: str) -> StoredArray:
    arrays = open_arrays(file)
    if not name and len(arrays) == 1:
        return next(iter(arrays.values()))
    found = arrays.get(name) if name else _recognise(arrays, file, role, prefix=f"{file}:")
    if found is not None:
        return found
    missing = f"no array {name!r}" if name else f"no array named {' or '.join(ROLE_NAMES[role])}"
    raise FeatureFileError(
        f"{file}: {missing}{suggest(name, arrays, listed=False)}; it holds {listed(arrays)}; "
        f"pass --{role} {shlex.quote(f'{file}:{next(iter(arrays))}')} or another of these"
    )


def match_layers(arrays: dict, path: str, pattern: str, taken: Sequence[StoredArray | None]) -> dict[str, StoredArray]:
    """The arrays whose names match a shell pattern, by name, without those taken as features, labels or head.

    Arrays that cannot be read are left out unless there are no others.

    Raises:
      FeatureFileError: none matches.
    """
    free = {k: v for k, v in arrays.items() if not any(v is array for array in taken)}
    layers = {k: v for k, v in free.items() if fnmatch.fnmatchcase(k, pattern)}
    layers = {k: v for k, v in layers.items() if not v.refusal} or layers
    if not layers:
        raise FeatureFileError(
            f"{path}: --layers {shlex.quote(pattern)} matches no array"
            f"{suggest(pattern.replace('*', ''), free, listed=False)}; it holds {listed(free)}"
        )
    return layers
