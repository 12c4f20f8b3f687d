"""Text tables of runs: the last evaluation with its interval over seeds, warnings, and settings that differ."""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from infojax.measures.catalogue import CATALOGUE, USABLE, measure_of, shown_in
from infojax.report.runs.progress import by_epochs, finished, last_step, planned, untrained, when
from infojax.report.runs.rows import (
    FIRST,
    RunHistory,
    at_end,
    first_accurate,
    first_perfect,
    limits,
    mean_interval,
    splits_of,
)
from infojax.report.tables.content import format_value, one_line
from infojax.train.runlog import flat

if TYPE_CHECKING:  # it loads matplotlib
    from infojax.report.runs.curves import Method

ABSENT = "absent"
SUMMARY, BRIEF = shown_in("summary"), shown_in("brief")
BY_LAYER = {name: measure.column for name, measure in CATALOGUE.items() if measure.by_layer}


def facts(history: RunHistory) -> str:
    """Data, model, number of seeds, and samples per split."""
    sizes = ", ".join(f"{split} n = {n:,}" for split, n in history.sizes.items() if split)
    parts = (data_and_model(history), sizes, counted(history, history.groups.values()), _path(history))
    return "; ".join(filter(None, parts))


def _path(history: RunHistory) -> str:
    """The ends of a linear path between two networks."""
    found = history.config.get("path")
    if not isinstance(found, dict):
        return ""
    fork = f", one until step {found['fork']:,}" * bool(found.get("fork"))
    return f"{found.get('init')} beginning{fork}, {found.get('weights')} weights"


def counted(history: RunHistory, groups: Iterable[Sequence[int]]) -> str:
    """The number of seeds in groups of runs, and of networks if a seed has several."""
    groups = list(groups)
    seeds, networks = span(_seeds(history, runs) for runs in groups), span(len(runs) for runs in groups)
    text = f"{seeds} seed{'' if seeds == '1' else 's'}"
    return text if networks == seeds else f"{text} of {networks} networks"


def _seeds(history: RunHistory, runs: Sequence[int]) -> int:
    return len({history.seeds.get(run, run) for run in runs})


def data_and_model(history: RunHistory) -> str:
    """The names of data and model, as far as the config has them."""
    return ", ".join(filter(None, (_named(history, "data"), _named(history, "model"))))


def span(numbers: Iterable[int]) -> str:
    """A single number, or "least to most"; empty if there are none."""
    numbers = sorted(numbers)
    return " to ".join(f"{n:,}" for n in dict.fromkeys(numbers[:1] + numbers[-1:]))


def _named(history: RunHistory, part: str) -> str:
    settings = history.config.get(part)
    return one_line(settings.get("name", "") if isinstance(settings, dict) else settings or "")


def title_of(history: RunHistory) -> str:
    """The config's name, or the folder's."""
    return one_line(history.config.get("name") or history.folder.absolute().name)


def plus_minus(values: Sequence[float] | np.ndarray) -> str:
    """Mean ± half of the 95% interval over runs; a single run's number by itself; empty if there are none."""
    if not len(values):
        return ""
    [mean], [half], _ = mean_interval(np.asarray(values)[:, None])
    return format_value(mean, 4) + (f" ± {format_value(half, 2)}" if math.isfinite(half) else "")


def value_cell(
    history: RunHistory, split: str, quantity: str, runs: Sequence[int], steps: Mapping[int, int] | None = None
) -> str:
    """`plus_minus` at the end, or at each run's own step; empty where nothing was measured."""
    if not history.values.get(("step", split, quantity), {}).keys() & set(runs):
        return ""
    values = at_end(history, split, quantity, runs, steps)
    return plus_minus(values) if steps is None or np.isfinite(values).any() else ""


def limit_cell(history: RunHistory, split: str, quantity: str, runs: Sequence[int]) -> str:
    """The limit at the end; empty if there is none."""
    found = limits(history, split, quantity, runs)
    return "" if found is None or not math.isfinite(found[-1]) else format_value(found[-1], 4)


