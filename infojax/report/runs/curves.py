"""Which curves a figure of runs shows: their methods, panels, numbers and colours."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np

from infojax.measures.catalogue import measure_of
from infojax.report.figures.panels import COLOURS
from infojax.report.runs.plan import Line, Panel, Plan
from infojax.report.runs.progress import by_epochs, untrained
from infojax.report.runs.rows import BATCH, RunHistory, RunMeans, limits, run_means, splits_of
from infojax.report.runs.selection import several
from infojax.train.schema import COORDINATES

PALE = "#bbbbbb"  # training batches
ENDINGS = ("_ema", "_recomputed", "_layerwise")  # variants of a quantity share its colour
SELECTED = "unlabelled_selected"  # a split of a method with pseudo-labels, which has figures of its own
DASHES = ("-", (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
MOST = 3  # panels side by side; four are two by two


class Method(NamedTuple):
    """Runs that differ only in their seed; without a colour or dash, lines take those of their plan."""

    history: RunHistory
    runs: list[int]
    label: str = ""
    colour: Any = None
    dash: Any = None


class Layer(NamedTuple):
    """A layer of the network; it has the same colour in all figures of a page."""

    name: str
    depth: int
    colour: Any

    @property
    def label(self) -> str:
        return f"l = {self.depth}: {self.name}"


class Curve(NamedTuple):
    """One line to draw; `limit` is None or (P,)."""

    method: Method
    line: Line
    split: str
    x: np.ndarray
    points: RunMeans
    limit: np.ndarray | None

    @property
    def label(self) -> str:
        return self.line.label or measure_of(self.line.quantity).label

    @property
    def colour(self) -> Any:
        if self.line.layer is not None:
            return self.line.layer.colour
        own = PALE if self.split == BATCH else colour_of(self.line.quantity)
        return own if self.method.colour is None else self.method.colour


def colour_of(quantity: str) -> str:
    """The colour of a quantity in every figure; variants share the quantity's colour."""
    for ending in ENDINGS:
        quantity = quantity.removesuffix(ending)
    return COLOURS[measure_of(quantity).colour]


def methods_of(history: RunHistory) -> list[Method]:
    """One method, or one per swept value in sequential colours."""
    if not history.swept:
        return [Method(history, runs) for runs in history.groups.values()]
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, len(history.groups)))
    pairs = zip(history.groups.items(), shades, strict=True)
    return [Method(history, runs, f"{history.swept} = {value}", tuple(shade)) for (value, runs), shade in pairs]


def layers_of(methods: Sequence[Method]) -> list[Layer]:
    """The layers of all methods by depth, in sequential colours."""
    depths: dict[str, int] = {}
    for method in methods:
        depths |= method.history.layers
    names = sorted(depths, key=depths.__getitem__)
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, len(names)))
    return [Layer(name, depths[name], tuple(shade)) for name, shade in zip(names, shades, strict=True)]


def few(layers: Iterable[Layer], most: int = 10) -> list[Layer]:
    """The layers that a legend names: all, or the first, the last and some in between."""
    layers = sorted(layers, key=lambda layer: layer.depth)
    places = np.linspace(0, len(layers) - 1, min(len(layers), most))
    return [layers[round(place)] for place in places]


def by_layer(plan: Plan, methods: Sequence[Method]) -> Plan:
    """The plan with one line per layer in place of each line whose quantity ends in "@*"."""
    layers, panels = layers_of(methods), []
    for panel in plan.panels:
        lines = []
        for line in panel.lines:
            name = line.quantity.removesuffix("*")
            starred = [line._replace(quantity=name + layer.name, layer=layer) for layer in layers]
            lines += starred if name.endswith("@") else [line]
        panels.append(panel._replace(lines=tuple(lines)))
    return plan._replace(panels=tuple(panels))


def run_by_run(methods: Sequence[Method]) -> list[Method]:
    """One method per run, named after its seed and swept value."""
    found = []
    for method in methods:
        for run in method.runs:
            seed = f"seed {method.history.seeds[run]}" if run in method.history.seeds else ""
            name = ", ".join(filter(None, (method.label, seed))) or f"run {run}"
            found.append(Method(method.history, [run], name))
    return found


def compared(histories: Sequence[RunHistory], labels: Sequence[str]) -> list[Method]:
    """One method per history, or per swept value of a single one; the palette repeats with other dashes."""
    found = [
        method._replace(label=f"{label}, {method.label}" if method.label else label)
        for history, label in zip(histories, labels, strict=True)
        for method in methods_of(history)
    ]
    styles = [(COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]) for i in range(len(found))]
    return [method._replace(colour=c, dash=dash) for method, (c, dash) in zip(found, styles, strict=True)]


