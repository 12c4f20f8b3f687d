"""Neural regression collapse, NRC1 to NRC3, of networks with a linear head that are trained on vectors of targets."""

import jax
import jax.numpy as jnp

from infojax.measures import arrays, scalars, spectra
from infojax.measures.arrays import ArrayLike
from infojax.measures.ood import projected
from infojax.measures.roots import psd_sqrt
from infojax.measures.singular import centered_rows

NRC_CONVENTIONS = ("paper", "nc_toolbox")


def _mean_outside(u, live, share, w):
    """Weighted mean of 1 - share over unit rows; rows of zeros are left out."""
    w = jnp.where(live, w, 0)
    outside = arrays.not_negative(1 - share)
    return arrays.safe_divide(jnp.sum(w * outside), jnp.sum(w), jnp.nan)


def nrc1(z: ArrayLike, num_targets: int, *, convention: str = "paper", weights: ArrayLike | None = None) -> jax.Array:
    """NRC1, collapse of features onto n dimensions: mean_i ||u_i - P_n u_i||^2 of the unit rows u_i; 0 at collapse.

    P_n projects onto the n leading principal directions: of the centred features, as in the authors' code ("paper"),
    or of the raw features ("nc_toolbox"). The rows u_i themselves are not centred in either.

    Args:
      z: (N, D) features. num_targets: n, static, from 1 to D. convention: paper or nc_toolbox.
      weights: (N,) non-negative or None.
    Returns:
      0-d array in [0, 1]; nan without rows. The directions are constant under differentiation.
    References:
      Andriopoulos et al., "The prevalence of neural collapse in neural multivariate regression", NeurIPS 2024.
    """
    z = arrays.as_rows(z)
    num_targets = scalars.whole_number(num_targets, "num_targets", 1, max(z.shape[1], 1))
    w = arrays.sample_weights(weights, len(z), z.dtype)
    z, _ = arrays.normalised(jnp.where(w[:, None] <= 0, 0, z))
    u, live = spectra.unit_rows(z)
    rows = centered_rows(z, w, jnp) if scalars.one_of(convention, "convention", NRC_CONVENTIONS) == "paper" else z
    share = projected(u, arrays.safe_sqrt(w)[:, None] * rows, num_targets)
    return _mean_outside(u, live, share, w)


def nrc2(z: ArrayLike, head: ArrayLike, *, weights: ArrayLike | None = None) -> jax.Array:
    """NRC2, self-duality: mean_i ||u_i - P_W u_i||^2 of the unit rows u_i, P_W onto the span of the rows of the head.

    Args:
      z: (N, D) features; head: (n, D) weights of the last layer. weights: (N,) non-negative or None.
    Returns:
      0-d array in [0, 1], 0 at collapse; nan without rows. The span is constant under differentiation.
    References:
      Andriopoulos et al., NeurIPS 2024.
    """
    z, head = arrays.as_rows(z), arrays.as_rows(head, "head")
    if head.shape[1] != z.shape[1] or not len(head):
        raise ValueError(f"head must be (n, {z.shape[1]}), as features have {z.shape[1]} columns; got {head.shape}")
    w = arrays.sample_weights(weights, len(z), z.dtype)
    u, live = spectra.unit_rows(jnp.where(w[:, None] <= 0, 0, z))
    return _mean_outside(u, live, projected(u, head.astype(z.dtype), min(head.shape)), w)


def nrc3(
    head: ArrayLike,
    targets: ArrayLike,
    *,
    gamma: float | jax.Array | None = None,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """NRC3, structure of the head: || W W^T / ||.||_F - (S^(1/2) - g I) / ||.||_F ||_F^2, g = sqrt(gamma); 0 at
    collapse.

    S is the covariance of the targets, divided by N. Without gamma the value is the smallest over gamma in [0,
    l_min(S)], from its one stationary point: with a = <A, S^(1/2)>, t = tr A, s = tr S^(1/2), q = tr S and A
    = W W^T over its norm, g = (t q - a s) / (s t - n a).
    nc-toolbox prints a different number: it centres targets over their n entries instead of over samples, and
    multiplies by the vector of singular values where the diagonal matrix is meant.

    Args:
      head: (n, D) weights of the last layer; targets: (N, n).
      gamma: None, or a number of at least 0.
      weights: (N,) of the samples, non-negative, or None.
    Returns:
      0-d array in [0, 4]; nan where W or S^(1/2) - g I vanishes.
    References:
      Andriopoulos et al., NeurIPS 2024.
    """
    head, y = arrays.as_rows(head, "head"), arrays.as_rows(targets, "targets")
    n = len(head)
    if y.shape[1] != n or not n:
        raise ValueError(f"targets must be (N, {n}), one column per row of the head; got shape {y.shape}")
    dtype = jnp.promote_types(head.dtype, y.dtype)
    head, y = arrays.normalised(head)[0].astype(dtype), y.astype(dtype)
    w = arrays.sample_weights(weights, len(y), dtype)
    y, s = arrays.normalised(jnp.where(w[:, None] <= 0, 0, y))
    y = centered_rows(y, w, jnp)
    p = arrays.safe_divide(w, jnp.sum(w))
    root = psd_sqrt(spectra.column_gram(arrays.safe_sqrt(p)[:, None] * y))
    a = arrays.matmul(head, head.T)
    norm = arrays.safe_sqrt(jnp.sum(a * a))
    a = arrays.safe_divide(a, norm)
    if gamma is None:
        most = jnp.min(jnp.linalg.eigvalsh(jax.lax.stop_gradient(root)), initial=jnp.inf)
        g = jax.lax.stop_gradient(_best(a, root, jnp.maximum(most, 0)))
    else:
        gamma = scalars.number(gamma, "gamma", "a number of at least 0", lambda x: 0 <= x < float("inf"))
        g = jnp.sqrt(jnp.asarray(gamma, dtype)) / s
    found = _distance(a, root, g)
    return jnp.where(norm > 0, found, jnp.nan)


def _distance(a, root, g):
    shifted = root - g * jnp.eye(len(root), dtype=root.dtype)
    shifted = jnp.where(jnp.abs(shifted) <= 4 * jnp.finfo(root.dtype).eps * jnp.max(jnp.abs(root)), 0, shifted)
    length = arrays.safe_sqrt(jnp.sum(shifted**2))
    gap = a - arrays.safe_divide(shifted, length)
    return jnp.where(length > 0, jnp.sum(gap**2), jnp.nan)


def _best(a, root, most):
    """The g in [0, most] of the smallest distance: the stationary point or an end."""
    n = len(root)
    inner, trace, sum_, square = jnp.sum(a * root), jnp.trace(a), jnp.trace(root), jnp.sum(root * root)
    below = sum_ * trace - n * inner
    flat = jnp.abs(below) <= 0
    point = jnp.where(flat, 0, (trace * square - inner * sum_) / jnp.where(flat, 1, below))
    candidates = jnp.stack([jnp.zeros_like(point), jnp.asarray(most, point.dtype), jnp.clip(point, 0, most)])
    values = jax.vmap(lambda g: _distance(a, root, g))(candidates)
    return candidates[jnp.argmin(jnp.where(jnp.isnan(values), jnp.inf, values))]
