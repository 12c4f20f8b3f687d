"""Measures of several views of each sample: LiDAR, the effective rank of the directions that tell samples apart."""

import jax
import jax.numpy as jnp

from infojax.measures import arrays, spectra
from infojax.measures.arrays import ArrayLike

LIDAR_CONVENTIONS = ("paper", "unbiased", "normalized")


def lidar(
    z: ArrayLike, *, convention: str = "paper", delta: float | jax.Array = 1e-4, eps: float | jax.Array | None = None
) -> jax.Array:
    """LiDAR: exp(-sum_k p_k log p_k) over the D eigenvalues l_k of S_w^(-1/2) S_b S_w^(-1/2), p_k = l_k / sum_j l_j.

    Of the views z_ij of sample i, with means m_i and grand mean m:
      S_b = sum_i (m_i - m)(m_i - m)^T / n,  S_w = sum_ij (z_ij - m_i)(z_ij - m_i)^T / (n q) + delta I_D.
    Conventions:
      "paper": this, with eps = 1e-7 added to every p_k, as in RankMe;
      "unbiased": divided by n - 1 and n (q - 1), eps = 1e-8 added to every l_k instead (stable-pretraining);
      "normalized": the entropy itself of "paper" with eps = 0, over log min(n, D): in [0, 1] (Skean et al. 2025).
    They agree to about 1e-3 with many samples and a small delta; a port that takes principal components of the matrix
    (reptrix) squares the eigenvalues, and reads 16 where these read 45.

    Args:
      z: (n, q, D), q views of each of n samples; the paper has n = 1,000 and q = 50.
      convention: one of `LIDAR_CONVENTIONS`.
      delta: positive, added to the diagonal of S_w, in the units of z squared.
      eps: None for the default of the convention.
    Returns:
      0-d array; 0 where all means are equal. At most min(n - 1, D), up to eps.
    Raises:
      ValueError: z does not have three axes, fewer than two samples or views, or unknown convention.
    References:
      Thilak et al., "LiDAR: sensing linear probing performance in joint embedding SSL architectures", ICLR 2024.
    """
    if convention not in LIDAR_CONVENTIONS:
        raise ValueError(f"convention must be one of {', '.join(LIDAR_CONVENTIONS)}; got {convention!r}")
    z = arrays.as_float(z, "z")
    if z.ndim != 3 or min(z.shape[:2]) < 2 or not z.shape[2]:
        raise ValueError(f"z must be (n, q, D), two views or more of two samples or more; got {z.shape}")
    delta = arrays.positive(delta, "delta")
    own = {"paper": 1e-7, "unbiased": 1e-8, "normalized": 0.0}[convention]
    eps = own if eps is None else arrays.number(eps, "eps", "a number of at least 0", lambda x: 0 <= x < float("inf"))
    n, q, dim = z.shape
    one = int(convention == "unbiased")
    # In units of the larger of z and sqrt(delta), so that no square under- or overflows; S_b in units of its own.
    z, s = arrays.normalised(z)
    means = jnp.mean(z, axis=1)
    root = jnp.sqrt(jnp.asarray(delta, z.dtype)) / s
    unit = arrays.power_of_two(jnp.maximum(root, 1))
    within = ((z - means[:, None]) / unit).reshape(n * q, dim)
    s_w = arrays.matmul(within.T, within) / (n * (q - one)) + (root / unit) ** 2 * jnp.eye(dim, dtype=z.dtype)
    centred = means - jnp.mean(means, axis=0)[None]
    rounding = 8 * jnp.finfo(z.dtype).eps * jnp.max(jnp.abs(z))  # means that differ by no more are equal
    empty = jnp.max(jnp.abs(centred)) <= rounding
    centred, spread = arrays.normalised(jnp.where(empty, 0, centred))
    whitened = jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(s_w), centred.T, lower=True)  # (D, n)
    a, b = (whitened, whitened.T) if dim <= n else (whitened.T, whitened)
    found = spectra.eigenvalues(arrays.matmul(a, b) / (n - one))
    found = found * (spread / unit) ** 2 if one else found  # the others divide by their sum
    missing = dim - len(found)  # zero eigenvalues, which contribute through eps
    added, after = (eps, 0.0) if one else (0.0, eps)
    total = jnp.sum(found) + dim * added
    p = arrays.safe_divide(found + added, total) + after
    rest = arrays.safe_divide(jnp.asarray(added, z.dtype), total) + after
    entropy = jnp.sum(_terms(p)) + missing * _terms(rest)
    if convention == "normalized":
        return jnp.where(empty, 0, entropy / jnp.log(min(n, dim)) if min(n, dim) > 1 else 0.0)
    return jnp.where(empty, 0, jnp.exp(entropy))


def _terms(p):
    return -p * jnp.log(jnp.where(p > 0, p, 1))
