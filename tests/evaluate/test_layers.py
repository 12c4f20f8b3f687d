"""Layerwise tr(S_W S_B^+) against the measure of all features at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import infojax as ij
from infojax.evaluate.layers import chosen_layers, layerwise_nc1
from infojax.models import build
from infojax.train.networks import as_net

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(4), [30, 20, 14, 6])[RNG.permutation(70)]
X = (RNG.normal(size=(4, 28, 28, 1))[LABELS] + RNG.normal(size=(70, 28, 28, 1))).astype(np.float32)


def plain(key, x):
    return x


@pytest.fixture(scope="module")
def net():
    return as_net(build("f_minus", 4), jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32))


@pytest.mark.parametrize("convention", ["thesis", "papyan"])
@pytest.mark.parametrize("batch_size", [16, 70])
def test_all_layers_of_one_partition(net, batch_size, convention):
    """Unequal classes and a short last batch; features are those of the batches as they were cut."""
    params, state = net.init(jax.random.key(0))
    run = layerwise_nc1(net, plain, 4, batch_size, convention=convention)
    found = run(params, state, jnp.asarray(X), jnp.asarray(LABELS))
    parts = [X[i : i + batch_size] for i in range(0, 70, batch_size)]
    outputs = [net.apply(params, state, jnp.asarray(part), train=False)[0] for part in parts]
    assert list(found) == ["layer1", "layer2", "layer3", "embedding"]
    for name in found:
        z = np.concatenate([o.embedding if name == "embedding" else o.features[name] for o in outputs])
        with jax.enable_x64(True):
            expected = ij.nc1(z.reshape(70, -1).astype(np.float64), LABELS, 4, convention=convention)
        assert float(found[name]) == pytest.approx(float(expected), rel=1e-3), name


def test_layers_by_pattern(net):
    params, state = net.init(jax.random.key(0))
    run = layerwise_nc1(net, plain, 4, 70, patterns=("layer[13]",))
    assert list(run(params, state, jnp.asarray(X), jnp.asarray(LABELS))) == ["layer1", "layer3"]
    assert chosen_layers(["a1", "b", "a2"], ["b", "a*"]) == ["a1", "b", "a2"]
    with pytest.raises(KeyError, match="c"):
        chosen_layers(["a1", "b"], ["a*", "c*"])
