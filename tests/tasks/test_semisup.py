"""Semi-supervised studies: which samples have labels, and what a run leaves."""

from pathlib import Path

import numpy as np
import pytest

from infojax.data import labelled, open_dataset
from infojax.main import main
from infojax.train.runlog import read_rows

CONFIG = f"--config={Path(__file__).parents[2]}/configs/semisup.py:tiny,model=mlp"
SHORT = [
    "--config.model.options.widths=(16,)",
    "--config.steps=2",
    "--config.evaluate.points=0",
    "--config.log.every=1",
]
SHORT += ["--config.devices=1", "--config.report.draw=False"]


def test_a_run_leaves_its_labelled_samples(tmp_path):
    assert main([f"{CONFIG},method=freematch_mi", *SHORT, f"--workdir={tmp_path}"]) == 0
    chosen = np.loadtxt(tmp_path / "labelled.txt", dtype=int)
    np.testing.assert_array_equal(chosen, labelled(open_dataset(), 40, 0))
    rows = [row for row in read_rows(tmp_path) if row["kind"] == "train"]
    assert [row["step"] for row in rows] == [1, 2] and {"mask_ratio", "mi", "threshold"} <= rows[0].keys()


@pytest.mark.parametrize(
    ("text", "says"),
    [("3 5 x", "'x' is none"), ("3 5 3", "one comes twice"), ("", "there are none"), ("1442", "is none")],
)
def test_lists_of_labelled_samples_that_are_none(text, says, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text(text)
    flags = [f"--config.data.labelled={tmp_path}/mine.txt", f"--workdir={tmp_path}/run"]
    assert main([CONFIG, *SHORT, *flags]) == 2
    assert says in capsys.readouterr().err


def test_more_labels_than_samples(tmp_path, capsys):
    assert main([f"{CONFIG},labels=5000", *SHORT, f"--workdir={tmp_path}"]) == 2
    assert "data.labels" in capsys.readouterr().err


def test_what_a_method_selects_is_measured_at_fixed_weights(tmp_path):
    """MIR and HDR are those of the rows that the mask keeps; mask and guesses come from the teacher of MPL."""
    flags = ["--config.evaluate.every=2", "--config.evaluate.unlabelled_samples=90", f"--workdir={tmp_path}"]
    assert main([f"{CONFIG},method=mpl", *SHORT, *flags]) == 0
    rows = [row for row in read_rows(tmp_path) if row.get("split") == "unlabelled_selected"]
    assert [row["step"] for row in rows] == [0, 2] and rows[0]["n"] <= 90
    for row in rows:
        assert row["n"] == round(90 * row["mask_ratio"]) and 0 <= row["pseudo_accuracy"] <= 1
        assert ("mir" in row) == (row["n"] > 0)


def test_a_permutation_needs_a_batch_of_labelled_samples(tmp_path, capsys):
    flags = ["--config.objective.replacement=False", "--config.objective.batch_size=41", f"--workdir={tmp_path}"]
    assert main([CONFIG, *SHORT, *flags]) == 2
    assert "batch_size is 41, but there are 40 labelled samples" in capsys.readouterr().err


def test_labels_that_do_not_divide_into_classes(tmp_path, capsys):
    assert main([f"{CONFIG},labels=45", *SHORT, f"--workdir={tmp_path}"]) == 2
    assert "data.labels: must be a multiple of 10 (classes)" in capsys.readouterr().err
