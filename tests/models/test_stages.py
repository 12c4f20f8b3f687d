"""Every network cut into an encoder and a decoder, and what is for such studies: `as_net(start=)`, norms, pools."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from infojax.models import MLP, ResNet, ThesisCNN, Transformer, ViT, WideResNet
from infojax.train.networks import as_net

KEY = jax.random.key(0)
IMAGES = jax.random.normal(KEY, (4, 8, 8, 3))
NETS = {
    "f_plus": (ThesisCNN(5, channels=(4, 5, 6)), IMAGES),
    "f_minus": (ThesisCNN(5, skip=False, channels=(4, 5, 6), pool=2), IMAGES),
    "mlp": (MLP(5, widths=(6, 7, 8)), IMAGES),
    "mlp_norm": (MLP(5, widths=(6, 6), norm=True), IMAGES),
    "wide_resnet": (WideResNet(5, depth=10, width=1), IMAGES),
    "resnet18": (ResNet(5, stem="imagenet"), IMAGES),
    "vit_cls": (ViT(5, size=(24, 3, 3), patch=4), IMAGES),
    "vit_mean": (ViT(5, size=(24, 2, 3), patch=4, pool="mean", position="sincos"), IMAGES),
    "transformer": (Transformer(5, dim=8, heads=2, width=12), jnp.array([[0, 1, 5], [4, 2, 5], [3, 3, 5]])),
}
LAYERS, BLOCKS, GROUPS = ([f"{part}{i}" for i in range(1, 5)] for part in ("layer", "block", "group"))
STAGES = {
    "f_plus": LAYERS[:3],
    "f_minus": LAYERS[:3],
    "mlp": LAYERS[:3],
    "mlp_norm": LAYERS[:2],
    "wide_resnet": GROUPS[:3],
    "resnet18": GROUPS,
    "vit_cls": BLOCKS[:3],
    "vit_mean": BLOCKS[:2],
    "transformer": ["attention", "mlp"],
}
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)


def shapes(net, x, **cut):
    """Path -> shape of the variables that `init` makes."""
    variables = jax.eval_shape(lambda x: net.init(KEY, x, train=False, **cut), x)
    return {path: leaf.shape for path, leaf in flatten_dict(variables).items()}


@functools.cache
def traced(name):
    """Shapes of the features, in order, and of the variables."""
    net, x = NETS[name]
    output, variables = jax.eval_shape(lambda x: net.init_with_output(KEY, x, train=False), x)
    return dict(output.features.items()), variables


def randomised(variables):
    """Variables of given shapes, none at its initial value, variances positive; nothing is compiled to draw them."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        if leaf.ndim < 2:
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return (rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))).astype(np.float32)

    return jax.tree.map(draw, variables)


@pytest.mark.parametrize("name", NETS)
def test_encoder_then_decoder_is_the_network(name):
    net, x = NETS[name]

    @jax.jit
    def cuts(variables, x):
        call = functools.partial(net.apply, variables, train=False)
        whole = call(x)
        encoded = {stage: call(x, stop=stage) for stage in whole.features}
        decoded = {stage: call(encoded[stage], start=stage) for stage in encoded}
        first, *_, last = encoded
        return whole, encoded, decoded, call(encoded[first], start=first, stop=last)

    features, variables = traced(name)
    whole, encoded, decoded, middle = cuts(randomised(variables), x)
    order = STAGES[name]
    assert list(features) == order
    close(middle, whole.features[order[-1]])
    for i, stage in enumerate(order):
        close(encoded[stage], whole.features[stage])
        close(decoded[stage].logits, whole.logits)
        close(decoded[stage].embedding, whole.embedding)
        assert sorted(decoded[stage].features) == sorted(order[i + 1 :])
        for later, value in decoded[stage].features.items():
            close(value, whole.features[later])


@pytest.mark.parametrize("name", NETS)
def test_encoder_and_decoder_share_out_the_variables(name):
    """Each variable of the network is made by one of the two, under the same name and with the same shape."""
    net, x = NETS[name]
    features, variables = traced(name)
    whole = {path: leaf.shape for path, leaf in flatten_dict(variables).items()}
    for stage, feature in features.items():
        encoder, decoder = shapes(net, x, stop=stage), shapes(net, feature, start=stage)
        assert encoder | decoder == whole and not encoder.keys() & decoder.keys()
        assert ("params", "head", "kernel") in decoder


@pytest.mark.parametrize("name", NETS)
def test_unknown_stages(name):
    net, x = NETS[name]
    first, *_, last = STAGES[name]
    says = f"(?m)no stage 'layer9'; there are {', '.join(STAGES[name])}$"
    for cut in ({"start": "layer9"}, {"stop": "layer9"}, {"start": first, "stop": "layer9"}):
        with pytest.raises(ValueError, match=says):
            shapes(net, x, **cut)
    with pytest.raises(ValueError, match=f"stage {first} is before {last}"):
        shapes(net, x, start=last, stop=first)


def test_a_trained_decoder_moves_its_own_statistics():
    """Two groups and the last norm in train mode, with the variables that `init` makes for them."""
    module, x = NETS["wide_resnet"]
    features, variables = traced("wide_resnet")
    variables = randomised(variables)
    net = as_net(module, features["group1"], start="group1")
    shapes = jax.eval_shape(net.init, KEY)
    params = {key: variables["params"][key] for key in shapes[0]}
    state = {"batch_stats": {key: variables["batch_stats"][key] for key in shapes[1]["batch_stats"]}}
    whole, moved = jax.jit(functools.partial(module.apply, train=True, mutable=["batch_stats"]))(variables, x)
    output, updated = jax.jit(functools.partial(net.apply, train=True))(params, state, whole.features["group1"])
    close(output.logits, whole.logits)
    assert updated["batch_stats"].keys() == {"group2_block1", "group3_block1", "bn"}
    for path, value in flatten_dict(updated).items():
        close(value, flatten_dict(moved)[path])
        assert np.any(value != flatten_dict(variables)[path]), path


