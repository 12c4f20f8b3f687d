"""The numbers of a Report, from rows that are read in blocks: two passes, memory independent of the number of rows.

First class moments of the features and of their unit rows, then everything that needs the class means or the feature
mean. All in float64, whatever the features are stored in. Several processes each read a part of the rows in both passes
and merge their moments after each; what follows is the same work in all.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from infojax.analysis.parts import merged, own_part
from infojax.measures import arrays, collapse, entropy, head_interplay, passes, separation, spectra, variability
from infojax.measures.estimate import Estimate, estimate_interplay, estimate_interplay_from_stats
from infojax.measures.moments import ClassStats

# Up to this many rows (or this side of a matrix) everything is exact in one go: a float64 eigenvalue problem of
# this size takes seconds. Larger sets stream; what cannot stream uses a random sample of this many rows.
DIRECT_ROWS = 4096
# Largest side of the compressed joint matrix: ten classes of 512 features, 5 s for its float64 spectrum.
JOINT_SIDE = 6144
# Floats of the rows (256 MiB in float32) from which a larger joint entropy is estimated; of more, a random sample.
ESTIMATED = 2**26
# Floats that the scatter matrices of all classes may take together (32 MiB; a pass holds about ten copies).
SCATTER_BUDGET = 2**22


class InputError(ValueError):
    """Bad input, told in one line: which argument, what it was, what was expected, the fix."""


class Rows(Protocol):
    """A matrix of N rows and D columns that is read in blocks and never needs to be in memory whole."""

    shape: tuple[int, int]
    dtype: np.dtype
    in_memory: bool

    def blocks(self, chunk: int, start: int, stop: int) -> Iterator[np.ndarray]:
        """Blocks of at most `chunk` of the rows from `start` to before `stop`, in order; callable many times."""

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The rows at sorted indices."""


class ArrayRows:
    """`Rows` of an array; further axes are flattened to columns."""

    def __init__(self, array):
        self.array = array if array.ndim == 2 else array.reshape(len(array), math.prod(array.shape[1:]))
        self.shape, self.dtype = self.array.shape, self.array.dtype
        self.in_memory = not isinstance(array, np.memmap)

    def blocks(self, chunk, start, stop):
        for first in range(start, stop, chunk):
            yield np.asarray(self.array[first : min(first + chunk, stop)])

    def take(self, indices):
        return np.asarray(self.array[indices])


class KeptRows:
    """Some of the rows of `Rows`, by their ascending indices."""

    def __init__(self, rows, index):
        self.rows, self.index = rows, index
        self.shape, self.dtype, self.in_memory = (len(index), rows.shape[1]), rows.dtype, rows.in_memory

    def blocks(self, chunk, start, stop):
        if start >= stop:
            return
        index, at, waiting = self.index[start:stop], int(self.index[start]), []
        for block in self.rows.blocks(chunk, at, int(index[-1]) + 1):
            waiting.append(block[index[np.searchsorted(index, at) : np.searchsorted(index, at + len(block))] - at])
            at += len(block)
            if sum(map(len, waiting)) >= chunk:  # blocks of equal sizes, as others give them
                full = np.concatenate(waiting)
                yield full[:chunk]
                waiting = [full[chunk:]]
        if any(map(len, waiting)):
            yield np.concatenate(waiting)

    def take(self, indices):
        return self.rows.take(self.index[indices])


class Measured(NamedTuple):
    """What was measured of one array, before it is put into words. Arrays are numpy float64."""

    num_samples: int
    dim: int
    counts: np.ndarray | None
    zero_rows: int
    spectrum: np.ndarray
    spectrum_centered: np.ndarray
    singular: np.ndarray
    values: dict[str, float]
    per_class: dict[str, np.ndarray]
    interplay: head_interplay.Interplay | None
    interplay_centered: head_interplay.Interplay | None
    interplay_counts: np.ndarray | None
    sampled: dict[str, int]  # measure family -> rows used, where not all
    estimated: dict[str, Estimate]  # measure -> its bounds, where it was not computed exactly
    coinciding: tuple[int, int] | None = None  # the first two classes whose means coincide


