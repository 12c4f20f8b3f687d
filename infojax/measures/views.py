"""Measures of several views of each sample: LiDAR, the InfoNCE bound on mutual information, DiME."""

import jax
import jax.numpy as jnp

from infojax.measures import arrays, entropy, scalars, spectra
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
    (reptrix) squares the eigenvalues, and gives 16 where these give 45.

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
    scalars.one_of(convention, "convention", LIDAR_CONVENTIONS)
    z = arrays.as_float(z, "z")
    if z.ndim != 3 or min(z.shape[:2]) < 2 or not z.shape[2]:
        raise ValueError(f"z must be (n, q, D), two views or more of two samples or more; got {z.shape}")
    delta = scalars.positive(delta, "delta")
    own = {"paper": 1e-7, "unbiased": 1e-8, "normalized": 0.0}[convention]
    eps = own if eps is None else scalars.number(eps, "eps", "a number of at least 0", lambda x: 0 <= x < float("inf"))
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
    rounding = 8 * jnp.finfo(z.dtype).eps * jnp.max(jnp.abs(z))  # means that differ by less are equal
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


def same_samples(z1: ArrayLike, z2: ArrayLike, same_width: bool = False) -> tuple[jax.Array, jax.Array]:
    """z1 (N, D1) and z2 (N, D2) as floats of one dtype; raises ValueError unless they hold the same samples."""
    z1, z2 = arrays.as_rows(z1, "z1"), arrays.as_rows(z2, "z2")
    if len(z1) != len(z2):
        raise ValueError(f"z1 has {len(z1)} rows, z2 has {len(z2)}: both must hold the same samples in the same order")
    if same_width and z1.shape[1] != z2.shape[1]:
        raise ValueError(f"z1 has {z1.shape[1]} columns, z2 has {z2.shape[1]}: two views of one network have as many")
    dtype = jnp.promote_types(z1.dtype, z2.dtype)
    return z1.astype(dtype), z2.astype(dtype)


INFONCE_CONVENTIONS = ("cpc", "information_flow", "information_flow_2024")


def infonce_bound(
    z1: ArrayLike,
    z2: ArrayLike,
    *,
    temperature: float | jax.Array = 0.1,
    symmetric: bool = False,
    convention: str = "cpc",
    weights: ArrayLike | None = None,
) -> jax.Array:
    """InfoNCE's lower bound on the mutual information of two views, log N minus the cross-entropy of the positives.

    With s_ij = <u_i, v_j> / temperature of the L2-normalised rows u of z1 and v of z2,
      "cpc": mean_i [ s_ii - log( (1 / N) sum_j exp s_ij ) ], at most log N, in nats;
    with `symmetric` the mean of this and of the same with z1 and z2 exchanged.
    The numbers of the two released versions of "Layer by Layer", for raw rows, which this function does not normalise:
      "information_flow": 1 - loss / log N of the same loss, dimensionless;
      "information_flow_2024": the NT-Xent loss itself, over both views as 2 N rows, each of which has one positive.

    Args:
      z1, z2: (N, D) features of the two views; under "cpc" samples with a zero row in either are left out.
      temperature: positive; 0.1 in the released code.
      weights: (N,) non-negative or None: the probabilities of the samples, as positives and as negatives.
    Returns:
      0-d array; nan without samples.
    Raises:
      ValueError: shapes differ, unknown convention, symmetric with another convention than "cpc".
    References:
      van den Oord et al., "Representation learning with contrastive predictive coding", 2018; Skean et al., ICML 2025.
    """
    scalars.one_of(convention, "convention", INFONCE_CONVENTIONS)
    if symmetric and convention != "cpc":
        raise ValueError(f"symmetric needs convention 'cpc'; {convention!r} has a direction of its own")
    z1, z2 = same_samples(z1, z2, same_width=True)
    temperature = scalars.positive(temperature, "temperature")
    w = arrays.sample_weights(weights, len(z1), z1.dtype)
    z1, z2 = (jnp.where(w[:, None] <= 0, 0, z) for z in (z1, z2))
    if convention == "cpc":
        (z1, first), (z2, second) = spectra.unit_rows(z1), spectra.unit_rows(z2)
        w = jnp.where(first & second, w, 0)
    p = arrays.safe_divide(w, jnp.sum(w))
    if convention == "information_flow_2024":
        return jnp.where(jnp.sum(p) > 0, _nt_xent(z1, z2, p, temperature), jnp.nan)
    s = arrays.matmul(z1, z2.T) / temperature
    own = jnp.diagonal(s)[:, None]  # subtracted first: at a low temperature log N is lost in the sum
    gain = -jnp.sum(p * _log_mean_exp(s - own, p))
    if symmetric:
        gain = (gain - jnp.sum(p * _log_mean_exp(s.T - own, p))) / 2
    if convention == "information_flow":
        gain = arrays.safe_divide(gain, jnp.log(jnp.maximum(_effective_count(p), 1)), jnp.nan)
    return jnp.where(jnp.sum(p) > 0, gain, jnp.nan)


