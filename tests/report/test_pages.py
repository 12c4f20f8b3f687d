"""What a page leaves out: empty cells, exponents, figures of untrained networks, captions of what is not there."""

import json
import re

import pytest

from infojax.report import runs
from infojax.report.figures.canvas import svg_text
from infojax.report.page import inline
from infojax.report.runs import curves, figures, layers, page, plans, tables
from infojax.report.runs.rows import history_of
from infojax.report.tables.content import format_value, number_cell

CONFIG = {"name": "x", "num_classes": 10, "steps": 9, "steps_per_epoch": 3}
GEOMETRY = {"mean_energy": 0.5, "effective_rank_from_gram": 3.0, "cdnv": 0.1, "davies_bouldin": 1.0}


def rows_of(numbers, steps=(0, 9), run=0, **fields):
    row = {"kind": "eval", "time": 0.0, "run": run, "seed": run, "split": "test", "n": 50}
    return [row | {"step": step} | numbers | fields for step in steps]


def drawn(name, rows, **config):
    return figures.draw(plans.FIGURES[name], curves.methods_of(history_of(rows, CONFIG | config)), "title")


# Numbers and tables


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (110.3, 2, "110"), (114.0, 2, "114"), (99.96, 3, "100"), (999.6, 3, "1000"), (99999.0, 2, "99999"),
        (1e5, 3, "100000"), (1.2e5, 2, "1.2e+05"), (0.00099999, 2, "0.0010"), (9.9e-4, 2, "9.9e-04"),
        (-110.3, 2, "-110"), (0.5, 3, "0.500"), (2.2e-16, 3, "2.20e-16"),
    ],
)  # fmt: skip
def test_numbers_of_ordinary_size_have_no_exponent(value, digits, text):
    assert format_value(value, digits) == text


def test_a_limit_that_is_zero_but_for_rounding_is_zero():
    found = history_of(rows_of({"hdr": 0.1, "limit_hdr": 2.2e-16}), CONFIG)
    assert tables.limit_cell(found, "test", "hdr", [0]) == "0"
    assert number_cell({"hdr": -2.2e-16}, "hdr") == "0" and number_cell({"hdr": 2.2e-3}, "hdr") == "0.0022000"
    plan = plans.Plan("", "", (plans.Panel("HDR", plans.lines("hdr")),))
    figure, numbers = figures.draw(plan, curves.methods_of(found), "title")
    assert {text.get_text() for text in figure.axes[0].texts} == {"limit 0"} and numbers[0]["limit"] == 0.0


def test_empty_columns_and_rows_are_left_out():
    table = tables.without_empty(["a", "b", "c", "d"], [["x", "1", "", ""], ["y", "", "", ""], ["z", "", "", "2"]])
    assert table == (["a", "b", "d"], [["x", "1", ""], ["z", "", "2"]])
    rows = rows_of({"accuracy": 0.5}) + rows_of({"nc1": 2.0}, split="train")
    [(_, header, cells)] = tables.summary_tables(history_of(rows, CONFIG))
    assert header == ["quantity", "train", "limit", "test"]  # an accuracy has no limit
    assert cells == [["accuracy", "", "", "0.5000"], ["NC1", "2.000", "0", ""]]
    rows = [
        row | {"mir": 0.1 * row["step"]}
        for split, reached in (("train", 1.0), ("test", 0.5))
        for row in rows_of({"accuracy": reached}, split=split)
    ]
    header, _ = tables.phases_table(history_of(rows, CONFIG | {"task": "grokking"}))
    assert header == ["run", "memorised", "generalised", "MIR at 0", "MIR memorised", "MIR end"]


