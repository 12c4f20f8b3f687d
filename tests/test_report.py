"""Tables, figures and the page: nothing left out, nothing cut off, and the same bytes each time."""

import csv
import io
import math
import os
import pickle
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import rich.console

from infojax.analysis import Interval, Report
from infojax.report import figures, page, tables
from infojax.report.figures import canvas, panels


def made(name="features", num_samples=1200, dim=64, num_classes=None, *rest, **fields):
    """A report of `analyze`, with defaults for what a test does not look at."""
    given = dict(zip(("measures", "limits", "conventions", "warnings", "reasons", "per_class"), rest, strict=False))
    defaults = {name: {} for name in ("measures", "limits", "conventions", "reasons", "per_class", "intervals")} | {
        "warnings": (),
        "spectrum": np.array([0.5, 0.25, 0.125, 0.125]),
        "renyi": {0.5: 1.3, 1.0: 1.2130, 2.0: 1.1},
    }
    return Report(name, num_samples, dim, num_classes, **defaults | given | fields)


FREE = {
    "entropy_features": 2.3456,
    "matrix_entropy_alpha_2": 2.2345,
    "effective_rank": 12.345,
    "effective_rank_from_gram": 10.439,
    "mean_energy": 1.25e-5,
}
LABELLED = FREE | {"nc1": 0.0625, "nc2_equinorm": 0.03125, "cdnv": 0.015625, "silhouette": 0.75}
HEADED = LABELLED | {"entropy_head": 2.1875, "mir": 0.90625, "hdr": 0.09375, "nc3": 0.5, "nc4": 0.0}
LIMITS = {"entropy_features": math.log(9), "nc1": 0.0, "mir": 0.9524, "hdr": 0.0, "nc4": 0.0}


def conventions(measures):
    return {key: f"the definition of {key}" for key in measures}


def full(name="features", classes=10, **changes):
    """A report with labels and a head; every per-class value differs."""
    index = np.arange(classes)
    per_class = {"count": 100 + index, "nc1": 0.01 * (index + 1), "entropy": np.log(2.0 + index)}
    report = made(name, 1200, 64, classes, HEADED, LIMITS, conventions(HEADED), (), {}, per_class)
    return replace(report, **changes)


def absent(report, key, reason):
    return replace(
        report,
        measures=report.measures | {key: math.nan},
        reasons=report.reasons | {key: reason},
    )


def layers(count=4):
    """NC1 halves from layer to layer, so its fit is known."""
    return {f"block{i}": full(f"block{i}", measures=HEADED | {"nc1": 8.0 * 0.5**i}) for i in range(count)}


# Tables


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.19722, "2.1972"),
        (0.0, "0"),
        (-0.0625, "-0.062500"),
        (99999.0, "99999"),
        (123456.0, "1.2346e+05"),
        (0.00099999, "9.9999e-04"),
        (0.001, "0.0010000"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (np.float32(0.5), "0.50000"),
    ],
)
def test_numbers_are_written_with_five_digits(value, text):
    assert tables.format_value(value) == text


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
@pytest.mark.parametrize("classes", [3, 25])
def test_no_line_is_longer_than_the_width(width, classes):
    report = absent(full("a name " * 30, classes), "mir", "the entropies are zero " * 8)
    intervals = {"nc1": Interval(0.06, 0.07, 0.065, 0.002, 600)}
    report = replace(report, warnings=("a warning that goes on " * 20,), intervals=intervals)
    lines = tables.render_table(report, width).splitlines()
    lines += tables.render_layers({"a layer " * 20: report, "b": full()}, width).splitlines()
    lines += tables.render_trajectory([1, 10**9], [report, report], width).splitlines()
    assert max(map(len, lines)) <= width
    assert sum(len(line) == width for line in lines) >= 1  # and the room is used


