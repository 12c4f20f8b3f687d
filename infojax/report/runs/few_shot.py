"""Table 1 of Song et al. 2024 next to one's own runs: few-shot, base to novel classes, similarities.

The printed intervals are 1.96 population standard deviations divided by the square root of the number of seeds
(skingorz/CMA); the cells of one's own runs use the same formula, so that the two can be compared. For three seeds,
Student's t interval, which the pages of runs show, is 2.7 times as wide.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from infojax.report.runs.published import OURS, PAPER, Cell, Grid, cell_of
from infojax.report.runs.rows import RunHistory, at_end, mean_interval

SETS = (
    "caltech101", "dtd", "eurosat", "fgvc_aircraft", "food101", "imagenet", "oxford_flowers", "oxford_pets",
    "stanford_cars", "sun397", "ucf101",
)  # fmt: skip
AVERAGE = "average of the eleven"
SIMILARITIES = ("class_similarity", "modal_similarity", "hardest_similarity")
FORMULA = "± is 1.96 times the population standard deviation over runs, divided by the square root of their number"
SAME = ("steps", "model", "weights", "prompt", "optimizer", "towers")  # settings that the runs of a cell should share


def interval(cell: Cell) -> float:
    """Half the width of the interval as the paper prints it."""
    return 1.96 * cell.std / math.sqrt(cell.n) if cell.n and cell.n > 1 else math.nan


class Result(NamedTuple):
    """The final numbers of one run.

    Attributes:
      data: name of the data set.
      family: "CoOp", "CoCoOp" or "zero-shot".
      shots: training images per class.
      weight: weight of CMA in the loss.
      novel: whether half of the classes were held out.
      seed: seed of the run.
      numbers: (split, quantity) -> value.
    """

    data: str
    family: str
    shots: int
    weight: float
    novel: bool
    seed: Any
    numbers: dict[tuple[str, str], float]


def results(histories: Sequence[RunHistory]) -> tuple[list[Result], list[str]]:
    """(one `Result` per run, notes). Of two runs with the same cell and seed the later folder counts, with a note."""
    found: dict[tuple, Result] = {}
    first: dict[tuple, RunHistory] = {}
    notes = []
    for history in histories:
        config = history.config
        if config.get("task") != "crossmodal" or history.swept not in ("", "weight"):
            reason = f"a sweep of {history.swept}" if config.get("task") == "crossmodal" else "not a cross-modal run"
            notes.append(f"{history.folder}: {reason}, left out")
            continue
        for value, runs in history.groups.items():
            for run in runs:
                one = _result(history, run, value)
                if one is None:
                    notes.append(f"{history.folder}: run {run} has no accuracy on test, left out")
                    continue
                place = one[:-1]
                if place in found:
                    notes.append(
                        f"{history.folder}: repeats seed {one.seed} of {cell_name(one)}; this later run counts"
                    )
                found[place] = one
                other = first.setdefault(place[:-1], history)
                if different := [key for key in SAME if config.get(key) != other.config.get(key)]:
                    note = f"{history.folder}: {', '.join(different)} differ from {other.folder}, in the same cell"
                    notes += [note] * (note not in notes)
    return list(found.values()), notes


def _result(history: RunHistory, run: int, value: Any) -> Result | None:
    config = history.config
    data, objective, method = config.get("data") or {}, config.get("objective") or {}, str(config.get("method"))
    name, template = str(data.get("name", "")), data.get("template")
    weight = objective.get("weight", 0.0) if value is None else value
    weight = 0.0 if objective.get("alignment") == "off" else float(weight)
    splits = ("test", "novel")
    numbers = {(s, q): float(at_end(history, s, q, [run])[0]) for s in splits
               for q in ("accuracy", "accuracy_zero_shot", "harmonic_mean", *SIMILARITIES)}  # fmt: skip
    numbers = {key: number for key, number in numbers.items() if math.isfinite(number)}
    if ("test", "accuracy") not in numbers:
        return None
    family = "zero-shot" if method == "zero_shot" else "CoCoOp" if method.startswith("cocoop") else "CoOp"
    return Result(
        template if template in SETS else name, family, int(config.get("shots", 0)), weight,
        data.get("classes") == "base_to_novel", history.seeds.get(run, config.get("seed", run)), numbers,
    )  # fmt: skip


def cell_name(one: Result) -> str:
    """The description of a cell."""
    return f"{one.data}, {one.family}, {one.shots} shots, weight {one.weight:g}"


def gathered(
    found: Iterable[Result], number: tuple[str, str], place: Callable[[Result], Any], scale: float = 100
) -> dict[Any, Cell]:
    """{place: `Cell`} of one number, over the results that have it."""
    values: dict[Any, list[float]] = {}
    for one in found:
        if number in one.numbers:
            values.setdefault(place(one), []).append(scale * one.numbers[number])
    return {where: cell_of(own) for where, own in values.items()}


# The paper's cells


def expected() -> dict[str, Any]:
    """The paper's table as recorded."""
    return json.loads((files("infojax.report") / "expected" / "crossmodal.json").read_text(encoding="utf-8"))


