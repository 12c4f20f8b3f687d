"""Out-of-distribution data and neural collapse: NC5, and the scores NECO and NCI, which are higher in distribution."""

import jax
import jax.numpy as jnp

from infojax.measures import arrays, moments, sample_blocks, scalars, spectra
from infojax.measures.arrays import ArrayLike


def nc5(
    z: ArrayLike,
    labels: ArrayLike,
    ood: ArrayLike,
    num_classes: int | None = None,
    *,
    weights: ArrayLike | None = None,
    ood_weights: ArrayLike | None = None,
) -> jax.Array:
    """NC5, orthogonality of the classes to out-of-distribution data: mean_c |cos(mu_c, mu_OOD)|; 0 at collapse.

    mu_c and mu_OOD are means of the raw features, not centred, as published and in rhubarbwu's code.

    Args:
      z: (N, D) features of the training classes; labels: (N,) integers; ood: (M, D) features of other data.
      num_classes: C; inferred from concrete labels if None.
      weights, ood_weights: (N,) and (M,), non-negative, or None.
    Returns:
      0-d array in [0, 1]; classes without samples are left out, a mean of zero counts as orthogonal; nan without
      classes or without other data.
    References:
      Ammar et al., "NECO: neural collapse based out-of-distribution detection", ICLR 2024, equation 5.
    """
    given, (z, labels, w) = labels, moments.checked_samples(z, labels, weights)
    ood = arrays.as_rows(ood, "ood")
    if ood.shape[1] != z.shape[1]:
        raise ValueError(f"ood has {ood.shape[1]} columns, features {z.shape[1]}: both must be of one layer")
    num_classes = moments.infer_num_classes(given, num_classes)
    z, labels, w = sample_blocks.known_samples(z, labels, w, num_classes)
    v = arrays.sample_weights(ood_weights, len(ood), ood.dtype, "ood_weights")
    ood, z = (arrays.normalised(x)[0] for x in (jnp.where(v[:, None] <= 0, 0, ood), z))
    sums = jax.ops.segment_sum(w[:, None] * z, labels, num_classes)
    present = jax.ops.segment_sum(w, labels, num_classes) > 0
    u, _ = spectra.unit_rows(sums)
    away, _ = spectra.unit_rows(jnp.sum(v[:, None] * ood, axis=0)[None].astype(z.dtype))
    cosine = jnp.abs(jnp.sum(u * away, axis=1))
    counted = present & (jnp.sum(v) > 0)
    return arrays.safe_divide(jnp.sum(jnp.where(counted, cosine, 0)), jnp.sum(counted), jnp.nan)


