"""Legends inside a panel cover no line, whatever is drawn; shared ones keep the colours of the lines they name."""

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from infojax.report.figures.canvas import STYLE
from infojax.report.figures.legends import legend_inside
from infojax.report.runs.figures import _shared

X = np.linspace(0, 10, 41)
DRAWN = {
    "falls": [10 * np.exp(-X)],
    "rises": [X],
    "cross": [X, 10 - X, 0 * X, 0 * X + 10],
    "everywhere": [5 + 5 * np.sin(9 * X), 5 - 5 * np.sin(7 * X)],
}


def covered(axis):
    """How many of the points along the lines lie under the legend, as it is drawn."""
    FigureCanvasAgg(axis.figure).draw()
    box = axis.get_legend().get_window_extent()
    points = []
    for line in axis.get_lines():
        at = line.get_transform().transform(line.get_xydata())
        points += [at[:-1] + share * (at[1:] - at[:-1]) for share in np.linspace(0, 1, 50)]
    return int(sum(box.contains(*point) for point in np.concatenate(points)))


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("name", DRAWN)
def test_no_line_runs_under_a_legend(name, scale):
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.0, 2.3), layout="constrained")
        axis = figure.subplots()
        axis.set_yscale(scale)
        lines = [axis.plot(X, y + (scale == "log"))[0] for y in DRAWN[name]]
        labels = ["class means", "classifier", "limit", "other"][: len(lines)]
        legend_inside(axis, lines, labels)
        assert covered(axis) == 0


def test_room_is_left_for_limits_that_are_drawn_later():
    figure = Figure(figsize=(3.0, 2.3), layout="constrained")
    axis = figure.subplots()
    lines = axis.plot(X, X)
    legend_inside(axis, lines, ["rises"], [([], [10.0])])  # along the top, where the legend would be
    axis.axhline(10.0)
    assert covered(axis) == 0


def test_a_shared_legend_has_the_colours_of_its_lines():
    same = {"MIR": ("pink", "-"), "HDR": ("orange", "-")}
    assert _shared([same, {}, dict(same)]) == same
    by_dash = [{"train": (colour, "-"), "test": (colour, "--")} for colour in ("blue", "green")]
    assert {label: dash for label, (_, dash) in _shared(by_dash).items()} == {"train": "-", "test": "--"}
    by_colour = [{"a": (one, "-"), "b": (other, "-")} for one, other in (("blue", "green"), ("red", "pink"))]
    assert _shared(by_colour) == {}  # grey lines of one dash would say nothing