def measure_rows(rows, y, w, b, chunk, name, progress, seed, thorough=True, distributed=False):
    """`Measured`; without `thorough` neither the silhouette nor anything that would have to be estimated."""
    n, dim = rows.shape
    part = own_part(n, distributed)
    num_classes = 1 if y is None else (len(w) if w is not None else int(y.max()) + 1)
    labels = np.zeros(n, np.int32) if y is None else y
    direct = n <= DIRECT_ROWS
    sample = _sample(n, DIRECT_ROWS, seed)
    scatter = "within" if dim <= DIRECT_ROWS and not direct else None
    per_class = not direct and num_classes * dim * dim <= SCATTER_BUDGET
    unit_scatter = None if direct or dim > DIRECT_ROWS else ("class" if per_class else "within")
    scale = _scale(rows, chunk)
    first = partial(_first_pass, rows, scale, labels, part, num_classes, chunk, name, progress, scatter, unit_scatter)
    raw, unit, zero_rows = merged(first, distributed)
    zero_rows = int(zero_rows)
    around = partial(_second_pass, rows, scale, labels, part, raw, w, b, unit_scatter, chunk, progress)
    second, unit_centered, energies = merged(around, distributed)

    subset = rows.take(sample).astype(np.float64) / scale if direct or scatter is None or y is not None else None
    sampled, estimated = {}, {}
    if direct or scatter is None:
        spectrum, spectrum_centered, singular = _direct_spectra(subset)
        if not direct:
            sampled["spectrum"] = len(sample)
    else:
        spectrum, spectrum_centered = (_density_spectrum(s) for s in (unit, unit_centered))
        singular = np.sqrt(np.asarray(spectra.eigenvalues(_second_moment(raw))))[::-1]

    values, class_values = {}, {}
    flow = flow_centered = flow_counts = None
    if y is not None:
        values, class_values = _collapse_values(raw, second, energies, w)
        values = {key: float(value) for key, value in values.items()}
        class_values = {key: np.asarray(value) for key, value in class_values.items()}
        class_values["nc2_norm"] = scale * class_values["nc2_norm"]
        class_values["entropy"] = _class_entropies(subset if direct else unit, labels, num_classes)
        if not (direct or per_class):
            del class_values["entropy"]
        if thorough:
            values["silhouette"] = separation.silhouette(subset, labels[sample])
            if not direct:
                sampled["silhouette"] = len(sample)
    if w is not None:
        values["entropy_head_weights"] = float(entropy.matrix_entropy(w))
        compressed = np.minimum(np.bincount(labels, minlength=num_classes), dim).sum()
        if per_class and compressed <= JOINT_SIDE:
            flow, flow_centered = (head_interplay.interplay_from_stats(s, w) for s in (unit, unit_centered))
            flow_counts = np.asarray(raw.count)
        elif not direct and thorough:
            flow, flow_centered, flow_counts, estimated, used = _estimated_interplay(
                rows, labels, w, (unit, unit_centered) if per_class else None, seed, progress
            )
            if used < n:
                sampled["interplay"] = used
        else:
            flow, flow_centered = (head_interplay.interplay(subset, labels[sample], w, center=c) for c in (False, True))
            flow_counts = np.bincount(labels[sample], minlength=num_classes)
            if not direct:
                sampled["interplay"] = len(sample)
    mean_direction = np.asarray(unit.count) @ np.asarray(unit.mean) / max(n - zero_rows, 1)
    values["mean_energy"] = float(np.sum(mean_direction**2))
    values["coding_rate"] = float(_coding_rate(spectrum, n - zero_rows, dim))
    return Measured(
        n, dim, None if y is None else np.asarray(raw.count), zero_rows,
        spectrum, spectrum_centered, singular, values, class_values, flow, flow_centered, flow_counts,
        sampled, estimated, _coinciding(raw) if y is not None and not np.isfinite(values["cdnv"]) else None,
    )  # fmt: skip


def _coinciding(stats):
    """The first two classes with samples whose means are the same up to rounding, or None."""
    present, mean = np.flatnonzero(np.asarray(stats.count) > 0), np.asarray(stats.mean)
    rounding = float(variability.mean_rounding(stats))
    for i, one in enumerate(present):
        apart = np.linalg.norm(mean[present[i + 1 :]] - mean[one], axis=1)
        if (apart <= rounding).any():
            return int(one), int(present[i + 1 + np.argmax(apart <= rounding)])
    return None


