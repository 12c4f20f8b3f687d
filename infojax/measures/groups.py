"""Entropies of groups of samples, such as the tokens of prompts or the frames of episodes, and of a data set of groups.

Groups come padded, (P, T, D) with weights (P, T) that are zero at padding, or as rows (N, D) with the group of each
row; a padded array also works inside jit, vmap and grad.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from infojax.measures import arrays, conversion, entropy, scalars, spectra
from infojax.measures.arrays import ArrayLike
from infojax.measures.student import student_quantile

# Conventions of the entropy of one group. Each centres the rows, normalises them, and takes the eigenvalues of their
# second moment; "diff_erank" and "matrix_entropy" differ from "standard" in how groups are combined.
ENTROPY_CONVENTIONS = ("standard", "information_flow", "information_flow_2024", "diff_erank", "matrix_entropy")
ENTROPY_NORMALIZATIONS = ("raw", "max", "log_n", "log_d", "log_n_log_d")


class GroupEntropy(NamedTuple):
    """An entropy over groups; 0-d unless stated otherwise.

    Attributes:
      mean, std: over the groups that count; std divides by their number minus one.
      lower, upper: Student's t interval of the mean at the requested confidence, treating groups as independent.
      num_groups: how many count; groups without a value (no rows, or a normaliser of zero) do not.
      values: (P,) one per group, nan if it does not count.
    """

    mean: jax.Array
    std: jax.Array
    lower: jax.Array
    upper: jax.Array
    num_groups: jax.Array
    values: jax.Array


def padded_groups(
    z: ArrayLike, weights: ArrayLike | None = None, groups: ArrayLike | None = None
) -> tuple[jax.Array, jax.Array]:
    """Rows (P, T, D) and weights (P, T) of groups, from a padded array, or from rows (N, D) and the group of each row.

    Args:
      z: (P, T, D), or (N, D) with `groups`.
      weights: (P, T) or (N,), non-negative, or None; zero at padding.
      groups: (N,) integers or strings, concrete; groups come back in sorted order, T is the size of the largest.
    Raises:
      ValueError: shapes do not fit.
    """
    z = arrays.as_float(z, "features")
    if groups is not None:
        return _from_rows(arrays.as_rows(z), weights, groups)
    if z.ndim != 3:
        raise ValueError(
            f"features must be (P, T, D), groups by samples by columns, or (N, D) with groups=(N,); got shape {z.shape}"
        )
    if weights is None:
        return z, jnp.ones(z.shape[:2], z.dtype)
    weights = arrays.as_float(weights, "weights")
    if weights.shape != z.shape[:2]:
        raise ValueError(f"weights must have shape {z.shape[:2]}, one per sample of each group; got {weights.shape}")
    flat = arrays.sample_weights(weights.reshape(-1), z.shape[0] * z.shape[1], z.dtype)
    return z, flat.reshape(z.shape[:2])


def _from_rows(z, weights, groups):
    if isinstance(z, jax.core.Tracer) or isinstance(groups, jax.core.Tracer):
        raise ValueError("groups of rows set the shape of the result: inside jit pass a padded (P, T, D) array")
    if arrays.holds_strings(groups):
        groups = np.asarray(groups)
    else:
        groups = np.asarray(arrays.as_labels(groups, name="groups"))
    if groups.shape != (len(z),):
        raise ValueError(f"groups must have shape ({len(z)},), one per row; got {groups.shape}")
    w = np.asarray(arrays.sample_weights(weights, len(z), z.dtype))
    order = np.argsort(groups, kind="stable")
    _, counts = np.unique(groups[order], return_counts=True)
    place = np.arange(len(z)) - np.repeat(np.cumsum(counts) - counts, counts)
    group = np.repeat(np.arange(len(counts)), counts)
    rows = np.zeros((len(counts), counts.max(initial=0), z.shape[1]), z.dtype)
    held = np.zeros(rows.shape[:2], z.dtype)
    rows[group, place], held[group, place] = np.asarray(z)[order], w[order]
    return jnp.asarray(rows), jnp.asarray(held)


def prompt_entropy(
    z: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    alpha: float = 1.0,
    normalization: str | None = None,
    convention: str = "standard",
    confidence: float = 0.95,
) -> GroupEntropy:
    """Matrix entropy of each group of samples, centred within the group, and its mean over groups.

    For the rows r of one group: r - mean, divided by their norms; H_alpha of the eigenvalues of their second moment, as
    `matrix_entropy(r, center=True)`. Conventions:
      "standard": this;
      "information_flow": Skean et al.'s code: negative entries of the Gram matrix (of the D x D second moment if there
        are more tokens than columns) are set to zero before its eigenvalues, which moves H_1 by up to 24 %; for alpha
        = 2 the sum of squares of the trace-one matrix is divided by its size squared once more, which adds 2 log of it
        (11.2 nats where the maximum is 4.2);
      "information_flow_2024": its first release, for alpha = 2 without the division by the trace;
      "diff_erank": standard (its code uses an SVD if N < D; the same number);
      "matrix_entropy": H / log D whatever the number of tokens (normalization "log_d").
    Normalisations: "raw"; "max", by log min(N, D), N the number of rows that count; "log_n"; "log_d"; "log_n_log_d", by
    their product.

    Args:
      z: (P, T, D), or (N, D) with groups; weights: (P, T) or (N,), or None; groups: (N,) or None. See `padded_groups`.
      alpha: order, a static number from 0 to infinity.
      normalization: one of `ENTROPY_NORMALIZATIONS`; None for "raw", or "log_d" under "matrix_entropy".
      confidence: of the interval, a static number between 0 and 1.
    Returns:
      `GroupEntropy`, nats where raw.
    References:
      Skean et al., "Layer by layer: uncovering hidden representations in language models", ICML 2025; Wei et al.,
      "Diff-eRank: a novel rank-based metric for evaluating large language models", NeurIPS 2024.
    """
    z, w = padded_groups(z, weights, groups)
    convention, normalization = _named(convention, normalization)
    values = _entropies(z, w, entropy.order_of(alpha), convention)
    return _summary(values, w, z.shape[2], normalization, confidence)


def _named(convention, normalization):
    scalars.one_of(convention, "convention", ENTROPY_CONVENTIONS)
    if normalization is None:
        normalization = "log_d" if convention == "matrix_entropy" else "raw"
    return convention, scalars.one_of(normalization, "normalization", ENTROPY_NORMALIZATIONS)


def _entropies(z, w, alpha, convention):
    """(P,) entropies of the groups, one decomposition at a time."""
    if not len(z):
        return jnp.zeros(0, z.dtype)

    def one(rows, weights):
        return entropy_of_rows(*spectra.directions(rows, weights, True), alpha, convention)

    if arrays.on_host(z, w):
        return jnp.stack([one(rows, weights) for rows, weights in zip(z, w, strict=True)])
    return jax.lax.map(lambda group: one(*group), (z, w))


def entropy_of_rows(u: jax.Array, p: jax.Array, alpha: float, convention: str) -> jax.Array:
    """H_alpha of sum_i p_i u_i u_i^T for u (T, D), p (T,) in the named convention of `prompt_entropy`; 0-d, nats.

    Raises:
      ValueError: alpha is not positive and finite under an information_flow convention.
    """
    a = entropy.weighted(u, p)
    if not convention.startswith("information_flow"):
        return entropy.entropy_of_density(spectra.smaller_gram(a), alpha, len(u))
    if not 0 < alpha < np.inf:
        raise ValueError(f"alpha must be positive and finite under {convention!r}; got {alpha:g}")
    # Rows that count have equal weights there: count a a^T is the Gram matrix of the rows that the code clamps.
    count, dim = jnp.sum(p > 0).astype(a.dtype), u.shape[1]
    fewer_columns = count > dim

    def of(k, size):
        k = jnp.maximum(k, 0)
        if alpha == 2:
            scale = 1 / _or_one(jnp.trace(k)) if convention == "information_flow" else count
            return -jnp.log(_or_one(jnp.sum((k * scale / _or_one(size)) ** 2)))
        return _clamped_entropy(k, alpha)

    by_columns, by_rows = ((x, jnp.asarray(size, a.dtype)) for x, size in ((a.T, dim), (a, count)))
    if arrays.on_host(count):
        x, size = by_columns if fewer_columns else by_rows
        return of(arrays.matmul(x, x.T), size)

    def route(x, size):
        return lambda: of(jnp.matmul(x, x.T, precision="highest"), size)

    return jax.lax.cond(fewer_columns, route(*by_columns), route(*by_rows))


def _clamped_entropy(k, alpha):
    """repitl's entropy of a matrix that need not be positive: that of its positive eigenvalues, over their sum."""
    w = jnp.asarray(np.linalg.eigvalsh(np.asarray(k))) if arrays.on_host(k) else jnp.linalg.eigvalsh(k)
    kept = jnp.where(w <= 0, 0, w)
    q = arrays.safe_divide(kept, jnp.sum(kept))
    logs = jnp.log(jnp.where(q == 0, 1, q))
    if alpha == 1:
        return -jnp.sum(q * logs)
    return jnp.log(_or_one(jnp.sum(jnp.where(q == 0, 0, jnp.exp(alpha * logs))))) / (1 - alpha)


