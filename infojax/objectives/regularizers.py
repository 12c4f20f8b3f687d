"""Matrix information between features and the head's rows as loss terms, on the samples of one batch.

With f the features, V = W[labels] the head's row of each sample and G the cosine Gram matrix:

  "mi"    -lambda MI(G(f), G(V))           maximise mutual information
  "hd"    +lambda |H(G(f)) - H(G(V))|      minimise the difference of entropies
  "mir"   -lambda MIR(G(f), G(V))          their ratios, as in Fig. 1 of the papers
  "hdr"   +lambda HDR(G(f), G(V))

The papers do not give lambda. A batch of n samples bounds each entropy by log n; `normalise` divides by it, like the
code of CMA, so that an equally strong term has a lambda log n times as large.

References:
  Song et al. 2024, "Unveiling the Dynamics of Information Interplay in Supervised Learning", section 5 (Table 2).
"""

import math

import jax
import jax.numpy as jnp

from infojax.measures.head_interplay import interplay
from infojax.measures.scalars import one_of
from infojax.objectives.contract import Context, Head, Metrics
from infojax.objectives.objective import objective

KINDS = ("off", "mi", "hd", "mir", "hdr")
GRADIENTS = ("both", "features", "head")


def information_term(
    kind: str,
    features: jax.Array,
    labels: jax.Array,
    head: jax.Array,
    *,
    weights: jax.Array | None = None,
    to: str = "both",
    normalise: bool = False,
) -> tuple[jax.Array, Metrics]:
    """The term above without lambda, to be minimised, and its ingredients.

    Args:
      kind: one of KINDS.
      features: (n, D); labels: (n,) int; head: (C, D).
      weights: (n,) >= 0, for instance a mask of confident pseudo-labels; nothing selected gives 0.
      to: where its gradient goes: "both", "features", or "head".
      normalise: in units of log n instead of nats (n: all samples of the batch).
    Returns:
      Scalar and {"mi", "hd", "mir", "hdr"}. A ratio that is 0 / 0 counts as 0.
    Raises:
      ValueError: unknown kind or destination.
    """
    one_of(kind, "kind", KINDS)
    one_of(to, "to", GRADIENTS)
    if kind == "off":
        return jnp.zeros(()), {}
    features = jax.lax.stop_gradient(features) if to == "head" else features
    head = jax.lax.stop_gradient(head) if to == "features" else head
    found = interplay(features, labels, head, weights=weights)
    difference = jnp.abs(found.entropy_features - found.entropy_head)
    values = {"mi": found.mutual_information, "hd": difference, "mir": found.mir, "hdr": found.hdr}
    value = jnp.where(jnp.isnan(values[kind]), 0, values[kind])
    if normalise and kind in ("mi", "hd"):
        value = value / math.log(len(features))
    return value if kind in ("hd", "hdr") else -value, values


@objective
class InformationTerm:
    """`information_term` as a part of any objective.

    Attributes:
      strength: lambda.
      term, to, normalise: kind, to and normalise of `information_term`.
    """

    strength: float = 0.0
    term: str = "off"
    to: str = "both"
    normalise: bool = False

    def __call__(
        self, features: jax.Array, labels: jax.Array, head: Head, ctx: Context, weights: jax.Array | None = None
    ) -> tuple[jax.Array, Metrics]:
        """strength * the term, and its ingredients; (0, {}) if it is off.

        Args:
          features: (n, D); labels: (n,), which may be pseudo-labels; head: `Head`; weights: (n,), a mask.
        """
        if self.term == "off":
            return jnp.zeros(()), {}
        features, labels, weights = ctx.gather((features, labels, weights))
        value, found = information_term(
            self.term, features, labels, head.weights, weights=weights, to=self.to, normalise=self.normalise
        )
        return self.strength * value, found
