"""Reads the arguments of `analyze` in every form in which people have them; bad input gives a one-line error."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unicodedata import normalize

import jax
import numpy as np

from infojax.analysis.rows import ArrayRows, InputError, KeptRows, Rows
from infojax.measures import arrays, conversion, scalars
from infojax.measures.arrays import ArrayLike

# Labels may skip classes (a small sample may miss some) up to this many; beyond, half of the classes must occur.
MOST_EMPTY_CLASSES = 2000
UNEVEN_ROWS = 5  # ratio of the lengths of a head's rows beyond which it may be the head of a cosine classifier


@dataclass(frozen=True)
class Inputs:
    """The arrays to measure; `notes` says what was left out, renumbered or looks suspicious, one line each."""

    name: str
    rows: Rows
    labels: np.ndarray | None = None
    head: np.ndarray | None = None
    bias: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def classes(self) -> np.ndarray:
        """The labels, or zeros (one class) if there are none."""
        return np.zeros(self.rows.shape[0], np.int32) if self.labels is None else self.labels

    @cached_property
    def num_classes(self) -> int:
        """C: the rows of the head, or one more than the largest label."""
        return int(self.classes.max()) + 1 if self.head is None else len(self.head)


@dataclass(frozen=True)
class Options:
    """The options of `analyze`.

    Attributes:
      exact: rows, or the side of a matrix, up to which nothing is sampled or estimated; None for the default.
      thorough: whether to compute the silhouette, and quantities that would have to be estimated.
    """

    ci: int | None
    chunk: int
    progress: Callable[[int, int, str], Any]
    seed: int
    distributed: bool
    ignore_index: Any
    exact: int | None = None
    thorough: bool = True


def silent(done: int, total: int, phase: str) -> None:
    """The default progress callback."""


def options_of(
    ci: int | None,
    chunk: int,
    progress: Callable[[int, int, str], Any] | None,
    seed: int,
    distributed: bool,
    ignore_index: Any,
    exact: int | None = None,
) -> Options:
    """The checked options of `analyze`.

    Raises:
      InputError: names the option, what it was and what was expected.
    """
    try:
        if ci is not None and scalars.whole_number(ci, "ci") < 20:
            raise InputError(f"ci is {ci}; expected at least 20 subsamples (200 is usual)")
        if scalars.whole_number(chunk, "chunk") < 1:
            raise InputError(f"chunk is {chunk}; expected at least 1 row")
        scalars.whole_number(seed, "seed", 0)
        if exact is not None:
            scalars.whole_number(exact, "exact", 1)
        scalars.flag(distributed, "distributed")
    except ValueError as error:
        raise InputError(str(error)) from error
    if progress is not None and not callable(progress):
        raise InputError(f"progress is {progress!r}; expected a function of (rows done, rows in all, phase)")
    return Options(ci, chunk, progress or silent, seed, distributed, ignore_index, exact)


def to_numpy(x: Any, name: str) -> np.ndarray:
    """x as a numpy array of numbers: numpy, jax, torch (through dlpack for dtypes numpy lacks), memmap, lists."""
    if isinstance(x, jax.core.Tracer):
        raise InputError(f"{name} is a traced value; analyze needs concrete arrays: call it outside jit, grad and vmap")
    try:
        return np.asarray(arrays.as_array(x, name))
    except ValueError as error:
        raise InputError(str(error)) from error


def read(
    features: ArrayLike | Rows,
    labels: ArrayLike | None,
    head: ArrayLike | None,
    bias: ArrayLike | None,
    name: str,
    ignore_index: Any,
) -> Inputs:
    """The checked arguments of `analyze` for one array.

    Raises:
      InputError: names the argument, what it was, what was expected, and the fix.
    """
    rows, names = rows_of(features, name), ()
    notes = _flattened(rows)
    y = labels
    if y is None and ignore_index is not None:
        raise InputError(f"ignore_index is {ignore_index!r}, but there are no labels")
    if y is not None:
        y, kept, lines = labelled_rows(y, rows.shape[0], ignore_index)
        notes += lines
        if len(kept) < len(y):
            rows, y = KeptRows(rows, kept), y[kept]
        if y.dtype.kind == "U":
            names, y = np.unique(y, return_inverse=True)
            names = tuple(str(one) for one in names)
            notes += _alike(names)
            order = "" if head is None else "; the rows of the head must be in the same order"
            notes.append(f"labels are strings, numbered in sorted order: {_listed(names)}{order}")
    if bias is not None and head is None:
        raise InputError("bias was given without a head; pass both or neither")
    w, b = (None, None) if head is None else _head(head, bias, y, rows.shape[1], names)
    if w is not None and b is None:
        lengths = np.linalg.norm(w / max(np.abs(w).max(), np.finfo(np.float64).tiny), axis=1) * np.abs(w).max()
        if lengths.min() > 0 and lengths.max() > UNEVEN_ROWS * lengths.min():
            notes.append(
                f"the head's rows have lengths from {lengths.min():.3g} to {lengths.max():.3g}: if it is the head of a "
                "cosine classifier, which ignores them, pass head / norm of each row"
            )
    if y is not None:
        if w is None:
            notes += _inferred_classes(y)
        y = y.astype(np.int32)
    return Inputs(name, rows, y, w, b, names, tuple(notes))


def labelled_rows(labels: ArrayLike, n: int, ignore_index: Any) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The labels of n rows, integers or strings; the indices of the rows to measure; and notes on both.

    Raises:
      InputError: as `read`.
    """
    y, notes = _labels(_stored(labels), n), []
    if y.dtype.kind == "U" and (whole := _whole_numbers(y)) is not None:
        y = whole
        notes.append("labels are strings of whole numbers, read as integers")
    kept, lines = _kept(y, ignore_index)
    return y, kept, notes + lines


