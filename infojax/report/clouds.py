"""Three-dimensional features at the beginning and the end of a run, with their means and the classifier."""

import itertools

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D

from infojax.report.canvas import new_figure, plain, styled
from infojax.report.maps import NAMED
from infojax.report.panels import COLOURS
from infojax.report.rows import FIRST

CLOUDS = (
    "Cheong 2025, Fig. 1.3, measured: three-dimensional features of one seed at the first and the last evaluation. "
    "Large: class means, joined by the edges of their simplex. Arrows: rows of the classifier from the centre of the "
    "means, scaled to the means' size. Each panel has its own scale and view."
)
AXES = ("cloud_x", "cloud_y", "cloud_z")


@styled
def draw_clouds(methods, title):
    """(figure, rows): two panels of the first run of each method that has clouds; None where none has."""
    panels = [(method, *end) for method in methods for end in _ends(method)]
    if not panels:
        return None
    high = (len(panels) + 1) // 2
    figure = new_figure(title, 9.2, 0.9 + 4.2 * high)
    classes = max(len(row["means"]) for *_, row in panels)
    palette = ListedColormap(COLOURS[:classes]) if classes <= len(COLOURS) else matplotlib.colormaps["turbo"]
    shades = palette(np.linspace(0, 1, classes))
    rows = []
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


def _ends(method) -> list[tuple]:
    """(run, split, row) of the earliest and the last step of the first run that has clouds; of train, else another."""
    clouds = method.study.clouds
    for run in method.runs:
        splits = sorted((s for r, s in clouds if r == run), key=lambda s: (*FIRST, s).index(s))
        if splits:
            steps = clouds[run, splits[0]]
            return [(run, splits[0], steps[step]) for step in dict.fromkeys((min(steps), max(steps)))]
    return []


def _name(method, run, split, row) -> str:
    study = method.study
    per_epoch = study.config.get("steps_per_epoch")
    when = f"epoch {round(row['step'] / per_epoch, 1):g}" if per_epoch else f"step {row['step']:,}"
    seed = f"seed {study.seeds[run]}" if run in study.seeds else ""
    parts = [method.label, seed, when, split, f"n = {len(row['labels']):,}"]
    return plain(", ".join(filter(None, parts)))


def _draw(axis, run, split, row, shades) -> list[dict]:
    points, labels = np.array([row[name] for name in AXES], float).T, row["labels"]
    means, head = np.array(row["means"], float), np.array(row.get("head", []), float).reshape(-1, 3)
    centre = np.nanmean(means, 0)  # an absent class has no mean
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
    seen = (means - centre)[np.isfinite(means).all(1)]
    x, y, z = np.linalg.svd(seen)[2][-1]  # the direction in which the means differ least
    height = np.clip(np.degrees(np.arcsin(min(abs(z), 1))), 20, 60)  # ticks run together beyond
    axis.view_init(height, np.degrees(np.arctan2(y, x)) + 180 * (z < 0) + 15)
    axis.tick_params(labelsize=7, pad=0)
    place = {"run": run, "split": split, "step": row["step"]}
    kinds = (("point", points, labels), ("mean", means, range(len(means))), ("classifier", head, range(len(head))))
    return [
        place | {"kind": kind, "class": c} | dict(zip("xyz", map(float, at), strict=True))
        for kind, places, classes in kinds
        for at, c in zip(places, classes, strict=True)
    ]
