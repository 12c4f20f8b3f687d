"""Two-dimensional maps of features, a panel a run, coloured by class."""

import matplotlib
import numpy as np
from matplotlib.lines import Line2D

from infojax.report.canvas import new_figure, plain, styled

NAMED = 12  # classes, at most, that get a legend


@styled
def draw_maps(study, title):
    """(figure, rows) of the maps in a study's rows, in the order of the swept value."""
    shown = [(value, run) for value, runs in study.groups.items() for run in runs if run in study.maps]
    figure = new_figure(title, 4.4 * max(len(shown), 2), 4.6)
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    classes = sorted({label for _, run in shown for label in study.maps[run]["labels"]})
    shades = matplotlib.colormaps["tab10" if len(classes) <= 10 else "turbo"](np.linspace(0, 1, max(len(classes), 2)))
    colour, rows = dict(zip(classes, shades, strict=False)), []
    for axis, (value, run) in zip(axes, shown, strict=True):
        found = study.maps[run]
        name = f"{study.swept} = {value:g}" if study.swept else f"run {run}"
        seed = f", seed {study.seeds[run]}" if run in study.seeds else ""
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
