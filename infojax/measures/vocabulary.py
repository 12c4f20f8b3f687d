"""Neural collapse of vocabularies: hundreds of thousands of classes, hundreds of millions of tokens.

Nothing of size C x C is ever held. Moments stream batch by batch and touch only the classes of a batch; statistics over
pairs of classes are summed tile by tile from host arrays. Both work on memory-mapped files, where the C x D means alone
would fill the memory. A run may stop after any batch: the state is a plain tuple of arrays.
"""

import os
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from infojax.measures import arrays, conversion, scalars
from infojax.measures.arrays import AnyArray, ArrayLike

TILE = 2048  # classes on a side of a tile: 16 MiB of products in float32
NEAR = 1e-3  # of |a|^2 + |b|^2: smaller |a|^2 + |b|^2 - 2 <a, b> lose digits and are recomputed

IN_MEMORY = {"counts": np.int32, "mean": np.float32, "squares": np.float32}
IN_FILES = {"counts": np.int64, "mean": np.float32, "squares": np.float64}


class VocabularyStats(NamedTuple):
    """Moments of C classes in D dimensions. `numpy.savez(path, **stats._asdict())` saves them.

    counts: (C,) integers. mean: (C, D). squares: (C,) sums of squared distances to the class mean.
    In memory counts are int32, fewer than 2^31 tokens of a class, and squares float32, which stop growing where a class
    gains less than 6e-8 of its sum in a batch; in files they are int64 and float64. Means are float32 in both.
    """

    counts: AnyArray
    mean: AnyArray
    squares: AnyArray


def vocabulary_stats(num_classes: int, dim: int, folder: str | os.PathLike | None = None) -> VocabularyStats:
    """Empty `VocabularyStats` in memory; or those in a folder, memory-mapped.

    Args:
      num_classes, dim: C and D.
      folder: holds counts.npy, mean.npy and squares.npy, which are made if none is there and continued if all are:
        `update_vocabulary` writes into them, and needs memory for the rows of a batch only. Tokens that are given
        again, by a finished script that is run a second time, count twice. None for arrays in memory.
    Raises:
      ValueError: arrays larger than the memory, without a folder; a folder that is a file, or holds some of the
        arrays or other shapes.
    """
    num_classes, dim = scalars.whole_number(num_classes, "num_classes", 1), scalars.whole_number(dim, "dim", 1)
    shapes = {"counts": (num_classes,), "mean": (num_classes, dim), "squares": (num_classes,)}
    if folder is not None:
        if os.path.exists(folder) and not os.path.isdir(folder):
            raise ValueError(f"folder {os.fspath(folder)!r} is a file, expected a folder")
        there = [name for name in shapes if os.path.exists(os.path.join(folder, f"{name}.npy"))]
        if there and len(there) < len(shapes):
            missing = next(name for name in shapes if name not in there)
            raise ValueError(
                f"folder {os.fspath(folder)!r} holds {there[0]}.npy but no {missing}.npy: bring it back, or delete the "
                "others to begin again"
            )
        return VocabularyStats(**{name: _mapped(os.path.join(folder, name), shape) for name, shape in shapes.items()})
    scalars.check_size(f"the means of {num_classes:,} classes", num_classes, dim)
    return VocabularyStats(**{name: jnp.zeros(shape, IN_MEMORY[name]) for name, shape in shapes.items()})


def _mapped(name, shape):
    """The array of a file, which is created with zeros if missing."""
    path, kind = f"{name}.npy", IN_FILES[os.path.basename(name)]
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        return np.lib.format.open_memmap(path, "w+", kind, shape)
    found = np.load(path, mmap_mode="r+")
    if (found.shape, found.dtype) != (shape, kind):
        raise ValueError(f"{path} holds {found.shape} of {found.dtype}; expected {shape} of {np.dtype(kind)}")
    return found


def update_vocabulary(
    stats: VocabularyStats, z: ArrayLike, labels: ArrayLike, where: ArrayLike | None = None
) -> VocabularyStats:
    """The statistics with a batch of tokens added, merged by Chan's formula, so that no digits of a variance are lost.

    Only the rows of the classes in the batch are read and written: `jax.jit(update_vocabulary, donate_argnums=0)`
    updates in place, in O(N D) time. Memory-mapped statistics are updated in their files, without jit.

    Args:
      stats: as `vocabulary_stats` makes them, or as loaded from a file.
      z: (N, D) features; labels: (N,) integers; those outside [0, C) are left out, with a warning if C or more.
      where: (N,) booleans, which tokens count, or None for all: padding, the attention mask.
    """
    stats = checked_stats(stats)
    z = arrays.as_rows(z)
    labels = arrays.as_labels(labels, len(z))
    if z.shape[1] != stats.mean.shape[1]:
        raise ValueError(f"features have {z.shape[1]} columns, the statistics {stats.mean.shape[1]}")
    in_files = all(isinstance(part, np.memmap) and part.mode in ("r+", "w+") for part in stats)  # "c" keeps its copy
    if not in_files and isinstance(stats.counts, np.ndarray) and (most := stats.counts.max(initial=0)) > arrays.INT_MAX:
        raise ValueError(f"stats.counts reach {most:,}, more than int32 holds in memory: keep them in a folder")
    where = _counted(where, len(z))
    if arrays.on_host(labels, where):
        arrays.warn_of_unknown_classes(np.where(where, labels, -1), len(stats.counts))
    return (_updated_files if in_files else _updated)(stats, z, labels, where)