def in_common(plan: Plan, histories: Sequence[RunHistory], split: str | None = None) -> tuple[Plan, list[str]]:
    """The plan with the lines that two runs or more have, and the titles of the panels that one run fills alone.

    Args:
      split: of lines that name none; None for any.
    """
    along = "step" if plan.x in ("time", "step", "swept") else plan.x

    def has(line: Line, history: RunHistory) -> bool:
        of_layers = line.quantity.removesuffix("*")
        return any(
            axis == along
            and (line.split or split) in (None, place)
            and (name == line.quantity or of_layers != line.quantity and name.startswith(of_layers))
            and (begun(runs) if along == "step" else not untrained(history))
            for (axis, place, name), runs in history.values.items()
        )

    panels, alone, least = [], [], min(2, len(histories))
    for panel in plan.panels:
        number = {line: sum(has(line, history) for history in histories) for line in panel.lines}
        shared = tuple(line for line, found in number.items() if found >= least)
        panels += [panel._replace(lines=shared)] * bool(shared)
        alone += [panel.title] * (not shared and any(number.values()))
    return plan._replace(panels=tuple(panels)), alone


def begun(values: Mapping[int, Mapping[Any, float]]) -> bool:
    """Whether a quantity was measured after step 0 in any run, by its {run: {step: number}}."""
    return any(step > 0 for of_run in values.values() for step in of_run)


def cells_of(
    plan: Plan, methods: Sequence[Method], split: str | None, along: str, apart: bool
) -> list[list[tuple[Panel, str, list[Curve]]]]:
    """Rows of (panel, column name, curves), without empty panels.

    Args:
      split: the split of a grid, or None.
      apart: whether every method gets its own column.
    """
    if apart:
        rows = [
            [(panel, m.label, curves_of(panel, "test", [m], along, True)) for m in methods] for panel in plan.panels
        ]
        return [row for row in rows if any(curves for _, _, curves in row)]
    grid = plan.columns or split is not None
    columns = [split] if split is not None else _splits(plan, methods, "step" if along == "swept" else along)
    columns = columns[:1] if grid else columns
    cells = []
    for panel in plan.panels:
        row = [(panel, column, curves_of(panel, column, methods, along, column == columns[0])) for column in columns]
        if any(curves for _, _, curves in row):
            cells.append(row)
    if grid:
        flat = [cell for row in cells for cell in row]
        # A figure then fits a page of 700 pixels.
        width = {4: 2}.get(len(flat), min(len(flat), plan.columns or MOST)) or 1
        cells = [flat[i : i + width] for i in range(0, len(flat), width)]
    return cells


def _splits(plan: Plan, methods: Sequence[Method], axis: str) -> list[str]:
    names = {line.quantity for panel in plan.panels for line in panel.lines}
    found = dict.fromkeys(s for method in methods for s in splits_of(method.history, names, axis))
    return [split for split in found if split != SELECTED] or list(found) or ["train"]


def curves_of(panel: Panel, column: str, methods: Sequence[Method], along: str, first: bool) -> list[Curve]:
    unit, found = unit_of(methods, along), []
    lines: Sequence[Line] = panel.lines
    if len(methods) > 1 and len({line.dash for line in lines if line.split != BATCH}) == 1:
        solid = [line for line in lines if line.split != BATCH]
        dashes = dict(zip(solid, DASHES, strict=False))
        lines = [line._replace(dash=dashes.get(line, "-")) for line in lines]
    for method in methods:
        for line in lines:
            split = line.split or column
            if split == BATCH and not first:  # batches are training samples, which the first column shows
                continue
            points = run_means(method.history, split, line.quantity, method.runs, along)
            if points is not None and split == BATCH:  # an interval at every logged step would hide the lines
                points = points._replace(low=points.low * math.nan, high=points.high * math.nan)
            if points is not None:
                scale = method.history.config["steps_per_epoch"] if unit == "epoch" else 1
                limit = limits(method.history, split, line.quantity, method.runs, along)
                styled = line._replace(dash=method.dash) if method.dash else line
                found.append(Curve(method, styled, split, points.place / scale, points, limit))
    return [curve for curve in found if _trained(curve, along)]


def _trained(curve: Curve, along: str) -> bool:
    """Whether a curve shows more than the network before training."""
    history, key = curve.method.history, ("step", curve.split, curve.line.quantity)
    return begun(history.values[key]) if along in ("step", "swept") else not untrained(history)


def unit_of(methods: Sequence[Method], along: str) -> str:
    """The label of the x axis."""
    if along != "step":
        return methods[0].history.swept if along == "swept" else COORDINATES[along]
    if any(several(method.history) for method in methods):  # labelled and unlabelled samples have different epochs
        return "step"
    return "epoch" if all(by_epochs(method.history) for method in methods) else "step"
