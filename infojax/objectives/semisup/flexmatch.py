"""FlexMatch: FixMatch with a threshold for each class, lower where little was learnt."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from infojax.objectives.contract import Aux, State
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

    def selected(self, state: State, logits: jax.Array) -> jax.Array:
        _, top, guess = guessed(logits)
        effect = self.followed(state.method).effect
        return top >= self.threshold * (effect / (2 - effect))[guess]

    def followed(self, learnt: Learnt) -> Learnt:
        """`Learnt` with the effect that its counts have."""
        counts = learnt.counts
        most = jnp.max(counts if self.warm else counts[1:])
        moves = jnp.max(counts) < len(learnt.selected)
        return learnt._replace(effect=jnp.where(moves, counts[1:] / jnp.maximum(most, 1), learnt.effect))

    def loss(self, nets, state, constants, batch, draws, ctx):
        labelled, rows = batch["labelled"], batch["unlabelled"]
        known, weak, strong = joint(nets, labelled.views["weak"], rows.views["weak"], rows.views["strong"])
        supervised = hard(known.logits, labelled.labels)
        _, top, guess = guessed(weak.logits)
        learnt, mask = self.followed(state.method), self.selected(state, weak.logits)
        unsupervised = masked(mask, optax.softmax_cross_entropy_with_integer_labels(strong.logits, guess))
        metrics = {"threshold": self.threshold * jnp.mean(learnt.effect / (2 - learnt.effect))}
        learnt = remembered(learnt, rows.index, guess, top >= self.threshold)
        value, measured = selected_term(self.information, nets, strong, guess, mask, ctx)
        metrics |= {"supervised_loss": supervised, "unsupervised_loss": unsupervised} | judged(rows, guess, mask)
        return supervised + self.weight * unsupervised + value, Aux(learnt, metrics | measured)


def remembered(learnt: Learnt, index: jax.Array, guess: jax.Array, sure: jax.Array) -> Learnt:
    """`Learnt` with the confident guesses of a batch; of a sample that comes twice, the last confident one counts.

    Args:
      index: (n,) places of the samples among the unlabelled ones; guess: (n,) classes; sure: (n,) booleans.
    """
    later = jnp.arange(len(index))[None] > jnp.arange(len(index))[:, None]
    again = jnp.any((index[:, None] == index[None]) & sure[None] & later, axis=1)
    kept = sure & ~again
    change, guess = kept.astype(jnp.int32), guess.astype(jnp.int32)
    counts = learnt.counts.at[learnt.selected[index] + 1].add(-change).at[guess + 1].add(change)
    places = jnp.where(kept, index, len(learnt.selected))  # out of bounds: dropped
    return learnt._replace(selected=learnt.selected.at[places].set(guess, mode="drop"), counts=counts)