def test_tables_name_the_step_of_what_is_not_at_the_last():
    rows = rows_of({"accuracy": 0.5}, (0, 9), lr=0.1) + rows_of({"accuracy": 0.6}, (0, 5), 1, lr=1.0)
    found = history_of(rows, CONFIG | {"sweep": {"name": "lr", "values": [0.1, 1.0]}})
    [(_, header, _)] = tables.summary_tables(found)
    assert header == ["lr", "0.1", "1.0 (step 5)"] and "lr = 1.0 (step 5)" in tables.text_lines(found)
    header, cells = tables.final_table(curves.methods_of(found), "test", ["accuracy", "nc1"])
    assert header == ["run", "seeds", "step", "accuracy"]
    assert cells == [["lr = 0.1", "1", "9", "0.5000"], ["lr = 1.0", "1", "5", "0.6000"]]
    one = curves.methods_of(history_of(rows_of({"accuracy": 0.5}), CONFIG))
    assert tables.final_table(one * 2, "test", ["accuracy"])[0] == ["run", "seeds", "accuracy"]


def test_each_run_says_whether_it_is_frozen():
    rows = rows_of({"accuracy": 0.5}) + rows_of({"accuracy": 0.4}, (0,), run=1)
    rows += rows_of({"accuracy": 0.1}, (9,), run=1, frozen=True)
    [(_, _, cells)] = tables.seeds_tables(history_of(rows, CONFIG))
    assert [row[0] for row in cells] == ["0", "1, frozen from step 9"]


# Figures


def test_a_figure_of_step_0_alone_is_not_drawn():
    assert drawn("geometry", rows_of(GEOMETRY, (0,))) is None
    train = [{"kind": "train", "step": 2, "time": 0.0, "run": 0, "cross_entropy": 1.0}]
    rows = rows_of({"loss": 1.0, "nc1": 2.0, "nc3": 1.0}, (0,)) + train
    figure, numbers = drawn("collapse", rows)
    assert {row["panel"] for row in numbers} == {"Training loss"}
    assert [line.get_marker() for line in figure.axes[0].lines] == ["o"]  # one logged batch
    rows = rows_of({"nc1": 2.0}) + rows_of({"nc3": 1.0}, (0,))
    assert {row["panel"] for row in drawn("collapse", rows)[1]} == {"NC1: variability within classes"}
    rows = rows_of(GEOMETRY, (0,)) + rows_of(GEOMETRY, run=1)  # of two runs one began
    histories = [history_of([row for row in rows if row["run"] == run], CONFIG) for run in (0, 1)]
    figure, numbers = figures.draw(plans.FIGURES["geometry"], curves.compared(histories, ["a", "b"]), "title")
    assert {row["method"] for row in numbers} == {"b"}
    assert "a" not in [text.get_text() for text in figure.legends[0].get_texts()]
    sweep = {"sweep": {"name": "lr", "values": [0.1, 1.0]}}
    for steps in ((0,), (0, 9)):
        rows = rows_of({"accuracy": 0.5}, steps, lr=0.1) + rows_of({"accuracy": 0.6}, steps, 1, lr=1.0)
        assert (drawn("swept", rows, **sweep) is None) == (steps == (0,))
        rows = rows_of({"accuracy": 0.5}, steps)
        rows += [row for w in (0.0, 1.0) for row in rows_of({"accuracy": w}, steps[-1:], weight=w)]
        assert (drawn("connectivity", rows) is None) == (steps == (0,))


def test_the_page_of_an_untrained_network_has_no_figures(tmp_path):
    cloud = {"cloud_x": [0.0, 1.0], "cloud_y": [0.0, 1.0], "cloud_z": [0.0, 1.0], "labels": [0, 1],
             "means": [[0, 0, 0], [1, 1, 1]]}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    rows = rows_of({"accuracy": 0.1, "nc1": 0.1} | GEOMETRY, (0,)) + rows_of(cloud, (0,))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = runs.write_run(tmp_path).read_text()
    first = re.findall(r'<p class="found">([^<]*)', text)
    assert first == ["No finding yet: only step 0 of 9 was evaluated, before training."]
    assert "<figure" not in text and "step 0 (epoch" not in text and "step 0, before training" in text


