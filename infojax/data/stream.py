"""Batches of a set that does not fit on the device: read by index in a thread, a few steps ahead."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from infojax.data.source import Source


def stream(
    source: Source, indices: Callable[[int], np.ndarray], steps: Iterable[int], ahead: int = 2
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields (step, samples, labels) for each of `steps`.

    Args:
      source: a `Source`.
      indices: step -> (n,) the samples to read. On several hosts, this host's rows of `order`.
      steps: the run's steps, from where it continues; any iterable.
      ahead: number of steps read before they are requested.
    Raises:
      DataError: from reading, raised at the step it concerns.
    """

    def read(step):
        return step, *source.read(indices(step))

    pool = ThreadPoolExecutor(1, "infojax-stream")
    waiting: deque[Future] = deque()
    try:
        for step in steps:
            waiting.append(pool.submit(read, step))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
