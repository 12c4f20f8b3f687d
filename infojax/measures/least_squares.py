"""The squared error of a linear classifier, decomposed around its minimum (Han, Papyan and Donoho 2022)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from infojax.measures import arrays, roots, scale, spectra
from infojax.measures.arrays import ArrayLike
from infojax.measures.moments import ClassStats
from infojax.measures.stats_arguments import takes_stats
from infojax.measures.variability import mean_rounding


class SquaredError(NamedTuple):
    """Three non-negative parts, 0-d arrays, of 1/2 E |W h + b - e_y|^2, which is their sum.

    With W', b' the least-squares head of the same features, p_c, mu_c, mu, Sigma_W, Sigma_T as usual:

    Attributes:
      nc1: 1/2 tr(W' Sigma_W W'^T), the cost of within-class spread for the best head; vanishes with NC1.
      nc2_nc3: 1/2 sum_c p_c |W' mu_c + b' - e_c|^2, the cost due to the class means; vanishes if they span a simplex.
      head: 1/2 E |(W - W') h + b - b'|^2, the distance of the given head from the best one. A head trained with
        cross-entropy is far from it: its logits are not one-hot vectors.
    """

    nc1: jax.Array
    nc2_nc3: jax.Array
    head: jax.Array


def squared_error(
    z: ArrayLike, labels: ArrayLike, head: ArrayLike, bias: ArrayLike | None = None, *, weights: ArrayLike | None = None
) -> SquaredError:
    """Parts of the squared error of a head on features; see `SquaredError`.

    Invariant under z -> s z, head -> head / s, and never negative. Class means are known to a relative eps: with m the
    length of the means and d the spread within classes, the first two parts have a relative error of (eps m / d)^2,
    their derivatives of eps m / d. Near collapse, the directions of spread that the best head sees least lose accuracy
    to those that it could use but does not, in proportion to their condition number.

    Args:
      z: (N, D) features.
      labels: (N,) integers; samples labelled outside [0, C) have weight zero (of C or more: with a warning).
      head: (C, D); bias: (C,) or None.
      weights: (N,) non-negative or None.
    Raises:
      ValueError: shapes do not fit.
    References:
      Han, Papyan and Donoho 2022, "Neural Collapse Under MSE Loss", Theorem 2, without weight decay and with classes
      weighted by their counts.
    """
    z = arrays.as_host_rows(z)
    labels = arrays.as_labels(labels, len(z))
    head = arrays.as_head(head, z.shape[1], labels)
    bias = arrays.as_bias(bias, head)
    _, stats, s = scale.first_pass(z, labels, len(head), weights, scatter="within")
    return squared_error_from_stats(stats, head * s, bias)


@takes_stats
@jax.jit
def squared_error_from_stats(stats: ClassStats, head: ArrayLike, bias: ArrayLike | None = None) -> SquaredError:
    """`SquaredError` from `ClassStats` with scatter="within", the (C, D) head and the (C,) bias or None.

    With Q = I - sqrt(p) sqrt(p)^T and the factor F = diag(sqrt p) (mu_c - mu) of Sigma_B = F^T F, the outputs of the
    best head differ from the labels by Q - F Sigma_T^+ F^T, which would cancel at collapse. Instead

      Q - F Sigma_T^+ F^T = (Q - F F^+) + M (I + M)^-1,  M = min L^T Sigma_W L over L (D, C) with F L = F F^+,

    is a sum of terms that vanish there: the first is zero where the means span C - 1 dimensions, M is the least
    within-class spread of linear maps that keep the means apart. Then W' = diag(sqrt p) (I + M)^-1 L^T.

    Raises:
      ValueError: the statistics lack the within-class scatter.
    """
    if stats.kind != "within":
        raise ValueError(f'squared_error needs statistics with scatter="within", got scatter {stats.kind!r}')
    stats, s = scale.normalised_stats(stats)
    head = head * s
    total = jnp.sum(stats.count)
    share = arrays.safe_divide(stats.count, total, jnp.nan)  # p_c; nan without samples
    mean = arrays.product(share[None], stats.mean)[0]
    centred = jnp.where((stats.count > 0)[:, None], stats.mean - mean[None], 0)
    within = arrays.safe_divide(stats.scatter, total, jnp.nan)  # type: ignore[arg-type]  # kind guarantees it
    root = arrays.safe_sqrt(share)[:, None]
    factor, covered = root * centred, jnp.diag((share > 0).astype(root.dtype)) - arrays.matmul(root, root.T)
    # In coordinates along the left singular vectors, held constant: directions in which the means differ little keep
    # their accuracy next to those in which they differ a lot.
    turn = _left_vectors(factor)
    factor, target, covered = (arrays.product(turn.T, x) for x in (factor, jnp.diag(root[:, 0]), covered))
    covered = arrays.product(covered, turn)
    rtol = _cut(factor, mean_rounding(stats))
    inverse = roots.pseudo_inverse(spectra.after(factor, turn), rtol)
    full = _rank(inverse, factor) >= jnp.sum(share > 0) - 1
    apart = jnp.where(full, covered, arrays.product(factor, inverse))  # F F^+
    maps = _least_maps(factor, inverse, within)
    spread = _spread(maps, factor, within, apart)
    shrunk = _solve_plus_one(spread, arrays.product(apart, target))  # (I + M)^-1 F F^+ diag(sqrt p)
    best = arrays.product(shrunk.T, maps.T)
    shift = arrays.product(head, mean[:, None])[:, 0] + (0 if bias is None else jnp.asarray(bias)) - share
    kept = arrays.product(spread, shrunk)
    missed = kept + arrays.product(covered - apart, target)  # the two are orthogonal
    return SquaredError(
        nc1=jnp.sum(arrays.not_negative(jnp.sum(shrunk * kept, axis=0))) / 2,
        nc2_nc3=jnp.sum(missed**2) / 2,
        head=(_excess(head, best, factor, target, within) + jnp.sum(shift**2)) / 2,
    )


def _left_vectors(factor):
    """Orthogonal U (C, C) of F = U S V^T, a constant."""
    num_classes, dim = factor.shape
    return jnp.linalg.svd(jax.lax.stop_gradient(factor), full_matrices=dim < num_classes)[0]


def _cut(factor, noise):
    """Singular values of F up to this fraction of the largest are rounding errors of F or of the class means."""
    norm = arrays.safe_sqrt(jnp.sum(factor * factor))
    eps = jnp.finfo(factor.dtype).eps
    return jax.lax.stop_gradient(jnp.maximum(10 * eps * max(factor.shape) ** 0.5, arrays.safe_divide(noise, norm)))


def _rank(inverse, factor):
    """The rank of F, tr(F F^+)."""
    return jnp.round(jax.lax.stop_gradient(jnp.sum(inverse.T * factor)))


def _least_maps(factor, inverse, within):
    """L (D, C), with F L = F F^+, of least spread L^T Sigma_W L: F^+ less what other directions can cancel."""
    within, _ = arrays.normalised(within)  # at collapse its squared noise underflows in float32
    outside = jnp.eye(len(within), dtype=within.dtype) - arrays.product(inverse, factor)
    rest = arrays.product(outside, within, outside.T)
    # What remains of Sigma_W outside the means is noise below the rounding error of Sigma_W itself.
    noise = max(4, len(within) ** 0.5) * jnp.finfo(within.dtype).eps * arrays.safe_sqrt(jnp.sum(within**2))
    rtol = arrays.safe_divide(noise, arrays.safe_sqrt(jnp.sum(rest**2)), 1.0)
    taken = arrays.product(roots.pseudo_inverse(rest, jax.lax.stop_gradient(rtol)), outside, within, inverse)
    return inverse - taken


@jax.custom_jvp
def _spread(maps, factor, within, apart):
    """M = L^T Sigma_W L (C, C) for L of `_least_maps`, positive semi-definite beyond rounding.

    L is optimal, so its derivative matters only where the constraint moves it, d(F L) = d(F F^+), and there
    Sigma_W L = F^T M: dM = L^T dSigma_W L + B + B^T with B = M (d(F F^+) - dF L). Every term vanishes with Sigma_W.
    """
    rows = arrays.product(roots.psd_sqrt(spectra.after(within, maps)), maps)
    return arrays.product(rows.T, rows)


@_spread.defjvp
def _spread_jvp(primals, tangents):
    maps, factor, within, apart = primals
    _, d_factor, d_within, d_apart = tangents
    spread = _spread(*primals)
    moved = arrays.product(spread, d_apart - arrays.product(d_factor, maps))
    return spread, arrays.product(maps.T, d_within, maps) + moved + moved.T


def _solve_plus_one(spread, b):
    """(I + M)^-1 B"""
    return jax.scipy.linalg.solve(jnp.eye(len(spread), dtype=spread.dtype) + spread, b, assume_a="pos")


@jax.custom_jvp
def _excess(head, best, factor, target, within):
    """tr((W - W') Sigma_T (W - W')^T), a sum of squares, for the W' with W' Sigma_T = T^T F.

    W' is treated as a function of the others: with A = W - W', A Sigma_T dW'^T = A (d(F^T T) - dSigma_T W'^T) needs no
    inverse, which near collapse would magnify rounding errors.
    """
    away = head - best
    # Rounding gives Sigma_W negative eigenvalues; what they subtract is less than the error of the other terms.
    row_spread = arrays.not_negative(jnp.sum(arrays.product(away, within) * away, axis=1))
    return jnp.sum(arrays.product(away, factor.T) ** 2) + jnp.sum(row_spread)


@_excess.defjvp
def _excess_jvp(primals, tangents):
    head, best, factor, target, within = primals
    d_head, _, d_factor, d_target, d_within = tangents
    away = head - best
    between = arrays.product(factor, away.T)
    change = arrays.product(d_head, factor.T) * between.T * 2
    change += 2 * arrays.product(away, d_factor.T) * (arrays.product(factor, head.T) - target).T
    change += 2 * between.T * (arrays.product(d_factor, best.T) - d_target).T
    change = jnp.sum(change) + 2 * jnp.sum(arrays.product(d_head, within) * away)
    return _excess(*primals), change + jnp.sum(arrays.product(away, d_within) * (head + best))
