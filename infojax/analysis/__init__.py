"""From arrays to a Report: `analyze(features, labels, head, bias)`, the notebook call."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import jax
import numpy as np

from infojax.analysis.inputs import MOST_EMPTY_CLASSES, inputs_of, rows_of, to_numpy
from infojax.analysis.reports import Interval, LayerReports, Report
from infojax.analysis.streaming import InputError, Rows, measure_rows
from infojax.analysis.subsampling import intervals
from infojax.analysis.summary import describe
from infojax.measures import arrays

__all__ = ["MOST_EMPTY_CLASSES", "InputError", "Interval", "LayerReports", "Report", "Rows", "analyze", "to_numpy"]


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
    ignore_index=None,
):
    """Measure features: entropies and ranks; with labels neural collapse; with a head MIR, HDR and duality.

    Args:
      features: (N, D) array (numpy, jax, torch, memmap, nested lists; further axes are flattened), `Rows`, or a dict
        layer -> such, which gives one report a layer.
      labels: (N,) integers 0, ..., C - 1, or names, which are numbered in sorted order; or None. Rows with a negative
        label are left out, as in the pure functions, and the report says how many.
      head: (C, D) classifier weights or None; needs labels. Only layers of its width are compared with it.
      bias: (C,) or None.
      ci: number of subsamples for 95% confidence intervals (200 is usual), or None; see `Interval`.
      chunk: rows read at a time.
      name: of the array, for the report.
      progress: called with (rows done, rows in all, phase).
      seed: of the subsamples.
      distributed: every process of jax.distributed calls this with the same rows; each reads a part of them, and all
        return the same report.
      ignore_index: another label whose rows are left out, such as 255 or "unknown", or a list of several.
    Returns:
      `Report`, or `LayerReports` for a dict.
    Raises:
      InputError: (a ValueError) one line that names the argument, what it was, what was expected, and the fix.
    """
    if isinstance(features, Mapping):
        options = dict(ci=ci, chunk=chunk, progress=progress, seed=seed, distributed=distributed)
        options |= dict(ignore_index=ignore_index)
        return _analyze_layers(features, labels, head, bias, **options)
    rows, y, w, b, class_names, said = inputs_of(features, labels, head, bias, name, ignore_index)
    _check_options(ci, chunk, seed, progress)
    with jax.enable_x64(True), np.errstate(all="ignore"):  # what overflows is nan, with its reason
        progress = progress or (lambda *_: None)
        found = measure_rows(rows, y, w, b, chunk, name, progress, seed, distributed=distributed)
        report = describe(found, name)
        report = replace(report, class_names=class_names, warnings=(*said, *report.warnings))
        if ci:
            report = intervals(report, found, rows, y, w, b, ci, progress, seed)
    return report


def _check_options(ci, chunk, seed, progress):
    try:
        if ci is not None and arrays.whole_number(ci, "ci") < 20:
            raise InputError(f"ci is {ci}; expected at least 20 subsamples (200 is usual)")
        if arrays.whole_number(chunk, "chunk") < 1:
            raise InputError(f"chunk is {chunk}; expected at least 1 row")
        arrays.whole_number(seed, "seed", 0)
    except ValueError as error:
        raise InputError(str(error)) from error
    if progress is not None and not callable(progress):
        raise InputError(f"progress is {progress!r}; expected a function of (rows done, rows in all, phase)")


def _analyze_layers(features, labels, head, bias, **options):
    if not features:
        raise InputError("features is an empty dict; expected layer name -> array")
    layers = {str(key): rows_of(value, f"features[{key!r}]") for key, value in features.items()}
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
