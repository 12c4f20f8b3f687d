"""Which array is which: the features, labels, head and bias among the arrays of feature files.

An array goes by its name, or by what a flag of `python -m infojax.measure` says: a name of the
same file, FILE, FILE:NAME or none. What cannot be told ends in one line with the flag to pass.
"""

import fnmatch
import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from infojax.features.files import DIGITS, OPENERS, open_arrays, suggest
from infojax.features.sources import FeatureFileError, StoredArray

ROLE_NAMES = {
    "features": ("features", "feats", "embeddings", "z", "x", "h"),
    "labels": ("labels", "y", "targets"),
    "head": ("head", "weight", "w"),
    "bias": ("bias", "b"),
}
LAST_LAYERS = ("fc", "classifier", "head", "lm_head", "linear")
# Names taken where none of these is there and only one array has such a name; a head of these, where it fits.
LIKELY_NAMES = {
    "features": ("feature", "embedding", "representations", "representation"),
    "labels": ("label", "target", "class", "y_true"),
    "head": tuple(f"{name}.weight" for name in LAST_LAYERS),
    "bias": tuple(f"{name}.bias" for name in LAST_LAYERS),
}
STEP_NAME = re.compile(r"step[_-]?(\d+)", re.IGNORECASE)


class Opened(NamedTuple):
    """What is measured in one file: rows (N, D) by layer, labels (N,), head (C, D), bias (C,).

    `used` says which array is which; `unused` names the arrays that nothing asked for, with the flag that would.
    """

    path: str
    layers: dict[str, StoredArray]
    labels: np.ndarray | None
    head: np.ndarray | None
    bias: np.ndarray | None
    used: str
    unused: str


class Argument(NamedTuple):
    """What a name on the command line stands for: one file, or a folder with one file per step.

    Attributes:
      name: as it was given.
      steps: of the files; None for one file.
      files: to measure.
      left_out: feature files of the folder that belong to no step.
    """

    name: str
    steps: list[int] | None
    files: list[str]
    left_out: tuple[str, ...] = ()


def _listed(arrays: dict[str, StoredArray], most: int = 12) -> str:
    shown = [f"{name} {array}" for name, array in list(arrays.items())[:most]]
    more = [f"and {len(arrays) - most} more"] if len(arrays) > most else []
    return ", ".join(shown + more)


def _without_network(name: str) -> str:
    """`fc.weight` for `module.fc.weight`, as wrappers of networks write it; other names as they are."""
    parts = name.split(".")
    return ".".join(parts[-2:]) if parts[-1] in ("weight", "bias") else name


def _recognise(arrays: dict, path: str, role: str, prefix: str = "") -> StoredArray | None:
    """The array whose name says that it plays `role`; None if `role` is optional and none does.

    `prefix` is what a flag's value needs before the name: `FILE:` for an array of another file.
    """
    found = {name: a for name, a in arrays.items() if name.lower() in ROLE_NAMES[role]}
    likely = {name: a for name, a in arrays.items() if _without_network(name.lower()) in LIKELY_NAMES[role]}
    found = found or (likely if len(likely) == 1 else {})
    found = {name: a for name, a in found.items() if not a.refusal} or found
    if len(found) == 1:
        return next(iter(found.values()))
    if not found and role != "features":
        return None
    candidates = found or {name: a for name, a in arrays.items() if len(a.full_shape) > 1} or arrays
    flags = [f"--{role} {shlex.quote(prefix + name)}" for name in list(candidates)[:4]]
    several = ", or --layers 'GLOB' for several" if role == "features" else ""
    raise FeatureFileError(
        f"{path}: which array holds the {role}? {_listed(found or arrays)}; "
        f"pass {' or '.join(flags)}{several if len(candidates) > 1 else ''}"
    )


def _find(arrays: dict, path: str, role: str, key: str | None) -> StoredArray | None:
    """The array for `--role key`, where None is no flag."""
    if key is None:
        return _recognise(arrays, path, role)
    if key in arrays:
        return arrays[key]
    if role == "features":
        raise FeatureFileError(
            f"{path}: --features {key}: no such array{suggest(key, arrays)}; it holds {_listed(arrays)}"
        )
    if key == "none":
        return None
    file, _, name = (key, "", "") if os.path.isfile(key) else key.rpartition(":")
    if os.path.isfile(file):
        return _find_elsewhere(file, name, role)
    if Path(key).suffix.lower() in OPENERS:
        open_arrays(key)  # says that there is no such file, and suggests others
    raise FeatureFileError(
        f"{path}: --{role} {key}: neither an array of this file nor a file{suggest(key, arrays)}; "
        f"it holds {_listed(arrays)}"
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
        f"{file}: {missing}{suggest(name, arrays)}; it holds {_listed(arrays)}; "
        f"pass --{role} {shlex.quote(f'{file}:{next(iter(arrays))}')} or another of these"
    )


