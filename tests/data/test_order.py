"""Which samples make up a step: a permutation each epoch, uniform, without state, the same for every host."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from infojax.data.order import _epoch_and_place, _permuted, order, order_with_replacement

KEY = jax.random.key(0)
jitted = jax.jit(order, static_argnums=(2, 3))


def positions(first, last, batch_size, n):
    """Samples at positions first ... last - 1 of the endless sequence."""
    steps = range(first // batch_size, -(-last // batch_size))
    found = np.concatenate([np.asarray(jitted(KEY, step, batch_size, n)) for step in steps])
    return found[first - steps[0] * batch_size :][: last - first]


@pytest.mark.parametrize(("n", "batch_size"), [(1, 1), (2, 5), (10, 3), (97, 97), (1000, 64), (5000, 448)])
def test_every_epoch_is_another_permutation(n, batch_size):
    epochs = positions(0, 3 * n, batch_size, n).reshape(3, n)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(n), (3, 1)))
    if n > 10:
        assert not np.array_equal(epochs[0], epochs[1]) and not np.array_equal(epochs[0], np.arange(n))


def test_the_sequence_does_not_depend_on_the_batch_size():
    np.testing.assert_array_equal(positions(0, 300, 30, 100), positions(0, 300, 100, 100))


def test_it_continues_after_any_step_and_differs_by_key():
    later = np.asarray(jitted(KEY, 17, 64, 1000))
    np.testing.assert_array_equal(later, positions(17 * 64, 18 * 64, 64, 1000))
    assert not np.array_equal(later, np.asarray(jitted(jax.random.key(1), 17, 64, 1000)))


def test_a_traced_step_in_a_loop_gives_the_same():
    looped = jax.lax.map(lambda step: order(KEY, step, 64, 1000), jnp.arange(5))
    np.testing.assert_array_equal(looped.ravel(), positions(0, 320, 64, 1000))


@pytest.mark.parametrize(
    ("step", "batch_size", "n"),
    [(4_000_000_000, 4096, 1_281_167), (123_456_789, 448, 50_000), (2**32 - 1, 8191, 2**31 - 1), (7, 5, 3)],
)
def test_places_beyond_32_bits(step, batch_size, n):
    epoch, place = np.divmod(step * batch_size + np.arange(batch_size), n)
    found = _epoch_and_place(np.uint32(step), batch_size, n)
    np.testing.assert_array_equal(found[0], epoch)
    np.testing.assert_array_equal(found[1], place)


@pytest.mark.parametrize("n", [4, 5, 6])
def test_all_permutations_are_equally_likely(n):
    draws = 20_000
    keys = jax.random.split(jax.random.key(1), draws)
    places = jnp.arange(n, dtype=jnp.uint32)
    found = jax.jit(jax.vmap(lambda key: jax.vmap(lambda place: _permuted(key, place, n))(places)))(keys)
    code = np.asarray(found) @ n ** np.arange(n)
    expected = [np.array(p) @ n ** np.arange(n) for p in itertools.permutations(range(n))]
    counts = np.array([np.sum(code == e) for e in expected])
    assert counts.sum() == draws and len(counts) == math.factorial(n)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_neighbours_of_a_large_set_are_independent():
    """First sample, and difference of the first two, are uniform over epochs."""
    n, draws = 1000, 30_000
    first_two = jax.vmap(lambda key: jax.vmap(lambda place: _permuted(key, place, n))(jnp.arange(2, dtype=jnp.uint32)))
    a, b = np.asarray(jax.jit(first_two)(jax.random.split(jax.random.key(2), draws))).T
    assert stats.chisquare(np.bincount(a, minlength=n)).pvalue > 1e-3
    assert stats.chisquare(np.bincount((b - a) % n, minlength=n)[1:]).pvalue > 1e-3


def test_double_precision_changes_nothing():
    draws = [jax.jit(draw, static_argnums=(2, 3)) for draw in (order, order_with_replacement)]
    expected = [np.asarray(draw(KEY, 3, 64, 1000)) for draw in draws]
    with jax.enable_x64(True):
        found = [np.asarray(draw(KEY, 3, 64, 1000)) for draw in draws]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("batch_size", "n"), [(4, 0), (0, 4), (4, 2**31)])
def test_impossible_sizes(batch_size, n):
    for draw in (order, order_with_replacement):
        with pytest.raises(ValueError, match="both must be at least 1"):
            draw(KEY, 0, batch_size, n)


def test_order_is_the_same_on_a_mesh():
    """Every host computes the whole step and reads its rows; a sharded computation gives the same rows."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    sharded = jax.jit(order, static_argnums=(2, 3), out_shardings=sharding)(KEY, 5, 64, 1000)
    assert len(sharded.sharding.device_set) == 8
    np.testing.assert_array_equal(sharded, jitted(KEY, 5, 64, 1000))


def test_with_replacement():
    draws = np.concatenate([np.asarray(order_with_replacement(KEY, step, 500, 50)) for step in range(20)])
    assert stats.chisquare(np.bincount(draws, minlength=50)).pvalue > 1e-3
    first, again, other = (order_with_replacement(KEY, step, 500, 50) for step in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