def paper_cell(cell: Mapping[str, Any]) -> Cell:
    """A printed cell; the standard deviation follows from the interval and the three seeds."""
    return Cell(cell["accuracy"], cell.get("ci", math.nan) * math.sqrt(3) / 1.96, 3 if "ci" in cell else 1)


def column_of(method: str, shots: int) -> str:
    """The column of a method in the few-shot table."""
    return "zero-shot" if method == "zero_shot" else f"{'CMA' if method == 'coop_cma' else 'CoOp'} {shots}"


def averaged(cells: dict[tuple[str, Any], Cell]) -> dict[tuple[str, Any], Cell]:
    """The cells plus a row of means over the eleven data sets, for columns in which all are present."""
    columns = dict.fromkeys(column for _, column in cells)
    means = {
        (AVERAGE, column): Cell(float(np.mean([cells[name, column].mean for name in SETS])), math.nan)
        for column in columns if all((name, column) in cells for name in SETS)
    }  # fmt: skip
    return cells | means


def slips(printed: Mapping[str, Sequence[float]], cells: Mapping[tuple[str, Any], Cell]) -> list[str]:
    """Notes on the paper's averages that do not follow from its cells."""
    notes = []
    for method, values in printed.items():
        for shots, value in zip((0,) if method == "zero_shot" else (1, 2, 4, 8, 16), values, strict=True):
            mean = cells[AVERAGE, column_of(method, shots)].mean
            if abs(mean - value) > 0.0051:
                notes.append(f"{PAPER}: prints an average of {value:.2f} for {column_of(method, shots)}; "
                             f"its cells give {mean:.2f}, which is shown")  # fmt: skip
    return notes


# Grids


def grids(histories: Sequence[RunHistory], select: str = "last") -> list[Grid]:
    """The paper's table and one's own runs: in distribution, base to novel, differences, similarities.

    Args:
      select: has no effect: prompts are measured at their last step, as in CoOp.
    """
    found, notes = results(histories)
    record = expected()
    return [
        in_distribution([one for one in found if not one.novel], record, notes),
        *by_weight([one for one in found if not one.novel], "Accuracy by weight of CMA, %", ("test", "accuracy"), {}),
        *differences([one for one in found if not one.novel], record),
        *base_to_novel([one for one in found if one.novel], record),
        similarities(found, record),
    ]


def in_distribution(found: Sequence[Result], record: Mapping[str, Any], notes: Sequence[str]) -> Grid:
    """Accuracy by data set and shots: zero-shot CLIP, and prompts with and without CMA; our weights as sources."""
    paper = averaged({
        (cell["data"], column_of(cell["method"], cell["shots"])): paper_cell(cell)
        for cell in record["cells"] if cell["table"] == "in_distribution"
    })  # fmt: skip
    weights = sorted({one.weight for one in found if one.weight})

    def source(one):
        family = "" if one.family in ("CoOp", "zero-shot") else f", {one.family}"
        return f"{OURS}{family}" + f", weight {one.weight:g}" * (one.weight > 0 and len(weights) > 1)

    def place(one):
        method = "zero_shot" if one.family == "zero-shot" else "coop_cma" if one.weight else "coop"
        return source(one), (one.data, column_of(method, one.shots))

    ours: dict[str, dict[tuple[str, Any], Cell]] = {}
    free = gathered(found, ("test", "accuracy_zero_shot"), lambda one: (OURS, (one.data, "zero-shot")))
    free = {where: cell._replace(std=0.0, n=1) for where, cell in free.items()}  # zero-shot does not depend on seeds
    for (name, where), cell in (free | gathered(found, ("test", "accuracy"), place)).items():
        ours.setdefault(name, {})[where] = cell
    columns = list(dict.fromkeys(column for _, column in paper))
    columns += [c for cells in ours.values() for _, c in cells if c not in columns]
    rows = [*dict.fromkeys([*SETS, *(row for cells in ours.values() for row, _ in cells)]), AVERAGE]
    of_one = f"; weight of CMA {weights[0]:g}" if len(weights) == 1 else ""
    notes = [
        *notes, f"{PAPER}: {record['source']}", FORMULA, *slips(record["averages"], paper),
        f"{OURS}: accuracy on test after the last step{of_one}",
    ]  # fmt: skip
    sources = {name: averaged(cells) for name, cells in sorted(ours.items())} | {PAPER: paper}
    return Grid(
        "In distribution: accuracy, %", rows, list(dict.fromkeys(columns)), sources, notes, False, "data", interval
    )


