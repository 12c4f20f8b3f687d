"""Which evaluations of a run its test error is taken from: the protocols of the field, by name.

Selections are pure functions of the rows: every evaluation stays in metrics.jsonl, so that any of them can be reported
at any time, and a resumed run reports the same as an uninterrupted one.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from infojax.report.runs.rows import RunHistory
from infojax.report.runs.tables import columns, plus_minus
from infojax.report.tables.content import one_line

LAST = 20  # evaluations


class Selection(NamedTuple):
    """How the errors of all evaluations, in the order of steps, are reduced to one number.

    Attributes:
      of: errors (P,) -> number.
      selects_on: the data that the choice depends on.
      source: who reports it.
    """

    of: Callable
    selects_on: str
    source: str


SELECTIONS = {
    "best": Selection(np.min, "the test set: the lowest of all evaluations", "TorchSSL, and the papers' tables"),
    "last": Selection(lambda errors: errors[-1], "nothing", "TorchSSL's averaging script"),
    "mean_last_20": Selection(lambda errors: np.mean(errors[-LAST:]), "nothing", "TorchSSL's averaging script"),
    "median_last_20": Selection(lambda errors: np.median(errors[-LAST:]), "nothing", "FixMatch's own code"),
}


def several(history: RunHistory) -> bool:
    """Whether the task is one whose published numbers depend on the selection."""
    return history.config.get("task") == "semisup"


def errors_of(history: RunHistory, run: int, split: str = "test") -> dict[int, float]:
    """{step: error in %} of a run, with averaged weights where these were evaluated: what the field reports."""
    for quantity in ("error_ema", "error"):
        found = history.values.get(("step", split, quantity), {}).get(run)
        if found:
            return {step: error for step, error in found.items() if math.isfinite(error)}
    return {}


def selected(errors: Mapping[int, float], name: str) -> float:
    """The number that a selection gives for {step: error}; NaN if empty."""
    values = np.array([errors[step] for step in sorted(errors)])
    return float(SELECTIONS[name].of(values)) if len(values) else math.nan


def selections(history: RunHistory, split: str = "test") -> list[dict]:
    """A row per run and selection: "run", "seed", "selection", "error", "evaluations", "selects_on", "source"."""
    rows = []
    for run in (run for runs in history.groups.values() for run in runs):
        errors = errors_of(history, run, split)
        for name, selection in SELECTIONS.items() if errors else ():
            used = 1 if name in ("best", "last") else min(LAST, len(errors))
            found: dict[str, Any] = {"run": run, "seed": history.seeds.get(run, ""), "split": split, "selection": name}
            found |= {"error": selected(errors, name), "evaluations": used}
            rows.append(found | {"selects_on": selection.selects_on, "source": selection.source})
    return rows


def selections_table(history: RunHistory, split: str = "test") -> tuple[list[str], list[list[str]]]:
    """Header and rows, one per selection: mean ± half of the 95% interval over the runs of each group."""
    groups = list(history.groups.items())
    named = [f"{history.swept} = {one_line(value)}" if history.swept else "error (%)" for value, _ in groups]
    rows = []
    for name, selection in SELECTIONS.items():
        found = [[selected(errors, name) for run in runs if (errors := errors_of(history, run, split))]
                 for _, runs in groups]  # fmt: skip
        if any(found):
            rows.append([name, *map(plus_minus, found), selection.selects_on, selection.source])
    return ["selection", *named, "selects on", "reported by"], rows


def selection_lines(history: RunHistory, split: str = "test") -> list[str]:
    """The selections as text for the terminal."""
    header, rows = selections_table(history, split)
    counts = [len(errors_of(history, run, split)) for runs in history.groups.values() for run in runs]
    few = f"; only {min(counts)} evaluations, fewer than {LAST}" if rows and min(counts) < LAST else ""
    return (
        ["", f"Error on {split}, by evaluation{few}", *columns([header[:-1], *(r[:-1] for r in rows)])] if rows else []
    )
