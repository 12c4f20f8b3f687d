"""Sums over the samples of each class in NumPy: the passes of `moments` and `passes` for concrete CPU arrays.

Samples are visited in blocks that fit in the cache and, for sums, in the order of their classes, so that a block holds
few of them, however many there are. Samples with weight zero or without a class are skipped. The cores share the
blocks; since a thread that waits for Python's lock costs more than it computes, a block is only a handful of calls.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from infojax.measures import cores
from infojax.measures.arrays import AnyArray

BLOCK_BYTES = 2**21  # of the rows of a block: together with their deviations they fit in a core's cache
CHAIN = 256  # rows summed in the dtype of the samples before float64 takes over
SHORT = 4  # mean rows per chain up to which one call for all chains of a block is faster than one per chain


@dataclass(frozen=True)
class Samples:
    """The samples that count: rows z[order], or z itself if `order` is None, in the order of `labels`.

    Attributes:
      z: (N, D) all samples.
      order: (M,) indices into z of those that count, or None for all of them.
      labels: (M,) in [0, num_classes).
      weights: (M,) positive, or None if all are one.
    """

    z: np.ndarray
    order: np.ndarray | None
    labels: np.ndarray
    weights: np.ndarray | None
    num_classes: int

    @cached_property
    def size(self) -> int:
        """Rows per block, a multiple of the chain length."""
        return max(BLOCK_BYTES // max(self.z.shape[1] * self.z.itemsize, 1) // CHAIN, 1) * CHAIN

    def each_block(self, f: Callable[[slice, np.ndarray, np.ndarray], Any]) -> None:
        """f(part, rows, buffer) for all blocks, shared by the cores: rows z[order][part], and a buffer of that size."""
        parts = [slice(i, min(i + self.size, len(self.labels))) for i in range(0, len(self.labels), self.size)]

        def work(own: list[slice]) -> None:
            room = np.empty((2, self.size, self.z.shape[1]), self.z.dtype)
            with np.errstate(all="ignore"):
                for part in own:
                    rows, buffer = room[:, : part.stop - part.start]
                    if self.order is None:
                        rows = self.z[part]
                    else:
                        self.z.take(self.order[part], axis=0, out=rows, mode="clip")
                    f(part, rows, buffer)

        share = max(-(-len(parts) // cores.count()), 1)
        cores.shared(work, [parts[i : i + share] for i in range(0, len(parts), share)])

    def by_class(self) -> "Samples":
        """The same samples with `labels` ascending; samples of one class keep their order."""
        if (self.labels[1:] >= self.labels[:-1]).all():
            return self
        # 16-bit integers are sorted by radix, in a tenth of the time.
        order = np.argsort(self.labels.astype(np.uint16) if self.num_classes <= 2**16 else self.labels, kind="stable")
        return replace(
            self,
            order=order if self.order is None else self.order[order],
            labels=self.labels[order],
            weights=None if self.weights is None else self.weights[order],
        )

    def class_sums(self, values: np.ndarray) -> np.ndarray:
        """(C,) float64 sums over the samples of each class of w times the values (M,)."""
        values = values if self.weights is None else values * self.weights
        return np.bincount(self.labels, weights=values, minlength=self.num_classes).astype(np.float64)


def samples(z: AnyArray, labels: AnyArray, weights: AnyArray, num_classes: int) -> Samples:
    """`Samples` of z (N, D), labels (N,) and weights (N,) on the host: those of positive weight labelled in [0, C)."""
    z, labels, weights = (np.asarray(x) for x in (z, labels, weights))
    counted = (labels >= 0) & (labels < num_classes) & (weights > 0)
    order = None if counted.all() else np.flatnonzero(counted)
    if order is not None:
        labels, weights = labels[order], weights[order]
    return Samples(z, order, labels, None if (weights == 1).all() else weights, num_classes)


def means(x: Samples) -> tuple[np.ndarray, np.ndarray, float]:
    """Sums of weights (C,), weighted means (C, D), zeros for absent classes, and the largest row norm, in float64."""
    x = x.by_class()
    y, dim = x.labels, x.z.shape[1]
    count, weights = x.class_sums(np.ones(len(y))), np.ones(len(y), x.z.dtype) if x.weights is None else x.weights
    # Chains of rows: of a single class, within a block.
    new_class = np.r_[True, y[1:] != y[:-1]][: len(y)]
    starts = np.flatnonzero(new_class | (np.arange(len(y)) % CHAIN == 0))
    long = len(y) > SHORT * len(starts)
    lengths = np.empty(len(y), x.z.dtype)

    def add(part: slice, rows: np.ndarray, buffer: np.ndarray) -> None:
        lengths[part] = squares_of(rows)
        first, last = np.searchsorted(starts, (part.start, part.stop))
        own = starts[first:last] - part.start
        if long:
            for k, (start, stop) in enumerate(zip(own, [*own[1:], len(rows)], strict=True), first):
                chains[k] = weights[part][start:stop] @ rows[start:stop]
        else:
            rows = rows if x.weights is None else np.multiply(rows, weights[part, None], out=buffer)
            _run_sums(rows, own, out=chains[first:last])

    chains = np.empty((len(starts), dim), x.z.dtype)
    x.each_block(add)
    if not np.isfinite(chains).all():  # the sum of a chain may be too large for float32
        chains, weights = chains.astype(np.float64), weights.astype(np.float64)
        x.each_block(add)
    own, mean = np.flatnonzero(new_class[starts]), np.zeros((x.num_classes, dim))
    if len(own):
        present = y[starts[own]]
        mean[present] = _run_sums(chains, own, np.empty((len(own), dim))) / count[present, None]
    return count, mean, float(np.sqrt(np.max(lengths, initial=0)))


def _run_sums(rows: np.ndarray, starts: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Sums of the rows from each start to the next; faster than `np.add.reduceat` along rows if there are few."""
    lengths = np.diff(starts, append=len(rows))
    out[:] = rows[starts]
    for j in range(1, lengths.max()):
        longer = np.flatnonzero(lengths > j)
        out[longer] += rows[starts[longer] + j]
    return out


