"""A run folder's history, from its rows: by split and quantity, over steps, with means and intervals over runs."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from infojax.measures.catalogue import measure_of
from infojax.measures.theory import nc_limits
from infojax.report.runs.reading import read_rows, read_settings
from infojax.report.tables.content import ROUNDING
from infojax.train.runlog import RunFolderError
from infojax.train.schema import COORDINATES, quantities

BATCH = "batch"  # the split of training rows, which are measured on the batch just trained on
FIRST = ("train", "test")  # the order of splits; others follow as they appear
Values = dict[tuple[str, str, str], dict[int, dict[Any, float]]]  # {(axis, split, quantity): {run: {place: number}}}


@dataclass(frozen=True)
class RunHistory:
    """A run, or a group of runs, as read from its folder.

    Attributes:
      folder: where it was read from.
      config: nested settings.
      environment: machine and versions; empty if unknown.
      values: {(axis, split, quantity): {run: {place: number}}}; the axis is "step" or one of COORDINATES (for these,
        the values at the last step); NaN stands for a non-finite number. Quantities of a layer are named "nc1@layer1".
      swept: name of the swept hyper-parameter, or "".
      groups: {swept value: runs}; {None: all runs} if nothing is swept.
      seeds: {run: seed}, where the rows give it.
      frozen: {run: first logged step at which it was frozen}.
      sizes: {split: number of samples}.
      convention: of NC1, or "".
      last: the last step of any row.
      maps: {run: row} of the last two-dimensional map of each run: "tsne_x", "tsne_y", "labels", "split".
      layers: {name: depth}, by depth; empty if no layer was measured.
      dims: {layer: numbers per sample}, where the rows give it.
      clouds: {(run, split): {step: row}} of three-dimensional features: "cloud_x", "cloud_y", "cloud_z", "labels".
      classes: {(run, split): {step: row}} of per-class values: "class_names" and lists of the same length.
      notes: one line for each kind of thing that was left out.
      pictures: {run: row} of the last reconstructions: "pictures", "pictures_shape", "split".
    """

    folder: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    values: Values
    swept: str
    groups: dict[Any, list[int]]
    seeds: dict[int, int]
    frozen: dict[int, int]
    sizes: dict[str, int]
    convention: str
    last: int
    maps: dict[int, dict[str, Any]]
    layers: dict[str, int]
    dims: dict[str, int]
    clouds: dict[tuple[int, str], dict[int, dict[str, Any]]]
    classes: dict[tuple[int, str], dict[int, dict[str, Any]]]
    notes: tuple[str, ...] = ()
    pictures: dict[int, dict[str, Any]] = field(default_factory=dict)


class RunMeans(NamedTuple):
    """A quantity over the runs of one group, (P,) each; low and high are NaN where fewer than two runs are finite."""

    place: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray


# Rows to a history


def read_history(folder: str | Path) -> RunHistory:
    """Reads a run folder.

    Raises:
      RunFolderError: something is missing or damaged; the message is one line.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RunFolderError(f"{folder}: no such folder")
    for name in ("config.json", "metrics.jsonl"):
        if not (folder / name).is_file():
            raise RunFolderError(f"{folder}: no {name}; expected the folder of a run")
    config, environment = read_settings(folder / "config.json"), read_settings(folder / "env.json")
    rows, notes = read_rows(folder / "metrics.jsonl", (config.get("sweep") or {}).get("name") or "")
    if not rows:
        raise RunFolderError(notes[0] if notes else f"{folder / 'metrics.jsonl'}: no rows yet")
    return replace(history_of(rows, config, environment, folder), notes=tuple(notes))


def history_of(
    rows: Sequence[dict[str, Any]],
    config: dict[str, Any],
    environment: dict[str, Any] | None = None,
    folder: str | Path = ".",
) -> RunHistory:
    """Groups rows by split, quantity and run; of two rows for the same place the later counts."""
    swept, value_of = _swept(rows, config)
    frozen: dict[int, int] = {}
    for row in rows:
        if _lost(row):
            frozen.setdefault(_run(row), row["step"])
    measured = [row for row in rows if row["kind"] in ("train", "eval") and not _of_frozen(row)]
    layers = [row for row in measured if "layer" in row]
    values = _values(measured, swept)
    groups: dict[Any, list[int]] = {}
    for run in sorted({_run(row) for row in rows}):
        groups.setdefault(value_of.get(run), []).append(run)
    return RunHistory(
        folder=Path(folder),
        config=config,
        environment=environment or {},
        values=values | _derived(values),
        swept=swept,
        groups=dict(sorted(groups.items(), key=lambda pair: _order(pair[0]))),
        seeds={_run(row): row["seed"] for row in rows if "seed" in row},
        frozen=frozen,
        sizes={_split(row): row["n"] for row in measured if isinstance(row.get("n"), int)},
        convention=next((row["convention"] for row in reversed(measured) if row.get("convention")), ""),
        last=max(row["step"] for row in rows),
        maps={_run(row): row for row in rows if "tsne_x" in row and not row.get("frozen")},
        layers=dict(sorted({row["layer"]: row.get("depth", 0) for row in layers}.items(), key=lambda pair: pair[1])),
        dims={row["layer"]: row["dim"] for row in layers if "dim" in row},
        clouds=_by_step(measured, "cloud_x"),
        classes=_by_step(measured, "class_names"),
        pictures={_run(row): row for row in rows if "pictures" in row},
    )


