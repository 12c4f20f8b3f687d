"""Devices: one mesh with one axis, "data", over which samples are sharded. The only place that makes a mesh."""

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def make_mesh(num_devices=None):
    """A mesh of the first devices (all by default); axes are Auto: the compiler moves data where it is needed."""
    devices = jax.devices()[:num_devices]
    return jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)


def replicated(tree, mesh=None):
    """Every leaf whole on every device; the tree as it is without a mesh."""
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def sharded_views(transforms, mesh=None):
    """Transforms whose results are sharded over samples, so that everything after them runs data-parallel.

    Sums over the batch (gradients, batch statistics, entropies) stay those of the whole batch.
    """
    if mesh is None:
        return transforms
    rows = NamedSharding(mesh, PartitionSpec("data"))

    def sharded(view):
        return lambda key, x: jax.lax.with_sharding_constraint(view(key, x), rows)

    return {name: sharded(view) for name, view in transforms.items()}
