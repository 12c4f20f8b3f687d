"""Quantiles of Student's t distribution, for intervals of means of few values."""

import math
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp

from infojax.measures import scalars


def student_quantile(confidence: Any, freedom: jax.Array) -> jax.Array:
    """t with P(|T| <= t) = confidence, to five digits or more; inf for less than one degree of freedom.

    Args:
      confidence: static, between 0 and 1.
      freedom: degrees of freedom, 0-d.
    References:
      Hill, "Algorithm 396: Student's t-quantiles", Communications of the ACM 1970.
    """
    if isinstance(confidence, jax.core.Tracer):
        raise ValueError("confidence is traced, but must be a static number: jit with static_argnames='confidence'")
    confidence = float(scalars.number(confidence, "confidence", "a number between 0 and 1", lambda x: 0 < x < 1))
    tail, normal = 1 - confidence, NormalDist().inv_cdf((1 - confidence) / 2)
    n = jnp.maximum(freedom, 3).astype(jnp.result_type(freedom, float))
    a = 1 / (n - 0.5)
    b = 48 / (a * a)
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * jnp.sqrt(a * math.pi / 2) * n
    y = (d * tail) ** (2 / n)
    near = _near(normal, n, a, b, c, d)
    far = ((1 / (((n + 6) / (n * y) - 0.089 * d - 0.822) * (n + 2) * 3) + 0.5 / (n + 4)) * y - 1) * (n + 1) / (
        n + 2
    ) + 1 / y
    t = jnp.sqrt(n * jnp.where(y > 0.05 + a, near, far))
    one, two = 1 / math.tan(tail * math.pi / 2), math.sqrt(2 / (tail * (2 - tail)) - 2)
    t = jnp.where(freedom >= 3, t, jnp.where(freedom >= 2, two, one))
    return jnp.where(freedom >= 1, t, jnp.inf)


def _near(x, n, a, b, c, d):
    """Expansion about the normal quantile x < 0."""
    y = x * x
    c = c + jnp.where(n < 5, 0.3 * (n - 4.5) * (x + 0.6), 0)
    c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c
    y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
    return jnp.expm1(a * y * y)
