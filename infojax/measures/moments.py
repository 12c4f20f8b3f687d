"""ClassStats: weighted, centred moments of each class, merged exactly instead of summed and subtracted.

E[x^2] - E[x]^2 loses all digits of a collapsed class in float32. Here every batch is centred on its own class
means (with Chan, Golub and LeVeque's correction of the mean's rounding error), and two sets of moments merge by

  n = n_a + n_b,  mean = mean_a + (n_b / n) d,  M2 = M2_a + M2_b + (n_a n_b / n) d d^T,  d = mean_b - mean_a.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from infojax.measures import spectra

SCATTERS = (None, "within", "class")


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
    """

    count: jax.Array
    mean: jax.Array
    squares: jax.Array
    scatter: jax.Array | None = None

    @classmethod
    def init(cls, num_classes, dim, *, scatter=None, dtype=jnp.float32):
        """Empty statistics. scatter: None (O(C D) memory), "within" (adds D x D) or "class" (adds C x D x D)."""
        if scatter not in SCATTERS:
            raise ValueError(f"scatter must be one of {SCATTERS}; got {scatter!r}")
        shape = {None: None, "within": (dim, dim), "class": (num_classes, dim, dim)}[scatter]
        return cls(
            count=jnp.zeros(num_classes, dtype),
            mean=jnp.zeros((num_classes, dim), dtype),
            squares=jnp.zeros(num_classes, dtype),
            scatter=None if shape is None else jnp.zeros(shape, dtype),
        )

    @property
    def kind(self):
        """Which scatter is held: None, "within" or "class"."""
        return None if self.scatter is None else {2: "within", 3: "class"}[self.scatter.ndim]

    @property
    def num_classes(self):
        return self.mean.shape[0]

    def update(self, z, labels, weights=None):
        """These statistics with the samples z (N, D), labels (N,), weights (N,) or None added."""
        z = spectra.as_rows(z)
        if z.shape[1] != self.mean.shape[1]:
            raise ValueError(f"features have {z.shape[1]} columns, the statistics {self.mean.shape[1]}")
        return self.merge(class_stats(z, labels, self.num_classes, weights=weights, scatter=self.kind))

    def merge(self, other):
        """Statistics of both sets of samples. Associative and commutative up to rounding."""
        if self.kind != other.kind or self.mean.shape != other.mean.shape:
            raise ValueError(
                f"cannot merge statistics of shape {self.mean.shape} with scatter {self.kind!r} and of shape "
                f"{other.mean.shape} with scatter {other.kind!r}"
            )
        count = self.count + other.count
        share = spectra.safe_divide(other.count, count)
        # A class that one side has never seen has no mean there: the difference must not count.
        seen = (self.count > 0) & (other.count > 0)
        delta = other.mean - self.mean
        moved = jnp.where(seen, self.count * share, 0)
        return ClassStats(
            count=count,
            mean=jnp.where((self.count > 0)[:, None], self.mean + share[:, None] * delta, other.mean),
            squares=self.squares + other.squares + moved * jnp.sum(delta * delta, axis=1),
            scatter=_add(self.scatter, other.scatter, _outer(delta, moved, self.kind)),
        )

    def reduce(self, axis_name):
        """Statistics of the samples of all devices along a mapped axis (shard_map, vmap): the merge as psums."""
        count = jax.lax.psum(self.count, axis_name)
        mean = spectra.safe_divide(jax.lax.psum(self.count[:, None] * self.mean, axis_name), count[:, None])
        delta = jnp.where((self.count > 0)[:, None], self.mean - mean, 0)
        local = ClassStats(
            count=self.count,
            mean=self.mean,
            squares=self.squares + self.count * jnp.sum(delta * delta, axis=1),
            scatter=_add(self.scatter, _outer(delta, self.count, self.kind)),
        )
        scatter = None if self.scatter is None else jax.lax.psum(local.scatter, axis_name)
        return ClassStats(count, mean, jax.lax.psum(local.squares, axis_name), scatter)


def _outer(rows, weights, kind):
    """Weighted outer products of one row a class, in the shape of the scatter `kind`."""
    if kind is None:
        return None
    weighted = rows * weights[:, None]
    if kind == "within":
        return spectra.matmul(weighted.T, rows)
    return weighted[:, :, None] * rows[:, None, :]


def _add(*terms):
    return None if terms[0] is None else sum(terms)


def infer_num_classes(labels, num_classes):
    """num_classes, or the largest label plus one where the labels are concrete."""
    if num_classes is not None:
        return num_classes
    if isinstance(labels, jax.core.Tracer):
        raise ValueError("num_classes must be given inside jit, grad or vmap: it sets the shape of the result")
    labels = np.asarray(labels)
    return max(int(labels.max()) + 1, 1) if labels.size else 1


