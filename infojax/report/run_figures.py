"""Figures of runs: a `Plan` drawn for one study, with a line a swept value, or for several, with a line a run.

Every figure comes with the rows it draws. Nothing is smoothed.
"""

import math
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.lines import Line2D

from infojax.report.canvas import new_figure, plain, styled
from infojax.report.panels import COLOURS, DASHED, Limit, draw_dashed, mark_missing
from infojax.report.quantities import COORDINATES, QUANTITIES, Line
from infojax.report.rows import BATCH, Series, Study, first_perfect, limits, series, splits_of
from infojax.report.run_axes import scale_places, scale_time

GREY = "#888888"


class Method(NamedTuple):
    """Runs that differ in their seed alone; without a colour, lines have those of their quantities."""

    study: Study
    runs: list
    label: str = ""
    colour: Any = None


class Curve(NamedTuple):
    """One line as it is drawn; `limit` is None or (P,)."""

    method: Method
    line: Line
    split: str
    x: np.ndarray
    points: Series
    limit: np.ndarray | None

    @property
    def label(self):
        known = QUANTITIES.get(self.line.quantity)
        return self.line.label or (known.label if known else self.line.quantity)

    @property
    def colour(self):
        if self.split == BATCH or self.method.colour is None:
            return self.line.colour or colour_of(self.line.quantity)
        return self.method.colour


def colour_of(quantity):
    """The one colour of a quantity in every figure; that of an average is the quantity's."""
    known = QUANTITIES.get(quantity.removesuffix("_ema"))
    return COLOURS[known.colour if known else 0]


def methods_of(study) -> list[Method]:
    """One method, or one a swept value, in sequential colours."""
    if not study.swept:
        return [Method(study, runs) for runs in study.groups.values()]
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, len(study.groups)))
    pairs = zip(study.groups.items(), shades, strict=True)
    return [Method(study, runs, f"{study.swept} = {value}", tuple(shade)) for (value, runs), shade in pairs]


def compared(studies, labels) -> list[Method]:
    """A method a study, or a swept value of one; the palette while it lasts, then sequential colours."""
    found = [
        m._replace(label=f"{label}, {m.label}" if m.label else label)
        for study, label in zip(studies, labels, strict=True)
        for m in methods_of(study)
    ]
    shades = (
        COLOURS if len(found) <= len(COLOURS) else matplotlib.colormaps["viridis"](np.linspace(0, 0.88, len(found)))
    )
    return [
        m._replace(colour=shade if isinstance(shade, str) else tuple(shade))
        for m, shade in zip(found, shades, strict=False)
    ]


# What there is to draw


def _cells(plan, methods, split, along) -> list[list[tuple]]:
    """Rows of (panel, split, curves), without panels that are empty; `split` is that of a grid."""
    grid = plan.columns or split is not None
    columns = [split] if split is not None else _splits(plan, methods, "step" if along == "swept" else along)
    columns = columns[:1] if grid else columns
    cells = []
    for panel in plan.panels:
        row = [(panel, column, _curves(panel, column, methods, along, column == columns[0])) for column in columns]
        if any(curves for _, _, curves in row):
            cells.append(row)
    if grid:
        flat = [cell for row in cells for cell in row]
        width = min(len(flat), plan.columns or 4) or 1
        cells = [flat[i : i + width] for i in range(0, len(flat), width)]
    return cells


def _splits(plan, methods, axis) -> list[str]:
    names = {line.quantity for panel in plan.panels for line in panel.lines}
    return list(dict.fromkeys(s for method in methods for s in splits_of(method.study, names, axis))) or ["train"]


def _curves(panel, column, methods, along, first) -> list[Curve]:
    unit, found = _unit(methods, along), []
    for method in methods:
        for line in panel.lines:
            split = line.split or column
            if split == BATCH and not first:  # batches are of the training samples, whose column is the first
                continue
            points = series(method.study, split, line.quantity, method.runs, along)
            if points is not None:
                scale = method.study.config["steps_per_epoch"] if unit == "epoch" else 1
                limit = limits(method.study, split, line.quantity, method.runs, along)
                found.append(Curve(method, line, split, points.place / scale, points, limit))
    return found


