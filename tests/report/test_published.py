"""The paper's table beside runs of one's own: means, ranks by source, blanks, and the paper's flagged cells."""

import csv
import io
import json
from dataclasses import replace

import pytest

from infojax.report import __main__ as command
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
    table, by_step = grids("semisup", RUNS)
    found = table.sources[OURS]
    assert found["fixmatch", ("cifar10", 40)][:3] == pytest.approx((8.0, 2.0, 2))
    assert found["freematch", ("cifar10", 40)][:3] == pytest.approx((4.0, 0.0, 1))
    assert len(found) == 2 and by_step.sources[OURS]["fixmatch, cifar10 40", 5000][:2] == pytest.approx((40.0, 10.0))


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
    rows = list(csv.DictReader(io.StringIO(rows_of(grids("semisup", RUNS)))))
    assert sum(row["source"] == PAPER for row in rows) == 112
    assert {row["rank"] for row in rows if row["method"] == "freematch" and row["source"] == OURS} == {"1"}


def test_a_seed_that_comes_twice_is_told():
    table, *_ = grids("semisup", [RUNS[0], history("fixmatch", 0, {7000: 0.8}, folder="again")])
    assert "again: seed 0 of fixmatch is there already" in table.notes[0]
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
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"semisup.{k}" for k in ("txt", "md", "csv", "html")
    }
    assert "25.00" in (tmp_path / "out" / "semisup.md").read_text()
    assert command.main([str(folder), "--select", "last"]) == 2


def test_what_must_not_be_averaged_is_told(tmp_path):
    """A list of labelled samples counts as many as it has; sweeps are left out; other steps in one cell are told."""
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
