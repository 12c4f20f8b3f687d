"""MeanTeacher: the net agrees with the moving average of itself."""

from infojax.objectives.contract import Aux
from infojax.objectives.objective import objective
from infojax.objectives.semisup.common import SemiSupervised, apart, consistency, hard, ramp


@objective
class MeanTeacher(SemiSupervised):
    """CE(labelled) + weight ramp(k) mean (softmax z(w_2) - softmax z_ema(w_1))^2.

    The teacher is the evaluated average, in training mode: it normalises by its own batch and updates no statistics.

    References:
      Tarvainen and Valpola 2017; TorchSSL models/meanteacher.
    """

    ratio: int = 1
    weight: float = 50.0
    ramp_fraction: float = 0.4

    unlabelled = {"weak1": "weak", "weak2": "weak"}

    def loss(self, nets, state, constants, batch, draws, ctx):
        labelled, views = batch["labelled"], batch["unlabelled"].views
        supervised = hard(nets("net", labelled.views["weak"]).logits, labelled.labels)
        teacher = nets.averaged("ema")("net", views["weak1"]).logits
        unsupervised = consistency(apart(nets, views["weak2"]).logits, teacher)
        value = supervised + self.weight * ramp(state, ctx, self.ramp_fraction) * unsupervised
        return value, Aux(metrics={"supervised_loss": supervised, "unsupervised_loss": unsupervised})
