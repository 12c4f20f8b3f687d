"""The history of a run folder, from its rows: by split and quantity, over steps, as means over runs with intervals."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from infojax.measures.catalogue import measure_of
from infojax.measures.theory import nc_limits
from infojax.report.runs.reading import read_rows, read_settings
from infojax.train.runlog import RunFolderError
from infojax.train.schema import COORDINATES, quantities

BATCH = "batch"  # the split of training rows: what was measured on the batch just trained on
FIRST = ("train", "test")  # the order of splits; others follow as they appear
Values = dict[tuple[str, str, str], dict[int, dict[Any, float]]]  # {(axis, split, quantity): {run: {place: number}}}


@dataclass(frozen=True)
class RunHistory:
    """A run, or a group of runs, as its folder tells it.

    Attributes:
      folder: where it was read.
      config: nested settings.
      environment: where it happened; empty where that is not known.
      values: {(axis, split, quantity): {run: {place: number}}}; the axis is "step" or one of COORDINATES (of these,
        the last step); NaN is a number that was not finite. What was measured at a layer is named "nc1@layer1".
      swept: name of the swept hyper-parameter, or "".
      groups: {swept value: runs}; {None: all runs} where nothing is swept.
      seeds: {run: seed}, as far as the rows name them.
      frozen: {run: first logged step at which it was frozen}.
      sizes: {split: samples}.
      convention: of NC1, or "".
      last: the last step of any row.
      maps: {run: row} of the last two-dimensional map of each run: "tsne_x", "tsne_y", "labels", "split".
      layers: {name: depth}, by depth; empty where nothing was measured by layer.
      dims: {name: numbers per sample}, as far as the rows tell.
      clouds: {(run, split): {step: row}} of three-dimensional features: "cloud_x", "cloud_y", "cloud_z", "labels".
      classes: {(run, split): {step: row}} of numbers by class: "class_names" and lists of the same length.
      notes: what of the folder was left out, one line each.
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
      RunFolderError: what is missing or damaged, in one line.
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
    """Groups rows by split, quantity and run; of two rows for one place the later counts."""
    swept, value_of = _swept(rows, config)
    logged: dict[tuple[str, str, str], dict[int, dict[tuple[int, Any], float]]] = {}
    clouds: dict[tuple[int, str], dict[int, dict[str, Any]]] = {}
    classes: dict[tuple[int, str], dict[int, dict[str, Any]]] = {}
    seeds: dict[int, int] = {}
    frozen: dict[int, int] = {}
    sizes: dict[str, int] = {}
    layers: dict[str, int] = {}
    dims: dict[str, int] = {}
    convention = ""
    for row in rows:
        run = row.get("run", 0)
        if "seed" in row:
            seeds[run] = row["seed"]
        if row.get("frozen"):
            frozen.setdefault(run, row["step"])
        if row["kind"] not in ("train", "eval") or row.get("frozen") or row.get("of_frozen"):
            continue
        split = BATCH if row["kind"] == "train" else row.get("split", "")
        if isinstance(row.get("n"), int):
            sizes[split] = row["n"]
        at_layer = "layer" in row
        if at_layer:
            layers[row["layer"]] = row.get("depth", 0)
            dims |= {row["layer"]: row["dim"]} if "dim" in row else {}
        if "cloud_x" in row:
            clouds.setdefault((run, split), {})[row["step"]] = row
        if "class_names" in row:
            classes.setdefault((run, split), {})[row["step"]] = row
        convention = row.get("convention") or convention
        along = (name for name in COORDINATES if name in row and name != swept and row["kind"] == "eval")
        axis = next(along, "step")
        for name in quantities(row) - {axis, swept}:
            if row[name] is None or type(row[name]) in (int, float):
                quantity = f"{name}@{row['layer']}" if at_layer else name
                places = logged.setdefault((axis, split, quantity), {}).setdefault(run, {})
                places[row["step"], row[axis]] = math.nan if row[name] is None else float(row[name])
    values = {key: {run: _places(key[0], found) for run, found in runs.items()} for key, runs in logged.items()}
    groups: dict[Any, list[int]] = {}
    for run in sorted({row.get("run", 0) for row in rows}):
        groups.setdefault(value_of.get(run), []).append(run)
    groups = dict(sorted(groups.items(), key=lambda pair: _order(pair[0])))
    last = max(row["step"] for row in rows)
    layers = dict(sorted(layers.items(), key=lambda pair: pair[1]))
    maps = {row.get("run", 0): row for row in rows if "tsne_x" in row and not row.get("frozen")}
    return RunHistory(
        folder=Path(folder),
        config=config,
        environment=environment or {},
        values=values | _derived(values),
        swept=swept,
        groups=groups,
        seeds=seeds,
        frozen=frozen,
        sizes=sizes,
        convention=convention,
        last=last,
        maps=maps,
        layers=layers,
        dims=dims,
        clouds=clouds,
        classes=classes,
        pictures={row.get("run", 0): row for row in rows if "pictures" in row},
    )


