"""What every data set looks like: named splits, each read by index."""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from infojax.suggestions import suggest

UNLABELLED = "unlabelled"  # the split whose labels are -1
# Names, in lower case, of the split for training and of the one for measuring; the first one found is used.
ROLES = {
    "train": ("train", "training"),
    "test": ("test", "testing", "validation", "valid", "val", "dev", "eval"),
}


class DataError(ValueError):
    """Data that is missing, broken, or not what its name says; the message is one line."""


class Source(Protocol):
    """One split.

    Attributes:
      shape: of one sample: (H, W, channels) images, or (length,) tokens.
      labels: (N,) int32 in [0, C), or all -1 if the split has none.
    """

    shape: tuple[int, ...]

    @property
    def labels(self) -> np.ndarray: ...

    def __len__(self) -> int: ...

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) indices -> samples (n, *shape), uint8 images or int32 tokens, and labels (n,) int32."""


class Arrays:
    """A split in memory: `x` (N, *shape), `labels` (N,)."""

    def __init__(self, x: np.ndarray, labels: np.ndarray) -> None:
        self.x, self.labels, self.shape = x, np.asarray(labels, np.int32), x.shape[1:]

    def __len__(self) -> int:
        return len(self.x)

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.x[indices], self.labels[indices]


class Chosen:
    """Some samples of a source, by their indices, read when they are asked for.

    Args:
      chosen: (n,); labels: (n,) of these samples instead of their own, or None.
    """

    def __init__(self, source: Source, chosen: np.ndarray, labels: np.ndarray | None = None) -> None:
        self.source, self.chosen, self.shape, self._labels = source, chosen, source.shape, labels

    @property
    def labels(self) -> np.ndarray:
        return self.labels_at(np.arange(len(self)))

    def labels_at(self, indices: np.ndarray) -> np.ndarray:
        return labels_at(self.source, self.chosen[indices]) if self._labels is None else self._labels[indices]

    def __len__(self) -> int:
        return len(self.chosen)

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, labels = self.source.read(self.chosen[indices])
        return x, labels if self._labels is None else self._labels[indices]


class Joined:
    """Two sources of the same shape, one after the other, read when they are asked for."""

    def __init__(self, first: Source, second: Source) -> None:
        self.parts, self.shape = (first, second), first.shape
        if first.shape != second.shape:
            raise DataError(f"samples of {first.shape} and of {second.shape} cannot be trained on together")

    @property
    def labels(self) -> np.ndarray:
        """(N,) labels of both sources, one after the other."""
        return np.concatenate([part.labels for part in self.parts])

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def labels_at(self, indices: np.ndarray) -> np.ndarray:
        labels = np.empty(len(indices), np.int32)
        for part, mine, own in self._split(indices):
            labels[mine] = labels_at(part, own)
        return labels

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x: Any = None
        labels = np.empty(len(indices), np.int32)
        for part, mine, own in self._split(indices):
            samples, labels[mine] = part.read(own)
            x = np.empty((len(indices), *self.shape), samples.dtype) if x is None else x
            x[mine] = samples
        return x, labels

    def _split(self, indices):
        """(part, which of the indices are its own, these as its own) of each part that has some."""
        indices, border = np.asarray(indices), len(self.parts[0])
        for part, mine, offset in zip(self.parts, (indices < border, indices >= border), (0, border), strict=True):
            if mine.any():
                yield part, mine, indices[mine] - offset


def labels_at(source: Source, indices: np.ndarray) -> np.ndarray:
    """Labels of some samples, (n,), of sources on disk without reading those of the others."""
    own = getattr(source, "labels_at", None)
    return own(indices) if own else source.labels[indices]


class Dataset(NamedTuple):
    """Splits and their common properties.

    Attributes:
      name: as given to `open_dataset`.
      num_classes: C; class_names: C names, or () if there are none.
      splits: name -> how to read it; use `split(name)`.
      mean, std: published constants per channel on the scale 0 to 255, or None (`channel_moments` measures them).
      flip: whether a mirrored sample still belongs to its class; False for digits and tokens.
      folds: predefined sets of labelled samples of the train split, one per seed (STL-10), or None.
      roles: "train" or "test" -> name of the split that serves as such, if it has a different name.
      notes: what was read, left out, converted or estimated, one line each; grows as splits are opened.
    """

    name: str
    num_classes: int
    class_names: tuple[str, ...]
    splits: Mapping[str, Callable[[], Source]]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    flip: bool = True
    folds: Callable[[], list[np.ndarray]] | None = None
    roles: Mapping[str, str] = {}
    notes: list[str] | tuple[str, ...] = ()

    def split(self, name: str) -> Source:
        """Opens a split; "train" and "test" may stand for others, see `roles`.

        Raises:
          DataError: no such split, or labels outside [0, C).
        """
        name = self.roles.get(name, name)
        if name not in self.splits:
            hint = f"; data.options.{name}_split names the one to take" if name in ROLES and self.roles else ""
            if hint and (self.name, name) == ("folder", "test"):
                hint += ", data.options.test_fraction=0.2 holds out a share of train"
            raise DataError(f"{self.name} has no split {name!r}{suggest(name, self.splits)}{hint}")
        source = self.splits[name]()
        if not len(source):
            raise DataError(f"{self.name}, split {name}, has no samples")
        if "labels" in vars(source):  # already read; a streamed set is checked batch by batch
            check_labels(source.labels, self.num_classes, f"{self.name}, split {name}", name == UNLABELLED)
        return source


def check_labels(labels: np.ndarray, num_classes: int, where: str, unlabelled: bool = False) -> None:
    """Refuses labels outside [0, C), or any but -1 in a split without labels."""
    outside = np.flatnonzero(labels != -1 if unlabelled else (labels < 0) | (labels >= num_classes))
    if len(outside):
        first = outside[0]
        raise DataError(
            f"{where}: label {labels[first]} of sample {first} is "
            + ("not -1" if unlabelled else f"outside 0 to {num_classes - 1}")
            + f" ({len(outside)} of {len(labels)} are)"
        )


def roles(where: str, splits: Iterable[str], **chosen: str) -> tuple[dict[str, str], list[str]]:
    """Which splits serve as train and test.

    Args:
      where: the data set, for messages.
      splits: names of the existing ones.
      chosen: train, test -> name of a split, or "" for the first that has one of the usual names.
    Returns:
      {"train": name, "test": name}, without a role that no split has; notes.
    Raises:
      DataError: a chosen split is missing, or one serves as both.
    """
    found, notes = {}, []
    for role, usual in ROLES.items():
        if chosen.get(role):
            if chosen[role] not in splits:
                raise DataError(f"{where}: {role}_split is {chosen[role]!r}{suggest(chosen[role], splits)}")
            found[role] = chosen[role]
        else:
            named = [split for name in usual for split in splits if split.lower() == name]
            found.update([(role, split) for split in named[:1]])
    if len(found) == 2 and found["train"] == found["test"]:
        raise DataError(f"{where}: {found['train']} cannot serve as train and as test")
    notes += [f"{where}: split {split} serves as {role}" for role, split in found.items() if split != role]
    used = {split.partition("[")[0] for split in found.values()}  # a part of it, such as train[:80%]
    unused = [split for split in splits if split.partition("[")[0] not in used and split != UNLABELLED]
    if unused and found:
        notes.append(f"{where}: not used: split {', '.join(map(printable, unused))}")
    return found, notes


def check_whole(name: str, least: int = 1, **values: Any) -> None:
    """Refuses options that are not whole numbers of at least `least`."""
    for option, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise DataError(f"{name}: {option} must be a whole number of at least {least}, got {value!r}")


def printable(text: object) -> str:
    """Text for one line on a terminal: unprintable characters, such as a line break in a file name, are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))