def _run(row: Mapping[str, Any]) -> int:
    return row.get("run", 0)


def _split(row: Mapping[str, Any]) -> str:
    return BATCH if row["kind"] == "train" else row.get("split", "")


def _lost(row: Mapping[str, Any]) -> bool:
    """Whether the row says that its run became NaN or Inf; a single run, which then stops, is not marked as frozen."""
    of_run = row["kind"] == "eval" and not COORDINATES.keys() & row.keys()
    stopped = row["kind"] == "train" and any(row.get(name, 0) is None for name in ("loss", "grad_norm"))
    return bool(row.get("frozen") or of_run and row.get("not_finite") or stopped)


def _of_frozen(row: Mapping[str, Any]) -> bool:
    return bool(row.get("of_frozen") or row["kind"] == "eval" and _lost(row) or row.get("frozen"))


def _values(rows: Iterable[dict[str, Any]], swept: str) -> Values:
    """The numbers of the rows, by axis, split, quantity and run."""
    logged: dict[tuple[str, str, str], dict[int, dict[tuple[int, Any], float]]] = {}
    for row in rows:
        along = (name for name in COORDINATES if name in row and name != swept and row["kind"] == "eval")
        axis = next(along, "step")
        for name in quantities(row) - {axis, swept}:
            if row[name] is None or type(row[name]) in (int, float):
                quantity = f"{name}@{row['layer']}" if "layer" in row else name
                places = logged.setdefault((axis, _split(row), quantity), {}).setdefault(_run(row), {})
                places[row["step"], row[axis]] = math.nan if row[name] is None else float(row[name])
    return {key: {run: _places(key[0], found) for run, found in runs.items()} for key, runs in logged.items()}


def _by_step(rows: Iterable[dict[str, Any]], key: str) -> dict[tuple[int, str], dict[int, dict[str, Any]]]:
    """{(run, split): {step: row}} of the rows that have the key."""
    found: dict[tuple[int, str], dict[int, dict[str, Any]]] = {}
    for row in rows:
        if key in row:
            found.setdefault((_run(row), _split(row)), {})[row["step"]] = row
    return found


def _places(axis: str, found: Mapping[tuple[int, Any], float]) -> dict:
    """{place: number} from {(step, place): number}; for a coordinate other than time, only those at the last step."""
    last = max(step for step, _ in found)
    return {place: value for (step, place), value in sorted(found.items()) if axis == "step" or step == last}


def _order(value):
    return (isinstance(value, str), value if value is not None else 0)


def _swept(rows: Sequence[dict[str, Any]], config: dict[str, Any]) -> tuple[str, dict[int, Any]]:
    """(name, {run: value}) of the hyper-parameter that the config sweeps, or ("", {})."""
    name = (config.get("sweep") or {}).get("name") or ""
    return (name, {row["run"]: row[name] for row in rows if "run" in row and name in row}) if name else ("", {})


def _derived(values: Values) -> Values:
    """Quantities that are functions of a logged one."""
    functions = {
        "error": ("accuracy", lambda x: 100 * (1 - x)),
        "error_ema": ("accuracy_ema", lambda x: 100 * (1 - x)),
        "limit_effective_rank": ("limit_entropy_features", math.exp),
    }
    found = {}
    for name, (source, function) in functions.items():
        for axis, split, quantity in list(values):
            if quantity == source:
                runs = values[axis, split, quantity].items()
                found[axis, split, name] = {run: {at: function(x) for at, x in of_run.items()} for run, of_run in runs}
    return found


# A history to means over runs


