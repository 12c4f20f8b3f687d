"""A published checkpoint's file as the start of a run."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from infojax.main import main
from infojax.models import ViT, build
from infojax.models.convert import to_published
from infojax.tasks.build import network
from infojax.tasks.build.saved import saved
from infojax.tasks.config import ConfigError

CONFIG = f"--config={Path(__file__).parents[2]}/configs/interplay.py:tiny,model=vit_tiny"
OPTIONS = dict(size=(24, 1, 3), patch=4)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    module = ViT(10, **OPTIONS)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False))
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    save_file(to_published(module, drawn, "timm"), path)
    return path, drawn["params"]


def test_weights_start_a_network(file, capsys):
    path, drawn = file
    settings = ConfigDict(dict(name="vit_tiny", dtype="float32", options=OPTIONS, weights=str(path)))
    like = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    params, model_state = network(settings, 10, like).init(jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, params, drawn)
    assert model_state == {} and capsys.readouterr().out == f"{path}: all parameters are taken from it\n"
    params, _ = network(settings, 3, like).init(jax.random.key(3))
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: initial values stay in: head", f"{path}: left out of the checkpoint: head.bias, head.weight"
    ]  # fmt: skip
    plain = build("vit_tiny", 3, **OPTIONS).init(jax.random.key(3), jnp.zeros((2, 8, 8, 1)), train=False)
    np.testing.assert_allclose(params["head"]["kernel"], plain["params"]["head"]["kernel"], rtol=1e-6)


def test_a_run_starts_another(tmp_path, capsys):
    """Its newest checkpoint, in a network with another pooling, whose norm and head are its own."""
    flags = [
        "--config.model.options.patch=4",
        "--config.model.options.size=24x1x3",
        "--config.steps=2",
        "--config.evaluate.points=0",
    ]
    flags += ["--config.devices=1", "--config.report.draw=False", "--config.log.every=1"]
    assert main([CONFIG, *flags, f"--workdir={tmp_path}/first"]) == 0
    mean = [f"--config.model.weights={tmp_path}/first", "--config.model.options.pool=mean"]
    assert main([CONFIG, *flags, *mean, f"--workdir={tmp_path}/second"]) == 0
    assert f"{tmp_path}/first: initial values stay in: norm" in capsys.readouterr().out
    like = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    settings = ConfigDict(dict(name="vit_tiny", dtype="float32", options=OPTIONS, weights=f"{tmp_path}/first"))
    params, _ = network(settings, 10, like).init(jax.random.key(9))
    jax.tree.map(np.testing.assert_array_equal, params, saved(f"{tmp_path}/first").model.params)
    again = saved(f"{tmp_path}/second").model.params  # rebuilt without the first run
    change = np.abs(again["block1"]["qkv"]["kernel"] - params["block1"]["qkv"]["kernel"]).max()
    assert 0 < change < 0.05


def test_files_that_are_no_weights(file, tmp_path, capsys):
    (tmp_path / "text.npz").write_text("no")
    for name, says in (
        ("mae_pretrain.pth", "PyTorch's own format; convert it where torch is, with safetensors.torch.save_file"),
        ("nowhere.safetensors", "nowhere.safetensors: no such file"),
        ("text.npz", "text.npz"),
    ):
        flags = [f"--config.model.weights={tmp_path / name}", f"--workdir={tmp_path}/run"]
        assert main([CONFIG, *flags]) == 2
        assert "model.weights: " in (said := capsys.readouterr().err) and says in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()
    settings = ConfigDict(dict(name="vit_tiny", dtype="float32", options=OPTIONS | {"size": (24, 2, 3)}))
    settings.weights = str(file[0])
    with pytest.raises(ConfigError, match=r"model.weights: .*safetensors: the checkpoint lacks blocks.1.[^\n]* more$"):
        network(settings, 10, jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32))
