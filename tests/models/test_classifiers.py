"""What every classifier promises, ResNet-18 and ViT against PyTorch, and the registry."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infojax.models import MLP, MODELS, LinearProbe, ResNet, ViT, WideResNet, build, options_of, resnet
from infojax.models.vit import Block, sincos_positions

KEY = jax.random.key(0)
SMALL = {  # cheap members of every family, and the width of their embedding
    "wide_resnet": (WideResNet(7, depth=10, width=1, variant="google"), (8, 8, 3), 64),
    "resnet18": (ResNet(7), (8, 8, 3), 512),
    "vit": (ViT(7, size=(24, 2, 3), patch=4), (8, 8, 3), 24),
    "mlp": (MLP(7, widths=(16, 12)), (4, 4, 1), 12),
}


def parameters(net, shape):
    variables = jax.eval_shape(lambda: net.init(KEY, jnp.zeros((2, *shape)), train=False))
    return sum(x.size for x in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(
    ("name", "options", "classes", "shape", "count"),
    [
        # TorchSSL's logs
        ("wrn_28_2", {}, 10, (32, 32, 3), 1_469_642),
        ("wrn_28_8", {}, 100, (32, 32, 3), 23_409_092),
        ("wrn_37_2", {}, 10, (96, 96, 3), 5_933_770),
        # torchvision's resnet18, and the same with a 3x3 stem and ten classes
        ("resnet18", {"stem": "imagenet"}, 1000, (224, 224, 3), 11_689_512),
        ("resnet18", {}, 10, (32, 32, 3), 11_689_512 - 3 * 64 * (49 - 9) - 990 * 513),
        ("resnet50", {}, 1000, (224, 224, 3), 25_557_032),  # torchvision's resnet34, resnet50 and resnet101
        ("resnet50", {"depth": 101}, 1000, (224, 224, 3), 44_549_160),
        ("resnet18", {"depth": 34, "stem": "imagenet"}, 1000, (224, 224, 3), 21_797_672),
        # 12 D^2 + 13 D a block, 2 D last norm, D token, 197 D positions, (768 + 1) D patches, 1000 (D + 1) head
        *(
            (
                f"vit_{size}",
                {},
                1000,
                (224, 224, 3),
                depth * (12 * d * d + 13 * d) + (2 + 1 + 197 + 769 + 1000) * d + 1000,
            )
            for size, d, depth in (("tiny", 192, 12), ("small", 384, 12), ("base", 768, 12), ("large", 1024, 24))
        ),
        ("mlp", {"widths": (5,)}, 3, (2, 2, 1), 4 * 5 + 5 + 5 * 3 + 3),
    ],
)
def test_parameter_counts(name, options, classes, shape, count):
    assert parameters(build(name, classes, **options), shape) == count


@pytest.fixture(scope="module", params=list(SMALL))
def small(request):
    net, shape, width = SMALL[request.param]
    x = jax.random.normal(KEY, (4, *shape))
    return net, jax.jit(functools.partial(net.init, train=False))(KEY, x), x, width


@functools.partial(jax.jit, static_argnums=(0, 3))
def apply(net, variables, x, train=False):
    return net.apply(variables, x, train=train, mutable=["batch_stats"])


def test_output(small):
    net, variables, x, width = small
    output, _ = apply(net, variables, x)
    assert output.logits.shape == (4, 7) and output.embedding.shape == (4, width)
    assert all(v.shape[0] == 4 for v in output.features.values()) and len(output.features) >= 2
    head = variables["params"]["head"]
    expected = np.asarray(output.embedding) @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
    np.testing.assert_allclose(expected, output.logits, rtol=1e-5, atol=1e-5)
    alone, _ = apply(net, variables, x[:1])
    np.testing.assert_allclose(alone.logits, output.logits[:1], rtol=1e-4, atol=1e-5)  # samples do not mix


def test_gradients_reach_every_parameter(small):
    net, variables, x, _ = small

    def loss(params):
        output, _ = apply(net, variables | {"params": params}, x, train=True)
        return jnp.sum(output.logits * jnp.arange(7.0)[None])

    for path, gradient in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(variables["params"])):
        assert np.all(np.isfinite(gradient)) and np.any(gradient != 0), path


def test_bfloat16_computes_and_float32_keeps(small):
    net, variables, x, _ = small
    half = net.copy(dtype=jnp.bfloat16)
    reduced = jax.eval_shape(lambda: half.init(KEY, x, train=False))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(reduced))
    (exact, _), (rough, _) = apply(net, variables, x), apply(half, variables, x)
    _, updated = apply(half, variables, x, train=True)
    assert rough.logits.dtype == rough.embedding.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(updated))
    assert any(v.dtype == jnp.bfloat16 for v in rough.features.values())
    scale = np.abs(exact.logits).max()
    error = np.abs(rough.logits - exact.logits).max()
    assert 0 < error < 0.05 * scale


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: build("wrn_28_3", 10), "did you mean wrn_28_8?"),
        (lambda: build("perceiver?", 10), "there is wrn_28_2,"),
        (lambda: build("mlp", 10, width=3), "did you mean widths?"),
        (lambda: build("vit_tiny", 10, dtype="float23"), "did you mean float32?"),
        (lambda: build("mlp", 10, widths=(8, 0)), "widths of mlp must be whole numbers of at least 1, got (8, 0)"),
        (lambda: build("mlp", 10, widths=8), "got 8"),
        (lambda: build("mlp", 10, norm=1), "norm of mlp must be True or False"),
        (lambda: build("wrn_28_2", 10, width=2.0), "width of wrn_28_2 must be a whole number of at least 1, got 2.0"),
        (lambda: build("wrn_28_2", 10, norm_decay=float("nan")), "at least 0 and below 1, got nan"),
        (lambda: build("resnet18", 10, norm_decay=1), "at least 0 and below 1, got 1"),
        (lambda: build("f_plus", 10, pool=0), "pool of f_plus must be a whole number"),
        (lambda: build("f_plus", 10, channels=(8,)).init(KEY, jnp.zeros((1, 8, 8, 3)), False), "must be three"),
        (lambda: build("transformer", 10).init(KEY, jnp.zeros((1, 4), int), False), "length is 3, but samples have 4"),
        (lambda: ResNet(3, stem="x").init(KEY, jnp.zeros((1, 8, 8, 3)), False), "cifar, imagenet; got 'x'"),
        (lambda: ResNet(3, depth=19).init(KEY, jnp.zeros((1, 8, 8, 3)), False), "depth must be one of 18, 34, 50, 101"),
        (lambda: ViT(3, size="giant").init(KEY, jnp.zeros((1, 8, 8, 3)), False), "tiny, small, base, large, huge"),
        (lambda: ViT(3, pool="max", patch=4).init(KEY, jnp.zeros((1, 8, 8, 3)), False), "cls, mean"),
        (
            lambda: ViT(3, size="24x2x5", patch=4).init(KEY, jnp.zeros((1, 8, 8, 3)), False),
            "multiple of heads and of 4",
        ),
        (lambda: ViT(3, patch=5).init(KEY, jnp.zeros((1, 8, 8, 3)), False), "patches of 5 do not tile images of 8 x 8"),
    ],
)
def test_bad_requests(call, says):
    with pytest.raises(ValueError, match=".") as error:
        call()
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", MODELS)
def test_options_of(name):
    """Every default is itself allowed, and nothing but plain values."""
    options = options_of(name)
    assert all(value is None or isinstance(value, bool | int | float | str | tuple) for value in options.values())
    build(name, 5, **options)
    assert options_of("no such net") == {} and options_of("mlp_100x8")["widths"] == (100,) * 8


@pytest.mark.parametrize("name", MODELS)
def test_registry(name):
    net = build(name, 5, dtype="bfloat16")
    assert net.num_classes == 5 and net.dtype == jnp.bfloat16


# ViT


def test_sizes():
    assert ViT(3, size="24x2x3").dimensions == ViT(3, size=(24, 2, 3)).dimensions == (24, 2, 3)
    assert ViT(3).dimensions == (192, 12, 3)


def test_sincos_positions():
    """Entry by entry, as the MAE code's description has it: column first, [sin, cos] each."""
    found = sincos_positions(2, 3, 8)
    for row in range(2):
        for column in range(3):
            expected = []
            for place in (column, row):
                angles = [place * 10000 ** (-i / 2) for i in range(2)]
                expected += [np.sin(a) for a in angles] + [np.cos(a) for a in angles]
            np.testing.assert_allclose(found[row * 3 + column], expected, atol=1e-6)


