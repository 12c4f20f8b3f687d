"""Work of NumPy on all cores of the host, one thread of BLAS for each piece of it.

The threads of OpenBLAS wait for each other in a loop, several times for each column of a decomposition. Where other
work is on the cores that takes ten times longer than one thread alone; and one piece of the work for each core needs
no waiting at all.
"""

import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_lock, _users, _limit = threading.Lock(), 0, None


@functools.cache
def _blas() -> Any:
    """The controller of NumPy's BLAS; None without threadpoolctl, which comes with scikit-learn."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()


@functools.cache
def count() -> int:
    """Cores that NumPy may use: those of the process, and no more than the threads that BLAS was allowed at first."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    found = [] if _blas() is None else [one["num_threads"] for one in _blas().info() if one["user_api"] == "blas"]
    return max(min([cores, *found]), 1)


@contextmanager
def one_thread() -> Iterator[None]:
    """BLAS on one thread; the limit ends with the last of those who asked for it at the same time."""
    global _users, _limit
    count()  # before the limit
    with _lock:
        if not _users and _blas() is not None:
            _limit = _blas().limit(limits=1, user_api="blas")
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users and _limit is not None:
                _limit.restore_original_limits()
                _limit = None


def shared(f: Callable[[T], R], pieces: Iterable[T]) -> list[R]:
    """[f(piece) for each piece], on all cores; `f` is of NumPy alone, which lets other threads work meanwhile."""
    pieces = list(pieces)
    workers = min(count(), len(pieces))
    with one_thread():
        if workers < 2:
            return [f(piece) for piece in pieces]
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(f, pieces))
