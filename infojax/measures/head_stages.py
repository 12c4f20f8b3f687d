"""The matrix G(Z) o G(V) of an estimate, as `HeadRows`: packed from samples, or from factors of second moments.

Each `Stage` is a program that runs on one device or, under `axis`, on many.
"""

import jax
import jax.numpy as jnp

from infojax.measures import arrays, spectra
from infojax.measures.class_blocks import class_second_moments
from infojax.measures.moments import GROUP_ROWS
from infojax.measures.operators import HeadRows
from infojax.measures.sample_blocks import fold_blocks
from infojax.measures.trace import OPERATOR, ROWS, WHOLE, Compiled, Stage, on_one_device


def _counts(axis, labels, p, head):
    """(C,) number of samples of each class that have a direction."""
    known = jnp.where(p > 0, labels, len(head))
    return arrays.total(jnp.bincount(known, length=len(head)), axis)


COUNTS = Stage(_counts, (ROWS, ROWS, WHOLE), WHOLE)


def _pack(axis, rows, labels, head, sample, *shape):
    del axis
    return HeadRows.pack(rows, labels, head, sample, shape or None)


PACKED = Stage(_pack, (ROWS, ROWS, WHOLE, ROWS), OPERATOR, (), HeadRows)


def packed(
    rows: jax.Array,
    labels: jax.Array,
    head: jax.Array,
    sample: jax.Array,
    shape: tuple[int, int] | None = None,
    compiled: Compiled = on_one_device,
) -> HeadRows:
    """`HeadRows` with one row per sample.

    Args:
      rows: (N, D) weighted unit rows; labels: (N,) classes; head: (C, D') unit rows.
      sample: (N,) index of each sample, negative for those to leave out.
      shape: (blocks, size) of the packed rows on each device, as in `packed_by_class`, or None.
      compiled: see `parallel.estimate_interplay`.
    """
    return compiled(PACKED._replace(static=tuple(shape or ())))(rows, labels, head, sample)


def _compressed(axis, rows, labels, head):
    """`HeadRows` with at most D rows per class; each device reduces and decomposes its share of the classes."""
    share, first = _share(len(head), axis)
    devices = 1 if axis is None else jax.lax.axis_size(axis)

    def add(total, rows, labels, once):
        return total + class_second_moments(jnp.where(once[:, None] > 0, rows, 0), labels, share * devices)

    dim = rows.shape[1]
    second = jnp.zeros((share * devices, dim, dim), rows.dtype)
    second = fold_blocks(add, second, GROUP_ROWS, rows, labels, jnp.ones(len(rows), rows.dtype))
    if axis is not None:
        second = jax.lax.psum_scatter(second, axis, scatter_dimension=0, tiled=True)
    return _factors_of(second, first, head)


def _factored(axis, second, head):
    """The same from second moments (C, D, D), of which every device has all."""
    share, first = _share(len(head), axis)
    devices = 1 if axis is None else jax.lax.axis_size(axis)
    second = jnp.pad(second, ((0, share * devices - len(second)), (0, 0), (0, 0)))
    return _factors_of(jax.lax.dynamic_slice_in_dim(second, first, share), first, head)


def _share(num_classes, axis):
    """The number of classes of a device, and its first one."""
    if axis is None:
        return num_classes, 0
    share = -(-num_classes // jax.lax.axis_size(axis))
    return share, jax.lax.axis_index(axis) * share


def _factors_of(second, first, head):
    """Rows sqrt(l) q^T of the eigenpairs of each class's second moment: their products are those of its samples."""
    w, v = jax.vmap(spectra.eigh)(second)
    rows = arrays.safe_sqrt(w)[:, :, None] * jnp.swapaxes(v, 1, 2)
    classes, dim, _ = second.shape
    owner = first + jnp.arange(classes)
    sample = owner[:, None] * dim + jnp.arange(dim)[None, :]
    return HeadRows.of(rows, jnp.minimum(owner, len(head) - 1), head, sample)


COMPRESSED = Stage(_compressed, (ROWS, ROWS, WHOLE), OPERATOR, (), HeadRows, checked=False)
FACTORED = Stage(_factored, (WHOLE, WHOLE), OPERATOR, (), HeadRows, checked=False)
