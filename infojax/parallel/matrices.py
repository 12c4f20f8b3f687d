"""Many matrices, for instance one per class, layer, head or step: each device decomposes its share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from infojax.parallel.mesh import SPLIT


def map_matrices(f: Callable[..., Any], mesh: Mesh | None = None) -> Callable[..., Any]:
    """f of one matrix (or of several arrays) as a function of batches of them, split over the devices of a mesh.

    Plain jit does not do that on TPU: eigendecompositions of sizes above 256 are a loop over the batch, for which the
    whole batch is gathered and every device does all the work. Inside `shard_map` nothing is gathered and each device
    maps over its ceil(n / devices) matrices; a batch that the number of devices does not divide is padded with copies
    of its last entry.

    Args:
      f: arrays -> pytree of arrays; it must not use a mapped axis, nor close over arrays that lie on the mesh.
      mesh: from `make_mesh`, or None for jax.vmap.
    Returns:
      Function of arrays (n, ...), jittable and differentiable; results (n, ...), split over the devices if their
      number divides n.
    """
    mapped = jax.vmap(f)
    if mesh is None:
        return mapped
    # The check for missing reductions is pointless, as there are none, and JAX's own eigh for TPU does not pass it.
    on_devices = jax.shard_map(mapped, mesh=mesh, in_specs=SPLIT, out_specs=SPLIT, check_vma=False)

    def run(*batches):
        n = jax.tree.leaves(batches)[0].shape[0]
        missing = -n % mesh.size

        def pad(x):
            return jnp.pad(x, ((0, missing),) + ((0, 0),) * (x.ndim - 1), mode="edge")

        if not missing:
            return on_devices(*batches)
        return jax.tree.map(lambda x: x[:n], on_devices(*jax.tree.map(pad, batches)))

    return run
