"""Flax modules as `Net`s."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from infojax.train.networks import as_net


class Listed(nn.Module):
    """A module that cannot be hashed, because of its list."""

    widths: list

    @nn.compact
    def __call__(self, x, train=False):
        for width in self.widths:
            x = nn.Dense(width)(x)
        return x


class Wide(nn.Module):
    """One layer."""

    width: int

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(self.width)(x)


def test_equal_modules_share_a_net():
    """JAX keeps programs by `Net`: new ones for each run would fill the memory of a process."""
    x = jnp.zeros((3, 5))
    net = as_net(Wide(4), x)
    assert as_net(Wide(4), jax.ShapeDtypeStruct(x.shape, x.dtype)) is net
    others = [as_net(Wide(2), x), as_net(Wide(4), x[:, :2]), as_net(Wide(4), x, param_dtype=jnp.bfloat16)]
    assert all(other is not net for other in others)
    shapes = [jax.tree.leaves(n.init(jax.random.key(0))[0])[1].shape for n in [net, *others]]
    assert shapes == [(5, 4), (5, 2), (2, 4), (5, 4)]


def test_modules_that_cannot_be_hashed():
    with pytest.raises(TypeError):
        hash(Listed([4, 2]))
    params, state = as_net(Listed([4, 2]), jnp.zeros((3, 5))).init(jax.random.key(0))
    assert params["Dense_1"]["kernel"].shape == (4, 2) and not state
