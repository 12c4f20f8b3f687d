"""The information terms: their values are the measures', their gradients go where they are sent."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import infojax as ij
from infojax.objectives import information_term

rng = np.random.default_rng(0)
Z, HEAD = jnp.asarray(rng.normal(size=(24, 5)), jnp.float32), jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)
Y = jnp.asarray(rng.integers(0, 4, 24))


def direct(kind, z, head, weights=None):
    """By the N x N definition of each measure."""
    v = ij.head_rows(head, Y)
    h1, h2 = (ij.matrix_entropy(x, weights=weights) for x in (z, v))
    return {
        "mi": -ij.mutual_information(z, v, weights=weights),
        "hd": jnp.abs(h1 - h2),
        "mir": -ij.mir(z, v, weights=weights),
        "hdr": ij.hdr(z, v, weights=weights),
    }[kind]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["mi", "hd", "mir", "hdr"])
def test_value_and_gradient(kind, masked):
    weights = jnp.asarray(rng.integers(0, 2, 24), jnp.float32) if masked else None
    found = jax.value_and_grad(lambda z, h: information_term(kind, z, Y, h, weights=weights)[0], argnums=(0, 1))(
        Z, HEAD
    )
    expected = jax.value_and_grad(lambda z, h: direct(kind, z, h, weights), argnums=(0, 1))(Z, HEAD)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)
    assert all(np.any(np.asarray(g) != 0) for g in found[1])


@pytest.mark.parametrize(
    ("to", "alive"), [("both", (True, True)), ("features", (True, False)), ("head", (False, True))]
)
def test_destination_of_the_gradient(to, alive):
    gradients = jax.jit(jax.grad(lambda z, h: information_term("mi", z, Y, h, to=to)[0], argnums=(0, 1)))(Z, HEAD)
    assert tuple(bool(np.any(np.asarray(g) != 0)) for g in gradients) == alive


def test_normalised_by_log_n():
    raw, normalised = (information_term("mi", Z, Y, HEAD, normalise=n)[0] for n in (False, True))
    assert normalised == pytest.approx(float(raw) / math.log(24), rel=1e-6)
    assert information_term("mir", Z, Y, HEAD, normalise=True)[0] == information_term("mir", Z, Y, HEAD)[0]


@pytest.mark.parametrize("kind", ["mi", "hd", "mir", "hdr"])
def test_nothing_selected(kind):
    value, gradient = jax.jit(
        jax.value_and_grad(lambda z: information_term(kind, z, Y, HEAD, weights=jnp.zeros(24))[0])
    )(Z)
    assert value == 0 and np.all(np.asarray(gradient) == 0)


def test_the_values_are_reported_whatever_is_minimised():
    values = [information_term(kind, Z, Y, HEAD)[1] for kind in ("mi", "hdr")]
    assert values[0] == values[1] and set(values[0]) == {"mi", "hd", "mir", "hdr"}
    assert information_term("off", Z, Y, HEAD) == (0, {})


@pytest.mark.parametrize(("arguments", "says"), [({"kind": "mo"}, "off, mi, hd"), ({"to": "tail"}, "both, features")])
def test_bad_requests(arguments, says):
    with pytest.raises(ValueError, match=says):
        information_term(**{"kind": "mi", "features": Z, "labels": Y, "head": HEAD} | arguments)
