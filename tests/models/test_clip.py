"""CLIP against OpenAI's own module and transformers' CLIPModel, and its tokenizer against OpenAI's.

tests/golden/clip.npz was written by both on random weights that float16 holds exactly: "rn" by openai/CLIP's model.py
(torch 2.13, in float32: CLIP(16, 64, (1, 1, 1, 1), 4, None, 8, 32, 64, 1, 1), statistics of batch normalisation drawn
too), "vit" by transformers 5.23 (widths of 32, two layers and two heads per tower, patches of 4 on 12 x 12). Each has
its state dict, images as (N, 3, S, S), ids, features, logits per image, and the gradient of the cross-entropy of
those logits, with labels 0 and 2, in the embeddings of the tokens.
"""

import dataclasses
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import save_file

from infojax.models import clip
from infojax.models.clip.convert import architecture_of

GOLDEN = Path(__file__).parents[1] / "golden" / "clip.npz"
SIZES = {"rn": None, "vit": clip.Architecture(16, 12, 2, 32, 4, 32, 2, 8, 32, head_width=16)}


def golden(name):
    """(tensors by their library's names, what it computed)."""
    found = {key.removeprefix(f"{name}/"): value for key, value in np.load(GOLDEN).items() if key.startswith(name)}
    weights = {key.removeprefix("weights/"): found.pop(key) for key in list(found) if key.startswith("weights/")}
    return weights, found


def computed(model, variables, images, embeddings, end):
    """Features, logits and the gradient of the prompt, in one program."""

    def loss(embeddings):
        text = model.apply(variables, embeddings, end, method="encode_text")
        image = model.apply(variables, images, method="encode_image")
        logits = jnp.exp(variables["params"]["logit_scale"]) * clip.unit(image) @ clip.unit(text).T
        value = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, jnp.array([0, 2])))
        return value, {"image_features": image, "text_features": text, "logits": logits}

    gradient, found = jax.grad(loss, has_aux=True)(embeddings)
    return found | {"prompt_gradient": gradient}


@pytest.fixture(scope="module", params=["rn", "vit"])
def case(request):
    weights, theirs = golden(request.param)
    sizes, variables = clip.convert(weights, sizes=SIZES[request.param])
    model, ids = clip.CLIP(sizes), jnp.asarray(theirs["ids"])
    images = jnp.asarray(theirs["images"].transpose(0, 2, 3, 1))
    embeddings = clip.embed(variables["params"]["text"]["token_embedding"], ids)
    with jax.default_matmul_precision("highest"):
        ours = jax.jit(computed, static_argnums=0)(model, variables, images, embeddings, jnp.argmax(ids, axis=1))
    return request.param, weights, theirs, ours, model, variables


@pytest.mark.parametrize("name", ["image_features", "text_features", "logits", "prompt_gradient"])
def test_equal_to_the_peers(case, name):
    _, _, theirs, ours, _, _ = case
    assert np.abs(theirs[name]).max() > 1e-2
    np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5, rtol=1e-5)


def test_what_follows_the_end_is_without_effect(case):
    _, _, theirs, _, model, variables = case
    ids = theirs["ids"][:2]  # ends at 4 and 2
    apply = jax.jit(lambda ids: model.apply(variables, ids, method="encode_text"))
    np.testing.assert_allclose(apply(ids[:, :5]), theirs["text_features"][:2], atol=1e-5)


def test_conversion_and_back(case, tmp_path):
    name, weights, _, _, model, variables = case
    state = clip.to_openai(variables)
    if name == "rn":
        assert state.keys() == weights.keys()
        assert all(np.array_equal(state[key], weights[key]) for key in weights)
    save_file(state, tmp_path / "clip.safetensors")
    sizes, again = clip.load(tmp_path / "clip.safetensors", sizes=model.sizes)
    assert sizes == model.sizes
    jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_shapes_tell_the_architecture():
    for name, layers in (("RN50", (3, 4, 6, 3)), ("ViT-B/16", 12)):
        sizes = clip.ARCHITECTURES[name]
        shapes = jax.eval_shape(
            clip.CLIP(sizes).init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)), jnp.zeros((1, 77), jnp.int32)
        )
        params = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
        assert params == {"RN50": 102_007_137, "ViT-B/16": 149_620_737}[name]  # as counted in the released files
        state = clip.to_openai(jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), shapes))
        assert architecture_of(state) == sizes and sizes.image_layers == layers
        assert len(state) == {"RN50": 489 - 55, "ViT-B/16": 302}[name]  # less 55 counters of batches


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("ln_final.bias"), r"^1 missing: ln_final\.bias$"),
        (lambda s: s.update({"ln_finale.bias": s.pop("ln_final.bias")}), r"did you mean ln_final\.bias\?"),
        (lambda s: s.update({"ln_final.bias": np.zeros(3)}), r"^ln_final\.bias is \(3,\), which does not fit"),
        (lambda s: [s.pop(k) for k in list(s) if "visual" in k], r"^no tensor visual\.attnpool"),
        (lambda s: s.update({"visual.bn1.num_batches_tracked": np.zeros(()), "attn_mask": np.zeros(2)}), None),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    weights, _ = golden("rn")
    change(weights)
    if message is None:
        clip.convert(weights)
        return
    with pytest.raises(clip.WeightsError, match=message):
        clip.convert(weights)