def neco(
    z: ArrayLike,
    train: ArrayLike,
    dim: int,
    *,
    standardize: bool = False,
    max_logit: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """NECO score of each sample: ||P z|| / ||z||, P onto the `dim` principal directions of the training features.

    Args:
      z: (M, D) features to score.
      train: (N, D) features of the training set.
      dim: of the principal space, static, from 1 to D; the number of classes is usual.
      standardize: scale every column of the training features to mean 0 and standard deviation 1, and apply the same
        map to z (scikit-learn's StandardScaler, as in the released code for transformers); otherwise the raw z is
        compared with the principal directions of the centred training features.
      max_logit: (M,) largest logit of each sample, which multiplies the score (released code, except for ResNets), or
      None.
      weights: (N,) of the training samples, non-negative, or None.
    Returns:
      (M,), in [0, 1] without max_logit; 0 for a zero row.
    References:
      Ammar et al., ICLR 2024, equation 6.
    """
    z, train = arrays.as_rows(z), arrays.as_rows(train, "train")
    if z.shape[1] != train.shape[1]:
        raise ValueError(f"features have {z.shape[1]} columns, train {train.shape[1]}: both must be of one layer")
    dim = scalars.whole_number(dim, "dim", 1, z.shape[1])
    dtype = jnp.promote_types(z.dtype, train.dtype)
    w = arrays.sample_weights(weights, len(train), dtype)
    score = _neco(z.astype(dtype), train.astype(dtype), w, scalars.flag(standardize, "standardize"), dim)
    if max_logit is None:
        return score
    logit = arrays.as_float(max_logit, "max_logit")
    if logit.shape != (len(z),):
        raise ValueError(f"max_logit must be ({len(z)},), one per sample; got shape {logit.shape}")
    return score * logit


@jax.jit
def _moments(train, w):
    """A row, the mean about it, the standard deviation about the mean, and probabilities: constant columns have 0."""
    p = arrays.safe_divide(w, jnp.sum(w))
    first = jax.lax.stop_gradient(train[jnp.argmax(w)]) if len(w) else jnp.zeros(train.shape[1], train.dtype)
    moved = jnp.where(w[:, None] <= 0, 0, train - first[None])
    mean = jnp.sum(p[:, None] * moved, axis=0)
    return first, mean, arrays.safe_sqrt(jnp.sum(p[:, None] * (moved - mean[None]) ** 2, axis=0)), p


def _neco(z, train, w, standardize, dim):
    train, s = arrays.normalised(jnp.where(w[:, None] <= 0, 0, train))
    z = z / s
    first, mean, std, p = _moments(train, w)
    scale = jnp.where(jnp.asarray(standardize) & ~(std <= 0), std, 1)
    z = jnp.where(jnp.asarray(standardize), (z - first[None] - mean[None]) / scale[None], z)
    rows = jnp.where(w[:, None] <= 0, 0, (train - first[None] - mean[None]) / scale[None])
    u, _ = spectra.unit_rows(z)
    share = projected(u, arrays.safe_sqrt(p)[:, None] * rows, dim)
    return arrays.safe_sqrt(jnp.minimum(share, 1))


def projected(u: jax.Array, rows: jax.Array, dim: int) -> jax.Array:
    """||P u_i||^2 of each row of u, with P onto the `dim` leading right singular vectors of the non-zero rows (N, D).

    The vectors come from the smaller Gram matrix of the rows; the choice among equal singular values is arbitrary, and
    the directions are constant under differentiation. If rows contain nan, the result is nan.
    """
    n, width = rows.shape
    rows = jax.lax.stop_gradient(arrays.normalised(rows)[0])
    if n == 0:
        return jnp.zeros(len(u), u.dtype)
    if n >= width:
        values, vectors = jnp.linalg.eigh(spectra.column_gram(rows))
        basis = vectors[:, ::-1][:, :dim]
        kept = spectra.support(values)[::-1][:dim] > 0
    else:
        values, left = jnp.linalg.eigh(arrays.matmul(rows, rows.T))
        values, left = spectra.support(values)[::-1][:dim], left[:, ::-1][:, :dim]
        kept = values > 0
        basis = arrays.matmul(rows.T, left) / jnp.sqrt(jnp.where(kept, values, 1))[None]
    share = jnp.sum(jnp.where(kept[None], arrays.matmul(u, basis), 0) ** 2, axis=1)
    return jnp.where(jnp.isnan(jnp.sum(values)), jnp.nan, share)


def nci(
    z: ArrayLike,
    train_mean: ArrayLike,
    head: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    alpha: float | jax.Array = 0.0,
) -> jax.Array:
    """NCI score of each sample: <w_c, z - m> / ||z - m|| + alpha ||z||_1, c the predicted class, m the training mean.

    OpenOOD's convention: raw rows of the head, and the bias is used only for the prediction.

    Args:
      z: (M, D) features to score; train_mean: (D,) mean of the training features.
      head: (C, D); bias: (C,) or None.
      alpha: at least 0, the weight of the norm, tuned on validation data in OpenOOD.
    Returns:
      (M,); a sample at the training mean has no direction and scores alpha ||z||_1.
    References:
      Liu and Qin, "Detecting out-of-distribution through the lens of neural collapse", CVPR 2025; nci_postprocessor.py
      of OpenOOD.
    """
    z, head = arrays.as_rows(z), arrays.as_rows(head, "head")
    mean = arrays.as_float(train_mean, "train_mean")
    if head.shape[1] != z.shape[1] or not len(head) or mean.shape != (z.shape[1],):
        raise ValueError(
            f"head must be (C, {z.shape[1]}) and train_mean ({z.shape[1]},), as wide as the features; got shapes "
            f"{head.shape} and {mean.shape}"
        )
    bias = arrays.as_bias(bias, head)
    alpha = scalars.number(alpha, "alpha", "a number of at least 0", lambda x: 0 <= x < float("inf"))
    logits = arrays.matmul(z, head.T) + (0 if bias is None else bias[None])
    u, _ = spectra.unit_rows(z - mean[None])
    score = jnp.sum(head[jnp.argmax(logits, axis=1)] * u, axis=1) + alpha * jnp.sum(jnp.abs(z), axis=1)
    return jnp.where(jnp.isnan(jnp.max(logits, axis=1)), jnp.nan, score)
