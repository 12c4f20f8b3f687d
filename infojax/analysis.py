"""From arrays to a Report: `analyze(features, labels, head, bias)`, the notebook call."""

from collections.abc import Callable, Mapping

import jax
import numpy as np

from infojax.streaming import ArrayRows, InputError, Measured, Rows, measure_rows
from infojax.summary import SPECTRAL, Interval, LayerReports, Report, describe

__all__ = ["InputError", "Interval", "LayerReports", "Report", "Rows", "analyze", "to_numpy"]


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
            raise InputError(f"{name}: cannot be read as an array ({error})") from error
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
    if not (np.issubdtype(rows.dtype, np.number) or rows.dtype == bool or rows.dtype.kind == "V"):
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
    return y.astype(np.int64)


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
        raise InputError(f"labels go up to {labels.max()}, head has {len(w)} classes (rows); expected labels below it")
    b = None if bias is None else to_numpy(bias, "bias").astype(np.float64).reshape(-1)
    if b is not None and b.shape != (len(w),):
        raise InputError(f"bias has shape {b.shape}; expected ({len(w)},), one a class")
    if not np.isfinite(w).all() or (b is not None and not np.isfinite(b).all()):
        raise InputError("head or bias holds nan or inf; expected finite numbers")
    return w, b


def analyze(
    features,
    labels=None,
    head=None,
    bias=None,
    *,
    ci=None,
    chunk=8192,
    name="features",
    progress: Callable[[int, int, str], None] | None = None,
    seed=0,
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
    Returns:
      `Report`, or `LayerReports` for a dict.
    Raises:
      InputError: (a ValueError) one line that names the argument, what it was, what was expected, and the fix.
    """
    if isinstance(features, Mapping):
        return _analyze_layers(features, labels, head, bias, ci=ci, chunk=chunk, progress=progress, seed=seed)
    rows = _rows(features, name)
    y = None if labels is None else _labels(labels, rows.shape[0])
    if bias is not None and head is None:
        raise InputError("bias was given without a head; pass both or neither")
    w, b = (None, None) if head is None else _head(head, bias, y, rows.shape[1])
    if ci is not None and ci < 20:
        raise InputError(f"ci is {ci}; expected at least 20 subsamples (200 is usual)")
    if chunk < 1:
        raise InputError(f"chunk is {chunk}; expected at least 1 row")
    with jax.enable_x64(True):
        found = measure_rows(rows, y, w, b, chunk, name, progress or (lambda *_: None), seed)
        intervals = _intervals(found, rows, y, w, b, ci, name, progress, seed) if ci else {}
    return describe(found, name, intervals)


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
        reports[key] = analyze(rows, labels, head if fits else None, bias if fits else None, name=key, **options)
    return LayerReports(reports)


def _intervals(found, rows, y, w, b, ci, name, progress, seed):
    """95% intervals by stratified subsampling without replacement of m = n / 2 rows; see `Interval`.

    At m = n / 2 the spread of a smooth statistic over subsamples equals its standard error at n (the finite
    population correction 1 - m / n makes sigma^2 / m into sigma^2 / n), so the interval needs no rescaling
    beyond sqrt(m / (n - m)), which is 1 but for odd counts. Drawing with replacement would repeat rows, and
    repeated rows lower the rank and the entropy.
    """
    n, dim = rows.shape
    labels = np.zeros(n, np.int64) if y is None else y
    groups = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    sizes = [len(g) // 2 for g in groups]
    m = sum(sizes)
    if n * dim * 8 > 2**30:
        return "ci: refused, the rows take more than 1 GiB in memory; pass a subset"
    if min(sizes) < 2:
        return "ci: refused, a class has fewer than 4 samples, so its half cannot be measured"
    z = rows.take(np.arange(n)).astype(np.float64)
    rng, draws = np.random.default_rng([seed, 1]), []
    for k in range(ci):
        index = np.sort(np.concatenate([rng.choice(g, s, replace=False) for g, s in zip(groups, sizes, strict=True)]))
        sub = None if y is None else y[index]
        part = measure_rows(ArrayRows(z[index]), sub, w, b, m, name, lambda *_: None, seed, silhouette=False)
        draws.append(describe(part, name, {}).measures)
        if progress:
            progress(k + 1, ci, "confidence intervals")
    values = describe(found, name, {}).measures
    scale = (m / (n - m)) ** 0.5
    rank_limited = m <= dim
    intervals = {}
    for key in draws[0]:
        if rank_limited and key in SPECTRAL or not np.isfinite(values[key]):
            continue
        at_m = np.array([d[key] for d in draws])
        if not np.isfinite(at_m).all():
            continue
        low, high = values[key] + scale * (np.quantile(at_m, [0.025, 0.975]) - at_m.mean())
        intervals[key] = Interval(float(low), float(high), float(at_m.mean()), float(at_m.mean() - values[key]), m)
    return intervals