def test_files_that_hold_no_weights(tmp_path):
    (tmp_path / "RN50.pt").write_bytes(b"PK\x03\x04 and so on, as an archive of TorchScript")
    with pytest.raises(clip.WeightsError, match=r"clip_to_safetensors\.py"):
        clip.load(tmp_path / "RN50.pt")
    with pytest.raises(clip.WeightsError, match="found no file"):
        clip.load(tmp_path / "none.safetensors")


# Ids by openai/CLIP's SimpleTokenizer with ftfy 6.3.
TOKENS = {
    "a photo of a cat.": [320, 1125, 539, 320, 2368, 269],
    "It's  a\tDOG's &amp;amp; cat&#39;s 12½": [585, 568, 320, 1929, 568, 261, 2368, 568, 272, 273, 33613],
    "he'll we're I'VE 'tis !!'s <|endoftext|> x":
        [797, 1342, 649, 982, 328, 1200, 713, 533, 1443, 262, 338, 49407, 343],
    "'s rock'n'roll 3.14 $5,000 #tag":
        [568, 2172, 262, 333, 262, 3341, 274, 269, 272, 275, 259, 276, 267, 271, 271, 271, 258, 3640],
    "I'd don't": [328, 1896, 847, 713],
    "supercalifragilisticexpialidocious": [1642, 2857, 13093, 2076, 5868, 26850, 835, 639, 38466],
    "naïve café 日本 🎉 ½": [1097, 35689, 563, 15304, 39121, 19277, 361, 3986, 33613],
    "sea_or-lake (1990s)/": [2102, 318, 541, 268, 2553, 263, 272, 280, 280, 271, 338, 26616],
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:ftfy is not installed")
def test_tokenizer():
    tokenize = clip.Tokenizer()
    assert (tokenize.start, tokenize.end) == (49406, 49407)
    for text, ids in TOKENS.items():
        assert tokenize.encode(text) == ids, text
    rows = tokenize(["a photo of a cat.", ""])
    assert rows.shape == (2, 77) and rows[1, :3].tolist() == [49406, 49407, 0]
    assert tokenize(["a photo of a cat.", ""], length=0).shape == (2, 8)
    assert tokenize.decode(rows[0]).startswith("a photo of a cat .")


def test_a_text_that_is_too_long():
    tokenize = clip.Tokenizer()
    assert tokenize(" ".join(["cat"] * 75)).shape == (1, 77)
    with pytest.raises(clip.TextTooLong, match=r"'cat cat .*\.\.\.' has 78 tokens with start and end; at most 77 fit"):
        tokenize(" ".join(["cat"] * 76))


def test_without_ftfy_only_plain_text_is_free_of_a_warning(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ftfy", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip.Tokenizer().encode("a photo of a cat.")
    with pytest.warns(UserWarning, match="pip install ftfy"):
        clip.Tokenizer().encode("a café")


def test_bfloat16_and_remat_compute_the_same():
    sizes = dataclasses.replace(SIZES["vit"], text_layers=1)
    ids = jnp.array([[30, 5, 31]])
    plain = clip.text_tower(sizes)
    variables = jax.jit(plain.init)(jax.random.key(0), ids)
    remat = clip.text_tower(sizes, remat=True)
    gradients = [jax.jit(jax.grad(lambda v, t=t: jnp.sum(t.apply(v, ids) ** 2)))(variables) for t in (plain, remat)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *gradients)
    half = clip.text_tower(sizes, jnp.bfloat16).apply(variables, ids)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, plain.apply(variables, ids), atol=0.1)
