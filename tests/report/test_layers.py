"""Reports of runs that measured their layers: the right numbers under the right names, figures, and the table."""

import csv
import json
import math
import re

import matplotlib
import numpy as np
import pytest
from scipy import stats

from infojax.measures.catalogue import measure_of
from infojax.report import runs
from infojax.report.runs import curves, figures, layers, pictures, plans, tables
from infojax.report.runs.rows import at_common_steps, history_of, limits
from infojax.train.board import Board

LAYERS = ("layer1", "layer2", "layer3")
DIMS = (500, 60, 7)
IN_BITS = ("sufficiency", "minimality", "sufficiency_held_out")
STEPS, USABLE = (0, 10, 20, 30), (0, 20)  # V-information is measured at fewer steps
CONFIG = {
    "name": "f_plus",
    "task": "compression",
    "data": {"name": "digits"},
    "model": {"name": "f+"},
    "steps": 30,
    "steps_per_epoch": 10,
    "num_classes": 8,
}
# The gap of the loss is negative at step 0, and not in the order of time.
LOSS = {"train": (2.0, 1.0, 0.5, 0.1), "test": (1.9, 1.2, 1.5, 0.7)}


def nc1(split, run, step, depth):
    return (5.0 + (split == "test") * (1 + 0.3 * depth + 0.01 * step) + run) * math.exp(-depth * (1 + step / 10))


def usable(name, split, run, step, depth):
    """Bits; all places differ."""
    place = 0.3 * depth + 0.01 * step + 0.1 * run + 0.05 * (split == "test")
    return {"sufficiency": 2.9, "minimality": 2.5, "sufficiency_held_out": 2.0}[name] - place


def made(seeds=2, shift=0.0):
    rows = []
    for i, step in enumerate(STEPS):
        for run in range(seeds):
            for split in ("train", "test"):
                place = {
                    "kind": "eval",
                    "step": step,
                    "time": 0.0,
                    "run": run,
                    "seed": run + 4,
                    "split": split,
                    "n": 80,
                }
                accuracy = 0.5 + 0.01 * step
                rows.append(place | {"evaluator": "classifier", "accuracy": accuracy, "loss": LOSS[split][i] + run})
                of_layers = place | {"evaluator": "layers", "convention": "thesis"}
                for depth, (layer, dim) in enumerate(zip(LAYERS, DIMS, strict=True), 1):
                    mark = {"layer": layer, "depth": depth, "dim": dim}
                    rows.append(of_layers | mark | {"nc1": nc1(split, run, step, depth)})
                rows.append(of_layers | {"equi_separation": -0.9 - 0.001 * step})
                for depth, layer in enumerate(("input", *LAYERS) if step in USABLE else ()):
                    mark = place | {"evaluator": "usable", "layer": layer, "depth": depth, "below_zero": []}
                    found = {name: usable(name, split, run, step, depth) for name in IN_BITS}
                    found["minimality"] -= shift
                    rows.append(mark | {"minimality": found.pop("minimality"), "minimality_digits": [1.0]})
                    rows.append(mark | found)
    return rows


def cloud(step, run, seed=4, split="train"):
    """Three classes at 1, 2, 3 times the step on an axis each."""
    means = (np.diag([1.0, 2.0, 3.0]) * (1 + step)).tolist()
    points = [list(mean) for mean in means for _ in range(2)]
    found = {"labels": [0, 0, 1, 1, 2, 2], "means": means, "head": np.eye(3).tolist()}
    found |= {f"cloud_{axis}": [point[i] for point in points] for i, axis in enumerate("xyz")}
    return {"kind": "eval", "step": step, "time": 0.0, "run": run, "seed": seed, "split": split, "n": 6} | found


