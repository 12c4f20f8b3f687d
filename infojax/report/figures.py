"""Figures of reports: each is a matplotlib Figure together with the rows of numbers it draws.

Nothing here touches pyplot, so no display, backend or global figure is involved. Theory limits are
dashed black lines named at the right edge; a value without a place on its axis is marked there.
"""

import csv
import functools
import io
import math
import re
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from infojax.report.tables import by_step, class_values, format_value, headline, one_line, worst

# Okabe and Ito's palette, told apart by colour-blind readers; black is kept for theory.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLE = {
    "font.size": 9,
    "font.family": ["DejaVu Sans"],  # ships with matplotlib: the same picture on every machine
    "text.usetex": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "legend.fontsize": 8,
    "legend.edgecolor": "none",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
EDGE = {"x": 1.01, "fontsize": 7}  # text just right of an axis

# Panel -> (measures, log axis). One layer's measures share a panel; layers get a panel a measure.
PANELS = {
    "Entropy (nats)": (("entropy_features", "entropy_head", "joint_entropy"), False),
    "MIR and HDR": (("mir", "hdr"), False),
    "Effective rank": (("effective_rank", "effective_rank_from_gram"), False),
    "NC1: variability": (("nc1", "cdnv"), True),
    "NC2: simplex ETF": (("nc2_equinorm", "nc2_equiangularity", "nc2_etf_distance"), False),
    "NC3 and NC4": (("nc3", "nc4"), False),
}


class Drawing(Figure):
    """A Figure that a notebook shows even where pyplot was never imported."""

    def _repr_png_(self) -> bytes:
        return png_bytes(self)


def styled(draw):
    """Draws in our style and leaves the caller's rcParams as they were."""

    @functools.wraps(draw)
    def call(*args, **kwargs):
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return call


def _plain(text, most=90) -> str:
    """A name as matplotlib shall show it: one line, its end if too long, and no mathematics."""
    text = one_line(text)
    return (text if len(text) <= most else "…" + text[1 - most :]).replace("$", r"\$")


def _figure(title, width, height):
    figure = Drawing(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    return figure


def _draw_limits(axis, x, curves, note=""):
    """Dashed limits named at the edge: a line across, or a curve where a limit moves with x.

    `curves` is (values, colour of a curve). On a log axis a limit of 0 lies below. `note` follows
    the names.
    """
    places = {}  # name -> height: limits that read the same are one
    for values, colour in curves:
        values = np.asarray(values, float)
        finite = values[np.isfinite(values)]
        names = [f"limit {value:.4g}{note}" for value in finite]
        if len(set(names)) > 1:
            axis.plot(x, values, color=colour, linestyle="--", linewidth=1, zorder=1.5)
        elif (
            names and names[0] not in places and not (axis.get_yscale() == "log" and finite[0] <= 0)
        ):
            axis.axhline(finite[0], color="black", linestyle="--", linewidth=1, zorder=1.5)
        places |= {name: finite[-1] for name in names[-1:]}
    axis.set_ylim(axis.get_ylim())  # the names are placed for these
    gap, below = 0.14 / (axis.bbox.height / axis.figure.dpi), -math.inf
    named = sorted(places.items(), key=lambda place: place[1])
    for name, value in named if len(named) <= 4 else named[:: len(named) - 1]:  # the extremes
        hidden = axis.get_yscale() == "log" and value <= 0
        point = (1, axis.get_ylim()[0] if hidden else value)
        height = axis.transAxes.inverted().transform(axis.transData.transform(point))[1]
        below = max(height, below + gap)
        name = f"↓ {name}" if hidden else name
        axis.text(y=below, s=name, transform=axis.transAxes, va="center", **EDGE)


def _mark_missing(axis, x, y, colour, level=0):
    """Writes nan (or the value that a log axis cannot show) where a point is absent."""
    log, height = axis.get_yscale() == "log", 0.03 + 0.08 * level
    pairs = zip(x, y, strict=True)
    absent = [(at, v) for at, v in pairs if not math.isfinite(v) or (log and v <= 0)]
    marks = [(at, format_value(v, 2), axis.get_xaxis_transform()) for at, v in absent]
    if len(marks) > 20:
        marks = [(0.5, f"{len(marks):,} of {len(x):,} absent", axis.transAxes)]
    for at, text, where in marks:
        text = axis.text(at, height, text, color=colour, transform=where, ha="center", fontsize=7)
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})


# One report


