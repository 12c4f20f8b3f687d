"""Coding rates of one set of features, in nats."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from infojax.measures import arrays, scalars, spectra
from infojax.measures.arrays import ArrayLike


def coding_rate(
    z: ArrayLike, mu: float | jax.Array = 1.0, *, form: str = "code", weights: ArrayLike | None = None
) -> jax.Array:
    """Coding rate (total coding rate, TCR) of the unit rows U of Z, through Cholesky on the smaller side.

    With G = U^T diag(w) U and B = sum of the weights of non-zero rows (their number without weights):
      "code":  log det(I_D + (mu / D) G), what the released M-MAE code computes;
      "paper": log det(mu I_D + G), as printed in the M-MAE paper; equal to "code" at mu' = D / mu plus D log mu;
      "mcr2":  (1/2) log det(I_D + mu D / B G), the rate of MCR^2 with mu = 1 / eps^2 (EMP-SSL: mu = 1 / 0.2).

    Args:
      z: (N, D) features.
      mu: positive number.
      form: one of the above.
      weights: (N,) non-negative or None.
    Returns:
      0-d array, nats.
    Raises:
      ValueError: unknown form, mu that is not positive.
    References:
      Tan et al., "Information Flow in Self-Supervised Learning", ICML 2024; Yu et al., MCR^2, NeurIPS 2020.
    """
    z = arrays.as_rows(z)
    dim = z.shape[1]
    w = arrays.sample_weights(weights, z.shape[0], z.dtype)
    u, live = spectra.unit_rows(jnp.where(w[:, None] <= 0, 0, z))
    small = spectra.smaller_gram(u * arrays.safe_sqrt(w)[:, None])
    return coding_rate_of_moment(small, jnp.sum(jnp.where(live, w, 0)), dim, mu, form)


def coding_rate_of_moment(
    small: jax.Array, mass: jax.Array, dim: int, mu: float | jax.Array = 1.0, form: str = "code"
) -> jax.Array:
    """`coding_rate` from the smaller Gram matrix (m, m) of the unit rows times sqrt(w), of which `dim` is D.

    Args:
      small: (m, m), m = min(N, D); mass: 0-d, the sum of the weights of the non-zero rows.
      mu, form: as `coding_rate` takes them.
    Returns:
      0-d array, nats.
    """
    mu = scalars.number(mu, "mu", "a positive number, from 1e-30 to 1e30", lambda x: 1e-30 <= x <= 1e30)
    dim = max(dim, 1)  # without columns there is nothing to code
    scales: dict[str, Callable[[], tuple[Any, float, Any]]] = {
        "code": lambda: (mu / dim, 1.0, 0.0),
        "paper": lambda: (1 / mu, 1.0, dim * jnp.log(mu)),
        "mcr2": lambda: (arrays.safe_divide(mu * dim, mass), 0.5, 0.0),
    }
    scale, factor, constant = scales[scalars.one_of(form, "form", scales)]()
    # In exact arithmetic the determinant of I + G is at least one.
    return (
        factor * arrays.not_negative(spectra.logdet(jnp.eye(len(small), dtype=small.dtype) + scale * small)) + constant
    )
