"""Tables of one run each in the papers: the last evaluation of one's own runs next to the paper's cells.

A table is a row of `STUDIES`: the cells are in `infojax/report/expected/NAME.json`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from infojax.report.runs.published import OURS, PAPER, Cell, Grid, Place, cell_of, differences
from infojax.report.runs.rows import RunHistory, at_end


class Study(NamedTuple):
    """How runs find their place in a table.

    Attributes:
      configs: names of the configs whose runs belong in it.
      row: section and key of the setting that names a row.
      numbers: number of a cell -> (title, factor from the run's unit, digits).
      base: the row that the others are compared with, seed by seed; "" for none.
      usual: choice -> its value in the paper; another value is added to the row's name.
    """

    configs: tuple[str, ...]
    row: tuple[str, str]
    numbers: Mapping[str, tuple[str, float, int]]
    base: str = ""
    usual: Mapping[str, str] = {}


ACCURACY = ("Accuracy on test, %", 100.0, 2)
STUDIES = {
    "regularized": Study(("regularized", "interplay"), ("objective", "term"), {"accuracy": ACCURACY}, "off"),
    "compression": Study(
        ("compression",),
        ("model", "name"),
        {"accuracy": ACCURACY, "loss": ("Loss on test", 1.0, 3)},
        usual={"labels": "true", "variant": "text"},
    ),
}
SAME = ("steps", "model", "objective", "optimizer")  # settings that the runs of a cell should share


def grids(name: str, histories: Sequence[RunHistory]) -> list[Grid]:
    """The paper's table next to the last evaluation of the runs, and differences seed by seed."""
    study = STUDIES[name]
    record = json.loads((files("infojax.report") / "expected" / f"{name}.json").read_text(encoding="utf-8"))
    found = []
    for quantity, (title, scale, digits) in study.numbers.items():
        by_seed, notes = values_by_seed(study, histories, quantity, scale)
        ours = {place: cell_of(values.values()) for place, values in by_seed.items()}
        paper = {(c["method"], c["data"]): Cell(c[quantity], math.nan, 1) for c in record["cells"]}
        rows, columns = (list(dict.fromkeys(place[k] for place in [*paper, *ours])) for k in (0, 1))
        notes += [f"{PAPER}: {record['source']}", f"{OURS}: last evaluation, mean and deviation over runs"]
        sources = {OURS: ours, PAPER: paper}
        found.append(Grid(title, rows, columns, sources, notes, ranked=False, of=study.row[1], digits=digits))
        if study.base:
            found.append(differences(by_seed, (study.base,), f"Difference: {title}"))
    return [grid for grid in found if grid.rows]


def values_by_seed(
    study: Study, histories: Sequence[RunHistory], quantity: str, scale: float
) -> tuple[dict[Place, dict[tuple, float]], list[str]]:
    """({(row, data): {(seed,): number}}, notes). Of two runs with the same seed in one cell the later folder counts."""
    values: dict[Place, dict[tuple, float]] = {}
    first: dict[Place, RunHistory] = {}
    notes = []
    for history in histories:
        config, row = history.config, _row(study, history.config)
        if config.get("name") not in study.configs or not row:
            notes.append(f"{history.folder}: not a run of {' or '.join(study.configs)}, left out")
            continue
        for value, runs in history.groups.items():
            place = f"{row}, {history.swept} {value}" if history.swept else row, str(config["data"].get("name", ""))
            one = first.setdefault(place, history)
            if different := [key for key in SAME if config.get(key) != one.config.get(key)]:
                notes.append(f"{history.folder}: {', '.join(different)} differ from {one.folder}, in the same cell")
            for run in runs:
                number = scale * float(at_end(history, "test", quantity, [run])[0])
                seed = history.seeds.get(run, config.get("seed", run))
                if not math.isfinite(number):
                    notes.append(f"{history.folder}: run {run} has no {quantity} on test, left out")
                    continue
                if (seed,) in values.setdefault(place, {}):
                    notes.append(f"{history.folder}: repeats seed {seed} of {place[0]}; this later run counts")
                values[place][seed,] = number
    return {place: found for place, found in values.items() if found}, notes


def _row(study: Study, config: Mapping[str, Any]) -> str:
    """The name of a run's row; "" if its settings do not have it."""
    section, key = (config.get(study.row[0]), study.row[1])
    if not isinstance(section, dict) or not isinstance(config.get("data"), dict) or key not in section:
        return ""
    chosen = config.get("chosen") or {}
    unusual = [f"{key} {chosen[key]}" for key, usual in study.usual.items() if chosen.get(key, usual) != usual]
    return ", ".join([str(section[key]), *unusual])
