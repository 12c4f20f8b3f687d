"""Semi-supervised studies: which samples have labels, and what a run leaves."""

from pathlib import Path

import jax
import numpy as np
import pytest

from infojax.data import labelled, open_dataset
from infojax.main import main
from infojax.objectives import Batch, Seeds, init_state
from infojax.objectives.semisup import METHODS
from infojax.tasks import semisup
from infojax.tasks.config import ConfigError
from infojax.train.runlog import read_rows
from tests.tasks.test_config import get_config

CONFIG = f"--config={Path(__file__).parents[2]}/configs/semisup.py:tiny,model=mlp"
SHORT = [
    "--config.model.options.widths=(16,)",
    "--config.steps=2",
    "--config.evaluate.points=0",
    "--config.log.every=1",
]
SHORT += ["--config.devices=1", "--config.report.draw=False"]


def indices(file):
    return np.loadtxt(file, dtype=int)


def test_each_seed_has_its_own_draw_of_labelled_samples(tmp_path):
    """A run among three is the lone run of its seed, in its rows as in its labelled samples."""
    flags = [f"{CONFIG},method=freematch_mi", *SHORT, "--config.evaluate.every=2"]
    assert main([flags[0] + ",seeds=3", *flags[1:], f"--workdir={tmp_path}/three"]) == 0
    assert main([*flags, "--config.seed=1", f"--workdir={tmp_path}/alone"]) == 0
    draws = [indices(tmp_path / "three" / f"labelled_{seed}.txt") for seed in range(3)]
    for seed, draw in enumerate(draws):
        np.testing.assert_array_equal(draw, labelled(open_dataset(), 40, seed))
        assert seed == 0 or len(np.intersect1d(draw, draws[0])) < 20
    np.testing.assert_array_equal(indices(tmp_path / "alone" / "labelled.txt"), draws[1])
    three, alone = (
        [row for row in read_rows(tmp_path / name) if row["kind"] != "timing"] for name in ("three", "alone")
    )
    assert [row["labelled_seed"] for row in three if row["step"] == 1] == [0, 1, 2]
    mine = [row for row in three if row["run"] == 1]
    logged = next(row for row in alone if row["kind"] == "train")
    assert len(mine) == len(alone) and {"mask_ratio", "mi", "threshold"} <= logged.keys()
    for row, same in zip(mine, alone, strict=True):
        numbers = {name: x for name, x in same.items() if isinstance(x, float) and name != "time"}
        assert {name: row[name] for name in numbers} == pytest.approx(numbers, rel=1e-4, abs=1e-6)
    train = [row["loss"] for row in three if row["kind"] == "train"]
    assert len(set(train)) == 6


def test_one_draw_for_all_seeds(tmp_path):
    flags = [f"{CONFIG},method=supervised,labels=40,seeds=2", *SHORT, "--config.data.labelled_seed=5"]
    assert main([*flags, f"--workdir={tmp_path}"]) == 0
    np.testing.assert_array_equal(indices(tmp_path / "labelled.txt"), labelled(open_dataset(), 40, 5))
    assert all("labelled_seed" not in row for row in read_rows(tmp_path))


