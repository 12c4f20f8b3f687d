"""AdaMatch: aligned guesses that are confident in comparison with the labelled samples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from infojax.objectives.contract import Aux, State
from infojax.objectives.objective import objective
from infojax.objectives.regularizers import InformationTerm
from infojax.objectives.semisup.common import SemiSupervised, hard, joint, judged, masked
from infojax.objectives.semisup.fixmatch import selected_term


class Aligned(NamedTuple):
    """Method state of `AdaMatch`: moving averages of p, (C,), of both sources; the last mean max p of labelled ones."""

    p_labelled: jax.Array
    p_unlabelled: jax.Array
    confidence: jax.Array


@objective
class AdaMatch(SemiSupervised):
    """CE(labelled) + weight mean 1[max p' >= threshold mean max p_labelled] CE(z_strong, argmax p') + information term.

    p' = Norm(p_weak p_labelled / p_unlabelled) with averages that follow the batch first: p_labelled begins at 1 / C,
    p_unlabelled at the first batch. In USB's semantics: Berthelot et al. interpolate logits between two batch
    statistics, ramp the weight up, and have a threshold of 0.9.

    Attributes:
      decay: of the averages; information: as of `FixMatch`.
    References:
      Berthelot et al. 2022; USB semilearn/algorithms/adamatch.
    """

    weight: float = 1.0
    threshold: float = 0.95
    decay: float = 0.999
    information: InformationTerm = InformationTerm()

    def init(self, key, ctx):
        even = jnp.full(ctx.facts.num_classes, 1 / ctx.facts.num_classes)
        return Aligned(even, even, even[0])

    def selected(self, state: State, logits: jax.Array) -> jax.Array:
        p = aligned(state.method, jax.nn.softmax(jax.lax.stop_gradient(logits)))
        return jnp.max(p, -1) >= self.threshold * state.method.confidence

    def loss(self, nets, state, constants, batch, draws, ctx):
        labelled, rows = batch["labelled"], batch["unlabelled"]
        known, weak, strong = joint(nets, labelled.views["weak"], rows.views["weak"], rows.views["strong"])
        supervised = hard(known.logits, labelled.labels)
        ours, theirs = (jax.nn.softmax(jax.lax.stop_gradient(x.logits)) for x in (known, weak))
        followed = self.followed(state, ours, theirs)
        guess = jnp.argmax(aligned(followed, theirs), -1)
        mask = self.selected(state._replace(method=followed), weak.logits)
        unsupervised = masked(mask, optax.softmax_cross_entropy_with_integer_labels(strong.logits, guess))
        value, metrics = selected_term(self.information, nets, strong, guess, mask, ctx)
        metrics |= {"supervised_loss": supervised, "unsupervised_loss": unsupervised}
        metrics |= {"threshold": self.threshold * followed.confidence} | judged(rows, guess, mask)
        return supervised + self.weight * unsupervised + value, Aux(followed, metrics)

    def followed(self, state: State, ours: jax.Array, theirs: jax.Array) -> Aligned:
        """The averages after a batch of probabilities, labelled `ours` (n, C) and unlabelled `theirs` (m, C)."""
        old, seen = state.method, jnp.mean(theirs, 0)
        moved = self.decay * old.p_unlabelled + (1 - self.decay) * seen
        return Aligned(
            self.decay * old.p_labelled + (1 - self.decay) * jnp.mean(ours, 0),
            jnp.where(state.step == 0, seen, moved),
            jnp.mean(jnp.max(ours, -1)),
        )


def aligned(averages: Aligned, p: jax.Array) -> jax.Array:
    """p (n, C) with the classes' shares of the labelled samples: p p_labelled / p_unlabelled over its sum by rows."""
    p = p * ((averages.p_labelled + 1e-6) / (averages.p_unlabelled + 1e-6))[None]
    return p / jnp.sum(p, -1, keepdims=True)