@pytest.mark.parametrize("width", [40, 60, 80, 100])
@pytest.mark.parametrize("kind", ["text", "rich", "html"])
def test_numbers_names_and_bounds_are_never_cut(kind, width):
    estimated = "on 4096 of 100000 rows drawn at random; estimated, in [0.826123, 0.826456] at 95%"
    report = full("a-name-" * 20, 25)
    report = replace(
        report,
        measures=report.measures | {"matrix_entropy_alpha_0.5": 1.0},
        conventions=report.conventions | {"mir": f"the definition of MIR, which goes on and on; {estimated}"},
        intervals={"nc1": Interval(0.06, 0.07, 0.065, 0.002, 600), "mir": Interval(-1.5e-5, 0.9, 0.065, 0.002, 600)},
    )
    if kind == "html":
        text = re.sub(r"<[^>]*>", " ", tables.html_table(report))
    elif kind == "text":
        text = report.table(width)
    else:
        screen = rich.console.Console(width=width, record=True, file=io.StringIO())
        screen.print(report)
        text = screen.export_text()
    words = " ".join(text.split())
    assert estimated in words
    for number in ("[0.06000, 0.07000]", "[-1.500e-05, 0.9000]", "n = 1,200, d = 64, C = 25"):
        assert number in words
    for key, value in report.measures.items():
        assert key in words and tables.format_value(value) in words
    for value in report.limits.values():
        assert tables.format_value(value) in words
    for key, values in report.per_class.items():
        assert key in words and tables.format_value(values.max()) in words or key == "count"


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_columns_that_do_not_fit_follow_below(width):
    reports = {name: full(name) for name in ("early", "late")}
    lines = tables.render_layers(reports, width).splitlines()
    heads = [line.split() for line in lines if line.startswith("  layer")]
    assert [word for head in heads for word in head[1:]] == (
        ["n", "d", "entropy", "eff.", "rank", "NC1", "MIR", "HDR", "NC3", "NC4", "CDNV"]
    )
    assert [line.split()[0] for line in lines] == ["layer", "early", "late", "limit"] * len(heads)
    assert len(heads) == {40: 3, 60: 2, 80: 2, 100: 1}[width]


def test_bounds_stand_below_a_comparison():
    estimated = "on 4096 of 9999 rows drawn at random; estimated, in [0.826123, 0.826456] at 95%"
    report = replace(full(), conventions=conventions(HEADED) | {"mir": f"a definition; {estimated}"})
    for text in (
        tables.render_layers({"a": full(), "b": report}, 60),
        tables.render_trajectory([1, 2], [full(), report], 60),
    ):
        assert f"! {'layer b' if 'layer' in text else 'step 2'}: MIR {estimated}" in " ".join(text.split())


def test_the_text_holds_every_measure_in_its_group():
    report = replace(full(), measures={"novel_measure": 1.5} | HEADED)
    blocks = tables.render_table(report).split("\n\n")
    titles = {block.splitlines()[0]: block for block in blocks}
    where = {"mean_energy": "Entropy and rank", "cdnv": "Neural collapse", "novel_measure": "Other"}
    where |= {"entropy_head": "Head and information", "nc4": "Head and information"}
    for key, title in where.items():
        assert re.search(rf"^  {key} ", titles[title], re.M)
    for key, value in report.measures.items():
        line = next(x for x in "\n".join(blocks).splitlines() if x.startswith(f"  {key} "))
        assert tables.format_value(value) in line.split()
        assert (f"the definition of {key}" in line) == (key in report.conventions)
    assert "2.1972" in next(x for x in titles["Entropy and rank"].splitlines() if "entropy_f" in x)


def test_decimal_points_stand_in_one_column():
    lines = tables.render_table(replace(full(), conventions={})).splitlines()
    points = [line.index(".") for line in lines if re.match(r"  (entropy_f|effective|nc1 |mir)", line)]
    assert len(set(points[:3])) == 1 and len(points) >= 5


def test_intervals_are_shown_with_their_sample_size():
    intervals = {"nc1": Interval(0.05125, 0.07375, 0.07, 0.0075, 600)}
    report = replace(full(), intervals=intervals)
    assert "[0.05125, 0.07375]" in tables.render_table(report)
    assert "m = 600 of n = 1,200" in tables.render_table(report)
    assert "interval" not in tables.render_table(full())
    html = tables.html_table(report)
    assert "<td>[0.05125, 0.07375]</td><td>0.07000</td><td>0.007500</td>" in html


def test_nan_stands_beside_its_reason():
    report = absent(full(), "mir", "0/0 at C = 2")
    assert "nan (0/0 at C = 2); limit 0.95240" in tables.render_table(report)
    assert "nan (0/0 at C = 2)" in tables.html_table(report)
    assert "layer a: MIR nan (0/0 at C = 2)" in tables.render_layers({"a": report})
    assert "step 5: MIR nan (0/0 at C = 2)" in tables.render_trajectory([5], [report])


