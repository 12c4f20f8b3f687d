"""Table 1 of the cross-modal loss with the user's runs: recomputed averages, cells, paired differences, figures."""

import csv
import io
import json

import numpy as np
import pytest
from scipy import stats

from infojax.report import __main__ as command
from infojax.report.runs.by_class import draw_classes, draw_results, draw_similarity
from infojax.report.runs.curves import methods_of
from infojax.report.runs.few_shot import AVERAGE, SETS, expected, grids, results
from infojax.report.runs.published import OURS, PAPER, rows_of, text
from infojax.report.runs.rows import history_of

MAP = [[0.3, 0.1], [0.2, 0.4]]


def listed(step, run, of_weight):
    return {
        "kind": "eval", "step": step, "time": 0.0, "run": run, "seed": run % 2, "split": "test",
        "n": 4, "weight": of_weight,
        "class_names": ["cat", "sea lion"], "class_count": [3, 1], "class_accuracy": [1.0, 0.0],
        "class_entropy": [0.5, 0.25], "class_own": [0.3, 0.4], "class_hardest": [0.1, 0.2], "similarity_map": MAP,
    }  # fmt: skip


def history(accuracies, shots=4, folder="run", classes="all", data="eurosat", method="coop_cma"):
    """Two seeds at each of the weights 0 and 0.5; {weight: (accuracy of seed 0, of seed 1)}."""
    rows, run = [], 0
    for weight, of_seeds in accuracies.items():
        for seed, accuracy in enumerate(of_seeds):
            own = {"kind": "eval", "step": 9, "time": 0.0, "run": run, "seed": seed, "n": 4, "weight": weight}
            rows.append(own | {"split": "test", "accuracy": accuracy, "class_similarity": 0.3, "modal_similarity": 0.1})
            if classes != "all":
                rows.append(own | {"split": "novel", "accuracy": accuracy / 2, "harmonic_mean": 2 * accuracy / 3})
            rows += [listed(0, run, weight), listed(9, run, weight)]
            run += 1
    rows.append({"kind": "eval", "step": 0, "time": 0.0, "run": 0, "seed": 0, "weight": 0.0, "split": "test", "n": 4,
                 "accuracy_zero_shot": 0.375})  # fmt: skip
    config = {
        "task": "crossmodal", "method": method, "shots": str(shots), "seed": 0, "sweep": {"name": "weight"},
        "data": {"name": "folder", "template": data, "classes": classes},
        "objective": {"alignment": "released", "weight": 0.5},
    }  # fmt: skip
    return history_of(rows, config, folder=folder)


RUN = history({0.0: (0.5, 0.625), 0.5: (0.75, 0.625)})


def test_the_paper_is_complete_and_its_slips_are_told():
    """Against NumPy means of the recorded cells; the paper prints 60.22 and 73.20."""
    cells = expected()["cells"]
    assert len([c for c in cells if c["table"] == "in_distribution"]) == 11 * 11
    assert len([c for c in cells if c["table"] == "base_to_novel"]) == 11 * 11
    table = grids([])[0]
    means = {column: cell.mean for (row, column), cell in table.sources[PAPER].items() if row == AVERAGE}
    theirs = [58.77, 59.66, 61.92, 66.45, 69.90, 73.07, 60.25, 63.00, 66.93, 70.01, 73.14]
    np.testing.assert_allclose(list(means.values()), theirs, atol=0.0051)
    slips = [note for note in table.notes if "prints an average" in note]
    assert ["60.22" in slips[0] and "60.25" in slips[0], "73.20" in slips[1] and "73.14" in slips[1]] == [True, True]
    assert len(slips) == 2
    novel = next(grid for grid in grids([]) if "novel classes" in grid.title)
    printed = [69.24, 69.48, 71.31, 69.92, 71.46, 70.88, 70.00, 70.57, 69.27, 63.53, 57.73]
    own = [novel.sources[PAPER][AVERAGE, weight].mean for weight in np.arange(11) / 10]
    np.testing.assert_allclose(own, printed, atol=0.0051)


