"""Cross-modal studies from the command line: published weights on a folder, small towers, and what is refused."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from infojax.data.fewshot import few_shot
from infojax.data.generated import digits
from infojax.main import main
from infojax.models import clip
from infojax.tasks.config import ConfigError, choices
from infojax.tasks.crossmodal.recipe import defaults
from infojax.tasks.crossmodal.samples import by_class
from infojax.tasks.towers import Towers, _begun, small, small_sizes
from infojax.train.optim import coop
from infojax.train.runlog import read_rows

CONFIG = f"--config={Path(__file__).parents[2]}/configs/crossmodal.py:tiny"
QUICK = ["--config.evaluate.points=1", "--config.devices=1", "--config.report.draw=False", "--config.log.every=1"]
NAMES = ("cat", "sea_lion", "tea pot", "zebra")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of pictures with a split file as CoOp's, and random weights by OpenAI's names."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    split = {"train": [], "val": [], "test": []}
    for part, count in (("train", 5), ("val", 1), ("test", 3)):
        for label, name in enumerate(NAMES):
            for i in range(count):
                path = f"{name}/{part}{i}.png"
                (root / name).mkdir(exist_ok=True)
                pixels = np.clip(60 * label + rng.integers(0, 40, (20, 24, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / path)
                split[part].append([path, label, name])
    (root / "split_zhou.json").write_text(json.dumps(split))
    model = clip.CLIP(clip.Architecture(16, 16, 1, 64, 8, 64, 1))
    like = jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 77), jnp.int32)
    variables = jax.jit(model.init)(jax.random.key(0), *like)
    save_file(clip.to_openai(variables), root / "weights.safetensors")
    return root, split, model, variables


def on_folder(files, *more):
    root = files[0]
    flags = [f"--config.weights={root}/weights.safetensors", f"--config.data.dir={root}", *QUICK]
    return [*flags, "--config.data.options.split_file=split_zhou.json", "--config.data.classes=base_to_novel", *more]


def evaluated(folder):
    """(split -> row) of the last evaluation: what all evaluators found."""
    found = {}
    for row in read_rows(folder):
        if row["kind"] == "eval":
            found[row["split"]] = found.get(row["split"], {}) | row
    return found


@pytest.fixture(scope="module")
def cropped(files, tmp_path_factory):
    """A run on augmented views, base to novel."""
    folder = tmp_path_factory.mktemp("cropped") / "run"
    flags = on_folder(files, "--config.steps=2", "--config.objective.transform=crop", "--config.objective.batch_size=4")
    assert main([f"{CONFIG},data=folder,shots=2", *flags, f"--workdir={folder}"]) == 0
    return folder


def test_published_weights_on_a_folder(cropped):
    """Augmented views through the image tower, base to novel; the pictures are resized as the tower takes them."""
    tmp_path = cropped
    said = " ".join(json.loads((tmp_path / "config.json").read_text())["notes"])
    assert "4 few-shot samples, 2 of each of 2 classes" in said and "shorter side to 16" in said
    labels = np.repeat(np.arange(4), 5)
    drawn = few_shot(labels, 2, 1)[0]
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "few_shot.txt", dtype=int), drawn[labels[drawn] < 2])
    rows = evaluated(tmp_path)
    assert {name: row["n"] for name, row in rows.items()} == {"train": 4, "test": 6, "novel": 6}
    base, novel = rows["test"]["accuracy"], rows["novel"]["accuracy"]
    assert rows["novel"]["harmonic_mean"] == pytest.approx(2 * base * novel / (base + novel) if base + novel else 0)
    assert all({"mir", "hdr", "class_similarity", "hardest_similarity", "cma"} <= row.keys() for row in rows.values())
    train = [row for row in read_rows(tmp_path) if row["kind"] == "train"]
    assert len(train) == 2 and all(0 < row["cma"] < 1 for row in train)


def test_zero_shot_is_the_model(files, tmp_path):
    """Accuracy and similarities of the base classes, computed with `clip.CLIP` alone."""
    root, split, model, variables = files
    flags = on_folder(files, "--config.data.template=eurosat")
    assert main([f"{CONFIG},data=folder,method=zero_shot,shots=1", *flags, f"--workdir={tmp_path}"]) == 0
    images = []
    for path, _, _ in split["test"][:6]:
        picture = Image.open(root / path).resize((19, 16), Image.Resampling.BICUBIC).crop((2, 0, 18, 16))
        images.append((np.asarray(picture, np.float32) - np.float32(clip.MEAN)) / np.float32(clip.STD))
    texts = clip.Tokenizer()([f"a centered satellite photo of {name}." for name in ("cat", "sea lion")])
    logits = np.asarray(jax.jit(model.apply)(variables, jnp.asarray(np.stack(images)), jnp.asarray(texts)))
    labels, row = np.repeat([0, 1], 3), evaluated(tmp_path)["test"]
    assert row["accuracy"] == pytest.approx(np.mean(logits.argmax(1) == labels))
    scale = float(np.exp(variables["params"]["logit_scale"]))
    assert row["class_similarity"] == pytest.approx(np.mean(logits[np.arange(6), labels]) / scale, abs=1e-4)
    assert row["modal_similarity"] == pytest.approx(logits.mean() / scale, abs=1e-4)


def test_pictures_of_another_size_are_resized_as_pillow_does():
    towers = Towers(clip.Architecture(image_size=16), {}, jnp.float32, ())
    images = np.random.default_rng(0).integers(60, 190, (2, 8, 8, 1)).astype(np.uint8)
    found = np.asarray(towers.view(jnp.asarray(images))) * np.float32(clip.STD) + np.float32(clip.MEAN)
    for image, own in zip(images, found, strict=True):
        theirs = np.asarray(Image.fromarray(image[..., 0]).resize((16, 16), Image.Resampling.BICUBIC), float)
        assert np.abs(own - theirs[..., None]).max() < 1.1


def test_shots_class_by_class():
    few = np.arange(12.0).reshape(6, 2), np.array([1, 0, 2, 0, 2, 1])
    classes = by_class(*few, 2, 4, 3)
    np.testing.assert_array_equal(classes["x"][:, :, 0], [[2, 6], [0, 10], [4, 8]])
    for per_class, batch in ((3, 6), (2, 8)):
        with pytest.raises(ConfigError, match="objective.per_class is"):
            by_class(*few, per_class, batch, 3)


def test_small_towers_are_kept_in_the_run_folder(tmp_path, capsys):
    flags = ["--config.towers.steps=2", "--config.towers.width=32", "--config.towers.layers=1", *QUICK]
    flags += ["--config.steps=1", "--config.evaluate.test_samples=12", "--config.evaluate.train_samples=12"]
    command = [f"{CONFIG},method=cocoop_cma,shots=1", *flags, f"--workdir={tmp_path}"]
    assert main([*command, "--dry_run"]) == 0
    assert "dry run: the small towers are not trained" in capsys.readouterr().out and not any(tmp_path.iterdir())
    assert main(command) == 0
    assert "trained for 2 steps on 721 samples" in capsys.readouterr().out
    assert main(command) == 0  # it is finished already
    assert "read from towers.safetensors" in capsys.readouterr().out
    assert {"mir", "cma", "modal_similarity"} <= evaluated(tmp_path)["test"].keys()


def test_small_towers_are_trained_by_the_first_process(files, tmp_path, monkeypatch):
    """The others read what it wrote, with the same note."""
    source, settings = digits().split("train"), defaults("crossmodal", choices("tiny", data="digits")).towers
    settings.update(width=32, layers=1, patch=4, steps=1)
    sizes, names = small_sizes(settings, source.shape), [str(c) for c in range(10)]
    begun = _begun(settings, sizes, jnp.zeros((1, 1, 3), jnp.int32))
    monkeypatch.setattr("infojax.tasks.towers.matched_pairs", lambda *_: (begun, 0.5))
    towers = small(settings, sizes, source, np.arange(20), names, tmp_path, jnp.float32)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr("infojax.tasks.towers.matched_pairs", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr("infojax.tasks.towers.share", lambda value: [towers.notes[0], value])
    again = small(settings, sizes, source, np.arange(20), names, tmp_path, jnp.float32)
    jax.tree.map(np.testing.assert_array_equal, again.variables, towers.variables)
    assert again.notes == towers.notes and "50.0% of the last batches right" in again.notes[0]
    (tmp_path / "towers.safetensors").unlink()
    with pytest.raises(ConfigError, match="found no file"):
        small(settings, sizes, source, np.arange(20), names, tmp_path, jnp.float32)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--config.data.template=a photo"], "data.template must have one {} for the class"),
        (["--config.weights=none.safetensors"], "weights: found no file none.safetensors"),
        (["--config.objective.weight=1.5"], "objective.weight must be from 0 to 1, got 1.5"),
        (["--config.sweep.name=weight", "--config.sweep.values=0.5", "--config.sweep.values=2.0"], "got 2.0"),
        (["--config.prompt.class_specific=True", "--config.data.classes=base_to_novel"], "cannot use"),
        (["--config.objective.per_class=2", "--config.objective.transform=crop"], "takes the transform plain"),
        (["--config.objective.alignment=mean"], "objective.alignment cannot be 'mean'; there is off, paper, released"),
        (["--config.data.names=none.txt"], "data.names: none.txt cannot be read: No such file or directory"),
        ([f"--config.data.names={np.__file__.replace('__init__.py', '.')}"], "cannot be read: Is a directory"),
        (["--config.towers.patch=3"], "towers.patch is 3, which must divide the square pictures of 8x8"),
        (["--config.data.few_shot_seed=-1"], "data.few_shot_seed"),
        (["--config.objective.alignment=off"], "objective.weight is that of the alignment, which is off"),
        (["--config.towers.width=48"], "towers.width is 48, no multiple of towers.head_width, 32"),
        (["--config.prompt.tokens=75"], "prompt.tokens is 75, and the prompt of class 0 has 79 tokens"),
    ],
)
def test_what_is_refused(flags, says, tmp_path, capsys):
    assert main([CONFIG, *flags, f"--workdir={tmp_path}/run"]) == 2
    message = capsys.readouterr().err
    assert says in message and message.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_names_of_another_number(tmp_path, capsys):
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    assert main([CONFIG, f"--config.data.names={tmp_path}/names.txt", f"--workdir={tmp_path}/run"]) == 2
    assert "lists 2 names; digits has 10 classes" in capsys.readouterr().err


def test_learning_rates_are_those_of_a_published_log():
    """CoOp's first epochs of 50, with 3 steps in each."""
    rate = coop(0.002, 150, 50)
    published = [1e-5, 2.0e-3, 1.998027e-3, 1.992115e-3, 1.982287e-3]
    np.testing.assert_allclose([rate(3 * epoch) for epoch in range(5)], published, rtol=1e-6)
    np.testing.assert_array_equal([rate(3), rate(5)], [rate(4)] * 2)
    assert rate(149) == pytest.approx(0.001 * (1 + np.cos(np.pi * 48 / 50)), rel=1e-4)