def test_few_classes_are_listed_and_many_are_summed_up():
    header, rows = tables.class_table(full(classes=10))
    assert header == ["class", "count", "nc1", "entropy"] and len(rows) == 10
    assert rows[3] == ["3", "103", "0.040000", "1.6094"]
    report = full(classes=11)
    report.per_class["nc1"][5] = math.nan
    header, rows = tables.class_table(report)
    by_key = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert by_key["count"]["worst class"] == "0"  # the fewest samples
    assert by_key["nc1"]["worst class"] == "10"  # the most variable
    assert by_key["nc1"]["median"] == "0.060000"  # of the ten others
    assert by_key["nc1"]["by class"] == "▁▂▂▃▄·▅▆▇▇█"
    assert len(tables.class_table(report, most=math.inf)[1]) == 11


def test_the_worst_class_is_furthest_from_collapse():
    values = np.array([1.0, 5.0, math.nan, 2.0, 5.5, 5.2])
    assert tables.worst("cdnv", values) == 4
    assert tables.worst("count", values) == 0
    assert tables.worst("nc2_norm", np.array([1.0, 0.7, 1.1])) == 1  # equal norms are the limit
    assert tables.worst("nc1", np.ones(3)) is None


def test_a_sparkline_keeps_the_peak_of_many_classes():
    values = np.zeros(1000)
    values[777], values[778] = 1.0, -1.0  # their mean is no peak
    line = tables.sparkline(values, width=40)
    assert len(line) == 40 and line.count("█") == 1 and line.index("█") == 777 * 40 // 1000
    assert tables.sparkline(np.ones(3)) == tables.sparkline(np.full(3, 7.0))
    assert tables.sparkline([math.nan, 1.0, 2.0]) == "·▁█"


def test_rich_shows_the_same_text_and_no_markup():
    console = rich.console.Console(width=90, color_system=None, record=True)
    report = absent(full("[red]layer[/red]"), "mir", "0/0")
    with console.capture() as capture:
        console.print(tables.rich_table(partial(tables.render_table, report)))
    lines = [line.rstrip() for line in capture.get().rstrip().splitlines()]
    assert lines == tables.render_table(report, 90).splitlines()


def test_layers_and_steps_are_compared_line_by_line():
    lines = tables.render_layers(layers(3)).splitlines()
    assert lines[0].split()[:3] == ["layer", "n", "d"]
    assert [line.split()[0] for line in lines[1:]] == ["block0", "block1", "block2", "limit"]
    assert "8.000" in lines[1] and "2.000" in lines[3] and "0.9524" in lines[4]
    steps = tables.render_trajectory([0, 100, 100], layers(3).values()).splitlines()
    assert [line.split()[0] for line in steps[1:]] == ["0", "100", "100", "limit"]
    with pytest.raises(ValueError, match="2 for 3 reports"):
        tables.render_trajectory([0, 1], layers(3).values())


# Figures: what is drawn is what is returned


def drawn(axis, label):
    (line,) = (line for line in axis.lines if line.get_label() == label)
    return np.asarray(line.get_xydata())


def limit_lines(axis):
    dashed = [x for x in axis.lines if x.get_linestyle() == "--" and x.get_color() == "black"]
    return sorted(line.get_ydata()[0] for line in dashed)


def test_spectrum_draws_its_rows_and_the_effective_rank():
    values = np.array([0.5, 0.3, 0.2, 1e-17, 0.0])
    figure, rows = figures.spectrum_figure(full(spectrum=values))
    (axis,) = figure.axes
    expected = [(1, 0.5), (2, 0.3), (3, 0.2)]  # a logarithm has no place for the rest
    assert [(row["rank"], row["eigenvalue"]) for row in rows] == expected
    np.testing.assert_array_equal(drawn(axis, "eigenvalues (first 3)"), expected)
    rank = math.exp(-sum(x * math.log(x) for x in (0.5, 0.3, 0.2)))
    (line,) = (x for x in axis.lines if "effective rank" in x.get_label())
    assert line.get_xdata()[0] == pytest.approx(rank)
    (limit,) = (x for x in axis.lines if x.get_label() == "limit 9")
    assert limit.get_linestyle() == "--" and limit.get_xdata()[0] == pytest.approx(9)
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    assert figure.get_suptitle() == "features: n = 1,200, d = 64, C = 10"


