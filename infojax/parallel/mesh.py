"""Devices: one mesh with one axis, "data", over which samples are sharded. The only place that makes a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

AXIS = "data"
SPLIT, WHOLE = PartitionSpec(AXIS), PartitionSpec()


def make_mesh(num_devices=None):
    """A mesh of the first devices (all by default); axes are Auto: the compiler moves data where it is needed."""
    devices = jax.devices()[:num_devices]
    return jax.make_mesh((len(devices),), (AXIS,), (AxisType.Auto,), devices=devices)


def replicated(tree, mesh=None):
    """Every leaf whole on every device; the tree as it is without a mesh."""
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, WHOLE))


def shard_rows(tree, mesh=None):
    """Every leaf split by its leading axis, which the number of devices must divide (`padded_rows`)."""
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, SPLIT))


def padded_rows(x, mesh, value=0):
    """x with rows of `value` added until the number of devices divides the number of rows."""
    missing = -x.shape[0] % mesh.size
    if not missing:
        return x
    xp = np if isinstance(x, np.ndarray) else jnp
    return xp.pad(x, ((0, missing),) + ((0, 0),) * (x.ndim - 1), constant_values=value)


def sharded_views(transforms, mesh=None):
    """Transforms whose results are sharded over samples, so that everything after them runs data-parallel.

    Sums over the batch (gradients, batch statistics, entropies) stay those of the whole batch.
    """
    if mesh is None:
        return transforms
    rows = NamedSharding(mesh, SPLIT)

    def sharded(view):
        return lambda key, x: jax.lax.with_sharding_constraint(view(key, x), rows)

    return {name: sharded(view) for name, view in transforms.items()}
