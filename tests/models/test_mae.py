"""The masked auto-encoder: which patches it sees, its pixels, its encoder alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infojax.models import MAE, ViT, build
from infojax.objectives.selfsup import patchify, unpatchify

KEY = jax.random.key(0)
NET = MAE(size=(24, 2, 3), patch=4, mask_ratio=0.5, decoder=(16, 1, 2))
IMAGES = jax.random.normal(KEY, (3, 8, 12, 3))
NOISE = jax.random.uniform(jax.random.key(1), (3, 6))


@pytest.fixture(scope="module")
def masked():
    variables = jax.jit(NET.init)(KEY, IMAGES, NOISE)
    rng = np.random.default_rng(0)  # a norm that changes what it is given a second time
    variables["params"]["norm"] = {name: rng.uniform(0.5, 1.5, 24).astype(np.float32) for name in ("scale", "bias")}
    output = jax.jit(NET.apply)(variables, IMAGES, NOISE)
    return variables, output


def test_patches_are_reading_order_and_channel_last():
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    found = np.asarray(patchify(jnp.asarray(x), 2))
    assert found.shape == (2, 6, 12)
    for row in range(2):
        for column in range(3):
            tile = x[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            np.testing.assert_array_equal(found[:, 3 * row + column], tile.reshape(2, -1))
    np.testing.assert_array_equal(unpatchify(found, 2, rows=2), x)
    square = jnp.asarray(x[:, :, :4])
    np.testing.assert_array_equal(unpatchify(patchify(square, 2), 2), square)
    for rows, pixels, says in ((None, 12, "not a square"), (4, 12, "not 4 rows"), (2, 11, "6 patches of 11 numbers")):
        with pytest.raises(ValueError, match=says):
            unpatchify(jnp.zeros((1, 6, pixels)), 2, rows)
    with pytest.raises(ValueError, match="patches of 4 do not tile images of 4 x 6"):
        patchify(jnp.asarray(x), 4)


def test_the_least_noise_is_kept(masked):
    _, output = masked
    order = np.argsort(NOISE, axis=1)
    np.testing.assert_array_equal(np.take_along_axis(output.mask, order, axis=1), [[0, 0, 0, 1, 1, 1]] * 3)
    np.testing.assert_array_equal(np.take_along_axis(output.restore, order, axis=1), [range(6)] * 3)
    assert output.latent.shape == (3, 4, 24) and output.prediction.shape == (3, 6, 48)
    assert len({tuple(row) for row in np.asarray(output.mask).tolist()}) > 1  # a mask per sample


def test_removed_pixels_reach_nothing(masked):
    """A change of what was removed changes no output, one of what was kept changes all predictions of its sample."""
    variables, output = masked
    pixels = patchify(IMAGES, 4)
    hidden = pixels + 3 * output.mask[..., None]
    again = jax.jit(NET.apply)(variables, unpatchify(hidden, 4, rows=2), NOISE)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), again, output)
    shown = pixels.at[0].add(3 * (1 - output.mask[0, :, None]))
    again = jax.jit(NET.apply)(variables, unpatchify(shown, 4, rows=2), NOISE)
    assert np.all(np.max(np.abs(again.prediction - output.prediction)[0], axis=1) > 1e-4)
    np.testing.assert_allclose(again.prediction[1:], output.prediction[1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("patches", "ratio", "kept"), [(196, 0.75, 49), (100, 0.9, 9), (50, 0.9, 4), (64, 0.0, 64)])
def test_how_many_are_kept(patches, ratio, kept):
    """int(L (1 - r)) as Python computes it; 10 and 5 would be the exact values of the second and third."""
    assert MAE(mask_ratio=ratio).kept(patches) == kept


def test_the_second_norm_of_the_class_token(masked):
    variables, output = masked
    z = np.asarray(output.latent[:, 0], np.float64)
    z = (z - z.mean(1, keepdims=True)) / np.sqrt(z.var(1, keepdims=True) + 1e-6)
    norm = variables["params"]["norm"]
    expected = z * np.asarray(norm["scale"]) + np.asarray(norm["bias"])
    np.testing.assert_allclose(output.token, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_the_encoder_alone_is_the_vit_of_the_same_parameters(masked, pool):
    variables, _ = masked
    vit = ViT(5, size=(24, 2, 3), patch=4, position="sincos", pool=pool)
    names = jax.eval_shape(lambda: vit.init(KEY, IMAGES, train=False))["params"]
    params = {name: variables["params"].get(name) for name in names if name != "head"}
    head = {"kernel": jnp.ones((24, 5)), "bias": jnp.zeros(5)}
    expected = vit.apply({"params": params | {"head": head}}, IMAGES, train=False)
    found = NET.copy(pool=pool).apply(variables, IMAGES, train=False)
    assert found.logits is None and found.embedding.dtype == jnp.float32
    np.testing.assert_array_equal(found.embedding, expected.embedding)
    jax.tree.map(np.testing.assert_array_equal, found.features, expected.features)


def test_nothing_removed_is_the_encoder_alone(masked):
    variables, _ = masked
    net = NET.copy(mask_ratio=0.0)
    order = jnp.tile(jnp.arange(6.0)[None], (3, 1))
    np.testing.assert_allclose(
        net.apply(variables, IMAGES, order).latent[:, 0],
        net.apply(variables, IMAGES).embedding,
        rtol=1e-5, atol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "thousands"), [("mae_base", 111_908), ("mae_large", 329_542), ("mae_huge", 657_075)])
def test_parameter_counts(name, thousands):
    """Those of facebookresearch/mae for 224 x 224, whose two fixed position tables it counts too."""
    net = build(name, 10)
    patches = (224 // net.patch) ** 2

    def init():
        return net.init(KEY, jnp.zeros((1, 224, 224, 3)), jnp.zeros((1, patches)))

    trained = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(init)))
    tables = (1 + patches) * (net.dimensions[0] + net.decoder[0])
    assert round((trained + tables) / 1000) == thousands


def test_initial_parameters():
    """Bounds of Xavier's distributions: query, key and value are one matrix, patches another."""
    net = MAE(size=(96, 1, 4), patch=8, decoder=(32, 1, 2))
    params = jax.jit(net.init)(KEY, jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 4)))["params"]
    for kernel, inputs, outputs in (
        (params["block1"]["qkv"]["kernel"], 96, 288),
        (params["block1"]["mlp1"]["kernel"], 96, 384),
        (params["patches"]["kernel"], 192, 96),
        (params["prediction"]["kernel"], 32, 192),
    ):
        bound = np.sqrt(6 / (inputs + outputs))
        assert 0.98 * bound < np.max(np.abs(kernel)) <= bound
        np.testing.assert_allclose(np.std(kernel), bound / np.sqrt(3), rtol=0.03)
    assert 0.9 / np.sqrt(192) < np.max(np.abs(params["patches"]["bias"])) <= 1 / np.sqrt(192)
    assert not np.any(params["block1"]["qkv"]["bias"]) and not np.any(params["decoder_embed"]["bias"])
    np.testing.assert_allclose(np.std(params["token"]), 0.02, rtol=0.3)
    np.testing.assert_allclose(np.std(params["mask_token"]), 0.02, rtol=0.4)
    assert params["token"].ndim == params["mask_token"].ndim == 3  # so that both have weight decay, as there


@pytest.mark.parametrize(
    ("net", "noise", "says"),
    [
        (NET, (3, 5), r"noise must have shape \(3, 6\), one number per patch; got \(3, 5\)"),
        (NET.copy(mask_ratio=0.9), (3, 6), "mask_ratio 0.9 keeps 0 of 6 patches"),
        (NET.copy(decoder=(16, 1, 3)), (3, 6), "multiple of its heads and of 4"),
        (NET.copy(patch=5), (3, 6), "patches of 5 do not tile images of 8 x 12"),
    ],
)
def test_bad_requests(net, noise, says):
    with pytest.raises(ValueError, match=says):
        jax.eval_shape(lambda: net.init(KEY, IMAGES, jnp.zeros(noise)))