def test_renyi_draws_its_rows_and_limit():
    figure, rows = figures.renyi_figure(full(renyi={2.0: 1.0, 0.5: 3.0, 1.0: 2.0, math.inf: 0.5}))
    assert [tuple(row.values()) for row in rows] == [(0.5, 3.0), (1.0, 2.0), (2.0, 1.0)]
    curve = figure.axes[0].lines[0].get_xydata()
    np.testing.assert_array_equal(curve, [tuple(row.values()) for row in rows])
    assert limit_lines(figure.axes[0]) == [math.log(9)]
    assert "limit 2.197\nat α = 1" in [text.get_text() for text in figure.axes[0].texts]


def test_classes_draw_their_rows_and_name_the_worst():
    report = full(classes=30)
    report.per_class["nc1"][7] = math.nan
    figure, rows = figures.per_class_figure(report)
    assert len(figure.axes) == 3 and len(rows) == 30
    for axis, key in zip(figure.axes, report.per_class, strict=True):
        assert axis.get_title("left") == key
        np.testing.assert_array_equal(axis.lines[0].get_ydata(), [row[key] for row in rows])
        np.testing.assert_array_equal(axis.lines[0].get_ydata(), report.per_class[key])
    assert figure.axes[1].get_title("right") == "class 29: 0.3"
    assert [text.get_text() for text in figure.axes[1].texts][1:] == ["nan"]
    with pytest.raises(ValueError, match="labels"):
        figures.per_class_figure(made(measures=FREE))


def test_depth_draws_its_rows_with_the_fit_of_log_nc1():
    reports = layers(5)
    reports["block2"] = absent(reports["block2"], "mir", "0/0")
    reports["block3"] = replace(reports["block3"], intervals={"hdr": Interval(0.05, 0.2, 0, 0, 9)})
    figure, rows = figures.depth_figure(reports)
    panels = {axis.get_title("left"): axis for axis in figure.axes}
    for title, key in [("MIR and HDR", "mir"), ("NC1: variability", "nc1"), ("NC3 and NC4", "nc4")]:
        expected = [(i, row[key]) for i, row in enumerate(rows, 1)]
        np.testing.assert_array_equal(drawn(panels[title], key), expected)
    assert [row["nc1"] for row in rows] == [8.0, 4.0, 2.0, 1.0, 0.5]
    np.testing.assert_allclose([row["nc1_fit"] for row in rows], [8.0, 4.0, 2.0, 1.0, 0.5])
    labels = [line.get_label() for line in panels["NC1: variability"].lines]
    assert "equi-separation: ×0.5 per layer, r = -1.000 (log NC1, thesis)" in labels
    assert panels["NC1: variability"].get_yscale() == "log"
    assert limit_lines(panels["MIR and HDR"]) == [0.0, 0.9524]
    texts = [text.get_text() for text in panels["MIR and HDR"].texts]
    assert texts.count("nan") == 1 and "mir limit 0.9524" in texts
    assert "↓ limit 0" in [text.get_text() for text in panels["NC1: variability"].texts]
    (bars,) = (c for c in panels["MIR and HDR"].collections if len(c.get_segments()))
    np.testing.assert_array_equal(bars.get_segments()[3], [(4, 0.05), (4, 0.2)])
    assert (rows[3]["hdr_low"], rows[3]["hdr_high"]) == (0.05, 0.2)
    assert figure.get_suptitle().endswith("bars: 95% intervals")


def test_what_is_absent_is_marked_inside_the_axis():
    reports = layers(3)
    for name in list(reports)[:2]:
        reports[name] = absent(reports[name], "mir", "0/0")
        reports[name] = absent(reports[name], "hdr", "0/0")
    axis = figures.depth_figure(reports)[0].axes[1]
    marks = [text.get_position()[0] for text in axis.texts if text.get_text() == "nan"]
    low, high = axis.get_xlim()
    assert sorted(marks) == [1, 1, 2, 2] and low < 0.95 and high > 3.05


def test_pearson_is_that_of_the_logarithm():
    values = [5.0, 0.3, 0.2, 0.05]
    reports = [full(measures=HEADED | {"nc1": value}) for value in values]
    figure, _ = figures.depth_figure(dict(enumerate(reports)))
    r = np.corrcoef(range(4), np.log(values))[0, 1]
    assert any(f"r = {r:.3f}" in t.get_text() for a in figure.axes for t in a.get_legend().texts)
    assert f"{r:.3f}" != f"{np.corrcoef(range(4), values)[0, 1]:.3f}"


