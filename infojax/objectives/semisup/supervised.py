"""The reference without unlabelled samples."""

from infojax.objectives.contract import Aux, View
from infojax.objectives.objective import objective
from infojax.objectives.semisup.common import SemiSupervised, hard


@objective
class LabelledOnly(SemiSupervised):
    """CE(labelled), with the optimiser, the average and the draws of the other methods."""

    @property
    def views(self):
        return (View("labelled", ("weak",), self.batch_size, replacement=self.replacement),)

    def loss(self, nets, state, constants, batch, draws, ctx):
        labelled = batch["labelled"]
        value = hard(nets("net", labelled.views["weak"]).logits, labelled.labels)
        return value, Aux(metrics={"supervised_loss": value})
