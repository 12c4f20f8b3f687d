"""Self-supervised studies: a run of each kind leaves the rows of its figures and can be probed; what is refused."""

from pathlib import Path

import jax
import numpy as np
import pytest

from infojax.main import main
from infojax.tasks.build.saved import saved
from infojax.train.runlog import read_rows

CONFIGS = Path(__file__).parents[2] / "configs"
CONFIG = f"--config={CONFIGS}/selfsup.py:tiny"
SHORT = [
    "--config.steps=2", "--config.evaluate.points=0", "--config.evaluate.every=2", "--config.log.every=1",
    "--config.evaluate.views=20", "--config.evaluate.train_samples=40", "--config.evaluate.test_samples=40",
    "--config.objective.batch_size=16", "--config.devices=1", "--config.report.draw=False",
]  # fmt: skip
SMALL = [*SHORT, "--config.model.options.widths=(16,)", "--config.projector.widths=(32,6)"]
TINY = ["--config.model.options.size=(8,1,1)", "--config.model.options.decoder=(8,1,1)"]
TINY += ["--config.optimizer.warmup_steps=0"]


def rows_of(folder, evaluator=""):
    return [row for row in read_rows(folder) if row.get("evaluator", row["kind"]) == evaluator]


@pytest.fixture(scope="module")
def byol(tmp_path_factory):
    folder = tmp_path_factory.mktemp("byol")
    flags = [f"{CONFIG},method=byol,model=mlp", *SMALL, "--config.predictor.widths=(8,6)", "--config.data.views=mae"]
    assert main([*flags, f"--workdir={folder}"]) == 0
    return folder


def test_a_run_of_two_branches_leaves_the_rows_of_its_figures(byol):
    """BYOL: the views' row at the first and the last step, the online classifier's on both splits."""
    views = rows_of(byol, "views")
    assert [row["step"] for row in views] == [0, 2]
    names = ["view_mutual_information", "view_joint_entropy"]
    names = [
        f"{n}{kind}{order}" for n in names for kind in ("", "_features", "_embedding") for order in ("", "_alpha_2")
    ]
    for row in views:
        assert {*names, "matrix_jsd", "eigenspace_jsd", "spectrum_jsd", "effective_rank_view1"} <= row.keys()
        assert row["view_samples"] == 20 and row["limit_view_information"] == pytest.approx(np.log(20))
        assert 0 <= row["view_mutual_information"] <= np.log(20) + 1e-4
        assert 0 < row["matrix_jsd"] < np.log(2)  # two networks: their branches differ
    features = rows_of(byol, "features")
    assert {row["split"] for row in features} == {"train", "test"}
    assert all({"accuracy_online", "rankme", "effective_rank_from_gram", "nc1"} <= row.keys() for row in features)
    assert not any("accuracy" in row for row in features)
    assert {"loss_method", "accuracy_online"} <= rows_of(byol, "train")[0].keys()


