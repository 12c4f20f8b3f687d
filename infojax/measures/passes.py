"""The second pass over the samples, around the class means of the first: within-class energies, distances, and NC4.

Each is a sum over samples: it streams (add the sums of the batches), shards (psum them) and takes O(C D) memory.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from infojax.measures import arrays, by_class, moments, sample_blocks, scale
from infojax.measures.arrays import ArrayLike
from infojax.measures.moments import ClassStats
from infojax.measures.simplex import means_and_head
from infojax.measures.stats_arguments import takes_stats
from infojax.measures.variability import class_weights, energies


class SecondPass(NamedTuple):
    """Sums over the samples of each class, (C,) each; add those of several batches field by field.

    energy: (z - mu_c)^T S_B^+ (z - mu_c), zeros without `inverse`. distance: ||z - mu_c||.
    disagreement: number of samples whose head class is not that of the nearest centre, zeros without a head.
    """

    energy: jax.Array
    distance: jax.Array
    disagreement: jax.Array


@takes_stats
def second_pass(
    stats: ClassStats,
    z: ArrayLike,
    labels: ArrayLike,
    head: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    inverse: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> SecondPass:
    """`SecondPass` of one batch around the class means of all samples.

    Args:
      stats: `ClassStats` of all samples.
      z, labels, weights: one batch, as `class_stats` takes them.
      head: (C, D) or None; bias: (C,) or None.
      inverse: `between_inverse(stats)` or None.
    Returns:
      `SecondPass`.
    """
    z, labels, w = moments.samples_around(stats, z, labels, weights)
    s = arrays.normalised(stats.mean)[1]
    scorers = None if head is None else _scorers(stats, head, bias)
    if isinstance(z, np.ndarray) and arrays.on_host(*jax.tree.leaves((stats, inverse, scorers))):
        return _in_numpy(stats, z, labels, w, float(s), inverse, scorers)

    def add(sums, *block):
        deviation, owners, w = sample_blocks.deviations(*block, stats.mean)
        distance = _lengths(deviation, s)
        energy = jnp.zeros_like(w) if inverse is None else energies(inverse, deviation)
        differ = jnp.zeros_like(w) if scorers is None else _disagreement(scorers, block[0], owners, distance)
        added = (sample_blocks.class_sums(w * x, owners, stats.num_classes) for x in (energy, distance, differ))
        return SecondPass(*map(jnp.add, sums, added))

    zeros = jnp.zeros(stats.num_classes, z.dtype)
    return sample_blocks.fold_blocks(add, SecondPass(zeros, zeros, zeros), sample_blocks.BLOCK_ROWS, z, labels, w)


def _in_numpy(stats, z, labels, w, s, inverse, scorers):
    samples = by_class.samples(z, labels, w, stats.num_classes)
    wanted = {"distance": partial(_lengths_in_numpy, s=z.dtype.type(s))}
    if inverse is not None:
        wanted["energy"] = by_class.root_of(np.asarray(inverse, z.dtype)).energies
    if scorers is not None:
        scorers = jax.tree.map(np.asarray, scorers)
        wanted["disagreement"] = partial(_disagreement_in_numpy, scorers, wanted["distance"])
    sums = by_class.values_around(samples, np.asarray(stats.mean, z.dtype), *wanted.values())
    zeros = np.zeros(stats.num_classes)
    found = dict.fromkeys(SecondPass._fields, zeros) | dict(zip(wanted, sums, strict=True))
    return SecondPass(**{key: jax.device_put(value.astype(z.dtype)) for key, value in found.items()})


def _lengths_in_numpy(rows, *_, s):
    if scale.MODERATE[0] <= s <= scale.MODERATE[1]:
        return np.sqrt(by_class.squares_of(rows))
    return s * np.sqrt(by_class.squares_of(rows / s))


@jax.jit
def _lengths(rows, s):
    return s * arrays.safe_sqrt(jnp.sum((rows / s) ** 2, axis=1))


def same_classifier(head: ArrayLike | None, bias: ArrayLike | None, s: jax.Array) -> tuple[Any, Any]:
    """Head (C, D) and bias (C,) over powers of two, which classify z / s as they classify z; None stays None.

    s: 0-d, the power of two by which the features were divided.
    """
    if head is None:
        return None, bias
    head = arrays.as_rows(head, "head")
    if bias is None:
        return arrays.normalised(head)[0], None
    bias = arrays.as_float(bias, "bias")
    dtype = jnp.promote_types(head.dtype, bias.dtype)
    head, bias = head.astype(dtype), bias.astype(dtype)
    largest = [jnp.max(jnp.abs(jax.lax.stop_gradient(x)), initial=0) for x in (head, bias)]
    common = arrays.power_of_two(jnp.maximum(*largest))
    return head / common, bias / common * (1 / s)  # XLA would turn / common / s into / (common s), which overflows


class _Scorers(NamedTuple):
    """Linear scores whose argmax is the head's class and the nearest centre, and other inputs of NC4.

    ||z - mu_c||^2 = ||z - mu_C||^2 - 2 <m_c, z> + 2 <m_c, mu_C> + ||m_c||^2 with m_c = mu_c - mu_C; scores of centres
    are divided by a power of two near the largest class mean.
    """

    head: jax.Array
    bias: jax.Array
    means: jax.Array
    offset: jax.Array
    reach: jax.Array  # (C,) just under half the distance of mu_c to the nearest other centre
    poison: jax.Array  # nan if the head or the bias contains nan, which argmax would hide; else 0


@jax.jit
def _scorers(stats, head, bias):
    stats, s = scale.normalised_stats(stats)
    means, _, mask = means_and_head(stats, head)
    head = arrays.as_rows(head, "head").astype(means.dtype)
    bias = jnp.zeros(len(head), means.dtype) if bias is None else arrays.as_float(bias, "bias").astype(means.dtype)
    if bias.shape != (len(head),):
        raise ValueError(f"bias must have shape ({len(head)},); got {bias.shape}")
    center = arrays.matmul(class_weights(stats, "classes")[None], stats.mean)
    square = jnp.sum(means * means, axis=1)
    offset = -jnp.sum(means * center, axis=1) - square / 2
    apart = 0.999 * (square[:, None] + square[None, :]) - 2 * arrays.matmul(means, means.T)
    apart = jnp.where(mask[None, :] & ~jnp.eye(len(mask), dtype=bool), apart, jnp.inf)
    return _Scorers(
        head, bias, means, jnp.where(mask, s * offset, -jnp.inf), 0.499 * s * arrays.safe_sqrt(jnp.min(apart, axis=1)),
        poison=0 * (jnp.sum(head) + jnp.sum(bias)),
    )  # fmt: skip


def _disagreement(scorers, rows, owners, distance):
    """1 for samples whose head class is not the nearest centre, else 0; nan where that is undetermined."""
    scores = ((scorers.head, scorers.bias), (scorers.means, scorers.offset))
    chosen, nearest = (jnp.argmax(arrays.matmul(rows, a.T) + b[None], axis=1) for a, b in scores)
    return (chosen != nearest).astype(distance.dtype) + 0 * distance + scorers.poison


def _disagreement_in_numpy(scorers, lengths, deviation, owners, rows):
    """`_disagreement`; a centre is the nearest, without comparing, if no other is within twice its distance."""
    distance, nearest = lengths(deviation), owners.copy()
    unsure = np.flatnonzero(~(distance < scorers.reach[owners]))
    nearest[unsure] = np.argmax(rows[unsure] @ scorers.means.T + scorers.offset, axis=1)
    differ = np.argmax(rows @ scorers.head.T + scorers.bias, axis=1) != nearest
    return differ.astype(distance.dtype) + 0 * distance + scorers.poison


def nc4(
    z: ArrayLike, labels: ArrayLike, head: ArrayLike, bias: ArrayLike | None = None, *, weights: ArrayLike | None = None
) -> jax.Array:
    """NC4: share of samples on which the head and the nearest class centre disagree; 0 at collapse.

    mean_i [ argmax_c (<w_c, z_i> + b_c) != argmin_c ||z_i - mu_c|| ]; only classes present have a centre. Ties go to
    the lowest class, so the value is meaningless where all class means coincide.

    Args:
      z: (N, D); labels: (N,) integers; head: (C, D).
      bias: (C,) or None. Leaving out a trained bias changes the value (rhubarbwu's code does).
      weights: (N,) non-negative or None.
    Returns:
      0-d array in [0, 1]; nan without samples. Piecewise constant: its gradient is zero.
    References:
      Papyan, Han and Donoho, PNAS 2020.
    """
    z = arrays.as_host_rows(z)
    labels = arrays.as_labels(labels, len(z))
    head = arrays.as_head(head, z.shape[1], labels)
    bias = arrays.as_bias(bias, head)
    z, stats, s = scale.first_pass(z, labels, head.shape[0], weights, squares=False)
    head, bias = same_classifier(head, bias, s)
    disagreement = second_pass(stats, z, labels, head, bias, weights=weights).disagreement
    return arrays.safe_divide(jnp.sum(disagreement), jnp.sum(stats.count), jnp.nan)
