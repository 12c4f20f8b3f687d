"""UDA: sharpened soft labels of the weak view supervise the strong view."""

import jax
import jax.numpy as jnp
import optax

from infojax.objectives.contract import Aux, State
from infojax.objectives.objective import objective
from infojax.objectives.semisup.common import SemiSupervised, guessed, joint, judged, masked

SCHEDULES = {
    "none": lambda t: jnp.ones(()),
    "linear": lambda t: t,
    "exp": lambda t: jnp.exp(5 * (t - 1)),
    "log": lambda t: 1 - jnp.exp(-5 * t),
}


@objective
class UDA(SemiSupervised):
    """CE(labelled) + weight mean 1[max p >= threshold] CE(z_strong, softmax(z_weak / temperature)).

    Attributes:
      tsa: training signal annealing, as in TorchSSL: labelled samples whose largest probability is above a threshold
        that rises by this schedule from about 1 / C to 1 are left out of the labelled loss. "none" by default, as in
        the published table.
    References:
      Xie et al. 2020; TorchSSL models/uda.
    """

    weight: float = 1.0
    threshold: float = 0.8
    temperature: float = 0.4
    tsa: str = "none"

    def selected(self, state: State, logits: jax.Array) -> jax.Array:
        return guessed(logits)[1] >= self.threshold

    def loss(self, nets, state, constants, batch, draws, ctx):
        labelled, rows = batch["labelled"], batch["unlabelled"]
        views = rows.views["weak"], rows.views["strong"]
        known, weak, strong = (output.logits for output in joint(nets, labelled.views["weak"], *views))
        losses = optax.softmax_cross_entropy_with_integer_labels(known, labelled.labels)
        classes = known.shape[1]
        most = SCHEDULES[self.tsa](state.step / ctx.facts.total_steps) * (1 - 1 / classes) + 1 / classes
        kept = jnp.max(jax.nn.softmax(jax.lax.stop_gradient(known)), -1) <= most
        supervised = masked(jnp.ones_like(kept) if self.tsa == "none" else kept, losses)
        _, _, guess = guessed(weak)
        mask = self.selected(state, weak)
        target = jax.nn.softmax(jax.lax.stop_gradient(weak) / self.temperature)
        unsupervised = masked(mask, optax.softmax_cross_entropy(strong, target))
        metrics = {"supervised_loss": supervised, "unsupervised_loss": unsupervised}
        return supervised + self.weight * unsupervised, Aux(metrics=metrics | judged(rows, guess, mask))