@pytest.mark.parametrize(
    ("text", "says"),
    [("3 5 x", "'x' is none"), ("3 5 3", "one comes twice"), ("", "there are none"), ("1442", "is none")],
)
def test_lists_of_labelled_samples_that_are_none(text, says, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text(text)
    flags = [f"--config.data.labelled={tmp_path}/mine.txt", f"--workdir={tmp_path}/run"]
    assert main([CONFIG, *SHORT, *flags]) == 2
    assert says in capsys.readouterr().err


def test_a_list_that_is_no_text_and_one_with_a_byte_order_mark(tmp_path):
    (tmp_path / "list.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ConfigError, match=r"data.labelled: .*list.npy is no text in UTF-8"):
        semisup.indices_of(str(tmp_path / "list.npy"), 9)
    (tmp_path / "list.txt").write_bytes("\ufeff1\r\n2\r\n".encode())
    assert semisup.indices_of(str(tmp_path / "list.txt"), 9).tolist() == [1, 2]


def test_classes_without_a_labelled_sample_are_told():
    assert semisup.note_missing((4, 0, 4)) == ["1 of 3 classes have no labelled sample: 1"]
    assert semisup.note_missing((4, 4)) == []


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


def test_the_tiny_preset_of_every_method_trains():
    """Two steps on views of digits, the second after warm-ups; one program has the updates of all methods."""
    studies, states = {}, {}
    for name in METHODS:
        config = get_config("semisup", f"tiny,method={name},labels=40,model=mlp")
        config.model.options.widths, config.objective.batch_size = (16,), 2
        if name == "dash":
            config.objective.update(warmup=1, averaged=1)
        studies[name] = semisup.study(config)
        states[name] = init_state(studies[name].objective, Seeds(), studies[name].ctx)
    source = open_dataset().split("train").read(np.arange(14))
    key, fixmatch = jax.random.key(0), studies["fixmatch"]
    views = {name: jax.jit(fixmatch.transforms[name])(key, source[0]) for name in ("weak", "strong")}

    def batch_of(method):
        labelled, *rest = (
            Batch({own: views[kind][: view.size] for own, kind in view.named.items()}, source[1][: view.size], places)
            for view, places in ((view, np.arange(view.size)) for view in method.views)
        )
        return {"labelled": labelled} | ({"unlabelled": rest[0]} if rest else {})

    @jax.jit
    def updated(states):
        return {
            name: one.objective.update(states[name], {}, batch_of(one.objective), key, one.ctx)
            for name, one in studies.items()
        }

    after, metrics = states, {}
    for _ in range(2):
        found = updated(after)
        after, metrics = ({name: pair[i] for name, pair in found.items()} for i in (0, 1))
    for name in METHODS:
        assert int(after[name].step) == 2 and np.isfinite(float(metrics[name]["loss"])), name
        moved = jax.tree.map(
            lambda a, b: float(abs(a - b).max()), after[name].params["net"], states[name].params["net"]
        )
        assert min(jax.tree.leaves(moved)) > 0, (name, moved)
        expected = {"loss", "grad_norm", "supervised_loss"} if name != "mpl" else {"loss", "feedback", "teacher_loss"}
        assert expected | ({"unsupervised_loss"} if name != "supervised" else set()) <= metrics[name].keys(), name


def stl10(folder):
    """Official files of three training pictures per class, their folds, and 40 pictures without labels."""
    (folder / "stl10_binary").mkdir()
    rng, labels = np.random.default_rng(0), np.arange(30, dtype=np.uint8) % 10 + 1
    sizes = {"train_X": 30, "test_X": 10, "unlabeled_X": 40}
    files = {f"{name}.bin": rng.integers(0, 256, (n, 3, 96, 96), np.uint8).tobytes() for name, n in sizes.items()}
    files |= {"train_y.bin": labels.tobytes(), "test_y.bin": labels[:10].tobytes()}
    files["fold_indices.txt"] = "\n".join(" ".join(map(str, range(start, start + 20))) for start in (0, 10)).encode()
    for name, content in files.items():
        (folder / "stl10_binary" / name).write_bytes(content)


def test_the_protocol_of_stl10(tmp_path):
    """All pictures are unlabelled, the training ones among them; drawn by class, or the official folds by number."""
    stl10(tmp_path)
    config = get_config("semisup", "small,method=fixmatch,data=stl10,labels=20,model=mlp,seeds=2")
    assert get_config("semisup", "paper,data=stl10").model.name == "wrn_37_2"
    config.data.dir = str(tmp_path)
    drawn = semisup.study(config)
    assert drawn.data["unlabelled"]["x"].shape == (70, 96, 96, 3)
    np.testing.assert_array_equal(drawn.data["unlabelled"]["labels"][:40], -1)
    np.testing.assert_array_equal(drawn.data["unlabelled"]["labels"][40:], np.arange(30) % 10)
    assert drawn.ctx.facts.label_counts == (2,) * 10 and drawn.ctx.facts.num_unlabelled == 70
    config.data.protocol = "fold"
    folds = semisup.study(config)
    for i, rows in enumerate(folds.constants["parts"]["labelled"]):
        expected = open_dataset("stl10", tmp_path).split("train").read(np.arange(10 * i, 10 * i + 20))
        np.testing.assert_array_equal(folds.data["labelled"]["x"][rows], expected[0])
        np.testing.assert_array_equal(folds.data["labelled"]["labels"][rows], expected[1])
    assert folds.files["labelled_1.txt"].split() == [str(i) for i in range(10, 30)]
    for labels, seeds, says in ((40, 1, "no fold 0 of 40 labels; there are 2 of 20"), (20, 3, "no fold 2 of 20")):
        config.data.labels, config.seeds = labels, seeds
        with pytest.raises(ConfigError, match=says):
            semisup.study(config)
    config = get_config("semisup", "tiny,method=fixmatch,labels=40,model=mlp")
    config.data.protocol = "fold"
    with pytest.raises(ConfigError, match="no fold 0 of 40 labels; there are none"):
        semisup.study(config)
