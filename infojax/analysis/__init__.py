"""From arrays to a Report: `analyze(features, labels, head, bias)`, the notebook call."""

from collections.abc import Callable, Mapping

import jax
import numpy as np

from infojax.analysis.reports import Interval, LayerReports, Report
from infojax.analysis.streaming import ArrayRows, InputError, Rows, measure_rows
from infojax.analysis.subsampling import intervals
from infojax.analysis.summary import describe

__all__ = ["InputError", "Interval", "LayerReports", "Report", "Rows", "analyze", "to_numpy"]


# Labels may skip classes (a sample of few of them), up to this many; beyond, half of the classes must occur.
MOST_EMPTY_CLASSES = 2000


def to_numpy(x, name):
    """x as a numpy array: numpy, jax, torch (through dlpack where numpy has no such type), memmap, lists."""
    if isinstance(x, np.ndarray):
        return x
    if hasattr(x, "detach"):
        x = x.detach().cpu()
    try:
        array = np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:
        if not hasattr(x, "__dlpack__"):
            raise InputError(f"{name}: not an array of numbers (rows of different lengths?)") from error
        array = np.asarray(jax.dlpack.from_dlpack(x))
    if array.dtype == object:
        raise InputError(f"{name}: rows of different lengths or objects; expected numbers of one shape")
    return array


def _rows(features, name):
    if hasattr(features, "blocks") and hasattr(features, "take"):
        rows = features
    else:
        array = to_numpy(features, name)
        if array.ndim < 2:
            raise InputError(f"{name} has shape {array.shape}; expected (N, D), one row a sample")
        rows = ArrayRows(array)
    if 0 in rows.shape:
        raise InputError(f"{name} has shape {tuple(rows.shape)}: no samples or no columns to measure")
    # jax's issubdtype knows bfloat16 and the float8 types as numbers, numpy's does not.
    if not (jax.numpy.issubdtype(rows.dtype, np.number) or rows.dtype == bool):
        raise InputError(f"{name} has dtype {rows.dtype}; expected real numbers")
    if np.issubdtype(rows.dtype, np.complexfloating):
        raise InputError(f"{name} has dtype {rows.dtype}; expected real numbers (pass abs, real or imag)")
    return rows


def _labels(labels, n, name="labels"):
    y = to_numpy(labels, name)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and len(y) == n:
        raise InputError(f"{name} has shape {y.shape}; expected ({n},) integers: pass {name}.argmax(1) if one-hot")
    if y.shape != (n,):
        raise InputError(f"{name} has shape {y.shape}; expected ({n},), one a row of the features")
    if np.issubdtype(y.dtype, np.floating) and np.isfinite(y).all() and (y == np.round(y)).all():
        y = y.astype(np.int64)
    if not (np.issubdtype(y.dtype, np.integer) or y.dtype == bool):
        raise InputError(f"{name} has dtype {y.dtype}; expected integers 0, ..., C - 1")
    if y.min() < 0:
        raise InputError(f"{name} holds {y.min()}; expected 0, ..., C - 1: drop those rows or relabel them")
    return y


def _inferred_classes(labels):
    """Refuses labels that would make most of the C x C tables empty, and too large for memory."""
    classes = len(np.unique(labels))
    if labels.max() >= max(2 * classes, MOST_EMPTY_CLASSES):
        raise InputError(
            f"labels go up to {labels.max()} but only {classes} values occur; expected 0, ..., C - 1: pass "
            "numpy.unique(labels, return_inverse=True)[1], or the head if it has so many rows"
        )