def values_around(x: Samples, mean: np.ndarray, *values: Callable[..., np.ndarray]) -> np.ndarray:
    """(k, C) sums over the samples of each class of w f(deviations, labels, rows), for the k functions f of `values`.

    A function gets a block of m samples: their deviations from `mean` (C, D), (m, D); labels (m,); rows (m, D). It
    returns (m,).
    """
    found = np.empty((len(values), len(x.labels)), x.z.dtype)

    def add(part: slice, rows: np.ndarray, buffer: np.ndarray) -> None:
        y = x.labels[part]
        mean.take(y, axis=0, out=buffer, mode="clip")
        np.subtract(rows, buffer, out=buffer)
        for into, f in zip(found, values, strict=True):
            into[part] = f(buffer, y, rows)

    x.each_block(add)
    return np.stack([x.class_sums(one) for one in found])


def squares_of(rows: np.ndarray, *_: Any) -> np.ndarray:
    """(n,) squared lengths ||d||^2 of rows (n, D); other arguments are ignored, as `values_around` passes three."""
    return np.linalg.vecdot(rows, rows)


def squares(x: Samples, count: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """(C,) float64 sums w ||z - mu_c||^2 over the samples of each class.

    Args:
      x: the samples.
      count: (C,) sums of their weights.
      exact: (C, D) class means mu_c in float64.
    """
    mean = exact.astype(x.z.dtype)
    (found,) = values_around(x, mean, squares_of)
    # About the unrounded mean, since the rounding would show in a collapsed class.
    with np.errstate(all="ignore"):
        found = found - count * squares_of(exact - mean)
    return np.where(found < 0, 0, found)


@dataclass(frozen=True)
class Root:
    """Energies ||T^T d||^2 of deviations d, with T (D, r) stored as the non-zero rows of groups of its columns."""

    pieces: tuple[np.ndarray, ...]

    def energies(self, rows: np.ndarray, *_: Any) -> np.ndarray:
        """(n,) energies ||T^T d||^2 of the rows d (n, D); other arguments are ignored, see `squares_of`."""
        return np.sum([squares_of(rows[:, : len(piece)] @ piece) for piece in self.pieces], axis=0)


def root_of(inverse: np.ndarray, width: int = 64) -> Root:
    """`Root` of T (D, r), in groups of `width` columns if it is upper triangular, which halves the products."""
    dim, rank = inverse.shape
    if dim != rank or np.tril(inverse, -1).any():
        return Root((inverse,))
    parts = [slice(i, min(i + width, dim)) for i in range(0, dim, width)]
    return Root(tuple(np.ascontiguousarray(inverse[: part.stop, part]) for part in parts))
