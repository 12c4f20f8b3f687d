"""Traversal of a C x C table that is never held in memory, for `tiles`: rows tile by tile, and sums over tiles."""

from collections.abc import Iterator

import numpy as np

from infojax.measures.arrays import ArrayLike, power_of_two


class Rows:
    """The rows source[kept] of an array (N, D), `tile` at a time, in float32: minus a center (D,) and over a scale."""

    def __init__(self, source: ArrayLike, kept: np.ndarray, tile: int) -> None:
        self.source, self.kept, self.tile = source, kept, tile
        self.center: np.ndarray | None = None
        self.scale = 1.0

    def __len__(self) -> int:
        return -(-len(self.kept) // self.tile)

    def __getitem__(self, i: int) -> np.ndarray:
        index = self.kept[i * self.tile : (i + 1) * self.tile]
        rows = np.asarray(self.source[index], np.float32)  # type: ignore[index]
        if self.center is None:
            return rows
        return np.asarray((rows - self.center) / self.scale, np.float32)  # a center in float64: no digit is lost

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def average(self) -> np.ndarray:
        """(D,) mean of the rows as they come, in float64; zeros if there are none."""
        total = sum((np.sum(rows, axis=0, dtype=np.float64) for rows in self), np.zeros(np.shape(self.source)[1]))
        return np.asarray(total / max(len(self.kept), 1))

    def normalise(self) -> None:
        """Sets the center to the mean of the rows, and the scale to the power of two of the largest entry then."""
        self.center, most = self.average(), float(np.finfo(np.float32).max)
        with np.errstate(over="ignore"):
            largest = max((float(np.abs(rows).max(initial=0)) for rows in self), default=0.0)
        self.scale = float(power_of_two(np.float32(min(largest, most))))


class Sums:
    """Mean and variance of many numbers from sums about a pilot value."""

    def __init__(self) -> None:
        self.pilot, self.first, self.second, self.number = 0.0, 0.0, 0.0, 0

    def add(self, first: float, second: float, number: int) -> None:
        """Adds `number` values x, given first = sum (x - pilot) and second = sum (x - pilot)^2."""
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
        """The mean of the values so far; nan without any."""
        return self.pilot + self.first / self.number if self.number else float("nan")

    def std(self) -> float:
        """The population standard deviation of the values so far; nan without any."""
        if not self.number or not np.isfinite(self.second):
            return float("nan")
        return float(np.sqrt(max(self.second / self.number - (self.first / self.number) ** 2, 0.0)))
