"""Figures of runs: a `Plan` drawn for one history, with a line per swept value, or for several, with a line per run.

Every figure comes with the rows it shows. Nothing is smoothed.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from infojax.report.figures.canvas import Drawn, new_figure, plain, styled
from infojax.report.figures.legends import legend_inside
from infojax.report.figures.panels import DASHED, Limit, draw_dashed, drawable, mark_missing, scale_y
from infojax.report.figures.time import scale_time
from infojax.report.runs.curves import (
    PALE,
    Curve,
    Layer,
    Method,
    by_layer,
    cells_of,
    colour_of,
    few,
    run_by_run,
    unit_of,
)
from infojax.report.runs.plan import Panel, Plan
from infojax.report.runs.rows import BATCH, first_accurate, first_perfect

GREY, DARK = "#888888", "#444444"


@styled
def draw(plan: Plan, methods: Sequence[Method], title: str, split: str | None = None) -> Drawn | None:
    """(figure, rows), or None if there is nothing to draw.

    Args:
      split: the split of every panel of a grid; None gives a column per split, or the train split (else the first).
    """
    along = "step" if plan.x in ("time", "step") else plan.x
    if along == "swept":
        methods = [Method(methods[0].history, [run for method in methods for run in method.runs])]
        if not methods[0].history.swept:
            return None
    plan = by_layer(plan, methods)
    methods = run_by_run(methods) if plan.each_run else methods
    layered = any(line.layer for panel in plan.panels for line in panel.lines)
    apart = plan.each_run or layered and len(methods) > 1  # since colours distinguish layers
    if apart:
        methods = [method._replace(colour=None, dash=None) for method in methods]
    cells = cells_of(plan, methods, split, along, apart)
    if not cells:
        return None
    if not plan.limits:
        cells = [[(*cell[:2], [curve._replace(limit=None) for curve in cell[2]]) for cell in row] for row in cells]
    grid = not apart and (bool(plan.columns) or split is not None)
    wide, high = max(map(len, cells)), len(cells)
    width = (3.0 if wide > 2 else 4.6) * max(wide, 2)
    figure = new_figure(title, width, 0.9 + plan.height * high)
    axes = figure.subplots(high, wide, squeeze=False, sharey=False if grid else "row")
    for axis in axes.ravel()[sum(map(len, cells)) :]:
        axis.remove()
    drawn = [(axes[i][j], *cell) for i, row in enumerate(cells) for j, cell in enumerate(row)]
    for i, (axis, panel, column, curves) in enumerate(drawn):
        if apart and not plan.each_run:  # names of runs are long
            axis.set_title(plain(column, 40) if i < wide else "")
            axis.set_ylabel("" if i % wide else panel.title)
        else:
            axis.set_title(panel.title if grid or len(axes[0]) == 1 and not column else f"{panel.title}, {column}")
        _draw_curves(axis, panel, curves)
    perfect = None if plan.each_run else _perfect(methods, along)
    for i, (axis, panel, _, curves) in enumerate(drawn):
        if perfect is not None:
            axis.axvline(perfect, color=GREY, linewidth=0.8, zorder=1.2)
        if plan.each_run:
            for x, dash in zip(_phases(curves), ("-", "--"), strict=True):
                axis.axvline(math.nan if x is None else x, color=GREY, linewidth=0.9, linestyle=dash, zorder=1.2)
        _scale_x(axis, methods, along, drawn, lowest=i + wide >= len(drawn))
        _reach_limits(axis, curves)
        if panel.bottom is not None:  # leaving room for a limit there, and for a line along the top
            room = 0.04 * (axis.get_ylim()[1] - panel.bottom)
            axis.set_ylim(panel.bottom - room, axis.get_ylim()[1] + room)
    named = [_lines_of(curves, len(methods) > 1 and not apart) for *_, curves in drawn]
    shared = _shared(named)
    for i, ((axis, *_, curves), handles) in enumerate(zip(drawn, named, strict=True)):
        if len(handles) > 1 and not shared and (grid or i % wide == 0):
            limits = [(curve.x, drawable(axis, curve.limit)) for curve in curves if curve.limit is not None]
            legend_inside(axis, [_line(*style) for style in handles.values()], handles, limits)
    for axis, *_, curves in drawn:
        _draw_limits(axis, curves)
    _legend(figure, methods, drawn, shared, perfect, plan.limits)
    if plan.each_run:
        marks = {"memorised": "-", "generalised": "--"}
        handles = [Line2D([], [], color=GREY, linewidth=0.9, linestyle=dash) for dash in marks.values()]
        figure.legend(handles, marks, loc="outside lower center", ncols=2)
    return figure, _table(drawn, methods, perfect)


def _phases(curves):
    """Steps at which the only run of a cell memorised and generalised, or None."""
    method = curves[0].method
    return [first_accurate(method.history, method.runs[0], split) for split in ("train", "test")]


def _draw_curves(axis, panel, curves):
    if not curves:  # the split has none of this panel's quantities
        axis.set_axis_off()
        return
    means = np.concatenate([curve.points.mean for curve in curves])
    log = scale_y(axis, panel.log, means)
    share = all(curve.line.quantity.startswith("accuracy") for curve in curves)
    # Where intervals end: on a log axis above zero, those of an accuracy at zero and one.
    floor = np.min(means[means > 0]) / 3 if log else 0.0 if share else -math.inf
    ceiling = 1.0 if share else math.inf
    alpha = 0.2 if all(curve.method.colour is None for curve in curves) else 0.12
    beside = any(curve.split != BATCH for curve in curves)  # batches stand back behind what was evaluated
    for level, curve in enumerate(curves):
        x, points, batch = curve.x, curve.points, curve.split == BATCH
        mean, high = drawable(axis, points.mean), drawable(axis, np.minimum(points.high, ceiling))
        low = drawable(axis, np.maximum(points.low, floor))
        colour = curve.colour if beside or curve.method.colour is not None else colour_of(curve.line.quantity)
        style = {"color": colour, "linestyle": curve.line.dash, "zorder": 1.4 if batch else 2.5}
        if batch:
            style |= {"linewidth": 0.8, "alpha": 1 if curve.method.colour is None else 0.35}
            style |= {"marker": "o", "markersize": 2.2} if len(x) == 1 else {}  # a line of one point is invisible
        else:
            style |= {"marker": "o" if len(x) <= 60 else "", "markersize": 2.2}
        axis.plot(x, mean, **style)
        if np.isfinite(low + high).any():
            axis.fill_between(x, low, high, color=curve.colour, alpha=alpha, linewidth=0, zorder=1.3)
        if not batch:
            mark_missing(axis, x, points.mean, curve.colour, level % 4)


def _reach_limits(axis, curves):
    """Makes room for limits in every axis that shares y before any is named, since the names have fixed heights."""
    values = np.concatenate([curve.limit for curve in curves if curve.limit is not None] or [[]])
    values = drawable(axis, values)
    values = values[np.isfinite(values)]
    axis.update_datalim([(0, value) for value in values], updatex=False)
    axis.autoscale_view(scalex=False)


def _draw_limits(axis, curves):
    """Dashed limits, named after their quantities where these differ, in a method's colour where methods differ."""
    limited = [curve for curve in curves if curve.limit is not None]
    several = len({curve.line.quantity for curve in limited}) > 1
    found = {}
    for curve in limited:
        same = found.setdefault(curve.line.quantity, [])
        if not any(np.array_equal(curve.limit, other.limit, equal_nan=True) for other in same):
            same.append(curve)
    dashed = []
    for curves in found.values():
        name = f"{curves[0].label} limit" if several and _apart(found) else "limit"
        moving = len(curves) > 1
        dashed += [Limit(c.x, c.limit, c.colour if moving else "black", name) for c in curves]
    draw_dashed(axis, dashed)


