"""Images and texts class by class: numbers before and after, maps of similarity, and accuracy by shots and weight."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infojax.report.figures.canvas import Drawn, new_figure, plain, save, styled
from infojax.report.figures.panels import COLOURS
from infojax.report.page import inline
from infojax.report.runs.curves import Method, methods_of
from infojax.report.runs.few_shot import Result, interval, results
from infojax.report.runs.published import Grid, cell_of
from infojax.report.runs.rows import RunHistory
from infojax.report.runs.tables import labels_of, title_of

CLASSES = (
    "Class by class, before (open) and after (filled): accuracy; matrix entropy of a class's images with its text, "
    "which CMA minimises; mean cosine of its images with its text and with the nearest other text. Means over runs."
)
MAPS = (
    "Mean cosine of the images of a class (rows) with the text of every class (columns), of the first run of "
    "at most four weights, before the first step and after the last; one scale for all."
)
BY_SHOTS = (
    "Accuracy on test by shots and by weight of CMA, means over runs; bars: 1.96 population standard deviations, "
    "divided by the square root of the number of runs."
)
QUANTITIES = {
    "class_accuracy": "accuracy", "class_entropy": "entropy of images and text (nats)", "class_own": "cosine, own text",
    "class_hardest": "cosine, nearest other",
}  # fmt: skip
NAMED = 40  # the most classes whose names are written at an axis
MOST_MAPS = 4


def draw_figures(grid: Grid, histories: Sequence[RunHistory], folder: Path) -> list[str]:
    """Draws accuracy.*, and similarity_RUN.* and classes_RUN.* of each run, into a folder; returns their HTML."""
    parts = [("accuracy", draw_results(results(histories)[0], "Accuracy"), BY_SHOTS)]
    for history, label in zip(histories, labels_of([history.folder for history in histories]), strict=True):
        if history.config.get("task") == "crossmodal":
            methods, title, stem = methods_of(history), f"{label}: {title_of(history)}", label.replace("/", "_")
            parts.append((f"similarity_{stem}", draw_similarity(methods, title), MAPS))
            parts.append((f"classes_{stem}", draw_classes(methods, title), CLASSES))
    return [inline(save(folder, stem, *drawn, prefix=stem)[1], caption) for stem, drawn, caption in parts if drawn]


def _ends(method: Method, split: str) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
    """(run, first row, last row) of the runs with per-class values."""
    for run in method.runs:
        steps = method.history.classes.get((run, split), {})
        if steps:
            yield run, steps[min(steps)], steps[max(steps)]


def _splits(methods: Sequence[Method]) -> list[str]:
    return list(dict.fromkeys(split for method in methods for _, split in method.history.classes))


@styled
def draw_classes(methods: Sequence[Method], title: str) -> Drawn | None:
    """(figure, rows): a column per split and a row per quantity, with rows for every run. None without such values."""
    splits = _splits(methods)
    if not splits:
        return None
    figure = new_figure(title, 4.6 * max(len(splits), 2), 0.9 + 1.9 * len(QUANTITIES))
    axes = figure.subplots(len(QUANTITIES), len(splits), squeeze=False, sharex="col")
    rows: list[dict[str, Any]] = []
    for column, split in enumerate(splits):
        for number, method in enumerate(methods):
            ends = list(_ends(method, split))
            if not ends:
                continue
            rows += [row for run, *both in ends for row in _listed(method, run, split, both)]
            colour = method.colour or COLOURS[number % len(COLOURS)]
            names = ends[0][1]["class_names"]
            place = np.arange(len(names)) + 0.6 * ((number + 0.5) / len(methods) - 0.5)
            for axis, (quantity, label) in zip(axes[:, column], QUANTITIES.items(), strict=True):
                for end, face in ((0, "none"), (1, colour)):
                    values = np.array([both[end][quantity] for _, *both in ends], float)
                    mean = np.nanmean(np.where(np.isfinite(values).any(0), values, 0), axis=0)
                    named = method.label if end and axis is axes[0, column] else None
                    axis.scatter(place, mean, s=14, facecolors=face, edgecolors=colour, linewidths=0.9, label=named)
                axis.set_ylabel(label, fontsize=7)
            if len(names) <= NAMED:
                ticks = [plain(name, 24) for name in names]
                axes[-1, column].set_xticks(range(len(names)), ticks, rotation=90, fontsize=7)
        axes[0, column].set_title(split)
    if any(method.label for method in methods):
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(methods), 6))
    return figure, rows


def _listed(method: Method, run: int, split: str, ends: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row per class, before and after."""
    seed = method.history.seeds.get(run, "")
    for row in ends:
        for c, name in enumerate(row["class_names"]):
            found = {"run": run, "seed": seed, "of": method.label, "split": split, "step": row["step"], "class": c}
            found |= {"name": name, "n": row["class_count"][c]}
            yield found | {quantity.removeprefix("class_"): row[quantity][c] for quantity in QUANTITIES}


