"""NumPy work shared by all cores of the host, with one BLAS thread per piece.

The threads of OpenBLAS busy-wait for each other several times per column of a decomposition. With other work on the
cores this takes ten times longer than a single thread, while one piece of work per core needs no waiting at all.
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
    """Cores that NumPy may use: those of the process, but at most as many as the initial thread limit of BLAS."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    found = [] if _blas() is None else [one["num_threads"] for one in _blas().info() if one["user_api"] == "blas"]
    return max(min([cores, *found]), 1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Limits BLAS to one thread; with nested or concurrent uses the limit ends with the last of them."""
    global _users, _limit
    count()  # read before the limit changes it
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
    """[f(piece) for each piece], on all cores; `f` should only call NumPy, which releases Python's lock."""
    pieces = list(pieces)
    workers = min(count(), len(pieces))
    with one_thread():
        if workers < 2:
            return [f(piece) for piece in pieces]
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(f, pieces))
