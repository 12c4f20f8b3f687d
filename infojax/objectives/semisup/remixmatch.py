"""ReMixMatch: MixMatch with aligned guesses, strong views, and rotations to be recognised; nets "net", "rotation"."""

import jax
import jax.numpy as jnp

from infojax.objectives.contract import Aux, Average
from infojax.objectives.objective import objective
from infojax.objectives.semisup.common import (
    SemiSupervised,
    apart,
    hard,
    interleaved,
    inverse,
    judged,
    mixed,
    mixing,
    ramp,
    sharpened,
    soft,
)


@objective
class ReMixMatch(SemiSupervised):
    """CE(mixed labelled) + ramp(k) (mixed_weight CE(mixed unlabelled) + view_weight CE(z(s_1), q)) + rotation CE.

    q = sharpened Norm(p p_labelled / p_model), with p_model a moving average of the guesses that is updated first.

    Attributes:
      mixed_weight, view_weight, rotation_weight: of the three unsupervised losses.
      model_decay: of p_model, which begins at the first batch's mean.
      epsilon: added to both sides of the quotient, 0 as in TorchSSL, or 1e-6 in Google's code and USB; with 0 a class
        whose p_model is 0 is not guessed.
    References:
      Berthelot et al. 2020; TorchSSL models/remixmatch.
    """

    ratio: int = 1
    mixed_weight: float = 1.5
    view_weight: float = 0.5
    rotation_weight: float = 0.5
    ramp_fraction: float = 1 / 64
    temperature: float = 0.5
    alpha: float = 0.75
    model_decay: float = 0.999
    epsilon: float = 0.0

    unlabelled = {"weak": "weak", "strong1": "strong", "strong2": "strong"}

    @property
    def averages(self):
        return {"ema": Average(("net", "rotation"), self.ema_decay)}

    def init(self, key, ctx):
        """p_model, (C,)."""
        return jnp.zeros(ctx.facts.num_classes)

    def draws(self, key, batch, ctx):
        """Those of `mixing` for all four groups of samples; and "turns" (n,), quarter turns of the rotated views."""
        mix, turn = jax.random.split(key)
        turns = jax.random.randint(turn, (self.batch_size,), 0, 4)
        return mixing(mix, self.alpha, 4 * self.batch_size) | {"turns": turns}

    def loss(self, nets, state, constants, batch, draws, ctx):
        labelled, rows, n = batch["labelled"], batch["unlabelled"], self.batch_size
        weak, one, two = (rows.views[name] for name in self.unlabelled)
        p = jax.nn.softmax(jax.lax.stop_gradient(apart(nets, weak).logits))
        batch_mean = jnp.mean(p, 0)
        moved = self.model_decay * state.method + (1 - self.model_decay) * batch_mean
        p_model = jnp.where(state.step == 0, batch_mean, moved)
        counts = jnp.asarray(ctx.facts.label_counts, p.dtype)
        q = p * ((counts / jnp.sum(counts) + self.epsilon) * inverse(p_model + self.epsilon))[None]
        q = sharpened(q / jnp.sum(q, -1, keepdims=True), self.temperature)

        x = jnp.concatenate([labelled.views["weak"], one, two, weak])
        targets = mixed(draws, jnp.concatenate([jax.nn.one_hot(labelled.labels, q.shape[1]), q, q, q]))
        logits = interleaved(nets, mixed(draws, x), 4)
        supervised, unsupervised = soft(logits[:n], targets[:n]), soft(logits[n:], targets[n:])
        unmixed = soft(apart(nets, one).logits, q)
        rotation = hard(nets("rotation", apart(nets, turned(one, draws["turns"])).embedding), draws["turns"])
        warm = ramp(state, ctx, self.ramp_fraction)
        value = supervised + warm * (self.mixed_weight * unsupervised + self.view_weight * unmixed)
        metrics = {"supervised_loss": supervised, "unsupervised_loss": unsupervised, "rotation_loss": rotation}
        metrics |= {"view_loss": unmixed} | judged(rows, jnp.argmax(q, -1), jnp.ones(n))
        return value + self.rotation_weight * rotation, Aux(p_model, metrics)


def turned(x: jax.Array, turns: jax.Array) -> jax.Array:
    """Pictures (n, H, W, c) with H = W, each turned by its number of quarter turns, as `jnp.rot90`."""
    by_turns = jnp.stack([jnp.rot90(x, k, axes=(1, 2)) for k in range(4)])
    return by_turns[turns, jnp.arange(len(x))]
