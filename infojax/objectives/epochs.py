"""Supervised learning by epochs: their mean losses, where a run rests, class moments on the way; decoders."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from infojax.measures.moments import ClassStats
from infojax.objectives.contract import objective
from infojax.objectives.supervised import Supervised


class Epoch(NamedTuple):
    """Method state of `Epochs`.

    Attributes:
      total: sum of the cross-entropies of the epoch's batches so far; mean: of the last whole epoch, 0 before.
      resting: whether the run has reached its end.
      moments: layer -> `ClassStats` of the epoch so far, each batch as the weights of its step saw it.
    """

    total: jax.Array
    mean: jax.Array
    resting: jax.Array
    moments: dict[str, Any]


@objective
class Epochs(Supervised):
    """`Supervised` without averages, that ends by itself: a run rests, its weights stay, once one of two is reached.

    Attributes:
      rest_loss: the mean cross-entropy of an epoch's batches, each before its update; 0: never.
      rest_steps: steps.
      epoch_steps: an epoch has so many; where batches do not divide the samples, a few of these come twice.
      moments: (layer, D) whose class moments are summed while training: the first pass of the thesis's algorithm as its
        code runs it, where class means are of weights that were still moving.
    """

    rest_loss: float = 0.0
    rest_steps: float = math.inf
    transform: str = "plain"
    batch_size: int | str = 400
    epoch_steps: int = 25
    moments: tuple[tuple[str, int], ...] = ()
    averages = {}

    def init(self, key, ctx):
        moments = {name: ClassStats.init(ctx.facts.num_classes, dim) for name, dim in self.moments}
        return Epoch(jnp.zeros(()), jnp.zeros(()), jnp.zeros((), bool), moments)

    def seen(self, state, output, labels):
        epoch, begins = state.method, state.step % self.epoch_steps == 0
        found = output.features | {"embedding": output.embedding, "logits": output.logits}
        moments = {}
        for name, stats in epoch.moments.items():
            fresh = jax.tree.map(lambda leaf: jnp.where(begins, jnp.zeros_like(leaf), leaf), stats)
            z = jax.lax.stop_gradient(found[name].reshape(len(labels), -1).astype(jnp.float32))
            moments[name] = fresh.update(z, labels)
        return epoch._replace(moments=moments)

    def update(self, state, constants, batch, key, ctx):
        before, place = state.method, state.step % self.epoch_steps
        after, metrics = super().update(state, constants, batch, key, ctx)
        total = jnp.where(place == 0, 0.0, before.total) + metrics["cross_entropy"].astype(jnp.float32)
        mean, ends = total / (place + 1), place + 1 == self.epoch_steps
        low = (mean <= self.rest_loss) & (self.rest_loss > 0)
        resting = (ends & low) | (after.step >= self.rest_steps)
        method = after.method._replace(total=total, mean=jnp.where(ends, mean, before.mean), resting=resting)
        after = after._replace(method=method)
        kept = jax.tree.map(lambda old, new: jnp.where(before.resting, old, new), state, after)
        metrics |= {"epoch_loss": jnp.where(before.resting, before.mean, mean), "resting": kept.method.resting * 1.0}
        return kept._replace(step=after.step), metrics

    def finished(self, state):
        return state.method.resting

    def evaluated(self, state):
        """Evaluators find the moments beside the nets' own states."""
        moments = {"moments": state.method.moments} if self.moments else {}
        return {"raw": (state.params, state.model_state | moments)}


@objective
class Decoder(Epochs):
    """A decoder of what a frozen encoder gives, mean CE of one column of the labels (N, K).

    The samples are encodings; or, with constants["encoder"], (params, model_state) of the net "encoder", samples as
    they are stored, each batch encoded anew.
    """

    column: jax.Array = 0

    def loss(self, params, state, constants, batch, key, ctx):
        rows = batch["train"]
        x, labels = rows[self.transform], jnp.take(rows["labels"], self.column, axis=1)
        if "encoder" in constants:
            x, _ = ctx.nets["encoder"].apply(*constants["encoder"], x, train=False)
        return super().loss(params, state, constants, {"train": rows | {self.transform: x, "labels": labels}}, key, ctx)
