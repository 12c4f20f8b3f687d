"""Decoding many pictures at once: in threads, or in processes that are told what to decode.

Pillow decodes without the interpreter's lock, so threads keep a few cores busy. With more cores the lock becomes the
limit, and processes take over. They are plain subprocesses of this module that read tasks from stdin and write arrays
to stdout: a worker sees the end of its input, and ends, however this process ended; nothing is forked from a process
with JAX's threads, and the user's main module is not imported again.

Grain, the field's loader for JAX, was considered. Its workers run a whole pipeline including the sampler, whose
shuffle is Grain's own, while a step here may draw only the samples that `order` gives, a jitted function of (seed,
step): the same that a step draws from a set on the devices. What would be left of it, a pool of workers, is this file.
"""

import atexit
import os
import pickle
import queue
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from infojax.data.source import DataError

THREADS = ThreadPoolExecutor(thread_name_prefix="infojax-decode")
SMALL = 8192  # bytes; handing a smaller picture to another thread takes longer than decoding it
CHUNK = 16  # pictures handed to a process at once
MOST = 32  # processes, where their number is left open


class Workers:
    """Processes that decode.

    Args:
      count: of the processes, which start with the first task.
    """

    def __init__(self, count: int) -> None:
        self._idle: queue.SimpleQueue = queue.SimpleQueue()
        for _ in range(count):
            self._idle.put(None)
        self._threads = ThreadPoolExecutor(count, "infojax-workers")  # each waits for one process

    def decode_all(self, decode: Callable, files: Sequence[Any], names: Sequence[str]) -> list[np.ndarray]:
        """decode(file, name) of each, in order: (H, W, channels) pixels.

        Raises:
          DataError: from decoding, or a worker ended.
        """
        tasks = [(decode, files[i : i + CHUNK], names[i : i + CHUNK]) for i in range(0, len(files), CHUNK)]
        return [pixels for part in self._threads.map(self._ask, tasks) for pixels in part]

    def _ask(self, task):
        process = self._idle.get()
        try:
            process = process or _started()
            pickle.dump(task, process.stdin, pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()
            found = pickle.load(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            code, process = process and _ended(process), None
            raise DataError(
                f"a worker that decodes pictures ended with code {code}; where memory is short, take fewer: "
                "--config.data.workers"
            ) from None
        finally:
            self._idle.put(process)
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        """Ends the processes."""
        self._threads.shutdown(wait=True)
        while not self._idle.empty():
            if (process := self._idle.get()) is not None:
                _ended(process)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences Pillow's warnings: what cannot be read is an error, what can be is fine. Not to be used in threads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


_workers: Workers | None = None


def use_workers(count: int) -> None:
    """Sets the number of processes that decode pictures from now on; 0: threads of this one, -1: one process per core.

    At most `MOST` processes if their number is left open.
    """
    global _workers
    if _workers is not None:
        _workers.close()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(cores, MOST) if count < 0 else count
    _workers = Workers(count) if count else None


def decode_all(decode: Callable, files: Sequence[Any], names: Sequence[str]) -> list[np.ndarray]:
    """decode(file, name) of each, in order: in processes after `use_workers`, else in threads.

    Args:
      files: paths, or contents of files; names: what to call them in errors.
    Returns:
      (H, W, channels) pixels of each.
    Raises:
      DataError: from decoding.
    """
    contents = [file for file in files if isinstance(file, bytes)]
    small = sum(map(len, contents)) < SMALL * len(contents)
    if _workers is not None and not small and len(files) > CHUNK:
        return _workers.decode_all(decode, files, names)
    with quiet():
        return list((map if small else THREADS.map)(decode, files, names))


atexit.register(use_workers, 0)


def _started():
    # The package as this process sees it, installed or not, before anything of the same name.
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", "from infojax.data.workers import serve; serve()"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)


def _ended(process):
    """The exit code of a worker, once its input has ended."""
    with suppress(OSError):  # nobody reads what is left
        process.stdin.close()
    process.stdout.close()
    return process.wait()


def serve() -> None:
    """What a worker does until its input ends. Signals to the whole group are for the process that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tasks, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not reach the answers
    with quiet(), suppress(EOFError, OSError):  # the other end is gone
        while True:
            decode, files, names = pickle.load(tasks)
            try:
                found: Any = list(map(decode, files, names))
            except DataError as error:
                found = error
            pickle.dump(found, answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
