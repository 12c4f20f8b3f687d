"""What every data set looks like: named splits, each read by index."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import NamedTuple, Protocol

import numpy as np

UNLABELLED = "unlabelled"  # the split whose labels are -1


class DataError(ValueError):
    """Data that is missing, broken, or not what its name says; the message is one line."""


class Source(Protocol):
    """One split.

    Attributes:
      shape: of one sample: (H, W, channels) images, or (length,) tokens.
      labels: (N,) int32 in [0, C), or all -1 where the split has none.
    """

    shape: tuple[int, ...]
    labels: np.ndarray

    def __len__(self) -> int: ...

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) indices -> samples (n, *shape), uint8 images or int32 tokens, and labels (n,) int32."""


class Arrays:
    """A split in memory: `x` (N, *shape), `labels` (N,)."""

    def __init__(self, x, labels):
        self.x, self.labels, self.shape = x, np.asarray(labels, np.int32), x.shape[1:]

    def __len__(self):
        return len(self.x)

    def read(self, indices):
        return self.x[indices], self.labels[indices]


class Dataset(NamedTuple):
    """Splits and what is true of all of them.

    Attributes:
      name: as given to `open_dataset`.
      num_classes: C; class_names: C names, or () where nobody named them.
      splits: name -> how to read it; use `split(name)`.
      mean, std: published constants per channel on the scale 0 to 255, or None (`channel_moments` measures them).
      flip: whether a mirrored sample is one of its class; False for digits and tokens.
      folds: predefined sets of labelled samples of the train split, one a seed (STL-10), or None.
    """

    name: str
    num_classes: int
    class_names: tuple[str, ...]
    splits: Mapping[str, Callable[[], Source]]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    flip: bool = True
    folds: Callable[[], list[np.ndarray]] | None = None

    def split(self, name):
        """Opens a split.

        Raises:
          DataError: no such split, or labels outside [0, C).
        """
        if name not in self.splits:
            raise DataError(f"{self.name} has no split {name!r}{near(name, self.splits)}")
        source = self.splits[name]()
        if not len(source):
            raise DataError(f"{self.name}, split {name}, has no samples")
        if "labels" in vars(source):  # read already; a set that streams is checked batch by batch
            check_labels(source.labels, self.num_classes, f"{self.name}, split {name}", name == UNLABELLED)
        return source


def check_labels(labels, num_classes, where, unlabelled=False):
    """Refuses labels outside [0, C), or other than -1 in a split without labels."""
    outside = np.flatnonzero(labels != -1 if unlabelled else (labels < 0) | (labels >= num_classes))
    if len(outside):
        first = outside[0]
        raise DataError(
            f"{where}: label {labels[first]} of sample {first} is "
            + ("not -1" if unlabelled else f"outside 0 to {num_classes - 1}")
            + f" ({len(outside)} of {len(labels)} are)"
        )


def check_whole(name, least=1, **values):
    """Refuses options that are not whole numbers of at least `least`."""
    for option, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise DataError(f"{name}: {option} must be a whole number of at least {least}, got {value!r}")


def near(name, known):
    """'; did you mean b?' or '; there is a, b, c', for the end of a message."""
    close = get_close_matches(str(name), known, 1)
    return f"; did you mean {close[0]}?" if close else f"; there is {', '.join(known) or 'none'}"


def in_memory(source, block=1000):
    """The whole split as `Arrays`, read in blocks; `Arrays` come back as they are."""
    if isinstance(source, Arrays):
        return source
    x = labels = None
    for start in range(0, len(source), block):
        rows = np.arange(start, min(start + block, len(source)))
        samples, found = source.read(rows)
        if x is None:
            x, labels = np.empty((len(source), *source.shape), samples.dtype), np.empty(len(source), np.int32)
        x[rows], labels[rows] = samples, found
    return Arrays(x, labels)


def channel_moments(source, block=1000):
    """Mean and standard deviation of every channel over all samples and pixels, on the scale of the samples."""
    count, mean, scatter = 0, 0.0, 0.0
    for start in range(0, len(source), block):
        x, _ = source.read(np.arange(start, min(start + block, len(source))))
        x = x.reshape(-1, x.shape[-1]).astype(np.float64)
        n, delta = len(x), x.mean(0) - mean
        scatter = scatter + ((x - x.mean(0)) ** 2).sum(0) + delta**2 * (count * n / (count + n))
        mean, count = mean + delta * (n / (count + n)), count + n
    return tuple(mean.tolist()), tuple(np.sqrt(scatter / count).tolist())
