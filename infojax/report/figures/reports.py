"""Figures of reports: each is a matplotlib Figure together with the rows of numbers it shows."""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from infojax.report.figures.canvas import Drawing, Drawn, new_figure, plain, save, styled
from infojax.report.figures.legends import legend_inside
from infojax.report.figures.panels import (
    COLOURS,
    draw_classes,
    draw_fit,
    draw_limits,
    draw_lines,
    draw_renyi,
    draw_spectrum,
    limits_of,
)
from infojax.report.figures.time import scale_time
from infojax.report.tables.content import Report, by_step, class_values, headline

# Panel -> (measures, log axis). One layer's measures share a panel; layers get a panel per measure.
PANELS = {
    "Entropy (nats)": (("entropy_features", "entropy_head", "joint_entropy"), False),
    "MIR and HDR": (("mir", "hdr"), False),
    "Effective rank": (("effective_rank", "effective_rank_from_gram"), False),
    "NC1: variability": (("nc1", "cdnv"), True),
    "NC2: simplex ETF": (("nc2_equinorm", "nc2_equiangularity", "nc2_etf_distance"), False),
    "NC3 and NC4": (("nc3", "nc4"), False),
}
Panel = tuple[str, list[str], bool]  # title, measures present, log axis


# One report


def _draw_classes(axes: Sequence[Axes], report: Report) -> list[dict]:
    arrays = class_values(report)
    for axis, (key, values) in zip(axes, arrays.items(), strict=True):
        draw_classes(axis, key, values)
        axis.tick_params(labelbottom=axis is axes[-1])
    axes[-1].set_xlabel("class")
    count = max(map(len, arrays.values()))
    return [{"class": c} | {k: float(x[c]) for k, x in arrays.items()} for c in range(count)]


@styled
def spectrum_figure(report: Report) -> Drawn:
    """Eigenvalue against rank on log axes, with the effective rank and its limit."""
    figure = new_figure(plain(headline(report)), 5.6, 3.6)
    return figure, draw_spectrum(figure.subplots(), report)


@styled
def renyi_figure(report: Report) -> Drawn:
    """Entropy against its order alpha; collapse makes it flat."""
    figure = new_figure(plain(headline(report)), 5.6, 3.6)
    return figure, draw_renyi(figure.subplots(), report)


@styled
def per_class_figure(report: Report) -> Drawn:
    """A panel per measure with a stem per class from the median; the worst class is named."""
    if not report.per_class:
        raise ValueError(f"{report.name}: no per-class values; measure it with labels.")
    panels = len(report.per_class)
    figure = new_figure(plain(headline(report)), 7.0, 0.8 + 1.2 * panels)
    return figure, _draw_classes(figure.subplots(panels, 1, squeeze=False).ravel(), report)


# Several reports


def _panels(reports: Collection[Report], split: bool) -> list[Panel]:
    """The panels to draw; with `split`, one per measure."""
    panels: list[Panel] = []
    for title, (keys, log) in PANELS.items():
        present = [key for key in keys if any(key in report.measures for report in reports)]
        panels += [(key, [key], log) for key in present] if split else [(title, present, log)]
    return [panel for panel in panels if panel[1]]


def _row(report: Report, panels: Iterable[Panel]) -> dict:
    """What the panels show of one report: values, with intervals and limits where it has them."""
    row = {}
    for key in (key for _, keys, _ in panels for key in keys):
        row[key] = float(report.measures.get(key, math.nan))
        if key in report.intervals:
            low, high = report.intervals[key][:2]
            row |= {f"{key}_low": float(low), f"{key}_high": float(high)}
        if key in report.limits:
            row[f"{key}_limit"] = float(report.limits[key])
    return row


def _extent(names: Sequence[str], reports: Collection[Report], kind: str) -> str:
    """The report's name or the number of reports, followed by n, d and C or their ranges."""
    sizes = []
    for symbol, field in {"n": "num_samples", "d": "dim", "C": "num_classes"}.items():
        values = {getattr(report, field) for report in reports} - {None}
        if values:
            ends = dict.fromkeys((min(values), max(values)))
            sizes.append(f"{symbol} = " + " to ".join(f"{end:,}" for end in ends))
    bars = "; bars: 95% intervals" if any(report.intervals for report in reports) else ""
    name = plain(names[0]) if len(names) == 1 else f"{len(names)} {kind}"
    return f"{name}: {', '.join(sizes)}{bars}"


