"""Reports of run folders: the numbers are those of the rows, the limits are dashed, the page stands alone."""

import csv
import json
import math
import re
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import stats

from infojax.measures.theory import nc_limits
from infojax.report import __main__ as command
from infojax.report import runs
from infojax.report.figures import canvas, panels, time
from infojax.report.runs import curves, figures, plans, tables
from infojax.report.runs.rows import (
    closed_limits,
    first_perfect,
    history_of,
    limits,
    mean_interval,
    num_classes,
    read_history,
    run_means,
)
from infojax.report.runs.verdict import verdict
from infojax.train.runlog import RunFolderError

STEPS = (0, 10, 20, 100)
CONFIG = {
    "name": "interplay",
    "data": {"name": "digits"},
    "model": {"name": "mlp"},
    "steps": 100,
    "steps_per_epoch": 10,
    "num_classes": 10,
}
ENVIRONMENT = {"device": "TestChip", "platform": "cpu", "devices": 2, "versions": {"jax": "0.10.1"}, "git": "a" * 40}


def value(name, split, run, step):
    """A known number for every place, different for each of them."""
    if name == "accuracy":
        return 1.0 if split == "train" and step >= 20 + 80 * (run == 1) else 0.1 + 0.005 * step + 0.01 * run
    scale = {"loss": 2.0, "nc1": 8.0, "mir": 0.5, "hdr": 0.3, "entropy_features": 1.7, "entropy_head_weights": 2.1}[
        name
    ]
    return scale * (1 + 0.1 * run + 0.01 * (split == "test")) / (1 + step / 50)


NAMES = ("accuracy", "loss", "nc1", "mir", "hdr", "entropy_features", "entropy_head_weights")


def made(seeds=3, swept=None, steps=STEPS, bad=None):
    """Rows of a group: runs of every seed at every swept value; run `bad` freezes at step 20."""
    marks = [
        {"run": i * seeds + s, "seed": s} | ({"temperature": t} if swept else {})
        for i, t in enumerate(swept or [None])
        for s in range(seeds)
    ]
    rows = [{"kind": "timing", "step": 1, "time": 0.0, "first_step_seconds": 1.0}]
    for step in steps:
        for mark in marks:
            run, frozen = mark["run"], mark["run"] == bad and step >= 20
            if step:
                loss = (
                    {"loss": None, "frozen": True}
                    if frozen
                    else {"loss": 3.0 + run, "cross_entropy": 4.0 + run, "accuracy": 0.5}
                )
                rows.append({"kind": "train", "step": step, "time": 0.0, **mark, **loss})
            for split, n in (("train", 1442), ("test", 355)):
                found = {name: value(name, split, run, step) for name in NAMES} | ({"frozen": True} if frozen else {})
                found |= {"limit_mir": 0.9, "limit_hdr": 0.02, "limit_entropy_head": math.log(9) - 1e-4}
                found |= {"limit_entropy_features": 2.0 + 0.001 * step, "convention": "thesis"}
                rows.append({"kind": "eval", "step": step, "time": 0.0, **mark, "split": split, "n": n} | found)
    return rows