def _effective_count(p):
    """1 / sum p^2: N for N equal probabilities, and the number selected by a 0/1 mask."""
    return arrays.safe_divide(1.0, jnp.sum(p * p))


def _log_mean_exp(s, p):
    """log sum_j p_j exp s_ij of each row; columns of probability zero are left out."""
    s = jnp.where(p[None, :] <= 0, -jnp.inf, s)
    top = jax.lax.stop_gradient(jnp.max(s, axis=1, initial=-jnp.inf))
    top = jnp.where(jnp.isfinite(top), top, 0)
    total = jnp.sum(p[None, :] * jnp.exp(s - top[:, None]), axis=1)
    return top + jnp.log(jnp.where(total <= 0, 1, total))


def _nt_xent(z1, z2, p, temperature):
    rows, q = jnp.concatenate([z1, z2]), jnp.concatenate([p, p]) / 2
    n = len(z1)
    s = arrays.matmul(rows, rows.T) / temperature
    positive = jnp.take_along_axis(s, jnp.roll(jnp.arange(2 * n), n)[:, None], axis=1)
    s = s - positive
    others = jnp.where(jnp.eye(2 * n, dtype=bool) | (q[None, :] <= 0), -jnp.inf, s)
    top = jax.lax.stop_gradient(jnp.max(others, axis=1, initial=-jnp.inf))
    top = jnp.where(jnp.isfinite(top), top, 0)
    total = jnp.sum(jnp.where(jnp.isfinite(others), jnp.exp(others - top[:, None]), 0), axis=1)
    return jnp.sum(q * (top + jnp.log(jnp.where(total <= 0, 1, total))))


DIME_CONVENTIONS = ("cosine", "information_flow")


def dime(
    z1: ArrayLike,
    z2: ArrayLike,
    *,
    alpha: float = 1.0,
    permutations: int = 10,
    seed: int = 0,
    convention: str = "cosine",
    weights: ArrayLike | None = None,
) -> jax.Array:
    """DiME, the difference of matrix entropies: mean over random P of H(K1 o P K2 P^T) - H(K1 o K2), in nats.

    High if the two views of a sample are more alike than views of different samples. Conventions:
      "cosine": K1, K2 the cosine Gram matrices of the samples, as in `joint_entropy`;
      "information_flow": Gram matrices of the raw rows; with more samples than columns the released code uses D x D
        products Z^T Z instead, whose elementwise product pairs columns and not samples. Reproduced, not recommended.

    Args:
      z1, z2: (N, D1) and (N, D2) features of the two views.
      alpha: order of the entropy, a static positive number.
      permutations: how many, static; drawn from jax.random.key(seed).
      weights: (N,) non-negative or None; rows are permuted among those of positive weight.
    Returns:
      0-d array; 0 with fewer than two samples.
    References:
      Skean et al., "DiME: maximizing mutual information by a difference of matrix-based entropies", 2023.
    """
    scalars.one_of(convention, "convention", DIME_CONVENTIONS)
    z1, z2 = same_samples(z1, z2)
    permutations = scalars.whole_number(permutations, "permutations", 1)
    key = jax.random.key(scalars.whole_number(seed, "seed", 0, 2**31 - 1))
    w = arrays.sample_weights(weights, len(z1), z1.dtype)
    z1, z2 = (jnp.where(w[:, None] <= 0, 0, z) for z in (z1, z2))
    if convention == "cosine":
        k1, k2 = entropy.gram(z1), entropy.gram(z2)
    else:
        by_columns = len(z1) > z1.shape[1] and z1.shape == z2.shape
        scaled = [arrays.normalised(z)[0] * (arrays.safe_sqrt(w)[:, None] if by_columns else 1) for z in (z1, z2)]
        k1, k2 = (arrays.matmul(z.T, z) if by_columns else arrays.matmul(z, z.T) for z in scaled)
        w = jnp.ones(len(k1), z1.dtype) if by_columns else w

    def joint(order, k2):
        k = k1 * k2[order][:, order]
        if convention == "information_flow" and alpha == 2:  # divided by the size squared instead of the trace
            return -jnp.log(jnp.sum(k * k))
        live = jnp.where(jnp.diagonal(k) <= 0, 0, w)
        return entropy.entropy_of_density(entropy.density_from_gram(k, live), alpha)

    value = joint(jnp.arange(len(k1)), k2)
    keys = jax.random.split(key, permutations)
    if arrays.on_host(k1, k2):
        return jnp.mean(jnp.stack([joint(_permutation(one, w), k2) for one in keys])) - value
    later = spectra.after(k2, value)
    return jnp.mean(jax.lax.map(lambda one: joint(_permutation(one, w), later), keys)) - value


def _permutation(key, w):
    """A random permutation of the indices of positive weight among themselves; the others are fixed."""
    drawn = jnp.where(w > 0, jax.random.uniform(key, w.shape), 2.0)
    places = jnp.argsort(jnp.where(w > 0, 0, 1), stable=True)
    return jnp.zeros(len(w), places.dtype).at[places].set(jnp.argsort(drawn, stable=True))