def _head(head, bias, labels, dim):
    w = to_numpy(head, "head").astype(np.float64)
    if w.ndim != 2:
        raise InputError(f"head has shape {w.shape}; expected (C, D) = (classes, {dim})")
    if w.shape[1] != dim:
        fix = ": pass head.T" if w.shape[0] == dim else ""
        raise InputError(f"head has shape {w.shape}; expected (C, D) with D = {dim}, the features' columns{fix}")
    if labels is None:
        raise InputError("head was given without labels; MIR, HDR, NC3 and NC4 need the label of each row")
    if labels.max() >= len(w):
        raise InputError(
            f"labels go up to {labels.max()}, head has {len(w)} classes (rows); expected 0, ..., {len(w) - 1}"
            + (": pass labels - 1 if they count from 1" if labels.min() == 1 and labels.max() == len(w) else "")
        )
    b = None if bias is None else to_numpy(bias, "bias").astype(np.float64).reshape(-1)
    if b is not None and b.shape != (len(w),):
        raise InputError(f"bias has shape {b.shape}; expected ({len(w)},), one a class")
    for name, array in (("head", w), ("bias", b)):
        if array is not None and not np.isfinite(array).all():
            raise InputError(f"{name} holds nan or inf; expected finite numbers")
    return w, b


def analyze(
    features,
    labels=None,
    head=None,
    bias=None,
    *,
    ci=None,
    chunk=4096,
    name="features",
    progress: Callable[[int, int, str], None] | None = None,
    seed=0,
    distributed=False,
):
    """Measure features: entropies and ranks; with labels neural collapse; with a head MIR, HDR and duality.

    Args:
      features: (N, D) array (numpy, jax, torch, memmap, nested lists; further axes are flattened), `Rows`, or a dict
        layer -> such, which gives one report a layer.
      labels: (N,) integers 0, ..., C - 1, or None.
      head: (C, D) classifier weights or None; needs labels. Only layers of its width are compared with it.
      bias: (C,) or None.
      ci: number of subsamples for 95% confidence intervals (200 is usual), or None; see `Interval`.
      chunk: rows read at a time.
      name: of the array, for the report.
      progress: called with (rows done, rows in all, phase).
      seed: of the subsamples.
      distributed: every process of jax.distributed calls this with the same rows; each reads a part of them, and all
        return the same report.
    Returns:
      `Report`, or `LayerReports` for a dict.
    Raises:
      InputError: (a ValueError) one line that names the argument, what it was, what was expected, and the fix.
    """
    if isinstance(features, Mapping):
        options = dict(ci=ci, chunk=chunk, progress=progress, seed=seed, distributed=distributed)
        return _analyze_layers(features, labels, head, bias, **options)
    rows = _rows(features, name)
    y = None if labels is None else _labels(labels, rows.shape[0])
    if bias is not None and head is None:
        raise InputError("bias was given without a head; pass both or neither")
    w, b = (None, None) if head is None else _head(head, bias, y, rows.shape[1])
    if y is not None:
        if head is None:
            _inferred_classes(y)
        y = y.astype(np.int32)
    if ci is not None and ci < 20:
        raise InputError(f"ci is {ci}; expected at least 20 subsamples (200 is usual)")
    if chunk < 1:
        raise InputError(f"chunk is {chunk}; expected at least 1 row")
    with jax.enable_x64(True), np.errstate(all="ignore"):  # what overflows is nan, with its reason
        progress = progress or (lambda *_: None)
        found = measure_rows(rows, y, w, b, chunk, name, progress, seed, distributed=distributed)
        report = describe(found, name)
        if ci:
            report = intervals(report, found, rows, y, w, b, ci, progress, seed)
    return report


def _analyze_layers(features, labels, head, bias, **options):
    if not features:
        raise InputError("features is an empty dict; expected layer name -> array")
    layers = {str(key): _rows(value, f"features[{key!r}]") for key, value in features.items()}
    width = None if head is None else to_numpy(head, "head").shape[-1]
    if width is not None and all(rows.shape[1] != width for rows in layers.values()):
        shapes = ", ".join(f"{key} {tuple(rows.shape)}" for key, rows in layers.items())
        raise InputError(f"head has {width} columns, no layer does ({shapes})")
    reports = {}
    for key, rows in layers.items():
        fits = rows.shape[1] == width
        try:
            reports[key] = analyze(rows, labels, head if fits else None, bias if fits else None, name=key, **options)
        except InputError as error:
            raise InputError(f"{key}: {str(error).removeprefix(f'{key}: ')}") from error
    return LayerReports(reports)