def _counted(where, n):
    """Which of n tokens count, (n,) booleans."""
    if where is None:
        return jnp.ones(n, bool)
    where = jnp.asarray(arrays.as_array(where, "where"))
    if where.shape != (n,) or (where.dtype != bool and not _zeros_and_ones(where)):
        raise ValueError(f"where must be ({n},) booleans, which tokens count; got shape {where.shape}, {where.dtype}")
    return where.astype(bool)


def _zeros_and_ones(x):
    return isinstance(x, jax.core.Tracer) or bool(np.isin(np.asarray(x), (0, 1)).all())


@jax.jit
def _updated(stats, z, labels, where):
    counts, mean, squares = stats
    n, classes = len(z), len(counts)
    if not n:
        return stats
    key = jnp.where(where & (labels >= 0) & (labels < classes), labels, classes)
    order = jnp.argsort(key, stable=True)
    key, rows = key[order], jnp.where((key[order] < classes)[:, None], z[order].astype(mean.dtype), 0)
    segment = jnp.cumsum(jnp.concatenate([jnp.zeros(1, bool), key[1:] != key[:-1]]))  # 0, ..., classes in the batch - 1
    owner = jnp.full(n, classes, key.dtype).at[segment].set(key)  # classes, out of range, where there is no segment
    sums = partial(jax.ops.segment_sum, segment_ids=segment, num_segments=n, indices_are_sorted=True)
    added = sums((key < classes).astype(counts.dtype))
    share = arrays.safe_divide(1.0, added.astype(mean.dtype))
    first = rows[jnp.searchsorted(segment, jnp.arange(n))]  # a reference near the class: sums of small numbers
    moved = rows - first[segment]
    center = first + share[:, None] * sums(moved)
    spread = sums(jnp.sum((rows - center[segment]) ** 2, axis=1) * (key < classes))
    old = counts.at[owner].get(mode="fill", fill_value=0)
    before = mean.at[owner].get(mode="fill", fill_value=0)
    total = (old + added).astype(mean.dtype)
    part = arrays.safe_divide(added.astype(mean.dtype), total)
    delta = jnp.where((old > 0)[:, None], center - before, 0)
    new = jnp.where((old > 0)[:, None], before + part[:, None] * delta, center)
    growth = spread + old.astype(mean.dtype) * part * jnp.sum(delta**2, axis=1)
    return VocabularyStats(
        counts.at[owner].add(added, mode="drop"),
        mean.at[owner].set(new, mode="drop"),
        squares.at[owner].add(growth, mode="drop"),
    )


def _updated_files(stats, z, labels, where):
    """`_updated` with moments of the batch merged in float64: only rows of its classes are read and written."""
    if not len(z):
        return stats
    labels, counted = np.asarray(labels), np.asarray(where)
    found = np.unique(labels[counted & (labels >= 0) & (labels < len(stats.counts))])
    place = np.searchsorted(found, labels)
    known = counted & np.isin(labels, found)
    empty = vocabulary_stats(*z.shape)  # one shape, one program
    batch = _updated(empty, z, jnp.asarray(place), jnp.asarray(known))
    added, center, spread = (np.asarray(part, np.float64)[: len(found)] for part in batch)
    old, before = stats.counts[found].astype(np.float64), stats.mean[found].astype(np.float64)
    share, delta = added / (old + added), np.where((old > 0)[:, None], center - before, 0)
    stats.counts[found] += added.astype(np.int64)
    stats.mean[found] = np.where((old > 0)[:, None], before + share[:, None] * delta, center)
    stats.squares[found] += spread + old * share * np.sum(delta**2, axis=1)
    return stats