def test_every_seed_has_its_own_shots_in_one_program(files, tmp_path):
    """Two seeds and two weights by vmap: shots are CoOp's lists of seeds 1 and 2, and one run alone gives its rows."""
    flags = [f"--config.weights={files[0]}/weights.safetensors", f"--config.data.dir={files[0]}", *QUICK]
    flags += ["--config.data.options.split_file=split_zhou.json", "--config.objective.batch_size=4", "--config.steps=3"]
    sweep = ["--config.sweep.name=weight", "--config.sweep.values=(0.,.5)", "--config.how=vmap"]
    command = [f"{CONFIG},data=folder,shots=1+2,seeds=2", *flags, *sweep, f"--workdir={tmp_path}/row"]
    assert main(command) == 0
    assert sorted(path.name for path in (tmp_path / "row").iterdir()) == ["shots_1", "shots_2"]
    labels = np.repeat(np.arange(4), 5)
    for shots in (1, 2):
        drawn = np.loadtxt(tmp_path / f"row/shots_{shots}/few_shot.txt", dtype=int).T
        np.testing.assert_array_equal(drawn, [few_shot(labels, shots, seed)[0] for seed in (1, 2)])
        assert json.loads((tmp_path / f"row/shots_{shots}/config.json").read_text())["shots"] == str(shots)
    alone = ["--config.seed=1", "--config.data.few_shot_seed=2", "--config.objective.weight=0.5"]
    assert main([f"{CONFIG},data=folder,shots=2", *flags, *alone, f"--workdir={tmp_path}/one"]) == 0
    rows = {}
    for name in ("row/shots_2", "one"):
        kept = [
            row
            for row in read_rows(tmp_path / name)
            if name == "one" or (row.get("seed"), row.get("weight")) == (1, 0.5)
        ]
        rows[name] = [row for row in kept if row.get("evaluator") == "cross_modal" or row["kind"] == "train"]
    both = list(zip(rows["row/shots_2"], rows["one"], strict=True))
    assert len(both) == 3 + 3 * 2
    for mine, other in both:
        for key in {"loss", "cma", "accuracy", "class_similarity", "mir"} & other.keys():
            assert mine[key] == pytest.approx(other[key], abs=1e-4), key


