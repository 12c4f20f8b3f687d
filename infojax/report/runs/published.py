"""A paper's tables next to one's own runs: methods by data and labels, each source ranked separately.

`TABLES` lists them; a table is a file of the paper's cells in `infojax/report/expected` and a rule that places runs.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from html import escape
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from infojax.report.runs.rows import RunHistory, mean_interval
from infojax.report.runs.selection import errors_of, selected
from infojax.report.tables.content import one_line

TABLES = ("semisup", "crossmodal", "regularized", "compression")
OURS, PAPER = "here", "paper"
EARLY = (5_000, 10_000, 25_000, 50_000, 100_000)  # steps at which no paper publishes the error
NEAR = 0.1  # how far from such a step, relative to it, an evaluation may be to stand for it
BASES = ("supervised", "freematch")  # the methods that the others are compared with, seed by seed
Place = tuple[str, Any]  # a row and a column


class Cell(NamedTuple):
    """An error in %: mean and population standard deviation over n runs (None if not reported), and a remark."""

    mean: float
    std: float
    n: int | None = None
    note: str = ""


SAME = ("steps", "model", "objective", "optimizer")  # settings that the runs of a cell should share


def expected(name: str) -> tuple[str, dict[Place, Cell]]:
    """(source, {(method, (data, labels)): `Cell`}) of a paper's table."""
    found = json.loads((files("infojax.report") / "expected" / f"{name}.json").read_text(encoding="utf-8"))
    cells = {(c["method"], (c["data"], c["labels"])): Cell(c["error"], c["std"], None, c.get("note", ""))
             for c in found["cells"]}  # fmt: skip
    return found["source"], cells


def errors_by_seed(
    histories: Sequence[RunHistory], number: Callable[[dict[int, float]], float]
) -> tuple[dict[Place, dict[tuple, float]], list[str]]:
    """({(method, (data, labels)): {(seed, draw): error}}, notes) of runs; `number` reduces {step: error} to one error.

    NaN, which means none, is left out. Of two runs with the same seed and draw of labels in one cell the later folder
    counts, with a note.
    """
    errors: dict[Place, dict[tuple, float]] = {}
    notes: list[str] = []
    first: dict[Place, RunHistory] = {}
    for history in histories:
        data, method = history.config.get("data"), history.config.get("method")
        if history.config.get("task") != "semisup" or not isinstance(data, dict) or not isinstance(method, str):
            notes.append(f"{history.folder}: not a run of semi-supervised learning, left out")
            continue
        if history.swept:
            notes.append(f"{history.folder}: a sweep of {history.swept}, left out")
            continue
        place = method, (str(data.get("name", "")), _labels(history, data))
        one = first.setdefault(place, history)
        if different := [key for key in SAME if history.config.get(key) != one.config.get(key)]:
            notes.append(f"{history.folder}: {', '.join(different)} differ from {one.folder}, in the same cell")
        for run in (run for runs in history.groups.values() for run in runs):
            value = number(errors_of(history, run))
            seed = history.seeds.get(run, history.config.get("seed", run))
            draw = data.get("labelled_seed")
            key = seed, data.get("labelled") or (seed if draw is None else draw)
            if not math.isfinite(value):
                continue
            if key in errors.setdefault(place, {}):
                notes.append(f"{history.folder}: repeats seed {key[0]} of {method}; this later run counts")
            errors[place][key] = value
    return {place: found for place, found in errors.items() if found}, notes


def cell_of(errors: Iterable[float]) -> Cell:
    """Mean and population standard deviation, as reported in the papers."""
    values = np.array(list(errors))
    return Cell(float(values.mean()), float(values.std()), len(values))


def _labels(history: RunHistory, data: Mapping[str, Any]) -> int:
    """Number of labelled samples; for a list of one's own, as many as its copy in the run folder has."""
    copy = history.folder / "labelled.txt"
    return len(copy.read_text().split()) if data.get("labelled") and copy.is_file() else data.get("labels") or 0


def deviation(cell: Cell) -> float:
    """The number behind ± unless stated otherwise."""
    return cell.std


