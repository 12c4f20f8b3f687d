"""Rows read in blocks: the protocol, the rows of an array, and a subset of other rows."""

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np


class InputError(ValueError):
    """Bad input; the message is one line: the argument, its value, what was expected, the fix."""


class Rows(Protocol):
    """A matrix of N rows and D columns that is read in blocks and need not fit in memory."""

    shape: tuple[int, int]
    dtype: np.dtype
    in_memory: bool

    def blocks(self, chunk: int, start: int, stop: int) -> Iterator[np.ndarray]:
        """Blocks of at most `chunk` rows from `start` up to `stop` (exclusive), in order; may be called repeatedly."""

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The rows (n, D) at sorted indices (n,)."""


class ArrayRows:
    """`Rows` of an array; further axes are flattened to columns."""

    def __init__(self, array: np.ndarray) -> None:
        self.column_sizes = array.shape[1:]
        self.array = array if array.ndim == 2 else array.reshape(len(array), math.prod(array.shape[1:]))
        self.shape, self.dtype = self.array.shape, self.array.dtype
        self.in_memory = not isinstance(array, np.memmap)

    def blocks(self, chunk: int, start: int, stop: int) -> Iterator[np.ndarray]:
        for first in range(start, stop, chunk):
            yield np.asarray(self.array[first : min(first + chunk, stop)])

    def take(self, indices: np.ndarray) -> np.ndarray:
        return np.asarray(self.array[indices])


class KeptRows:
    """A subset of `Rows`, by ascending indices."""

    def __init__(self, rows: Rows, index: np.ndarray) -> None:
        self.rows, self.index = rows, index
        self.shape, self.dtype, self.in_memory = (len(index), rows.shape[1]), rows.dtype, rows.in_memory

    def blocks(self, chunk: int, start: int, stop: int) -> Iterator[np.ndarray]:
        if start >= stop:
            return
        index, at, waiting = self.index[start:stop], int(self.index[start]), []
        for block in self.rows.blocks(chunk, at, int(index[-1]) + 1):
            waiting.append(block[index[np.searchsorted(index, at) : np.searchsorted(index, at + len(block))] - at])
            at += len(block)
            if sum(map(len, waiting)) >= chunk:  # so that blocks have equal sizes
                full = np.concatenate(waiting)
                yield full[:chunk]
                waiting = [full[chunk:]]
        if any(map(len, waiting)):
            yield np.concatenate(waiting)

    def take(self, indices: np.ndarray) -> np.ndarray:
        return self.rows.take(self.index[indices])
