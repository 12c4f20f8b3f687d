"""Dash: a threshold on the loss of a guess that falls with time."""

import jax
import jax.numpy as jnp
import optax

from infojax.objectives.contract import Aux, State
from infojax.objectives.nets import descend
from infojax.objectives.objective import objective
from infojax.objectives.semisup.common import SemiSupervised, guessed, hard, joint, judged, masked


@objective
class Dash(SemiSupervised):
    """`warmup` steps of CE(labelled), then CE(labelled) + weight mean 1[CE(z_weak, y) <= rho] CE(z_strong, y).

    rho = max(1.0001 growth^-j rho_0, least) in the j-th period after the warm-up, with rho_0 the mean labelled loss of
    the last `averaged` steps of the warm-up (the paper's intent; USB takes the loss on its evaluation set). The labels
    y are softmax(z_weak / temperature) while rho is above `least`, and argmax from there on.

    References:
      Xu et al. 2021; USB semilearn/algorithms/dash, where the numbers come from.
    """

    weight: float = 1.0
    growth: float = 1.27
    least: float = 0.05
    temperature: float = 0.5
    warmup: int = 2048
    averaged: int = 128
    period: int = 10_240

    def init(self, key, ctx):
        """rho_0; without a warm-up it is log C."""
        return jnp.zeros(()) if self.warmup else jnp.log(1.0 * ctx.facts.num_classes)

    def optimise(self, state, constants, batch, draws, key, ctx):
        def step(loss):
            return lambda state: descend(loss, state, constants, batch, draws, key, ctx, scale=self.lr_scale)

        if not self.warmup:
            return step(self.loss)(state)
        return jax.lax.cond(state.step < self.warmup, step(self._labelled_loss), step(self.loss), state)

    def _labelled_loss(self, nets, state, constants, batch, draws, ctx):
        rows = batch["labelled"]
        value = hard(nets("net", rows.views["weak"]).logits, rows.labels)
        count = min(self.averaged, self.warmup)
        counts = state.step >= self.warmup - count
        rho = state.method + jnp.where(counts, jax.lax.stop_gradient(value), 0) / count
        nothing = jnp.zeros(len(batch["unlabelled"].labels))
        metrics = {"supervised_loss": value, "unsupervised_loss": jnp.zeros(()), "rho": rho}
        return value, Aux(rho, metrics | judged(batch["unlabelled"], nothing, nothing))

    def selected(self, state: State, logits: jax.Array) -> jax.Array:
        found, _ = self.judged_by_loss(state, logits)
        return found & (state.step >= self.warmup)

    def judged_by_loss(self, state: State, weak: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(mask (n,), labels (n, C)) of the logits of the weak view."""
        rho = self.rho(state)
        soft, certain = jax.nn.softmax(weak / self.temperature), jax.nn.one_hot(guessed(weak)[2], weak.shape[1])
        target = jnp.where(rho > self.least, soft, certain)
        return optax.softmax_cross_entropy(weak, target) <= rho, target

    def rho(self, state: State) -> jax.Array:
        """The threshold (0-d) at a step: max(1.0001 rho_0 / growth^t, least), t whole periods after the warm-up."""
        periods = (state.step - self.warmup) // self.period
        return jnp.maximum(1.0001 * state.method / self.growth**periods, self.least)

    def loss(self, nets, state, constants, batch, draws, ctx):
        labelled, rows = batch["labelled"], batch["unlabelled"]
        views = rows.views["weak"], rows.views["strong"]
        known, weak, strong = (output.logits for output in joint(nets, labelled.views["weak"], *views))
        supervised = hard(known, labelled.labels)
        weak = jax.lax.stop_gradient(weak)
        mask, target = self.judged_by_loss(state, weak)
        guess = guessed(weak)[2]
        unsupervised = masked(mask, optax.softmax_cross_entropy(strong, target))
        metrics = {"supervised_loss": supervised, "unsupervised_loss": unsupervised, "rho": self.rho(state)}
        return supervised + self.weight * unsupervised, Aux(metrics=metrics | judged(rows, guess, mask))
