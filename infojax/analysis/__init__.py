"""From arrays to a Report: `analyze(features, labels, head, bias)`, the notebook call.

Each stage is a module: `inputs` reads the arguments, `sums` accumulates over the rows, `measured` computes the numbers
from these, and `summary` describes them in a Report; `subsampling` adds intervals.
"""

from collections.abc import Callable, Mapping
from typing import Any, overload

import jax
import numpy as np

from infojax.analysis.inputs import MOST_EMPTY_CLASSES, Options, options_of, read, rows_of, to_numpy
from infojax.analysis.measured import finish
from infojax.analysis.reports import Interval, LayerReports, Report
from infojax.analysis.rows import InputError, Rows
from infojax.analysis.subsampling import intervals
from infojax.analysis.summary import describe
from infojax.analysis.sums import accumulate
from infojax.measures.arrays import ArrayLike

__all__ = ["MOST_EMPTY_CLASSES", "InputError", "Interval", "LayerReports", "Report", "Rows", "analyze", "to_numpy"]


@overload
def analyze(
    features: Mapping[str, ArrayLike | Rows],
    labels: ArrayLike | None = None,
    head: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    ci: int | None = None,
    chunk: int = 4096,
    name: str = "features",
    progress: Callable[[int, int, str], Any] | None = None,
    seed: int = 0,
    distributed: bool = False,
    ignore_index: Any = None,
    exact: int | None = None,
) -> LayerReports: ...


@overload
def analyze(
    features: ArrayLike | Rows,
    labels: ArrayLike | None = None,
    head: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    ci: int | None = None,
    chunk: int = 4096,
    name: str = "features",
    progress: Callable[[int, int, str], Any] | None = None,
    seed: int = 0,
    distributed: bool = False,
    ignore_index: Any = None,
    exact: int | None = None,
) -> Report: ...


def analyze(
    features: ArrayLike | Rows | Mapping[str, ArrayLike | Rows],
    labels: ArrayLike | None = None,
    head: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    ci: int | None = None,
    chunk: int = 4096,
    name: str = "features",
    progress: Callable[[int, int, str], Any] | None = None,
    seed: int = 0,
    distributed: bool = False,
    ignore_index: Any = None,
    exact: int | None = None,
) -> Report | LayerReports:
    """Measures features: entropies and ranks; with labels, neural collapse; with a head, MIR, HDR and self-duality.

    Args:
      features: (N, D) array (numpy, jax, torch, memmap, nested lists; further axes are flattened), `Rows`, or a dict
        {layer: features}, which gives one report per layer.
      labels: (N,) integers 0, ..., C - 1, or names, which are numbered in sorted order; or None. Rows with a negative
        label are left out, as in the pure functions, and the report gives their number.
      head: (C, D) classifier weights or None; needs labels. Only layers of the same width are compared with it.
      bias: (C,) or None.
      ci: number of subsamples for 95% confidence intervals (200 is usual), or None; see `Interval`.
      chunk: rows read at a time.
      name: name of the array, for the report.
      progress: called with (rows done, total rows, phase).
      seed: of the subsamples.
      distributed: every process of jax.distributed calls this with the same rows; each reads a part of them, and all
        return the same report.
      ignore_index: another label whose rows are left out, such as 255 or "unknown", or a list of several.
      exact: number of rows (or columns) up to which everything is held in memory and exact; 4,096 by default. For
        more rows, measures that cannot be summed block by block use a random sample of this size, or are estimated;
        the report states which.
    Returns:
      `Report`, or `LayerReports` for a dict.
    Raises:
      InputError: (a ValueError) one line that names the argument, its value, what was expected, and the fix.
    """
    options = options_of(ci, chunk, progress, seed, distributed, ignore_index, exact)
    if isinstance(features, Mapping):
        return _of_layers(features, labels, head, bias, options)
    return _of_array(features, labels, head, bias, name, options)


def _of_array(features: Any, labels: Any, head: Any, bias: Any, name: str, options: Options) -> Report:
    inputs = read(features, labels, head, bias, name, options.ignore_index)
    with jax.enable_x64(True), np.errstate(all="ignore"):  # overflow gives nan, which is reported with its reason
        sums = accumulate(inputs, options)
        measured = finish(inputs, sums, options)
        report = describe(inputs, measured)
        return intervals(report, inputs, measured, options, options.ci) if options.ci else report


def _of_layers(features: Mapping[str, Any], labels: Any, head: Any, bias: Any, options: Options) -> LayerReports:
    if not features:
        raise InputError("features is an empty dict; expected layer name -> array")
    layers = {str(key): rows_of(value, f"features[{key!r}]") for key, value in features.items()}
    if len(layers) < len(features):
        raise InputError(f"features has two layers of the same name: {', '.join(map(repr, features))}")
    shape = (0, 0) if head is None else to_numpy(head, "head").shape
    if len(shape) != 2:
        raise InputError(f"head has shape {shape}; expected (C, D), one row per class")
    width = None if head is None else shape[1]
    if width is not None and all(rows.shape[1] != width for rows in layers.values()):
        shapes = ", ".join(f"{key} {tuple(rows.shape)}" for key, rows in layers.items())
        raise InputError(f"head has {width} columns, but no layer does ({shapes})")
    reports = {}
    for key, rows in layers.items():
        fits = rows.shape[1] == width
        try:
            reports[key] = _of_array(rows, labels, head if fits else None, bias if fits else None, key, options)
        except InputError as error:
            raise InputError(f"{key}: {str(error).removeprefix(f'{key}: ')}") from error
    return LayerReports(reports)