def _match_layers(arrays: dict, path: str, pattern: str, taken: list) -> dict[str, StoredArray]:
    free = {k: v for k, v in arrays.items() if not any(v is array for array in taken)}
    layers = {k: v for k, v in free.items() if fnmatch.fnmatchcase(k, pattern)}
    layers = {k: v for k, v in layers.items() if not v.refusal} or layers
    if not layers:
        raise FeatureFileError(
            f"{path}: --layers {shlex.quote(pattern)} matches no array"
            f"{suggest(pattern.replace('*', ''), free)}; it holds {_listed(free)}"
        )
    return layers


def stored_labels(array: StoredArray) -> np.ndarray:
    """Labels (N,) as int64, from integers, whole floats or a column (N, 1); or as strings.

    Raises:
      FeatureFileError: one-hot rows, fractions, or no numbers.
    """
    strings = array.dtype.kind in "US" and not array.refusal
    if not strings:
        array.require_numbers()
    if array.shape[1] > 1:
        raise FeatureFileError(
            f"{array.where} has shape {array.full_shape}, labels must be (N,); "
            "if its rows are one-hot, save labels.argmax(axis=1)"
        )
    labels = array.load().reshape(-1)
    if strings:
        return labels
    if labels.dtype.kind not in "biu":
        labels = labels.astype(np.float64)
        wrong = np.flatnonzero(~((np.abs(labels) < 2**53) & (labels == np.round(labels))))
        if wrong.size:
            raise FeatureFileError(
                f"{array.where}: labels must be whole numbers, row {wrong[0]} is "
                f"{labels[wrong[0]]:g}; pass another array with --labels, or --labels none"
            )
    if labels.dtype == np.uint64 and labels.max() > np.iinfo(np.int64).max:
        return labels  # refused in words by `analyze`; as int64 they would be negative, and left out
    return labels.astype(np.int64)


def _check_shapes(
    layers: Iterable[StoredArray], labels: StoredArray | None, head: StoredArray | None, bias: StoredArray | None
) -> None:
    """Refuses what cannot belong together, before anything but headers is read."""
    if labels is not None and labels.refusal:
        labels.require_numbers()
    for array in layers:
        array.require_numbers()
        if len(array.full_shape) < 2:
            raise FeatureFileError(f"{array.where} has shape {array.full_shape}, features must be (N, D) or (N, ...)")
        if labels is not None and labels.full_shape[:1] != array.full_shape[:1]:
            raise FeatureFileError(
                f"{labels.where} has shape {labels.full_shape}, the labels must be ({array.full_shape[0]},), one per "
                f"row of {array.where} {array}; pass another array with --labels, or --labels none"
            )
    for role, array, axes, expected in (("head", head, 2, "(C, D)"), ("bias", bias, 1, "(C,)")):
        if array is None:
            continue
        array.require_numbers()
        if len(array.full_shape) != axes:
            raise FeatureFileError(
                f"{array.where} has shape {array.full_shape}, the {role} must be {expected}; "
                f"pass another array with --{role}, or --{role} none"
            )


def _named(array: StoredArray | None, arrays: dict[str, StoredArray]) -> str:
    return next((name.lower() for name, other in arrays.items() if other is array), "")


def _fits(
    head: StoredArray | None,
    arrays: dict[str, StoredArray],
    layers: Iterable[StoredArray],
    labels: StoredArray | None,
) -> bool:
    """Whether a head can be that of the features; one whose name says no more than that it is one of a network's."""
    if head is None or _named(head, arrays) in ROLE_NAMES["head"]:
        return True
    return labels is not None and len(head.full_shape) == 2 and any(head.shape[1] == rows.shape[1] for rows in layers)


def _used(path: str, layers: dict, roles: dict) -> str:
    """`z (60, 6) float64 as features, y (60,) int64 as labels`: which array was read as what."""

    def named(array: StoredArray, role: str) -> str:
        return f"{array.where.removeprefix(path).removeprefix(': ')} {array} as {role}".strip()

    several = list(layers) != ["features"]
    first = f"{_listed(layers)} as layers" if several else named(layers["features"], "features")
    return ", ".join([first, *(named(array, role) for role, array in roles.items() if array is not None)])