def _unit(methods, along) -> str:
    """What the x axis counts."""
    if along != "step":
        return methods[0].study.swept if along == "swept" else COORDINATES[along]
    return "epoch" if all(method.study.config.get("steps_per_epoch") for method in methods) else "step"


# Drawing


@styled
def draw(plan, methods, title, split=None):
    """(figure, rows), or None where there is nothing to draw.

    Args:
      split: that of every panel, for a grid; None gives a column a split, or the train split (else the first).
    """
    along = "step" if plan.x in ("time", "step") else plan.x
    if along == "swept":
        methods = [Method(methods[0].study, [run for method in methods for run in method.runs])]
        if not methods[0].study.swept:
            return None
    cells = _cells(plan, methods, split, along)
    if not cells:
        return None
    grid = bool(plan.columns) or split is not None
    wide, high = max(map(len, cells)), len(cells)
    width = (3.1 if wide > 2 else 4.6) * max(wide, 2)
    figure = new_figure(title, width, 0.9 + 2.05 * high)
    axes = figure.subplots(high, wide, squeeze=False, sharey=False if grid else "row")
    for axis in axes.ravel()[sum(map(len, cells)) :]:
        axis.remove()
    drawn = [
        (axis, *cell) for line, row in zip(axes, cells, strict=True) for axis, cell in zip(line, row, strict=False)
    ]
    for axis, panel, column, curves in drawn:
        axis.set_title(panel.title if grid or len(axes[0]) == 1 and not column else f"{panel.title}, {column}")
        _draw_curves(axis, panel, curves)
    perfect = _perfect(methods, along)
    for i, (axis, *_, curves) in enumerate(drawn):
        if perfect is not None:
            axis.axvline(perfect, color=GREY, linewidth=0.8, zorder=1.2)
        lowest = i + wide >= len(drawn)
        axis.set_xlabel(_unit(methods, along) if lowest else "")
        _scale_x(axis, methods, along, drawn)
        axis.tick_params(labelbottom=lowest)
        _reach_limits(axis, curves)
    for i, (axis, *_, curves) in enumerate(drawn):
        _draw_limits(axis, curves)
        _name_lines(axis, curves, len(methods) > 1, first=grid or i % wide == 0)
    _legend(figure, methods, drawn, perfect)
    return figure, _table(drawn, methods, perfect)


def _draw_curves(axis, panel, curves):
    log = panel.log and any((curve.points.mean > 0).any() for curve in curves)
    if log:
        axis.set_yscale("log", nonpositive="mask")
        lowest = min(curve.points.mean[curve.points.mean > 0].min(initial=math.inf) for curve in curves)
    for level, curve in enumerate(curves):
        x, points, batch = curve.x, curve.points, curve.split == BATCH
        low = np.maximum(points.low, lowest / 3) if log else points.low  # a log axis has no place below
        style = {"color": curve.colour, "linestyle": curve.line.dash, "zorder": 1.4 if batch else 2.5}
        style |= {"linewidth": 0.8} if batch else {"marker": "o" if len(x) <= 60 else "", "markersize": 2.5}
        axis.plot(x, points.mean, **style)
        if np.isfinite(low).any():
            alpha = 0.35 if batch else 0.2
            axis.fill_between(x, low, points.high, color=curve.colour, alpha=alpha, linewidth=0, zorder=1.3)
        if not batch:
            mark_missing(axis, x, points.mean, curve.colour, level % 4)


def _reach_limits(axis, curves):
    """Makes room for limits in every axis that shares y before any is named, since names stand at fixed heights."""
    values = np.concatenate([curve.limit for curve in curves if curve.limit is not None] or [[]])
    values = values[np.isfinite(values) & ((values > 0) | (axis.get_yscale() != "log"))]
    axis.update_datalim([(0, value) for value in values], updatex=False)
    axis.autoscale_view(scalex=False)


