"""FlexMatch: FixMatch with a threshold for each class, lower where little was learnt."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from infojax.objectives.contract import Aux
from infojax.objectives.objective import objective
from infojax.objectives.regularizers import InformationTerm
from infojax.objectives.semisup.common import SemiSupervised, guessed, hard, joint, judged, masked
from infojax.objectives.semisup.fixmatch import selected_term


class Learnt(NamedTuple):
    """Method state of `FlexMatch`.

    Attributes:
      selected: (N_u,) int32, the last confident guess for each unlabelled sample, -1 before.
      counts: (C + 1,) int32, how often each value occurs in `selected`; the first is that of -1.
      effect: (C,), the learning effect of each class, in [0, 1].
    """

    selected: jax.Array
    counts: jax.Array
    effect: jax.Array


@objective
class FlexMatch(SemiSupervised):
    """CE(labelled) + weight mean 1[max p_weak >= threshold b / (2 - b)] CE(z_strong, argmax p_weak), b of the class.

    b_c = n_c / max(n), with n_c the unlabelled samples whose last confident guess was c, and, with `warm`, those
    without one among the n. b stays while all samples have the same value. The counts are those before the step.

    References:
      Zhang et al. 2021; TorchSSL models/flexmatch.
    """

    weight: float = 1.0
    threshold: float = 0.95
    warm: bool = True
    information: InformationTerm = InformationTerm()

    def init(self, key, ctx):
        unlabelled, classes = ctx.facts.num_unlabelled, ctx.facts.num_classes
        counts = jnp.zeros(classes + 1, jnp.int32).at[0].set(unlabelled)
        return Learnt(jnp.full(unlabelled, -1, jnp.int32), counts, jnp.zeros(classes))

    def loss(self, nets, state, constants, batch, draws, ctx):
        labelled, rows, learnt = batch["labelled"], batch["unlabelled"], state.method
        known, weak, strong = joint(nets, labelled.views["weak"], rows.views["weak"], rows.views["strong"])
        supervised = hard(known.logits, labelled.labels)
        _, top, guess = guessed(weak.logits)
        counts = learnt.counts
        most = jnp.max(counts if self.warm else counts[1:])
        effect = jnp.where(jnp.max(counts) < len(learnt.selected), counts[1:] / jnp.maximum(most, 1), learnt.effect)
        mask = top >= self.threshold * (effect / (2 - effect))[guess]
        unsupervised = masked(mask, optax.softmax_cross_entropy_with_integer_labels(strong.logits, guess))
        learnt = remembered(learnt._replace(effect=effect), rows.index, guess, top >= self.threshold)
        value, metrics = selected_term(self.information, nets, strong, guess, mask, ctx)
        metrics |= {"supervised_loss": supervised, "unsupervised_loss": unsupervised} | judged(rows, guess, mask)
        metrics |= {"threshold": self.threshold * jnp.mean(effect / (2 - effect))}
        return supervised + self.weight * unsupervised + value, Aux(learnt, metrics)


def remembered(learnt: Learnt, index: jax.Array, guess: jax.Array, sure: jax.Array) -> Learnt:
    """`Learnt` with the confident guesses at their samples; of a sample that comes twice, the last one counts."""
    later = jnp.arange(len(index))[None] > jnp.arange(len(index))[:, None]
    again = jnp.any((index[:, None] == index[None]) & sure[None] & later, axis=1)
    kept = sure & ~again
    change, guess = kept.astype(jnp.int32), guess.astype(jnp.int32)
    counts = learnt.counts.at[learnt.selected[index] + 1].add(-change).at[guess + 1].add(change)
    places = jnp.where(kept, index, len(learnt.selected))  # out of bounds: dropped
    return learnt._replace(selected=learnt.selected.at[places].set(guess, mode="drop"), counts=counts)