# as_net


class Counted(nn.Module):
    """A module with parameters that are not floats and with running statistics."""

    @nn.compact
    def __call__(self, x, train):
        self.param("count", lambda key: jnp.zeros((), jnp.int32))
        return nn.Dense(2, name="head")(nn.BatchNorm(not train)(x))


def test_as_net_after_a_stage():
    module, x = NETS["mlp"]
    variables = randomised(traced("mlp")[1])
    whole = module.apply(variables, x, train=False)
    encoded = whole.features["layer1"]
    net = as_net(module, jax.ShapeDtypeStruct((2, 6), jnp.float32), start="layer1")
    params, state = net.init(KEY)
    assert params.keys() == {"layer2", "layer3", "head"} and state == {}
    params = {key: variables["params"][key] for key in params}
    for cut in ({}, {"start": None}):
        output, _ = net.apply(params, {}, encoded, train=False, **cut)
        close(output.logits, whole.logits)
    stopped, _ = net.apply(params, {}, encoded, train=False, stop="layer2")
    close(stopped, whole.features["layer2"])
    later, _ = net.apply(params, {}, stopped, train=True, start="layer2")
    close(later.logits, whole.logits)


def test_parameters_of_another_dtype():
    like = jax.ShapeDtypeStruct((2, 4), jnp.float32)
    plain, _ = as_net(Counted(), like).init(KEY)
    params, state = as_net(Counted(), like, param_dtype=jnp.bfloat16).init(KEY)
    assert {path: leaf.dtype.name for path, leaf in flatten_dict(params, sep="/").items()} == {
        "count": "int32", "head/kernel": "bfloat16", "head/bias": "bfloat16",
        "BatchNorm_0/scale": "bfloat16", "BatchNorm_0/bias": "bfloat16",
    }  # fmt: skip
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} == {"float32"}
    np.testing.assert_array_equal(params["head"]["kernel"], plain["head"]["kernel"].astype(jnp.bfloat16))
    assert plain["head"]["kernel"].dtype == jnp.float32


# Normalisation in the MLP, pooling in f-


def test_mlp_norm_is_batch_normalisation_before_relu():
    net, x = NETS["mlp_norm"]
    initial = jax.jit(functools.partial(net.init, train=False))(KEY, x)
    assert list(initial) == ["params"]  # no running statistics
    for variables, train in ((initial, False), (randomised(initial), False), (randomised(initial), True)):
        output = jax.jit(functools.partial(net.apply, train=train))(variables, x)
        y = np.asarray(x, np.float64).reshape(4, -1)
        for i in (1, 2):
            layer, norm = variables["params"][f"layer{i}"], variables["params"][f"layer{i}_norm"]
            y = y @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
            y = (y - y.mean(0)) / np.sqrt(y.var(0) + 1e-5)
            y = np.maximum(y * np.asarray(norm["scale"]) + np.asarray(norm["bias"]), 0)
            close(output.features[f"layer{i}"], y)


def test_the_network_of_he_and_su():
    found = shapes(MLP(10, widths=(100,) * 3, norm=True), jnp.zeros((2, 28, 28, 1)))
    assert sum(map(np.prod, found.values())) == 784 * 100 + 2 * 100 * 100 + 3 * (100 + 2 * 100) + 100 * 10 + 10


def test_pool():
    net, x = NETS["f_minus"]
    assert [leaf.shape for leaf in traced("f_minus")[0].values()] == [(4, 4, 4, 4), (4, 2, 2, 5), (4, 1, 1, 6)]
    with pytest.raises(ValueError, match=r"layer2: max pooling by 3 leaves nothing of 2 x 2; .* smaller `pool`"):
        shapes(net.copy(pool=None), x)
    with pytest.raises(ValueError, match="layer3: max pooling by 2 leaves nothing of 1 x 1"):
        shapes(ThesisCNN(5), x[:, :4, :4])
    assert shapes(ThesisCNN(5), x) == shapes(ThesisCNN(5, pool=2), x)


def test_max_pooling_takes_windows_of_its_size():
    """A single 1 at (4, 4) of 8 x 8 pixels falls into window (1, 1) of size 3 or 4, into (2, 2) of size 2."""
    x = jnp.zeros((1, 8, 8, 1)).at[0, 4, 4, 0].set(1.0)
    delta = jnp.zeros((5, 5, 1, 1)).at[2, 2].set(1.0)  # a convolution that does nothing
    for pool, place in ((2, (2, 2)), (3, (1, 1)), (4, (1, 1))):
        net = ThesisCNN(5, skip=False, channels=(1, 1, 1), pool=pool)
        norm = {"scale": jnp.ones(1), "bias": jnp.zeros(1)}
        params = {"layer1_b_conv": {"kernel": delta}, "layer1_b_bn": norm}
        found = jax.jit(functools.partial(net.apply, train=False, stop="layer1"))({"params": params}, x)[0, :, :, 0]
        assert found.shape == (8 // pool, 8 // pool)
        assert [tuple(map(int, where)) for where in np.argwhere(np.asarray(found) > 0)] == [place]
