"""Pi-Model: two noisy views of a sample have the same probabilities."""

import jax

from infojax.objectives.contract import Aux
from infojax.objectives.objective import objective
from infojax.objectives.semisup.common import SemiSupervised, apart, consistency, hard, ramp


@objective
class PiModel(SemiSupervised):
    """CE(labelled) + weight ramp(k) mean (softmax z_1 - sg softmax z_2)^2.

    Attributes:
      weight: of the unsupervised loss, reached linearly over the first `ramp_fraction` of the run.
    References:
      Laine and Aila 2017; TorchSSL models/pimodel.
    """

    ratio: int = 1
    weight: float = 10.0
    ramp_fraction: float = 0.4

    unlabelled = {"weak1": "weak", "weak2": "weak"}

    def loss(self, nets, state, constants, batch, draws, ctx):
        labelled, views = batch["labelled"], batch["unlabelled"].views
        supervised = hard(nets("net", labelled.views["weak"]).logits, labelled.labels)
        one, two = apart(nets, views["weak1"]).logits, apart(nets, views["weak2"]).logits
        unsupervised = consistency(one, jax.lax.stop_gradient(two))
        value = supervised + self.weight * ramp(state, ctx, self.ramp_fraction) * unsupervised
        return value, Aux(metrics={"supervised_loss": supervised, "unsupervised_loss": unsupervised})
