"""The squared error of a linear classifier, taken apart around its least value (Han, Papyan and Donoho 2022)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from infojax.measures import arrays, roots
from infojax.measures.moments import class_stats, takes_stats


class SquaredError(NamedTuple):
    """Three parts of 1/2 E |W h + b - e_y|^2, 0-d arrays >= 0 that sum to it.

    With W', b' the least-squares head of the same features, p_c, mu_c, mu, Sigma_W, Sigma_T as usual:

    Attributes:
      nc1: 1/2 tr(W' Sigma_W W'^T), what spread within classes costs the best head; vanishes with NC1.
      nc2_nc3: 1/2 sum_c p_c |W' mu_c + b' - e_c|^2, what the class means cost it; vanishes where they span a simplex.
      head: 1/2 E |(W - W') h + b - b'|^2, how far the given head is from the best one. A head trained by cross-entropy
        is far from it: its logits are no one-hot vectors.
    """

    nc1: jax.Array
    nc2_nc3: jax.Array
    head: jax.Array


def squared_error(z, labels, head, bias=None, *, weights=None):
    """Parts of the squared error of a head on features; see `SquaredError`.

    Args:
      z: (N, D) features; labels: (N,) integers; samples labelled outside [0, C) have weight zero.
      head: (C, D); bias: (C,) or None.
      weights: (N,) non-negative or None.
    Raises:
      ValueError: shapes do not fit.
    References:
      Han, Papyan and Donoho 2022, "Neural Collapse Under MSE Loss", Theorem 2, without weight decay and with classes
      weighted by their counts.
    """
    head = arrays.as_rows(head, "head")
    return squared_error_from_stats(class_stats(z, labels, len(head), weights=weights, scatter="within"), head, bias)


@takes_stats
@jax.jit
def squared_error_from_stats(stats, head, bias=None):
    """`SquaredError` from `ClassStats` with scatter="within", the (C, D) head and the (C,) bias or None.

    Raises:
      ValueError: the statistics lack the within-class scatter.
    """
    if stats.kind != "within":
        raise ValueError(f'squared_error needs statistics with scatter="within", got scatter {stats.kind!r}')
    total = jnp.sum(stats.count)
    share = arrays.safe_divide(stats.count, total, jnp.nan)  # p_c; no samples: nothing is known
    mean = arrays.product(share[None], stats.mean)[0]
    centred = jnp.where((stats.count > 0)[:, None], stats.mean - mean[None], 0)
    within = stats.scatter / total
    covariance = within + arrays.product((share[:, None] * centred).T, centred)
    noise = max(4, len(covariance) ** 0.5) * jnp.finfo(covariance.dtype).eps
    best = arrays.product(share[:, None] * centred, roots.pseudo_inverse(covariance, noise))
    # b' = p - W' mu, so that W' mu_c + b' - e_c = W' (mu_c - mu) + p - e_c
    answer = arrays.product(centred, best.T) + share[None] - jnp.eye(len(head), dtype=best.dtype)
    away = head - best
    shift = arrays.product(head, mean[:, None])[:, 0] + (0 if bias is None else bias) - share
    return SquaredError(
        nc1=_quadratic(best, within) / 2,
        nc2_nc3=jnp.sum(share * jnp.sum(answer**2, axis=1)) / 2,
        head=(_quadratic(away, covariance) + jnp.sum(shift**2)) / 2,
    )


def _quadratic(rows, matrix):
    """tr(A M A^T)"""
    return jnp.sum(arrays.product(rows, matrix) * rows)
