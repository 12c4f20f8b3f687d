"""Devices: one mesh with one axis, "data", over which samples are sharded. The only place that makes a mesh.

The mesh spans the devices of all processes. What is done with its arrays is done by every process, in the same order.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def make_mesh(num_devices=None):
    """A mesh of the first devices, equally many of each process (all by default).

    Axes are Auto: the compiler moves data where it is needed.

    Raises:
      ValueError: the processes cannot share so many evenly.
    """
    processes = jax.process_count()
    share, rest = divmod(num_devices or jax.device_count(), processes)
    if rest:
        raise ValueError(f"{num_devices} devices cannot be shared evenly by {processes} processes")
    devices = [device for process in range(processes) for device in jax.local_devices(process)[:share]]
    return jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)


def replicated(tree, mesh=None):
    """Every leaf whole on every device; the tree as it is without a mesh. Every process gives the same values."""
    if mesh is None:
        return tree
    everywhere = NamedSharding(mesh, PartitionSpec())
    if everywhere.is_fully_addressable:
        return jax.device_put(tree, everywhere)

    def spread(leaf):  # device_put would send every leaf to every process, to compare them
        x = leaf if isinstance(leaf, np.ndarray) else np.asarray(jnp.asarray(leaf))
        return jax.make_array_from_callback(x.shape, everywhere, lambda index: x[index])

    return jax.tree.map(spread, tree)


def here(tree):
    """Every leaf whole on this process's first device, from wherever the devices hold it.

    What follows needs no other process, and one device works instead of all alike. Every process calls it.
    """
    return jax.tree.map(_here, tree)


def _here(leaf):
    if not isinstance(leaf, jax.Array) or len(leaf.sharding.device_set) == 1:
        return leaf
    if not leaf.is_fully_replicated:
        leaf = jax.jit(_identity, out_shardings=NamedSharding(leaf.sharding.mesh, PartitionSpec()))(leaf)
    return leaf.addressable_data(0)


def _identity(x):
    return x


def own_rows(num_rows, mesh=None):
    """Which of `num_rows` sharded rows the devices of this process hold, (n,) ascending; all without a mesh."""
    if mesh is None:
        return np.arange(num_rows)
    held = NamedSharding(mesh, PartitionSpec("data")).addressable_devices_indices_map((num_rows,))
    return np.unique(np.concatenate([np.arange(num_rows)[rows] for (rows,) in held.values()]))


def from_own_rows(tree, mesh=None):
    """Arrays sharded over rows, of which every process gives its `own_rows`, numpy (n, ...)."""
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    return jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec("data")), tree)


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


def map_matrices(f, mesh=None):
    """f of one matrix, mapped over the leading axis; on a mesh every device takes its share of the matrices.

    Under plain jit a TPU would gather the whole batch of matrices on every chip to decompose them.
    """
    if mesh is None:
        return jax.vmap(f)
    rows = PartitionSpec("data")
    # check_vma: JAX's own decomposition on TPU does not trace with it
    shares = jax.shard_map(jax.vmap(f), mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)

    def mapped(matrices):
        padding = jnp.broadcast_to(matrices[:1], (-len(matrices) % mesh.size, *matrices.shape[1:]))
        found = shares(jnp.concatenate([matrices, padding]))
        return jax.tree.map(lambda leaf: leaf[: len(matrices)], found)

    return mapped


def over_processes(reduce, tree):
    """reduce(tree, axis) over an axis of processes, each with a tree of its own; the result on this process's device.

    Args:
      reduce: of arrays and the name of a mapped axis, as lambda stats, axis: stats.reduce(axis); gives the same in all.
    """
    first = [jax.local_devices(process)[0] for process in range(jax.process_count())]
    mesh, axis = Mesh(np.array(first), ("processes",)), PartitionSpec("processes")

    def stacked(leaf):
        return jax.make_array_from_process_local_data(NamedSharding(mesh, axis), np.asarray(leaf)[None])

    def reduced(tree):
        return reduce(jax.tree.map(lambda leaf: leaf[0], tree), "processes")

    mapped = jax.shard_map(reduced, mesh=mesh, in_specs=axis, out_specs=PartitionSpec())
    return here(jax.jit(mapped)(jax.tree.map(stacked, tree)))