@pytest.mark.parametrize("names", [("features",), ("block0", "block1", "block2")])
def test_trajectory_draws_its_rows(names):
    steps = [0, 10, 1000]
    runs = {n: [full(n, measures=HEADED | {"mir": 0.1 * i + 0.01 * k}) for k in range(3)] for i, n in enumerate(names)}
    runs[names[0]][1] = full(names[0], measures=HEADED | {"nc1": 0.0})
    figure, rows = figures.trajectory_figure(steps, runs)
    panels = {axis.get_title("left"): axis for axis in figure.axes}
    axis = panels["MIR and HDR" if len(names) == 1 else "mir"]
    for name in names:
        expected = [(row["step"], row["mir"]) for row in rows if row["layer"] == name]
        label = "mir" if len(names) == 1 else name
        np.testing.assert_array_equal(drawn(axis, label), expected)
        assert [step for step, _ in expected] == steps
    assert 0.9524 in limit_lines(axis)
    collapsed = panels["NC1: variability" if len(names) == 1 else "nc1"]
    assert "0" in [text.get_text() for text in collapsed.texts]  # a log axis cannot show it
    with pytest.raises(ValueError, match="steps: 2 for 3"):
        figures.trajectory_figure([0, 1], runs)


def test_a_limit_that_moves_is_a_curve():
    limits = [2.1972, 2.0, 1.9]
    runs = {
        name: [full(limits={"nc1": 0.0, "entropy_features": x - shift}) for x in limits]
        for name, shift in (("one", 0.0), ("two", 0.5))
    }
    axis = figures.trajectory_figure([0, 1, 2], {"one": runs["one"]})[0].axes[0]
    (curve,) = (line for line in axis.lines if line.get_linestyle() == "--")
    assert curve.get_color() == "black" and list(curve.get_ydata()) == limits
    assert [text.get_text() for text in axis.texts] == ["limit 1.9"]
    axis = figures.trajectory_figure([0, 1, 2], runs)[0].axes[0]
    dashed = [line for line in axis.lines if line.get_linestyle() == "--"]
    solid = [line for line in axis.lines if line.get_linestyle() == "-"]
    for limit, line in zip(dashed, solid, strict=True):  # whose limit it is
        np.testing.assert_array_equal(limit.get_color(), line.get_color())
    names, heights = zip(*((t.get_text(), t.get_position()[1]) for t in axis.texts), strict=True)
    assert names == ("limit 1.4", "limit 1.9") and heights[1] - heights[0] > 0.05


def test_names_at_the_edge_do_not_overlap():
    near = {"mir": 0.5, "hdr": 0.5001}
    axis = figures.depth_figure({"a": full(limits=near), "b": full(limits=near)})[0].axes[1]
    heights = [text.get_position()[1] for text in axis.texts]
    assert len(heights) == 2 and heights[1] - heights[0] > 0.05
    assert limit_lines(axis) == [0.5, 0.5001]
    high = {"mir": 0.9524, "hdr": 0.9525}  # near the top, and not above it
    axis = figures.depth_figure({"a": full(limits=high), "b": full(limits=high)})[0].axes[1]
    heights = [text.get_position()[1] for text in axis.texts]
    assert heights[1] - heights[0] > 0.05 and heights[1] <= 1


def test_plot_takes_one_report_or_many():
    titles = [axis.get_title("left") for axis in figures.plot(full()).axes]
    assert titles[2:] == ["count", "nc1", "entropy"] and "Spectrum" in titles[0]
    assert len(figures.plot(made(measures=FREE)).axes) == 2
    assert len(figures.plot({"only": made(measures=FREE)}).axes) == 2
    assert figures.plot(layers(2)).get_suptitle().startswith("2 layers")
    assert figures.plot(full())._repr_png_().startswith(b"\x89PNG")


def test_names_are_not_mathematics():
    figure = figures.plot(made("cost $x_1$ and $\\frac$", measures=FREE))
    assert canvas.svg_text(figure)  # an invalid formula would raise
    assert r"\$x_1\$" in figure.get_suptitle()
    assert canvas.svg_text(figures.plot(made("名\x1b[31m", measures=FREE)))  # nor a warning where a letter is missing


