"""The convolution whose kernel derivative comes in pieces: the same numbers as lax's, fewer surprises on CPU only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from infojax.models import convolution
from infojax.models.convolution import _pieces, conv_general_dilated

NHWC = ("NHWC", "HWIO", "NHWC")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(convolution, "_positions", lambda pixels: 32)


def inputs(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(6, 8, 6, 3)), dtype), jnp.asarray(rng.normal(size=(3, 3, 3, 4)), dtype)


def loss(conv, strides=(1, 1), padding="SAME"):
    def value(x, kernel):
        return jnp.sum(jnp.sin(conv(x, kernel, strides, padding, dimension_numbers=NHWC)))

    return value


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("strides", "padding"), [((1, 1), "SAME"), ((2, 2), [(1, 1), (1, 1)]), ((2, 1), "VALID")])
def test_value_and_gradient_are_laxs(strides, padding, dtype):
    x, kernel = inputs(dtype)
    found, expected = (
        jax.value_and_grad(loss(conv, strides, padding), argnums=(0, 1))(x, kernel)
        for conv in (conv_general_dilated, lax.conv_general_dilated)
    )
    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[1][0], expected[1][0])
    assert found[1][1].dtype == dtype
    tolerance = 1e-5 if dtype == jnp.float32 else 0.05
    np.testing.assert_allclose(
        np.float32(found[1][1]), np.float32(expected[1][1]), atol=tolerance * np.abs(np.float32(expected[1][1])).max()
    )


def test_derivatives_of_both_modes_and_second_order():
    x, kernel = (a[:2, :4, :4] if a.ndim == 4 and a.shape[0] == 6 else a for a in inputs())
    with jax.enable_x64(True):
        arrays = [jnp.asarray(np.asarray(a), jnp.float64) for a in (x, kernel)]
        check_grads(loss(conv_general_dilated), arrays, order=2, modes=("fwd", "rev"), rtol=1e-6)


def test_under_vmap_over_kernels():
    x, kernel = inputs()
    kernels = jnp.stack([kernel, 2 * kernel])
    gradient = jax.grad(loss(conv_general_dilated), argnums=1)
    found = jax.vmap(gradient, in_axes=(None, 0))(x, kernels)
    np.testing.assert_allclose(found, jnp.stack([gradient(x, k) for k in kernels]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("platform", "convolutions"), [("cpu", 1 + 1 + 6), ("tpu", 3), ("cuda", 3)])
def test_only_cpu_gets_pieces(platform, convolutions):
    """Forward, derivative in x, and the derivative in the kernel: whole, or six pieces of 48 positions."""
    lowered = jax.jit(jax.grad(loss(conv_general_dilated), argnums=(0, 1))).trace(*inputs())
    text = lowered.lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.convolution") == convolutions


@pytest.mark.parametrize(
    ("shape", "old", "new"),
    [
        ((64, 32, 32), 32, 16), ((64, 16, 16), 8, 8), ((64, 8, 8), 2, 4), ((64, 4, 4), 1, 2),
        ((8, 8, 8), 1, 1), ((960, 32, 32), 32, 32), ((7, 64, 64), 7, 4), ((1, 9, 9), 1, 1),
    ],
)  # fmt: skip
def test_number_of_pieces(shape, old, new, monkeypatch):
    monkeypatch.undo()
    for is_old, pieces in ((True, old), (False, new)):
        monkeypatch.setattr(convolution, "OLD", is_old)
        assert _pieces((*shape, 5)) == pieces


def test_a_batch_that_pieces_do_not_divide(monkeypatch):
    monkeypatch.setattr(convolution, "MOST_PIECES", 4)
    x, kernel = inputs()
    found, expected = (
        jax.grad(loss(conv), argnums=1)(x, kernel) for conv in (conv_general_dilated, lax.conv_general_dilated)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("image", "kernel", "strides", "padding"),
    [((3, 3), (5, 5), (1, 1), "SAME"), ((2, 3), (3, 3), (1, 1), [(1, 1), (1, 1)]), ((3, 3), (3, 4), (2, 1), "SAME"),
     ((3, 3), (3, 3), (1, 1), "VALID"), ((1, 1), (1, 1), (1, 1), "SAME")],
)  # fmt: skip
def test_images_as_small_as_the_kernel(image, kernel, strides, padding):
    """One matrix product on CPU; a convolution elsewhere."""
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((5, *image, 3), (*kernel, 3, 4))]
    found, expected = (
        jax.value_and_grad(loss(conv, strides, padding), argnums=(0, 1))(*arrays)
        for conv in (conv_general_dilated, lax.conv_general_dilated)
    )
    for mine, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)
    traced = jax.jit(loss(conv_general_dilated, strides, padding)).trace(*arrays)
    counts = [
        traced.lower(lowering_platforms=(platform,)).as_text().count("stablehlo.convolution")
        for platform in ("cpu", "tpu")
    ]
    assert counts == [0, 1]