def test_pooling_and_positions_of_vit():
    x = jax.random.normal(KEY, (2, 8, 8, 3))
    for pool, position in (("cls", "learned"), ("mean", "sincos")):
        net = ViT(3, size=(24, 2, 3), patch=4, pool=pool, position=position)
        variables = net.init(KEY, x, train=False)
        assert ("position" in variables["params"]) == (position == "learned")
        output = net.apply(variables, x, train=False)
        last = output.features["block2"]
        pooled = last[:, 0] if pool == "cls" else last[:, 1:].mean(1)
        centred = pooled - pooled.mean(1, keepdims=True)
        np.testing.assert_allclose(
            output.embedding, centred / np.sqrt(pooled.var(1, keepdims=True) + 1e-6), rtol=1e-4, atol=1e-4
        )


def test_a_block_is_pytorchs():
    torch = pytest.importorskip("torch")
    layer = torch.nn.TransformerEncoderLayer(
        24, 3, 96, dropout=0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    names = {
        "norm1": layer.norm1, "norm2": layer.norm2, "out": layer.self_attn.out_proj,
        "mlp1": layer.linear1, "mlp2": layer.linear2,
    }  # fmt: skip

    def numpy(tensor):
        return tensor.detach().numpy()

    params = {
        name: {"scale" if name.startswith("norm") else "kernel": numpy(module.weight).T, "bias": numpy(module.bias)}
        for name, module in names.items()
    }
    params["qkv"] = {"kernel": numpy(layer.self_attn.in_proj_weight).T, "bias": numpy(layer.self_attn.in_proj_bias)}
    x = np.random.default_rng(0).normal(size=(2, 5, 24)).astype(np.float32)
    found = Block(3, jax.nn.initializers.zeros).apply({"params": params}, x)
    np.testing.assert_allclose(found, numpy(layer(torch.from_numpy(x))), rtol=1e-4, atol=1e-4)


# ResNet-18


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_resnet18_is_pytorchs(stem, train):
    """The same sum of functions written with torch.nn.functional, parameters and running statistics random."""
    torch = pytest.importorskip("torch")
    functional, rng = torch.nn.functional, np.random.default_rng(0)
    net, x = ResNet(3, stem=stem), rng.normal(size=(4, 32, 32, 3)).astype(np.float32)
    shapes = jax.eval_shape(lambda: net.init(KEY, x, train=False))

    def randomised(path, leaf):
        size = 1 if leaf.ndim == 1 else np.sqrt(2 / np.prod(leaf.shape[:-1]))
        value = size * rng.normal(size=leaf.shape)
        positive = path[-1].key in ("var", "scale")
        return (np.abs(value) + 0.5 if positive else value).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(randomised, shapes)
    running = {}

    def at(place, *path):
        for part in path:
            place = place[part]
        return {key: torch.tensor(value) for key, value in place.items()}

    def conv(y, path, stride, padding):
        return functional.conv2d(y, at(variables["params"], *path)["kernel"].permute(3, 2, 0, 1), None, stride, padding)

    def norm(y, path):
        stats, leaves = at(variables["batch_stats"], *path), at(variables["params"], *path)
        y = functional.batch_norm(y, stats["mean"], stats["var"], leaves["scale"], leaves["bias"], train, 0.1, 1e-5)
        running[path] = stats["mean"].numpy()
        return y

    y = torch.tensor(x).permute(0, 3, 1, 2)
    y = conv(y, ("conv1",), 1, 1) if stem == "cifar" else conv(y, ("conv1",), 2, 3)
    y = functional.relu(norm(y, ("bn1",)))
    y = functional.max_pool2d(y, 3, 2, 1) if stem == "imagenet" else y
    for group in range(1, 5):
        for block in range(1, 3):
            name, stride = f"group{group}_block{block}", 2 if group > 1 and block == 1 else 1
            z = functional.relu(norm(conv(y, (name, "conv1"), stride, 1), (name, "bn1")))
            z = norm(conv(z, (name, "conv2"), 1, 1), (name, "bn2"))
            if stride == 2:
                y = norm(conv(y, (name, "shortcut"), stride, 0), (name, "shortcut_bn"))
            y = functional.relu(y + z)
    expected = y.mean((2, 3))
    output, updated = net.apply(variables, x, train=train, mutable=["batch_stats"])
    np.testing.assert_allclose(output.embedding, expected, rtol=2e-3, atol=2e-3 * float(expected.abs().max()))
    for path, mean in running.items():
        found = updated["batch_stats"]
        for part in path:
            found = found[part]
        np.testing.assert_allclose(found["mean"], mean, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_bottleneck_is_pytorchs(stride):
    """torchvision's block, whose 3x3 convolution has the stride, in training mode."""
    torch = pytest.importorskip("torch")
    functional, rng = torch.nn.functional, np.random.default_rng(0)
    net = resnet._Block(4, stride, 0.9, jnp.float32, bottleneck=True)
    x = rng.normal(size=(3, 6, 6, 8)).astype(np.float32)
    variables = jax.eval_shape(lambda: net.init(KEY, x, True))
    variables = jax.tree.map(lambda leaf: rng.uniform(0.2, 1, leaf.shape).astype(np.float32), variables)
    params = jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf)), variables["params"])

    def layer(y, name, stride=1, padding=0):
        norm = name.replace("conv", "bn") if "conv" in name else f"{name}_bn"
        y = functional.conv2d(y, params[name]["kernel"].permute(3, 2, 0, 1), None, stride, padding)
        return functional.batch_norm(y, None, None, params[norm]["scale"], params[norm]["bias"], True, 0.1, 1e-5)

    y = torch.tensor(x).permute(0, 3, 1, 2)
    z = functional.relu(layer(functional.relu(layer(y, "conv1")), "conv2", stride, 1))
    expected = functional.relu(layer(z, "conv3") + layer(y, "shortcut", stride)).permute(0, 2, 3, 1)
    found, _ = net.apply(variables, x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


# The probe


def test_linear_probe_is_pytorchs_without_affine():
    """BatchNorm1d(affine=False, eps=1e-6) and a linear layer; the running variance is the biased one here."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = (3 + 2 * rng.normal(size=(8, 5))).astype(np.float32)
    net = LinearProbe(3)
    variables = net.init(KEY, x, train=False)
    assert variables["params"].keys() == {"head"} and 0 < np.std(variables["params"]["head"]["kernel"]) < 0.02
    kernel = torch.tensor(np.asarray(variables["params"]["head"]["kernel"]))
    norm = torch.nn.BatchNorm1d(5, eps=1e-6, affine=False)
    output, updated = net.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(output.logits, norm(torch.tensor(x)) @ kernel, rtol=1e-4, atol=1e-5)
    statistics = updated["batch_stats"]["norm"]
    np.testing.assert_allclose(statistics["mean"], norm.running_mean, rtol=1e-5)
    unbiased = (statistics["var"] - 0.9) * 8 / 7 + 0.9
    np.testing.assert_allclose(unbiased, norm.running_var, rtol=1e-5)
    later = net.apply(variables | updated, x, train=False)
    z = (x - statistics["mean"][None]) / np.sqrt(statistics["var"] + 1e-6)[None]
    np.testing.assert_allclose(later.embedding, z, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_classes", [0, "10", 2.0, True])
def test_the_number_of_classes_is_a_whole_number(num_classes):
    with pytest.raises(ValueError, match="num_classes must be a whole number of at least 1"):
        build("mlp", num_classes)