def _estimated_interplay(rows, labels, head, stats, seed, progress):
    """Interplay, its centred twin, class counts, name -> `Estimate`, and how many rows were used.

    From the moments of the classes where they are held, else from as many rows as fit, in float32: rounding them moves
    an entropy by about 1e-5, which the bounds allow for.
    """
    n, dim = rows.shape
    progress(0, 2, "estimating the joint entropy")
    if stats is not None:
        found = [estimate_interplay_from_stats(s, head, seed=seed) for s in stats]
        used = labels
    else:
        chosen = _sample(n, max(ESTIMATED // dim, DIRECT_ROWS), seed)
        z, used = rows.take(chosen).astype(np.float32), labels[chosen]
        found = []
        for center in (False, True):
            found.append(estimate_interplay(z, used, head.astype(np.float32), center=center, seed=seed))
            progress(len(found), 2, "estimating the joint entropy")
    counts = np.bincount(used, minlength=len(head))
    estimated = {
        f"{key}{suffix}": getattr(e, key)
        for e, suffix in zip(found, ("", "_centered"), strict=True)
        for key in ("joint_entropy", "mutual_information", "mir", "hdr")
        if getattr(e, key).route == "estimate"
    }
    return *(e.values for e in found), counts, estimated, len(used)


def _sample(n, size, seed):
    if n <= size:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, size, replace=False))


def _scale(rows, chunk):
    """The power of two nearest to the largest entry of the first rows, by which all are divided, without rounding.

    Nothing in a report depends on it but the norms of the class means; squares would overflow and underflow.
    """
    first = np.abs(next(rows.blocks(min(chunk, rows.shape[0]), 0, rows.shape[0])).astype(np.float64))
    return np.asarray(arrays.power_of_two(jnp.asarray(first.max(initial=0))))


def _blocks(rows, scale, labels, part, chunk, progress, phase):
    """(features / scale, labels, weights) of equal sizes as jax arrays: the last block is padded with weight zero."""
    start, stop = part
    size = 0
    for block in rows.blocks(min(chunk, rows.shape[0]), *part):
        count = len(block)
        size = size or count  # wide rows may come in blocks smaller than asked for
        z = np.zeros((size, rows.shape[1]))
        z[:count] = block
        z /= scale
        y = np.full(size, -1, np.int32)
        y[:count] = labels[start : start + count]
        yield jnp.asarray(z), jnp.asarray(y), jnp.asarray((np.arange(size) < count).astype(np.float64))
        start += count
        progress(start - part[0], stop - part[0], phase)
    if start != stop:
        raise InputError(f"read {start} rows where {stop} were announced: the file is truncated")


@jax.jit
def _first_block(raw, unit, zero_rows, z, y, w):
    u, live = spectra.unit_rows(z)
    finite = jnp.isfinite(z).all(axis=1)
    zero_rows = zero_rows + jnp.sum(jnp.where(live, 0, w))
    return raw.update(z, y, w), unit.update(u, y, w), zero_rows, jnp.argmin(finite), finite.all()


def _first_pass(rows, scale, labels, part, num_classes, chunk, name, progress, scatter, unit_scatter):
    empty = partial(ClassStats.init, num_classes, rows.shape[1], dtype=jnp.float64)
    raw, unit, zero_rows = empty(scatter=scatter), empty(scatter=unit_scatter), jnp.zeros(())
    for k, (z, y, w) in enumerate(_blocks(rows, scale, labels, part, chunk, progress, "class means")):
        raw, unit, zero_rows, worst, finite = _first_block(raw, unit, zero_rows, z, y, w)
        if not finite:
            row = part[0] + k * len(z) + int(worst)
            raise InputError(f"{name}: row {row} holds nan or inf; expected finite numbers: drop such rows")
    return raw, unit, zero_rows


@jax.jit
def _second_block(carry, raw, inverses, head, bias, mean, floor, z, y, w):
    second, unit, energies = carry
    u, live = spectra.unit_rows(z - mean, floor)
    added = passes.second_pass(raw, z, y, head, bias, weights=w)
    energies = {key: total + variability.within_energy(inverses[key], raw, z, y, w) for key, total in energies.items()}
    return jax.tree.map(jnp.add, second, added), unit.update(u, y, w), energies


def _second_pass(rows, scale, labels, part, raw, head, bias, unit_scatter, chunk, progress):
    """`SecondPass`, moments of the centred unit rows, and within energies of each distinct S_B."""
    num_classes, dim = raw.mean.shape
    unit = ClassStats.init(num_classes, dim, scatter=unit_scatter, dtype=jnp.float64)
    inverses, mean, floor = _around_means(raw)
    zeros = jnp.zeros(num_classes)
    carry = (passes.SecondPass(zeros, zeros, zeros), unit, dict.fromkeys(inverses, zeros))
    head, bias = passes.same_classifier(head, bias, scale)
    for z, y, w in _blocks(rows, scale, labels, part, chunk, progress, "around the means"):
        # Blocks would queue up in memory faster than they are worked off.
        carry = jax.block_until_ready(_second_block(carry, raw, inverses, head, bias, mean, floor, z, y, w))
    return carry


