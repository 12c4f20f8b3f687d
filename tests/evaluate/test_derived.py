"""Networks made of others' weights, against their definitions by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import infojax as ij
from infojax.evaluate import Sample, along_path, by_sparsity, classify, clusters, forward, looking, refreshing, tsne
from infojax.evaluate.derived import barrier, between, pruned
from infojax.evaluate.forward import Evaluation, Outputs
from infojax.models import Output
from infojax.objectives import Model
from infojax.train.networks import as_net

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype(np.float32) * np.array([1, 2, 3, 4, 5, 6], np.float32) + 1
LABELS = np.arange(64) % 3


class Normed(nn.Module):
    num_classes: int = 3
    norm_decay: float = 0.9

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(not train, momentum=self.norm_decay, name="bn")(nn.Dense(5, name="first")(x))
        embedding = nn.relu(x)
        return Output(nn.Dense(3, name="head")(embedding), embedding, {})


def identity(key, x):
    return x


NET = as_net(Normed(), jax.ShapeDtypeStruct((2, 6), jnp.float32))
SAMPLE = Sample("test", jnp.asarray(X[:40]), jnp.asarray(LABELS[:40]))
THROUGH = forward(identity, 16)


def network(seed):
    """As an objective gives it, with statistics that are not those of a beginning."""
    params, state = NET.init(jax.random.key(seed))
    state = jax.tree.map(lambda leaf: leaf + 0.3 * (1 + seed), state)
    average = jax.tree.map(lambda leaf: leaf + 1, params)
    return {"raw": Model(params, state, NET), "ema": Model(average, state, NET)}


# Lines


def test_between():
    first, second = network(0)["raw"], network(1)["raw"]
    for weight, expected in ((0.0, first), (1.0, second)):
        jax.tree.map(np.testing.assert_array_equal, between(first, second, weight), expected)
    quarter = between(first, second, 0.25)
    np.testing.assert_allclose(
        quarter.params["head"]["kernel"],
        0.75 * first.params["head"]["kernel"] + 0.25 * second.params["head"]["kernel"],
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("values", "height"),
    [
        ([1, 1, 1], 0),
        ([1, 5, 3], 3),
        ([3, 0, 1], 0),
        ([0, 0.5, 1], 0),
        ([2, 2.5, 0], 1.5),
        ([1, float("nan"), 1], None),
    ],
)
def test_barrier(values, height):
    found = barrier([0, 0.5, 1], values)
    assert found == height if height is not None else np.isnan(found)


def rows_of(pairs, networks, **kwargs):
    return list(along_path(looking(THROUGH, SAMPLE, [classify]), pairs, np.linspace(0, 1, 5), **kwargs)(networks))


@pytest.mark.parametrize("which", ["raw", "ema"])
def test_a_path_is_measured_network_by_network(which):
    networks = [network(seed) for seed in range(4)]
    rows = rows_of([(0, 1), (2, 3)], networks, which=which)
    assert [(row["run"], row.get("weight")) for row in rows] == [
        (run, weight) for run in (0, 2) for weight in (0.0, 0.25, 0.5, 0.75, 1.0, None)
    ]
    assert [row["runs"] for row in rows[:6]] == [[0, 1]] * 6 and {row["split"] for row in rows} == {"test"}
    half = between(networks[2][which], networks[3][which], 0.5)
    output, _ = NET.apply(half.params, half.model_state, SAMPLE.x, train=False)
    assert rows[8]["accuracy"] == pytest.approx(float(np.mean(np.argmax(output.logits, 1) == SAMPLE.labels)))
    losses = [row["loss"] for row in rows[6:11]]
    assert rows[11]["barrier_loss"] == barrier(np.linspace(0, 1, 5), losses)
    assert not any("recomputed" in name for row in rows for name in row)


def test_statistics_are_recomputed():
    forgetful = as_net(Normed(norm_decay=0.0), jax.ShapeDtypeStruct((2, 6), jnp.float32))
    refreshed = refreshing(forgetful, identity, jnp.asarray(X), 20)  # 3 batches, 4 samples left out
    model = network(0)["raw"]
    params, found = model.params, refreshed(model)
    z = X[:60] @ np.asarray(params["first"]["kernel"]) + np.asarray(params["first"]["bias"])
    batches = z.reshape(3, 20, 5)
    kept = found.model_state["batch_stats"]["bn"]
    np.testing.assert_allclose(kept["mean"], batches.mean(1).mean(0), rtol=1e-5)
    np.testing.assert_allclose(kept["var"], batches.var(1).mean(0), rtol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, found.params, params)

    rows = rows_of([(0, 1)], [network(0), network(1)], refreshed=refreshed)
    output, _ = NET.apply(found.params, found.model_state, SAMPLE.x, train=False)
    assert rows[0]["accuracy_recomputed"] == pytest.approx(float(np.mean(np.argmax(output.logits, 1) == SAMPLE.labels)))
    assert rows[0]["loss_recomputed"] != rows[0]["loss"]
    assert rows[-1]["barrier_loss_recomputed"] == barrier(
        np.linspace(0, 1, 5), [row["loss_recomputed"] for row in rows[:-1]]
    )


# Pruning

PARAMS = {
    "a": {"kernel": jnp.asarray(RNG.normal(size=(4, 5)), jnp.float32), "bias": jnp.full(5, 1e-3)},
    "b": {"kernel": jnp.asarray(10 * RNG.normal(size=(5, 6)), jnp.float32)},
}


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.37, 0.9, 0.99])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_smallest_weights_are_removed(sparsity, scope):
    found = pruned(PARAMS, sparsity, scope)
    np.testing.assert_array_equal(found["a"]["bias"], PARAMS["a"]["bias"])
    kernels = [np.asarray(PARAMS[name]["kernel"]) for name in "ab"]
    kept = [np.asarray(found[name]["kernel"]) for name in "ab"]
    groups = [(kernels, kept)] if scope == "global" else [([k], [f]) for k, f in zip(kernels, kept, strict=True)]
    for before, after in groups:
        before, after = (np.concatenate([part.ravel() for part in parts]) for parts in (before, after))
        gone = after == 0
        assert gone.sum() == round(sparsity * len(before))
        np.testing.assert_array_equal(after[~gone], before[~gone])
        assert np.abs(before[gone]).max(initial=0) <= np.abs(before[~gone]).min(initial=np.inf)


def test_equal_weights_are_removed_to_the_number():
    found = pruned({"kernel": jnp.ones((10, 10))}, 0.37)
    assert int(jnp.sum(found["kernel"] == 0)) == 37


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_pruning_is_pytorchs(scope):
    torch = pytest.importorskip("torch")
    from torch.nn.utils import prune

    layers = [torch.nn.Linear(4, 5), torch.nn.Linear(5, 6)]
    for layer, name in zip(layers, "ab", strict=True):
        layer.weight.data = torch.tensor(np.asarray(PARAMS[name]["kernel"]).T.copy())
    if scope == "global":
        prune.global_unstructured([(layer, "weight") for layer in layers], prune.L1Unstructured, amount=0.37)
    else:
        for layer in layers:
            prune.l1_unstructured(layer, "weight", amount=0.37)
    found = pruned(PARAMS, 0.37, scope)
    for layer, name in zip(layers, "ab", strict=True):
        np.testing.assert_array_equal(found[name]["kernel"], layer.weight.detach().numpy().T)


def test_features_before_and_after():
    networks = [network(0), network(1)]
    rows = list(by_sparsity(THROUGH, SAMPLE, [classify], (0.0, 0.5))(networks))
    assert [(row["run"], row["sparsity"]) for row in rows] == [(0, 0.0), (0, 0.5), (1, 0.0), (1, 0.5)]
    params, state = networks[1]["raw"].params, networks[1]["raw"].model_state
    before = NET.apply(params, state, SAMPLE.x, train=False)[0].embedding
    for scope, ending in (("global", ""), ("layer", "_layerwise")):
        output = NET.apply(pruned(params, 0.5, scope), state, SAMPLE.x, train=False)[0]
        after, row = output.embedding, rows[3]
        assert row[f"mir_features{ending}"] == pytest.approx(float(ij.mir(before, after)), abs=1e-5)
        assert row[f"hdr_features{ending}"] == pytest.approx(float(ij.hdr(before, after)), abs=1e-5)
        expected = float(np.mean(np.argmax(output.logits, 1) == SAMPLE.labels))
        assert row[f"accuracy{ending}"] == pytest.approx(expected)
    assert rows[2]["hdr_features"] == 0 and rows[2]["split"] == "test" and rows[2]["n"] == 40


# Clusters


def evaluation(z):
    return Evaluation(SAMPLE, {"raw": Outputs(None, jnp.asarray(z))}, None)


def test_silhouette():
    apart = np.eye(3)[LABELS[:40]] * 100 + RNG.normal(size=(40, 3))
    mixed = RNG.normal(size=(40, 3))
    assert (
        dict(clusters(evaluation(apart)))["silhouette"] > 0.95 > 0.1 > dict(clusters(evaluation(mixed)))["silhouette"]
    )
    assert np.isnan(dict(clusters(evaluation(np.full((40, 3), np.nan))))["silhouette"])


def test_features_that_are_all_alike_have_no_map():
    """scikit-learn's start from principal components divides by their spread, and the process dies."""
    networks = [network(0)]
    flat = {"raw": jax.tree.map(jnp.zeros_like, networks[0]["raw"])}
    assert list(tsne(THROUGH, SAMPLE, [0])([flat])) == []


def test_the_map_is_the_same_again_and_of_the_runs_asked_for():
    networks = [network(seed) for seed in range(3)]
    [first], [again] = (list(tsne(THROUGH, SAMPLE, [2])(networks)) for _ in range(2))
    assert first == again and first["run"] == 2 and len(first["tsne_x"]) == len(first["tsne_y"]) == 40
    assert first["labels"] == SAMPLE.labels.tolist()
