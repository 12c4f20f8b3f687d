"""Curvature of the trajectory of a sequence's tokens in feature space."""

import jax
import jax.numpy as jnp

from infojax.measures import arrays, scalars, spectra
from infojax.measures.arrays import ArrayLike
from infojax.measures.singular import centered_rows

CURVATURE_CONVENTIONS = ("paper", "information_flow", "information_flow_2024")


def curvature(z: ArrayLike, *, convention: str = "paper", weights: ArrayLike | None = None) -> jax.Array:
    """Mean angle between successive steps v_t = z_{t+1} - z_t of a trajectory, in radians.

    Conventions:
      "paper": mean over t of arccos <v_t, v_{t+1}> / (||v_t|| ||v_{t+1}||), in [0, pi]; steps of length zero have no
        direction and are left out;
      "information_flow": its released code, with |<v_t, v_{t+1}>|, which folds the angles to [0, pi / 2], and angles of
        steps of length zero counted as 0;
      "information_flow_2024": its first release, the angle between successive states and not steps: arccos of
        <u_t, u_{t+1}>, u the centred, L2-normalised rows.
    A random walk in 32 dimensions gives about 1.58, 1.42 and 0.19.

    Args:
      z: (T, D) features of the tokens of one sequence, in order.
      weights: (T,) non-negative or None; an angle counts the product of the weights of its tokens, so that a mask of a
        contiguous stretch equals the stretch.
    Returns:
      0-d array; nan without an angle (fewer than three tokens; two under "information_flow_2024").
    References:
      Hosseini and Fedorenko, "Large language models implicitly learn to straighten neural sentence trajectories to
      construct a predictive representation of natural language", NeurIPS 2023; Skean et al., ICML 2025.
    """
    scalars.one_of(convention, "convention", CURVATURE_CONVENTIONS)
    z = arrays.as_rows(z)
    w = arrays.sample_weights(weights, len(z), z.dtype)
    z, _ = arrays.normalised(jnp.where(w[:, None] <= 0, 0, z))
    if convention == "information_flow_2024":
        u, live = spectra.unit_rows(centered_rows(z, w, jnp))
        return _mean_angle(u, live, w[:-1] * w[1:], fold=False, still=False)
    # A step between rows that are equal up to rounding has no direction.
    floor = 4 * jnp.finfo(z.dtype).eps * jnp.nanmax(jnp.abs(jax.lax.stop_gradient(z)), initial=0)
    u, live = spectra.unit_rows(z[1:] - z[:-1], floor)
    fold = convention == "information_flow"
    return _mean_angle(u, live, w[:-2] * w[1:-1] * w[2:], fold=fold, still=fold)


def _mean_angle(u, live, w, fold, still):
    """Weighted mean of the angles between successive unit rows; `still` counts those of zero rows as 0."""
    if len(u) < 2:
        return jnp.full((), jnp.nan, u.dtype)
    both = live[:-1] & live[1:]
    apart, sum_ = (arrays.safe_sqrt(jnp.sum((u[1:] + sign * u[:-1]) ** 2, axis=1)) for sign in (-1, 1))
    # Kahan's formula: keeps all digits of angles near 0 and pi, where arccos loses half of them.
    angle = 2 * jnp.arctan2(apart, jnp.where(both, sum_, 1))
    angle = jnp.minimum(angle, jnp.pi - angle) if fold else angle
    w = w if still else jnp.where(both, w, 0)
    return arrays.safe_divide(jnp.sum(w * jnp.where(both, angle, 0)), jnp.sum(w), jnp.nan)
