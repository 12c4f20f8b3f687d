"""Class statistics and collapse on eight devices equal those on one, in value and gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from infojax.measures.collapse import collapse_from_passes, neural_collapse
from infojax.measures.moments import SCATTERS, class_stats
from infojax.measures.passes import SecondPass, second_pass
from infojax.measures.variability import (
    between_inverse,
    nc1,
    nc1_from_energy,
    nc1_from_stats,
    within_energy,
)

SAMPLES, CLASSES, DIM = 48, 4, 6


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def mesh_of(devices):
    assert len(jax.devices()) >= devices
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])


def make_data():
    """name -> (features, labels, weights); six samples go to each of eight devices."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), (20, 14, 10, 4))
    means, common = rng.normal(size=(CLASSES, DIM)), 5 * rng.normal(size=DIM)
    z = common + means[labels] + 0.7 * rng.normal(size=(SAMPLES, DIM))
    shuffle = rng.permutation(SAMPLES)
    holes = np.ones(SAMPLES)
    holes[:8] = holes[-2:] = 0  # the first device has no sample at all
    padded = z.copy()
    padded[holes == 0] = np.nan
    unknown = labels.copy()
    unknown[[9, 20, 47]] = -1, CLASSES, 99
    return {
        "sorted, most classes absent from a device": (z, labels, np.ones(SAMPLES)),
        "shuffled": (z[shuffle], labels[shuffle], np.ones(SAMPLES)),
        "weighted, padded, with unknown labels": (padded, unknown, holes * rng.uniform(0.2, 3, SAMPLES)),
    }


DATA = make_data()
HEAD, BIAS = (np.random.default_rng(1).normal(size=s) for s in ((CLASSES, DIM), CLASSES))
SPLIT, COMMON = P("data"), P()


def on_devices(function, devices, out_specs=COMMON):
    """function(z, labels, weights), the samples split over devices."""
    return jax.shard_map(function, mesh=mesh_of(devices), in_specs=(SPLIT,) * 3, out_specs=out_specs)


def assert_trees_close(actual, expected, **tolerance):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def all_kinds(z, labels, weights):
    return [class_stats(z, labels, CLASSES, weights=weights, scatter=kind) for kind in SCATTERS]


def all_kinds_reduced(z, labels, weights):
    return [stats.reduce("data") for stats in all_kinds(z, labels, weights)]


def weighed(tree):
    """One number that depends on every entry."""
    rng = np.random.default_rng(2)
    leaves = jax.tree.leaves(tree)
    return sum(jnp.sum(jnp.where(jnp.isfinite(x), x, 0) * rng.normal(size=x.shape)) for x in leaves)


def value_and_gradient(function):
    """A tree, and the gradient of `weighed` of it, compiled once."""

    @jax.jit
    def both(z, *rest):
        value, pull = jax.vjp(lambda z: function(z, *rest), z)
        return value, pull(jax.grad(weighed)(value))[0]

    return both


one_device = value_and_gradient(all_kinds)
eight_devices = value_and_gradient(on_devices(all_kinds_reduced, 8))


