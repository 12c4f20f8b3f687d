"""The paper's table with the user's runs: means, ranks by source, blanks, and the paper's flagged cells."""

import csv
import io
import json
import math
import re
from dataclasses import replace

import pytest

from infojax.report import __main__ as command
from infojax.report.runs import write_comparison
from infojax.report.runs.error_rates import draw_error_rates
from infojax.report.runs.published import OURS, PAPER, expected, grids, html, markdown, rows_of, text
from infojax.report.runs.rows import history_of


def history(method, seed, accuracies, labels=40, folder="run"):
    rows = [
        {"kind": "eval", "step": step, "time": 0.0, "run": 0, "seed": seed, "split": "test", "n": 9, "accuracy_ema": a}
        for step, a in accuracies.items()
    ]
    config = {"task": "semisup", "method": method, "data": {"name": "cifar10", "labels": labels, "labelled_seed": 0}}
    return history_of(rows, config, folder=folder)


RUNS = [
    history("fixmatch", 0, {5000: 0.5, 6000: 0.9}),
    history("fixmatch", 1, {5000: 0.7, 6000: 0.94}),
    history("freematch", 0, {5000: 0.75, 6000: 0.96}),
]


def test_ours_are_means_and_population_deviations_over_seeds():
    table, _, by_step = grids("semisup", RUNS)
    found = table.sources[OURS]
    assert found["fixmatch", ("cifar10", 40)][:3] == pytest.approx((8.0, 2.0, 2))
    assert found["freematch", ("cifar10", 40)][:3] == pytest.approx((4.0, 0.0, 1))
    assert len(found) == 2 and by_step.sources[OURS]["fixmatch, cifar10 40", 5000][:2] == pytest.approx((40.0, 10.0))


def test_differences_are_taken_seed_by_seed():
    """Student's t of two differences: 12.706 s / sqrt(2); a seed that only one of both has does not count."""
    runs = [*RUNS, history("freematch", 1, {6000: 0.9}), history("supervised", 1, {6000: 0.5})]
    _, differences, _ = grids("semisup", runs)
    cells = differences.sources["minus freematch"]
    assert cells["fixmatch", ("cifar10", 40)] == pytest.approx((1.0, 63.5310, 2, ""), abs=1e-4)  # of 6 and -4
    assert differences.sources["minus supervised"]["fixmatch", ("cifar10", 40)].mean == pytest.approx(-44.0)
    assert ("freematch", ("cifar10", 40)) not in cells and "*" not in text(differences)


def test_the_error_of_a_step_is_that_of_the_nearest_evaluation():
    by_step = grids("semisup", [history("fixmatch", 0, {4600: 0.5, 5300: 0.7, 11_500: 0.9})])[-1]
    assert by_step.sources[OURS] == {("fixmatch, cifar10 40", 5000): pytest.approx((30.0, 0.0, 1, ""))}
    assert by_step.notes == ["5,000: evaluated at 5,300"]


def test_lone_runs_are_told_apart_by_the_seed_of_their_config():
    runs = []
    for seed in (3, 4):
        runs.append(history("fixmatch", seed, {6000: 0.9}, folder=f"run{seed}"))
        runs[-1].config["seed"] = seed
        runs[-1].seeds.clear()
    table, *_ = grids("semisup", runs)
    assert table.sources[OURS]["fixmatch", ("cifar10", 40)].n == 2


def test_lg_of_the_errors_is_drawn_for_the_paper_and_the_runs():
    _, rows = draw_error_rates(grids("semisup", RUNS)[0])
    found = {(row["method"], row["data"], row["labels"], row["source"]): row for row in rows}
    assert len(rows) == 112 + 2 and found["fixmatch", "cifar10", 40, OURS]["lg_error"] == pytest.approx(math.log10(8))
    assert found["fixmatch", "cifar10", 40, OURS]["low"] == pytest.approx(math.log10(6))
    assert math.isnan(found["freematch", "cifar10", 40, OURS]["low"])


def test_each_source_is_ranked_by_itself():
    table, *_ = grids("semisup", RUNS)
    shown = text(table)
    assert "4.00*" in shown and "8.00 ± 2.00'" in shown and "4.63 ± 0.25*" in shown and "4.66 ± 0.13'" in shown
    assert "**4.00**" in markdown(table) and "<u>4.66 ± 0.13</u>" in markdown(table) and "<b>4.00</b>" in html(table)