def _flattened(rows):
    """A note if several axes of each sample became its columns, since pooling would have given fewer."""
    axes = tuple(getattr(rows, "column_sizes", rows.shape[1:]))
    if sum(size > 1 for size in axes) < 2:
        return []
    return [f"each sample is an array of {' x '.join(map(str, axes))}, flattened to {rows.shape[1]} columns"]


def _alike(names):
    """A note if class names look the same in print: they differ in spaces, or in the encoding of a letter."""
    seen = {}
    for one in names:
        seen.setdefault("".join(normalize("NFKC", one).split()), []).append(ascii(one))
    pairs = [" and ".join(group[:3]) for group in seen.values() if len(group) > 1]
    more = ", ..." * (len(pairs) > 3)
    return [f"labels that look alike are different classes: {', '.join(pairs[:3])}{more}"] if pairs else []


def _listed(names, most=6):
    shown = ", ".join(f"{_shown(one)} {i}" for i, one in enumerate(names[:most]))
    return shown + (f", ... ({len(names)} classes)" if len(names) > most else "")


def _shown(name, most=40):
    """A name, quoted if it could not be read as it is."""
    plain = name.isprintable() and name == name.strip() and name
    text = name if plain else ascii(name)
    return text if len(text) <= most else f"{text[:most]}..."


def _stored(labels):
    """Labels as an array of numbers or of strings."""
    try:
        conversion.refuse_masked(labels, "labels")
        if not conversion.holds_strings(labels):
            return to_numpy(labels, "labels")
    except ValueError as error:
        raise InputError(str(error)) from error
    stored = np.asarray(labels, dtype=object)
    missing = [conversion.is_missing(one) for one in stored.flat]
    if any(missing):
        raise InputError(
            f"labels: {sum(missing)} of {len(missing)} rows have none (None, nan or NA); drop those rows, or name them "
            "and pass ignore_index"
        )
    other = next((one for one in stored.flat if not isinstance(one, str | bytes)), None)
    if other is not None:
        raise InputError(f"labels are strings, but {other!r} is among them; expected only strings or only integers")
    try:
        texts = [one.decode() if isinstance(one, bytes) else str(one) for one in stored.flat]
    except UnicodeDecodeError as error:
        raise InputError(f"labels holds bytes that are not UTF-8 text: {error.object!r}; decode them first") from None
    return np.array(texts).reshape(stored.shape)


def _whole_numbers(strings):
    """Integers if all strings are integers, as in tables (sorted as names, 10 would come before 2); else None."""
    plain = all(one.removeprefix("-").isdecimal() and one == str(int(one)) for one in np.unique(strings))
    return strings.astype(np.int64) if plain else None


def _kept(y, ignore_index):
    """Indices of the rows to measure, and a note about each kind of row left out."""
    words = y.dtype.kind == "U"
    marks = [] if ignore_index is None else np.atleast_1d(ignore_index).tolist()
    for mark in marks:
        if not isinstance(mark, str if words else int) or isinstance(mark, bool):
            kind = "strings" if words else "whole numbers"
            raise InputError(f"ignore_index is {ignore_index!r}; expected a label, and the labels are {kind}")
    left_out = np.isin(y, marks) if marks else np.zeros(len(y), bool)
    left_out |= False if words else y < 0
    lines = [f"no row has the label {mark!r} (ignore_index)" for mark in marks if not np.any(y == mark)]
    if left_out.any():
        found = ", ".join(map(str, np.unique(y[left_out])[:3]))
        lines.append(f"{left_out.sum()} of {len(y)} rows are left out: their label is {found}")
        if left_out.all():
            raise InputError(f"labels: all {len(y)} rows are left out, their label is {found}")
    return np.flatnonzero(~left_out), lines