def mean_interval(values: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over runs, half of its 95% interval (Student's t) and the number of finite values; (runs, P) to (P,)."""
    values = np.asarray(values, np.float64)
    finite = np.isfinite(values)
    n, kept = finite.sum(0), np.where(finite, values, 0.0)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = np.where(n > 0, kept.sum(0) / n, math.nan)
        squares = np.where(finite, (kept - mean) ** 2, 0.0).sum(0)
        half = np.where(n > 1, stdtrit(np.maximum(n - 1, 1), 0.975) * np.sqrt(squares / (n - 1) / n), math.nan)
    return mean, half, n


def run_means(
    history: RunHistory, split: str, quantity: str, runs: Sequence[int], axis: str = "step"
) -> RunMeans | None:
    """The quantity over the given runs, at every place where one of them has it; None if none has it anywhere.

    On the axis "swept" the place of a run is its swept value (for text, its index), with the run's last number.
    """
    found = history.values.get(("step" if axis == "swept" else axis, split, quantity), {})
    found = {run: found[run] for run in runs if run in found}
    if not found:
        return None
    if axis == "swept":
        places = {run: place for place, runs in swept_places(history).items() for run in runs}
        ends = at_end(history, split, quantity, list(found))
        found = {run: {places[run]: end} for run, end in zip(found, ends, strict=True)}
    along = sorted({place for of_run in found.values() for place in of_run})
    table = [[of_run.get(place, math.nan) for place in along] for of_run in found.values()]
    mean, half, n = mean_interval(table)
    with np.errstate(invalid="ignore"):  # numbers near the float maximum overflow
        return RunMeans(np.array(along, np.float64), mean, mean - half, mean + half, n)


def swept_places(history: RunHistory) -> dict[Any, list[int]]:
    """{place on the axis "swept": runs}."""
    text = any(isinstance(value, str) for value in history.groups)
    return {i if text else value: runs for i, (value, runs) in enumerate(history.groups.items())}


def limits(
    history: RunHistory, split: str, quantity: str, runs: Sequence[int], axis: str = "step"
) -> np.ndarray | None:
    """The limit at each place of `run_means`; None if the quantity has none, or it is unknown."""
    of = measure_of(quantity)
    limit, measured = of.limit, run_means(history, split, quantity, runs, axis)
    if measured is None or limit == "" or (of.of_a_simplex and not _simplex_fits(history, split)):
        return None
    if isinstance(limit, str) and not limit.startswith("limit_"):
        classes = num_classes(history)
        limit = closed_limits(classes)[limit] if classes else ""
    if isinstance(limit, float):
        return np.full(len(measured.place), limit)
    moving = run_means(history, split, limit, runs, axis)
    if moving is None:
        return None
    heights = dict(zip(moving.place, moving.mean, strict=True))
    found = np.array([heights.get(place, math.nan) for place in measured.place])
    return np.where(np.abs(found) < ROUNDING, 0.0, found)


def closed_limits(classes: int) -> dict[str, float]:
    """Limits that depend only on the number of classes."""
    return {
        "log(C-1)": math.log(classes - 1),
        "C-1": float(classes - 1),
        "collapsed MIR": nc_limits(classes).mir,
        "log2(C)": math.log2(classes),
    }


def _simplex_fits(history: RunHistory, split: str) -> bool:
    """Whether the embedding has at least C - 1 dimensions; assumed of runs that did not record its width."""
    found = history.values.get(("step", split, "embedding_dim"), {}).values()
    dims = [dim for of_run in found for dim in of_run.values()]
    return not dims or min(dims) >= (num_classes(history) or 0) - 1


def at_end(
    history: RunHistory, split: str, quantity: str, runs: Sequence[int], steps: Mapping[int, int] | None = None
) -> np.ndarray:
    """The quantity of each run at its last place, or at its own step in `steps`; NaN where missing. (runs,)."""
    found = history.values.get(("step", split, quantity), {})
    ends = [found.get(run, {}) for run in runs]
    if steps is not None:
        return np.array([of_run.get(steps[run], math.nan) for run, of_run in zip(runs, ends, strict=True)])
    last = max((max(of_run) for of_run in ends if of_run), default=None)
    return np.array([of_run.get(last, math.nan) for of_run in ends])


def mean_at_end(history: RunHistory, split: str, quantity: str, runs: Sequence[int]) -> float:
    """The mean of the finite values of `at_end`; NaN if there are none."""
    found = at_end(history, split, quantity, runs)
    return float(np.mean(found[np.isfinite(found)])) if np.isfinite(found).any() else math.nan


def at_common_steps(history: RunHistory, runs: Sequence[int], *keys: tuple[str, str]) -> dict[int, np.ndarray]:
    """{step: (runs, keys)} of (split, quantity) pairs measured at one step, over runs with finite values of all."""
    found: dict[int, list[list[float]]] = {}
    for run in runs:
        columns = [history.values.get(("step", *key), {}).get(run, {}) for key in keys]
        for step in set.intersection(*map(set, columns)):
            numbers = [column[step] for column in columns]
            if all(map(math.isfinite, numbers)):
                found.setdefault(step, []).append(numbers)
    return {step: np.array(found[step]) for step in sorted(found)}


def first_accurate(history: RunHistory, run: int, split: str, least: float = 0.99) -> int | None:
    """The first evaluation of a run with at least this accuracy, or None."""
    found = history.values.get(("step", split, "accuracy"), {}).get(run, {})
    return min((k for k, x in found.items() if x >= least), default=None)


def num_classes(history: RunHistory) -> int | None:
    """C of the config if between 3 and a million, else None: no limit is drawn on a guess."""
    found = history.config.get("num_classes")
    return found if isinstance(found, int) and 3 <= found <= 10**6 else None


def first_perfect(history: RunHistory, runs: Sequence[int]) -> dict[int, int] | None:
    """{run: first evaluation at which all training samples are classified correctly}; None unless every run has one."""
    steps = {run: first_accurate(history, run, "train", 1) for run in runs}
    found = {run: step for run, step in steps.items() if step is not None}
    return found if found and len(found) == len(steps) else None


def splits_of(history: RunHistory, quantities: Collection[str], axis: str = "step") -> list[str]:
    """The splits on which any of the quantities was evaluated, with train and test first."""
    found = dict.fromkeys(s for a, s, name in history.values if a == axis and name in quantities and s != BATCH)
    return [s for s in FIRST if s in found] + [s for s in found if s not in FIRST]
