"""Samples and class moments at every scale: divided by a power of two before anything is squared, which rounds nothing.

A measure that is homogeneous of degree zero may hold that power constant when it is differentiated: the derivative is
the right one. Only entries below the smallest normal number (1.2e-38 in float32, 2.2e-308 in float64) are lost, which
XLA flushes to zero; features that are all below 1e-31 (1e-292) lose some of their digits to that.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from infojax.measures import arrays, moments
from infojax.measures.arrays import ArrayLike
from infojax.measures.moments import ClassStats

# Features whose largest entry lies in this range have squares that fit any float type: they need no scaling.
MODERATE = (2.0**-24, 2.0**24)


@jax.jit
def normalised_stats(stats: ClassStats) -> tuple[ClassStats, jax.Array]:
    """`ClassStats` of features divided by s, and s, the power of two nearest to the largest entry of a class mean."""
    mean, s = arrays.normalised(stats.mean)
    # Not / s / s, which XLA turns into / (s s): that overflows.
    inverse = 1 / s
    scatter = None if stats.scatter is None else stats.scatter * inverse * inverse
    return replace(stats, mean=mean, squares=stats.squares * inverse * inverse, scatter=scatter), s


def normalised_samples(
    z: ArrayLike, labels: ArrayLike, num_classes: int | None = None, weights: ArrayLike | None = None
) -> tuple[jax.Array, jax.Array]:
    """z / s and s, the power of two nearest to the largest entry of the samples that count.

    Concrete arrays on the CPU with moderate entries are returned as they are, not copied, with s = 1.

    Args:
      z, labels, num_classes, weights: as `class_stats` takes them.
    """
    given, (z, labels, w) = labels, moments.checked_samples(z, labels, weights)
    num_classes = moments.infer_num_classes(given, num_classes)
    if not arrays.on_host(z, labels, w):
        return _divided_samples(z, labels, w, num_classes)
    rows = np.asarray(z)
    largest = np.maximum(rows.max(axis=1, initial=0), -rows.min(axis=1, initial=0))
    largest = np.max(largest[np.asarray(_counted(labels, w, num_classes))], initial=0)
    if not largest > 0 or MODERATE[0] <= largest <= MODERATE[1]:
        return z, jnp.ones((), z.dtype)
    s = arrays.power_of_two(jnp.asarray(largest))
    return z / s, s


@partial(jax.jit, static_argnums=3)
def _divided_samples(z, labels, w, num_classes):
    counted = _counted(labels, w, num_classes)[:, None]
    s = arrays.power_of_two(jnp.max(jnp.where(counted, jnp.abs(z), 0), initial=0))
    return z / s, s


def _counted(labels, w, num_classes):
    return (labels >= 0) & (labels < num_classes) & (w > 0)
