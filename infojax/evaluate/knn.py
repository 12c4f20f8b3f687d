"""Nearest neighbours of frozen features: the two published votes, streamed over blocks of the bank.

  cosine (Wu et al. 2018; DINO): s_j = <u, u_j> of unit rows, votes exp(s_j / T) of the k largest; k = 20, T = 0.07 in
    DINO's code, k = 200, T = 0.1 in that of instance discrimination and of the spectral contrastive loss
  euclidean (solo-learn's default): votes 1 / (|z - z_j| + 1e-5) of the k nearest rows as they are; k = 20

Among equally near rows the first in the bank wins, among classes with equal votes the first. The bank stays on the host
and passes through the device once, where the best k of every query so far are kept: 1.28 million rows of 2,048 numbers
take 10 GB on the host, and 0.5 GB on the device at a time.

References:
  Wu, Xiong, Yu and Lin 2018, Unsupervised feature learning via non-parametric instance discrimination, section 3.4.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from infojax.measures.scalars import one_of
from infojax.measures.spectra import unit_rows

RULES = ("cosine", "euclidean")
EPSILON = 1e-5  # of the euclidean vote


class Neighbours(NamedTuple):
    """The k nearest rows of a bank to M queries, the nearest first.

    Attributes:
      closeness: (M, k) float32; the cosine, or minus the squared distance.
      index: (M, k) int32, rows of the bank.
    """

    closeness: jax.Array
    index: jax.Array  # type: ignore[assignment]  # shadows tuple.index, which is not needed


def neighbours(
    queries: Any, bank: Any, k: int, rule: str = "cosine", *, block: int = 65_536, query_block: int = 1024
) -> Neighbours:
    """The k nearest rows of a bank.

    Args:
      queries: (M, D); bank: (N, D), an array on the host, possibly memory-mapped.
      k: from 1 to N.
      rule: one of RULES.
      block, query_block: rows of bank and queries compared at once.
    Raises:
      ValueError: an unknown rule, different numbers of columns, or k above N.
    """
    one_of(rule, "rule", RULES)
    if queries.ndim != 2 or bank.ndim != 2 or queries.shape[1] != bank.shape[1]:
        raise ValueError(f"queries and bank must be (M, D) and (N, D); got {queries.shape} and {bank.shape}")
    if not 1 <= k <= len(bank):
        raise ValueError(f"k must be from 1 to {len(bank)}, the rows of the bank; got {k}")
    block, size = min(block, len(bank)), min(query_block, len(queries))
    starts = range(0, len(queries), size)
    parts = [_rows(jnp.asarray(_padded(queries[i : i + size], size), jnp.float32), rule) for i in starts]
    best = [Neighbours(jnp.full((size, k), -jnp.inf), jnp.zeros((size, k), jnp.int32)) for _ in parts]
    for start in range(0, len(bank), block):
        rows = np.asarray(bank[start : start + block], np.float32)
        there = _rows(jnp.asarray(_padded(rows, block)), rule)
        best = [_merged(own, part, there, start, len(rows), rule) for own, part in zip(best, parts, strict=True)]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[: len(queries)], *best)


def votes(
    found: Neighbours, labels: Any, num_classes: int, rule: str = "cosine", temperature: float = 0.07
) -> jax.Array:
    """(M, C) votes of the neighbours for each class; those of "cosine" are divided by the first neighbour's.

    Args:
      found: from `neighbours` with the same rule; labels: (N,) of the bank.
      temperature: T, for "cosine" only.
    """
    if rule == "cosine":
        weight = jnp.exp((found.closeness - found.closeness[:, :1]) / temperature)
    else:
        weight = 1 / (jnp.sqrt(-found.closeness) + EPSILON)
    classes = jnp.asarray(labels, jnp.int32)[found.index]
    rows = jnp.arange(len(classes))[:, None]
    return jnp.zeros((len(classes), num_classes)).at[rows, classes].add(weight)


def knn_accuracies(
    queries: Any,
    query_labels: Any,
    bank: Any,
    labels: Any,
    num_classes: int,
    ks: Iterable[int] = (20,),
    rule: str = "cosine",
    temperature: float = 0.07,
) -> dict[int, float]:
    """k -> share of queries whose class gets the most votes from their k nearest rows; one pass over the bank.

    Args:
      queries: (M, D) features, query_labels: (M,); bank: (N, D), labels: (N,).
      ks: numbers of neighbours; rule, temperature: as in `votes`.
    Raises:
      ValueError: as for `neighbours`.
    """
    ks, right = tuple(ks), np.asarray(query_labels)
    found = neighbours(queries, bank, max(ks), rule)
    of_k = {k: Neighbours(found.closeness[:, :k], found.index[:, :k]) for k in ks}
    predicted = {k: jnp.argmax(votes(own, labels, num_classes, rule, temperature), 1) for k, own in of_k.items()}
    return {k: float(np.mean(np.asarray(classes) == right)) for k, classes in predicted.items()}


def _rows(x, rule):
    return unit_rows(x)[0] if rule == "cosine" else x


@partial(jax.jit, static_argnums=5)
def _merged(best, queries, bank, start, count, rule):
    """The best k after `count` more rows of the bank, from row `start` on; on ties, earlier rows stay first."""
    closeness = jnp.matmul(queries, bank.T, precision="highest")
    if rule == "euclidean":  # like torch.cdist for many rows
        squares = jnp.sum(queries**2, axis=1)[:, None] + jnp.sum(bank**2, axis=1)[None]
        closeness = -jnp.maximum(squares - 2 * closeness, 0)
    closeness = jnp.where(jnp.arange(len(bank))[None] < count, closeness, -jnp.inf)
    k = best.closeness.shape[1]
    nearest, place = jax.lax.top_k(closeness, min(k, len(bank)))
    both = jnp.concatenate([best.closeness, nearest], axis=1)
    index = jnp.concatenate([best.index, place.astype(jnp.int32) + start], axis=1)
    kept, place = jax.lax.top_k(both, k)
    return Neighbours(kept, jnp.take_along_axis(index, place, axis=1))


def _padded(x, size):
    return np.pad(np.asarray(x), ((0, size - len(x)), (0, 0))) if len(x) < size else x