VALUES = {
    "negative": [-1e-8, -2e-8, -3e-8],
    "zero": [0.0, 0.0, 0.0],
    "of both signs": [-1.0, 0.0, 2.0],
    "tiny": [5e-324, 1e-310, 1e-300],
    "huge": [-1.7e308, 1.7e308, 1e307],
    "infinite": [-math.inf, math.inf, 1.0],
    "absent": [math.nan] * 3,
    "nearly equal": [1e9, 1e9 + 1e-6, 1e9],
}


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("first", VALUES)
def test_values_of_any_sign_and_size_can_be_drawn(first, log):
    """matplotlib warns of a scale that a line has no values for, and a warning is an error here."""
    for second, limits in [(second, limits) for second in VALUES.values() for limits in VALUES.values()][::3]:
        axis = canvas.new_figure("title", 4, 3).subplots()
        of_first = [{"k": v, "k_low": v, "k_high": v, "k_limit": w} for v, w in zip(VALUES[first], limits, strict=True)]
        lines = [("a", "blue", "k", of_first), ("b", "red", "k", [{"k": v} for v in second])]
        panels.draw_lines(axis, [0, 1, 2], lines, log)
        panels.draw_fit(axis, [0, 1, 2], VALUES[first])
        panels.draw_limits(axis, [0, 1, 2], lines)
        axis.figure.canvas.draw()


def test_degenerate_reports_can_be_drawn():
    """Exact collapse, no spectrum, one class, nothing finite: no warning, no error."""
    nothing = dict.fromkeys(("entropy_features", "nc1"), math.nan)
    classes = {"count": np.array([5]), "nc1": np.array([math.nan]), "cdnv": np.array([0.0])}
    reports = {
        "collapsed": full(
            measures={"entropy_features": 2.2, "nc1": 0.0},
            spectrum=np.full(9, 1 / 9),
            renyi=dict.fromkeys((0.5, 1.0, 2.0), 2.2),
            per_class={},
        ),
        "nothing": full(measures=nothing, spectrum=np.zeros(0), renyi={}, per_class=classes, limits={}),
        "nan": full(measures=nothing, renyi={1.0: math.nan}, spectrum=np.full(3, math.nan), per_class={}),
    }
    for report in reports.values():
        figures.plot(report).draw_without_rendering()
        assert tables.render_table(report) and tables.html_table(report)
    figures.depth_figure(reports)[0].draw_without_rendering()


def test_drawing_leaves_the_style_of_the_caller():
    before = dict(matplotlib.rcParams)
    canvas.svg_text(figures.spectrum_figure(full())[0])
    assert dict(matplotlib.rcParams) == before


def test_tables_need_no_matplotlib_and_figures_no_pyplot():
    script = """
import sys
import infojax.report.tables
assert not {"matplotlib", "rich"} & set(sys.modules)
import infojax.report.figures
assert "matplotlib.pyplot" not in sys.modules
"""
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", script], check=True, cwd=root, env=environment)


def test_files_hold_what_is_drawn(tmp_path):
    classes = {"nc1": np.array([0.5, math.nan])}
    reports = {"a/b": made("a/b", measures=FREE, per_class=classes), "a b": made("a b", measures=FREE)}
    paths = figures.save_figures(reports, tmp_path / "new" / "folder")
    stems = ["a_b_spectrum", "a_b_renyi", "a_b_per_class", "a_b__spectrum", "a_b__renyi", "depth"]
    assert [path.name for path in paths] == [f"{stem}.{kind}" for stem in stems for kind in ("svg", "png", "csv")]
    for path in paths:
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
    expected = {
        "a_b_per_class": figures.per_class_figure(reports["a/b"])[1],
        "a_b_spectrum": figures.spectrum_figure(reports["a/b"])[1],
        "depth": figures.depth_figure(reports)[1],
    }
    for stem, rows in expected.items():
        with open(paths[0].parent / f"{stem}.csv", encoding="utf-8", newline="") as file:
            read = list(csv.DictReader(file))
        assert len(read) == len(rows) > 0
        for got, row in zip(read, rows, strict=True):
            for key, value in row.items():
                same = got[key] == value if isinstance(value, str) else float(got[key]) == value
                assert same or (got[key] == "nan" and math.isnan(value)), (stem, key)


# The page

AWKWARD = '<b>&"layer"</b>'