def _or_one(x):
    return jnp.where(x <= 0, 1, x)


def _summary(values, w, dim, normalization, confidence):
    """`GroupEntropy` of the raw entropies of groups with weights w (P, T)."""
    count = jnp.sum(w > 0, axis=1).astype(values.dtype)
    log_n, log_d = jnp.log(jnp.maximum(count, 1)), jnp.log(jnp.asarray(max(dim, 1), values.dtype))
    by = {
        "raw": jnp.ones_like(log_n),
        "max": jnp.minimum(log_n, log_d),
        "log_n": log_n,
        "log_d": log_d + 0 * log_n,
        "log_n_log_d": log_n * log_d,
    }[normalization]
    values = arrays.safe_divide(values, by, jnp.nan)
    values = jnp.where(count > 0, values, jnp.nan)
    return over_groups(values, (count > 0) & (by > 0), confidence)


def over_groups(values: jax.Array, counted: jax.Array, confidence: Any) -> GroupEntropy:
    """`GroupEntropy` (mean, std, bounds of the mean by Student's t) of values (P,), of which `counted` (P,) count."""
    number = jnp.sum(counted).astype(values.dtype)
    kept = jnp.where(counted, values, 0)
    mean = arrays.safe_divide(jnp.sum(kept), number)
    square = jnp.sum(jnp.where(counted, (kept - mean) ** 2, 0))
    std = arrays.safe_sqrt(arrays.safe_divide(square, number - 1))
    margin = student_quantile(confidence, jnp.maximum(number - 1, 1)) * std / jnp.sqrt(jnp.maximum(number, 1))
    # nan enters last: a derivative that passes through it is nan even where the value is not selected.
    mean, std, margin = (jnp.where(number > n, x, jnp.nan) for x, n in ((mean, 0), (std, 1), (margin, 1)))
    return GroupEntropy(mean, std, mean - margin, mean + margin, number, values)


