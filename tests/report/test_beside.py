"""Tables of studies with one number per run: the last evaluation next to the paper's cells, and differences by seed."""

import csv
import io
import json

import pytest

from infojax.report import __main__ as command
from infojax.report.runs.beside import STUDIES, grids
from infojax.report.runs.published import OURS, PAPER, TABLES, text
from infojax.report.runs.rows import history_of

COMPRESSION = {"name": "compression", "task": "compression", "model": {"name": "f_minus"}}


def history(term, numbers, config=None, data="cifar10", folder="run"):
    """A run per seed of `numbers`; the accuracy of an earlier step and of train must not count."""
    rows = [
        {"kind": "eval", "step": step, "time": 0.0, "run": run, "seed": seed, "split": split, "n": 9}
        | {"accuracy": value if (step, split) == (9, "test") else 0.1, "loss": 2 * value}
        for run, (seed, value) in enumerate(numbers.items())
        for step in (5, 9)
        for split in ("train", "test")
    ]
    config = config or {"name": "regularized", "task": "supervised", "objective": {"term": term}}
    return history_of(rows, config | {"data": {"name": data}}, folder=folder)


RUNS = [history("off", {0: 0.5, 1: 0.7, 2: 0.1}), history("mi", {0: 0.56, 1: 0.72})]


def test_the_last_evaluation_stands_beside_the_paper():
    table, difference = grids("regularized", RUNS)
    assert table.sources[OURS]["mi", "cifar10"][:3] == pytest.approx((64.0, 8.0, 2))
    assert table.sources[PAPER]["mi", "cifar10"].mean == 95.52 and len(table.sources[PAPER]) == 6
    assert "64.00 ± 8.00" in text(table) and "95.52 ±" not in text(table)
    cell = difference.sources["minus off"]["mi", "cifar10"]  # of 6 and 2 points; Student's t with one degree of freedom
    assert cell[:3] == pytest.approx((4.0, 12.7062 * 2.0, 2), rel=1e-4)


def test_compression_has_accuracy_and_loss_and_names_what_is_unusual():
    runs = [
        history("", {0: 0.25}, COMPRESSION, "fashion_mnist"),
        history("", {0: 0.5}, COMPRESSION | {"chosen": {"labels": "random", "variant": "text"}}, "fashion_mnist"),
    ]
    accuracy, loss = grids("compression", runs)
    assert accuracy.sources[OURS]["f_minus", "fashion_mnist"].mean == 25.0
    assert accuracy.sources[OURS]["f_minus, labels random", "fashion_mnist"].mean == 50.0
    assert loss.sources[OURS]["f_minus", "fashion_mnist"].mean == 0.5
    assert loss.sources[PAPER]["f_plus", "cifar10"].mean == 0.757 and "0.757" in text(loss)


def test_what_is_left_out_or_repeated_is_told():
    other = history("", {0: 0.25}, COMPRESSION, folder="other")
    longer = history("mi", {1: 0.9}, folder="longer")
    longer.config["steps"] = 50
    table, _ = grids("regularized", [*RUNS, other, longer])
    assert table.notes[:3] == [
        "other: not a run of regularized or interplay, left out",
        "longer: steps differ from run, in the same cell",
        "longer: repeats seed 1 of mi; this later run counts",
    ]
    assert table.sources[OURS]["mi", "cifar10"].mean == pytest.approx(73.0)


def test_a_sweep_has_a_row_per_value():
    swept = history("mi", {0: 0.5, 1: 0.75})
    swept = type(swept)(**vars(swept) | {"swept": "strength", "groups": {0.1: [0], 1.0: [1]}})
    found = grids("regularized", [swept])[0].sources[OURS]
    assert {row: cell.mean for (row, _), cell in found.items()} == {"mi, strength 0.1": 50.0, "mi, strength 1.0": 75.0}


def test_the_command_writes_every_form(tmp_path, capsys):
    assert set(STUDIES) < set(TABLES)
    folder = tmp_path / "run"
    folder.mkdir()
    config = {"name": "regularized", "objective": {"term": "hd"}, "data": {"name": "cifar100"}}
    (folder / "config.json").write_text(json.dumps(config))
    row = {"kind": "eval", "step": 9, "time": 0.0, "split": "test", "n": 9, "accuracy": 0.75}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert command.main([str(folder), "--table", "regularized", f"--out={tmp_path}/out"]) == 0
    assert "75.00" in capsys.readouterr().out
    kinds = ("txt", "md", "csv", "json", "html")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"regularized.{kind}" for kind in kinds}
    records = json.loads((tmp_path / "out" / "regularized.json").read_text())
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "regularized.csv").read_text())))
    assert len(rows) == len(records) == 7 and records[0]["mean"] == 75.0 and records[0]["rank"] is None
    assert [one["source"] for one in records] == [row["source"] for row in rows]
    assert command.main([str(folder), "--table", "regularized", "--select", "last"]) == 2
