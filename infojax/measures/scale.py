"""Samples and class moments at any scale: they are divided by a power of two, which is exact, before squaring.

A measure that is homogeneous of degree zero may hold that power constant when it is differentiated: the derivative is
still correct. Only entries below the smallest normal number (1.2e-38 in float32, 2.2e-308 in float64) are lost, which
XLA flushes to zero; features that are all below 1e-31 (1e-292) lose some of their digits to that.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infojax.measures import arrays, by_class, moments
from infojax.measures.arrays import AnyArray, ArrayLike
from infojax.measures.moments import ClassStats

# Features whose largest entry lies in this range have squares that fit any float dtype: they need no scaling.
MODERATE = (2.0**-24, 2.0**24)


@jax.jit
def normalised_stats(stats: ClassStats) -> tuple[ClassStats, jax.Array]:
    """`ClassStats` of features over s, and s (0-d), the power of two nearest to the largest entry of a class mean."""
    mean, s = arrays.normalised(stats.mean)
    # Not / s / s, which XLA turns into / (s s), which overflows.
    inverse = 1 / s
    scatter = None if stats.scatter is None else stats.scatter * inverse * inverse
    return replace(stats, mean=mean, squares=stats.squares * inverse * inverse, scatter=scatter), s


def first_pass(
    z: ArrayLike,
    labels: ArrayLike,
    num_classes: int | None = None,
    weights: ArrayLike | None = None,
    *,
    scatter: str | None = None,
    squares: bool = True,
) -> tuple[AnyArray, ClassStats, jax.Array]:
    """z / s (N, D), its `ClassStats`, and s (0-d), the power of two nearest to the largest entry of samples that count.

    Concrete arrays on the CPU stay in NumPy; with moderate entries they are not copied, and s = 1.

    Args:
      z, labels, num_classes, weights, scatter: as `class_stats` takes them.
      squares: False if they are not needed; they may then be zeros.
    Raises:
      ValueError: as `class_stats`.
    """
    given, (z, labels, w) = labels, moments.checked_samples(z, labels, weights)
    num_classes = moments.infer_num_classes(given, num_classes)
    s: Any = jnp.ones((), z.dtype)
    if isinstance(z, np.ndarray):
        moments.check_size(num_classes, z.shape[1], scatter, z.dtype.itemsize)
        samples = by_class.samples(z, labels, w, num_classes)
        count, mean, longest = by_class.means(samples)
        if not MODERATE[0] <= longest <= MODERATE[1]:
            z, s = divided_samples(z, labels, w, num_classes)
        elif scatter is None:
            found = count, mean, by_class.squares(samples, count, mean) if squares else np.zeros(num_classes)
            return z, ClassStats(*jax.device_put([x.astype(z.dtype) for x in found])), s
    else:
        z, s = divided_samples(z, labels, w, num_classes)
    return z, moments.class_stats(z, labels, num_classes, weights=w, scatter=scatter), s


@partial(jax.jit, static_argnums=3)
def divided_samples(z: jax.Array, labels: jax.Array, w: jax.Array, num_classes: int) -> tuple[jax.Array, jax.Array]:
    """z / s (N, D) and s (0-d), the power of two nearest to the largest |z_ij|, in a compiled program.

    Only samples with 0 <= label < C and a positive weight count for s.
    """
    counted = ((labels >= 0) & (labels < num_classes) & (w > 0))[:, None]
    s = arrays.power_of_two(jnp.max(jnp.where(counted, jnp.abs(z), 0), initial=0))
    return z / s, s