def _apart(found: Mapping[str, Sequence[Curve]]) -> bool:
    """Whether the quantities of a panel have different limits."""
    limits = [curve.limit for curves in found.values() for curve in curves if curve.limit is not None]
    ends = {round(float(limit[-1]), 9) for limit in limits}
    return len(ends) > 1


def _lines_of(curves, many):
    """{label: (colour, dash)} of a panel; grey where colours tell methods apart.

    Layers are named once, below all panels.
    """
    found = {}
    for curve in (curve for curve in curves if curve.line.layer is None):
        colour = (PALE if curve.split == BATCH else DARK) if many else curve.colour
        found.setdefault(curve.label, (colour, curve.line.dash))
    return found


def _shared(named):
    """{label: (colour, dash)} where all panels with several lines have the same ones: those stand once, below.

    Lines whose colours differ by panel are told apart by their dashes, and are grey there.
    """
    several = [lines for lines in named if len(lines) > 1]
    if len(several) > 1 and all(lines == several[0] for lines in several):
        return several[0]
    dashes = [{label: dash for label, (_, dash) in lines.items()} for lines in several]
    once = len(dashes) > 1 and all(own == dashes[0] for own in dashes) and len(set(dashes[0].values())) > 1
    return {label: (DARK, dash) for label, dash in dashes[0].items()} if once else {}


