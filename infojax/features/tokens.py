"""Rows of prompts: which are real tokens, the label of each, and the prompt to which each belongs."""

import math

import numpy as np

from infojax.features.axes import spaced
from infojax.features.sources import FeatureFileError, StoredArray


def kept_rows(rows: StoredArray, mask: StoredArray | None, chosen: bool) -> tuple[np.ndarray | None, str]:
    """Indices of the rows that a mask keeps, and a note on what was left out; (None, "") if it keeps all.

    Args:
      rows: the features.
      mask: 1 for real tokens and 0 for padding, one entry per row; or the length of each prompt.
      chosen: whether a flag chose it. One found by name is ignored if the rows are not tokens.
    Raises:
      FeatureFileError: its shape or entries are wrong, or it leaves out all rows.
    """
    sizes, axes = rows.row_sizes, "".join(a for a in rows.axes if a in "nbt")
    if mask is None:
        return None, ""
    lengths = axes == "bt" and mask.full_shape == sizes[:1] and not _by_token(mask)
    if not lengths and mask.full_shape not in (sizes, (math.prod(sizes),)):
        if not chosen and "t" not in axes:
            return None, ""
        raise FeatureFileError(
            f"{mask.where} has shape {mask.full_shape}, the rows of {rows.where} have {sizes} (axes "
            f"{spaced(rows.axes)}): expected one entry per row, or the length of each prompt; pass another array with "
            "--mask, or --mask none"
        )
    mask.require_numbers()
    values = mask.load()
    most = sizes[-1] if lengths else 1
    if not ((values >= 0) & (values <= most) & (values == np.round(values))).all():
        what = f"a length is not from 0 to {most}" if lengths else "there are entries other than 0 and 1"
        raise FeatureFileError(f"{mask.where}: {what}; pass another array with --mask, or --mask none")
    real = (np.arange(most) < values[:, None]) if lengths else values.astype(bool)
    found = np.flatnonzero(real)
    if not len(found):
        raise FeatureFileError(f"{mask.where} leaves out all {real.size} rows")
    if len(found) == real.size:
        return None, ""
    return found, f"{mask.where.rpartition(': ')[2]} leaves out {real.size - len(found)} of {real.size} rows"


def _by_token(mask: StoredArray) -> bool:
    return mask.where.lower().endswith("mask")


def labels_of_rows(array: StoredArray, rows: StoredArray, per_file: tuple[int, ...] = ()) -> tuple[np.ndarray, str]:
    """Labels (N,), one per row, and a note if those of prompts were repeated for their tokens.

    Args:
      array: the labels: one per row, in the shape of the rows' axes or flat; or one per prompt.
      rows: the features.
      per_file: number of rows from each file, if several were joined.
    Raises:
      FeatureFileError: the shape is wrong, which is found before reading, or they are not labels.
    """
    sizes, total, shape = rows.row_sizes, rows.shape[0], array.full_shape
    if shape in (sizes, (total,), (total, 1)):
        return stored_labels(array).reshape(-1), ""
    repeats: tuple[int, ...] = per_file if len(sizes) == 1 else (math.prod(sizes[1:]),) * sizes[0]
    if repeats and shape == (len(repeats),):
        return np.repeat(stored_labels(array), repeats), "each label for all tokens of its prompt"
    axes = "" if rows.axes == "nd" else f" (axes {spaced(rows.axes)})"
    if not axes and shape[:1] == rows.full_shape[1:]:
        fix = f"the features are stored transposed, (D, N): pass --axes {spaced('dn')}"
    elif len(shape) == 2 and shape[0] == total:
        fix = "if its rows are one-hot, save labels.argmax(axis=1)"
    else:
        fix = "pass another array with --labels, or --labels none"
    raise FeatureFileError(
        f"{array.where} has shape {shape}, the labels must be ({total},), one per row of {rows.where} {rows}{axes}; "
        f"{fix}"
    )


def prompts_of(rows: StoredArray, per_file: tuple[int, ...] = ()) -> np.ndarray | None:
    """The prompt number of each row, (N,); None unless rows are tokens of prompts."""
    if "b" in rows.axes and "t" in rows.axes:
        order = [a for a in rows.axes if a in "nbt"]
        return np.indices(rows.row_sizes)[order.index("b")].reshape(-1)
    return np.repeat(np.arange(len(per_file)), per_file) if per_file and "t" in rows.axes else None


def stored_labels(array: StoredArray) -> np.ndarray:
    """Labels as int64, from integers or integral floats; or as strings.

    Raises:
      FeatureFileError: they are fractions, or not numbers.
    """
    strings = array.dtype.kind in "US" and not array.refusal
    if not strings:
        array.require_numbers()
    labels = array.load()
    if strings:
        return labels
    if labels.dtype.kind not in "biu":
        labels = labels.astype(np.float64)
        wrong = np.flatnonzero(~((np.abs(labels) < 2**53) & (labels == np.round(labels))))
        if wrong.size:
            raise FeatureFileError(
                f"{array.where}: labels must be whole numbers, row {wrong[0]} has {labels.flat[wrong[0]]:g}; pass "
                "another array with --labels, or --labels none"
            )
    if labels.dtype == np.uint64 and labels.max() > np.iinfo(np.int64).max:
        return labels  # `analyze` rejects these; as int64 they would be negative, and left out
    return labels.astype(np.int64)