def by_weight(
    found: Sequence[Result], title: str, number: tuple[str, str], paper: dict[tuple[str, Any], Cell],
    notes: Sequence[str] = (),
) -> list[Grid]:  # fmt: skip
    """A grid of one number by weight of CMA; empty if neither we nor the paper have it."""
    learnt = [one for one in found if one.family != "zero-shot"]
    several = len({one.shots for one in learnt}) > 1

    def place(one):
        row = f"{one.data}, {one.shots} shots" if several else one.data
        return f"{OURS}, {one.family}", (row, one.weight)

    ours: dict[str, dict[tuple[str, Any], Cell]] = {}
    for (name, where), cell in gathered(learnt, number, place).items():
        ours.setdefault(name, {})[where] = cell
    if not ours and not paper:
        return []
    every = [*ours.values(), *([paper] if paper else [])]
    rows = list(dict.fromkeys(row for cells in every for row, _ in cells if row != AVERAGE))
    columns = sorted({column for cells in every for _, column in cells})
    sources = {name: averaged(cells) for name, cells in sorted(ours.items())}
    sources |= {PAPER: averaged(paper)} if paper else {}
    rows += [AVERAGE] * any((AVERAGE, column) in cells for cells in sources.values() for column in columns)
    return [Grid(title, rows, columns, sources, [*notes, FORMULA], False, "data", interval)]


def base_to_novel(found: Sequence[Result], record: Mapping[str, Any]) -> list[Grid]:
    """Accuracy on novel classes next to the paper's, and on base classes and harmonic mean, which it does not give."""
    paper = {
        (cell["data"], cell["weight"]): paper_cell(cell) for cell in record["cells"] if cell["table"] == "base_to_novel"
    }
    which = (
        f"{PAPER}: 16 shots, ViT-B/16; novel classes only. Its released trainer of this name is CoOp with a batch size "
        "of one; the cells at weight 0 resemble CoCoOp's"
    )
    return [
        *by_weight(found, "Base to novel: accuracy on novel classes by weight of CMA, %", ("novel", "accuracy"), paper,
                   [which]),
        *by_weight(found, "Base to novel: accuracy on base classes by weight of CMA, %", ("test", "accuracy"), {}),
        *by_weight(found, "Base to novel: harmonic mean of both by weight of CMA, %", ("novel", "harmonic_mean"), {}),
    ]  # fmt: skip


def differences(found: Sequence[Result], record: Mapping[str, Any]) -> list[Grid]:
    """With CMA minus without, seed by seed, and the paper's differences of means."""
    values = {one[:-1]: one.numbers["test", "accuracy"] for one in found if one.family != "zero-shot"}
    pairs: dict[tuple[str, Any], list[float]] = {}
    for one in found:
        without = values.get(one._replace(weight=0.0)[:-1])
        if one.weight and without is not None:
            row = f"{one.data}, {one.family}, {one.shots} shots"
            pairs.setdefault((row, one.weight), []).append(100 * (one.numbers["test", "accuracy"] - without))
    if not pairs:
        return []
    half = {place: mean_interval(np.array(own)[:, None])[1][0] for place, own in pairs.items()}
    cells = {place: cell_of(own) for place, own in pairs.items()}
    table = [cell for cell in record["cells"] if cell["table"] == "in_distribution"]
    printed = {(cell["data"], cell["method"], cell["shots"]): cell["accuracy"] for cell in table}
    notes = ["± is half of Student's 95% interval of the differences between runs with the same seed and shots"]
    notes += [
        f"{PAPER}, mean over the eleven sets, {k} shots: "
        f"{np.mean([printed[s, 'coop_cma', k] - printed[s, 'coop', k] for s in SETS]):+.2f}"
        for k in (1, 2, 4, 8, 16)
    ]
    by_cell = {id(cell): half[place] for place, cell in cells.items()}
    rows, columns = list(dict.fromkeys(row for row, _ in cells)), sorted({column for _, column in cells})
    return [Grid("With CMA minus without, points of accuracy, by weight", rows, columns, {OURS: cells}, notes, False,
                 "data", lambda cell: float(by_cell.get(id(cell), math.nan)))]  # fmt: skip


def similarities(found: Sequence[Result], record: Mapping[str, Any]) -> Grid:
    """Mean cosines of test images with the class texts, by weight of CMA."""
    sources: dict[str, dict[tuple[str, Any], Cell]] = {}
    for quantity in SIMILARITIES:

        def place(one, quantity=quantity):
            classes = ", base classes" * one.novel
            return f"{OURS}, {one.data}{classes}, {one.family}, {one.shots} shots", (quantity, f"weight {one.weight:g}")

        for (name, where), cell in gathered(found, ("test", quantity), place, 1.0).items():
            sources.setdefault(name, {})[where] = cell
    paper = {(c["method"], f"{c['cma']} CMA"): Cell(c["value"], math.nan, 1) for c in record["cells"]
             if c["table"] == "similarity"}  # fmt: skip
    ours = sorted({column for cells in sources.values() for _, column in cells}, key=lambda c: float(c.split()[-1]))
    columns = [*ours, "w/o CMA", "w/ CMA"]
    notes = [
        "mean cosine of a test image with the text of its class, with all texts (including its own), with the nearest "
        "other",
        f"{PAPER}: data set and weight are not stated; compared with CoCoOp",
        FORMULA,
    ]
    return Grid("Similarity of images and texts", list(SIMILARITIES), columns, sources | {PAPER: paper}, notes,
                False, "quantity", interval, 3)  # fmt: skip