CELLS: tuple[Callable[..., str], ...] = (value_cell, limit_cell)  # a quantity on a split, and its limit


def summary_tables(history: RunHistory) -> list[tuple[str, list[str], list[list[str]]]]:
    """(heading, header, rows) of the last evaluation: a row per quantity; with a sweep, a table per split."""
    splits, groups = splits_of(history, SUMMARY), list(history.groups.items())
    if history.swept:
        tables = ((split, *without_empty(*_swept_table(history, split, groups))) for split in splits)
        return [table for table in tables if table[2]]
    [(_, runs)] = groups
    perfect = first_perfect(history, runs)
    header = ["quantity", *(name for split in splits for name in (split, "limit"))]
    header += [f"{split} at 100%" for split in splits if perfect]
    rows = []
    for quantity in SUMMARY:
        cells = [f(history, split, quantity, runs) for split in splits for f in CELLS]
        cells += [value_cell(history, split, quantity, runs, perfect) for split in splits if perfect]
        rows.append([CATALOGUE[quantity].label, *cells])
    header, rows = without_empty(header, rows)
    return [("", header, rows)] if rows else []


def _swept_table(history, split, groups):
    rows = [
        [CATALOGUE[quantity].label, *(value_cell(history, split, quantity, runs) for _, runs in groups)]
        for quantity in SUMMARY
    ]
    return [history.swept, *(_valued(history, *group) for group in groups)], rows


def _valued(history: RunHistory, value: object, runs: Sequence[int]) -> str:
    """A swept value, with the step of its last evaluation where others have a later one."""
    step = last_step(history, runs)
    return one_line(value) + f" (step {step:,})" * (step < last_step(history))


def without_empty(
    header: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1
) -> tuple[list[str], list[list[str]]]:
    """The table without the columns, and then the rows, that are empty but for their first `names` cells."""
    kept = [i for i in range(len(header)) if i < names or any(row[i] for row in rows)]
    found = [[row[i] for i in kept] for row in rows]
    return [header[i] for i in kept], [row for row in found if any(row[names:])]


def seeds_tables(history: RunHistory) -> list[tuple[str, list[str], list[list[str]]]]:
    """(split, header, rows) of the last evaluation of each run."""
    tables = []
    for split in splits_of(history, SUMMARY):
        present = [name for name in SUMMARY if ("step", split, name) in history.values]
        header = ["run", "seed", *[history.swept] * bool(history.swept), *(CATALOGUE[name].label for name in present)]
        rows = []
        for value, runs in history.groups.items():
            for run in runs:
                name = f"{run}, frozen from step {history.frozen[run]:,}" if run in history.frozen else str(run)
                named = [name, str(history.seeds.get(run, "")), *[one_line(value)] * bool(history.swept)]
                rows.append([*named, *(value_cell(history, split, name, [run]) for name in present)])
        tables.append((split, *without_empty(header, rows, 2 + bool(history.swept))))
    return tables


def layers_tables(history: RunHistory) -> list[tuple[str, list[str], list[list[str]]]]:
    """(heading, header, rows) of the layers' last evaluation: a row per layer, and equi-separation below NC1.

    The heading names the quantities that were last measured at an earlier evaluation.
    """
    tables = []
    for value, runs in history.groups.items():
        columns = {(name, split): _measured(history, split, name, runs) for name in BY_LAYER for split in FIRST}
        columns = {column: steps for column, steps in columns.items() if steps}
        if not columns:
            continue
        header = ["layer", "depth", *["dim"] * bool(history.dims), *(f"{BY_LAYER[name]} {s}" for name, s in columns)]
        rows = []
        for layer, depth in history.layers.items():
            dim = [f"{history.dims[layer]:,}" if layer in history.dims else ""] * bool(history.dims)
            cells = (value_cell(history, split, f"{name}@{layer}", runs) for name, split in columns)
            rows.append([one_line(layer), str(depth), *dim, *cells])
        ratio = [value_cell(history, s, "equi_separation", runs) if name == "nc1" else "" for name, s in columns]
        if any(ratio):
            rows.append([measure_of("equi_separation").label, *[""] * (len(header) - 1 - len(ratio)), *ratio])
        of = [f"{history.swept} = {one_line(value)}"] * bool(history.swept)
        of += ["information in bits"] * any(CATALOGUE[name].unit == "bits" for name, _ in columns)
        header, rows = without_empty(header, rows, 2 + bool(history.dims))
        tables.append(("; ".join(["Layers", *of, *_earlier(history, columns)]), header, rows))
    return tables