def _draw_spectrum(axis, report) -> list[dict]:
    values = np.asarray(report.spectrum, np.float64)
    # Below this an eigenvalue is rounding, and would stretch the axis over ten empty decades.
    shown = values[values > 1e-12 * values.max(initial=0.0)]
    ranks = np.arange(1, len(shown) + 1)
    label = "eigenvalues" + (f" (first {len(shown):,})" if len(shown) < len(values) else "")
    marker = "o" if len(shown) <= 128 else ""
    axis.loglog(ranks, shown, marker=marker, markersize=3, color=COLOURS[0], label=label)
    if shown.size:
        axis.set_ylim(shown.min() / 2, shown.max() * 2)
        rank = math.exp(-np.sum(shown * np.log(shown)))
        axis.axvline(rank, color=COLOURS[1], label=f"effective rank exp(H) = {rank:.4g}")
    limit = math.exp(report.limits.get("entropy_features", math.nan))
    if math.isfinite(limit):
        text = f"limit {limit:.4g}"
        axis.axvline(limit, color="black", linestyle="--", linewidth=1, label=text)
    axis.set(xlabel="rank", ylabel="eigenvalue", title="Spectrum of the cosine Gram density")
    axis.legend(loc="lower left")
    return [{"rank": k, "eigenvalue": float(w)} for k, w in enumerate(shown, 1)]


def _draw_renyi(axis, report) -> list[dict]:
    points = sorted((a, h) for a, h in report.renyi.items() if math.isfinite(a))
    alphas, entropies = [a for a, _ in points], [h for _, h in points]
    if alphas and alphas[0] > 0:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
    axis.plot(alphas, entropies, "o-", color=COLOURS[0])
    if 1.0 in report.renyi:
        label = f"von Neumann, α = 1: {report.renyi[1.0]:.4g}"
        axis.plot([1.0], [report.renyi[1.0]], "D", color=COLOURS[1], markersize=6, label=label)
        axis.legend()
    axis.set(xlabel="α", ylabel="entropy (nats)", title="Rényi entropy of order α")
    axis.margins(y=0.15)
    limit = report.limits.get("entropy_features", math.nan)
    _draw_limits(axis, [], [([limit], "black")], note="\nat α = 1")
    _mark_missing(axis, alphas, entropies, COLOURS[0])
    return [{"alpha": float(a), "entropy": float(h)} for a, h in points]


def _draw_class_panel(axis, key, values):
    finite = values[np.isfinite(values)]
    if finite.size and 0 < 100 * finite.min() < finite.max():
        axis.set_yscale("log")
    middle = float(np.median(finite)) if finite.size else math.nan
    classes, few = np.arange(len(values)), len(values) <= 200
    axis.plot(classes, values, "o", color=COLOURS[0], markersize=5 if len(values) <= 30 else 3)
    if few:  # stems of more classes would be one blue band
        axis.vlines(classes, middle, values, color=COLOURS[0], linewidth=0.8)
    axis.axhline(middle, color="#777777", linewidth=0.8, zorder=1.5)
    where = axis.get_yaxis_transform()
    if finite.size:
        axis.text(y=middle, s=f"median {middle:.4g}", transform=where, va="center", **EDGE)
    axis.set_title(key)
    at = worst(key, values)
    if at is not None:
        axis.plot([at], values[[at]], "o", color=COLOURS[1], markersize=6)
        text = f"class {at}: {values[at]:.4g}"
        axis.set_title(text, loc="right", color=COLOURS[1], fontsize=8)
    axis.margins(x=0.03, y=0.2)
    axis.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    _mark_missing(axis, classes, values, COLOURS[0])


def _draw_classes(axes, report) -> list[dict]:
    arrays = class_values(report)
    for axis, (key, values) in zip(axes, arrays.items(), strict=True):
        _draw_class_panel(axis, key, values)
        axis.tick_params(labelbottom=axis is axes[-1])
    axes[-1].set_xlabel("class")
    count = max(map(len, arrays.values()))
    return [{"class": c} | {k: float(x[c]) for k, x in arrays.items()} for c in range(count)]


@styled
def spectrum_figure(report):
    """Eigenvalue against rank on log axes, with the effective rank and its limit."""
    figure = _figure(_plain(headline(report)), 5.6, 3.6)
    return figure, _draw_spectrum(figure.subplots(), report)


@styled
def renyi_figure(report):
    """Entropy against its order alpha; collapse makes it flat."""
    figure = _figure(_plain(headline(report)), 5.6, 3.6)
    return figure, _draw_renyi(figure.subplots(), report)


@styled
def per_class_figure(report):
    """A panel a measure, a stem a class from the median, the worst class named."""
    if not report.per_class:
        raise ValueError(f"{report.name}: no per-class values; measure it with labels.")
    panels = len(report.per_class)
    figure = _figure(_plain(headline(report)), 7.0, 0.8 + 1.2 * panels)
    return figure, _draw_classes(figure.subplots(panels, 1, squeeze=False).ravel(), report)


# Several reports


