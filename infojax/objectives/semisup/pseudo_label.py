"""Pseudo-Label: the net's own confident guesses are labels."""

import jax
import optax

from infojax.objectives.contract import Aux, State
from infojax.objectives.objective import objective
from infojax.objectives.semisup.common import SemiSupervised, apart, guessed, hard, judged, masked, ramp


@objective
class PseudoLabel(SemiSupervised):
    """CE(labelled) + weight ramp(k) mean 1[max p >= threshold] CE(z, argmax p), label and mask without a gradient.

    References:
      Lee 2013; TorchSSL models/pseudolabel.
    """

    ratio: int = 1
    weight: float = 1.0
    ramp_fraction: float = 0.4
    threshold: float = 0.95

    unlabelled = {"weak": "weak"}

    def selected(self, state: State, logits: jax.Array) -> jax.Array:
        return guessed(logits)[1] >= self.threshold

    def loss(self, nets, state, constants, batch, draws, ctx):
        labelled, rows = batch["labelled"], batch["unlabelled"]
        supervised = hard(nets("net", labelled.views["weak"]).logits, labelled.labels)
        logits = apart(nets, rows.views["weak"]).logits
        _, _, guess = guessed(logits)
        mask = self.selected(state, logits)
        unsupervised = masked(mask, optax.softmax_cross_entropy_with_integer_labels(logits, guess))
        value = supervised + self.weight * ramp(state, ctx, self.ramp_fraction) * unsupervised
        metrics = {"supervised_loss": supervised, "unsupervised_loss": unsupervised}
        return value, Aux(metrics=metrics | judged(rows, guess, mask))