def samples_of(stats, z, labels, weights):
    """`checked_samples` for a pass around the means of `stats`."""
    z, labels, w = checked_samples(z, labels, weights, stats.num_classes)
    if z.shape[1] != stats.mean.shape[1]:
        raise ValueError(f"features have {z.shape[1]} columns, the statistics {stats.mean.shape[1]}")
    return z, labels, w


def checked_samples(z, labels, weights, num_classes):
    """z (N, D) float, labels in [0, C), weights (N,) that are zero where the label is unknown."""
    z = spectra.as_rows(z)
    labels = spectra.as_labels(labels, z.shape[0])
    return _masked(z, labels, spectra.sample_weights(weights, z.shape[0], z.dtype), num_classes)


@partial(jax.jit, static_argnums=3)
def _masked(z, labels, w, num_classes):
    known = (labels >= 0) & (labels < num_classes)
    w = jnp.where(known, w, 0)
    # Rows of weight zero may hold anything (padding): 0 * nan would be nan.
    return jnp.where(w[:, None] > 0, z, 0), jnp.where(known, labels, 0), w


@jax.jit
def deviations(z, labels, mean):
    """z_i - mean_{labels_i}, (N, D)."""
    return z - mean[labels]


@jax.jit
def row_products(a, b):
    """<a_i, b_i> of the rows, (N,)."""
    return jnp.sum(a * b, axis=1)


def class_stats(z, labels, num_classes=None, *, weights=None, scatter=None):
    """`ClassStats` of one batch.

    Args:
      z: (N, D) features; computed in float32 or better.
      labels: (N,) integers; samples labelled outside [0, C) have weight zero.
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
    num_classes = infer_num_classes(labels, num_classes)
    z, labels, w = checked_samples(z, labels, weights, num_classes)
    return _class_stats(z, labels, w, num_classes, scatter)


@partial(jax.jit, static_argnums=(3, 4))
def _class_stats(z, labels, w, num_classes, scatter):
    def class_mean(x):
        total = jax.ops.segment_sum(x * w[:, None], labels, num_classes)
        return spectra.safe_divide(total, count[:, None])

    count = jax.ops.segment_sum(w, labels, num_classes)
    mean = class_mean(z)
    correction = class_mean(z - mean[labels])
    deviation = z - mean[labels] - correction[labels]
    squares = jax.ops.segment_sum(w * jnp.sum(deviation * deviation, axis=1), labels, num_classes)
    rows = deviation * spectra.safe_sqrt(w)[:, None]
    scatters = {
        None: lambda: None,
        "within": lambda: spectra.matmul(rows.T, rows),
        "class": lambda: class_second_moments(rows, labels, num_classes),
    }
    return ClassStats(count, mean + correction, squares, scatters[scatter]())


def class_second_moments(rows, labels, num_classes):
    """Sum of the outer products of each class's rows: (C, D, D), with static shapes and about 2 N D^2 multiplications.

    The rows are sorted by class into blocks of at most D rows, each of one class (the last of a class padded
    with zeros), so that one batched product serves all classes: one-hot products would cost C times more.

    Args:
      rows: (N, D).
      labels: (N,) integers in [0, C).
    Returns:
      (C, D, D).
    """
    n, dim = rows.shape
    if n == 0:
        return jnp.zeros((num_classes, dim, dim), rows.dtype)
    block = min(dim, -(-n // num_classes))
    num_blocks = n // block + num_classes
    order = jnp.argsort(labels)
    count = jnp.bincount(labels, length=num_classes)
    blocks = -(-count // block)
    last_block = jnp.cumsum(blocks)
    index = jnp.arange(num_blocks)
    owner = jnp.minimum(jnp.searchsorted(last_block, index, side="right"), num_classes - 1)
    # Position of each block's rows within their class; past the class's end lies padding.
    first = (index - (last_block - blocks)[owner]) * block
    within = first[:, None] + jnp.arange(block)[None, :]
    valid = within < count[owner][:, None]
    position = (jnp.cumsum(count) - count)[owner][:, None] + within
    packed = rows[order[jnp.clip(position, 0, n - 1)]] * valid[:, :, None]
    products = jnp.einsum("bnd,bne->bde", packed, packed, precision="highest")
    return jax.ops.segment_sum(products, owner, num_classes)


def by_blocks(f, z, labels, w, block=4096):
    """f(z, labels, w) row block by row block: N x C or N x D temporaries never exist whole."""
    n = z.shape[0]
    if n <= block:
        return f(z, labels, w)
    if spectra.on_host(z, labels, w):
        return jnp.concatenate([f(*(x[i : i + block] for x in (z, labels, w))) for i in range(0, n, block)])
    one = lambda row: f(*(x[None] for x in row))[0]  # noqa: E731
    return jax.lax.map(one, (z, labels, w), batch_size=block)