def _unused(arrays: dict, layers: dict, roles: dict, declined: Iterable[str]) -> str:
    """The arrays that are neither measured nor play a role, nor were declined by `none`, each with a flag for it."""
    taken = [*layers.values(), *(array for array in roles.values() if array is not None)]
    n, dim = next(iter(layers.values())).shape
    left = []
    for name, array in arrays.items():
        if any(name.lower() in ROLE_NAMES[role] for role in declined) or any(array is other for other in taken):
            continue
        shape = array.full_shape
        if array.refusal:
            left.append(f"{name} {array}")
            continue
        if shape in ((n,), (n, 1)):
            flag = "labels"
        elif len(shape) == 2 and shape[1] == dim and shape[0] != n:
            flag = "head"
        elif len(shape) == 1:
            flag = "bias"
        else:
            flag = "features"
        left.append(f"{name} {array} (--{flag} {shlex.quote(name)})")
    more = [f"and {len(left) - 12} more"] if len(left) > 12 else []
    return ", ".join(left[:12] + more)


def open_features(
    path: str,
    features: str | None = None,
    layers: str | None = None,
    labels: str | None = None,
    head: str | None = None,
    bias: str | None = None,
) -> Opened:
    """Finds what to measure in one file.

    Args:
      path: the file.
      features, labels, head, bias: values of these flags; None takes the array with a usual name.
      layers: a pattern of names, all of which are measured in place of the one `features`.

    Raises:
      FeatureFileError: one line; an array that is missing, ambiguous or of another shape.
    """
    arrays = open_arrays(path)
    keys = {"labels": labels, "head": head, "bias": bias}
    roles = {role: _find(arrays, path, role, key) for role, key in keys.items()}
    y, w, b = roles.values()
    if layers is not None:
        found = _match_layers(arrays, path, layers, taken=[y, w, b])
    else:
        only = _find(arrays, path, "features", features)
        assert only is not None  # they are not optional
        found = {"features": only}
    if head is None and not _fits(w, arrays, found.values(), y):
        roles["head"] = w = None
    if bias is None and w is None and _named(b, arrays) not in ROLE_NAMES["bias"]:
        roles["bias"] = b = None
    _check_shapes(found.values(), y, w, b)
    if w is not None and y is None:
        fix = "pass --labels KEY or FILE, or --head none"
        raise FeatureFileError(f"{w.where}: a head needs the labels of the rows; {fix}")
    if b is not None and w is None:
        fix = "pass --head KEY or FILE, or --bias none"
        raise FeatureFileError(f"{b.where}: a bias needs a head; {fix}")
    return Opened(
        path,
        found,
        None if y is None else stored_labels(y),
        None if w is None else w.load(),
        None if b is None else b.load(),
        _used(path, found, roles),
        _unused(arrays, found, roles, [role for role in roles if keys[role] == "none" and roles[role] is None]),
    )


def expand(name: str) -> Argument:
    """A file as it is; a folder as its `step_NUMBER` files, by number.

    Raises:
      FeatureFileError: a folder without such files, with one without a usable number, or two of one step.
    """
    folder = Path(name)
    if name == DIGITS or not folder.is_dir():
        return Argument(name, None, [name])
    by_step: dict[int, Path] = {}
    left_out = []
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() not in OPENERS:
            continue
        if not file.name.lower().startswith("step"):  # labels.npy and the like may lie beside the steps
            left_out.append(file.name)
            continue
        match = STEP_NAME.fullmatch(file.stem)
        if match is None:
            raise FeatureFileError(f"{file}: no step number in the name; expected step_NUMBER")
        if int(match[1]) > 2**53:
            raise FeatureFileError(f"{file}: the step number has {len(match[1])} digits; expected at most 2^53")
        other = by_step.setdefault(int(match[1]), file)
        if other != file:
            raise FeatureFileError(f"{folder}: {other.name} and {file.name} are the same step")
    if not by_step:
        raise FeatureFileError(f"{folder}: a folder without step files; expected step_NUMBER with {', '.join(OPENERS)}")
    steps = sorted(by_step)
    return Argument(name, steps, [str(by_step[step]) for step in steps], tuple(left_out))


def check_inputs(arguments: Iterable[Argument], **flags: str | None) -> None:
    """Opens every file once with the `flags` of `open_features`, before the long work.

    Raises:
      FeatureFileError: a file that cannot be used, or steps of one folder with other layers.
    """
    for argument in arguments:
        first = None
        for file in argument.files:
            layers = list(open_features(file, **flags).layers)
            first = first or layers
            if layers != first:
                raise FeatureFileError(
                    f"{file}: holds the layers {', '.join(layers)}, but {argument.files[0]} holds "
                    f"{', '.join(first)}; the steps of one folder need the same"
                )