def folder(path, rows, **config):
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(CONFIG | config))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two seeds with its page."""
    path = folder(tmp_path_factory.mktemp("layers") / "run", [*made(), cloud(0, 0), cloud(10, 0), cloud(30, 0)])
    runs.write_run(path)
    return path


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def methods(rows, **config):
    return curves.methods_of(history_of(rows, CONFIG | config))


# Names and numbers


def test_what_was_measured_at_a_layer_is_named_after_it():
    found = history_of(made(), CONFIG)
    assert list(found.layers.items()) == [("input", 0), ("layer1", 1), ("layer2", 2), ("layer3", 3)]
    assert found.dims == dict(zip(LAYERS, DIMS, strict=True)) and found.convention == "thesis"
    assert found.values["step", "test", "nc1@layer2"][1] == {step: nc1("test", 1, step, 2) for step in STEPS}
    expected = {step: usable("minimality", "train", 0, step, 0) for step in USABLE}
    assert found.values["step", "train", "minimality@input"][0] == expected
    names = {name for _, _, name in found.values}
    assert "nc1" not in names and "equi_separation" in names
    assert not any(name.startswith(("depth", "dim@", "dim", "below_zero", "layer")) for name in names)


def test_marks_of_layers_are_quantities_elsewhere():
    rows = [{"kind": "eval", "step": 0, "time": 0.0, "split": "test", "depth": 3, "dim": 4.0}]
    found = history_of(rows, CONFIG)
    assert found.values["step", "test", "dim"] == {0: {0: 4.0}} and not found.layers and not found.clouds


def test_the_cap_is_log2_of_the_classes():
    found = history_of(made(), CONFIG)
    for name in IN_BITS:
        np.testing.assert_array_equal(limits(found, "test", f"{name}@layer1", [0, 1]), [3.0, 3.0])
    assert limits(found, "test", "equi_separation", [0]).tolist() == [-1.0] * 4
    assert measure_of("nc1@layer2").label == "NC1 of layer2" and measure_of("other").label == "other"


def test_steps_are_paired():
    rows = [row for row in made() if not (row["run"] == 1 and row["step"] == 20 and "sufficiency" in row)]
    found = at_common_steps(
        history_of(rows, CONFIG), [0, 1], ("test", "minimality@layer1"), ("test", "sufficiency@layer1")
    )
    assert list(found) == [0, 20] and [len(of_step) for of_step in found.values()] == [2, 1]
    pair = [usable(name, "test", 0, 20, 1) for name in ("minimality", "sufficiency")]
    assert found[20].tolist() == [pair]
    assert at_common_steps(history_of(rows, CONFIG), [0, 1], ("test", "absent"), ("test", "loss")) == {}


def test_below_zero_is_said_and_kept():
    found = history_of(made(shift=1.6), CONFIG)  # 0.9 - 0.3 depth ...
    said = [note for note in tables.warnings_of(found) if "is negative" in note]
    below = sum(usable("minimality", "train", run, step, 3) - 1.6 < 0 for run in (0, 1) for step in USABLE)  # of four
    assert (
        f"minimality of layer3 on train is negative at {below} of 4 measurements: a decoder worse than chance; reported"
        in " ".join(said)
    )
    assert not any("input" in note or "layer1 " in note for note in said) and 0 < below < 4
    values = found.values["step", "test", "minimality@layer3"][1]
    assert values[20] == usable("minimality", "test", 1, 20, 3) - 1.6 < 0
    assert not tables.warnings_of(history_of(made(), CONFIG))


def test_a_run_that_rests_is_finished():
    train = [
        {"kind": "train", "step": k, "time": 0.0, "run": run, "resting": float(k >= 20 + 10 * run)}
        for k in STEPS
        for run in (0, 1)
    ]
    notes = [tables.warnings_of(history_of([*made(), *train[:end]], CONFIG | {"steps": 500})) for end in (8, 6, 0)]
    assert notes[0] == [] and notes[1] == notes[2] == ["not finished: the last row is at step 30 of 500"]


def test_the_layer_is_in_the_tag(tmp_path, monkeypatch):
    board, said = Board(tmp_path, 0), []

    class Writer:
        def add_scalar(self, tag, value, step, walltime):
            said.append((tag, value, step))

    monkeypatch.setattr(board, "_writer", Writer())
    board.row("eval", 7, 0.0, {"run": 1, "split": "test", "layer": "layer2", "depth": 2, "dim": 60, "nc1": 0.5})
    board.row("eval", 7, 0.0, {"split": "test", "nc1": 0.25})
    assert said == [("run1/eval/test/layer2/nc1", 0.5, 7), ("eval/test/nc1", 0.25, 7)]


# Figures


def test_a_line_a_layer(whole):
    found = table(whole / "figures" / "layers.csv")
    assert list(dict.fromkeys(row["quantity"] for row in found[:-1])) == [f"nc1@{layer}" for layer in LAYERS]
    for depth, layer in enumerate(LAYERS, 1):
        for split in ("train", "test"):
            drawn = [row for row in found if (row["quantity"], row["split"]) == (f"nc1@{layer}", split)]
            assert [float(row["x"]) for row in drawn] == [0, 1, 2, 3]
            means = [np.mean([nc1(split, run, step, depth) for run in (0, 1)]) for step in STEPS]
            np.testing.assert_allclose([float(row["mean"]) for row in drawn], means, rtol=1e-12)
            assert {row["limit"] for row in drawn} == {"nan"}
    x = [nc1("test", run, 30, 3) for run in (0, 1)]
    assert float(drawn[-1]["high"]) == pytest.approx(stats.t.interval(0.95, 1, np.mean(x), stats.sem(x))[1])


def test_colours_are_the_depths_and_dashes_the_splits():
    figure, numbers = figures.draw(plans.FIGURES["usable"], methods(made(1)), "title")
    of_layers = curves.layers_of(methods(made(1)))
    assert [layer.name for layer in of_layers] == ["input", *LAYERS]
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, 4))
    np.testing.assert_array_equal([layer.colour for layer in of_layers], shades)
    axis = figure.axes[1]
    assert axis.get_title("left") == "Minimality: I_V(h → Dec(x, Y)) (bits)"
    drawn = [line for line in axis.lines if len(line.get_xdata()) == len(USABLE) and line.get_marker() == "o"]
    assert [line.get_color() for line in drawn[:4]] == [line.get_color() for line in drawn[4:]]
    assert [line.get_color() for line in drawn[:4]] == [layer.colour for layer in of_layers]
    assert {line.get_linestyle() for line in drawn[:4]} == {"-"} and {x.get_linestyle() for x in drawn[4:]} == {"--"}
    expected = [usable("minimality", "test", 0, step, 3) for step in USABLE]
    np.testing.assert_array_equal(drawn[-1].get_ydata(), expected)
    assert {row["limit"] for row in numbers} == {3.0} and len(figure.axes) == 3
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:6] == ["l = 0: input", "l = 1: layer1", "l = 2: layer2", "l = 3: layer3", "train", "test"]
    assert names[6].startswith("log2(C)")


def test_long_legends_are_thinned():
    many = [curves.Layer(f"layer{i}", i, "black") for i in range(40)]
    assert [layer.depth for layer in curves.few(many)][::9] == [0, 39] and len(curves.few(many)) == 10
    assert curves.few(many[:3]) == many[:3]


def test_equi_separation_from_minus_one_up():
    figure, numbers = figures.draw(plans.FIGURES["separation"], methods(made()), "title")
    bottom, top = figure.axes[0].get_ylim()
    assert -1.01 < bottom < -1 < top and {row["limit"] for row in numbers} == {-1.0}
    assert [row["mean"] for row in numbers if row["split"] == "test"] == [-0.9 - 0.001 * step for step in STEPS]


def test_gaps_are_positive_and_sorted(whole):
    found = table(whole / "figures" / "gaps.csv")
    assert list(dict.fromkeys(row["layer"] for row in found)) == list(LAYERS)
    for depth, layer in enumerate(LAYERS, 1):
        drawn = [row for row in found if row["layer"] == layer]
        assert [int(row["step"]) for row in drawn] == [10, 30, 20] and {row["n"] for row in drawn} == {"2"}
        np.testing.assert_allclose([float(row["x"]) for row in drawn], [0.2, 0.6, 1.0])
        gap = [np.mean([nc1("test", r, k, depth) - nc1("train", r, k, depth) for r in (0, 1)]) for k in (10, 30, 20)]
        np.testing.assert_allclose([float(row["y"]) for row in drawn], gap, rtol=1e-12)
    assert layers.draw_gaps(methods([row for row in made(1) if row["step"] == 0]), "title") is None


def test_planes_pair_what_was_measured_together(whole):
    found = table(whole / "figures" / "planes.csv")
    assert len(found) == 4 * 2 * len(USABLE)
    for row in found:
        step, depth = int(row["step"]), int(row["depth"])
        for axis, name in (("x", "minimality"), ("y", "sufficiency")):
            mean = np.mean([usable(name, row["split"], run, step, depth) for run in (0, 1)])
            assert float(row[axis]) == pytest.approx(mean, rel=1e-12)
        assert float(row["time"]) == step / 10 and row["n"] == "2"
    assert layers.draw_planes(methods([row for row in made(1) if "minimality" not in row]), "title") is None


def test_a_plane_has_circles_squares_and_its_cap():
    figure, _ = layers.draw_planes(methods(made(1)), "title")
    axis, bar = figure.axes
    corners = [len(marks.get_paths()[0].vertices) for marks in axis.collections]
    assert corners[0] > corners[1] == 5 and len(corners) == 8  # a circle, a square, ...
    assert [marks.get_array().tolist() for marks in axis.collections] == [[0.0, 2.0]] * 8
    dotted = [line for line in axis.lines if line.get_linestyle() == ":"]
    assert [line.get_xdata()[0] for line in dotted][0] == dotted[1].get_ydata()[0] == 3.0
    assert bar.get_ylabel() == "epoch" and axis.get_xlabel() == "minimality (bits)"


def test_clouds_of_the_first_and_the_last_step(whole):
    found = table(whole / "figures" / "cloud.csv")
    assert list(dict.fromkeys(row["step"] for row in found)) == ["0", "30"]
    means = [row for row in found if row["kind"] == "mean" and row["step"] == "30"]
    assert [(row["class"], float(row["x"]), float(row["z"])) for row in means] == [
        ("0", 31.0, 0.0), ("1", 0.0, 0.0), ("2", 0.0, 93.0),
    ]  # fmt: skip
    assert [row["kind"] for row in found[:12]] == ["point"] * 6 + ["mean"] * 3 + ["classifier"] * 3
    rows = [row | {"task": "simplex"} for row in (cloud(5, 1), cloud(5, 1, split="test"))]
    figure, numbers = pictures.draw_clouds(methods(rows, steps_per_epoch=None), "title")
    assert [axis.get_title() for axis in figure.axes] == ["seed 4, step 5, train, n = 6"]  # one step, one panel
    edges = [line for line in figure.axes[0].lines if len(line.get_data_3d()[0]) == 2]
    assert len(edges) == 3 and {row["run"] for row in numbers} == {1}
    assert pictures.draw_clouds(methods(made(1)), "title") is None


def test_an_absent_class_has_no_mean():
    row = cloud(5, 0)
    row["means"][1] = [math.nan] * 3
    _, numbers = pictures.draw_clouds(methods([row]), "title")
    assert len(numbers) == 12


def test_thirty_bins():
    figure, rows = pictures.draw_binning()
    borders = [row["y"] for row in rows if row["curve"] == "border"]
    np.testing.assert_allclose(borders, np.linspace(-1, 1, 31))
    assert len(figure.axes[0].collections[0].get_segments()) == 31
    assert f"{np.arctanh(borders[-2]):.2f}" in pictures.BINNING
    assert all(row["y"] == pytest.approx(math.tanh(row["x"])) for row in rows if row["curve"] == "tanh")


# Pages


def text_of(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<svg.*?</svg>", "", html, flags=re.S)))


def test_the_page_has_what_the_thesis_asks_about_the_layers_first(whole):
    page = (whole / "report.html").read_text()
    assert page.count("<svg") == 8 == len(list((whole / "figures").glob("*.svg")))
    figures = re.findall(r"Cheong 2025, Figs?\. (\d\.\d)", text_of(page))
    assert figures == ["3.2", "3.4", "3.5", "3.6", "3.3", "1.1", "1.2", "1.3"]
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_the_table_of_layers(whole):
    [(heading, header, rows)] = tables.layers_tables(history_of(made(), CONFIG))
    assert heading == "Layers; information in bits; sufficiency and minimality of epoch 2"
    both = [f"{name} {split}" for name in ("NC1", "sufficiency", "minimality") for split in ("train", "test")]
    assert header == ["layer", "depth", "dim", *both]
    assert [row[:3] for row in rows] == [
        ["input", "0", ""], ["layer1", "1", "500"], ["layer2", "2", "60"], ["layer3", "3", "7"],
        ["equi-separation r", "", ""],
    ]  # fmt: skip
    last = [tables.plus_minus([nc1(split, run, 30, 2) for run in (0, 1)]) for split in ("train", "test")]
    assert rows[2][3:5] == last and rows[0][3:5] == ["", ""]
    assert rows[2][8] == tables.plus_minus([usable("minimality", "test", run, 20, 2) for run in (0, 1)])
    assert rows[4][3] == tables.plus_minus([-0.93, -0.93]) and rows[4][5:] == [""] * 4
    assert f"<td>{last[0]}</td><td>{last[1]}</td>" in (whole / "report.html").read_text()
    lines = runs.summary_lines(whole)
    at = lines.index(heading)
    assert re.split(r"\s{2,}", lines[at + 1].strip()) == header
    assert re.split(r"\s{2,}", lines[at + 4].strip())[:5] == ["layer2", "2", "60", *last]


def test_without_usable_information():
    rows = [row for row in made(1) if row.get("evaluator") != "usable"]
    [(heading, header, cells)] = tables.layers_tables(history_of(rows, CONFIG))
    assert heading == "Layers" and header == ["layer", "depth", "dim", "NC1 train", "NC1 test"] and len(cells) == 4
    assert figures.draw(plans.FIGURES["usable"], methods(rows), "title") is None
    assert tables.layers_tables(history_of([row for row in rows if "accuracy" in row], CONFIG)) == []


def test_several_runs_side_by_side(tmp_path):
    paths = [folder(tmp_path / name, [r for r in made(1) if "sufficiency_held_out" not in r]) for name in ("a", "b")]
    page = runs.write_comparison(paths, tmp_path / "both").read_text()
    drawn = {path.stem for path in (tmp_path / "both" / "figures").glob("*.svg")}
    assert drawn == {"comparison_train", "comparison_test", "layers", "gaps", "separation", "usable"}
    assert page.count("<svg") == 6
    found = table(tmp_path / "both" / "figures" / "layers.csv")
    assert list(dict.fromkeys(row["method"] for row in found)) == ["a", "b"]
    several = curves.compared([history_of(made(1), CONFIG)] * 2, "ab")
    figure, _ = figures.draw(plans.FIGURES["layers"], several, "title")
    assert [axis.get_title("left") for axis in figure.axes] == ["a", "b"]
    assert figure.axes[0].get_ylabel() == "NC1: tr(S_W S_B^+)" and figure.axes[1].get_ylabel() == ""