def _grid(title, panels, xlabel, legend=0.0):
    if not panels:
        raise ValueError("no report has a measure to draw.")
    columns = min(len(panels), 2 if len(panels) <= 6 else 3)
    lines = -(-len(panels) // columns)
    figure = new_figure(title, 4.6 * columns, 0.5 + legend + 2.3 * lines)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes[len(panels) :]:
        axis.remove()
    for i, (axis, (name, _, _)) in enumerate(zip(axes, panels, strict=False)):
        lowest = i >= len(panels) - columns  # in its column
        axis.set(title=name, xlabel=xlabel if lowest else "")
        axis.tick_params(labelbottom=lowest)
    return figure, axes[: len(panels)]


@styled
def depth_figure(reports: Mapping[str, Report]) -> Drawn:
    """Measures of `{layer: report}` against depth; log NC1 with its fitted line and Pearson's r."""
    panels = _panels(reports.values(), split=False)
    figure, axes = _grid(_extent(list(reports), reports.values(), "layers"), panels, "layer")
    rows = [_row(report, panels) for report in reports.values()]
    x = list(range(1, len(rows) + 1))
    names = [plain(name, 18) for name in reports]
    turn = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if len("".join(names)) > 48 else {}
    for axis, (_, keys, log) in zip(axes, panels, strict=True):
        lines = [(k, COLOURS[i], k, rows) for i, k in enumerate(keys)]
        draw_lines(axis, x, lines, log)
        if "nc1" in keys:
            for row, value in zip(rows, draw_fit(axis, x, [r["nc1"] for r in rows]), strict=True):
                row["nc1_fit"] = float(value)
        handles, labels = axis.get_legend_handles_labels()
        legend_inside(axis, handles, labels, limits_of(x, lines))
        draw_limits(axis, x, lines)
        every = slice(None, None, -(-len(x) // 16))
        axis.set_xticks(x[every], names[every], **turn)
    return figure, [{"layer": n, "depth": i} | rows[i - 1] for i, n in enumerate(reports, 1)]


@styled
def trajectory_figure(steps: Sequence[float], reports_by_layer: Mapping[str, Sequence[Report]]) -> Drawn:
    """Measures of `{layer: [report of each step]}` against step, with their limits."""
    layers = {layer: by_step(steps, reports) for layer, reports in reports_by_layer.items()}
    reports = [report for pairs in layers.values() for _, report in pairs]
    split = len(layers) > 1
    panels = _panels(reports, split)
    figure, axes = _grid(_extent(list(layers), reports, "curves"), panels, "step", 0.3 * split)
    rows = {name: [_row(report, panels) for _, report in pairs] for name, pairs in layers.items()}
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, len(layers)))
    for axis, (_, keys, log) in zip(axes, panels, strict=True):
        if split:
            lines = [(plain(n, 24), c, keys[0], rows[n]) for n, c in zip(rows, shades, strict=True)]
        else:
            lines = [(k, COLOURS[i], k, r) for r in rows.values() for i, k in enumerate(keys)]
        draw_lines(axis, list(steps), lines, log)
        if min(steps) >= 0 and max(steps) > 0:  # as during training
            scale_time(axis, "symlog", min(step for step in steps if step > 0), max(steps))
        if not split:
            handles, labels = axis.get_legend_handles_labels()
            legend_inside(axis, handles, labels, limits_of(list(steps), lines))
        draw_limits(axis, list(steps), lines)
    if split:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure, [
        {"step": step, "layer": name} | row
        for name, pairs in layers.items()
        for (step, _), row in zip(pairs, rows[name], strict=True)
    ]


@styled
def plot(reports: Report | Mapping[str, Report]) -> Drawing:
    """One figure for a notebook: spectrum, Rényi curve and classes of a report; or layers against depth."""
    if isinstance(reports, Mapping) and len(reports) != 1:
        return depth_figure(reports)[0]
    (report,) = reports.values() if isinstance(reports, Mapping) else [reports]
    classes = len(report.per_class)
    figure = new_figure(plain(headline(report)), 9.2, 3.6 + 1.2 * classes)
    grid = figure.add_gridspec(1 + classes, 2, height_ratios=[3.0] + [1.1] * classes)
    draw_spectrum(figure.add_subplot(grid[0, 0]), report)
    draw_renyi(figure.add_subplot(grid[0, 1]), report)
    if classes:
        _draw_classes([figure.add_subplot(grid[1 + i, :]) for i in range(classes)], report)
    return figure


# Files


def layer_figures(report: Report) -> dict[str, Drawn]:
    """Kind -> (figure, rows) for everything that one report can show."""
    drawn = {"spectrum": spectrum_figure(report), "renyi": renyi_figure(report)}
    return drawn | ({"per_class": per_class_figure(report)} if report.per_class else {})


def _save(drawn: Mapping[str, Drawn], directory: str | Path) -> list[Path]:
    return [path for stem, (figure, rows) in drawn.items() for path in save(directory, stem, figure, rows)[0]]


def save_figures(reports: Mapping[str, Report], directory: str | Path) -> list[Path]:
    """Writes NAME.svg, NAME.png and NAME.csv for every figure of `{layer: report}`."""
    drawn: dict[str, Drawn] = {}
    for layer, report in reports.items():
        stem = re.sub(r"[^\w.-]+", "_", str(layer)).strip("._") or "layer"
        while f"{stem}_spectrum" in drawn:  # a/b and a_b must not share a file
            stem += "_"
        drawn |= {f"{stem}_{kind}": value for kind, value in layer_figures(report).items()}
    if len(reports) > 1:
        drawn["depth"] = depth_figure(reports)
    return _save(drawn, directory)


def save_trajectory(
    steps: Sequence[float], reports_by_layer: Mapping[str, Sequence[Report]], directory: str | Path
) -> list[Path]:
    """Writes trajectory.svg, .png and .csv."""
    return _save({"trajectory": trajectory_figure(steps, reports_by_layer)}, directory)