def _places(axis: str, found: Mapping[tuple[int, Any], float]) -> dict:
    """{place: number} from {(step, place): number}: a coordinate other than time counts at the last step."""
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
    """Mean over runs, half of its 95% interval (Student's t), and how many are finite; (runs, P) to (P,) each."""
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
    """The quantity over the given runs, at every place where one of them has it; None where none has.

    On the axis "swept" the place of a run is its swept value (its position, for text), and the number its last.
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
    with np.errstate(invalid="ignore"):  # of numbers near the largest there is
        return RunMeans(np.array(along, np.float64), mean, mean - half, mean + half, n)


def swept_places(history: RunHistory) -> dict[Any, list[int]]:
    """{place on the axis "swept": runs}."""
    text = any(isinstance(value, str) for value in history.groups)
    return {i if text else value: runs for i, (value, runs) in enumerate(history.groups.items())}


def limits(
    history: RunHistory, split: str, quantity: str, runs: Sequence[int], axis: str = "step"
) -> np.ndarray | None:
    """The limit at each place of `run_means`; None where the quantity has none, or it is not known."""
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
    return np.array([heights.get(place, math.nan) for place in measured.place])


def closed_limits(classes: int) -> dict[str, float]:
    """Limits that depend on the number of classes alone."""
    return {
        "log(C-1)": math.log(classes - 1),
        "C-1": float(classes - 1),
        "collapsed MIR": nc_limits(classes).mir,
        "log2(C)": math.log2(classes),
    }


def _simplex_fits(history: RunHistory, split: str) -> bool:
    """Whether the embedding has C - 1 dimensions; runs that do not say how many it has are taken to have enough."""
    found = history.values.get(("step", split, "embedding_dim"), {}).values()
    dims = [dim for of_run in found for dim in of_run.values()]
    return not dims or min(dims) >= (num_classes(history) or 0) - 1


def at_end(
    history: RunHistory, split: str, quantity: str, runs: Sequence[int], steps: Mapping[int, int] | None = None
) -> np.ndarray:
    """The quantity of each run at its last place, or at its own step of `steps`; NaN where it has none, (runs,)."""
    found = history.values.get(("step", split, quantity), {})
    ends = [found.get(run, {}) for run in runs]
    if steps is not None:
        return np.array([of_run.get(steps[run], math.nan) for run, of_run in zip(runs, ends, strict=True)])
    last = max((max(of_run) for of_run in ends if of_run), default=None)
    return np.array([of_run.get(last, math.nan) for of_run in ends])


def last_step(history: RunHistory) -> int:
    """The step of the last evaluation."""
    evaluated = (of for (a, s, _), runs in history.values.items() if a == "step" and s != BATCH for of in runs.values())
    return int(max((max(of_run) for of_run in evaluated), default=history.last))


def rested(history: RunHistory) -> bool:
    """Whether every run came to the end that its objective sets, maybe before the planned steps."""
    found = history.values.get(("step", BATCH, "resting"), {}).values()
    return bool(found) and all(of_run[max(of_run)] == 1 for of_run in found)


def at_common_steps(history: RunHistory, runs: Sequence[int], *keys: tuple[str, str]) -> dict[int, np.ndarray]:
    """{step: (runs, keys)} of the (split, quantity) that were measured at one step, of runs that have all, finite."""
    found: dict[int, list[list[float]]] = {}
    for run in runs:
        columns = [history.values.get(("step", *key), {}).get(run, {}) for key in keys]
        for step in set.intersection(*map(set, columns)):
            numbers = [column[step] for column in columns]
            if all(map(math.isfinite, numbers)):
                found.setdefault(step, []).append(numbers)
    return {step: np.array(found[step]) for step in sorted(found)}


def first_accurate(history: RunHistory, run: int, split: str, least: float = 0.99) -> int | None:
    """The first evaluation of a run with at least this accuracy; None where there is none."""
    found = history.values.get(("step", split, "accuracy"), {}).get(run, {})
    return min((k for k, x in found.items() if x >= least), default=None)


def num_classes(history: RunHistory) -> int | None:
    """C of the config, from 3 to a million, else None: no limit is drawn on a guess."""
    found = history.config.get("num_classes")
    return found if isinstance(found, int) and 3 <= found <= 10**6 else None


def first_perfect(history: RunHistory, runs: Sequence[int]) -> dict[int, int] | None:
    """{run: first evaluation at which all of the training samples are right}; None unless every run has one."""
    steps = {run: first_accurate(history, run, "train", 1) for run in runs}
    found = {run: step for run, step in steps.items() if step is not None}
    return found if found and len(found) == len(steps) else None


def splits_of(history: RunHistory, quantities: Collection[str], axis: str = "step") -> list[str]:
    """The splits on which any of the quantities was evaluated, train and test first."""
    found = dict.fromkeys(s for a, s, name in history.values if a == axis and name in quantities and s != BATCH)
    return [s for s in FIRST if s in found] + [s for s in found if s not in FIRST]