def _measured(history: RunHistory, split: str, name: str, runs: Sequence[int]) -> list[int]:
    """The steps at which runs have a quantity at any layer."""
    keys = [("step", split, f"{name}@{layer}") for layer in history.layers]
    return sorted({step for key in keys for run in runs for step in history.values.get(key, {}).get(run, ())})


def _earlier(history: RunHistory, columns: Mapping[tuple[str, str], list[int]]) -> list[str]:
    """The quantities that were last measured before the last evaluation, and when."""
    found: dict[int, dict[str, None]] = {}
    for (name, _), steps in columns.items():
        if steps[-1] < last_step(history):
            found.setdefault(steps[-1], {})[BY_LAYER[name]] = None
    return [f"{' and '.join(names)} of {when(history, step)}" for step, names in found.items()]


PHASED = ("mir", "hdr", "entropy_features", "entropy_head_weights")


def phases_table(history: RunHistory, split: str = "test") -> tuple[list[str], list[list[str]]]:
    """Header and rows, one per run: when it memorised and generalised, with values at, before and after those steps.

    A quantity that was not evaluated at a step is taken from its next evaluation.
    """
    names = [name for name in PHASED if ("step", split, name) in history.values]
    header = ["run", "memorised", "generalised"]
    header += [
        f"{CATALOGUE[name].label} {when}" for name in names for when in ("at 0", "memorised", "generalised", "end")
    ]
    rows = []
    for run in (run for runs in history.groups.values() for run in runs):
        steps = [first_accurate(history, run, part) for part in ("train", "test")]
        cells = [f"seed {history.seeds[run]}" if run in history.seeds else str(run)]
        cells += ["never" if step is None else f"{step:,}" for step in steps]
        for name in names:
            of_run = history.values["step", split, name].get(run, {})
            for step in (0, *steps, history.last):
                later = [] if step is None else [place for place in of_run if place >= step]
                cells.append(format_value(of_run[min(later)], 3) if later else "")
        rows.append(cells)
    return without_empty(header, rows)


def warnings_of(history: RunHistory) -> list[str]:
    """What a reader should know before looking at the numbers."""
    found = list(history.notes)
    for run, step in history.frozen.items():
        seed = f" (seed {history.seeds[run]})" if run in history.seeds else ""
        others = any(run in runs and set(runs) - history.frozen.keys() for runs in history.groups.values())
        rest = "means are over the other runs" if others else "what is shown of it was measured before"
        found.append(f"run {run}{seed} became NaN or Inf and is frozen from step {step:,}: {rest}")
    for (axis, split, quantity), runs in history.values.items():
        name, _, layer = quantity.partition("@")
        numbers = [value for of_run in runs.values() for value in of_run.values()]
        below = sum(value < 0 for value in numbers)
        if axis == "step" and layer and measure_of(name).group == USABLE and below:
            found.append(
                f"{name} of {layer} on {split} is negative at {below} of {len(numbers)} measurements: a decoder "
                "worse than chance; reported as measured"
            )
    if not finished(history):
        evaluated = f", the last evaluation at {last_step(history):,}" * (last_step(history) < history.last)
        found.append(f"not finished: the last row is at step {history.last:,} of {planned(history):,}{evaluated}")
    return found


