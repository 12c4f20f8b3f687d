"""Max pooling: the library's values and derivatives, ties included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads

from infojax.models.pooling import max_pool


@pytest.mark.parametrize(("shape", "size"), [((4, 9, 9, 3), 3), ((4, 8, 7, 3), 2), ((2, 10, 11, 2), 3)])
def test_the_first_maximum_takes_the_derivative(shape, size):
    """Few values, so that most windows have ties; sizes that windows do not tile."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 3, shape), jnp.float32)
    library = jax.jit(lambda x: nn.max_pool(x, (size, size), (size, size)))
    weights = jnp.asarray(rng.normal(size=library(x).shape), jnp.float32)
    np.testing.assert_array_equal(max_pool(x, size), library(x))
    found, expected = (
        jax.grad(lambda x, f=f: jnp.sum(weights * f(x)))(x) for f in (lambda x: max_pool(x, size), library)
    )
    np.testing.assert_array_equal(found, expected)


def test_both_modes():
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).permutation(72).reshape(2, 6, 6, 1), jnp.float64)
        check_grads(lambda x: max_pool(x, 3), (x,), order=1, modes=("fwd", "rev"), rtol=1e-6)


def test_other_platforms_keep_the_librarys():
    x = jnp.zeros((2, 6, 6, 1))
    traced = jax.jit(jax.grad(lambda x: jnp.sum(max_pool(x, 3)))).trace(x)
    counts = [traced.lower(lowering_platforms=(p,)).as_text().count("select_and_scatter") for p in ("cpu", "tpu")]
    assert counts == [0, 1]
