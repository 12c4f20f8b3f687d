"""FixMatch: confident guesses on the weak view are labels of the strong one."""

from typing import Any

import jax
import optax

from infojax.objectives.contract import Aux, Context, State
from infojax.objectives.nets import Nets
from infojax.objectives.objective import objective
from infojax.objectives.regularizers import InformationTerm
from infojax.objectives.semisup.common import SemiSupervised, guessed, hard, joint, judged, masked


@objective
class FixMatch(SemiSupervised):
    """CE(labelled) + weight mean 1[max p_weak >= threshold] CE(z_strong, argmax p_weak) + information term.

    Attributes:
      labels: "hard", or "soft", then softmax(z_weak / temperature).
      information: the papers' term between the strong view's features and the head rows of the guesses, of the samples
        that the mask selects.
    References:
      Sohn et al. 2020; TorchSSL models/fixmatch.
    """

    weight: float = 1.0
    threshold: float = 0.95
    labels: str = "hard"
    temperature: float = 0.5
    information: InformationTerm = InformationTerm()

    def selected(self, state: State, logits: jax.Array) -> jax.Array:
        return guessed(logits)[1] >= self.threshold

    def loss(self, nets, state, constants, batch, draws, ctx):
        labelled, rows = batch["labelled"], batch["unlabelled"]
        known, weak, strong = joint(nets, labelled.views["weak"], rows.views["weak"], rows.views["strong"])
        supervised = hard(known.logits, labelled.labels)
        _, _, guess = guessed(weak.logits)
        mask = self.selected(state, weak.logits)
        if self.labels == "hard":
            losses = optax.softmax_cross_entropy_with_integer_labels(strong.logits, guess)
        else:
            target = jax.nn.softmax(jax.lax.stop_gradient(weak.logits) / self.temperature)
            losses = optax.softmax_cross_entropy(strong.logits, target)
        unsupervised = masked(mask, losses)
        value, metrics = selected_term(self.information, nets, strong, guess, mask, ctx)
        metrics |= {"supervised_loss": supervised, "unsupervised_loss": unsupervised} | judged(rows, guess, mask)
        return supervised + self.weight * unsupervised + value, Aux(metrics=metrics)


def selected_term(
    information: InformationTerm, nets: Nets, strong: Any, guess: jax.Array, mask: jax.Array, ctx: Context
) -> tuple[jax.Array | float, dict[str, jax.Array]]:
    """(value, metrics) of an `InformationTerm` on the selected samples; (0, {}) where it is off.

    Args:
      strong: output of the strong views, embedding (n, D); guess: (n,) classes; mask: (n,) weights.
    """
    if information.term == "off":
        return 0.0, {}
    return information(strong.embedding, guess, nets.head(), ctx, weights=mask)