def rows_of(features: Any, name: str) -> Rows:
    """The `Rows` of an array; `Rows` are returned unchanged."""
    if hasattr(features, "blocks") and hasattr(features, "take"):
        rows = features
    else:
        array = to_numpy(features, name)
        if array.ndim < 2:
            raise InputError(f"{name} has shape {array.shape}; expected (N, D), one row per sample")
        rows = ArrayRows(array)
    if 0 in rows.shape:
        raise InputError(f"{name} has shape {tuple(rows.shape)}: no samples or no columns to measure")
    # jax's issubdtype treats bfloat16 and the float8 types as numbers, unlike numpy's.
    if not (jax.numpy.issubdtype(rows.dtype, np.number) or rows.dtype == bool):
        raise InputError(f"{name} has dtype {rows.dtype}; expected real numbers")
    if np.issubdtype(rows.dtype, np.complexfloating):
        raise InputError(f"{name} has dtype {rows.dtype}; expected real numbers (pass abs, real or imag)")
    return rows


def _labels(y, n):
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and len(y) == n:
        raise InputError(f"labels has shape {y.shape}; expected ({n},) integers: pass labels.argmax(1) if one-hot")
    if y.shape != (n,):
        raise InputError(f"labels has shape {y.shape}; expected ({n},), one per row of the features")
    if np.issubdtype(y.dtype, np.floating):
        if not np.isfinite(y).all():
            raise InputError("labels holds nan or inf; expected integers 0, ..., C - 1, with -1 for rows to leave out")
        wrong = ~((np.abs(y) < 2**53) & (y == np.round(y)))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise InputError(f"labels must be whole numbers 0, ..., C - 1; row {row} has {y[row]:g}")
        y = y.astype(np.int64)
    if not (y.dtype.kind in "US" or np.issubdtype(y.dtype, np.integer) or y.dtype == bool):
        raise InputError(f"labels has dtype {y.dtype}; expected integers 0, ..., C - 1")
    if y.dtype == np.uint64 and y.max() > np.iinfo(np.int64).max:
        raise InputError(
            f"labels go up to {y.max()}, which overflows int64 (2^64 - 1 would be -1); expected 0, ..., C - 1: pass "
            "labels.astype(numpy.int64), of which negative labels are left out"
        )
    return y if y.dtype.kind in "US" else y.astype(np.int64)


def _inferred_classes(labels):
    """Rejects labels whose C x C tables would be mostly empty and too large for memory; notes a suspicious outlier."""
    found = np.unique(labels)
    top, mark = int(found[-1]), _mark(found)
    if top >= max(2 * len(found), MOST_EMPTY_CLASSES):
        raise InputError(
            f"labels go up to {top} but only {len(found)} values occur; expected 0, ..., C - 1: pass "
            f"numpy.unique(labels, return_inverse=True)[1], or the head if it has a row for each{mark}"
        )
    return [f"the label {top} is far from the others, which end at {found[-2]}{mark}"] if mark else []


def _mark(found):
    """The advice for a largest label far from the others, such as 255; empty if there is none."""
    top = found[-1]
    apart = len(found) > 2 and top - found[-2] > max(len(found), 2)
    return f"; if {top} marks rows to leave out, pass ignore_index={top} (--ignore-index {top})" * bool(apart)


def _head(head, bias, labels, dim, names):
    w = to_numpy(head, "head").astype(np.float64)
    if w.ndim != 2:
        raise InputError(f"head has shape {w.shape}; expected (C, D) = (classes, {dim})")
    if w.shape[1] != dim:
        fix = arrays.head_fix(w.shape, dim)
        raise InputError(f"head has shape {w.shape}; expected (C, D) with D = {dim}, the features' columns{fix}")
    if labels is None:
        raise InputError("head was given without labels; MIR, HDR, NC3 and NC4 need the label of each row")
    if len(w) == 1 and labels.max() == 1:
        raise InputError(arrays.SINGLE_LOGIT)
    if labels.max() >= len(w):
        raise InputError(
            f"labels go up to {labels.max()}, head has {len(w)} classes (rows); expected 0, ..., {len(w) - 1}"
            + (": pass labels - 1 if they count from 1" if labels.min() == 1 and labels.max() == len(w) else "")
            + _mark(np.unique(labels))
        )
    if names and len(names) != len(w):
        raise InputError(
            f"labels are {len(names)} names, the head has {len(w)} rows, and their order is unknown; pass as labels "
            "the row number of each sample's class"
        )
    b = None if bias is None else to_numpy(bias, "bias").astype(np.float64).reshape(-1)
    if b is not None and b.shape != (len(w),):
        raise InputError(f"bias has shape {b.shape}; expected ({len(w)},), one per class")
    for name, array in (("head", w), ("bias", b)):
        if array is not None and not np.isfinite(array).all():
            raise InputError(f"{name} holds nan or inf; expected finite numbers")
    return w, b