@styled
def draw_similarity(methods: Sequence[Method], title: str) -> Drawn | None:
    """(figure, rows): similarity maps of the first run of each method, before and after; None if there are none."""
    split = next((split for split in _splits(methods) if split == "test"), None)
    shown = [(method, *found) for method in methods for found in list(_ends(method, split or ""))[:1]]
    shown = [(m, run, [row for row in both if row.get("similarity_map")]) for m, run, *both in shown]
    shown = [found for found in shown if found[2]]
    if not shown:
        return None
    if len(shown) > MOST_MAPS:
        shown = [shown[round(i)] for i in np.linspace(0, len(shown) - 1, MOST_MAPS)]
    maps = [[_square(row) for row in both] for *_, both in shown]
    low, high = (f([f(grid) for both in maps for grid in both]) for f in (np.nanmin, np.nanmax))
    figure = new_figure(title, 1.2 + 3.1 * max(map(len, maps)), 0.9 + 2.9 * len(shown))
    axes = figure.subplots(len(shown), max(map(len, maps)), squeeze=False)
    rows: list[dict[str, Any]] = []
    for line, (method, run, both), grids in zip(axes, shown, maps, strict=True):
        for axis, row, grid in zip(line, both, grids, strict=False):
            image = axis.imshow(grid, vmin=low, vmax=high, cmap="viridis", aspect="equal")
            axis.set_title(plain(", ".join(filter(None, (method.label, f"step {row['step']:,}")))))
            axis.grid(False)
            axis.set(xlabel="text", ylabel="images")
            if axis is line[0] and len(grid) <= NAMED:
                axis.set_yticks(range(len(grid)), [plain(name, 16) for name in row["class_names"]], fontsize=6)
            rows += [
                {"of": method.label, "run": run, "step": row["step"], "images": i, "text": j, "cosine": value}
                for i, own in enumerate(row["similarity_map"]) if own is not None for j, value in enumerate(own)
            ]  # fmt: skip
    figure.colorbar(image, ax=axes, shrink=0.6, label="mean cosine")
    return figure, rows


def _square(row):
    """A row's map as (C, C); a class without samples is NaN."""
    count = len(row["similarity_map"])
    return np.array([own or [np.nan] * count for own in row["similarity_map"]], float)


@styled
def draw_results(found: Sequence[Result], title: str) -> Drawn | None:
    """(figure, rows): test accuracy by shots (a line per weight) and by weight (a line per shots), by data set."""
    learnt = [one for one in found if one.family != "zero-shot" and not one.novel]
    names = list(dict.fromkeys((one.data, one.family) for one in learnt))
    if not names:
        return None
    figure = new_figure(title, 9.2, 0.9 + 2.9 * len(names))
    axes = figure.subplots(len(names), 2, squeeze=False)
    rows: list[dict[str, Any]] = []
    for line, name in zip(axes, names, strict=True):
        own = [one for one in learnt if (one.data, one.family) == name]
        for axis, along, apart in ((line[0], "shots", "weight"), (line[1], "weight", "shots")):
            groups = sorted({getattr(one, apart) for one in own})
            for number, value in enumerate(groups):
                rest = [one for one in own if getattr(one, apart) == value]
                x = sorted({getattr(one, along) for one in rest})
                cells = [cell_of(100 * one.numbers["test", "accuracy"] for one in rest if getattr(one, along) == at)
                         for at in x]  # fmt: skip
                half = [np.nan_to_num(interval(cell)) for cell in cells]
                shade = COLOURS[number % len(COLOURS)]
                axis.errorbar(x, [c.mean for c in cells], half, color=shade, marker="o", label=f"{apart} {value:g}")
                rows += [
                    {"data": name[0], "of": name[1], along: at, apart: value}
                    | {"accuracy": c.mean, "std": c.std, "n": c.n}
                    for at, c in zip(x, cells, strict=True)
                ]  # fmt: skip
            if along == "shots":
                axis.set_xscale("log", base=2)
                every = sorted({one.shots for one in own})
                axis.set_xticks(every, [str(at) for at in every])
            axis.set(xlabel=along.replace("weight", "weight of CMA"), ylabel="accuracy, %")
            axis.set_title(plain(", ".join(name)))
            axis.legend(ncols=2 if len(groups) > 6 else 1, fontsize=7)
    unique = list({tuple(sorted(row.items())): row for row in rows}.values())
    return figure, unique