def _draw_limits(axis, curves):
    """Dashed limits, named after their quantity where those differ; in a method's colour where methods differ."""
    limited = [curve for curve in curves if curve.limit is not None]
    several = len({curve.line.quantity for curve in limited}) > 1
    found = {}
    for curve in limited:
        same = found.setdefault(curve.line.quantity, [])
        if not any(np.array_equal(curve.limit, other.limit, equal_nan=True) for other in same):
            same.append(curve)
    dashed = []
    for quantity, curves in found.items():
        name = f"{QUANTITIES[quantity].label} limit" if several and _apart(found) else "limit"
        moving = len(curves) > 1
        dashed += [Limit(c.x, c.limit, c.colour if moving else "black", name) for c in curves]
    draw_dashed(axis, dashed)


def _apart(found) -> bool:
    """Whether the quantities of a panel have different limits."""
    ends = {round(float(curve.limit[-1]), 9) for curves in found.values() for curve in curves}
    return len(ends) > 1


def _name_lines(axis, curves, many, first):
    """A legend where a panel has several quantities or splits; grey where colours tell methods apart."""
    handles = {}
    for curve in curves:
        plain_colour = "#444444" if many and curve.split != BATCH else curve.colour
        handles.setdefault(curve.label, Line2D([], [], color=plain_colour, linestyle=curve.line.dash))
    if len(handles) > 1 and first:
        axis.legend(handles.values(), handles)


def _legend(figure, methods, drawn, perfect):
    """Below the panels: what methods, dashes and the grey line are."""
    handles = {m.label: Line2D([], [], color=m.colour, linewidth=2) for m in methods if m.label}
    if any(curve.limit is not None for *_, curves in drawn for curve in curves):
        handles["limit at neural collapse"] = Line2D([], [], color="black", **DASHED)
    if perfect is not None:
        handles["100% train accuracy"] = Line2D([], [], color=GREY, linewidth=0.8)
    if handles:
        names = [plain(name, 40) for name in handles]
        figure.legend(handles.values(), names, loc="outside lower center", ncols=min(len(handles), 5))


def _perfect(methods, along):
    """Where the training accuracy first reached 100%, the mean over runs; None with several methods."""
    if len(methods) > 1 or along != "step":
        return None
    found = first_perfect(methods[0].study, methods[0].runs)
    if found is None:
        return None
    scale = methods[0].study.config["steps_per_epoch"] if _unit(methods, along) == "epoch" else 1
    return float(np.mean(list(found.values()))) / scale


def _scale_x(axis, methods, along, drawn):
    curves, study = [curve for *_, curves in drawn for curve in curves], methods[0].study
    xs = np.concatenate([curve.x for curve in curves])
    if along == "swept":
        text = any(isinstance(value, str) for value in study.groups)
        scale_places(axis, np.unique(xs), [str(value) for value in study.groups] if text else None)
    elif along == "step":
        evaluated = [curve.x[curve.x > 0].min(initial=math.inf) for curve in curves if curve.split != BATCH]
        start = 1.0 if _unit(methods, along) == "epoch" else min(evaluated, default=1.0)
        kind = (study.config.get("report") or {}).get("x_scale", "symlog")
        scale_time(axis, kind, start, xs.max(initial=0.0))


# The rows of the CSV


def _table(drawn, methods, perfect) -> list[dict]:
    """A row a point, in the order of drawing; `limit` is the dashed curve's height there."""
    rows = []
    for _, panel, _, curves in drawn:
        for curve in curves:
            points, named = curve.points, {"method": curve.method.label} if len(methods) > 1 else {}
            for i, x in enumerate(curve.x):
                limit = math.nan if curve.limit is None else float(curve.limit[i])
                row = {"panel": panel.title, "split": curve.split, "quantity": curve.line.quantity} | named
                row |= {"x": float(x), "step": _plain_number(points.place[i]), "mean": float(points.mean[i])}
                rows.append(
                    row
                    | {
                        "low": float(points.low[i]),
                        "high": float(points.high[i]),
                        "n": int(points.n[i]),
                        "limit": limit,
                    }
                )
    if perfect is not None:
        found = first_perfect(methods[0].study, methods[0].runs)
        step = float(np.mean(list(found.values())))
        rows.append(
            {
                "panel": "all",
                "split": "train",
                "quantity": "first 100% train accuracy",
                "x": perfect,
                "step": step,
                "n": len(found),
            }
        )
    return rows


def _plain_number(value):
    return int(value) if float(value).is_integer() else float(value)