@jax.jit
def _around_means(raw):
    """What the second pass needs: T of each distinct S_B, the sample mean (1, D) and its rounding error."""
    names = [] if len(raw.count) == 1 else ["thesis", "papyan", "tding1"]
    inverses = {key: variability.between_inverse(raw, convention=key) for key in names}
    mean = arrays.matmul(raw.count[None], raw.mean) / jnp.sum(raw.count)
    return inverses, mean, 16 * jnp.finfo(mean.dtype).eps * jnp.max(jnp.abs(raw.mean))


def _second_moment(stats):
    """sum of z z^T over all classes (D, D)."""
    scatter = stats.scatter if stats.kind == "within" else jnp.sum(stats.scatter, axis=0)
    return scatter + arrays.matmul((stats.count[:, None] * stats.mean).T, stats.mean)


def _density_spectrum(unit):
    moment = _second_moment(unit)
    return np.asarray(spectra.eigenvalues(moment / jnp.maximum(jnp.trace(moment), 1e-300)))[::-1]


def _direct_spectra(z):
    z = jnp.asarray(z)
    densities = (entropy.density_of_features(z, None, center) for center in (False, True))
    first, second = (np.asarray(spectra.eigenvalues(rho))[::-1] for rho in densities)
    return first, second, np.asarray(entropy.singular_values(z))


def _coding_rate(spectrum, n, dim):
    """log det(I_D + (1 / D) sum u u^T) from the spectrum of the density: mu = 1, form "code"."""
    return np.sum(np.log1p(n / dim * spectrum))


@jax.jit
def _collapse_values(raw, second, energies, head):
    """(name -> value, name -> values of each class) of all collapse measures."""
    second = second._replace(energy=energies.get("thesis", second.energy))
    nc = collapse.collapse_from_passes(raw, second, head)
    values = {key: v for key, v in nc._asdict().items() if key != "per_class" and v is not None}
    # One inverse serves the conventions that share S_B.
    shared = {"papyan": "papyan", "tding1": "tding1", "rhubarbwu": "papyan", "equi_separation": "tding1"}
    for key in [*shared, "trace_quotient"]:
        energy = energies.get(shared.get(key), second.energy)
        values[f"nc1_{key}"] = variability.nc1_from_energy(energy, raw, convention=key)[0]
    return values, {key: v for key, v in nc.per_class._asdict().items() if v is not None}


def _class_entropies(source, labels, num_classes):
    """H of each class's unit rows, from the rows or from their moments; nan for absent classes."""
    if not isinstance(source, np.ndarray):
        if source.kind != "class":
            return None
        second = source.scatter + source.count[:, None, None] * source.mean[:, :, None] * source.mean[:, None, :]
        spectra_of = [np.asarray(spectra.eigenvalues(k / jnp.maximum(jnp.trace(k), 1e-300))) for k in second]
    else:
        u = np.asarray(spectra.unit_rows(jnp.asarray(source))[0])
        groups = [u[labels == c] for c in range(num_classes)]
        spectra_of = [
            np.asarray(spectra.eigenvalues(np.asarray(spectra.smaller_gram(g)) / max(np.sum(g * g), 1e-300)))
            for g in groups
        ]
    counts = np.bincount(labels, minlength=num_classes)
    return np.array([spectrum_entropy(p) if n else np.nan for p, n in zip(spectra_of, counts, strict=True)])


def spectrum_entropy(p, alpha=1.0):
    """Renyi entropy of eigenvalues p (numpy, any order, zeros allowed); see `entropy.entropy_of_density`."""
    p = p[p > 0]
    if not len(p):
        return 0.0
    log_p = np.log(p / p.sum())
    if alpha == 1:
        return float(max(-np.sum(np.exp(log_p) * log_p), 0.0)) + 0.0  # no -0.0
    if alpha == np.inf:
        return float(max(-np.max(log_p), 0.0)) + 0.0
    top = np.max(alpha * log_p)
    return float(max((top + np.log(np.sum(np.exp(alpha * log_p - top)))) / (1 - alpha), 0.0)) + 0.0