def test_cells_are_means_with_the_printed_interval():
    table = grids([RUN])[0]
    cell = table.sources[OURS]["eurosat", "CoOp 4"]
    assert cell[:3] == pytest.approx((56.25, 6.25, 2))
    assert "56.25 ± 8.66" in text(table) and "68.75 ± 8.66" in text(table)  # 1.96 * 6.25 / sqrt(2)
    assert table.sources[OURS]["eurosat", "zero-shot"].mean == 37.5
    assert "70.03 ± 2.83" in text(table)  # the paper's, as printed
    assert any("weight of CMA 0.5" in note for note in table.notes)


def test_differences_are_paired_by_seed():
    grid = next(grid for grid in grids([RUN]) if grid.title.startswith("With CMA"))
    (cell,) = grid.sources[OURS].values()
    assert cell.mean == 12.5
    low, high = stats.t.interval(0.95, 1, 12.5, stats.sem([25.0, 0.0]))
    assert grid.half(cell) == pytest.approx((high - low) / 2)
    assert "1 shots: +0.59" in " ".join(grid.notes) and "16 shots: +0.07" in " ".join(grid.notes)


def test_base_to_novel_has_both_halves_and_their_mean():
    one = history({0.0: (0.5, 0.5), 0.3: (0.6, 0.6)}, 16, classes="base_to_novel", method="cocoop_cma")
    found = {grid.title: grid for grid in grids([one]) if grid.title.startswith("Base to novel")}
    novel, base, harmonic = found.values()
    name = f"{OURS}, CoCoOp"
    assert novel.sources[name]["eurosat", 0.3].mean == pytest.approx(30)
    assert base.sources[name]["eurosat", 0.3].mean == pytest.approx(60) and PAPER not in base.sources
    assert harmonic.sources[name]["eurosat", 0.0].mean == pytest.approx(100 / 3)
    assert novel.sources[PAPER]["eurosat", 0.3].mean == 51.40 and len(novel.rows) == len(SETS) + 1


def test_what_must_not_be_averaged_is_told():
    again = history({0.0: (0.25, 0.25)}, folder="again")
    again.config["optimizer"] = {"lr": 1.0}
    other = history_of([{"kind": "eval", "step": 1, "split": "test", "accuracy": 1.0}], {"task": "semisup"}, folder="o")
    found, notes = results([RUN, again, other])
    assert len(found) == 4 and {one.numbers["test", "accuracy"] for one in found if not one.weight} == {0.25}
    assert "again: repeats seed 0 of eurosat, CoOp, 4 shots, weight 0; this later run counts" in notes
    assert "again: optimizer differ from run, in the same cell" in notes
    assert "o: not a cross-modal run, left out" in notes


def test_figures_have_the_numbers_that_they_draw():
    methods = methods_of(RUN)
    _, rows = draw_classes(methods, "t")
    assert len(rows) == 4 * 2 * 2 and rows[1]["name"] == "sea lion" and rows[1]["entropy"] == 0.25
    _, rows = draw_similarity(methods, "t")
    assert [row["cosine"] for row in rows[:4]] == [0.3, 0.1, 0.2, 0.4] and len(rows) == 2 * 2 * 4
    _, rows = draw_results(results([RUN])[0], "t")
    assert {(row["weight"], row["accuracy"]) for row in rows} == {(0.0, 56.25), (0.5, 68.75)}


def test_the_command_writes_every_form(tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(RUN.config))
    rows = [listed(0, 0, 0.0), listed(9, 0, 0.0) | {"accuracy": 0.5}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert command.main([str(folder), "--table", "crossmodal", f"--out={tmp_path}/out"]) == 0
    assert "73.14" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"figures", *(f"crossmodal.{kind}" for kind in ("txt", "md", "csv", "json", "html"))}
    page = (tmp_path / "out" / "crossmodal.html").read_text()
    assert page.count("<svg") == 3 and "sea lion" in (tmp_path / "out" / "figures" / "classes_run.csv").read_text()
    found = list(csv.DictReader(io.StringIO((tmp_path / "out" / "crossmodal.csv").read_text())))
    assert sum(row["source"] == PAPER for row in found) == len(list(csv.DictReader(io.StringIO(rows_of(grids([]))))))
    assert command.main([str(folder), "--table", "crossmodal", "--select", "last"]) == 2
