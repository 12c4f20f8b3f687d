"""What is drawn on one axis: a spectrum, a Rényi curve, values by class, lines with their limits.

Theory limits are dashed black lines with their names at the right edge; a value that the axis cannot show is
marked where it belongs. The functions that draw one report's curves return the rows of numbers drawn.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatterSciNotation, MaxNLocator
from numpy.typing import ArrayLike

from infojax.report.tables.content import ROUNDING, Report, format_value, worst

# Okabe and Ito's palette, which colour-blind readers can tell apart; black is kept for theory.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
EDGE = {"x": 1.01, "fontsize": 7, "va": "center"}  # text just right of an axis
DASHED = {"linestyle": "--", "linewidth": 1, "zorder": 1.5}
LARGEST = 1e250  # matplotlib's own arithmetic on the ends of an axis overflows near the largest float

Numbers = Sequence[float] | np.ndarray
ReportLine = tuple[str, Any, str, Sequence[Mapping[str, Any]]]  # label, colour, measure, rows


class Limit(NamedTuple):
    """A theory limit at each x, drawn dashed; the colour is used only where the limit varies with x."""

    x: Any
    values: Any
    colour: Any = "black"
    name: str = "limit"


class PlainNumbers(LogFormatterSciNotation):
    """Ticks of a log axis as 0.02, 3 and 600, unless the axis has others for which powers of ten are shorter."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The label, or "" where matplotlib would have none."""
        text = super().__call__(x, pos)
        low, high = sorted(self.axis.get_view_interval())
        return f"{x:g}" if text and low > 5e-4 and high < 5e4 else text


def scale_y(axis: Axes, wanted: bool, values: ArrayLike) -> bool:
    """Makes y logarithmic if that is wanted and some values can be shown on a log axis; returns whether it did."""
    given = np.asarray(values, float)
    values = given[(given > 0) & (given <= LARGEST)]
    # matplotlib widens the axis of a single value, but the margins of nearly equal values vanish in rounding.
    least, most = values.min(initial=LARGEST), values.max(initial=0)
    log = bool(wanted and (least == most or most > (1 + 1e-9) * least))
    if log:
        axis.set_yscale("log", nonpositive="mask")
        axis.yaxis.set_major_formatter(PlainNumbers())
        axis.yaxis.set_minor_formatter(PlainNumbers())
    elif given.size and np.all(np.abs(given) < ROUNDING):  # rounding errors, which would get an axis of 1e-17
        axis.set_ylim(-0.05, 1)
    return log


def drawable(axis: Axes, values: ArrayLike) -> np.ndarray:
    """Values with NaN for those that the y axis cannot show, each of which would make matplotlib warn."""
    values = np.asarray(values, float)
    shown = (np.abs(values) <= LARGEST) & ((values > 0) | (axis.get_yscale() != "log"))
    return np.where(shown, values, math.nan)


def draw_spectrum(axis: Axes, report: Report) -> list[dict]:
    """Eigenvalue against rank on log axes, with the effective rank and its limit."""
    values = np.asarray(report.spectrum, np.float64)
    # Smaller eigenvalues are rounding errors, and would stretch the axis over ten empty decades.
    shown = values[values > 1e-12 * values.max(initial=0.0)]
    ranks = np.arange(1, len(shown) + 1)
    label = "eigenvalues" + (f" (first {len(shown):,})" if len(shown) < len(values) else "")
    marker = "o" if len(shown) <= 128 else ""
    axis.plot(ranks, shown, marker=marker, markersize=3, color=COLOURS[0], label=label)
    scale_y(axis, True, shown)
    if shown.size:
        axis.set_xscale("log")
        axis.set_ylim(shown.min() / 2, shown.max() * 2)
        rank = math.exp(-np.sum(shown * np.log(shown)))
        axis.axvline(rank, color=COLOURS[1], label=f"effective rank exp(H) = {rank:.4g}")
    limit = math.exp(report.limits.get("entropy_features", math.nan))
    if math.isfinite(limit):
        axis.axvline(limit, color="black", label=f"limit {limit:.4g}", **DASHED)
    axis.set(xlabel="rank", ylabel="eigenvalue", title="Spectrum of the cosine Gram density")
    axis.legend(loc="best")
    return [{"rank": k, "eigenvalue": float(w)} for k, w in enumerate(shown, 1)]


