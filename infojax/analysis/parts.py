"""Rows that several processes share: each passes over its part, and what the passes gather is merged."""

import jax

from infojax.measures.moments import ClassStats
from infojax.parallel import over_processes
from infojax.processes import together


def own_part(n, distributed):
    """From which of n rows to before which this process reads: all of them unless distributed."""
    if not distributed:
        return 0, n
    process, processes = jax.process_index(), jax.process_count()
    return n * process // processes, n * (process + 1) // processes


def merged(work, distributed):
    """work() -> tuple of sums and `ClassStats` of a part of the rows; those of all rows, in every process."""
    if not distributed:
        return work()
    with together():
        found = work()

    def reduce(parts, axis):
        return tuple(x.reduce(axis) if isinstance(x, ClassStats) else jax.lax.psum(x, axis) for x in parts)

    return over_processes(reduce, found)