def _panels(reports, split) -> list[tuple[str, list[str], bool]]:
    """(title, measures present, log axis) of each panel to draw; `split` gives each its own."""
    panels = []
    for title, (keys, log) in PANELS.items():
        keys = [key for key in keys if any(key in report.measures for report in reports)]
        panels += [(key, [key], log) for key in keys] if split else [(title, keys, log)]
    return [panel for panel in panels if panel[1]]


def _row(report, panels) -> dict:
    """What the panels show of one report: values, and intervals and limits where it has them."""
    row = {}
    for key in (key for _, keys, _ in panels for key in keys):
        row[key] = float(report.measures.get(key, math.nan))
        if key in report.intervals:
            low, high = report.intervals[key][:2]
            row |= {f"{key}_low": float(low), f"{key}_high": float(high)}
        if key in report.limits:
            row[f"{key}_limit"] = float(report.limits[key])
    return row


def _draw_lines(axis, x, lines, log):
    """`lines` is (label, colour, measure, rows); with the intervals as bars and the limits."""
    if log and any(row[key] > 0 for _, _, key, rows in lines for row in rows):
        axis.set_yscale("log", nonpositive="mask")
    for level, (label, colour, key, rows) in enumerate(lines):
        values = [row[key] for row in rows]
        axis.plot(x, values, marker="o" if len(x) <= 60 else "", color=colour, label=label)
        bars = [[row.get(f"{key}_{end}", math.nan) for row in rows] for end in ("low", "high")]
        if np.isfinite(bars).any():
            axis.vlines(x, *bars, color=colour, linewidth=3, alpha=0.35)
        _mark_missing(axis, x, values, colour, level)
    layered = len({key for _, _, key, _ in lines}) < len(lines)  # whose limit, if each has its own
    limits = [
        ([row.get(f"{key}_limit", math.nan) for row in rows], colour if layered else "black")
        for _, colour, key, rows in lines
    ]
    _draw_limits(axis, x, limits)


def _fit_depth(axis, x, values) -> np.ndarray:
    """Draws the line through log10 of three or more values, with Pearson's r; NaN where none is."""
    x, values = np.asarray(x, float), np.asarray(values)
    good, fit = np.isfinite(values) & (values > 0), np.full(len(x), math.nan)
    if good.sum() >= 3:
        depth, logs = x[good], np.log10(values[good])
        slope, offset = np.polyfit(depth, logs, 1)
        r = np.corrcoef(depth, logs)[0, 1] if np.ptp(logs) > 0 else math.nan
        fit[good] = 10 ** (offset + slope * depth)
        text = f"fit: ×{10**slope:.3g} a layer, r = {r:.3f}"
        axis.plot(depth, fit[good], ":", color=COLOURS[0], label=text)
    return fit


def _extent(names, reports) -> str:
    """Whose and how many: the name or number of layers, then n, d and C or their ranges."""
    sizes = []
    for symbol, field in {"n": "num_samples", "d": "dim", "C": "num_classes"}.items():
        values = {getattr(report, field) for report in reports} - {None}
        if values:
            ends = dict.fromkeys((min(values), max(values)))
            sizes.append(f"{symbol} = " + " to ".join(f"{end:,}" for end in ends))
    bars = "; bars: 95% intervals" if any(report.intervals for report in reports) else ""
    name = _plain(names[0]) if len(names) == 1 else f"{len(names)} layers"
    return f"{name}: {', '.join(sizes)}{bars}"


