"""`--config.checkpoint=RUN`: what a probe reads of a run folder and leaves in its own."""

import json
from pathlib import Path

import numpy as np
import pytest

from infojax.data import DataError
from infojax.data.saved import saved_features
from infojax.main import main
from infojax.tasks.build.saved import saved
from infojax.train.runlog import read_rows

CONFIGS = Path(__file__).parents[2] / "configs"
PROBE = f"--config={CONFIGS}/probe.py"
SHORT = ["--config.epochs=2", "--config.optimizer.warmup_steps=2", "--config.devices=1", "--config.evaluate.points=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A short run of two seeds, with an average."""
    folder = tmp_path_factory.mktemp("run")
    flags = ["--config.model.options.widths=(24, 12)", "--config.epochs=3", "--config.evaluate.points=0"]
    flags += ["--config.devices=1", "--config.report.draw=False", f"--workdir={folder}"]
    assert main([f"--config={CONFIGS}/interplay.py:tiny,model=mlp,seeds=2", *flags]) == 0
    return folder


def last(rows, split, quantity):
    return [row[quantity] for row in rows if row.get("split") == split and quantity in row][-1]


def test_a_run_is_probed(folder, tmp_path, capsys):
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    flags = [f"--config.checkpoint={folder}", "--config.frozen.run=1", "--config.knn.k=(1, 20)"]
    assert main([PROBE, *flags, *SHORT, f"--workdir={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert f"probed: mlp of {folder} after 68 steps, raw weights, embedding; config.model is not used" in said
    assert f"{folder}: run 1 of 2 (seed 1)" in said and "linear probe of mlp" in said
    lines = [line for line in said.splitlines() if line.startswith("computing")]
    assert lines == [
        f"computing the features of {n:,} samples of {split} with mlp" for split, n in (("train", 1442), ("test", 355))
    ]
    rows = read_rows(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["data"]["name"] == "digits" and config["checkpoint"]["run"] == str(folder)
    # The same features by hand.
    of = saved(str(folder), 1)
    x = {split: of.model(of.study.transforms["plain"](None, s.x)).embedding for split, s in of.study.splits.items()}
    z = {split: np.asarray(value, np.float64) for split, value in x.items()}
    labels = {split: source.labels for split, source in of.study.splits.items()}
    assert 0 < np.linalg.norm(z["test"] - np.asarray(saved(str(folder), 0).model(
        of.study.transforms["plain"](None, of.study.splits["test"].x)).embedding))  # fmt: skip
    scale = z["train"].std(0)
    scaled = {split: (value - z["train"].mean(0)) / np.where(scale > 0, scale, 1) for split, value in z.items()}
    model = LogisticRegression(tol=1e-6, max_iter=5000).fit(scaled["train"], labels["train"])
    for split in z:
        assert last(rows, split, "accuracy_logistic") == pytest.approx(
            model.score(scaled[split], labels[split]), abs=0.01
        )
    unit = {split: value / np.linalg.norm(value, axis=1, keepdims=True) for split, value in z.items()}
    nearest = KNeighborsClassifier(1).fit(unit["train"], labels["train"]).score(unit["test"], labels["test"])
    assert last(rows, "test", "accuracy_knn_1") == pytest.approx(nearest, abs=0.003)
    assert last(rows, "test", "accuracy_knn_20") > 0.5
    s = np.linalg.svd(z["test"], compute_uv=False)
    p = s / s.sum() + 1e-7
    assert last(rows, "test", "rankme") == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-3)
    assert last(rows, "test", "accuracy") > 0.3 and last(rows, "train", "loss") < np.log(10)
    assert {row["evaluator"] for row in rows if row["kind"] == "eval"} == {"probe", "features"}
    page = (tmp_path / "report.html").read_text()
    assert "linear probe of mlp" in page and "logistic regression" in page and "20 neighbours" in page


def test_averages_layers_and_untrained_networks(folder, tmp_path, capsys):
    quiet = ["--config.logistic.steps=0", "--config.report.draw=False", "--config.steps=1", "--config.knn.k=(5,)"]
    quiet += ["--config.optimizer.warmup_steps=0", *SHORT[2:]]
    flags = [f"--config.checkpoint={folder}", "--config.frozen.weights=ema", "--config.frozen.layer=layer1"]
    assert main([PROBE, *flags, *quiet, f"--workdir={tmp_path}/ema"]) == 0
    assert "ema weights, layer1" in capsys.readouterr().out
    assert last(read_rows(tmp_path / "ema"), "test", "embedding_dim") == 24
    untrained = [f"{PROBE}:tiny,model=mlp", "--config.model.options.widths=(16,)", "--config.knn.rule=euclidean"]
    assert main([*untrained, *quiet, f"--workdir={tmp_path}/none"]) == 0
    assert "probed: mlp with untrained weights, embedding" in capsys.readouterr().out
    assert last(read_rows(tmp_path / "none"), "test", "accuracy_knn_euclidean_5") > 0.8  # nearly those of pixels


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["frozen.run=2"], "frozen.run must be below 2, the runs of {run}; got 2"),
        (["frozen.weights=em"], "frozen.weights cannot be 'em'; did you mean ema"),
        (["frozen.layer=x"], "frozen.layer cannot be 'x'; there is embedding, layer1"),
        (["knn.k=(5000,)"], "knn.k must be at most 1442"),
        (["knn.k=(0,)"], "config.knn.k must be a whole number of at least 1"),
        (["checkpoint.every=x"], "config.checkpoint.every must be a whole number, got 'x'"),
        (["checkpoint={run}/checkpoints"], "{run}/checkpoints has no config.json; give the folder of a run"),
    ],
)
def test_bad_requests(flags, says, folder, tmp_path, capsys):
    run = [] if flags[0].startswith("checkpoint=") else ["checkpoint={run}"]
    flags = [f"--config.{flag}".format(run=folder) for flag in (*run, *flags)]
    assert main([PROBE, *flags, *SHORT, f"--workdir={tmp_path}/probe"]) == 2
    said = capsys.readouterr().err
    assert says.format(run=folder) in said and said.count("\n") == 1
    assert not (tmp_path / "probe").exists()


@pytest.mark.parametrize("flag", ["run=1", "weights=ema"])
def test_a_part_of_a_run_needs_a_run(flag, tmp_path, capsys):
    assert main([PROBE, f"--config.frozen.{flag}", *SHORT, f"--workdir={tmp_path}/probe"]) == 2
    assert "frozen.run and frozen.weights choose a part of a run: give it" in capsys.readouterr().err


def test_features_whose_splits_do_not_fit_each_other(tmp_path):
    def given(labels, names):
        for split, y, own in zip(("train", "test"), labels, names, strict=True):
            np.savez(tmp_path / f"features_{split}.npz", features=np.eye(3), labels=np.array(y), class_names=list(own))
        return saved_features(tmp_path)

    with pytest.raises(DataError, match="class_names of train and test differ"):
        given(([0, 1, 2], [0, 1, 2]), ("abc", "acb"))
    notes = given(([0, 1, 1], [0, 1, 2]), ("abc", "abc")).notes
    assert notes[1:] == ["features: no sample in train of labels of test: 2"]


def test_data_of_another_shape(folder, tmp_path, capsys):
    flags = [f"--config.checkpoint={folder}", *SHORT, f"--workdir={tmp_path}/probe"]
    assert main([f"{PROBE}:tiny,data=synthetic", *flags]) == 2
    assert "data: samples have the shape (32, 32, 3), the network was trained on (8, 8, 1)" in capsys.readouterr().err
