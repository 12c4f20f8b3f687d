"""SoftMatch: every guess counts, with a weight that falls with its distance from the usual confidence."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from infojax.objectives.contract import Aux, State
from infojax.objectives.objective import objective
from infojax.objectives.regularizers import InformationTerm
from infojax.objectives.semisup.common import SemiSupervised, guessed, hard, joint, judged, masked
from infojax.objectives.semisup.fixmatch import selected_term


class Usual(NamedTuple):
    """Method state of `SoftMatch`: moving averages of mean and variance of max p, and of p, (C,), of both sources."""

    mean: jax.Array
    variance: jax.Array
    p_labelled: jax.Array
    p_unlabelled: jax.Array


@objective
class SoftMatch(SemiSupervised):
    """CE(labelled) + weight mean w CE(z_strong, argmax p_weak), w = exp(-min(max p' - mean, 0)^2 / (2 variance / n^2)).

    p' = Norm(p_weak p_labelled / p_unlabelled). The averages follow the batch first; mean and variance are of max p,
    not of max p' (TorchSSL; USB takes those of p').

    Attributes:
      sigmas: n; decay: of the averages.
    References:
      Chen et al. 2023; TorchSSL models/softmatch.
    """

    weight: float = 1.0
    sigmas: float = 2.0
    decay: float = 0.999
    information: InformationTerm = InformationTerm()

    def init(self, key, ctx):
        even = jnp.full(ctx.facts.num_classes, 1 / ctx.facts.num_classes)
        return Usual(even[0], jnp.ones(()), even, even)

    def selected(self, state: State, logits: jax.Array) -> jax.Array:
        return self.weights(state.method, guessed(logits)[0])

    def weights(self, usual: Usual, p: jax.Array) -> jax.Array:
        """How much guesses with these probabilities count, (n,)."""
        aligned = p * (usual.p_labelled / usual.p_unlabelled)[None]
        aligned = jnp.max(aligned / jnp.sum(aligned, -1, keepdims=True), -1)
        below = jnp.minimum(aligned - usual.mean, 0)
        return jnp.exp(-(below**2) / (2 * jnp.maximum(usual.variance, 1e-8) / self.sigmas**2))

    def loss(self, nets, state, constants, batch, draws, ctx):
        labelled, rows = batch["labelled"], batch["unlabelled"]
        known, weak, strong = joint(nets, labelled.views["weak"], rows.views["weak"], rows.views["strong"])
        supervised = hard(known.logits, labelled.labels)
        p, top, guess = guessed(weak.logits)
        p_labelled = jnp.mean(jax.nn.softmax(jax.lax.stop_gradient(known.logits)), 0)
        seen = Usual(jnp.mean(top), jnp.var(top, ddof=1), p_labelled, jnp.mean(p, 0))
        usual = jax.tree.map(lambda old, new: self.decay * old + (1 - self.decay) * new, state.method, seen)
        weights = self.weights(usual, p)
        unsupervised = masked(weights, optax.softmax_cross_entropy_with_integer_labels(strong.logits, guess))
        value, metrics = selected_term(self.information, nets, strong, guess, weights, ctx)
        metrics |= {"supervised_loss": supervised, "unsupervised_loss": unsupervised} | judged(rows, guess, weights)
        return supervised + self.weight * unsupervised + value, Aux(usual, metrics)
