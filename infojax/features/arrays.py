"""What to measure in a file: its layers as rows, the labels, the head and the bias, with their shapes checked."""

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from infojax.features.axes import HIDDEN, axes_of, spaced
from infojax.features.folders import Argument, Together, open_together
from infojax.features.roles import ROLE_NAMES, find, listed, match_layers
from infojax.features.sources import FeatureFileError, StoredArray
from infojax.features.tokens import kept_rows, labels_of_rows, prompts_of

HIDDEN_TUPLE = re.compile(rf"(?:.*\.)?(?:{'|'.join(HIDDEN)})\.\d+")  # a tuple with one array per layer


class Opened(NamedTuple):
    """What to measure in one file, or in files that belong together.

    Attributes:
      path: as given.
      layers: rows (N, D) by layer; a single array is the layer `features`.
      labels: one per measured row.
      head, bias: (C, D) and (C,).
      kept: indices of the measured rows; None for all.
      prompts: the prompt number of each measured row; None unless rows are tokens of prompts.
      used: a description of which array was read as what.
      unused: the arrays without a role, each with the flag that would give it one.
    """

    path: str
    layers: dict[str, StoredArray]
    labels: np.ndarray | None
    head: np.ndarray | None
    bias: np.ndarray | None
    kept: np.ndarray | None
    prompts: np.ndarray | None
    used: str
    unused: str


class Roles(NamedTuple):
    """The arrays with a role other than features."""

    labels: StoredArray | None = None
    head: StoredArray | None = None
    bias: StoredArray | None = None
    mask: StoredArray | None = None


def open_features(
    path: str,
    features: str | None = None,
    layers: str | None = None,
    axes: str | None = None,
    parts: bool = False,
    **keys: str | None,
) -> Opened:
    """Finds what to measure in one file, or in the files of a folder or glob that belong together.

    Args:
      path: the file, folder or glob.
      features: name of the array; None takes the one with a usual name.
      layers: a pattern of array names, all of which are measured instead.
      axes: the axes of the features, such as "lbtd"; None guesses.
      parts: whether to join the files.
      keys: values of the flags labels, head, bias and mask; None takes the array with a usual name.
    Raises:
      FeatureFileError: an array is missing, ambiguous or of the wrong shape; one line.
    """
    together = open_together(path, parts)
    arrays = together.arrays
    roles = Roles(**{role: find(arrays, path, role, keys.get(role)) for role in Roles._fields})
    chosen = _chosen(arrays, path, features, layers, roles)
    found = _layers(chosen, arrays, axes, together, roles.labels)
    roles = _fitting(roles, arrays, found, keys)
    _check_shapes(found, roles)
    first = next(iter(found.values()))
    kept, masked = kept_rows(first, roles.mask, keys.get("mask") is not None)
    labels, repeated = None, ""
    if roles.labels is not None:
        per_file = together.rows if "t" in first.axes else ()
        labels, repeated = labels_of_rows(roles.labels, first, per_file)
    prompts = prompts_of(first, together.rows)
    declined = [role for role in Roles._fields if keys.get(role) == "none" and getattr(roles, role) is None]
    notes = [together.notes, _used(path, chosen, found, roles), repeated, masked]
    notes += [] if prompts is None else [f"{prompts[-1] + 1} prompts"]
    return Opened(
        path,
        found,
        labels if labels is None or kept is None else labels[kept],
        None if roles.head is None else roles.head.load(),
        None if roles.bias is None else roles.bias.load(),
        kept,
        prompts if prompts is None or kept is None else prompts[kept],
        ", ".join(filter(None, notes)),
        _unused(arrays, chosen, found, roles, declined),
    )


def _chosen(
    arrays: dict[str, StoredArray], path: str, features: str | None, layers: str | None, roles: Roles
) -> dict[str, StoredArray]:
    """The arrays to measure, by layer."""
    if layers is not None:
        return match_layers(arrays, path, layers, taken=roles)
    if features is None:
        of_tuple = {name: array for name, array in arrays.items() if HIDDEN_TUPLE.fullmatch(name.lower())}
        if len(of_tuple) > 1:
            return of_tuple
    only = find(arrays, path, "features", features)
    assert only is not None  # features are not optional
    return {"features": only}


def _layers(
    chosen: Mapping[str, StoredArray],
    arrays: Mapping[str, StoredArray],
    axes: str | None,
    together: Together,
    labels: StoredArray | None,
) -> dict[str, StoredArray]:
    """The chosen arrays along their axes; with an axis of layers, each of its indices is a layer."""
    found = {}
    for layer, array in chosen.items():
        array.require_numbers()
        if len(array.full_shape) < 2:
            raise FeatureFileError(f"{array.where} has shape {array.full_shape}, features must be (N, D) or (N, ...)")
        name = next(name for name, other in arrays.items() if other is array)
        name = name.rpartition(".")[0] if HIDDEN_TUPLE.fullmatch(name.lower()) else name
        letters = axes_of(name, array, axes, arrays, labels)
        if together.rows and letters[0] not in "nbt":
            raise FeatureFileError(
                f"{array.where}: files are joined along their first axis, which with --axes {spaced(letters)} is not "
                "an axis of rows; save the rows first, or measure the files one by one"
            )
        if "l" not in letters:
            found[layer] = array.along(letters)
            continue
        depth = array.full_shape[letters.index("l")]
        digits = len(str(depth - 1))
        for k in range(depth):
            label = f"layer {k:0{digits}}"
            found[label if layer == "features" else f"{layer} {label}"] = array.along(letters, k)
    return found