def test_the_paper_is_complete_and_its_doubtful_cells_are_flagged():
    _, cells = expected("semisup")
    assert len(cells) == 16 * 7 and len({method for method, _ in cells}) == 16
    noted = {place for place, cell in cells.items() if cell.note}
    assert {("softmatch", ("cifar10", n)) for n in (10, 40, 250)} | {("fixmatch", ("cifar10", 250))} <= noted
    assert cells["freematch_hd", ("stl10", 1000)][:2] == (5.30, 0.18)


def test_the_csv_has_a_line_per_cell():
    rows = list(csv.DictReader(io.StringIO(rows_of(grids("semisup", RUNS)[:1]))))
    assert sum(row["source"] == PAPER for row in rows) == 112
    assert {row["rank"] for row in rows if row["method"] == "freematch" and row["source"] == OURS} == {"1"}


def test_a_seed_that_comes_twice_is_told():
    table, *_ = grids("semisup", [RUNS[0], history("fixmatch", 0, {7000: 0.8}, folder="again")])
    assert "again: repeats seed 0 of fixmatch" in table.notes[0]
    assert table.sources[OURS]["fixmatch", ("cifar10", 40)][:3] == pytest.approx((20.0, 0.0, 1))


def test_the_command_writes_every_form(tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    config = {"task": "semisup", "method": "vat", "data": {"name": "digits", "labels": 40}}
    (folder / "config.json").write_text(json.dumps(config))
    row = {"kind": "eval", "step": 9, "time": 0.0, "split": "test", "n": 9, "accuracy": 0.75}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert command.main([str(folder), "--table", "semisup", f"--out={tmp_path}/out"]) == 0
    assert "digits 40" in capsys.readouterr().out
    drawn = {f"figures/{name}.{kind}" for name in ("error_rates", "semisup_error") for kind in ("svg", "png", "csv")}
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    assert written == {f"semisup.{k}" for k in ("txt", "md", "csv", "json", "html")} | drawn
    assert "25.00" in (tmp_path / "out" / "semisup.md").read_text()
    assert (tmp_path / "out" / "semisup.html").read_text().count("<figure") == 2
    assert command.main([str(folder), "--select", "last"]) == 2


def test_what_must_not_be_averaged_is_told(tmp_path):
    """A list of labelled samples counts as many as it has; sweeps are left out; mixed steps in a cell are noted."""
    (tmp_path / "labelled.txt").write_text("3\n5\n8\n")
    own = history("fixmatch", 0, {6000: 0.9}, folder=tmp_path)
    own.config["data"]["labelled"] = "mine.txt"
    longer = history("fixmatch", 1, {6000: 0.94}, folder="longer")
    longer.config["steps"] = 9000
    swept = replace(history("fixmatch", 2, {6000: 0.5}, folder="swept"), swept="threshold")
    table, *_ = grids("semisup", [RUNS[0], own, longer, swept])
    found = table.sources[OURS]
    assert set(found) == {("fixmatch", ("cifar10", 40)), ("fixmatch", ("cifar10", 3))}
    assert "longer: steps differ from run, in the same cell" in table.notes
    assert "swept: a sweep of threshold, left out" in table.notes


def test_runs_are_compared_by_their_error(tmp_path):
    """Of the averaged weights, at the end in the table and over steps next to MIR and HDR in a figure."""
    folders = []
    for method, accuracy in (("fixmatch", 0.75), ("freematch", 0.875)):
        folders.append(tmp_path / method)
        folders[-1].mkdir()
        config = {"task": "semisup", "method": method, "data": {"name": "digits", "labels": 40}, "steps_per_epoch": 2}
        (folders[-1] / "config.json").write_text(json.dumps(config))
        measured = {"accuracy": 0.5, "accuracy_ema": accuracy, "mir": 0.5, "hdr": 0.25}
        rows = [{"kind": "eval", "step": step, "time": 0.0, "split": "test", "n": 9, **measured} for step in (0, 9)]
        rows.append(rows[-1] | {"split": "unlabelled_selected", "mir": 0.6})
        (folders[-1] / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = write_comparison(folders, tmp_path / "out").read_text()
    assert "error of the averaged weights (%)" in page and re.search(r">25(\.0+)?<", page)
    assert re.search(r">12\.50?<", page)
    drawn = csv.DictReader((tmp_path / "out" / "figures" / "semisup_error.csv").read_text().splitlines())
    last = {(row["quantity"], row["split"], row["method"]): float(row["mean"]) for row in drawn if row["x"] == "9.0"}
    assert last["error_ema", "test", "freematch"] == 12.5 and last["mir", "unlabelled_selected", "fixmatch"] == 0.6
    assert last["hdr", "test", "fixmatch"] == 0.25
