"""The cross entropy of a classifier, as accurate as its logits."""

import jax
import jax.numpy as jnp


@jax.jit
def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax(logits)[label] of each sample, nats: softplus(log sum_{j != y} exp(logits_j - logits_y)).

    In this form the value and every component of its gradient are as accurate as the differences of the logits, even
    if tiny: `logsumexp - logit` cancels below 1e-7 in float32, and 1e-16 in float64.

    Args:
      logits: (N, C) with C >= 2; labels: (N,) in [0, C).
    Returns:
      (N,) float32 or better.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    margins = logits - jnp.take_along_axis(logits, labels[:, None], axis=1)
    others = jnp.arange(logits.shape[1])[None] != labels[:, None]
    return jax.nn.softplus(jax.nn.logsumexp(margins, axis=1, where=others))
