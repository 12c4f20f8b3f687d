"""Layerwise tr(S_W S_B^+) against the measure of all features at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import infojax as ij
from infojax.evaluate import LayerError, chosen_layers, geometric, layer_shapes, layerwise_nc1
from infojax.evaluate.forward import Sample, forward
from infojax.models import build
from infojax.objectives import Model
from infojax.train.networks import as_net

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(4), [30, 20, 14, 6])[RNG.permutation(70)]
X = (RNG.normal(size=(4, 28, 28, 1))[LABELS] + RNG.normal(size=(70, 28, 28, 1))).astype(np.float32)


def plain(key, x):
    return x


@pytest.fixture(scope="module")
def net():
    return as_net(build("f_minus", 4), jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32))


@pytest.mark.parametrize(("convention", "batch_size"), [("thesis", 16), ("papyan", 70)])
def test_all_layers_of_one_partition(net, batch_size, convention):
    """Unequal classes and a short last batch; features are those of the batches as they were cut."""
    params, state = net.init(jax.random.key(0))
    run = layerwise_nc1(plain, 4, batch_size, convention=convention)
    found = run(Model(params, state, net), jnp.asarray(X), jnp.asarray(LABELS))
    parts = [X[i : i + batch_size] for i in range(0, 70, batch_size)]
    outputs = [net.apply(params, state, jnp.asarray(part), train=False)[0] for part in parts]
    assert list(found) == ["input", "layer1", "layer2", "layer3", "embedding", "logits"]
    for name in found:
        z = X if name == "input" else np.concatenate([o.features.get(name, getattr(o, name, None)) for o in outputs])
        with jax.enable_x64(True):
            expected = ij.nc1(z.reshape(70, -1).astype(np.float64), LABELS, 4, convention=convention)
        assert float(found[name]) == pytest.approx(float(expected), rel=1e-3), name


def test_layers_by_pattern(net):
    params, state = net.init(jax.random.key(0))
    run = layerwise_nc1(plain, 4, 70, patterns=("layer[13]",))
    assert list(run(Model(params, state, net), jnp.asarray(X), jnp.asarray(LABELS))) == ["layer1", "layer3"]
    assert chosen_layers(["a1", "b", "a2"], ["b", "a*"]) == ["a1", "b", "a2"]
    with pytest.raises(LayerError, match="no layer 'leyer1'; did you mean layer1"):
        chosen_layers(["layer1", "b"], ["b", "leyer1"])


def test_shapes_by_depth(net):
    shapes = layer_shapes(net, plain, jnp.asarray(X))
    assert list(shapes.items()) == [
        ("input", (28, 28, 1)), ("layer1", (9, 9, 16)), ("layer2", (3, 3, 32)), ("layer3", (1, 1, 64)),
        ("embedding", (64,)), ("logits", (4,)),
    ]  # fmt: skip


def test_rows_and_a_first_pass_from_before(net):
    """With "moments" in a model, train takes them for class means; test does not."""
    params, state = net.init(jax.random.key(0))
    samples = [Sample(split, jnp.asarray(X), jnp.asarray(LABELS)) for split in ("train", "test")]
    stale = {"layer3": ij.class_stats(RNG.normal(size=(70, 64)).astype(np.float32), LABELS, 4)}
    run = geometric(plain, samples, 4, 35, ("layer3",))
    fresh, moved = (list(run([{"raw": Model(params, state, net, more)}])) for more in ({}, {"moments": stale}))
    assert [(row["split"], row.get("layer"), row.get("depth"), row.get("dim")) for row in fresh] == [
        ("train", "layer3", 3, 64), ("train", None, None, None), ("test", "layer3", 3, 64), ("test", None, None, None),
    ]  # fmt: skip
    assert fresh[0]["nc1"] == fresh[2]["nc1"] == moved[2]["nc1"] != moved[0]["nc1"]
    outputs = [net.apply(params, state, jnp.asarray(X[i : i + 35]), train=False)[0] for i in (0, 35)]
    z = np.concatenate([o.features["layer3"].reshape(35, -1) for o in outputs])
    inverse = ij.between_inverse(stale["layer3"])
    energy = ij.within_energy(inverse, stale["layer3"], z, LABELS)
    assert moved[0]["nc1"] == pytest.approx(float(ij.nc1_from_energy(energy, stale["layer3"])[0]), rel=1e-4)


def test_a_first_pass_over_other_samples_gives_its_means_alone(net):
    """Twice the samples, or half of them: the measure divides by those of the second pass."""
    params, state = net.init(jax.random.key(0))
    run = layerwise_nc1(plain, 4, 70, ("layer3",))
    z = net.apply(params, state, jnp.asarray(X), train=False)[0].features["layer3"].reshape(70, -1)
    expected = float(run(Model(params, state, net), jnp.asarray(X), jnp.asarray(LABELS))["layer3"])
    twice = {"layer3": ij.class_stats(jnp.concatenate([z, z]), np.concatenate([LABELS, LABELS]), 4)}
    found = run(Model(params, state, net), jnp.asarray(X), jnp.asarray(LABELS), twice)["layer3"]
    assert float(found) == pytest.approx(expected, rel=1e-4)
    lacking = {
        "layer3": ij.class_stats(z[LABELS < 3], LABELS[LABELS < 3], 4)
    }  # a class without means: an own first pass
    assert float(run(Model(params, state, net), jnp.asarray(X), jnp.asarray(LABELS), lacking)["layer3"]) == expected


def test_the_law_of_equi_separation_is_a_row(net):
    from scipy.stats import pearsonr

    params, state = net.init(jax.random.key(0))
    sample = Sample("test", jnp.asarray(X), jnp.asarray(LABELS))
    rows = list(geometric(plain, [sample], 4, 70, ("layer*",))([{"raw": Model(params, state, net)}]))
    expected = pearsonr(range(3), np.log([row["nc1"] for row in rows[:3]])).statistic
    assert rows[3]["equi_separation"] == pytest.approx(expected, abs=1e-5)


def test_the_last_batch_is_not_padded_for_networks_of_batch_statistics(net):
    """`forward` says of a short last batch what the network says of it."""
    params, state = net.init(jax.random.key(0))
    found = forward(plain, 40)(Model(params, state, net), jnp.asarray(X))
    expected = net.apply(params, state, jnp.asarray(X[40:]), train=False)[0].logits
    assert net.of_batch
    np.testing.assert_allclose(found.logits[40:], expected, atol=1e-5)


def test_a_layer_that_is_not_finite_has_nan_and_the_others_their_values(net, capfd):
    params, state = net.init(jax.random.key(0))
    x = jnp.asarray(X).at[3, 0, 0].set(jnp.inf)
    found = layerwise_nc1(lambda key, x: x, 4, 70, patterns=("input",))(
        Model(params, state, net), x, jnp.asarray(LABELS)
    )
    assert np.isnan(found["input"])

    def transform(key, x):
        return jnp.where(jnp.isfinite(x), x, 0)

    broken = net._replace(apply=lambda *args, **kw: _with(net.apply(*args, **kw), "layer1"))
    found, whole = (
        layerwise_nc1(transform, 4, 70, patterns=("layer[12]",))(Model(params, state, n), x, jnp.asarray(LABELS))
        for n in (broken, net)
    )
    assert np.isnan(found["layer1"]) and found["layer2"] == whole["layer2"] and np.isfinite(found["layer2"])
    assert "DLASCL" not in "".join(capfd.readouterr())


def _with(said, name):
    """The outputs with an infinite feature at a layer."""
    output, state = said
    return output._replace(features=output.features | {name: output.features[name] * jnp.inf}), state