def _line(colour, dash):
    return Line2D([], [], color=colour, linestyle=dash)


def layer_handles(layers: Iterable[Layer]) -> dict[str, Line2D]:
    """{label: legend line}, by depth."""
    return {layer.label: Line2D([], [], color=layer.colour) for layer in few(layers)}


def _legend(figure, methods, drawn, shared, perfect, limits):
    """Below the panels: what methods, shared lines, layers, dashes and the grey line are."""
    shown = {curve.method.label for *_, curves in drawn for curve in curves}
    coloured = (method for method in methods if method.label in shown - {""} and method.colour is not None)
    handles = {m.label: Line2D([], [], color=m.colour, linestyle=m.dash or "-") for m in coloured}
    handles |= {label: _line(*style) for label, style in shared.items()}
    layered = [curve for *_, curves in drawn for curve in curves if curve.line.layer is not None]
    handles |= layer_handles(dict.fromkeys(curve.line.layer for curve in layered))
    handles |= {curve.label: Line2D([], [], color=DARK, linestyle=curve.line.dash) for curve in layered}
    if any(curve.limit is not None for *_, curves in drawn for curve in curves):
        handles[limits] = Line2D([], [], color="black", **DASHED)
    if perfect is not None:
        handles["100% train accuracy"] = Line2D([], [], color=GREY, linewidth=0.8)
    if handles:
        names = [plain(name, 40) for name in handles]
        figure.legend(handles.values(), names, loc="outside lower center", ncols=min(len(handles), 5))


def _perfect(methods, along):
    """Mean over runs of where training accuracy first reached 100%; None with several methods."""
    if len(methods) > 1 or along != "step":
        return None
    found = first_perfect(methods[0].history, methods[0].runs)
    if found is None:
        return None
    scale = methods[0].history.config["steps_per_epoch"] if unit_of(methods, along) == "epoch" else 1
    return float(np.mean(list(found.values()))) / scale


def _scale_x(axis, methods, along, drawn, lowest):
    axis.set_xlabel(unit_of(methods, along) if lowest else "")
    curves, history = [curve for *_, curves in drawn for curve in curves], methods[0].history
    xs = np.concatenate([curve.x for curve in curves])
    if along == "swept":
        text = any(isinstance(value, str) for value in history.groups)
        scale_places(axis, np.unique(xs), [str(value) for value in history.groups] if text else None)
    elif along == "step":
        evaluated = [curve.x[curve.x > 0].min(initial=math.inf) for curve in curves if curve.split != BATCH]
        start = 1.0 if unit_of(methods, along) == "epoch" else min(evaluated, default=1.0)
        kind = (history.config.get("report") or {}).get("x_scale", "symlog")
        scale_time(axis, kind, start, xs.max(initial=0.0), most=9 if axis.get_gridspec().ncols < 3 else 7)
    axis.tick_params(labelbottom=lowest)


def scale_places(axis: Axes, places: np.ndarray, names: Sequence[str] | None = None) -> None:
    """Ticks at the swept places if they are few, or their names; a log axis if they span decades."""
    if len(places) <= 12:
        if names is None and places.min() > 0 and places.max() / places.min() >= 8:
            axis.set_xscale("log")
        axis.set_xticks(places, names or [f"{place:g}" for place in places])
        axis.xaxis.set_minor_locator(NullLocator())


# The rows of the CSV


def _table(
    drawn: Iterable[tuple[Axes, Panel, str, list[Curve]]], methods: Sequence[Method], perfect: float | None
) -> list[dict]:
    """One row per point, in drawing order; `limit` is the height of the dashed curve there."""
    rows = []
    for _, panel, _, curves in drawn:
        for curve in curves:
            points, named = curve.points, {"method": curve.method.label} if len(methods) > 1 else {}
            for i, x in enumerate(curve.x):
                limit = math.nan if curve.limit is None else float(curve.limit[i])
                row: dict[str, Any] = {"panel": panel.title, "split": curve.split, "quantity": curve.line.quantity}
                row |= named | {"x": float(x), "step": _plain_number(points.place[i]), "mean": float(points.mean[i])}
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
        found = first_perfect(methods[0].history, methods[0].runs) or {}
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
