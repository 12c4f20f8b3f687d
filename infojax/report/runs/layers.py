"""Figures of layers other than curves over time: gaps against each other, and information planes."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D

from infojax.report.figures.canvas import Drawn, new_figure, plain, styled
from infojax.report.runs.curves import Layer, Method, layers_of, unit_of
from infojax.report.runs.figures import DARK, layer_handles
from infojax.report.runs.rows import FIRST, at_common_steps, closed_limits, num_classes

GAPS = (
    "Cheong 2025, Fig. 3.3: how much more strongly the layers compress the training samples, against how much better "
    "the network does on them. Evaluations with a negative generalisation gap are left out; the "
    "others are joined in order of the gap, not of time."
)
PLANES = (
    "Cheong 2025, Figs. 3.6 and 3.8: the path of every layer over the epochs. A layer that lost "
    "nothing stays at the upper right, where such layers overlap: both quantities are log2(C) where labels and digits "
    "are balanced, and less where they are not; digits that are summed contribute log2(C) each."
)
EPOCHS = "Greys"  # the other colours belong to the layers
DASHES = {"train": "-", "test": (0, (4, 1.5))}
MARKERS = {"train": "o", "test": "s"}


@styled
def draw_gaps(methods: Sequence[Method], title: str) -> Drawn | None:
    """(figure, rows): test minus train NC1 against test minus train loss; None without positive gaps."""
    layers, panels = layers_of(methods), []
    for method in methods:
        found = [(layer, _gaps(method, layer)) for layer in layers]
        panels.append((method, [(layer, points) for layer, points in found if points]))
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        return None
    figure, axes = _grid(title, len(panels))
    rows: list[dict[str, Any]] = []
    for axis, (method, lines) in zip(axes, panels, strict=True):
        axis.axhline(0, color=DARK, linewidth=0.8, zorder=1.2)
        for layer, points in lines:
            axis.plot(*zip(*((x, y) for x, y, *_ in points), strict=True), "o-", color=layer.colour, markersize=3)
            for x, y, step, n in points:
                rows.append(_place(methods, method, layer) | {"step": step, "x": x, "y": y, "n": n})
        axis.set_title(plain(method.label))
    _label(axes, "generalisation gap: test loss - train loss", "compression gap: test NC1 - train NC1")
    _name(figure, layer_handles(dict.fromkeys(layer for _, lines in panels for layer, _ in lines)))
    return figure, rows


def _gaps(method: Method, layer: Layer) -> list[tuple]:
    """(x, y, step, runs) of the evaluations with a positive generalisation gap, sorted by it."""
    keys = [(split, name) for name in ("loss", f"nc1@{layer.name}") for split in FIRST]
    found = at_common_steps(method.history, method.runs, *keys)
    points = []
    for step, numbers in found.items():
        loss_train, loss_test, train, test = numbers.mean(0).tolist()
        points.append((loss_test - loss_train, test - train, step, len(numbers)))
    return sorted(point for point in points if point[0] > 0)


@styled
def draw_planes(methods: Sequence[Method], title: str) -> Drawn | None:
    """(figure, rows): sufficiency against minimality, a path per layer and split; None without them."""
    layers, unit, panels = layers_of(methods), unit_of(methods, "step"), []
    for method in methods:
        paths = [(layer, split, _path(method, layer, split, unit)) for layer in layers for split in FIRST]
        panels.append((method, [path for path in paths if path[2]]))
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        return None
    figure, axes = _grid(title, len(panels))
    rows: list[dict[str, Any]] = []
    last = max(at for _, paths in panels for *_, points in paths for _, _, at, *_ in points)
    shades = {"cmap": EPOCHS, "norm": Normalize(0, last or 1)}
    caps = {}
    for axis, (method, paths) in zip(axes, panels, strict=True):
        for layer, split, points in paths:
            x, y, at, steps, n = zip(*points, strict=True)
            axis.plot(x, y, color=layer.colour, linestyle=DASHES[split], linewidth=1)
            marks = {"marker": MARKERS[split], "edgecolors": [layer.colour], "linewidths": 1.2, "s": 26, "zorder": 3}
            axis.scatter(x, y, c=at, **shades, **marks)
            for row in zip(steps, at, x, y, n, strict=True):
                named = dict(zip(("step", "time", "x", "y", "n"), row, strict=True))
                rows.append(_place(methods, method, layer) | {"split": split} | named)
        classes = num_classes(method.history)
        if classes:
            cap = closed_limits(classes)["log2(C)"]
            for line in (axis.axvline, axis.axhline):
                line(cap, color="black", linestyle=":", linewidth=1, zorder=1.2)
            caps["log2(C)"] = Line2D([], [], color="black", linestyle=":")
        axis.set_title(plain(method.label))
    _label(axes, "minimality (bits)", "sufficiency (bits)")
    figure.colorbar(ScalarMappable(shades["norm"], EPOCHS), ax=axes, label=unit, aspect=30, pad=0.02)
    used = {split for _, paths in panels for _, split, _ in paths}
    style = {"color": DARK, "markerfacecolor": "white"}
    kinds = {s: Line2D([], [], marker=MARKERS[s], linestyle=DASHES[s], **style) for s in FIRST if s in used}
    _name(figure, layer_handles(dict.fromkeys(layer for _, paths in panels for layer, *_ in paths)) | kinds | caps)
    return figure, rows


def _path(method: Method, layer: Layer, split: str, unit: str) -> list[tuple]:
    """(minimality, sufficiency, epoch or step, step, runs), sorted by step."""
    found = at_common_steps(
        method.history, method.runs, *((split, f"{q}@{layer.name}") for q in ("minimality", "sufficiency"))
    )
    scale = method.history.config["steps_per_epoch"] if unit == "epoch" else 1
    return [(*numbers.mean(0).tolist(), step / scale, step, len(numbers)) for step, numbers in found.items()]


def _grid(title, count):
    """A figure with `count` axes in rows of two or three."""
    wide = 2 if count in (2, 4) else min(count, 3)
    high = math.ceil(count / wide)
    figure = new_figure(title, max(4.6 * wide, 7.5), 1.3 + 3.0 * high)
    axes = figure.subplots(high, wide, squeeze=False).ravel()
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def _label(axes, x, y):
    for axis in axes:
        axis.set(xlabel=x, ylabel=y if axis.get_subplotspec().is_first_col() else "")


def _name(figure, handles):
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(len(handles), 5))


def _place(methods: Sequence[Method], method: Method, layer: Layer) -> dict[str, Any]:
    named: dict[str, Any] = {"method": method.label} if len(methods) > 1 else {}
    return named | {"layer": layer.name, "depth": layer.depth}