@pytest.mark.parametrize("data", DATA)
def test_reduced_moments(x64, data):
    expected, gradient = one_device(*DATA[data])
    actual, gradient_on_eight = eight_devices(*DATA[data])
    assert [stats.kind for stats in actual] == list(SCATTERS)
    assert_trees_close(actual, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(gradient_on_eight, gradient, rtol=1e-10, atol=1e-10)
    counted = (DATA[data][2] > 0) & (DATA[data][1] >= 0) & (DATA[data][1] < CLASSES)
    assert (np.abs(gradient[counted]).max(axis=1) > 1e-3).all()
    np.testing.assert_array_equal(gradient[~counted], 0)


def test_gradient_taken_on_the_devices(x64):
    # as a training step takes it: each device differentiates the common number by its own samples
    def local(z, labels, weights):
        return jax.grad(lambda z: weighed(all_kinds_reduced(z, labels, weights)))(z)

    data = DATA["weighted, padded, with unknown labels"]
    gradient = jax.jit(on_devices(local, 8, out_specs=SPLIT))(*data)
    np.testing.assert_allclose(gradient, one_device(*data)[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_fewer_devices(x64, devices):
    data = DATA["sorted, most classes absent from a device"]
    reduced = jax.jit(on_devices(lambda *a: class_stats(*a[:2], CLASSES, weights=a[2]).reduce("data"), devices))
    assert_trees_close(reduced(*data), one_device(*data)[0][0], rtol=1e-12, atol=1e-12)


def test_float32_keeps_the_digits_of_collapsed_classes():
    # E z^2 - mean^2 summed over devices would have none: z^2 is 1e8 times larger than the spread
    rng = np.random.default_rng(3)
    labels = np.arange(SAMPLES) % CLASSES
    means = 100 + rng.normal(size=(CLASSES, DIM))
    z = (means[labels] + 1e-2 * rng.normal(size=(SAMPLES, DIM))).astype(np.float32)
    exact = [z[labels == c].astype(np.float64) for c in range(CLASSES)]
    squares = [np.sum((rows - rows.mean(0)) ** 2) for rows in exact]
    stats = jax.jit(on_devices(all_kinds_reduced, 8))(z, labels, np.ones(SAMPLES, np.float32))[1]
    np.testing.assert_allclose(stats.squares, squares, rtol=1e-4)
    np.testing.assert_allclose(np.trace(np.asarray(stats.scatter)), sum(squares), rtol=1e-4)


ROUTES = ("thesis", "equi_separation", "trace_quotient")  # the other conventions take the first one's


def measured(z, labels, weights):
    """Collapse on one device."""
    stats = class_stats(z, labels, CLASSES, weights=weights, scatter="class")
    each = {c: nc1(z, labels, CLASSES, convention=c, weights=weights) for c in ROUTES}
    return neural_collapse(z, labels, HEAD, BIAS, weights=weights), each, nc1_from_stats(stats)


def measured_on_devices(z, labels, weights):
    """The same by sums over devices."""
    psum = partial(jax.lax.psum, axis_name="data")
    stats = class_stats(z, labels, CLASSES, weights=weights, scatter="class").reduce("data")
    each = {}
    for name in ROUTES:
        inverse = between_inverse(stats, convention=name)
        energy = psum(within_energy(inverse, stats, z, labels, weights))
        each[name] = nc1_from_energy(energy, stats, convention=name)[0]
    inverse = between_inverse(stats)
    sums = second_pass(stats, z, labels, HEAD, BIAS, inverse=inverse, weights=weights)
    sums = SecondPass(*map(psum, sums))
    return collapse_from_passes(stats, sums, HEAD), each, nc1_from_stats(stats)


measured_on_one = value_and_gradient(measured)
measured_on_eight = value_and_gradient(on_devices(measured_on_devices, 8))


@pytest.mark.parametrize("data", DATA)
def test_neural_collapse(x64, data):
    expected, gradient = measured_on_one(*DATA[data])
    actual, gradient_on_eight = measured_on_eight(*DATA[data])
    assert np.isfinite(list(map(float, expected[0][:-1]))).all()
    assert_trees_close(actual, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(gradient_on_eight, gradient, rtol=1e-9, atol=1e-9)
    assert np.abs(gradient).max() > 1e-2


def test_arrays_that_are_spread_over_devices_already(x64):
    data = DATA["sorted, most classes absent from a device"]
    spread = [jax.device_put(x, NamedSharding(mesh_of(8), SPLIT)) for x in data]
    assert len(spread[0].sharding.device_set) == 8
    expected, gradient = one_device(*data)
    actual, gradient_of_spread = one_device(*spread)  # the compiler decides who sums what
    assert_trees_close(actual, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(gradient_of_spread, gradient, rtol=1e-10, atol=1e-10)
    collapsed = neural_collapse(*spread[:2], HEAD, BIAS, weights=spread[2])  # eager
    expected = measured_on_one(*data)[0][0]
    assert_trees_close(collapsed, expected, rtol=1e-10, atol=1e-12)