class Grid(NamedTuple):
    """Rows and columns with their names.

    Attributes:
      sources: name -> {(row, column): `Cell`}.
      notes: one line each, below the table.
      ranked: whether the best of each column is marked.
      of: what a row is.
      half: cell -> the number behind ±, NaN for none.
      digits: after the decimal point.
    """

    title: str
    rows: list[str]
    columns: list[Any]
    sources: dict[str, dict[Place, Cell]]
    notes: list[str]
    ranked: bool = True
    of: str = "method"
    half: Callable[[Cell], float] = deviation
    digits: int = 2

    def shown(self, cell: Cell | None) -> str:
        """A cell as text, with † where it has a remark."""
        if cell is None:
            return ""
        half = math.nan if cell.n == 1 else self.half(cell)
        spread = f" ± {half:.{self.digits}f}" if math.isfinite(half) else ""
        return f"{cell.mean:.{self.digits}f}{spread}" + "†" * bool(cell.note)


def grids(name: str, histories: Sequence[RunHistory], select: str = "best") -> list[Grid]:
    """The paper's table next to the runs; their differences seed by seed; their error by step."""
    source, paper = expected(name)
    by_seed, notes = errors_by_seed(histories, lambda errors: selected(errors, select))
    ours = {place: cell_of(found.values()) for place, found in by_seed.items()}
    methods = list(dict.fromkeys(method for method, _ in [*paper, *ours]))
    columns = list(dict.fromkeys(column for _, column in [*paper, *ours]))
    notes = [
        *notes,
        f"{PAPER}: {source}",
        f"{OURS}: error on test, selection {select!r}, mean and deviation over runs",
    ]
    notes += [f"{PAPER}, {m}, {named(c)}: {cell.note}" for (m, c), cell in paper.items() if cell.note]
    table = Grid("Error, %", methods, columns, {OURS: ours, PAPER: paper}, notes)
    return [table, *(grid for grid in (differences(by_seed), by_step(histories)) if grid.rows)]


def differences(
    by_seed: Mapping[Place, Mapping[tuple, float]],
    bases: Sequence[str] = BASES,
    title: str = "Difference in error, points",
) -> Grid:
    """Difference between a method and each of `bases`: mean and half of the 95% interval over seeds."""
    found: dict[str, dict[Place, Cell]] = {f"minus {base}": {} for base in bases}
    for base in bases:
        for (method, column), errors in by_seed.items():
            other = by_seed.get((base, column), {})
            pairs = [errors[key] - other[key] for key in errors if key in other and method != base]
            if pairs:
                [mean], [half], _ = mean_interval(np.array(pairs)[:, None])
                found[f"minus {base}"][method, column] = Cell(float(mean), float(half), len(pairs))
    places = [place for cells in found.values() for place in cells]
    rows, columns = (list(dict.fromkeys(part)) for part in (zip(*places, strict=True) if places else ((), ())))
    note = "mean ± half of the 95% interval (Student's t) of the differences between runs with the same seed and labels"
    return Grid(title, rows, columns, found, [note], ranked=False)


def by_step(histories: Sequence[RunHistory]) -> Grid:
    """The error early in training, at the evaluation nearest to each step of EARLY, as listed in the notes."""
    early: dict[Place, Cell] = {}
    notes = []
    for step in EARLY:
        used: set[int] = set()
        for (method, column), found in errors_by_seed(histories, partial(error_near, step, used))[0].items():
            early[f"{method}, {named(column)}", step] = cell_of(found.values())
        if used - {step}:
            notes.append(f"{step:,}: evaluated at {', '.join(f'{k:,}' for k in sorted(used))}")
    return Grid("Error by step", list(dict.fromkeys(row for row, _ in early)), list(EARLY), {OURS: early}, notes)


def error_near(step: int, used: set[int], errors: Mapping[int, float]) -> float:
    """The error at the evaluation nearest to a step, which is added to `used`; NaN if that is too far away."""
    nearest = min(errors, key=lambda k: (abs(k - step), k), default=-1)
    if abs(nearest - step) > NEAR * step:
        return math.nan
    used.add(nearest)
    return errors[nearest]