def folder(path, rows, **config):
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(CONFIG | config))
    (path / "env.json").write_text(json.dumps(ENVIRONMENT))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of three seeds with its page."""
    path = folder(tmp_path_factory.mktemp("whole") / "run", made())
    assert runs.write_run(path) == path / "report.html"
    return path


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def figure(name, rows, **config):
    """{panel title: axis} of a figure, and its rows."""
    methods = curves.methods_of(history_of(rows, CONFIG | config))
    drawn, numbers = figures.draw(plans.FIGURES[name], methods, "title")
    return {axis.get_title("left"): axis for axis in drawn.axes}, numbers


@pytest.mark.parametrize("first", [-1e-8, 0.0, 1e-3, 1e300, -math.inf, math.nan])
def test_quantities_of_any_sign_can_be_drawn(first):
    """A squared error that rounding made negative, and a positive one, on a logarithmic axis."""
    rows = made()
    for i, row in enumerate(row for row in rows if row["kind"] == "eval"):
        row |= {"mse_nc1": first, "mse_nc2_nc3": 0.1 + 0.1 * (i % 5 == 0), "mse_head": -first}
    axis = figure("collapse", rows)[0]["Squared error, decomposed"]
    assert axis.get_yscale() == "log"
    axis.figure.canvas.draw()
    shown = axis.lines[0].get_ydata()
    assert np.all(shown == first) if 0 < first < 1e250 else np.all(np.isnan(shown))


# Numbers


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_interval_is_students(count):
    x = np.random.default_rng(count).standard_normal((count, 4))
    mean, half, n = mean_interval(x)
    low, high = stats.t.interval(0.95, count - 1, loc=x.mean(0), scale=stats.sem(x))
    np.testing.assert_allclose(mean - half, low, rtol=1e-12)
    np.testing.assert_allclose(mean + half, high, rtol=1e-12)
    assert n.tolist() == [count] * 4


def test_what_is_not_finite_is_left_out_of_the_mean():
    mean, half, n = mean_interval([[1.0, math.nan], [3.0, math.inf], [math.nan, 5.0]])
    assert mean.tolist() == [2.0, 5.0] and n.tolist() == [2, 1]
    assert half[0] == pytest.approx(stats.t.ppf(0.975, 1)) and math.isnan(half[1])


def test_the_table_holds_what_is_drawn(whole):
    found = table(whole / "figures" / "interplay.csv")
    for split in ("train", "test"):
        for name in ("accuracy", "mir", "hdr"):
            drawn = [row for row in found if (row["split"], row["quantity"]) == (split, name)]
            assert [int(row["step"]) for row in drawn] == list(STEPS)
            assert [float(row["x"]) for row in drawn] == [step / 10 for step in STEPS]
            for row, step in zip(drawn, STEPS, strict=True):
                x = [value(name, split, run, step) for run in range(3)]
                low, high = stats.t.interval(0.95, 2, loc=np.mean(x), scale=stats.sem(x) or 1e-300)
                assert float(row["mean"]) == pytest.approx(np.mean(x), rel=1e-12)
                assert float(row["low"]) == pytest.approx(low, rel=1e-9) and int(row["n"]) == 3
                assert float(row["high"]) == pytest.approx(high, rel=1e-9)
                assert row["limit"] == {"mir": "0.9", "hdr": "0.02", "accuracy": "nan"}[name]
    marked = found[-1]
    assert marked["quantity"] == "first 100% train accuracy" and float(marked["step"]) == pytest.approx(
        (20 + 100 + 20) / 3
    )


def test_a_split_without_a_panels_quantities():
    """Probes name their accuracies on one split, and that of the network on both."""
    rows = [{k: v for k, v in row.items() if k not in ("nc1", "mir") or row["split"] == "train"} for row in made()]
    axes = figure("interplay", rows)[0].values()
    assert [axis.axison for axis in axes] == [bool(axis.lines) for axis in axes]


def test_lines_bands_and_dashed_limits():
    axes, numbers = figure("entropy", made())
    axis = axes["Entropy (nats), test"]
    for name, line in zip(("entropy_features", "entropy_head_weights"), axis.lines, strict=False):
        rows = [row for row in numbers if (row["split"], row["quantity"]) == ("test", name)]
        np.testing.assert_array_equal(line.get_xydata(), [(row["x"], row["mean"]) for row in rows])
    dashed = [x for x in axis.lines if x.get_linestyle() == "--"]
    assert {x.get_color() for x in dashed} == {"black"}
    moving, still = sorted(dashed, key=lambda x: -len(x.get_xdata()))
    np.testing.assert_array_equal(moving.get_ydata(), [2.0, 2.01, 2.02, 2.1])
    assert still.get_ydata()[0] == math.log(9)  # of C = 10, although the counts are not equal
    assert {text.get_text() for text in axis.texts} == {"H(features) limit 2.1", "H(W) limit 2.197"}
    assert len(axis.collections) == 2 and not figure("entropy", made(1))[0]["Entropy (nats), test"].collections
    names = [tick.get_text() for tick in axis.get_xticklabels()]
    assert names == ["0", "1", "2", "5", "10"] and axis.get_xscale() == "symlog"


def test_one_colour_a_quantity_and_the_mark_of_perfect_training():
    axes = figure("collapse", made())[0] | figure("entropy", made())[0]
    blue = {
        axes["NC1: variability within classes"].lines[0].get_color(),
        axes["Entropy (nats), train"].lines[0].get_color(),
    }
    assert blue == {curves.colour_of("nc1")} == {curves.colour_of("entropy_features")}
    assert axes["Accuracy, train"].lines[0].get_color() == axes["Training error (%)"].lines[0].get_color()
    assert "NC3: self-duality" not in axes  # nothing logged
    grey = [line for line in axes["Training error (%)"].lines if line.get_color() == figures.GREY]
    assert [line.get_xdata()[0] for line in grey] == [pytest.approx(14 / 3)]
    rows = [row for row in made() if not (row.get("run") == 2 and row["step"] >= 20)]
    axis = figure("collapse", rows)[0]["Training error (%)"]  # a run that never got there
    assert not [line for line in axis.lines if line.get_color() == figures.GREY]


def test_the_batch_is_drawn_raw():
    axes, numbers = figure("losses", made())
    batch = [row for row in numbers if row["split"] == "batch" and row["quantity"] == "cross_entropy"]
    assert [row["mean"] for row in batch] == [5.0] * 3 and math.isnan(batch[0]["low"])
    assert not [row for row in numbers if row["split"] == "test" and row["quantity"].endswith("_ema")]
    assert axes["Loss, train"].get_yscale() == "log"


def test_a_swept_parameter_gives_a_line_a_value():
    rows = made(2, swept=[0.5, 4.0])
    for row in rows:
        row["nc1"] = row.get("nc1", 1.0)
    sweep = {"sweep": {"name": "temperature", "values": [0.5, 4.0]}}
    found = history_of(rows, CONFIG | sweep)
    assert (found.swept, found.groups) == ("temperature", {0.5: [0, 1], 4.0: [2, 3]})
    axes, numbers = figure("interplay", rows, **sweep)
    x = [value("mir", "test", run, 20) for run in (2, 3)]
    named = {"method": "temperature = 4.0", "quantity": "mir", "split": "test", "step": 20}
    (row,) = (row for row in numbers if named.items() <= row.items())
    assert row["mean"] == pytest.approx(np.mean(x)) and row["n"] == 2
    assert row["high"] == pytest.approx(stats.t.interval(0.95, 1, np.mean(x), stats.sem(x))[1])
    lines = [line for line in axes["MIR and HDR, test"].lines if len(line.get_xdata()) == 4]
    assert len(lines) == 4 and lines[0].get_color() == lines[1].get_color() != lines[2].get_color()
    assert lines[0].get_linestyle() != lines[1].get_linestyle()
    swept = [row for row in figure("swept", rows, **sweep)[1] if (row["quantity"], row["split"]) == ("mir", "train")]
    assert [row["x"] for row in swept] == [0.5, 4.0]
    assert swept[0]["mean"] == pytest.approx(np.mean([value("mir", "train", run, 100) for run in (0, 1)]))


def test_a_measured_quantity_is_no_swept_parameter():
    rows = [
        {"kind": "train", "step": k, "time": 0.0, "run": i, "seed": i, "loss": float(i)} for k in (1, 2) for i in (0, 1)
    ]
    assert history_of(rows, CONFIG).groups == {None: [0, 1]}


def test_another_axis_is_a_few_lines_of_data():
    rows = made(2)
    for at in (0.0, 0.5, 1.0):
        for run in (0, 1):
            mark = {"kind": "eval", "step": 100, "time": 0.0, "run": run, "seed": run, "split": "test"}
            rows.append(mark | {"weight": at, "loss": 1 + at + run})
    plan = plans.Plan("Barrier", "", (plans.Panel("Loss", plans.lines("loss")),), x="weight")
    drawn, numbers = figures.draw(plan, curves.methods_of(history_of(rows, CONFIG)), "title")
    assert [(row["x"], row["mean"]) for row in numbers] == [(0.0, 1.5), (0.5, 2.0), (1.0, 2.5)]
    assert drawn.axes[0].get_xlabel() == "interpolation weight"
    ends = run_means(history_of(rows, CONFIG), "test", "loss", [0])  # and stays off the axis of time
    assert ends.mean[-1] == value("loss", "test", 0, 100)


def grokked():
    """Two seeds: train is right from step 10 and 20 on, test from 40 and 80 on."""
    rows = []
    for run in (0, 1):
        for step in (0, 10, 20, 40, 80, 100):
            for split, from_ in (("train", 10 * (run + 1)), ("test", 40 * (run + 1))):
                found = {"accuracy": 0.5 + 0.5 * (step >= from_), "mir": 0.01 * step + run, "hdr": 1 - 0.01 * step}
                mark = {"kind": "eval", "step": step, "time": 0.0, "run": run, "seed": run + 5, "split": split}
                rows.append(mark | {"n": 50, "limit_mir": 0.9} | found)
    return rows


def test_a_column_a_seed_and_its_phases():
    axes, numbers = figure("grokking", grokked(), steps_per_epoch=None, task="grokking")
    assert [title for title in axes if title] == [
        f"{name}, seed {seed}" for name in ("Accuracy", "MIR", "HDR") for seed in (5, 6)
    ]
    for seed, marks in ((5, [10, 40]), (6, [20, 80])):
        verticals = [line for line in axes[f"MIR, seed {seed}"].lines if len(set(line.get_xdata())) == 1]
        assert [line.get_xdata()[0] for line in verticals if len(line.get_xdata()) == 2] == marks
    drawn = [row for row in numbers if row["quantity"] == "mir" and row["split"] == "test"]
    assert [row["mean"] for row in drawn if row["method"] == "seed 6"] == [1.0, 1.1, 1.2, 1.4, 1.8, 2.0]
    assert all(math.isnan(row["limit"]) for row in drawn)
    header, rows = tables.phases_table(history_of(grokked(), CONFIG | {"task": "grokking"}))
    assert header[:7] == ["run", "memorised", "generalised", "MIR at 0", "MIR memorised", "MIR generalised", "MIR end"]
    assert [row[:7] for row in rows] == [
        ["seed 5", "10", "40", "0", "0.100", "0.400", "1.00"],
        ["seed 6", "20", "80", "1.00", "1.20", "1.80", "2.00"],
    ]


def test_a_run_that_never_understood():
    rows = [row for row in grokked() if row["step"] < 40]
    header, [first, second] = tables.phases_table(history_of(rows, CONFIG | {"task": "grokking"}))
    assert first[1:3] == ["10", "never"] and second[1:3] == ["20", "never"]
    assert "MIR memorised" in header and "MIR generalised" not in header
    axes, _ = figure("grokking", rows, task="grokking")
    assert "MIR, seed 5" in axes


def along(name, values, endings=("",)):
    """Rows of two runs along a coordinate, and those along time."""
    rows = made(2)
    for run in (0, 1):
        for value_ in values:
            found = {
                f"{q}{e}": value_ + run + 0.1 * len(e) for q in ("accuracy", "loss", "mir", "hdr") for e in endings
            }
            mark = {"kind": "eval", "step": 100, "time": 0.0, "run": run, "seed": run, "split": "test", name: value_}
            rows.append(mark | found | {"mir_features": value_, "mir_features_layerwise": 2 * value_, "limit_mir": 0.9})
    return rows


def test_the_line_between_two_networks():
    axes, numbers = figure("connectivity", along("weight", (0.0, 0.5, 1.0), ("", "_recomputed")))
    names = ("Accuracy", "Loss", "MIR", "HDR")
    titles = [*names, *(f"{name}, statistics recomputed" for name in names)]
    assert [title for title in axes if title] == titles
    found = [row for row in numbers if row["panel"] == "MIR, statistics recomputed"]
    assert [(row["x"], row["mean"], row["n"]) for row in found] == [
        (w, pytest.approx(w + 1.6), 2) for w in (0.0, 0.5, 1.0)
    ]
    assert all(math.isnan(row["limit"]) for row in numbers)
    axes, _ = figure("connectivity", along("weight", (0.0, 0.5, 1.0)))
    assert not any("recomputed" in title for title in axes)


def test_sparsities():
    axes, numbers = figure("pruning", along("sparsity", (0.0, 0.9), ("", "_layerwise")))
    assert "MIR, before and after" in axes and axes["Accuracy"].get_xlabel() in ("", "sparsity")
    found = {(row["quantity"], row["x"]): row["mean"] for row in numbers}
    assert found["mir_features", 0.9] == 0.9 and found["mir_features_layerwise", 0.9] == 1.8


def test_maps(tmp_path):
    rows = made(1, swept=(1.0, 10.0))
    for run, t in ((0, 1.0), (1, 10.0)):
        mark = {
            "kind": "eval",
            "step": 100,
            "time": 0.0,
            "run": run,
            "seed": 0,
            "temperature": t,
            "split": "test",
            "n": 3,
        }
        rows.append(mark | {"tsne_x": [0.0, 1.0, 2.0], "tsne_y": [t, t, t], "labels": [0, 1, 1]})
    path = folder(tmp_path / "run", rows, sweep={"name": "temperature", "values": [1.0, 10.0]})
    runs.write_run(path)
    points = table(path / "figures" / "tsne.csv")
    assert [(row["panel"], float(row["y"]), row["class"]) for row in points][2:4] == [
        ("temperature = 1", 1.0, "1"), ("temperature = 10", 10.0, "0"),
    ]  # fmt: skip
    assert "t-SNE of the features" in (path / "report.html").read_text()


def test_what_is_made_of_a_frozen_run_does_not_count():
    rows = [
        row | ({"of_frozen": True} if "weight" in row and row["run"] == 0 else {})
        for row in along("weight", (0.0, 1.0))
    ]
    _, numbers = figure("connectivity", rows)
    assert {row["n"] for row in numbers} == {1} and not history_of(rows, CONFIG).frozen


def test_two_networks_of_one_seed_are_not_two_seeds():
    rows = [row | {"seed": 0, "end": row["run"]} if "run" in row else row for row in made(2)]
    found = history_of(rows, CONFIG)
    assert tables.facts(found).endswith("1 seed of 2 networks")
    assert tables.last_evaluation(found).endswith("over networks")
    assert not any(name == "end" for _, _, name in found.values)


def test_limits_need_the_classes():
    rows = made(1)
    found = history_of(rows, CONFIG | {"num_classes": None})
    assert num_classes(found) is None and limits(found, "test", "entropy_head_weights", [0]) is None
    found = history_of(rows, CONFIG | {"num_classes": 4})
    assert limits(found, "test", "entropy_head_weights", [0]).tolist() == [math.log(3)] * 4
    assert closed_limits(10)["collapsed MIR"] == nc_limits(10).mir


def test_ticks_are_plain():
    assert time.time_ticks(1.0, 60) == [0, 1, 2, 5, 10, 20, 50]
    assert time.time_ticks(1.0, 1e6) == [0, 1, 10, 100, 1e3, 1e4, 1e5, 1e6]
    assert [time.tick_name(x) for x in (0, 0.5, 200, 5000, 5e4, 2e6)] == ["0", "0.5", "200", "5000", "50k", "2M"]
    axes, _ = figure("entropy", made(), report={"x_scale": "linear"})
    assert axes["Accuracy, test"].get_xscale() == "linear"
    axes, _ = figure("entropy", made(), steps_per_epoch=None)
    assert axes["Entropy (nats), test"].get_xlabel() == "step"


# The page


def text_of(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<svg.*?</svg>", "", html, flags=re.S)))


def test_the_page_has_the_numbers(whole):
    page = (whole / "report.html").read_text()
    x = [value("nc1", "test", run, 100) for run in range(3)]
    cell = tables.plus_minus(x)
    half = stats.t.interval(0.95, 2, 0, stats.sem(x))[1]
    assert cell == f"{np.mean(x):#.4g} ± {half:#.2g}" and f"<td>{cell}</td>" in page
    at = tables.plus_minus([value("mir", "test", run, step) for run, step in ((0, 20), (1, 100), (2, 20))])
    assert f"<td>{at}</td></tr>" in re.search(r"<tr><td>MIR</td>.*", page).group()
    words = text_of(page)
    for said in ("digits, mlp; train n = 1,442, test n = 355; 3 seeds", "2 × TestChip (cpu), jax 0.10.1", "at 100%"):
        assert said in words
    assert page.count("<svg") == 4 and "Song et al. 2024, Fig. 2a" in words and "Warnings" not in words
    assert '"steps_per_epoch": 10' in page.replace("&quot;", '"')
    for run in range(3):  # folded
        assert f"<td>{run}</td><td>{run}</td><td>{0.6 + 0.01 * run:.4f}</td>" in page


def test_the_page_stands_alone(whole):
    page = (whole / "report.html").read_text()
    assert not re.search(r"https?:", re.sub(r'xmlns(:\w+)?="[^"]*"', "", page))
    assert not re.search(r"<(script|link|img|iframe)|@import|url\((?!#)", page) and "prefers-color-scheme: dark" in page
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids)) > 50
    assert set(re.findall(r'href="#([^"]*)"', page)) <= set(ids)
    for name in ("entropy", "interplay", "collapse", "losses"):
        assert (whole / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (whole / "figures" / f"{name}.svg").exists()


def test_the_same_rows_give_the_same_bytes(tmp_path):
    rows = [row for row in made(2) if row["kind"] == "train"]
    one, two = (folder(tmp_path / name / "run", rows) for name in "ab")
    for path in (one, two):
        runs.write_run(path)
    for name in ("report.html", "figures/losses.png", "figures/losses.svg", "figures/losses.csv"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_frozen_and_unfinished_runs_are_said():
    found = history_of(made(bad=1), CONFIG | {"steps": 500})
    assert tables.warnings_of(found) == [
        "run 1 (seed 1) became NaN or Inf and is frozen from step 20: means are over the other runs",
        "not finished: the last row is at step 100 of 500",
    ]
    ends = run_means(found, "test", "mir", [0, 1, 2])
    assert ends.n.tolist() == [3, 3, 2, 2]  # its weights can be measured, but say nothing of the training
    assert ends.mean[-1] == np.mean([value("mir", "test", run, 100) for run in (0, 2)])
    assert first_perfect(found, [0, 1, 2]) is None and first_perfect(found, [0, 2]) == {0: 20, 2: 20}
    alone = run_means(history_of(made(1, bad=0), CONFIG), "test", "mir", [0])
    assert alone.place.tolist() == [0, 10]  # nothing left to average


def test_a_few_strange_rows_are_enough(tmp_path):
    rows = [{"kind": "eval", "step": 0, "time": 0.0, "checksum": -2.0, "nested": [1]}]
    path = folder(tmp_path / "odd", rows)
    assert "<svg" not in runs.write_run(path).read_text() and not (path / "figures").exists()
    assert runs.summary_lines(path)[2] == "  nothing evaluated"


def test_the_summary_is_a_table(whole):
    lines = runs.summary_lines(whole)
    assert lines[0] == "interplay: digits, mlp; train n = 1,442, test n = 355; 3 seeds"
    (mir,) = (line for line in lines if line.startswith("  MIR"))
    means = [tables.plus_minus([value("mir", split, run, 100) for run in range(3)]) for split in ("train", "test")]
    assert re.split(r"\s{2,}", mir.strip()) == ["MIR", means[0], "0.9000", means[1], "0.9000"]
    assert len({len(line) for line in lines if re.match("  (MIR|HDR|NC1)", line)}) == 1
    assert [line.split()[0] for line in lines[3:] if line[:2] == "  "] == [
        "accuracy",
        "loss",
        "H(features)",
        "H(W)",
        "MIR",
        "HDR",
        "NC1",
    ]
    script = f"from infojax.report.runs import summary_lines; summary_lines({str(whole)!r}); import sys; "
    subprocess.run([sys.executable, "-c", script + "assert 'matplotlib' not in sys.modules"], check=True)


# Several, and the command


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (("/a/x", "/a/y"), ["x", "y"]),
        (("/r/x/seed0", "/r/y/seed0"), ["x", "y"]),
        (("/r/x/0", "/r/y/1"), ["x/0", "y/1"]),
        (("/r/x", "/r/x/y"), ["x", "y"]),
        (("/r/x",), ["x"]),
        (("/r/x", "/r/x/x"), ["/r/x", "/r/x/x"]),
    ],
)
def test_labels_are_what_differs(paths, labels):
    assert tables.labels_of(paths) == labels


def test_runs_are_compared(tmp_path, capsys):
    cold = [row for row in made(2) if row["kind"] != "train"]
    paths = [folder(tmp_path / "cold", cold), folder(tmp_path / "hot", made(1), optimizer={"lr": 0.3})]
    page = runs.write_comparison(paths, tmp_path / "both").read_text()
    assert "Comparison of cold, hot" in page and page.count("<svg") == 2
    assert "<td>optimizer.lr</td><td>absent</td><td>0.3</td>" in page and "<td>model.name</td>" not in page
    x = [value("mir", "test", run, 100) for run in (0, 1)]
    assert f"<td>{tables.plus_minus(x)}</td>" in page and f"<td>{tables.plus_minus(x[:1])}</td>" in page
    found = table(tmp_path / "both" / "figures" / "comparison_test.csv")
    named = {"method": "cold", "quantity": "mir", "step": "100"}
    (row,) = (row for row in found if named.items() <= row.items())
    assert float(row["mean"]) == pytest.approx(np.mean(x)) and row["split"] == "test" and row["n"] == "2"
    assert command.main([str(path) for path in paths] + ["--out", str(paths[0])]) == 2
    (tmp_path / "file").write_text("")
    assert command.main([str(path) for path in paths] + ["--out", str(tmp_path / "file")]) == 2
    assert command.main([str(paths[0]), "--out", str(tmp_path / "new")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 3 and "is the folder of a run" in said.err


def test_the_command_names_what_it_wrote(tmp_path, capsys):
    path = folder(tmp_path / "run", [row for row in made(1) if row["kind"] == "train"])
    with open(path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "st')  # a line cut short
    assert command.main([str(path), str(path)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{path / 'report.html'}\n"
    assert "2 folders given, 1 of them distinct; each is drawn once" in err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda path: path.rename(path.parent / "away"), "no such folder"),
        (lambda path: (path / "metrics.jsonl").unlink(), "no metrics.jsonl"),
        (lambda path: (path / "config.json").unlink(), "no config.json"),
        (lambda path: (path / "config.json").write_text("{"), "config.json: damaged"),
        (lambda path: (path / "metrics.jsonl").write_text(""), "no rows"),
        (lambda path: (path / "config.json").write_text("[]"), "config.json: damaged; expected one JSON object"),
        (lambda path: (path / "config.json").write_text('{"a":' * 9**5), "config.json: damaged"),
        (lambda path: (path / "config.json").write_text('{"a":' * 60 + "1" + "}" * 60), "config.json: damaged"),
        (lambda path: (path / "config.json").write_text('{"sweep": 3}'), "sweep is '3', expected an object"),
        (lambda path: (path / "config.json").write_text('{"steps_per_epoch": "x"}'), "steps_per_epoch is 'x'"),
        (lambda path: (path / "env.json").write_text("[]"), "env.json: damaged"),
        (lambda path: (path / "metrics.jsonl").write_text("[1]\n"), "not a JSON object (line 1)"),
        (lambda path: (path / "report.html").mkdir(), "report.html: is a folder, expected a file"),
        (lambda path: (path / "figures").write_text(""), "figures: is a file, expected a folder"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, change, says):
    path = folder(tmp_path / "run", made(1))
    change(path)
    assert command.main([str(path)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and says in said.err and str(path) in said.err
    if "expected a f" not in says:  # of what is read, not of what is written
        with pytest.raises(RunFolderError):
            read_history(path)


DAMAGED = {
    "[]": "not a JSON object",
    "[" * 10**5: "not JSON",
    '{"kind": "train", "st': "not JSON",
    '{"step": 30}': "no kind",
    '{"kind": "eval", "step": "30"}': "step is '30', expected a whole number",
    '{"kind": "eval", "step": true}': "step is 'True', expected a whole number",
    '{"kind": "eval", "step": 1e3}': "step is '1000.0', expected a whole number",
    '{"kind": "eval", "step": 12345678901234567890123}': "step has 23 digits",
    '{"kind": "eval", "step": 30, "split": ["test"]}': "split is",
    '{"kind": "eval", "step": 30, "run": NaN}': "run is 'nan', expected a whole number",
    '{"kind": "eval", "step": 30, "split": "test", "mir": 1%s}' % ("0" * 400): "mir has 401 digits",
    '{"kind": "eval", "step": 30, "tsne_x": [1, 2], "labels": [1, 1]}': "must be lists of numbers of equal length",
}


def test_damaged_lines_are_left_out_and_counted(tmp_path, capsys):
    rows = [json.dumps(row) for row in made(1)]
    path = folder(tmp_path / "run", [])
    lines = [*rows[:3], *DAMAGED, *rows[3:]]
    odd = '{"kind": "eval", "step": 40, "split": "test", "mir": NaN, "hdr": -Infinity, "nc1": "low"}'
    plain = '{"kind": "eval", "step": 40, "split": "test", "mir": null, "hdr": null}'
    (path / "metrics.jsonl").write_text("\n".join([*lines, odd, '{"kind": "eval", "st']))
    found = read_history(path)
    expected = history_of([json.loads(line) for line in [*rows, plain]], found.config, folder=path)
    np.testing.assert_equal(found.values, expected.values)
    lost, text = (note.removeprefix(f"{path / 'metrics.jsonl'}: ") for note in found.notes)
    assert lost.startswith(f"{len(DAMAGED) + 1} of {len(lines) + 2} lines are damaged and were skipped: ")
    assert all(problem in lost for problem in DAMAGED.values()) and f"cut short (line {len(lines) + 2})" in lost
    assert text == f"nc1 is not a number in line {len(lines) + 1}: left out there"
    assert command.main([str(path)]) == 0
    assert capsys.readouterr().err.splitlines() == [f"infojax.report: {note}" for note in found.notes]
    assert "lines are damaged and were skipped" in (path / "report.html").read_text()


def test_the_page_begins_with_what_was_found(whole, tmp_path):
    page = (whole / "report.html").read_text()
    sentences = re.findall(r'<p class="(?:found|also)">([^<]*)', page)
    assert re.findall(r'<p class="found">([^<]*)', page) == sentences[:1]  # one in larger letters
    assert sentences[0].startswith("Partly collapsed on train") or sentences[0].startswith("Not collapsed on train")
    assert re.match(r"MIR 0\.18.* on train, 0\.7.* from its limit 0\.9000; HDR", sentences[1])
    assert sentences[2] == "Accuracy 100% on train, 61% on test."
    assert page.index("found") < page.index("<svg") < page.index("Last evaluation</h2>")
    links = re.findall(r'<a href="#([^"]+)">', page)
    assert links and all(f'id="{link}"' in page for link in links)
    rows = made(seeds=2, swept=[0.1, 10.0])
    swept = verdict(history_of(rows, CONFIG | {"sweep": {"name": "temperature", "values": [0.1, 10.0]}}))
    assert swept[0].startswith("The accuracy on test rises from temperature = 0.1 to 10.0: +2.0")
    assert swept[1].startswith("From temperature = 0.1 to 10.0: accuracy (test) from ")


def test_axes_of_few_epochs_have_whole_ticks():
    _, axis = plt.subplots()
    time.scale_time(axis, "linear", 1.0, 3.0)
    assert all(float(tick).is_integer() for tick in axis.get_xticks())
    plt.close()


def test_what_is_zero_but_for_rounding_has_an_axis_of_its_own():
    _, axis = plt.subplots()
    panels.scale_y(axis, False, [0.0, 3e-17])
    assert axis.get_ylim() == (-0.05, 1)
    plt.close()


def test_captions_explain_the_panels_that_were_drawn():
    plan = plans.FIGURES["geometry"]
    assert plan.caption_of([{"panel": "CDNV"}, {"panel": "CDNV"}]) == "CDNV: Galanti et al. 2022."
    collapse = plans.FIGURES["collapse"]
    assert collapse.caption_of([{"panel": "NC3: self-duality"}]) == collapse.caption
    assert "decomposed" in collapse.caption_of([{"panel": "Squared error, decomposed"}])


def test_intervals_of_an_accuracy_end_at_zero_and_one():
    """Of two runs, 0.1 and 0.9, Student's t interval is [-4.6, 5.6]."""
    rows = [{"kind": "eval", "step": step, "time": 0.0, "run": run, "split": "test", "n": 9, "accuracy": value}
            for run, value in enumerate((0.1, 0.9)) for step in (1, 9)]  # fmt: skip
    plan = plans.Plan("", "", (plans.ACCURACY,))
    figure, drawn = figures.draw(plan, curves.methods_of(history_of(rows, CONFIG)), "accuracy")
    [band] = figure.axes[0].collections
    ends = band.get_paths()[0].vertices[:, 1]
    assert (ends.min(), ends.max()) == (0.0, 1.0) and drawn[0]["low"] < -4


