"""Density matrices that are only ever multiplied by vectors: one vector entry per sample, no N x N arrays.

Each is positive semi-definite with trace one. The samples may be split over devices: `axis` is then the mapped axis
over which sums over samples are completed, and the communication between devices does not grow with N.
"""

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from infojax.measures import class_blocks
from infojax.measures.arrays import total

# Floats that a table of one D-vector per class and column may take (256 MiB); further columns are processed in groups.
TABLE = 2**26
# Floats that the second moments of all classes may take (128 MiB) to compute tr A^2 exactly.
SECOND_MOMENTS = 2**25
ROWS, WHOLE = "rows", "whole"


def _in_columns(f, x, width):
    """f(x), computed for `width` columns at a time."""
    columns = x.shape[1]
    if columns <= width:
        return f(x)
    groups = -(-columns // width)
    padded = jnp.pad(x, ((0, 0), (0, groups * width - columns)))
    parts = jax.lax.map(f, padded.reshape(len(x), groups, width).transpose(1, 0, 2))
    return parts.transpose(1, 0, 2).reshape(len(x), -1)[:, :columns]


def _einsum(formula, *arrays):
    return jnp.einsum(formula, *arrays, precision="highest")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class HeadRows:
    """G(Z) o G(V) for V = W[y], A_ij = <b_i, b_j> <w_{y_i}, w_{y_j}>: one row b per sample, or of a factor.

    A product costs 4 N D + 2 C^2 D multiplications and additions per column, shared by the devices. With one class it
    is the density B B^T.

    Attributes:
      rows: (blocks, size, D) rows sqrt(p_i) u_i, packed into single-class blocks, padded with zero rows.
      owner: (blocks,) class of each block.
      mix: cosines (C, C) of the head's unit rows, or the rows themselves, (C, D'), if C > 2 D'.
      sample: (blocks, size) index of each row's sample among all samples, negative for padding.
    """

    rows: jax.Array
    owner: jax.Array
    mix: jax.Array
    sample: jax.Array

    placement = {"rows": ROWS, "owner": ROWS, "mix": WHOLE, "sample": ROWS}

    @classmethod
    def of(cls, rows: jax.Array, owner: jax.Array, head: jax.Array, sample: jax.Array) -> "HeadRows":
        """From packed rows and the unit rows (C, D') of the head."""
        cheaper = len(head) <= 2 * head.shape[1]
        return cls(rows, owner, _einsum("cd,ed->ce", head, head) if cheaper else head, sample)

    @classmethod
    def pack(
        cls,
        rows: jax.Array,
        labels: jax.Array,
        head: jax.Array,
        sample: jax.Array,
        shape: tuple[int, int] | None = None,
    ) -> "HeadRows":
        """From one row per sample, in any order; negative samples are left out. shape: as in `packed_by_class`."""
        labels = jnp.where(sample < 0, len(head), labels)
        packed, owner, position, valid = class_blocks.packed_by_class(rows, labels, len(head), shape)
        return cls.of(packed, owner, head, jnp.where(valid, sample[position], -1))

    @property
    def dtype(self) -> np.dtype:
        """The dtype of A and of its products."""
        return self.rows.dtype

    @property
    def ids(self) -> jax.Array:
        """(entries,) indices of the samples of all vector entries; negative where the row is zero."""
        live = jnp.any(self.rows != 0, axis=2)
        return jnp.where(live, self.sample, -1).reshape(-1)

    def apply(self, x: jax.Array, axis: str | None = None) -> jax.Array:
        """A x for x (entries, columns)."""
        num_classes, dim = len(self.mix), self.rows.shape[2]

        def product(x):
            columns = x.shape[1]
            x = x.reshape(*self.rows.shape[:2], columns)
            parts = _einsum("knd,knp->kdp", self.rows, x).reshape(len(self.rows), dim * columns)
            mixed = self._mixed(jax.ops.segment_sum(parts, self.owner, num_classes), axis)
            mixed = mixed.reshape(num_classes, dim, columns)[self.owner]
            return _einsum("knd,kdp->knp", self.rows, mixed).reshape(-1, columns)

        return _in_columns(product, x, max(TABLE // (num_classes * dim), 1))

    def _mixed(self, sums, axis):
        """sum_c' <w_c, w_c'> sums_c' of the sums (C, K) of all devices, each of which mixes its share of the K columns.

        A reduce-scatter and an all-gather move as much as one all-reduce.
        """
        if axis is None:
            return self._mix(sums)
        width = sums.shape[1]
        sums = jnp.pad(sums, ((0, 0), (0, -width % jax.lax.axis_size(axis))))
        share = jax.lax.psum_scatter(sums, axis, scatter_dimension=1, tiled=True)
        return jax.lax.all_gather(self._mix(share), axis, axis=1, tiled=True)[:, :width]

    def _mix(self, sums):
        if self.mix.shape[0] == self.mix.shape[1]:
            return _einsum("ce,ek->ck", self.mix, sums)
        return _einsum("ce,ek->ck", self.mix, _einsum("ce,ck->ek", self.mix, sums))

    def squared_norm(self, axis: str | None = None) -> jax.Array:
        """tr A^2 = sum_{c, c'} cos^2(w_c, w_c') <R_c, R_c'>, R_c = B_c^T B_c; nan if these need too much memory."""
        num_classes, dim = len(self.mix), self.rows.shape[2]
        if num_classes * max(dim * dim, num_classes) > SECOND_MOMENTS:
            return jnp.full((), jnp.nan, self.rows.dtype)
        parts = _einsum("knd,kne->kde", self.rows, self.rows)
        second = total(jax.ops.segment_sum(parts, self.owner, num_classes), axis).reshape(num_classes, -1)
        square = self.mix.shape[0] == self.mix.shape[1]
        cosines = self.mix if square else _einsum("cd,ed->ce", self.mix, self.mix)
        return jnp.sum(cosines**2 * _einsum("ci,ei->ce", second, second))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pairs:
    """G(Z1) o G(Z2) of two feature sets, A_ij = <a_i, a_j> <v_i, v_j>: 4 N D1 D2 operations per column.

    Attributes:
      a: (n, D1) rows sqrt(p_i) u_i; v: (n, D2) unit rows; sample: (n,) as in `HeadRows`.
    """

    a: jax.Array
    v: jax.Array
    sample: jax.Array

    placement = {"a": ROWS, "v": ROWS, "sample": ROWS}

    @property
    def dtype(self) -> np.dtype:
        """The dtype of A and of its products."""
        return self.a.dtype

    @property
    def ids(self) -> jax.Array:
        """As `HeadRows.ids`, (n,)."""
        return jnp.where(jnp.any(self.a != 0, axis=1) & jnp.any(self.v != 0, axis=1), self.sample, -1)

    def apply(self, x: jax.Array, axis: str | None = None) -> jax.Array:
        """A x for x (n, columns): rows of A diag V^T with M = sum_i x_i a_i v_i^T (D1, D2), column by column."""

        def column(x):
            m = total(_einsum("nd,ne->de", self.a, self.v * x[:, None]), axis)
            return jnp.sum(_einsum("nd,de->ne", self.a, m) * self.v, axis=1)

        return jax.lax.map(column, x.T).T

    def squared_norm(self, axis: str | None = None) -> jax.Array:
        """nan (0-d), since tr A^2 would need all pairs."""
        return jnp.full((), jnp.nan, self.a.dtype)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Matrix:
    """A stored density matrix whose rows are split over the devices: 2 N^2 operations per column.

    Attributes:
      rows: (n, N) the rows on one device of a symmetric matrix of trace one.
      sample: (n,) as in `HeadRows`.
    """

    rows: jax.Array
    sample: jax.Array

    placement = {"rows": ROWS, "sample": ROWS}

    @property
    def dtype(self) -> np.dtype:
        """The dtype of A and of its products."""
        return self.rows.dtype

    @property
    def ids(self) -> jax.Array:
        """As `HeadRows.ids`, (n,)."""
        return jnp.where(jnp.any(self.rows != 0, axis=1), self.sample, -1)

    def apply(self, x: jax.Array, axis: str | None = None) -> jax.Array:
        """A x for x (n, columns), the entries of this device."""
        if axis is not None:
            x = jax.lax.all_gather(x, axis, tiled=True)
        return _einsum("nm,mp->np", self.rows, x)

    def squared_norm(self, axis: str | None = None) -> jax.Array:
        """tr A^2 (0-d) over all devices."""
        return total(jnp.sum(self.rows * self.rows), axis)


Operator: TypeAlias = HeadRows | Pairs | Matrix


def with_placement(operator: Operator, rows: Any, whole: Any) -> Operator:
    """The operator with `rows` in place of fields split over samples and `whole` in place of the others."""
    return replace(operator, **{k: rows if v == ROWS else whole for k, v in operator.placement.items()})
