"""Features as points, in space and in the plane, and the illustration of binning: figures of runs without curves."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D

from infojax.report.figures.canvas import Drawn, new_figure, plain, styled
from infojax.report.figures.panels import COLOURS
from infojax.report.runs.curves import Method
from infojax.report.runs.progress import when
from infojax.report.runs.rows import FIRST, RunHistory

CLOUDS = (
    "Cheong 2025, Fig. 1.3, measured: three-dimensional features of one seed at the first and the last evaluation. "
    "Large marks: class means, joined by the edges of their simplex. Arrows: rows of the classifier from the centre of "
    "the means, scaled to the size of the means. Each panel has its own scale and view."
)
AXES = ("cloud_x", "cloud_y", "cloud_z")
BINNING = (
    "Cheong 2025, Fig. 1.2: the edges of 30 equal bins, with which Shwartz-Ziv and Tishby (2017) measured the mutual "
    "information of tanh units. A saturated unit (|x| > 1.68) falls into one of the two outer bins and counts as one "
    "bit, whatever information it carries: what looks like compression is saturation (Saxe et al. 2019). infojax "
    "measures V-information instead, which needs no bins."
)
NAMED = 12  # the most classes that get a legend


# In space


@styled
def draw_clouds(methods: Sequence[Method], title: str) -> Drawn | None:
    """(figure, rows): two panels of features in space, for each method's first run with clouds; None without any."""
    panels = [(method, *end) for method in methods for end in _ends(method)]
    if not panels:
        return None
    high = (len(panels) + 1) // 2
    figure = new_figure(title, 9.2, 0.9 + 4.2 * high)
    classes = max(len(row["means"]) for *_, row in panels)
    palette = ListedColormap(COLOURS[:classes]) if classes <= len(COLOURS) else matplotlib.colormaps["turbo"]
    shades = palette(np.linspace(0, 1, classes))
    rows: list[dict[str, Any]] = []
    for i, (method, run, split, row) in enumerate(panels):
        axis = figure.add_subplot(high, 2, i + 1, projection="3d")
        axis.set_title(_name(method, run, split, row))
        rows += _draw(axis, run, split, row, shades)
    handles = {"class mean": Line2D([], [], marker="o", markersize=8, color="#888888", markeredgecolor="black")}
    handles |= {"row of the classifier": Line2D([], [], color="#888888", linewidth=2.2)}
    if classes <= NAMED:
        handles = {str(c): Line2D([], [], marker="o", linestyle="", color=shades[c]) for c in range(classes)} | handles
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(len(handles), 8))
    return figure, rows


def _ends(method: Method) -> list[tuple]:
    """(run, split, row) of the first and last step of the first run that has clouds; train if it has it."""
    clouds = method.history.clouds
    for run in method.runs:
        splits = sorted((s for r, s in clouds if r == run), key=lambda s: (*FIRST, s).index(s))
        if splits:
            steps = clouds[run, splits[0]]
            return [(run, splits[0], steps[step]) for step in dict.fromkeys((min(steps), max(steps)))]
    return []


def _name(method: Method, run: int, split: str, row: Mapping[str, Any]) -> str:
    history = method.history
    seed = f"seed {history.seeds[run]}" if run in history.seeds else ""
    parts = [method.label, seed, when(history, row["step"]), split, f"n = {len(row['labels']):,}"]
    return plain(", ".join(filter(None, parts)))


