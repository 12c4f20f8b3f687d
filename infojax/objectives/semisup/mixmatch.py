"""MixMatch: sharpened mean guesses, and mixup of labelled and unlabelled samples together."""

import jax
import jax.numpy as jnp

from infojax.objectives.contract import Aux
from infojax.objectives.objective import objective
from infojax.objectives.semisup.common import (
    SemiSupervised,
    apart,
    interleaved,
    judged,
    mixed,
    mixing,
    ramp,
    sharpened,
    soft,
)


@objective
class MixMatch(SemiSupervised):
    """CE(mixed labelled) + weight ramp(k) mean (softmax z - q)^2 of the mixed unlabelled samples.

    Attributes:
      temperature: of the sharpening of the mean guess over two views.
      alpha: of the Beta distribution.
      mix: "batch", one coefficient per step (TorchSSL), or "sample" (the paper's code).
    References:
      Berthelot et al. 2019; TorchSSL models/mixmatch.
    """

    ratio: int = 1
    weight: float = 100.0
    ramp_fraction: float = 0.4
    temperature: float = 0.5
    alpha: float = 0.5
    mix: str = "batch"

    unlabelled = {"weak1": "weak", "weak2": "weak"}

    def draws(self, key, batch, ctx):
        """Those of `mixing` for labelled and both unlabelled views together."""
        return mixing(key, self.alpha, 3 * self.batch_size, self.mix == "sample")

    def loss(self, nets, state, constants, batch, draws, ctx):
        labelled, rows, n = batch["labelled"], batch["unlabelled"], self.batch_size
        views = rows.views["weak1"], rows.views["weak2"]
        p = sum(jax.nn.softmax(apart(nets, x).logits) for x in views) / 2
        q = jax.lax.stop_gradient(sharpened(p, self.temperature))
        x = jnp.concatenate([labelled.views["weak"], *views])
        targets = mixed(draws, jnp.concatenate([jax.nn.one_hot(labelled.labels, q.shape[1]), q, q]))
        logits = interleaved(nets, mixed(draws, x), 3)
        supervised = soft(logits[:n], targets[:n])
        unsupervised = jnp.mean((jax.nn.softmax(logits[n:]) - targets[n:]) ** 2)
        value = supervised + self.weight * ramp(state, ctx, self.ramp_fraction) * unsupervised
        metrics = {"supervised_loss": supervised, "unsupervised_loss": unsupervised}
        return value, Aux(metrics=metrics | judged(rows, jnp.argmax(p, -1), jnp.ones(len(p))))