class Strict(HTMLParser):
    """Raises where tags do not nest; collects attributes and text."""

    VOID = {"meta", "link", "br", "hr", "img", "input"}

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.tags, self.text = [], [], set(), ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def whole():
    """A page with everything: intervals, a NaN, a layer without labels, many classes, steps."""
    report = absent(full(AWKWARD, 12), "silhouette", "one class has <2 samples")
    report = replace(
        report,
        warnings=("N < D: the spectrum is rank-limited",),
        intervals={"nc1": Interval(0.05, 0.07, 0.065, 0.002, 600)},
    )
    steps = ([0, 10], {"features": [made(measures=FREE)] * 2})
    reports = {AWKWARD: report, "run 7": made("free", measures=FREE)}
    return reports, page.html_page({AWKWARD: reports}, AWKWARD, steps)


def test_the_page_is_well_formed_and_stands_alone(whole):
    _, text = whole
    parsed = Strict(text)
    outside = [v for k, v in parsed.attributes if "//" in (v or "") and not k.startswith("xmlns")]
    assert not outside
    assert not re.search(r"https?:", re.sub(r'xmlns(:\w+)?="[^"]*"', "", text))
    assert not re.search(r"@import|@font-face|url\((?!#)", text)
    assert not parsed.tags & {"script", "link", "img", "iframe", "object", "b"}
    assert text.count("<svg") == 3 + 2 + 1 + 1  # two layers, depth, trajectory
    assert "prefers-color-scheme: dark" in text


def test_ids_do_not_collide_and_references_resolve(whole):
    attributes = Strict(whole[1]).attributes
    ids = [value for key, value in attributes if key == "id"]
    assert len(ids) == len(set(ids)) > 50
    links = [v for k, v in attributes if k.endswith("href")]
    used = {v[1:] for v in links} | set(re.findall(r"url\(#([^)]+)\)", whole[1]))
    assert len(used) > 20 and used <= set(ids)


def test_the_page_leaves_nothing_out(whole):
    reports, text = whole
    words = Strict(text).text
    for key, report in reports.items():
        assert tables.headline(replace(report, name=key)) in words  # not by its own name
        for key, value in report.measures.items():
            shown = f"{tables.format_value(value)}"
            shown += f" ({report.reasons[key]})" if key in report.reasons else ""
            assert f"<td>{key}</td>" in text and shown in words
        for line in [*report.conventions.values(), *report.warnings, *report.reasons.values()]:
            assert line in words
    for row in tables.class_table(reports[AWKWARD], most=math.inf)[1]:
        assert "".join(f"<td>{cell}</td>" for cell in row) in text
    assert "<td>[0.05000, 0.07000]</td>" in text and "<td>0.95240</td>" in text
    assert words.index("rank-limited") < words.index("measure")  # warnings come first
    assert "features: 2 steps" in words


def test_every_file_has_its_own_section(monkeypatch):
    monkeypatch.setattr(page, "svg_text", lambda figure, prefix: f'<svg id="{prefix}"></svg>')
    free = made(measures=FREE, warnings=("few rows",))

    def outline(files, title):
        """Headings up to a colon with their level, and ids of figures, in order."""
        found = re.findall(r'<h(\d)>([^:<]*)|<svg [^>]*id="([^"]*)"', page.html_page(files, title))
        return [f"h{level} {text}" if level else figure for level, text, figure in found]

    def figures_of(number):
        return [f"report{number}-spectrum", f"report{number}-renyi"]

    one = {"a.npz": {"features": free}}
    assert outline(one, "a.npz") == ["h1 a.npz", "h2 a.npz", *figures_of(0)]
    two = one | {"b.npz": {"features": free}}  # not layers: no curve joins them, and no fit
    expected = ["h1 both", "h2 Files", "h2 a.npz", *figures_of(0), "h2 b.npz", *figures_of(1)]
    assert outline(two, "both") == expected
    text = page.html_page(two, "both")
    assert "<li>file a.npz, file b.npz: few rows</li>" in text
    assert '<td><a href="#report1">b.npz</a></td>' in text and 'id="report1"' in text
    larger = {"b.npz": {"features": made(measures=FREE | {"effective_rank": FREE["effective_rank"] + 0.5})}}
    text = page.html_page(one | larger, "both")
    assert "<p>A = a.npz; B = b.npz</p>" in text and re.search(r"<td>effective_rank</td>.*<td>0.500</td>", text)
    deep = {"c.npz": {"early": free, "late": free}}
    assert outline(deep, "c.npz") == [
        *("h1 c.npz", "h2 Layers", "file0-depth"),
        *("h2 early", *figures_of(0), "h2 late", *figures_of(1)),
    ]
    assert outline(deep, "run")[:4] == ["h1 run", "h2 Layers of c.npz", "h2 c.npz", "file0-depth"]
    assert outline(one | deep, "both") == [
        *("h1 both", "h2 Files", "h2 a.npz", *figures_of(0), "h2 c.npz", "file1-depth"),
        *("h3 c.npz", *figures_of(1), "h3 c.npz", *figures_of(2)),
    ]
    assert "c.npz: early" in page.html_page(one | deep, "both")