def dataset_entropy(
    z: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    alpha: float = 1.0,
    normalization: str = "raw",
    convention: str = "standard",
) -> jax.Array:
    """Entropy of a data set of groups: H_alpha of the Gram matrix of their mean rows, over its trace.

    m_p is the mean of the centred, L2-normalised rows of group p. As in the released code, the m_p are neither centred
    over groups nor normalised again; their scale cancels in a matrix of trace one. Conventions as in `prompt_entropy`;
    the first release's alpha = 2, without the trace, depends on how short the m_p are.

    Args:
      z, weights, groups, alpha: as `prompt_entropy`.
      normalization: one of `ENTROPY_NORMALIZATIONS`, N the number of groups that count.
      convention: "standard", "information_flow" or "information_flow_2024".
    Returns:
      0-d array, nats where raw; 0 where all means vanish, nan where the normaliser is zero.
    """
    z, w = padded_groups(z, weights, groups)
    convention, normalization = _named(convention, normalization)
    if convention in ("diff_erank", "matrix_entropy"):
        raise ValueError(f"convention must be standard or an information_flow one for a data set; got {convention!r}")
    means = _group_means(z, w)
    live = jnp.any(w > 0, axis=1)
    value = _entropy_of_means(means, live, entropy.order_of(alpha), convention)
    return _summary(value[None], live[None].astype(z.dtype), z.shape[2], normalization, 0.95).values[0]