def test_the_heads_of_a_run_are_probed(byol, tmp_path, capsys):
    """The target's projection: the neighbours are those of the averaged networks, by hand; the run stays as it was."""
    from sklearn.neighbors import KNeighborsClassifier

    before = {path: path.stat().st_mtime_ns for path in byol.rglob("*")}
    flags = ["--config.frozen.layer=projection", "--config.frozen.weights=target", "--config.knn.k=(3,)"]
    flags += ["--config.steps=1", "--config.optimizer.warmup_steps=0", "--config.logistic.steps=0", *SHORT[-2:]]
    flags += [f"--config={CONFIGS}/probe.py", f"--config.checkpoint={byol}", f"--workdir={tmp_path}/probe"]
    assert main(flags) == 0
    assert {path: path.stat().st_mtime_ns for path in byol.rglob("*")} == before
    found = {key: value for row in rows_of(tmp_path / "probe", "features") for key, value in row.items()}
    of = saved(str(byol), weights="target")
    of_net = of.model.params, of.model.model_state
    own = jax.tree.map(np.asarray, {**of_net[0]["projector"], **of_net[1]["projector"]})

    def features(source):
        net = of.study.ctx.nets["net"]
        x, variables = of.study.transforms["plain"](None, source.x), (part["net"] for part in of_net)
        x = net.apply(*variables, x, train=False)
        z, norm = np.asarray(x[0].embedding) @ own["layer1"]["kernel"], own["norm1"]
        statistics = own["batch_stats"]["norm1"]
        z = (z - statistics["mean"]) / np.sqrt(statistics["var"] + 1e-5) * norm["scale"] + norm["bias"]
        z = np.maximum(z, 0) @ own["layer2"]["kernel"]
        return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)

    train, test = of.study.splits["train"], of.study.splits["test"]
    nearest = KNeighborsClassifier(3, weights=lambda d: np.exp(-(d**2) / 2 / 0.07)).fit(features(train), train.labels)
    # Where two neighbours or classes are level but for the rounding of a CPU, either is right.
    cosines = 1 - nearest.kneighbors(features(test), 4)[0] ** 2 / 2
    votes = np.sort(nearest.predict_proba(features(test)), axis=1)
    level = (cosines[:, 2] - cosines[:, 3] < 1e-5) | (votes[:, -1] - votes[:, -2] < 1e-3)
    assert found["embedding_dim"] == 6 and level.mean() < 0.05
    expected = nearest.score(features(test), test.labels)
    assert found["accuracy_knn_3"] == pytest.approx(expected, abs=level.mean() + 1e-6)


def test_a_masked_run_has_one_branch(tmp_path):
    assert main([f"{CONFIG},method=mmae", *SHORT, *TINY, f"--workdir={tmp_path}"]) == 0
    assert rows_of(tmp_path, "views") == []
    assert {"coding_rate", "loss_pixels", "loss_method"} <= rows_of(tmp_path, "train")[0].keys()
    assert all("effective_rank_from_gram" in row for row in rows_of(tmp_path, "features"))
    (pictures,) = rows_of(tmp_path, "pictures")
    assert pictures["step"] == 2 and pictures["pictures_shape"] == [6, 8, 8, 3]
    lidar = rows_of(tmp_path, "lidar")
    assert [row["step"] for row in lidar] == [0, 2] and all(1 <= row["lidar"] <= 8.1 for row in lidar)


@pytest.mark.parametrize(
    ("string", "flags", "says"),
    [
        ("method=mae,model=mlp", [], "the method mae needs a masked auto-encoder"),
        ("model=mae_tiny", [], "the method simclr needs a network that is not a masked auto-encoder"),
        ("model=mlp", ["--config.data.views=simcl"], "data.views cannot be 'simcl'; did you mean simclr"),
        ("method=spectral,model=mlp", ["--config.objective.form=mean"], "objective.form cannot be 'mean'"),
        ("method=byol,model=mlp", ["--config.predictor.widths=(8,4)"], "must be equal; got 64 and 4"),
        ("method=mae", ["--config.model.options.pool=mean"], "model.options.pool must be cls"),
        ("method=mae", ["--config.model.options.mask_ratio=0.0"], "leaves no patch to reconstruct"),
        ("model=mlp", ["--config.projector.widths=(8,0)"], "projector.widths must be a whole number"),
        ("model=mlp", ["--config.objective.batch_size=1"], "objective.batch_size must be at least 2: simclr compares"),
        ("method=byol,model=mlp", ["--config.predictor.widths=()"], "predictor.widths is empty"),
        ("model=mlp", ["--config.evaluate.views=1"], "evaluate.views must be 0 (none) or at least 2"),
        ("method=mae", ["--config.model.options.size=(32,2)"], "size must be three numbers, width, depth and heads"),
        ("model=mlp", ["--config.objective.batch_size=5000"], "objective.batch_size must be from 1 to"),
    ],
)
def test_what_is_refused(string, flags, says, tmp_path, capsys):
    assert main([f"{CONFIG},{string}", "--config.devices=1", *flags, f"--workdir={tmp_path}/run"]) == 2
    assert says in capsys.readouterr().err
