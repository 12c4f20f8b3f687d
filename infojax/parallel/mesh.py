"""Devices: one mesh with one axis, "data", over which samples are sharded. The only place that makes a mesh.

The mesh spans the devices of all processes. Every process must do the same with its arrays, in the same order.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from infojax.measures.scalars import whole_number

AXIS = "data"
SPLIT, WHOLE = PartitionSpec(AXIS), PartitionSpec()


def make_mesh(num_devices: int | None = None) -> Mesh:
    """A mesh of the first devices, equally many from each process (all by default).

    Axes are Auto: the compiler moves data where it is needed.

    Raises:
      ValueError: there are not that many, or the processes cannot share them evenly.
    """
    processes = jax.process_count()
    if num_devices is not None and not 1 <= whole_number(num_devices, "num_devices") <= jax.device_count():
        raise ValueError(
            f"num_devices must be from 1 to {jax.device_count()}, the devices there are; got {num_devices}"
        )
    share, rest = divmod(num_devices or jax.device_count(), processes)
    if rest:
        raise ValueError(f"{num_devices} devices cannot be shared evenly by {processes} processes")
    devices = [device for process in range(processes) for device in jax.local_devices(process)[:share]]
    return jax.make_mesh((len(devices),), (AXIS,), (AxisType.Auto,), devices=devices)


def replicated(tree: Any, mesh: Mesh | None = None) -> Any:
    """Every leaf whole on every device; the tree unchanged without a mesh. Every process gives the same values."""
    return tree if mesh is None else _placed(tree, NamedSharding(mesh, WHOLE))


def shard_rows(tree: Any, mesh: Mesh | None = None) -> Any:
    """Every leaf split along its leading axis, which the number of devices must divide; unchanged without a mesh.

    Every process gives the same whole values; `from_local_rows` takes a share from each.
    """
    return tree if mesh is None else _placed(tree, NamedSharding(mesh, SPLIT))


def _placed(tree, sharding):
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def spread(leaf):  # device_put would send every leaf to every process to compare them
        x = leaf if isinstance(leaf, np.ndarray) else np.asarray(jnp.asarray(leaf))
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(spread, tree)


def gather(tree: Any, mesh: Mesh | None = None) -> Any:
    """Inside a compiled program: every leaf whole on every device, gathered once; the tree unchanged without a mesh."""
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, WHOLE))


def split(tree: Any, mesh: Mesh | None = None) -> Any:
    """Inside a compiled program: every leaf split along its leading axis, of any length; unchanged without a mesh."""
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, SPLIT))


def local_copy(tree: Any) -> Any:
    """Every leaf whole on this process's first device, from wherever the devices hold it.

    What follows needs no other process and runs on one device, not identically on all. Every process calls it.
    """
    return jax.tree.map(_local, tree)


def _local(leaf):
    if not isinstance(leaf, jax.Array) or len(leaf.sharding.device_set) == 1:
        return leaf
    if not leaf.is_fully_replicated:
        leaf = jax.jit(_identity, out_shardings=NamedSharding(leaf.sharding.mesh, WHOLE))(leaf)
    return leaf.addressable_data(0)


def _identity(x):
    return x


def local_rows(num_rows: int, mesh: Mesh | None = None) -> np.ndarray:
    """Which of `num_rows` sharded rows the devices of this process hold, (n,) ascending; all without a mesh."""
    if mesh is None:
        return np.arange(num_rows)
    held = NamedSharding(mesh, SPLIT).addressable_devices_indices_map((num_rows,))
    mine = [np.arange(num_rows)[rows] for (rows,) in held.values()]  # type: ignore[misc]  # no None of these
    return np.unique(np.concatenate(mine))


def from_local_rows(tree: Any, mesh: Mesh | None = None, axis: int = 0) -> Any:
    """Arrays sharded over rows, to which every process contributes its `local_rows`, numpy (n, ...).

    Args:
      axis: that of the rows, if it is not the leading one.
    """
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    return jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS)), tree)


def padded_rows(x: Any, mesh: Mesh, value: float = 0) -> Any:
    """x with rows of `value` added until the number of devices divides the number of rows."""
    missing = -x.shape[0] % mesh.size
    if not missing:
        return x
    xp = np if isinstance(x, np.ndarray) else jnp
    return xp.pad(x, ((0, missing),) + ((0, 0),) * (x.ndim - 1), constant_values=value)


def sharded_views(
    transforms: Mapping[str, Callable[..., jax.Array]], mesh: Mesh | None = None
) -> Mapping[str, Callable[..., jax.Array]]:
    """Transforms whose results are sharded over samples, so that everything after them runs data-parallel.

    Sums over the batch (gradients, batch statistics, entropies) stay those of the whole batch.
    """
    if mesh is None:
        return transforms
    rows = NamedSharding(mesh, SPLIT)

    def sharded(view):
        return lambda key, x: jax.lax.with_sharding_constraint(view(key, x), rows)

    return {name: sharded(view) for name, view in transforms.items()}


def over_processes(reduce: Callable[[Any, str], Any], tree: Any) -> Any:
    """reduce(tree, axis) over an axis of processes, each with a tree of its own; the result on this process's device.

    Args:
      reduce: function of arrays and the name of a mapped axis, such as lambda stats, axis: stats.reduce(axis); its
        result is the same in every process.
    """
    first = [jax.local_devices(process)[0] for process in range(jax.process_count())]
    mesh, axis = Mesh(np.array(first), ("processes",)), PartitionSpec("processes")

    def stacked(leaf):
        return jax.make_array_from_process_local_data(NamedSharding(mesh, axis), np.asarray(leaf)[None])

    def reduced(tree):
        return reduce(jax.tree.map(lambda leaf: leaf[0], tree), "processes")

    mapped = jax.shard_map(reduced, mesh=mesh, in_specs=axis, out_specs=WHOLE)
    return local_copy(jax.jit(mapped)(jax.tree.map(stacked, tree)))