def _named(array: StoredArray | None, arrays: Mapping[str, StoredArray]) -> str:
    return next((name.lower() for name, other in arrays.items() if other is array), "")


def _fitting(
    roles: Roles, arrays: Mapping[str, StoredArray], layers: Mapping[str, StoredArray], keys: Mapping[str, str | None]
) -> Roles:
    """The roles without a head or bias that has only a network's generic name and does not fit."""
    head, bias = roles.head, roles.bias
    if head is not None and keys.get("head") is None and _named(head, arrays) not in ROLE_NAMES["head"]:
        widths = {rows.shape[1] for rows in layers.values()}
        if roles.labels is None or len(head.full_shape) != 2 or not widths & set(head.full_shape[1:]):
            head = None
    if bias is not None and keys.get("bias") is None and head is None:
        bias = bias if _named(bias, arrays) in ROLE_NAMES["bias"] else None
    return roles._replace(head=head, bias=bias)


def _check_shapes(layers: Mapping[str, StoredArray], roles: Roles) -> None:
    """Rejects arrays that cannot belong together, having read only their headers."""
    if roles.labels is not None and roles.labels.refusal:
        roles.labels.require_numbers()
    sizes = {rows.shape[0]: rows for rows in layers.values()}
    if len(sizes) > 1 and (roles.labels or roles.mask):
        one, other = list(sizes.values())[:2]
        raise FeatureFileError(
            f"{one.where} has {one.shape[0]} rows, {other.where} has {other.shape[0]}, and labels or a "
            "mask are one per row; choose layers of one length with --layers"
        )
    for role, array, count, expected in (("head", roles.head, 2, "(C, D)"), ("bias", roles.bias, 1, "(C,)")):
        if array is None:
            continue
        array.require_numbers()
        if len(array.full_shape) != count:
            raise FeatureFileError(
                f"{array.where} has shape {array.full_shape}, the {role} must be {expected}; "
                f"pass another array with --{role}, or --{role} none"
            )
    if roles.head is not None:
        _check_head(roles.head, layers, roles.labels)
    if roles.bias is not None and roles.head is None:
        fix = "pass --head KEY or FILE, or --bias none"
        raise FeatureFileError(f"{roles.bias.where}: a bias needs a head; {fix}")


def _check_head(head: StoredArray, layers: Mapping[str, StoredArray], labels: StoredArray | None) -> None:
    if labels is None:
        fix = "pass --labels KEY or FILE, or --head none"
        raise FeatureFileError(f"{head.where}: a head needs the labels of the rows; {fix}")
    widths = {rows.shape[1] for rows in layers.values()}
    if head.full_shape[1] not in widths and head.full_shape[0] in widths:
        raise FeatureFileError(
            f"{head.where} has shape {head.full_shape}, the head must be (C, D) with D = {head.full_shape[0]}, the "
            "columns of the features: it is stored transposed; save its transpose, or pass --head none"
        )


def _used(path: str, chosen: dict[str, StoredArray], layers: dict[str, StoredArray], roles: Roles) -> str:
    """`z (60, 6) float64 as features, y (60,) int64 as labels`: which array was read as what."""

    def named(array: StoredArray, role: str) -> str:
        return f"{array.where.removeprefix(path).removeprefix(': ')} {array} as {role}".strip()

    first = next(iter(layers.values()))
    axes = f" (axes {spaced(first.axes)})" if len(first.axes) > 2 or first.axes == "dn" else ""
    if list(chosen) != ["features"]:
        start = f"{listed(chosen)} as layers{axes}"
    else:
        start = named(chosen["features"], "features" if len(layers) == 1 else f"{len(layers)} layers") + axes
    return ", ".join([start, *(named(a, role) for role, a in roles._asdict().items() if a is not None)])


def _unused(
    arrays: Mapping[str, StoredArray],
    chosen: Mapping[str, StoredArray],
    layers: Mapping[str, StoredArray],
    roles: Roles,
    declined: Iterable[str],
) -> str:
    """The arrays that are neither measured, have a role, nor were declined by `none`, each with a flag for it."""
    taken = [*chosen.values(), *(array for array in roles if array is not None)]
    n, dim = next(iter(layers.values())).shape
    left = []
    for name, array in arrays.items():
        if any(name.lower() in ROLE_NAMES[role] for role in declined) or any(array is other for other in taken):
            continue
        shape = array.full_shape
        if array.refusal:
            left.append(f"{name} {array}")
            continue
        if "mask" in name.lower() or array.dtype == bool:
            flag = "mask"
        elif shape in ((n,), (n, 1)):
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


def check_inputs(arguments: Iterable[Argument], **flags: str | bool | None) -> None:
    """Opens every file once with the `flags` of `open_features`, before the long work.

    Raises:
      FeatureFileError: a file cannot be used, or steps of one folder have different layers.
    """
    for argument in arguments:
        first = None
        for file in argument.files:
            layers = list(open_features(file, **flags).layers)  # type: ignore[arg-type]
            first = first or layers
            if layers != first:
                raise FeatureFileError(
                    f"{file}: holds the layers {', '.join(layers)}, but {argument.files[0]} holds "
                    f"{', '.join(first)}; the steps of one folder need the same layers"
                )
