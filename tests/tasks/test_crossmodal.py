"""Cross-modal studies from the command line: published weights on a folder, small towers, and what is refused."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from infojax.data import Arrays
from infojax.data.fewshot import few_shot
from infojax.main import main
from infojax.models import clip
from infojax.tasks.config import ConfigError
from infojax.tasks.crossmodal import by_class
from infojax.tasks.towers import Towers
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
    """(split -> row) of the last evaluation."""
    return {row["split"]: row for row in read_rows(folder) if row["kind"] == "eval"}


def test_published_weights_on_a_folder(files, tmp_path, capsys):
    """Augmented views through the image tower, base to novel; the pictures are resized as the tower takes them."""
    flags = on_folder(files, "--config.steps=2", "--config.objective.transform=crop", "--config.objective.batch_size=4")
    assert main([f"{CONFIG},data=folder,shots=2", *flags, f"--workdir={tmp_path}"]) == 0
    said = capsys.readouterr().out
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
        picture = Image.open(root / path).resize((19, 16), Image.Resampling.BICUBIC).crop((1, 0, 17, 16))
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
    few = Arrays(np.arange(12.0).reshape(6, 2), np.array([1, 0, 2, 0, 2, 1]))
    classes = by_class(few, 2, 4, 3)["classes"]
    np.testing.assert_array_equal(classes["x"][:, :, 0], [[2, 6], [0, 10], [4, 8]])
    for per_class, batch in ((3, 6), (2, 8)):
        with pytest.raises(ConfigError, match="objective.per_class is"):
            by_class(few, per_class, batch, 3)


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
        (["--config.data.names=none.txt"], "data.names: "),
        (["--config.towers.patch=3"], "towers.patch is 3, which must divide the square pictures of 8x8"),
        (["--config.data.few_shot_seed=-1"], "data.few_shot_seed"),
        (["--config.objective.alignment=off"], "objective.weight is that of the alignment, which is off"),
        (["--config.towers.width=48"], "towers.width is 48, no multiple of towers.head_width, 32"),
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
