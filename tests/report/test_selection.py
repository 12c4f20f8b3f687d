"""Which evaluations an error is read from: NumPy's numbers of the rows, whatever order they came in."""

import math

import numpy as np
import pytest

from infojax.report.runs.rows import history_of
from infojax.report.runs.selection import SELECTIONS, errors_of, selected, selection_lines, selections

CONFIG = {"name": "semisup", "task": "semisup", "method": "fixmatch", "data": {"name": "digits", "labels": 40}}
ACCURACY = {
    seed: {100 * k: float(a) for k, a in enumerate(np.random.default_rng(seed).uniform(0.5, 1, 30))} for seed in (3, 4)
}


def rows_of(accuracy, average="_ema"):
    return [
        {"kind": "eval", "step": step, "time": 0.0, "run": run, "seed": seed, "split": "test", "n": 9,
         f"accuracy{average}": value, "accuracy": 0.1}
        for run, (seed, found) in enumerate(accuracy.items())
        for step, value in found.items()
    ]  # fmt: skip


def test_the_selections_are_numpys():
    history = history_of(rows_of(ACCURACY), CONFIG)
    found = {(row["seed"], row["selection"]): row["error"] for row in selections(history)}
    for seed, values in ACCURACY.items():
        errors = 100 * (1 - np.array(list(values.values())))
        last = np.sort(errors[10:])
        wanted = {"best": errors.min(), "last": errors[29], "mean_last_20": last.sum() / 20}
        wanted |= {"median_last_20": (last[9] + last[10]) / 2}
        assert {name: found[seed, name] for name in SELECTIONS} == pytest.approx(wanted, rel=1e-12)
    assert [row["evaluations"] for row in selections(history)[:4]] == [1, 1, 20, 20]


def test_a_resumed_run_reports_the_same():
    """Its rows of the steps after the checkpoint were dropped and written again."""
    rows = rows_of(ACCURACY)
    resumed = rows[:50] + rows[40:]
    assert selections(history_of(resumed, CONFIG)) == selections(history_of(rows, CONFIG))


def test_raw_weights_count_where_no_average_was_evaluated():
    history = history_of(rows_of({0: {0: 0.25, 5: 0.5}}, "_raw"), CONFIG)
    assert errors_of(history, 0) == {0: 90.0, 5: 90.0}
    assert math.isnan(selected({}, "best")) and errors_of(history, 0, "train") == {}


def test_the_terminal_names_what_each_selects_on():
    lines = "\n".join(selection_lines(history_of(rows_of({0: {0: 0.25, 5: 0.5}}), CONFIG)))
    assert "only 2 evaluations, fewer than 20" in lines
    assert "best" in lines and "the test set" in lines and "50" in lines and "62.5" in lines