def test_runs_of_other_studies_are_compared_in_what_they_share(tmp_path):
    """A panel and a study's own figure need two runs; what one alone has is named."""

    def page_of(*quantities):
        rows = [
            [{"kind": "eval", "step": step, "time": 0.0, "run": 0, "seed": 0, "split": "test", "n": 9} | numbers
             for step in (0, 10)] for numbers in quantities
        ]  # fmt: skip
        tasks = ("grokking", "selfsup")
        paths = [
            folder(tmp_path / f"{len(list(tmp_path.iterdir()))}", found, task=t)
            for found, t in zip(rows, tasks, strict=True)
        ]
        return runs.write_comparison(paths, tmp_path / f"out{len(list(tmp_path.iterdir()))}").read_text()

    page = page_of({"accuracy": 0.5, "nc1": 2.0}, {"nc1": 3.0, "view_joint_entropy": 2.0})
    assert "Not drawn, since one run alone has it: test: Accuracy." in page
    assert page.count("<figure") == 1 and "joint entropy of two views</a>" not in page
    page = page_of({"accuracy": 0.5}, {"view_joint_entropy": 2.0})
    assert "<figure" not in page and "The runs have no measured quantity in common." in page


def test_what_a_method_selects_has_no_columns_among_the_splits():
    rows = made(1)
    rows.append(rows[-1] | {"split": "unlabelled_selected", "entropy_features": 1.0, "kind": "eval"})
    found, _ = figures.draw(plans.FIGURES["entropy"], curves.methods_of(history_of(rows, CONFIG)), "title")
    titles = [axis.get_title(loc="left") for axis in found.axes]
    assert "Entropy (nats), test" in titles and not any("unlabelled" in title for title in titles)


def test_long_titles_are_broken_inside_their_figure():
    figure = canvas.new_figure("one\n" + "word " * 60, 9.2, 3)
    figure.draw_without_rendering()
    box = figure._suptitle.get_window_extent()
    assert 0 <= box.x0 and box.x1 <= figure.bbox.x1