def checked_stats(stats: VocabularyStats) -> VocabularyStats:
    """`VocabularyStats` whose fields fit each other; memory-mapped arrays are not read."""
    try:
        counts, mean, squares = stats
        shapes = np.shape(counts), np.shape(mean), np.shape(squares)
    except (TypeError, ValueError):
        shapes = ((), (), ())
    if len(shapes[1]) != 2 or shapes[0] != shapes[1][:1] or shapes[2] != shapes[0]:
        found = conversion.described(stats)
        raise TypeError(f"stats must be VocabularyStats, counts (C,), mean (C, D), squares (C,); got {found} {shapes}")
    return VocabularyStats(counts, mean, squares)


def vocabulary_disagreement(
    stats: VocabularyStats,
    z: ArrayLike,
    labels: ArrayLike,
    head: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    min_count: int = 2,
    where: ArrayLike | None = None,
    tile: int = 16384,
) -> tuple[np.ndarray, np.ndarray]:
    """NC4 of a batch of tokens: how many of each class the head and the nearest class mean disagree on, and how many
    count.

    Classes with fewer than `min_count` samples have no mean and are no choice of the head; tokens of such classes are
    left out. Add the results of all batches; their sums' quotient is NC4, and 1 - NC4 the agreement that rhubarbwu's
    package prints (without a bias, which its code drops).

    Args:
      stats: of all tokens (the first pass); head: (C, D); bias: (C,) or None.
      z: (N, D); labels: (N,) integers; where: (N,) booleans or None.
      tile: classes scored at a time.
    Returns:
      (C,) and (C,) integers.
    Raises:
      ValueError: a token that counts, a class mean or a score of the head is nan, for which there is no nearest.
    """
    stats, z = checked_stats(stats), np.asarray(arrays.as_rows(z))
    labels = np.asarray(arrays.as_labels(labels, len(z)))
    counts, (classes, dim) = np.asarray(stats.counts), np.shape(stats.mean)
    head = checked_head(head, classes, dim)
    if bias is not None:
        bias = np.asarray(arrays.as_float(bias, "bias"), np.float32)
        if bias.shape != (classes,):
            raise ValueError(f"bias must have shape ({classes},); got {bias.shape}")
    kept = np.flatnonzero(counts >= scalars.whole_number(min_count, "min_count", 1))
    where = np.asarray(_counted(where, len(z)))
    arrays.warn_of_unknown_classes(np.where(where, labels, -1), classes)
    usable = np.isin(labels, kept) & where
    rows, owners = z[usable].astype(np.float32), labels[usable]
    if (wrong := ~np.isfinite(rows).all(axis=1)).any():
        at = np.flatnonzero(usable)[np.argmax(wrong)]
        raise ValueError(f"z holds nan or inf, first in row {at}; leave such tokens out with `where`")
    best = np.full((2, len(rows)), -np.inf, np.float32)
    choice = np.zeros((2, len(rows)), np.int64)
    center = np.mean(rows, axis=0, dtype=np.float64).astype(np.float32) if len(rows) else 0
    scale = np.asarray(arrays.normalised(jnp.asarray(rows))[1])
    for start in range(0, len(kept), scalars.whole_number(tile, "tile", 1)):
        index = kept[start : start + tile]
        means = (np.asarray(stats.mean[index], np.float32) - center) / scale
        scores = np.asarray(arrays.matmul(rows, np.asarray(head[index], np.float32).T))
        scores = scores if bias is None else scores + bias[index][None]
        nearness = np.asarray(arrays.matmul((rows - center) / scale, means.T)) - np.sum(means * means, axis=1)[None] / 2
        for i, (table, what) in enumerate(((scores, "scores of the head"), (nearness, "distances to stats.mean"))):
            if np.isnan(table).any():
                raise ValueError(f"{what} are nan, in classes {index[0]} to {index[-1]}; expected finite numbers")
            at = np.argmax(table, axis=1) if len(rows) else np.zeros(0, int)
            value = table[np.arange(len(rows)), at]
            better = value > best[i]
            best[i][better], choice[i][better] = value[better], index[at[better]]
    differ = choice[0] != choice[1]
    return np.bincount(owners[differ], minlength=classes), np.bincount(owners, minlength=classes)


def checked_head(head: Any, classes: int, dim: int) -> Any:
    """The head (C, D), not read where it is an array with a shape and a type: it may be memory-mapped."""
    if hasattr(head, "detach") or not (hasattr(head, "shape") and hasattr(head, "dtype")):
        head = arrays.as_array(head, "head")
    arrays.refuse_masked(head, "head")
    if np.shape(head) != (classes, dim):
        raise ValueError(f"head must be (C, D) = ({classes}, {dim}); got shape {np.shape(head)}")
    if not (jnp.issubdtype(head.dtype, jnp.floating) or jnp.issubdtype(head.dtype, jnp.integer)):
        raise ValueError(f"head must be an array of real numbers; got {head.dtype}")
    return head