def draw_renyi(axis: Axes, report: Report) -> list[dict]:
    """Entropy against its order alpha, with the limit at alpha = 1."""
    points = sorted((a, h) for a, h in report.renyi.items() if math.isfinite(a))
    alphas, entropies = [a for a, _ in points], [h for _, h in points]
    if alphas and alphas[0] > 0:
        axis.set_xscale("log")
        axis.set_xticks(alphas, [f"{alpha:g}" for alpha in alphas])
        axis.minorticks_off()
    axis.plot(alphas, entropies, "o-", color=COLOURS[0])
    if 1.0 in report.renyi:
        label = f"von Neumann, α = 1: {report.renyi[1.0]:.4g}"
        axis.plot([1.0], [report.renyi[1.0]], "D", color=COLOURS[1], markersize=6, label=label)
        axis.legend()
    axis.set(xlabel="α", ylabel="entropy (nats)", title="Rényi entropy of order α")
    axis.margins(y=0.15)
    limit = report.limits.get("entropy_features", math.nan)
    mark_missing(axis, alphas, entropies, COLOURS[0])
    draw_dashed(axis, [Limit([], [limit])], note="\nat α = 1")
    return [{"alpha": float(a), "entropy": float(h)} for a, h in points]


def draw_classes(axis: Axes, key: str, values: np.ndarray) -> None:
    """A stem per class from the median; the worst class is named."""
    finite = values[np.isfinite(values)]
    scale_y(axis, finite.size > 0 and 0 < 100 * finite.min() < finite.max(), finite)
    middle = float(np.median(finite)) if finite.size else math.nan
    classes = np.arange(len(values))
    axis.plot(classes, values, "o", color=COLOURS[0], markersize=5 if len(values) <= 30 else 3)
    if len(values) <= 200:  # stems of more classes would be one blue band
        axis.vlines(classes, middle, values, color=COLOURS[0], linewidth=0.8)
    if finite.size:
        axis.axhline(middle, color="#777777", linewidth=0.8, zorder=1.5)
        axis.text(y=middle, s=f"median {middle:.4g}", transform=axis.get_yaxis_transform(), **EDGE)
    axis.set_title(key)
    at = worst(key, values)
    if at is not None:
        axis.plot([at], values[[at]], "o", color=COLOURS[1], markersize=6)
        text = f"class {at}: {values[at]:.4g}"
        axis.set_title(text, loc="right", color=COLOURS[1], fontsize=8)
    axis.margins(x=0.03, y=0.2)
    axis.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    mark_missing(axis, classes, values, COLOURS[0])


def draw_lines(axis: Axes, x: Numbers, lines: Sequence[ReportLine], log: bool) -> None:
    """Lines with their intervals as error bars.

    `lines` is (label, colour, measure, rows); a row holds the measure and, where available, its `_low`, `_high` and
    `_limit`.
    """
    scale_y(axis, log, [row[key] for _, _, key, rows in lines for row in rows])
    for level, (label, colour, key, rows) in enumerate(lines):
        values = [row[key] for row in rows]
        axis.plot(x, drawable(axis, values), marker="o" if len(x) <= 60 else "", color=colour, label=label)
        bars = drawable(axis, [[row.get(f"{key}_{end}", math.nan) for row in rows] for end in ("low", "high")])
        if np.isfinite(bars).any():
            axis.vlines(x, *bars, color=colour, linewidth=3, alpha=0.35)
        mark_missing(axis, x, values, colour, level)


def draw_limits(axis: Axes, x: Numbers, lines: Sequence[ReportLine]) -> None:
    """The limits of the lines that `draw_lines` drew; call it last. They are named after their lines where they differ.

    Each has its line's colour if every line has a limit of its own.
    """
    own = len({key for _, _, key, _ in lines}) < len(lines)
    found = [(line, [row.get(f"{line[2]}_limit", math.nan) for row in line[3]]) for line in lines]
    ends = {round(heights[-1], 9) for _, heights in found if heights and math.isfinite(heights[-1])}
    curves = [
        # Where several quantities have different limits, each limit is named after its quantity.
        Limit(x, heights, colour if own else "black", f"{key} limit" if len(ends) > 1 and not own else "limit")
        for (_, colour, key, _), heights in found
    ]
    draw_dashed(axis, curves)


