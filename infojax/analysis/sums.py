"""Accumulates sums over the rows in two passes, block by block, with memory independent of the number of rows.

The first pass gathers class moments of the features and of their unit rows, the second everything that needs the class
means or the feature mean. All in float64, whatever the stored dtype. With several processes, each passes over a part
of the rows, and they merge their sums after each pass.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from infojax.analysis.inputs import Inputs, Options
from infojax.analysis.rows import InputError
from infojax.measures import arrays, host, passes, spectra, variability
from infojax.measures.moments import ClassStats
from infojax.parallel import over_processes
from infojax.processes import together

# Up to this many rows (or this side of a matrix) everything is computed exactly in memory, unless more is asked for: a
# float64 eigenvalue problem of this size takes seconds. Larger sets stream; what cannot uses a sample of this size.
DIRECT_ROWS = 4096
# Floats that the scatter matrices of all classes may take together (32 MiB; a pass holds about ten copies).
SCATTER_BUDGET = 2**22


class Route(NamedTuple):
    """Which sums are kept, depending on what fits.

    Attributes:
      direct: whether all rows are held in memory, so that the passes need no scatter matrix.
      per_class: whether the unit rows of every class get their own scatter matrix.
      scatter, unit_scatter: the scatter of the `ClassStats` of the features, and of their unit rows.
      sample: indices of the rows for what does not stream; all rows if direct.
    """

    direct: bool
    per_class: bool
    scatter: str | None
    unit_scatter: str | None
    sample: np.ndarray


class Sums(NamedTuple):
    """The sums over all rows, divided by `scale`.

    Attributes:
      route: which sums were kept.
      scale: a power of two near the largest entry.
      raw, unit, unit_centered: class moments of the features, of their unit rows, and of the centred unit rows.
      zero_rows: number of zero rows.
      second: the sums that need the class means.
      energies: within-class energies, by the convention of each distinct S_B.
    """

    route: Route
    scale: np.ndarray
    raw: ClassStats
    unit: ClassStats
    zero_rows: int
    second: passes.SecondPass
    unit_centered: ClassStats
    energies: dict[str, Any]


def route_of(inputs: Inputs, options: Options) -> Route:
    """The route whose sums fit for these rows."""
    n, dim = inputs.rows.shape
    most = options.exact or DIRECT_ROWS
    direct = n <= most
    scatter = "within" if dim <= most and not direct else None
    per_class = scatter is not None and inputs.num_classes * dim * dim <= SCATTER_BUDGET
    unit_scatter = "class" if per_class else scatter
    return Route(direct, per_class, scatter, unit_scatter, sample_of(n, most, options.seed))


def sample_of(n: int, size: int, seed: int) -> np.ndarray:
    """Sorted indices of `size` of n rows drawn at random; of all rows if there are no more."""
    if n <= size:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, size, replace=False))


def accumulate(inputs: Inputs, options: Options) -> Sums:
    """Both passes over the rows.

    Raises:
      InputError: a row is not finite, or there are fewer rows than announced.
    """
    route, scale = route_of(inputs, options), _scale(inputs.rows, options.chunk)
    if route.direct and inputs.labels is None and not options.distributed:
        return _of_held_rows(inputs, options, route, scale)
    part = _Part(inputs, options, scale, *own_part(inputs.rows.shape[0], options.distributed))
    raw, unit, zero_rows = merged(partial(_first_pass, part, route), options.distributed)
    second = merged(partial(_second_pass, part, raw, route.unit_scatter), options.distributed)
    return Sums(route, scale, raw, unit, int(zero_rows), *second)


def _of_held_rows(inputs, options, route, scale):
    """The sums for rows without labels, which are all held in memory: spectra use the rows themselves."""
    z = inputs.rows.take(route.sample).astype(np.float64) / scale
    if len(z) < inputs.rows.shape[0]:
        raise InputError(f"read {len(z)} rows where {inputs.rows.shape[0]} were announced: the file is truncated")
    if not (finite := np.isfinite(z.sum(axis=1)) | np.isfinite(z).all(axis=1)).all():
        raise _not_finite(inputs.name, int(np.argmin(finite)))
    u, live = host.unit_rows(z)
    none = np.zeros(1)
    unit = ClassStats(np.array([float(len(z))]), u.mean(axis=0, keepdims=True), none)
    options.progress(len(z), len(z), "directions")
    return Sums(route, scale, unit, unit, int(np.sum(~live)), passes.SecondPass(none, none, none), unit, {})


def _not_finite(name, row):
    return InputError(f"{name}: row {row} holds nan or inf; expected finite numbers: drop such rows")


# Rows that several processes share


def own_part(n: int, distributed: bool) -> tuple[int, int]:
    """The range (start, stop) of the n rows that this process reads: all of them unless distributed."""
    if not distributed:
        return 0, n
    process, processes = jax.process_index(), jax.process_count()
    return n * process // processes, n * (process + 1) // processes


def merged(work: Callable[[], tuple], distributed: bool) -> tuple:
    """work() gives sums and `ClassStats` of a part of the rows; returns those of all rows, in every process."""
    if not distributed:
        return work()
    with together():
        found = work()

    def reduce(parts, axis):
        return tuple(x.reduce(axis) if isinstance(x, ClassStats) else jax.lax.psum(x, axis) for x in parts)

    return over_processes(reduce, found)


@dataclass(frozen=True)
class _Part:
    """The rows of one process, from `start` up to `stop` (exclusive)."""

    inputs: Inputs
    options: Options
    scale: np.ndarray
    start: int
    stop: int

    def blocks(self, phase: str) -> Iterator[tuple[jax.Array, jax.Array, jax.Array]]:
        """(features / scale, labels, weights) as jax arrays of equal sizes: the last block is padded with weight 0."""
        rows, at, size = self.inputs.rows, self.start, 0
        for block in rows.blocks(min(self.options.chunk, rows.shape[0]), self.start, self.stop):
            count = len(block)
            size = size or count  # blocks of wide rows may be smaller than requested
            z = np.zeros((size, rows.shape[1]))
            z[:count] = block
            z /= self.scale
            y = np.full(size, -1, np.int32)
            y[:count] = self.inputs.classes[at : at + count]
            yield jnp.asarray(z), jnp.asarray(y), jnp.asarray((np.arange(size) < count).astype(np.float64))
            at += count
            self.options.progress(at - self.start, self.stop - self.start, phase)
        if at != self.stop:
            raise InputError(f"read {at} rows where {self.stop} were announced: the file is truncated")


def _scale(rows, chunk):
    """The power of two nearest to the largest entry of the first rows; dividing by it does not round.

    Only the norms of the class means depend on it; without it, squares could overflow or underflow.
    """
    first = np.abs(next(rows.blocks(min(chunk, rows.shape[0]), 0, rows.shape[0])).astype(np.float64))
    return np.asarray(arrays.power_of_two(jnp.asarray(first.max(initial=0))))


# The passes


@jax.jit
def _first_block(raw, unit, zero_rows, z, y, w):
    u, live = spectra.unit_rows(z)
    finite = jnp.isfinite(z).all(axis=1)
    zero_rows = zero_rows + jnp.sum(jnp.where(live, 0, w))
    return raw.update(z, y, w), unit.update(u, y, w), zero_rows, jnp.argmin(finite), finite.all()


def _first_pass(part, route):
    """Moments of the features and of their unit rows, and the number of zero rows."""
    inputs = part.inputs
    empty = partial(ClassStats.init, inputs.num_classes, inputs.rows.shape[1], dtype=jnp.float64)
    raw, unit, zero_rows = empty(scatter=route.scatter), empty(scatter=route.unit_scatter), jnp.zeros(())
    for k, (z, y, w) in enumerate(part.blocks("class means")):
        raw, unit, zero_rows, worst, finite = _first_block(raw, unit, zero_rows, z, y, w)
        if not finite:
            row = part.start + k * len(z) + int(worst)
            raise _not_finite(inputs.name, row)
    return raw, unit, zero_rows


@jax.jit
def _second_block(carry, raw, inverses, head, bias, mean, floor, z, y, w):
    second, unit, energies = carry
    u, live = spectra.unit_rows(z - mean, floor)
    added = passes.second_pass(raw, z, y, head, bias, weights=w)
    energies = {key: total + variability.within_energy(inverses[key], raw, z, y, w) for key, total in energies.items()}
    return jax.tree.map(jnp.add, second, added), unit.update(u, y, w), energies


def _second_pass(part, raw, unit_scatter):
    """`SecondPass`, moments of the centred unit rows, and within-class energies for each distinct S_B."""
    num_classes, dim = raw.mean.shape
    unit = ClassStats.init(num_classes, dim, scatter=unit_scatter, dtype=jnp.float64)
    inverses, mean, floor = _around_means(raw)
    zeros = jnp.zeros(num_classes)
    carry = (passes.SecondPass(zeros, zeros, zeros), unit, dict.fromkeys(inverses, zeros))
    head, bias = passes.same_classifier(part.inputs.head, part.inputs.bias, part.scale)
    for z, y, w in part.blocks("around the means"):
        # Blocks would queue up in memory faster than they are processed.
        carry = jax.block_until_ready(_second_block(carry, raw, inverses, head, bias, mean, floor, z, y, w))
    return carry


@jax.jit
def _around_means(raw):
    """What the second pass needs: T of each distinct S_B, the sample mean (1, D) and its rounding error."""
    names = [] if len(raw.count) == 1 else ["thesis", "papyan", "tding1"]
    inverses = {key: variability.between_inverse(raw, convention=key) for key in names}
    mean = arrays.matmul(raw.count[None], raw.mean) / jnp.sum(raw.count)
    return inverses, mean, 16 * jnp.finfo(mean.dtype).eps * jnp.max(jnp.abs(raw.mean))
