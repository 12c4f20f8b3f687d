"""A legend inside a panel, where no line runs: a place that is free, or else room made at the top."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

# Matplotlib's names: the share of the free width to the left of the legend, and of the free height below it.
PLACES = {
    "upper right": (1, 1), "upper left": (0, 1), "lower left": (0, 0), "lower right": (1, 0),
    "center right": (1, 0.5), "center left": (0, 0.5), "upper center": (0.5, 1), "lower center": (0.5, 0),
    "center": (0.5, 0.5),
}  # fmt: skip
POINT = 1 / 72  # of an inch
# Of the space that the subplot has before its labels are laid out, about this share is the axis.
WIDTH, HEIGHT = 0.95, 0.85
SIDES = ("upper left", "upper right")


def legend_inside(
    axis: Axes, handles: Sequence[Any], labels: Iterable[str], also: Iterable[tuple[ArrayLike, ArrayLike]] = ()
) -> None:
    """Draws the legend in the first of `PLACES` that no line crosses; where all are taken, y grows at the top.

    Call it before names are placed at the heights of limits; `also` has the (x, y) of limits that are drawn later.
    """
    labels = list(labels)
    wide, high = _size(axis, labels)
    drawn = _points(axis, also)
    free = (place for place, corner in PLACES.items() if not _inside(drawn, *corner, wide, high).any())
    place = next(free, "")
    if not place:
        highest = {side: drawn[_inside(drawn, right, 0, wide, 1.0), 1].max() for right, side in enumerate(SIDES)}
        place = min(highest, key=lambda side: highest[side])
        _make_room(axis, float(highest[place]), high)
    axis.legend(handles, labels, loc=place)


def _size(axis: Axes, labels: Sequence[str]) -> tuple[float, float]:
    """Width and height of the legend as shares of the axis, by its font (8 points) and matplotlib's paddings."""
    wide = (35 + 4.4 * max(map(len, labels), default=0)) * POINT
    high = (8 + 12.5 * len(labels)) * POINT
    dpi = axis.get_figure(root=True).dpi  # type: ignore[union-attr]  # an axis of a figure
    return min(wide / (WIDTH * axis.bbox.width / dpi), 1.0), min(high / (HEIGHT * axis.bbox.height / dpi), 0.7)


def _points(axis: Axes, also: Iterable[tuple[ArrayLike, ArrayLike]]) -> np.ndarray:
    """Points along all lines, (n, 2), as shares of the axis."""
    (left, right), _ = axis.get_xlim(), axis.get_ylim()  # which also brings transData up to date
    back = axis.transAxes.inverted()
    paths = [(line.get_xydata(), line.get_transform()) for line in axis.get_lines()]
    for x, y in also:
        # A limit without places is a horizontal line.
        along = np.asarray(x, float) if np.size(x) else np.array([left, right])
        x, y = np.broadcast_arrays(along, np.asarray(y, float))
        paths.append((np.stack([x, y], 1), axis.transData))
    found = []
    for path, transform in paths:
        with np.errstate(all="ignore"):
            at = back.transform(transform.transform(np.asarray(path, float)))
        steps = np.linspace(0, 1, 25)[:, None, None]
        found.append((at[:-1] + steps * (at[1:] - at[:-1])).reshape(-1, 2))
    points = np.concatenate(found) if found else np.empty((0, 2))
    return points[np.isfinite(points).all(1)]


def _inside(points: np.ndarray, right: float, up: float, wide: float, high: float) -> np.ndarray:
    """Which points are in a box of that width and height, at that share of the room that it leaves."""
    start = np.array([right * (1 - wide), up * (1 - high)])
    return np.all((points >= start) & (points <= start + [wide, high]), axis=1)


def _make_room(axis: Axes, highest: float, high: float) -> None:
    """Moves the top of y, so that what was at `highest` is below the legend."""
    scale = axis.yaxis.get_transform()
    low, top = scale.transform(np.array(axis.get_ylim(), float))
    top = low + (top - low) * max(highest, 0.05) / (1 - high)
    axis.set_ylim(top=float(scale.inverted().transform(np.array([top]))[0]))
