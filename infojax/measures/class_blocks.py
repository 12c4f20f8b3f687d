"""Rows sorted by class into single-class blocks, so that one batched product serves all classes."""

import jax
import jax.numpy as jnp


def class_second_moments(rows: jax.Array, labels: jax.Array, num_classes: int) -> jax.Array:
    """Sum of the outer products of each class's rows, with static shapes and about 2 N D^2 multiplications.

    One batched product over the blocks of `packed_by_class` serves all classes; one-hot products would cost C times
    more.

    Args:
      rows: (N, D).
      labels: (N,) integers in [0, C).
    Returns:
      (C, D, D).
    """
    n, dim = rows.shape
    if n == 0:
        return jnp.zeros((num_classes, dim, dim), rows.dtype)
    packed, owner, _, _ = packed_by_class(rows, labels, num_classes)
    products = jnp.einsum("bnd,bne->bde", packed, packed, precision="highest")
    return jax.ops.segment_sum(products, owner, num_classes)


def packed_by_class(
    rows: jax.Array, labels: jax.Array, num_classes: int, shape: tuple[int, int] | None = None
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Rows sorted by class into single-class blocks of equal size; the last block of a class is padded with zeros.

    Args:
      rows: (N, D), N > 0.
      labels: (N,) integers >= 0; rows labelled C or more are left out.
      shape: (blocks, size), static, if the class counts n_c are known: sum_c ceil(n_c / size) blocks suffice. By
        default a size of at most D and N / C, and as many blocks as any labels can need: less than 2 N + C rows.
    Returns:
      packed (blocks, size, D); owner (blocks,), the class of each block; position (blocks, size) of each row in `rows`;
      and valid (blocks, size), False for padding.
    """
    n, dim = rows.shape
    block = min(dim, -(-n // num_classes))
    num_blocks, block = shape or (n // block + num_classes, block)
    order = jnp.argsort(labels)
    count = jnp.bincount(labels, length=num_classes)
    blocks = -(-count // block)
    last_block = jnp.cumsum(blocks)
    index = jnp.arange(num_blocks)
    owner = jnp.minimum(jnp.searchsorted(last_block, index, side="right"), num_classes - 1)
    # Position of each block's rows within their class; positions beyond the end of the class are padding.
    first = (index - (last_block - blocks)[owner]) * block
    within = first[:, None] + jnp.arange(block)[None, :]
    valid = within < count[owner][:, None]
    position = (jnp.cumsum(count) - count)[owner][:, None] + within
    position = order[jnp.clip(position, 0, n - 1)]
    return rows[position] * valid[:, :, None], owner, position, valid