def _group_means(z, w):
    """(P, D) means of the centred unit rows of each group, weighted by w (P, T)."""

    def one(rows, weights):
        u, p = spectra.directions(rows, weights, True)
        return jnp.sum(p[:, None] * u, axis=0)

    return jax.vmap(one)(z, w) if len(z) else jnp.zeros((0, z.shape[2]), z.dtype)


def _entropy_of_means(means, live, alpha, convention):
    """Entropy of the Gram matrix of the rows of `means`, divided by its trace, in the named convention."""
    if convention != "information_flow_2024" or alpha != 2:
        means, _ = arrays.normalised(means)
    if not convention.startswith("information_flow"):
        k = spectra.smaller_gram(means)
        return entropy.entropy_of_density(arrays.safe_divide(k, jnp.trace(k)), alpha, len(means))
    # `entropy_of_rows` takes sqrt(p) u with p = 1 / count.
    count = jnp.sum(live).astype(means.dtype)
    return entropy_of_rows(means, jnp.where(live, 1 / _or_one(count), 0), alpha, convention)


def diff_erank(
    untrained: ArrayLike,
    trained: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    aggregate: str = "entropy",
) -> jax.Array:
    """Diff-eRank: effective rank exp H of the features of an untrained network minus that of the trained one.

    H as in `prompt_entropy`: rows centred and normalised within each group. The score of a data set is that of the
    released code, exp(mean H) of one minus exp(mean H) of the other, and not the mean of exp H.

    Args:
      untrained, trained: features of the same samples: (N, D) of one sentence, (P, T, D) of a data set, or (N, D) with
        groups. The two may differ in D.
      weights: (N,), (P, T), or None. groups: (N,) or None.
      aggregate: "entropy", exp of the mean entropy; "rank", the mean of exp H.
    Returns:
      0-d array.
    References:
      Wei et al., "Diff-eRank: a novel rank-based metric for evaluating large language models", NeurIPS 2024.
    """
    if aggregate not in ("entropy", "rank"):
        raise ValueError(f"aggregate must be entropy or rank; got {conversion.described(aggregate)}")
    ranks, shapes = [], []
    for z, name in ((untrained, "untrained"), (trained, "trained")):
        z = arrays.as_float(z, name)
        shapes.append(z.shape[:-1])
        one = z.ndim == 2 and groups is None
        w = None if weights is None else arrays.as_float(weights, "weights")
        z, w = padded_groups(z[None] if one else z, w[None] if one and w is not None else w, groups)
        values = _entropies(z, w, 1.0, "standard")
        values = jnp.exp(values) if aggregate == "rank" else values
        mean = over_groups(values, jnp.any(w > 0, axis=1), 0.95).mean
        ranks.append(mean if aggregate == "rank" else jnp.exp(mean))
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"untrained has shape {shapes[0]} of samples, trained {shapes[1]}: pass features of the same samples"
        )
    return ranks[0] - ranks[1]