def named(column: tuple[str, int] | int | float | str) -> str:
    """A column's heading; 0 labels means all."""
    if isinstance(column, str | float):
        return one_line(column if isinstance(column, str) else f"{column:g}")
    return one_line(f"{column[0]} {column[1] or 'all'}" if isinstance(column, tuple) else f"{column:,}")


def ranks(grid: Grid, source: str) -> dict[Place, int]:
    """{place: 1 or 2} for the lowest and second lowest mean in every column of a source; equal means share a rank."""
    found: dict[Place, int] = {}
    for column in grid.columns if grid.ranked else ():
        of_column = {place: cell.mean for place, cell in grid.sources[source].items() if place[1] == column}
        for rank, mean in enumerate(sorted(set(of_column.values()))[:2], 1):
            found |= {place: rank for place, value in of_column.items() if value == mean}
    return found


MARKS = {
    "text": {1: "{}*", 2: "{}'"},
    "markdown": {1: "**{}**", 2: "<u>{}</u>"},
    "html": {1: "<b>{}</b>", 2: "<u>{}</u>"},
}


def cells_of(grid: Grid, kind: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of text, a row per method and source; empty cells where nothing was run."""
    table = []
    for row in grid.rows:
        for source, cells in grid.sources.items():
            rank = ranks(grid, source)
            shown = []
            for column in grid.columns:
                text = grid.shown(cells.get((row, column)))
                shown.append(MARKS[kind].get(rank.get((row, column), 0), "{}").format(text))
            if any(shown):
                table.append([one_line(str(row)), source, *shown])
    return [grid.of, "source", *map(named, grid.columns)], table


def text(grid: Grid) -> str:
    """Fixed-width columns; * marks the best and ' the second best of its source and column."""
    header, rows = cells_of(grid, "text")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in (header, *rows)]
    doubtful = any(cell.note for cells in grid.sources.values() for cell in cells.values())
    legend = ["* best, ' second best of the source" + "; † see below" * doubtful] if grid.ranked else []
    return "\n".join([grid.title, *lines, *legend, *(f"  {note}" for note in grid.notes)]) + "\n"


def markdown(grid: Grid) -> str:
    """The best in bold, the second best underlined."""
    header, rows = cells_of(grid, "markdown")
    lines = [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
    return "\n".join([f"### {grid.title}", "", *lines, "", *(f"- {note}" for note in grid.notes)]) + "\n"


def html(grid: Grid) -> str:
    """A table for a page."""
    header, rows = cells_of(grid._replace(rows=[escape(str(row)) for row in grid.rows], sources={
        source: {(escape(str(row)), column): cell for (row, column), cell in cells.items()}
        for source, cells in grid.sources.items()}), "html")  # fmt: skip
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    notes = "".join(f"<li>{escape(note)}</li>" for note in grid.notes)
    return (f"<section><h2>{escape(grid.title)}</h2><div class=\"scroll\"><table><thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table></div><ul>{notes}</ul></section>")  # fmt: skip


def records(all_grids: Iterable[Grid]) -> list[dict[str, Any]]:
    """One record per cell: table, method, column, source, mean, std, n, rank, note; None where there is no number."""
    found = []
    for grid in all_grids:
        for source, cells in grid.sources.items():
            rank = ranks(grid, source)
            for (row, column), c in cells.items():
                std, place = c.std if math.isfinite(c.std) else None, rank.get((row, column))
                found.append({"table": grid.title, "method": row, "column": named(column), "source": source,
                              "mean": c.mean, "std": std, "n": c.n or None, "rank": place, "note": c.note})  # fmt: skip
    return found


def rows_of(all_grids: Iterable[Grid]) -> str:
    """CSV of `records`, empty where there is no number."""
    out = io.StringIO()
    writer = csv.DictWriter(out, ["table", "method", "column", "source", "mean", "std", "n", "rank", "note"])
    writer.writeheader()
    writer.writerows(records(all_grids))
    return out.getvalue()
