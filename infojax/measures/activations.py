"""Measures of units and rows rather than spectra: dormant units, norms, and the spread of rows on the sphere."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from infojax.measures import arrays, scalars, spectra, views
from infojax.measures.arrays import ArrayLike

ROWS = 512  # of pairwise similarities held in memory at a time


def dormant_ratio(z: ArrayLike, *, tau: float | jax.Array = 0.1, weights: ArrayLike | None = None) -> jax.Array:
    """Share of dormant units: those j with s_j <= tau mean_k s_k, s_j the mean of |z_ij| over the samples i.

    Args:
      z: (N, D) activations of one layer, one column per unit.
      tau: at least 0; the paper uses 0.1 and 0.025, and 0 for units that are never active.
      weights: (N,) non-negative or None.
    Returns:
      0-d array in [0, 1], with gradient zero; 1 if nothing is active, nan without samples or units. Ports that divide
      by mean_k s_k + 1e-6 and print percentages agree, times 100, for activations well above 1e-6.
    References:
      Sokar et al., "The dormant neuron phenomenon in deep reinforcement learning", ICML 2023, definition 3.1.
    """
    z = arrays.as_rows(z)
    tau = scalars.number(tau, "tau", "a number of at least 0", lambda x: 0 <= x < float("inf"))
    w = arrays.sample_weights(weights, len(z), z.dtype)
    z, _ = arrays.normalised(jax.lax.stop_gradient(jnp.where(w[:, None] <= 0, 0, z)))
    scores = arrays.safe_divide(jnp.sum(w[:, None] * jnp.abs(z), axis=0), jnp.sum(w), jnp.nan)
    mean = jnp.sum(scores) / max(z.shape[1], 1)
    dormant = arrays.safe_divide(jnp.sum(scores <= tau * mean), jnp.asarray(z.shape[1], z.dtype), jnp.nan)
    return jnp.where(jnp.isnan(mean), mean, dormant)


class FeatureNorms(NamedTuple):
    """Euclidean norms of the rows, 0-d each: mean, std (dividing by the total weight), minimum and maximum."""

    mean: jax.Array
    std: jax.Array
    min: jax.Array
    max: jax.Array


def feature_norms(z: ArrayLike, *, weights: ArrayLike | None = None) -> FeatureNorms:
    """Norms ||z_i|| of the features: their mean, standard deviation, minimum and maximum over the samples.

    Args:
      z: (N, D) features. weights: (N,) non-negative or None.
    Returns:
      `FeatureNorms`, in the unit of z; nan without samples.
    """
    z = arrays.as_rows(z)
    w = arrays.sample_weights(weights, len(z), z.dtype)
    z, s = arrays.normalised(jnp.where(w[:, None] <= 0, 0, z))
    norms = arrays.safe_sqrt(jnp.sum(z * z, axis=1))
    p = arrays.safe_divide(w, jnp.sum(w))
    none = jnp.sum(w) <= 0
    mean = jnp.sum(p * norms)
    std = arrays.safe_sqrt(jnp.sum(p * (norms - mean) ** 2))
    least = jnp.min(jnp.where(w <= 0, jnp.inf, norms), initial=jnp.inf)
    values = (mean, std, least, jnp.max(norms, initial=0))
    return FeatureNorms(*(jnp.where(none, jnp.nan, s * jnp.where(none, 0, x)) for x in values))


def feature_std(z: ArrayLike, *, weights: ArrayLike | None = None) -> jax.Array:
    """Mean over the columns of the standard deviation of the unit rows, times sqrt(D): 1 if spread, 0 at collapse.

    lightly's std_of_l2_normalized times sqrt(D); standard deviations divide by N - 1, as there.

    Args:
      z: (N, D) features; rows of zeros are left out.
      weights: (N,) non-negative or None; counts of samples: their sum replaces N.
    Returns:
      0-d array; nan with fewer than two samples.
    """
    z = arrays.as_rows(z)
    w = arrays.sample_weights(weights, len(z), z.dtype)
    u, live = spectra.unit_rows(jnp.where(w[:, None] <= 0, 0, z))
    w = jnp.where(live, w, 0)
    mean = arrays.safe_divide(jnp.sum(w[:, None] * u, axis=0), jnp.sum(w))
    moved = jnp.where(live[:, None], u - mean[None], 0)
    rounding = 4 * jnp.finfo(z.dtype).eps
    moved = jnp.where(jnp.abs(moved) <= rounding, 0, moved)
    freedom = jnp.sum(w) - 1
    variance = arrays.safe_divide(jnp.sum(w[:, None] * moved**2, axis=0), freedom)
    # nan enters last: a derivative that passes through it is nan even where the value is not selected.
    return jnp.where(freedom > 0, jnp.sum(arrays.safe_sqrt(variance)) / max(z.shape[1], 1) ** 0.5, jnp.nan)


def uniformity(z: ArrayLike, *, t: float | jax.Array = 2.0, weights: ArrayLike | None = None) -> jax.Array:
    """Uniformity log E exp(-t ||u_i - u_j||^2) over pairs i != j of the L2-normalised rows u; lower is more uniform.

    Args:
      z: (N, D) features; rows of zeros are left out.
      t: positive, at most 20; the paper's is 2.
      weights: (N,) non-negative or None; a pair counts w_i w_j.
    Returns:
      0-d array in [-4 t, 0], 0 where all rows have one direction; nan with fewer than two rows.
    References:
      Wang and Isola, "Understanding contrastive representation learning through alignment and uniformity on the
      hypersphere", ICML 2020.
    """
    z, t = arrays.as_rows(z), scalars.number(t, "t", "a positive number up to 20", lambda x: 0 < x <= 20)
    w = arrays.sample_weights(weights, len(z), z.dtype)
    return _uniformity(z, w, jnp.asarray(t, z.dtype))


@jax.jit
def _uniformity(z, w, t):
    u, live = spectra.unit_rows(jnp.where(w[:, None] <= 0, 0, z))
    w = jnp.where(live, w, 0)
    w = arrays.safe_divide(w, jnp.max(w, initial=0))
    n = len(u)
    step = min(ROWS, max(n, 1))
    padded = [jnp.pad(x, [(0, -n % step)] + [(0, 0)] * (x.ndim - 1)) for x in (u, w, jnp.arange(n) + 1)]
    blocks = [x.reshape(-1, step, *x.shape[1:]) for x in padded]

    def of_block(carry, block):
        rows, weight, index = block
        apart = 2 - 2 * jnp.minimum(jnp.matmul(rows, u.T, precision="highest"), 1)
        pair = jnp.where(index[:, None] == jnp.arange(n)[None, :] + 1, 0, weight[:, None] * w[None, :])
        found = jnp.sum(pair * jnp.exp(-t * apart)), jnp.sum(pair)
        return jax.tree.map(jnp.add, carry, found), None

    zero = jnp.sum(0 * w) + jnp.zeros((), z.dtype)
    (kernel, mass), _ = jax.lax.scan(of_block, (zero, zero), tuple(blocks))
    return jnp.where(mass > 0, jnp.log(arrays.safe_divide(kernel, mass, 1.0)), jnp.nan)


def alignment(
    z1: ArrayLike, z2: ArrayLike, *, power: float | jax.Array = 2.0, weights: ArrayLike | None = None
) -> jax.Array:
    """Alignment E ||u_i - v_i||^power of the L2-normalised rows u, v of two views of the same samples; 0 if equal.

    Args:
      z1, z2: (N, D) features of the two views; samples with a zero row in either are left out.
      power: positive; the paper's is 2.
      weights: (N,) non-negative or None.
    Returns:
      0-d array in [0, 2^power]; nan without samples.
    References:
      Wang and Isola, ICML 2020; see `uniformity`.
    """
    z1, z2 = views.same_samples(z1, z2, same_width=True)
    power = scalars.positive(power, "power")
    w = arrays.sample_weights(weights, len(z1), z1.dtype)
    (u, has_u), (v, has_v) = (spectra.unit_rows(jnp.where(w[:, None] <= 0, 0, z)) for z in (z1, z2))
    w = jnp.where(has_u & has_v, w, 0)
    square = jnp.sum((u - v) ** 2, axis=1)
    distance = jnp.where(square <= 0, 0, jnp.where(square <= 0, 1, square) ** (power / 2))
    return arrays.safe_divide(jnp.sum(w * distance), jnp.sum(w), jnp.nan)