@pytest.mark.parametrize(("per_epoch", "unit"), [(3, "epoch"), (9, "epoch"), (10, "step"), (None, "step")])
def test_runs_shorter_than_an_epoch_are_drawn_over_steps(per_epoch, unit):
    rows = rows_of({"mean_energy": 0.5})
    figure, numbers = drawn("geometry", rows, steps_per_epoch=per_epoch)
    assert figure.axes[0].get_xlabel() == unit
    assert numbers[-1]["x"] == (9 / per_epoch if unit == "epoch" else 9)
    found = history_of(rows, CONFIG | {"steps_per_epoch": per_epoch})
    assert tables.last_evaluation(found) == (f"step 9 (epoch {9 // per_epoch})" if unit == "epoch" else "step 9")
    other = history_of(rows, CONFIG)
    assert curves.unit_of(curves.methods_of(found) + curves.methods_of(other), "step") == unit


def test_captions_say_nothing_of_seeds_and_temperatures_that_are_not_there():
    swept = plans.FIGURES["swept"]
    assert swept.caption_of([]) == ""
    assert swept.caption_of([], True, "temperature") == (
        "Each point: the mean over seeds. Song et al. 2024, Figs. 2b and 2c."
    )
    assert swept.caption_of([], False, "lr") == plans.FIGURES["views_swept"].caption_of([], False, "beta") == ""
    assert "temperature" not in plans.FIGURES["views_swept"].caption_of([]).lower()
    for caption in (*(plan.caption for plan in plans.FIGURES.values()), plans.COMPARISON.caption, layers.GAPS):
        assert "Bands" not in caption and "over seeds" not in caption
    one, two = ([history_of(rows_of({"nc1": 2.0}), CONFIG)] * 2, [
        history_of(rows_of({"nc1": 2.0}) + rows_of({"nc1": 3.0}, run=1), CONFIG)] * 2)  # fmt: skip
    for histories, several in ((one, False), (two, True)):
        methods = curves.compared(histories, ["a", "b"])
        assert ("bands" in page._compared_heading(histories, methods, "test")) == several
        assert ("Bands" in page._caption(plans.COMPARISON, [], methods)) == several


def test_four_panels_are_two_by_two_and_fit_a_page_of_700_pixels():
    rows = rows_of(GEOMETRY)
    figure, _ = drawn("geometry", rows)
    spec = figure.axes[0].get_gridspec()
    assert (spec.nrows, spec.ncols) == (2, 2)
    least = float(re.search(r"--least: (\d+)pt", inline(svg_text(figure), "")).group(1))
    margins = 2 * 24 + 2 * 8 + 2  # of the page, and of the figure with its border
    assert least * 96 / 72 <= 700 - margins
    rows = rows_of(dict.fromkeys(("accuracy", "loss", "entropy_features", "nc1", "mir"), 0.5))
    wide = figures.draw(plans.COMPARISON, curves.methods_of(history_of(rows, CONFIG)), "title", "test")[0]
    assert wide.axes[0].get_gridspec().ncols == 3


def test_comparisons_draw_the_lines_that_two_runs_have():
    """A panel with lines of several quantities keeps those that are shared, of layers by their quantity."""
    of_all = {"view_mutual_information": 1.0}
    one = history_of(rows_of(of_all | {"view_mutual_information_bound": 0.5}), CONFIG)
    other = history_of(rows_of(of_all | {"view_joint_entropy": 2.0}), CONFIG)
    plan, alone = curves.in_common(plans.FIGURES["views"], [one, other])
    assert [[line.quantity for line in panel.lines] for panel in plan.panels] == [["view_mutual_information"]]
    assert alone == ["Joint entropy of views (nats)", "MI of views, order 2 (nats)"]
    layer = {"layer": "a", "depth": 1, "nc1": 2.0}
    both = [history_of(rows_of(layer, split="train"), CONFIG)] * 2
    plan, _ = curves.in_common(plans.FIGURES["layers"], both)
    assert [line.split for line in plan.panels[0].lines] == ["train"]
    begun = history_of(rows_of(of_all, (0,)), CONFIG)
    assert curves.in_common(plans.FIGURES["views"], [one, begun])[0].panels == ()
    on_path = history_of(rows_of({"accuracy": 0.5}) + rows_of({"accuracy": 0.5}, (9,), weight=0.5), CONFIG)
    assert [panel.title for panel in curves.in_common(plans.FIGURES["connectivity"], [on_path] * 2)[0].panels] == [
        "Accuracy"
    ]
