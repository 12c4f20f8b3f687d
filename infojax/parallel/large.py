"""The spectrum of one matrix that is too large, or too slow, for one device: two-sided block Jacobi.

The n columns are split into two blocks of b = n / (2 P) for each of P devices. In a round every device diagonalises the
2b x 2b block of its own pair of blocks, all devices receive all rotations (n 2b numbers) and apply them to the rows of
their columns, and the blocks move on to the next partner; after 2P - 1 rounds, a sweep, every pair has met.
Off-diagonal blocks shrink quadratically: 4 to 8 sweeps in float32. A device holds 2 n b = n^2 / P numbers, and a few
times that while it works.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from infojax.measures import arrays, spectra
from infojax.measures.arrays import ArrayLike
from infojax.parallel.mesh import AXIS, SPLIT, WHOLE

MOST_SWEEPS = 20


@partial(jax.jit, static_argnames="mesh")
def eigenvalues(k: ArrayLike, mesh: Mesh | None = None) -> jax.Array:
    """Ascending eigenvalues of a symmetric positive semi-definite matrix (n, n), those at rounding level set to zero.

    The error is about eps ||K||, as with a dense solver. No derivatives: use the estimators, or one device, for losses.

    Args:
      k: (n, n), on a mesh best split by columns (`jax.P(None, "data")`).
      mesh: None for the dense solver on one device.
    Returns:
      (n,); nan if the sweeps did not converge.
    """
    k = arrays.as_square(k, "k")
    if mesh is None:
        return spectra.eigenvalues(k)
    n, blocks = len(k), 2 * mesh.size
    block = -(-n // blocks)
    missing = blocks * block - n
    # Squares of the entries must neither over- nor underflow.
    largest = jnp.max(jnp.abs(k), initial=0)
    k = k / jnp.where(largest > 0, largest, 1)
    columns = jnp.pad(k, ((0, missing), (0, missing))).reshape(blocks * block, mesh.size, 2 * block)
    solve = partial(_jacobi, devices=mesh.size, block=block)
    # The check for missing reductions is off: JAX's own eigh for TPU does not pass it.
    values, converged = jax.shard_map(
        solve, mesh=mesh, in_specs=jax.P(None, AXIS), out_specs=(SPLIT, WHOLE), check_vma=False
    )(columns)
    # Padding adds zeros, the smallest possible eigenvalues.
    return jnp.where(converged, largest * spectra.support(jnp.sort(values)[missing:]), jnp.nan)


def _tournament(devices):
    """New place of the blocks (first ones of all devices, then second ones) after a round; the first stays."""
    first, second = np.arange(devices), np.arange(devices) + devices
    moved_first = np.concatenate([first[:1], second[:1], first[1:-1]])[:devices]
    moved_second = np.concatenate([second[1:], first[-1:]]) if devices > 1 else second
    return np.concatenate([moved_first, moved_second])


def _jacobi(columns, *, devices, block):
    left, right = columns[:, 0, :block], columns[:, 0, block:]
    me = jax.lax.axis_index(AXIS)
    source = _tournament(devices)
    norm = jnp.sqrt(jax.lax.psum(jnp.sum(columns * columns), AXIS))
    # What rounding leaves in n^2 entries, measured before the last sweep rotates it away.
    tolerance = 4 * jnp.finfo(columns.dtype).eps * len(columns) ** 0.5 * norm
    # Which block of rows each place holds: blocks 2d and 2d + 1 are device d's at first.
    order = jnp.concatenate([jnp.arange(devices) * 2, jnp.arange(devices) * 2 + 1])

    def rounds(carry, _):
        left, right, order, _, off = carry
        mine = order[me], order[me + devices]
        both = jnp.concatenate([left, right], axis=1)
        tiles = both.reshape(2 * devices, block, 2 * block)
        s = jnp.concatenate([tiles[mine[0]], tiles[mine[1]]])
        off = off + 2 * jnp.sum(s[:block, block:] ** 2)
        values, v = jnp.linalg.eigh((s + s.T) / 2)
        # A solver's vectors are orthogonal to about 10 eps, which adds up over rotations; one Newton step repairs it.
        v = v + arrays.matmul(v, jnp.eye(2 * block, dtype=v.dtype) - arrays.matmul(v.T, v)) / 2
        # The smaller values always go to the block of the smaller number, or blocks would swap forever.
        turned = mine[0] > mine[1]
        values, v = jnp.where(turned, values[::-1], values), jnp.where(turned, v[:, ::-1], v)
        rotations = jax.lax.all_gather(v, AXIS)
        both = arrays.matmul(both, v).reshape(2 * devices, block, 2 * block)
        pairs = jnp.concatenate([both[order[:devices]], both[order[devices:]]], axis=1)
        turned_rows = jnp.einsum("pij,pic->pjc", rotations, pairs, precision="highest")
        both = both.at[order[:devices]].set(turned_rows[:, :block]).at[order[devices:]].set(turned_rows[:, block:])
        both = both.reshape(-1, 2 * block)
        left, right = _moved(both[:, :block], both[:, block:], devices)
        return (left, right, order[source], values, off), None

    def sweep(carry):
        left, right, order, values, _, count = carry
        state = left, right, order, values, jnp.zeros((), columns.dtype)
        (left, right, order, values, off), _ = jax.lax.scan(rounds, state, length=2 * devices - 1)
        return left, right, order, values, jnp.sqrt(jax.lax.psum(off, AXIS)), count + 1

    def unfinished(carry):
        return (carry[4] > tolerance) & (carry[5] < MOST_SWEEPS)

    start = left, right, order, jnp.zeros(2 * block, columns.dtype), norm + 1, 0
    *_, values, off, _ = jax.lax.while_loop(unfinished, sweep, start)
    return values, off <= tolerance


def _moved(left, right, devices):
    """The blocks sent to their next places (`_tournament`)."""
    if devices == 1:
        return left, right
    last = devices - 1
    me = jax.lax.axis_index(AXIS)
    # The first ones move up, except on device 0, which sends its second one; the second ones move down.
    up = jnp.where(me == 0, right, left)
    from_below = jax.lax.ppermute(up, AXIS, [(d, d + 1) for d in range(last)])
    down = jax.lax.ppermute(right, AXIS, [(d, d - 1) for d in range(1, devices)])
    return jnp.where(me == 0, left, from_below), jnp.where(me == last, left, down)