def test_names_are_escaped(whole):
    assert "<b>" not in whole[1] and "&lt;b&gt;&amp;&quot;layer&quot;" in whole[1]
    fragment = tables.html_table(full(AWKWARD, reasons={"nc1": AWKWARD}, warnings=(AWKWARD,)))
    assert Strict(fragment).text.count(AWKWARD) == 3 and "<b>" not in fragment


def test_the_same_reports_give_the_same_bytes(whole):
    report = made("free", measures=FREE)
    drawn = [figures.renyi_figure(report)[0] for _ in range(2)]
    assert canvas.svg_text(drawn[0]) == canvas.svg_text(drawn[1])
    assert canvas.png_bytes(drawn[0]) == canvas.png_bytes(drawn[1])
    assert not re.search(r"\b20\d\d-\d\d-\d\d|Matplotlib v", whole[1])


def test_a_report_in_words():
    low = {"nc1": 0.09, "nc2_equinorm": 0.02, "nc2_equiangularity": 0.03, "nc3": 0.01, "nc4": 0.0}
    assert tables.in_words(made("f", 1200, 64, 10, low)) == [
        "Collapsed: NC1 per direction 0.010, NC2 norms 0.020, NC2 angles 0.030, NC3 0.010, NC4 0, all below 0.1."
    ]
    partly = tables.in_words(made("f", 1200, 64, 10, low | {"nc3": 0.1, "nc1": math.nan}))
    assert partly == ["Partly collapsed: NC2 norms 0.020, NC2 angles 0.030, NC4 0 below 0.1; NC3 0.100 not."]
    assert tables.in_words(made("f", 1200, 64, 10, {"nc1": 9.0})) == [
        "Not collapsed: NC1 per direction 1.0, none below 0.1."
    ]
    conventions = {"mir": "MI / H; estimated, in [0, 1] at 95%", "silhouette": "s; on 4 of 50 rows drawn at random"}
    assert tables.in_words(made("f", 50, 64, None, conventions=conventions)) == [
        "No labels: nothing can be said about collapse.",
        "Rank-limited: 50 samples span at most 50 of 64 dimensions, which bounds entropies and ranks.",
        "Estimated: mir; on some of the rows: silhouette.",
    ]
    assert tables.in_words(made("fc.weight", 10, 64, None, {"effective_rank": 9.0, "spectral_norm": 1.0})) == []


def test_reports_side_by_side_have_a_column_each():
    one, other = full("one"), full("other", measures=HEADED | {"mir": 0.5})
    text = tables.render_side_by_side({"x/one.npz": one, "x/other.npz": other}, 80)
    assert text.startswith("A = x/one.npz: n = 1,200, d = 64, C = 10") and max(map(len, text.splitlines())) <= 80
    row = next(line.split() for line in text.splitlines() if line.split()[:1] == ["mir"])
    assert row == ["mir", "0.90625", "0.50000", "-0.406", "0.95240"]
    three = tables.render_side_by_side({"a": one, "b": other, "c": one}, 80)
    assert "B - A" not in three and "C = c" in three


def test_a_measure_is_an_attribute_of_its_report():
    report = full()
    assert report.mir == report.measures["mir"] and "mir" in dir(report)
    with pytest.raises(AttributeError, match="has no 'mri'; its measures are entropy_features"):
        _ = report.mri
    assert pickle.loads(pickle.dumps(report)).mir == report.mir


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install 'infojax\[frame\]'"):
        full().to_frame()


def test_limits_that_differ_say_whose_they_are():
    figure, _ = figures.reports.trajectory_figure([0, 10, 100], {"features": [full(), full(), full()]})
    texts = {axis.get_title("left"): [text.get_text() for text in axis.texts] for axis in figure.axes}
    assert "mir limit 0.9524" in texts["MIR and HDR"] and "hdr limit 0" in texts["MIR and HDR"]
    assert figure.axes[0].get_xscale() == "symlog"
