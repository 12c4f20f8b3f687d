"""f+ and f- against outputs of the reference networks (tests/golden/nets.npz, made by the thesis's code)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infojax.models import build

GOLDEN = Path(__file__).parents[1] / "golden" / "nets.npz"
NETS = {
    "f_plus": ("thesis_CIFARNet_fplus_fmnist/", {"": "a", "2": "b"}),
    "f_minus": ("thesis_MNISTNet_fminus/", {"": "b"}),
}


def reference(name):
    """(arrays of the fixture, Flax parameters of its state dict)."""
    prefix, parts = NETS[name]
    with np.load(GOLDEN) as file:
        arrays = {key.removeprefix(prefix): file[key] for key in file.files if key.startswith(prefix)}
    params = {}
    for i in range(3):
        for ending, part in parts.items():
            conv, norm = f"param/blocks.{i}.conv{ending}", f"param/blocks.{i}.bn{ending}"
            params[f"layer{i + 1}_{part}_conv"] = {"kernel": arrays[f"{conv}.weight"].transpose(2, 3, 1, 0)}
            params[f"layer{i + 1}_{part}_bn"] = {"scale": arrays[f"{norm}.weight"], "bias": arrays[f"{norm}.bias"]}
    [head] = [key.removesuffix(".weight") for key in arrays if key.startswith("param/head") and key.endswith("weight")]
    params["head"] = {"kernel": arrays[f"{head}.weight"].T, "bias": arrays[f"{head}.bias"]}
    return arrays, params


@pytest.mark.parametrize("name", NETS)
def test_outputs_are_those_of_the_reference(name):
    arrays, params = reference(name)
    net, x = build(name, 10), arrays["in/x"].transpose(0, 2, 3, 1)
    expected = jax.eval_shape(lambda: net.init(jax.random.key(0), x, train=False)["params"])
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, expected)
    output = net.apply({"params": params}, x, train=False)
    np.testing.assert_allclose(output.logits, arrays["out/logits"], rtol=1e-5, atol=1e-5)
    raw = net.apply({"params": params}, np.round(255 * x), train=True)  # bytes, as the released code feeds them
    np.testing.assert_allclose(raw.logits, arrays["out/logits_x255"], rtol=1e-5, atol=1e-5)
    for i in (1, 2, 3):
        flat = np.asarray(output.features[f"layer{i}"]).transpose(0, 3, 1, 2).reshape(len(x), -1)
        kept = arrays[f"out/nc_layer_{i}"]
        stride = -(-flat.shape[1] // kept.shape[1])
        np.testing.assert_allclose(flat[:, ::stride], kept, rtol=1e-4, atol=2e-5)
        np.testing.assert_allclose(flat.sum(1), arrays[f"out/nc_layer_{i}_sum"], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "shape", "size", "dims"),
    [
        ("f_plus", (32, 32, 3), 558_625, (16384, 8192, 4096)),
        ("f_plus", (28, 28, 1), 557_397, (12544, 6272, 2304)),
        ("f_minus", (32, 32, 3), 66_074, (1600, 288, 64)),
        ("f_minus", (28, 28, 1), 65_274, (1296, 288, 64)),
    ],
)
def test_sizes(name, shape, size, dims):
    net, x = build(name, 10), jax.ShapeDtypeStruct((4, *shape), jnp.float32)
    variables = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), x)
    assert list(variables) == ["params"]  # no running statistics
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == size
    output = jax.eval_shape(lambda v, x: net.apply(v, x, train=True), variables, x)
    assert tuple(int(np.prod(output.features[f"layer{i}"].shape[1:])) for i in (1, 2, 3)) == dims


@pytest.mark.parametrize("layer", ["layer1", "layer2", "layer3"])
@pytest.mark.parametrize("name", NETS)
def test_encoder_and_decoder_make_the_network(name, layer):
    arrays, params = reference(name)
    net, x = build(name, 10), arrays["in/x"].transpose(0, 2, 3, 1)
    whole = net.apply({"params": params}, x, train=False)
    encoded = net.apply({"params": params}, x, train=False, stop=layer)
    np.testing.assert_array_equal(encoded, whole.features[layer])
    decoded = net.apply({"params": params}, encoded, train=False, start=layer)
    np.testing.assert_array_equal(decoded.logits, whole.logits)
    own = jax.eval_shape(lambda: net.init(jax.random.key(0), encoded, train=False, start=layer)["params"])
    later = {key for key in params if key == "head" or key[:6] > layer}
    assert own.keys() == later  # a decoder has the parameters of what it computes


def test_what_a_sample_gives_depends_on_its_batch():
    arrays, params = reference("f_minus")
    net, x = build("f_minus", 10), arrays["in/x"].transpose(0, 2, 3, 1)
    whole, half = (net.apply({"params": params}, part, train=False).logits[:3] for part in (x, x[:3]))
    assert np.abs(whole - half).max() > 1e-3
