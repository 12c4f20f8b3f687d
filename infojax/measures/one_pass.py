"""NC1 from raw sums over one pass, with a bound on the rounding error of their difference."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from infojax.measures import arrays
from infojax.measures.arrays import ArrayLike
from infojax.measures.moments import ClassStats
from infojax.measures.variability import NC1_CONVENTIONS, between_factor, between_inverse, has_between, mean_rounding


class OnePass(NamedTuple):
    """NC1 from raw sums. value: 0-d, not clipped. error: bound on its rounding error; reliable: value > 10 error."""

    value: jax.Array
    error: jax.Array
    reliable: jax.Array


def nc1_one_pass(count: ArrayLike, sums: ArrayLike, second_moment: ArrayLike) -> OnePass:
    """NC1 (thesis convention) from sums over one pass: tr(S_W S_B^+) with S_W = G / N - mu mu^T - S_B.

    The difference cancels: the terms exceed the result by the ratio of raw to within-class energy, so in float32 it
    has no correct digits once NC1 is below about 1e-5 (and may be negative), as `reliable` reports. Prefer
    ClassStats(scatter="within"), also one pass, which does not cancel.

    Args:
      count: (C,) samples of each class.
      sums: (C, D) sums of each class's features.
      second_moment: (D, D) sum of z z^T, G.
    Returns:
      `OnePass`.
    References:
      Thesis "Compression in DNNs", equation 2.1.
    """
    second_moment = arrays.as_square(second_moment, "second_moment")
    count, sums = arrays.as_float(count, "count"), arrays.as_rows(sums, "sums")
    shape = (*count.shape, len(second_moment))
    if count.ndim != 1 or sums.shape != shape:
        raise ValueError(
            f"count must be (C,), sums (C, D), second_moment (D, D); got {count.shape}, {sums.shape}, "
            f"{second_moment.shape}"
        )
    arrays.check_not_negative(count, "count")
    count, sums = (x.astype(second_moment.dtype) for x in (count, sums))
    mean, s = arrays.normalised(arrays.safe_divide(sums, count[:, None]))
    stats = ClassStats(count, mean, jnp.zeros_like(count))
    root = between_inverse(stats)
    inverse = arrays.matmul(root, root.T)
    total = jnp.sum(count)
    center = arrays.safe_divide(jnp.sum(sums / s, axis=0), total)
    factor = between_factor(stats, NC1_CONVENTIONS["thesis"])
    raw = arrays.safe_divide(second_moment * (1 / s) * (1 / s), total)
    terms = [raw, center[:, None] * center[None, :], arrays.matmul(factor.T, factor)]
    value = jnp.sum(inverse * (terms[0] - terms[1] - terms[2]))
    # Each product in the trace carries its own relative rounding error; they add up in absolute value.
    eps = jnp.finfo(raw.dtype).eps
    error = eps * sum(jnp.sum(jnp.abs(inverse) * jnp.abs(t)) for t in terms)
    # S_B^+ itself is off by twice the error of its factor F times ||F^+||, ||F^+||^2 <= tr S_B^+.
    factor_error = mean_rounding(stats) + 4 * eps * arrays.safe_sqrt(jnp.trace(terms[2]))
    error += 2 * factor_error * arrays.safe_sqrt(jnp.trace(inverse)) * (jnp.abs(value) + error)
    defined = has_between(stats, NC1_CONVENTIONS["thesis"])
    value = jnp.where(defined, value, jnp.nan)
    return OnePass(value, error, defined & (value > 10 * error))