def last_evaluation(history: RunHistory) -> str:
    """Step and epoch of the last evaluation, and the meaning of ±."""
    step = last_step(history)
    epoch = f" ({when(history, step)})" if by_epochs(history) else ""
    epoch += ", before training" * untrained(history)
    many = max(len(runs) for runs in history.groups.values()) > 1
    unit = "seeds" if all(_seeds(history, runs) == len(runs) for runs in history.groups.values()) else "networks"
    return f"step {step:,}{epoch}" + (f"; mean ± half of the 95% interval over {unit}" if many else "")


def text_lines(history: RunHistory) -> list[str]:
    """The last evaluation in brief, in fixed-width columns; a block per swept value."""
    lines = [f"{title_of(history)}: {facts(history)}", last_evaluation(history)]
    for value, runs in history.groups.items():
        lines += ["", f"{history.swept} = {_valued(history, value, runs)}"] if history.swept else []
        splits = splits_of(history, BRIEF)
        table = [["", *(name for split in splits for name in (split, "limit"))]]
        for name in BRIEF:
            cells = [f(history, split, name, runs) for split in splits for f in CELLS]
            table += [[CATALOGUE[name].label, *cells]] if any(cells) else []
        lines += columns(table) if len(table) > 1 else ["  nothing evaluated"]
    for heading, header, rows in layers_tables(history):
        lines += ["", heading, *columns([header, *rows])]
    if phased(history):
        header, rows = phases_table(history)
        lines += [
            "",
            "99% accuracy on train (memorised), on test (generalised)",
            *columns([header[:3], *(r[:3] for r in rows)]),
        ]
    return [*lines, *(f"! {warning}" for warning in warnings_of(history))]


def phased(history: RunHistory) -> bool:
    """Whether the task distinguishes memorisation from generalisation."""
    return history.config.get("task") == "grokking"


def columns(table: Iterable[Sequence[str]]) -> list[str]:
    """Pads cells to the widest of their column, left-aligning the first; columns without numbers are dropped."""
    kept = [column for i, column in enumerate(zip(*table, strict=True)) if i == 0 or any(column[1:])]
    widths = [max(map(len, column)) for column in kept]
    rows = zip(*kept, strict=True)
    padded = [
        [c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))] for row in rows
    ]
    return ["  " + "  ".join(row).rstrip() for row in padded]


# Several runs


def labels_of(folders: Iterable[str | Path]) -> list[str]:
    """Names that distinguish folders: their paths without their common beginning and end."""
    paths = [Path(folder).absolute().parts for folder in folders]
    start = len(os.path.commonprefix(paths))
    cut = [path[start:] for path in paths]
    while all(len(path) > 1 for path in cut) and len({path[-1] for path in cut}) == 1:
        cut = [path[:-1] for path in cut]
    labels = ["/".join(path) or full[-1] for path, full in zip(cut, paths, strict=True)]
    return labels if len(set(labels)) == len(labels) else [str(Path(*path)) for path in paths]


def differing(histories: Sequence[RunHistory], labels: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the settings that differ between runs."""
    settings = [dict(flat(history.config)) for history in histories]
    keys = dict.fromkeys(key for of_run in settings for key in of_run)
    rows = [[key, *(str(of_run.get(key, ABSENT)) for of_run in settings)] for key in sorted(keys)]
    return ["setting", *labels], [row for row in rows if len(set(row[1:])) > 1]


def final_table(
    methods: "Sequence[Method]", split: str, quantities: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a row per method, a column per quantity that any has, and the steps where these differ."""
    rows = [[m.label, *(value_cell(m.history, split, name, m.runs) for name in quantities)] for m in methods]
    kept = [i for i in range(len(quantities)) if any(row[i + 1] for row in rows)]
    steps = [f"{last_step(m.history, m.runs):,}" for m in methods]
    differ = len(set(steps)) > 1
    header = ["run", "seeds", *["step"] * differ, *(CATALOGUE[quantities[i]].label for i in kept)]
    cells = [
        [row[0], str(len(m.runs)), *[step] * differ, *(row[i + 1] for i in kept)]
        for row, m, step in zip(rows, methods, steps, strict=True)
    ]
    return header, [row for row in cells if any(row[2 + differ :])]