def limits_of(x: Numbers, lines: Sequence[ReportLine]) -> list[tuple[Numbers, list[float]]]:
    """(x, y) of the limits that `draw_limits` will draw."""
    return [(x, [row.get(f"{key}_limit", math.nan) for row in rows]) for _, _, key, rows in lines]


def draw_fit(axis: Axes, x: ArrayLike, values: ArrayLike) -> np.ndarray:
    """The law of equi-separation: a line fitted to log10 NC1 of three or more layers, with its rate and Pearson's r.

    Returns the fitted values, NaN where there is no fit.
    """
    x, values = np.asarray(x, float), np.asarray(values)
    good, fit = (values > 0) & (values <= LARGEST), np.full(len(x), math.nan)
    if good.sum() >= 3:
        depth, logs = x[good], np.log10(values[good])
        slope, offset = np.polyfit(depth, logs, 1)
        r = np.corrcoef(depth, logs)[0, 1] if np.ptp(logs) > 0 else math.nan
        fit[good] = 10 ** np.clip(offset + slope * depth, -300, 300)
        text = f"equi-separation: ×{10**slope:.3g} per layer, r = {r:.3f} (log NC1, thesis)"
        axis.plot(depth, fit[good], ":", color=COLOURS[0], label=text)
    return fit


def draw_dashed(axis: Axes, limits: Iterable[Limit], note: str = "") -> None:
    """Dashed limits named at the right edge: a horizontal line, or a curve where a limit varies with x.

    On a log axis a limit of 0 is marked at the bottom. `note` is appended to the names.
    """
    places: dict[str, float] = {}  # name -> height: limits with the same text share one
    log = axis.get_yscale() == "log"
    for x, values, colour, kind in limits:
        values = np.asarray(values, float)
        values = np.where(np.abs(values) <= LARGEST, values, math.nan)
        values = np.where(np.abs(values) < ROUNDING, 0.0, values)
        finite = values[np.isfinite(values)]
        names = [f"{kind} {value:.4g}{note}" for value in finite]
        if not names:
            continue
        if len(set(names)) > 1:
            axis.plot(x, drawable(axis, values), color=colour, **DASHED)
        elif names[0] not in places and not (log and finite[0] <= 0):
            axis.axhline(finite[0], color="black", **DASHED)
        places[names[-1]] = finite[-1]
    axis.set_ylim(axis.get_ylim())  # the names are placed for these limits
    named = sorted(places.items(), key=lambda place: place[1])
    named = named if len(named) <= 4 else named[:: len(named) - 1]  # the extremes
    hidden = [log and value <= 0 for _, value in named]
    heights = [axis.get_ylim()[0] if low else value for (_, value), low in zip(named, hidden, strict=True)]
    to_axis = axis.transData + axis.transAxes.inverted()
    heights = [to_axis.transform((1, height))[1] for height in heights]
    gap = 0.14 / (axis.bbox.height / axis.figure.dpi)
    for i in range(1, len(heights)):  # keep clear of the name below
        heights[i] = max(heights[i], heights[i - 1] + gap)
    for i in reversed(range(len(heights))):  # and of the top, where the next panel may begin
        heights[i] = min(heights[i], 1 - gap * (len(heights) - 1 - i))
    for (name, _), low, height in zip(named, hidden, heights, strict=True):
        axis.text(y=height, s=f"↓ {name}" if low else name, transform=axis.transAxes, **EDGE)


def mark_missing(axis: Axes, x: Numbers, y: Numbers, colour: Any, level: int = 0) -> None:
    """Writes nan (or the value that the axis cannot show) where a point is missing."""
    axis.update_datalim([(at, 0) for at in x], updatey=False)  # keeps the marks inside the axis
    height, shown = 0.03 + 0.08 * level, np.isfinite(drawable(axis, y))
    absent = [(at, v) for at, v, there in zip(x, y, shown, strict=True) if not there]
    marks = [(at, format_value(v, 2), axis.get_xaxis_transform()) for at, v in absent]
    if len(marks) > 20:
        marks = [(0.5, f"{len(marks):,} of {len(x):,} missing", axis.transAxes)]
    for at, text, where in marks:
        place = {"transform": where, "ha": "center", "va": "bottom"}
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axis.text(at, height, text, color=colour, fontsize=7, bbox=box, **place)