def _grid(title, panels, xlabel, legend=0.0):
    if not panels:
        raise ValueError("no report has a measure to draw.")
    columns = min(len(panels), 2 if len(panels) <= 6 else 3)
    lines = -(-len(panels) // columns)
    figure = _figure(title, 4.6 * columns, 0.5 + legend + 2.3 * lines)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes[len(panels) :]:
        axis.remove()
    for i, (axis, (name, _, _)) in enumerate(zip(axes, panels, strict=False)):
        lowest = i >= len(panels) - columns  # of its column
        axis.set(title=name, xlabel=xlabel if lowest else "")
        axis.tick_params(labelbottom=lowest)
    return figure, axes[: len(panels)]


@styled
def depth_figure(reports):
    """Measures of `{layer: report}` against depth; log NC1 with its fitted line and Pearson's r."""
    panels = _panels(reports.values(), split=False)
    figure, axes = _grid(_extent(list(reports), reports.values()), panels, "layer")
    rows = [_row(report, panels) for report in reports.values()]
    x = list(range(1, len(rows) + 1))
    names = [_plain(name, 18) for name in reports]
    turn = (
        {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
        if len("".join(names)) > 48
        else {}
    )
    for axis, (_, keys, log) in zip(axes, panels, strict=True):
        _draw_lines(axis, x, [(k, COLOURS[i], k, rows) for i, k in enumerate(keys)], log)
        if "nc1" in keys:
            for row, value in zip(rows, _fit_depth(axis, x, [r["nc1"] for r in rows]), strict=True):
                row["nc1_fit"] = float(value)
        every = slice(None, None, -(-len(x) // 16))
        axis.set_xticks(x[every], names[every], **turn)
        axis.legend()
    return figure, [{"layer": n, "depth": i} | rows[i - 1] for i, n in enumerate(reports, 1)]


@styled
def trajectory_figure(steps, reports_by_layer, log_steps=False):
    """Measures of `{layer: [report of each step]}` against step, with their limits."""
    layers = {layer: by_step(steps, reports) for layer, reports in reports_by_layer.items()}
    reports = [report for pairs in layers.values() for _, report in pairs]
    split = len(layers) > 1
    panels = _panels(reports, split)
    figure, axes = _grid(_extent(list(layers), reports), panels, "step", 0.3 * split)
    rows = {name: [_row(report, panels) for _, report in pairs] for name, pairs in layers.items()}
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, len(layers)))
    for axis, (_, keys, log) in zip(axes, panels, strict=True):
        if split:
            lines = [
                (_plain(n, 24), c, keys[0], rows[n]) for n, c in zip(rows, shades, strict=True)
            ]
        else:
            lines = [(k, COLOURS[i], k, r) for r in rows.values() for i, k in enumerate(keys)]
        axis.set_xscale("log" if log_steps else "linear")
        _draw_lines(axis, list(steps), lines, log)
        if not split:
            axis.legend()
    if split:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure, [
        {"step": step, "layer": name} | row
        for name, pairs in layers.items()
        for (step, _), row in zip(pairs, rows[name], strict=True)
    ]


@styled
def plot(reports):
    """One figure for a notebook: a report's spectrum, Renyi curve and classes; layers by depth."""
    layers = list(reports.values()) if hasattr(reports, "values") else [reports]
    if len(layers) != 1:
        return depth_figure(reports)[0]
    (report,) = layers
    classes = len(report.per_class)
    figure = _figure(_plain(headline(report)), 9.2, 3.6 + 1.2 * classes)
    grid = figure.add_gridspec(1 + classes, 2, height_ratios=[3.0] + [1.1] * classes)
    _draw_spectrum(figure.add_subplot(grid[0, 0]), report)
    _draw_renyi(figure.add_subplot(grid[0, 1]), report)
    if classes:
        _draw_classes([figure.add_subplot(grid[1 + i, :]) for i in range(classes)], report)
    return figure


# Files


@styled
def png_bytes(figure) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    return file.getvalue()


@styled
def svg_text(figure, prefix="figure") -> str:
    """The figure as SVG, every id under `prefix` so that several can stand in one page."""
    file = io.StringIO()
    nothing = dict.fromkeys(["Creator", "Date", "Format", "Type"])
    with matplotlib.rc_context({"svg.hashsalt": prefix, "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata=nothing)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", file.getvalue())


def layer_figures(report) -> dict:
    """Kind -> (figure, rows) of what one report can show."""
    drawn = {"spectrum": spectrum_figure(report), "renyi": renyi_figure(report)}
    return drawn | ({"per_class": per_class_figure(report)} if report.per_class else {})


def _all_figures(reports) -> dict:
    """Stem of the file name -> (figure, rows) for everything that `{layer: report}` can show."""
    drawn = {}
    for layer, report in reports.items():
        stem = re.sub(r"[^\w.-]+", "_", str(layer)).strip("._") or "layer"
        while f"{stem}_spectrum" in drawn:  # a/b and a_b must not share a file
            stem += "_"
        drawn |= {f"{stem}_{kind}": value for kind, value in layer_figures(report).items()}
    return drawn | ({"depth": depth_figure(reports)} if len(reports) > 1 else {})


def _save(drawn, directory) -> list[Path]:
    directory, paths = Path(directory), []
    directory.mkdir(parents=True, exist_ok=True)
    for stem, (figure, rows) in drawn.items():
        svg, png, table = (directory / f"{stem}.{kind}" for kind in ("svg", "png", "csv"))
        svg.write_text(svg_text(figure), encoding="utf-8")
        figure.set_layout_engine("none")  # keeps the layout just made, half of the time of drawing
        png.write_bytes(png_bytes(figure))
        with open(table, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(rows)
        paths += [svg, png, table]
    return paths


def save_figures(reports, directory) -> list[Path]:
    """Writes NAME.svg, NAME.png and NAME.csv for every figure of `{layer: report}`."""
    return _save(_all_figures(reports), directory)


def save_trajectory(steps, reports_by_layer, directory) -> list[Path]:
    """Writes trajectory.svg, .png and .csv."""
    return _save({"trajectory": trajectory_figure(steps, reports_by_layer)}, directory)
