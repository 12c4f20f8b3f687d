"""WideResNet against outputs of the reference network (tests/golden/nets.npz, made by TorchSSL's code)."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infojax.models import WideResNet

GOLDEN = Path(__file__).parents[1] / "golden" / "nets.npz"
NET = "torchssl_wrn10_1/"


@pytest.fixture(scope="module")
def reference():
    with np.load(GOLDEN) as file:
        return {key.removeprefix(NET): file[key] for key in file.files if key.startswith(NET)}


def from_torch(arrays):
    """Flax variables of a PyTorch WideResNet's state dict."""
    variables = {"params": {}, "batch_stats": {}}
    leaves = {"bias": "bias", "running_mean": "mean", "running_var": "var"}
    for key, value in arrays.items():
        *path, leaf = key.split(".")
        if leaf == "num_batches_tracked":
            continue
        path = [{"convShortcut": "shortcut", "fc": "head"}.get(part, part) for part in path]
        if path[0].startswith("block"):  # block1.layer.0.conv1
            path = [f"group{path[0][5:]}_block{int(path[2]) + 1}", path[3]]
        elif path == ["bn1"]:
            path = ["bn"]
        if leaf == "weight":
            leaf, value = ("scale", value) if value.ndim == 1 else ("kernel", value.T)
            value = value.transpose(1, 0, 2, 3) if value.ndim == 4 else value  # WHIO to HWIO
        place = variables["batch_stats" if leaf.startswith("running") else "params"]
        for part in path:
            place = place.setdefault(part, {})
        place[leaves.get(leaf, leaf)] = value
    return variables


@pytest.mark.parametrize("train", [False, True])
def test_outputs_are_those_of_the_reference(reference, train):
    net = WideResNet(10, depth=10, width=1)
    variables = from_torch({k.removeprefix("param/"): v for k, v in reference.items() if k.startswith("param/")})
    x = reference["in/x"].transpose(0, 2, 3, 1)
    expected = jax.eval_shape(lambda: net.init(jax.random.key(0), x, train=False))
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, expected)
    output, updated = net.apply(variables, x, train=train, mutable=["batch_stats"])
    mode = "train_mode" if train else "eval"
    np.testing.assert_allclose(output.logits, reference[f"out/{mode}_logits"], rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(output.embedding, reference[f"out/{mode}_feat"], rtol=1e-4, atol=2e-5)
    moved = jax.tree.leaves(
        jax.tree.map(lambda a, b: bool(np.any(a != b)), updated, {"batch_stats": variables["batch_stats"]})
    )
    assert all(moved) if train else not any(moved)


@pytest.mark.parametrize(
    ("kwargs", "count", "width"),
    [
        (dict(num_classes=10), 1_469_642, 128),
        (dict(num_classes=100, width=8), 23_409_092, 512),
        (dict(num_classes=10, groups=4, first_stride=2), 5_933_770, 256),
        (dict(num_classes=10, variant="google"), 1_469_642, 128),
    ],
)
def test_parameter_counts_are_the_published_ones(kwargs, count, width):
    net, x = WideResNet(**kwargs), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    output, variables = jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x, train=True), x)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count
    assert output.embedding.shape == (1, width)
    assert list(output.features) == [f"group{i + 1}" for i in range(kwargs.get("groups", 3))]


def test_google_feeds_and_pads_as_tensorflow_does():
    net = WideResNet(2, depth=10, width=1, variant="google")
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    variables = net.init(jax.random.key(0), x, train=False)
    _, seen = net.apply(variables, x, train=False, capture_intermediates=True, mutable=["intermediates"])
    block, seen = variables["params"]["group2_block1"], seen["intermediates"]["group2_block1"]
    fed = jax.nn.leaky_relu(seen["bn1"]["__call__"][0], 0.1)
    kernel, bias = block["conv1"]["kernel"], block["conv1"]["bias"]
    layout = ("NHWC", "HWIO", "NHWC")
    expected = jax.lax.conv_general_dilated(fed, kernel, (2, 2), [(0, 1), (0, 1)], dimension_numbers=layout)
    np.testing.assert_allclose(seen["conv1"]["__call__"][0], expected + bias[None, None, None], atol=1e-5)


def test_bfloat16_computes_narrow_and_keeps_wide():
    net, x = WideResNet(3, depth=10, width=1, dtype=jnp.bfloat16), jnp.ones((2, 8, 8, 3))
    output, variables = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), x, train=True))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert output.logits.dtype == output.embedding.dtype == jnp.float32
    assert {leaf.dtype for leaf in output.features.values()} == {jnp.dtype("bfloat16")}


def test_initial_values_have_the_published_spread():
    net, x = WideResNet(10, width=4, depth=10), jnp.ones((1, 8, 8, 3))
    params = jax.jit(partial(net.init, train=False))(jax.random.key(0), x)["params"]["group3_block1"]
    kernel, bias = params["conv1"]["kernel"], params["conv1"]["bias"]  # 128 to 256 channels
    assert float(jnp.std(kernel)) == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)
    bound = (9 * 128) ** -0.5
    assert 0.9 * bound < float(jnp.max(jnp.abs(bias))) <= bound


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(depth=27), r"depth must be 10, 16, .*got 27"),
        (dict(variant="tf"), "variant must be one of torchssl, google"),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        WideResNet(10, **kwargs).init(jax.random.key(0), jnp.ones((1, 8, 8, 3)), train=False)
