"""ClassStats: weighted, centred moments of each class, merged exactly instead of summed and subtracted.

E[x^2] - E[x]^2 loses all digits of a collapsed class in float32. Instead, every batch is centred on its own class
means (with Chan, Golub and LeVeque's correction of the mean's rounding error), and two sets of moments merge by

  n = n_a + n_b,  mean = mean_a + (n_b / n) d,  M2 = M2_a + M2_b + (n_a n_b / n) d d^T,  d = mean_b - mean_a.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from infojax.measures import arrays, by_class, conversion, scalars, spectra
from infojax.measures.arrays import AnyArray, ArrayLike
from infojax.measures.class_blocks import class_second_moments
from infojax.measures.sample_blocks import BLOCK_ROWS, class_sums, deviations, fold_blocks, known_samples, scanned

SCATTERS = (None, "within", "class")
MOST_CLASSES = 10**8  # that may be inferred from labels; the means of more do not fit in memory
GROUP_ROWS = 2**16  # rows summed before a merge: longer sums would lose digits
FAR = 4  # spreads between a reference and its class mean beyond which the squares lose more than four bits


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ClassStats:
    """Moments of C classes in D dimensions; an immutable pytree.

    Attributes:
      count: (C,) sums of weights.
      mean: (C, D) weighted class means; zeros for a class without samples.
      squares: (C,) weighted sums of squared distances to the class mean.
      scatter: None, the pooled within-class scatter (D, D), or the scatter of each class (C, D, D):
        sums of w (z - mean)(z - mean)^T.

    Squares and scatter have the unit of the features squared: in float32, divide features beyond 1e-15 or 1e15 by a
    power of two first. The measures that take samples do so themselves.
    """

    count: jax.Array
    mean: jax.Array
    squares: jax.Array
    scatter: jax.Array | None = None

    @classmethod
    def init(
        cls, num_classes: int, dim: int, *, scatter: str | None = None, dtype: DTypeLike = jnp.float32
    ) -> "ClassStats":
        """Empty statistics. scatter: None (O(C D) memory), "within" (adds D x D) or "class" (adds C x D x D)."""
        if scatter not in SCATTERS:
            raise ValueError(f"scatter must be one of {SCATTERS}; got {scatter!r}")
        num_classes, dim = scalars.whole_number(num_classes, "num_classes", 1), scalars.whole_number(dim, "dim", 0)
        try:
            floating = jnp.issubdtype(dtype, jnp.floating)
        except TypeError:
            floating = False
        if not floating:
            raise ValueError(f"dtype must be a float type; got {dtype!r}")
        shape = {None: None, "within": (dim, dim), "class": (num_classes, dim, dim)}[scatter]
        check_size(num_classes, dim, scatter, jnp.dtype(dtype).itemsize)
        return cls(
            count=jnp.zeros(num_classes, dtype),
            mean=jnp.zeros((num_classes, dim), dtype),
            squares=jnp.zeros(num_classes, dtype),
            scatter=None if shape is None else jnp.zeros(shape, dtype),
        )

    @property
    def kind(self) -> str | None:
        """The kind of scatter: None, "within" or "class"."""
        return None if self.scatter is None else {2: "within", 3: "class"}[self.scatter.ndim]

    @property
    def num_classes(self) -> int:
        """C, the number of classes, with samples or without."""
        return self.mean.shape[0]

    def update(self, z: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> "ClassStats":
        """These statistics with the samples z (N, D), labels (N,), weights (N,) or None added.

        Samples labelled outside [0, C) have weight zero.

        Raises:
          ValueError: z does not have D columns, or other shapes do not fit.
        """
        z = arrays.as_rows(z)
        if z.shape[1] != self.mean.shape[1]:
            raise ValueError(f"features have {z.shape[1]} columns, the statistics {self.mean.shape[1]}")
        return self.merge(class_stats(z, labels, self.num_classes, weights=weights, scatter=self.kind))

    def merge(self, other: "ClassStats") -> "ClassStats":
        """Statistics of both sets of samples. Associative and commutative up to rounding."""
        if not isinstance(other, ClassStats):
            raise TypeError(f"other must be ClassStats; got {conversion.described(other)}")
        if self.kind != other.kind or self.mean.shape != other.mean.shape:
            raise ValueError(
                f"cannot merge statistics of shape {self.mean.shape} with scatter {self.kind!r} and of shape "
                f"{other.mean.shape} with scatter {other.kind!r}"
            )
        count = self.count + other.count
        share = arrays.safe_divide(other.count, count)
        # A class without samples on one side has no mean there: the difference must not count.
        seen = (self.count > 0) & (other.count > 0)
        delta = other.mean - self.mean
        moved = jnp.where(seen, self.count * share, 0)
        return ClassStats(
            count=count,
            mean=jnp.where((self.count > 0)[:, None], self.mean + share[:, None] * delta, other.mean),
            squares=self.squares + other.squares + moved * jnp.sum(delta * delta, axis=1),
            scatter=_add(self.scatter, other.scatter, _outer(delta, moved, self.kind)),
        )

    def reduce(self, axis_name: str) -> "ClassStats":
        """Statistics of the samples of all devices along a mapped axis (shard_map, vmap): the merge, using psums."""
        try:
            count = jax.lax.psum(self.count, axis_name)
        except NameError as error:
            raise ValueError(f"there is no mapped axis {axis_name!r}: call reduce inside shard_map or vmap") from error
        mean = arrays.safe_divide(jax.lax.psum(self.count[:, None] * self.mean, axis_name), count[:, None])
        delta = jnp.where((self.count > 0)[:, None], self.mean - mean, 0)
        local = ClassStats(
            count=self.count,
            mean=self.mean,
            squares=self.squares + self.count * jnp.sum(delta * delta, axis=1),
            scatter=_add(self.scatter, _outer(delta, self.count, self.kind)),
        )
        scatter = None if self.scatter is None else jax.lax.psum(local.scatter, axis_name)
        return ClassStats(count, mean, jax.lax.psum(local.squares, axis_name), scatter)


def check_size(num_classes: int, dim: int, scatter: str | None, itemsize: int) -> None:
    """Rejects sizes that do not fit in memory: three tables over the classes at once, and their scatter matrices."""
    columns = 3 * (dim + 2) + (dim * dim if scatter == "class" else 0)
    scalars.check_size(
        f"num_classes is {num_classes:,}: moments of that many classes" + (f" in {dim} columns" if dim else ""),
        num_classes,
        columns,
        itemsize=itemsize,
    )


def _outer(rows, weights, kind):
    """Weighted outer products of one row per class, in the shape of the scatter `kind`."""
    if kind is None:
        return None
    weighted = rows * weights[:, None]
    if kind == "within":
        return arrays.matmul(weighted.T, rows)
    return weighted[:, :, None] * rows[:, None, :]


def _add(*terms):
    return None if terms[0] is None else sum(terms)


def infer_num_classes(labels: ArrayLike, num_classes: int | None) -> int:
    """num_classes, checked; or if None, the largest of the concrete labels (any shape) plus one, at least 1.

    Raises:
      ValueError: num_classes is not a positive integer or too large for the memory; labels are traced or too large.
    """
    if num_classes is not None:
        number = scalars.whole_number(num_classes, "num_classes", 1)
        check_size(number, 0, None, 4)  # before labels are compared with it as 32-bit integers
        arrays.warn_of_unknown_classes(labels, number)
        return number
    if isinstance(labels, jax.core.Tracer):
        raise ValueError("num_classes must be given inside jit, grad or vmap: it sets the shape of the result")
    labels = np.asarray(arrays.as_array(labels, "labels"))
    top = int(labels.max()) if labels.size else 0
    if top >= MOST_CLASSES:
        raise ValueError(
            f"labels go up to {top}; expected 0, ..., C - 1: pass numpy.unique(labels, return_inverse=True)[1]"
        )
    return max(top + 1, 1)


def checked_samples(z: ArrayLike, labels: ArrayLike, weights: ArrayLike | None) -> tuple[AnyArray, AnyArray, AnyArray]:
    """z (N, D) float, labels (N,) integers, weights (N,): all in NumPy or all in JAX; ValueError if they do not fit."""
    z = arrays.as_host_rows(z)
    labels, w = arrays.as_labels(labels, z.shape[0]), arrays.sample_weights(weights, z.shape[0], z.dtype)
    if isinstance(z, np.ndarray) and arrays.stays_on_host(labels, w):
        return z, np.asarray(labels), np.asarray(w)
    return jnp.asarray(z), labels, w


def samples_around(
    stats: ClassStats, z: ArrayLike, labels: ArrayLike, weights: ArrayLike | None
) -> tuple[AnyArray, AnyArray, AnyArray]:
    """`checked_samples` for a pass around the means of `stats`, in the wider of the two dtypes.

    Raises:
      ValueError: z (N, D) does not have the statistics' D columns.
    """
    z, labels, w = checked_samples(z, labels, weights)
    if not arrays.on_host(*jax.tree.leaves(stats)):
        z, labels, w = map(jnp.asarray, (z, labels, w))
    if z.shape[1] != stats.mean.shape[1]:
        raise ValueError(f"features have {z.shape[1]} columns, the statistics {stats.mean.shape[1]}")
    arrays.warn_of_unknown_classes(labels, stats.mean.shape[0])
    dtype = jnp.promote_types(z.dtype, stats.mean.dtype)
    if isinstance(z, np.ndarray):
        return z.astype(dtype, copy=False), labels, w.astype(dtype, copy=False)
    return z.astype(dtype), labels, w.astype(dtype)


def class_stats(
    z: ArrayLike,
    labels: ArrayLike,
    num_classes: int | None = None,
    *,
    weights: ArrayLike | None = None,
    scatter: str | None = None,
) -> ClassStats:
    """`ClassStats` of one batch.

    Args:
      z: (N, D) features; computed in float32 or better.
      labels: (N,) integers; samples labelled outside [0, C) have weight zero (of C or more: with a warning).
      num_classes: C; inferred from concrete labels if None.
      weights: (N,) non-negative or None.
      scatter: None, "within" or "class"; see `ClassStats`.
    Returns:
      `ClassStats`.
    Raises:
      ValueError: shapes do not fit, unknown scatter, C unknown under jit.
    """
    if scatter not in SCATTERS:
        raise ValueError(f"scatter must be one of {SCATTERS}; got {scatter!r}")
    given, (z, labels, w) = labels, checked_samples(z, labels, weights)
    num_classes = infer_num_classes(given, num_classes)  # from labels that are not traced
    check_size(num_classes, z.shape[1], scatter, z.dtype.itemsize)
    if isinstance(z, np.ndarray):
        samples = by_class.samples(z, labels, w, num_classes)
        count, mean, _ = by_class.means(samples)
        found = count, mean, by_class.squares(samples, count, mean)
        count, mean, squares = jax.device_put([x.astype(z.dtype) for x in found])
    else:
        count, mean, squares = _first_moments(z, labels, w, num_classes, max(len(w), 1))
    if scatter == "class":
        rows, owners = _scaled_deviations(z, labels, w, mean)
        return ClassStats(count, mean, squares, class_second_moments(rows, owners, num_classes))
    if scatter == "within":

        def add(total, *block):
            rows, _ = _scaled_deviations(*block, mean)
            return total + spectra.column_gram(rows)

        zeros = jnp.zeros((z.shape[1], z.shape[1]), z.dtype)
        return ClassStats(count, mean, squares, fold_blocks(add, zeros, BLOCK_ROWS, z, labels, w))
    return ClassStats(count, mean, squares)


@partial(jax.jit, static_argnums=(3, 4))
def _first_moments(z, labels, w, num_classes, block):
    """(count, mean, squares): sums about a reference, the mean so far or a class's first sample, mostly in one pass.

    With d = z - r: mean = r + sum(d) / n and squares = sum(d^2) - n |mean - r|^2, which cancels only if r is far from
    the mean compared with the class's own spread. The reference is a constant: the derivatives are those of the
    moments.
    """
    n = len(w)
    size = min(n, max(block, GROUP_ROWS))
    block = min(block, size)

    def sums_about(reference, first, start):
        def add(carry, i):
            total, squares, count = carry
            # The last block overlaps the previous one, and skips what was already seen.
            at = first + jnp.minimum(i, size - block)
            rows = (jax.lax.dynamic_slice_in_dim(x, at, block) for x in (z, labels, w))
            rows, owners, weight = known_samples(*rows, num_classes)
            weight = jnp.where(at + jnp.arange(block) < jnp.maximum(start, first + i), 0, weight)
            d = rows - reference[owners]
            squares += class_sums(weight * jnp.sum(d * d, axis=1), owners, num_classes)
            total = total.at[owners].add(weight[:, None] * d)
            return (total, squares, count + class_sums(weight, owners, num_classes)), None

        no_sums = jnp.zeros(num_classes, z.dtype)
        return scanned(add, (jnp.zeros_like(reference), no_sums, no_sums), jnp.arange(0, size, block), z)

    def add_group(stats, start):
        first = jnp.minimum(start, n - size)

        def moments_about(reference):
            total, squares, count = sums_about(reference, first, start)
            shift = arrays.safe_divide(total, count[:, None])
            mean = jnp.where(count[:, None] > 0, reference + shift, 0)
            moved = count * jnp.sum(shift * shift, axis=1)
            squares = squares - moved
            # Not maximum(squares, 0), which halves the derivative where both are equal, as at collapse.
            return ClassStats(count, mean, jnp.where(squares < 0, 0, squares)), jnp.any(moved > FAR**2 * squares)

        found, far = moments_about(_references(stats, z, labels, w, first, size))
        # A first sample far from its class costs digits, as does a long sum: sum once more about the mean.
        again = far | (size > GROUP_ROWS)
        mean = jax.lax.stop_gradient(found.mean)
        found = jax.lax.cond(again, lambda: moments_about(mean)[0], lambda: found)
        return stats.merge(found), None

    stats = ClassStats.init(num_classes, z.shape[1], dtype=z.dtype)
    if n:
        stats = scanned(add_group, stats, jnp.arange(0, n, size), z)
    return stats.count, stats.mean, stats.squares


def _references(stats, z, labels, w, start, size):
    """The mean of each class so far, or its first sample among `size` from `start`: a constant near the class."""
    num_classes = stats.num_classes
    labels, w = (jax.lax.dynamic_slice_in_dim(x, start, size) for x in (labels, w))
    known = (w > 0) & (labels >= 0) & (labels < num_classes)
    first = jax.ops.segment_min(jnp.arange(size), jnp.where(known, labels, num_classes), num_classes + 1)[:num_classes]
    sample = jnp.where((first < size)[:, None], z[start + jnp.minimum(first, size - 1)], 0)
    return jax.lax.stop_gradient(jnp.where((stats.count > 0)[:, None], stats.mean, sample))


@jax.jit
def _scaled_deviations(z, labels, w, mean):
    d, labels, w = deviations(z, labels, w, mean)
    return d * arrays.safe_sqrt(w)[:, None], labels