def _draw(axis: Axes, run: int, split: str, row: Mapping[str, Any], shades: np.ndarray) -> list[dict]:
    points, labels = np.array([row[name] for name in AXES], float).T, row["labels"]
    means, head = np.array(row["means"], float), np.array(row.get("head", []), float).reshape(-1, 3)
    centre = np.nanmean(means, 0)  # the mean of a class without samples is NaN
    axis.scatter(*points.T, c=shades[labels], s=6, linewidths=0, alpha=0.6)
    for a, b in itertools.combinations(means, 2):
        axis.plot(*zip(a, b, strict=True), color="#444444", linewidth=0.8)
    axis.scatter(*means.T, c=shades[: len(means)], s=70, edgecolors="black", linewidths=0.8, depthshade=False)
    size = np.linalg.norm(head)
    if size > 0:
        for arrow, shade in zip(head * np.sqrt(np.nansum((means - centre) ** 2)) / size, shades, strict=False):
            axis.quiver(*centre, *arrow, color=shade, linewidth=2.2, arrow_length_ratio=0.15)
    around = points.mean(0)
    reach = 1.05 * np.abs(points - around).max(initial=1e-12)
    axis.set(**{f"{name}lim": (at - reach, at + reach) for name, at in zip("xyz", around, strict=True)})
    axis.set_box_aspect((1, 1, 1), zoom=0.95)
    finite = (means - centre)[np.isfinite(means).all(1)]
    x, y, z = np.linalg.svd(finite)[2][-1]  # the direction in which the means differ least
    height = np.clip(np.degrees(np.arcsin(min(abs(z), 1))), 20, 60)  # beyond these the tick labels overlap
    axis.view_init(height, np.degrees(np.arctan2(y, x)) + 180 * (z < 0) + 15)
    axis.tick_params(labelsize=7, pad=0)
    place = {"run": run, "split": split, "step": row["step"]}
    kinds = (("point", points, labels), ("mean", means, range(len(means))), ("classifier", head, range(len(head))))
    return [
        place | {"kind": kind, "class": c} | dict(zip("xyz", map(float, at), strict=True))
        for kind, places, classes in kinds
        for at, c in zip(places, classes, strict=True)
    ]


# In the plane


@styled
def draw_maps(history: RunHistory, title: str) -> Drawn:
    """(figure, rows) of the maps in a history, sorted by the swept value."""
    shown = [(value, run) for value, runs in history.groups.items() for run in runs if run in history.maps]
    figure = new_figure(title, 4.4 * max(len(shown), 2), 4.6)
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    classes = sorted({label for _, run in shown for label in history.maps[run]["labels"]})
    shades = matplotlib.colormaps["tab10" if len(classes) <= 10 else "turbo"](np.linspace(0, 1, max(len(classes), 2)))
    colour = dict(zip(classes, shades, strict=False))
    rows: list[dict[str, Any]] = []
    for axis, (value, run) in zip(axes, shown, strict=True):
        found = history.maps[run]
        name = f"{history.swept} = {value:g}" if history.swept else f"run {run}"
        seed = f", seed {history.seeds[run]}" if run in history.seeds else ""
        axis.set_title(f"{plain(name)}{seed}, {found['split']}, n = {found['n']:,}")
        size = 30 if found["n"] <= 400 else 8 if found["n"] <= 2500 else 2
        axis.scatter(found["tsne_x"], found["tsne_y"], s=size, c=[colour[c] for c in found["labels"]], linewidths=0)
        axis.set(xticks=[], yticks=[], aspect="equal")
        axis.grid(False)
        points = zip(found["tsne_x"], found["tsne_y"], found["labels"], strict=True)
        rows += [{"panel": name, "run": run, "x": x, "y": y, "class": c} for x, y, c in points]
    if len(classes) <= NAMED:
        handles = [Line2D([], [], marker="o", linestyle="", color=colour[c]) for c in classes]
        figure.legend(handles, classes, loc="outside lower center", ncols=len(classes))
    return figure, rows


# Why usable information is measured, and not that of binned units: an illustration that needs no rows


@styled
def draw_binning(bins: int = 30, title: str = "Binning of a saturating unit") -> Drawn:
    """(figure, rows) of tanh, the identity, and the edges of equal bins of [-1, 1]."""
    figure = new_figure(title, 5.2, 3.8)
    axis = figure.subplots()
    borders, x = np.linspace(-1, 1, bins + 1), np.linspace(-4, 4, 161)
    axis.hlines(borders, -4, 4, color="#aaaaaa", linewidth=0.6, zorder=1.2)
    axis.plot(x, np.tanh(x), color=COLOURS[0], label="h = tanh(x)")
    axis.plot([-1, 1], [-1, 1], "--", color="black", linewidth=1, label="h = x")
    axis.plot([], [], color="#aaaaaa", linewidth=0.6, label=f"edges of {bins} bins")
    axis.set(xlim=(-4, 4), ylim=(-1.04, 1.04), xlabel="x, before the activation", ylabel="h")
    axis.grid(False)
    figure.legend(loc="outside lower center", ncols=3)
    rows: list[dict[str, Any]] = [{"curve": "tanh", "x": at, "y": float(np.tanh(at))} for at in x.tolist()]
    rows += [{"curve": "identity", "x": at, "y": at} for at in (-1.0, 1.0)]
    return figure, rows + [{"curve": "border", "y": border} for border in borders.tolist()]