def test_features_are_saved_measured_and_probed(files, tmp_path, capsys):
    """The texts of the classes are the head: the accuracy of the measured features is that of zero-shot CLIP."""
    from infojax import measure

    root, split, model, variables = files
    flags = [f"--config.weights={root}/weights.safetensors", f"--config.data.dir={root}"]
    flags += ["--config.data.options.split_file=split_zhou.json"]
    out = tmp_path / "features"
    assert main([f"{CONFIG},data=folder,method=features", *flags, f"--workdir={out}"]) == 0
    with np.load(out / "features_test.npz") as file:
        saved = dict(file)
    assert saved["features"].shape == (12, 16) and saved["class_names"].tolist() == [
        "cat",
        "sea lion",
        "tea pot",
        "zebra",
    ]
    np.testing.assert_allclose(np.linalg.norm(saved["features"], axis=1), 1, atol=1e-5)
    texts = clip.Tokenizer()([f"a photo of a {name}." for name in saved["class_names"]])
    expected = np.asarray(jax.jit(lambda v, x: model.apply(v, x, method="encode_text"))(variables, jnp.asarray(texts)))
    np.testing.assert_allclose(saved["head"], expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)
    capsys.readouterr()
    assert measure.main([str(out / "features_test.npz")]) == 0
    assert "labels (12,) int32 as labels, head (4, 16) float32 as head" in " ".join(capsys.readouterr().out.split())
    probe = f"--config={Path(CONFIG.partition('=')[2]).parent}/probe.py:tiny,data=features"
    short = [
        "--config.objective.batch_size=10",
        "--config.steps=2",
        "--config.optimizer.warmup_steps=0",
        "--config.knn.k=3",
    ]
    assert main([probe, f"--config.data.dir={out}", *short, *QUICK, f"--workdir={tmp_path}/probe"]) == 0
    assert evaluated(tmp_path / "probe")["test"]["embedding_dim"] == 16
    assert main([probe, f"--config.data.dir={tmp_path}", *QUICK, f"--workdir={tmp_path}/none"]) == 2
    assert "found no" in capsys.readouterr().err


def test_a_prompt_is_probed_with_a_batch_that_fits(cropped, tmp_path, capsys):
    probe = [f"--config={Path(CONFIG.partition('=')[2]).parent}/probe.py", f"--config.checkpoint={cropped}", *QUICK]
    assert main([*probe, f"--workdir={tmp_path}/no"]) == 2
    said = capsys.readouterr().err
    assert "objective.batch_size must be from 1 to 4" in said and said.count("\n") == 1
    fitting = ["--config.objective.batch_size=4", "--config.knn.k=3", "--config.steps=1", "--config.logistic.steps=0"]
    fitting += ["--config.optimizer.warmup_steps=0", "--config.spectrum.samples=0"]
    assert main([*probe, *fitting, f"--workdir={tmp_path}/yes"]) == 0
    assert evaluated(tmp_path / "yes").keys() == {"train", "test"}  # novel classes have other labels
