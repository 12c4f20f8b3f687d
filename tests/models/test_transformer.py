"""The one-layer transformer against outputs of the reference network, and against all positions computed plainly."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infojax.measures.classification import cross_entropy
from infojax.models import Transformer

GOLDEN = Path(__file__).parents[1] / "golden" / "nets.npz"
NET = Transformer(11, dim=16, heads=4, width=64)


@pytest.fixture(scope="module")
def reference():
    with np.load(GOLDEN) as file:
        return {key.removeprefix("nanda/"): file[key] for key in file.files if key.startswith("nanda/")}


def from_torch(arrays):
    """Flax parameters of the reference's state dict."""
    p = {key.removeprefix("param/"): value for key, value in arrays.items() if key.startswith("param/")}
    block = {name: p[f"blocks.0.attn.W_{name}"] for name in "KQVO"}
    return {
        "embed": p["embed.W_E"].T,
        "positions": p["pos_embed.W_pos"],
        "query": block["Q"].reshape(16, 16).T,
        "key": block["K"].reshape(16, 16).T,
        "value": block["V"].reshape(16, 16).T,
        "out": block["O"].T,
        "mlp_in": {"kernel": p["blocks.0.mlp.W_in"].T, "bias": p["blocks.0.mlp.b_in"]},
        "mlp_out": {"kernel": p["blocks.0.mlp.W_out"].T, "bias": p["blocks.0.mlp.b_out"]},
        "head": {"kernel": p["unembed.W_U"]},
    }


def test_outputs_are_those_of_the_reference(reference):
    params, tokens = from_torch(reference), reference["in/tokens"].astype(np.int32)
    output = NET.apply({"params": params}, tokens, train=False)
    np.testing.assert_allclose(output.logits, reference["out/logits_all_positions"][:, -1], rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(output.embedding, reference["out/resid_post_last"], rtol=1e-5, atol=2e-6)
    np.testing.assert_array_equal(output.features["mlp"], output.embedding)
    loss = jnp.mean(cross_entropy(output.logits, jnp.asarray(reference["in/labels"])))
    assert float(loss) == pytest.approx(float(reference["out/loss_last_pos"]), rel=1e-6)


def plain(params, tokens):
    """Logits at the last position, all positions computed, (N, T, D) streams, causal mask."""
    heads = (4, 4)
    stream = params["embed"][tokens] + params["positions"][None]
    q, k, v = ((stream @ params[name]).reshape(*stream.shape[:2], *heads) for name in ("query", "key", "value"))
    scores = jnp.einsum("nqhk,nthk->nhqt", q, k) / 2.0
    scores = jnp.where(jnp.tril(jnp.ones((3, 3), bool))[None, None], scores, -1e10)
    mixed = jnp.einsum("nhqt,nthk->nqhk", jax.nn.softmax(scores), v).reshape(stream.shape)
    stream = stream + mixed @ params["out"]
    hidden = jax.nn.relu(stream @ params["mlp_in"]["kernel"] + params["mlp_in"]["bias"][None, None])
    stream = stream + hidden @ params["mlp_out"]["kernel"] + params["mlp_out"]["bias"][None, None]
    return (stream @ params["head"]["kernel"])[:, -1]


def test_gradients_are_those_of_all_positions(reference):
    """What the last position alone leaves out has no derivative."""
    params, tokens = from_torch(reference), reference["in/tokens"].astype(np.int32)
    labels = jnp.asarray(reference["in/labels"])

    def loss(forward):
        return jax.grad(lambda params: jnp.mean(cross_entropy(forward(params), labels)))(params)

    found = loss(lambda params: NET.apply({"params": params}, tokens, train=True).logits)
    with jax.default_matmul_precision("highest"):
        expected = loss(lambda params: plain(params, tokens))
    for path, leaf in jax.tree_util.tree_leaves_with_path(expected):
        mine = found
        for part in path:
            mine = mine[part.key]
        np.testing.assert_allclose(mine, leaf, rtol=1e-4, atol=1e-7, err_msg=str(path))


def test_size_and_scale_at_the_beginning():
    net = Transformer(113)
    params = net.init(jax.random.key(0), jnp.zeros((2, 3), jnp.int32), train=False)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 226_816
    for name in ("embed", "query", "key", "value", "out"):
        assert float(jnp.std(params[name])) == pytest.approx(128**-0.5, rel=0.03)
    for name, scale in (("mlp_in", 128**-0.5), ("mlp_out", 128**-0.5), ("head", 114**-0.5)):
        assert float(jnp.std(params[name]["kernel"])) == pytest.approx(scale, rel=0.03)
    assert not np.any(params["mlp_in"]["bias"]) and "bias" not in params["head"]


def test_heads_must_divide():
    with pytest.raises(ValueError, match="heads must divide dim"):
        Transformer(11, dim=16, heads=3).init(jax.random.key(0), jnp.zeros((2, 3), jnp.int32), train=False)
