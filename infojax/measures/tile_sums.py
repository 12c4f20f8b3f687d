"""Traversal of a C x C table that is never held in memory, for `tiles`: rows tile by tile, and sums over tiles."""

from collections.abc import Iterator

import numpy as np

from infojax.measures.arrays import ArrayLike


class Rows:
    """Chosen rows of an array, minus a center, a tile at a time and in float32."""

    def __init__(self, source: ArrayLike, kept: np.ndarray, tile: int) -> None:
        self.source, self.kept, self.tile = source, kept, tile
        self.center: np.ndarray | None = None

    def __len__(self) -> int:
        return -(-len(self.kept) // self.tile)

    def __getitem__(self, i: int) -> np.ndarray:
        index = self.kept[i * self.tile : (i + 1) * self.tile]
        rows = np.asarray(self.source[index], np.float32)  # type: ignore[index]
        return rows if self.center is None else rows - self.center

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def average(self) -> np.ndarray:
        """The mean of the rows."""
        total = sum((np.sum(rows, axis=0, dtype=np.float64) for rows in self), np.zeros(np.shape(self.source)[1]))
        return np.asarray(total / max(len(self.kept), 1), np.float32)


class Sums:
    """Mean and variance of many numbers from sums about a pilot value."""

    def __init__(self) -> None:
        self.pilot, self.first, self.second, self.number = 0.0, 0.0, 0.0, 0

    def add(self, first: float, second: float, number: int) -> None:
        self.first, self.second, self.number = self.first + first, self.second + second, self.number + number

    def about_mean(self) -> None:
        """Moves the pilot to the mean so far, so that later squares do not cancel."""
        if self.number and np.isfinite(self.first):
            pilot = float(np.float32(self.mean()))
            shift = pilot - self.pilot
            self.second += self.number * shift**2 - 2 * shift * self.first
            self.first -= self.number * shift
            self.pilot = pilot

    def mean(self) -> float:
        return self.pilot + self.first / self.number if self.number else float("nan")

    def std(self) -> float:
        if not self.number or not np.isfinite(self.second):
            return float("nan")
        return float(np.sqrt(max(self.second / self.number - (self.first / self.number) ** 2, 0.0)))
