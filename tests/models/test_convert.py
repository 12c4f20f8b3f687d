"""Published checkpoints: a MAE against Hugging Face's, names and shapes of all styles, and what does not fit.

tests/golden/mae.npz is of transformers 4.57.1 with torch 2.13.0: `ViTMAEForPreTraining` of 24 x 24 pixels in patches
of 6, encoder 24 x 2 with 3 heads, decoder 16 x 1 with 2 heads, `layer_norm_eps=1e-6`, `mask_ratio=0.7`. Parameters are
N(0, 0.3^2) and, with fewer than two axes, N(0, 0.2^2), norms' scales 1 + that; the decoder's positions, which the
library starts at 0, are as its checkpoints have them; images N(0, 1) and noise U(0, 1). All was computed in float64 and
rounded to float32: outputs, and the gradients of the loss with `norm_pix_loss=True`.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infojax.models import MAE, ResNet, ViT
from infojax.models.convert import STYLES, from_published, style_of, to_published
from infojax.models.vit import resized_positions
from infojax.objectives.selfsup import patchify

KEY = jax.random.key(0)
NET = MAE(size=(24, 2, 3), patch=6, mask_ratio=0.7, decoder=(16, 1, 2))


def part(golden, prefix):
    return {name.removeprefix(prefix): golden[name] for name in golden if name.startswith(prefix)}


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parents[1] / "golden" / "mae.npz") as file:
        found = dict(file)
    found["images"] = jnp.asarray(found["x"].transpose(0, 2, 3, 1))
    return found


def like(module, *inputs):
    return jax.eval_shape(lambda: module.init(KEY, *inputs, **({} if len(inputs) > 1 else {"train": False})))


@pytest.fixture(scope="module")
def variables(golden):
    shapes = like(NET, golden["images"], golden["noise"])
    found, notes = from_published(part(golden, "weights/"), NET, shapes)
    assert notes == []
    return found


def loss(params, golden, norm_pix):
    """He et al. 2022: mean over the removed patches of the mean squared error; the variance of a patch is unbiased."""
    target = patchify(golden["images"], 6)
    if norm_pix:
        mean, var = jnp.mean(target, -1, keepdims=True), jnp.var(target, -1, keepdims=True, ddof=1)
        target = (target - mean) / jnp.sqrt(var + 1e-6)
    output = NET.apply({"params": params}, golden["images"], golden["noise"], train=True)
    error = jnp.mean(jnp.square(output.prediction - target), axis=-1)
    return jnp.sum(error * output.mask) / jnp.sum(output.mask), output


def test_forward_loss_and_gradients_are_hugging_faces(golden, variables):
    value_and_grad = jax.jit(jax.value_and_grad(functools.partial(loss, golden=golden, norm_pix=True), has_aux=True))
    (value, output), gradients = value_and_grad(variables["params"])
    np.testing.assert_array_equal(output.mask, golden["mask"])
    np.testing.assert_array_equal(output.restore, golden["restore"])
    for found, name in ((output.latent, "latent"), (output.prediction, "prediction")):
        np.testing.assert_allclose(found, golden[name], rtol=1e-5, atol=1e-5 * np.abs(golden[name]).max())
    np.testing.assert_allclose(value, golden["loss_norm_pix"], rtol=1e-5)
    plain = loss(variables["params"], golden, norm_pix=False)[0]
    np.testing.assert_allclose(plain, golden["loss"], rtol=1e-5)
    assert abs(plain - value) > 1e-3
    named = to_published(NET, {"params": gradients}, "huggingface", (4, 4))
    expected = part(golden, "gradients/")
    assert expected.keys() == named.keys() - {"vit.embeddings.position_embeddings", "decoder.decoder_pos_embed"}
    for name, gradient in expected.items():
        scale = max(np.abs(gradient).max(), 1e-3)
        np.testing.assert_allclose(named[name], gradient, rtol=1e-4, atol=1e-5 * scale, err_msg=name)


def test_back_to_hugging_faces_names(golden, variables):
    found, expected = to_published(NET, variables, "huggingface", (4, 4)), part(golden, "weights/")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)


NETS = {
    "mae": (NET, (24, 24, 3), ("timm", "huggingface", "infojax")),
    "vit": (ViT(5, size=(24, 2, 3), patch=4), (8, 8, 3), ("timm", "huggingface", "infojax")),
    "resnet18": (ResNet(5), (8, 8, 3), ("torchvision", "infojax")),
}


def drawn(name):
    module, shape, styles = NETS[name]
    x = jnp.zeros((1, *shape))
    shapes = like(module, x, jnp.zeros((1, 16))) if name == "mae" else like(module, x)
    rng = np.random.default_rng(0)
    return module, jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes), styles


@pytest.mark.parametrize("name", NETS)
def test_there_and_back(name):
    module, variables, styles = drawn(name)
    blank = jax.tree.map(np.zeros_like, variables)
    for style in styles:
        there = to_published(module, variables, style, (4, 4))
        assert style_of(there) == style
        for prefix in ("", "module."):
            back, notes = from_published({prefix + key: value for key, value in there.items()}, module, blank)
            assert notes == []
            jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_names_of_published_files():
    """Spelled out, as `state_dict` prints them."""
    module, variables, _ = drawn("mae")
    names = to_published(module, variables, "timm", (4, 4))
    shapes = {name: value.shape for name, value in names.items()}
    expected = {
        "cls_token": (1, 1, 24), "pos_embed": (1, 17, 24), "mask_token": (1, 1, 16), "decoder_pos_embed": (1, 17, 16),
        "patch_embed.proj.weight": (24, 3, 6, 6), "blocks.1.attn.qkv.weight": (72, 24), "norm.bias": (24,),
        "blocks.0.attn.proj.bias": (24,), "blocks.0.mlp.fc1.weight": (96, 24), "blocks.0.norm1.weight": (24,),
        "decoder_embed.weight": (16, 24), "decoder_blocks.0.mlp.fc2.weight": (16, 64), "decoder_norm.weight": (16,),
        "decoder_pred.weight": (108, 16),
    }  # fmt: skip
    assert shapes | expected == shapes and len(shapes) == 4 + 2 + 3 * 12 + 3 * 2 + 2
    module, variables, _ = drawn("resnet18")
    names = to_published(module, variables, "torchvision")
    for name in ("conv1.weight", "bn1.running_var", "layer2.0.downsample.1.weight", "layer4.1.bn2.running_mean"):
        assert name in names
    assert names["fc.weight"].shape == (5, 512) and names["layer2.0.downsample.0.weight"].shape == (128, 64, 1, 1)


def test_an_encoder_of_a_whole_checkpoint(golden, variables):
    """Files of MAE pre-training start a classifier: its head and, with pool="mean", its norm stay as they were."""
    for pool, kept in (("cls", "head"), ("mean", "head, norm")):
        vit = ViT(5, size=(24, 2, 3), patch=6, position="sincos", pool=pool)
        start = jax.tree.map(lambda leaf: np.full(leaf.shape, 7.0), like(vit, golden["images"]))
        found, notes = from_published(part(golden, "weights/"), vit, start)
        assert notes[0] == f"initial values stay in: {kept}" and notes[1].startswith("left out of the checkpoint: ")
        params, own = found["params"], variables["params"]
        np.testing.assert_array_equal(params["head"]["kernel"], np.full((24, 5), 7.0))
        np.testing.assert_array_equal(params["block1"]["qkv"]["kernel"], own["block1"]["qkv"]["kernel"])
        norm = own["norm"]["scale"] if pool == "cls" else np.full(24, 7.0)
        np.testing.assert_array_equal(params["norm"]["scale"], norm)
    learned = ViT(5, size=(24, 2, 3), patch=6)
    found, _ = from_published(part(golden, "weights/"), learned, like(learned, golden["images"]) | {})
    np.testing.assert_array_equal(
        found["params"]["position"], golden["weights/vit.embeddings.position_embeddings"]
    )  # MAE's fine-tuning trains them on


def test_the_norm_of_the_mean_and_classes(golden):
    vit = ViT(5, size=(24, 1, 3), patch=6, pool="mean")
    shapes = like(vit, golden["images"])
    drawn = jax.tree.map(lambda leaf: np.random.default_rng(0).normal(size=leaf.shape).astype(np.float32), shapes)
    there = to_published(vit, drawn, "timm")
    there |= {f"fc_norm.{leaf}": there.pop(f"norm.{leaf}") for leaf in ("weight", "bias")}
    back, notes = from_published(there, vit, jax.tree.map(np.zeros_like, drawn))
    assert notes == []
    jax.tree.map(np.testing.assert_array_equal, back, drawn)
    other = vit.copy(num_classes=3)
    _, notes = from_published(dict(sorted(there.items())), other, like(other, golden["images"]))
    assert notes == ["initial values stay in: head", "left out of the checkpoint: head.bias, head.weight"]


@pytest.mark.parametrize(("old", "new"), [(14, 16), (4, 7), (16, 14)])
def test_positions_for_another_grid_are_pytorchs(old, new):
    torch = pytest.importorskip("torch")
    table = np.random.default_rng(0).normal(size=(1, 1 + old * old, 8)).astype(np.float32)
    grid = torch.tensor(table[:, 1:], dtype=torch.float64).reshape(1, old, old, 8).permute(0, 3, 1, 2)
    theirs = torch.nn.functional.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    found = resized_positions(table, new)
    np.testing.assert_array_equal(found[:, :1], table[:, :1])
    np.testing.assert_allclose(found[0, 1:], theirs.permute(0, 2, 3, 1).reshape(-1, 8).numpy(), atol=1e-6)


def test_learned_positions_are_resized():
    """A ViT of 4 x 4 patches begins with the weights of one of 2 x 2."""
    small, large = (like(ViT(3, size=(8, 1, 2), patch=4), jnp.zeros((1, side, side, 3))) for side in (8, 16))
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), small)
    module = ViT(3, size=(8, 1, 2), patch=4)
    found, notes = from_published(to_published(module, drawn, "timm"), module, large)
    assert notes == ["positions of 2 x 2 patches are resized to 4 x 4"]
    table = resized_positions(drawn["params"]["position"], 4)
    np.testing.assert_array_equal(found["params"]["position"], table)


def test_what_does_not_fit(golden):
    weights, shapes = part(golden, "weights/"), like(NET, golden["images"], golden["noise"])

    def refused(arrays, says, module=NET, shapes=shapes):
        with pytest.raises(ValueError, match=says) as error:
            from_published(arrays, module, shapes)
        assert "\n" not in str(error.value)

    short = {name: value for name, value in weights.items() if "decoder_norm" not in name}
    refused(short, "checkpoint lacks decoder.decoder_norm.bias, decoder.decoder_norm.weight$")
    refused(weights | {"vit.adapter.weight": np.zeros(3)}, "checkpoint has unknown vit.adapter.weight$")
    refused(short | {"vit.a": np.zeros(3)}, "lacks decoder.*; it has unknown vit.a$")
    wide = weights | {"vit.layernorm.weight": np.zeros(25)}
    refused(wide, r"vit.layernorm.weight has the shape \(25,\), here \(25,\), but this model needs \(24,\)")
    moved = weights | {"vit.embeddings.position_embeddings": weights["vit.embeddings.position_embeddings"] + 1}
    refused(moved, "position_embeddings is not the fixed .*; take position='learned' instead of 'sincos'")
    zero = weights | {"decoder.decoder_pos_embed": np.zeros((1, 17, 16))}  # as the library starts an untrained one
    refused(zero, "decoder.decoder_pos_embed is not the fixed sines and cosines of a square grid$")
    refused({"a.weight": np.zeros(3)}, "the names a.weight are not those of a ViT, a MAE or a ResNet")
    with pytest.raises(ValueError, match=f"style must be one of {', '.join(STYLES)}; got 'keras'"):
        to_published(NET, shapes, "keras")
    with pytest.raises(ValueError, match="grid is None"):
        to_published(NET, {"params": {}}, "timm")