def counted(count: int, noun: str) -> str:
    """ "1 picture" or "2 pictures"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def listing(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    names = [printable(name) for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def check_memory(where: str, values: int) -> None:
    """Refuses what cannot fit into this machine's memory, before the system kills the process.

    Args:
      where: what it is; values: its size in bytes.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if values > memory:
        raise DataError(
            f"{where}: {values / 1e9:,.1f} GB are more than this machine's memory of {memory / 1e9:,.1f} GB"
        )


def in_memory(source: Source, block: int = 1000) -> Arrays:
    """The whole split as `Arrays`, read in blocks; `Arrays` are returned unchanged.

    Raises:
      DataError: it is larger than the machine's memory.
    """
    if isinstance(source, Arrays):
        return source
    shape = (len(source), *source.shape)
    check_memory(f"{shape[0]:,} samples of {' x '.join(map(str, shape[1:]))}", math.prod(shape))
    x: Any = None
    labels: Any = None
    for start in range(0, len(source), block):
        rows = np.arange(start, min(start + block, len(source)))
        samples, found = source.read(rows)
        if x is None:
            x, labels = np.empty((len(source), *source.shape), samples.dtype), np.empty(len(source), np.int32)
        x[rows], labels[rows] = samples, found
    return Arrays(x, labels)


def channel_moments(
    source: Source, block: int = 1000, samples: int | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel over all samples and pixels, on the scale of the samples.

    With `samples` that many are read, evenly spaced over the source. The deviation of a channel with a single value
    is 0 up to rounding: see `constant_channels`.
    """
    count = 0
    mean: Any = 0.0
    scatter: Any = 0.0
    chosen = np.arange(len(source))
    if samples is not None and samples < len(source):
        chosen = np.arange(samples) * len(source) // samples
    for start in range(0, len(chosen), block):
        x, _ = source.read(chosen[start : start + block])
        x = x.reshape(-1, x.shape[-1]).astype(np.float64)
        n, delta = len(x), x.mean(0) - mean
        scatter = scatter + ((x - x.mean(0)) ** 2).sum(0) + delta**2 * (count * n / (count + n))
        mean, count = mean + delta * (n / (count + n)), count + n
    return tuple(mean.tolist()), tuple(np.sqrt(scatter / count).tolist())


def constant_channels(mean: Sequence[float], std: Sequence[float]) -> list[int]:
    """Indices of the channels that have a single value everywhere, up to the rounding of `channel_moments`."""
    return [i for i, (a, b) in enumerate(zip(mean, std, strict=True)) if b <= 1e-12 * abs(a)]
