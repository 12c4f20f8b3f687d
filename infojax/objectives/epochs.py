"""Training by epochs: their mean losses, a run that rests once it has ended, class moments on the way; decoders."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from infojax.measures.moments import ClassStats
from infojax.objectives.contract import Aux, Batches, Constants, Context, Metrics, Model, State, View
from infojax.objectives.nets import Nets
from infojax.objectives.objective import Objective, objective
from infojax.objectives.supervised import Supervised


class Epoch(NamedTuple):
    """Method state of `Epochs`.

    Attributes:
      total: sum of the losses of the epoch's batches so far; mean: over the last complete epoch, 0 before.
      resting: whether the run has reached its end.
      moments: layer -> `ClassStats` of the epoch so far, each batch as the weights of its step saw it.
      inner: method state of the objective inside.
    """

    total: jax.Array
    mean: jax.Array
    resting: jax.Array
    moments: dict[str, Any]
    inner: Any


@objective
class Epochs(Objective):
    """Another objective's loss, without its averages; a run rests (its weights stay) once it meets either end.

    Attributes:
      inner: the objective, with a single loss.
      rest_loss: end at this mean loss of an epoch's batches, each before its update; 0: never.
      rest_steps: end at this step.
      epoch_steps: steps per epoch; if the batch size does not divide the samples, a few of these come twice.
      moments: (layer, D) whose class moments are summed while training: the first pass of the thesis's algorithm as its
        code runs it, where class means are those of changing weights.
    """

    inner: Objective = Supervised(transform="plain", batch_size=400)
    rest_loss: float = 0.0
    rest_steps: float = math.inf
    epoch_steps: int = 25
    moments: tuple[tuple[str, int], ...] = ()

    def __post_init__(self):
        """The views are those of the objective inside, which has checked them."""

    @property
    def views(self) -> tuple[View, ...]:
        return self.inner.views

    @property
    def lr_scale(self) -> float | jax.Array:
        return self.inner.lr_scale

    def init(self, key: jax.Array, ctx: Context) -> Epoch:
        moments = {name: ClassStats.init(ctx.facts.num_classes, dim) for name, dim in self.moments}
        return Epoch(jnp.zeros(()), jnp.zeros(()), jnp.zeros((), bool), moments, self.inner.init(key, ctx))

    def draws(self, key: jax.Array, batch: Batches, ctx: Context) -> Any:
        return self.inner.draws(key, batch, ctx)

    def loss(
        self,
        nets: Nets,
        state: State,
        constants: Constants,
        batch: Batches,
        draws: Any,
        ctx: Context,
    ) -> tuple[jax.Array, Aux]:
        epoch = state.method
        value, aux = self.inner.loss(nets, state._replace(method=epoch.inner), constants, batch, draws, ctx)
        begins, labels = state.step % self.epoch_steps == 0, batch["train"].labels
        layers = aux.output.features | {"embedding": aux.output.embedding, "logits": aux.output.logits}
        moments = {}
        for name, stats in epoch.moments.items():
            fresh = jax.tree.map(lambda leaf: jnp.where(begins, jnp.zeros_like(leaf), leaf), stats)
            z = jax.lax.stop_gradient(layers[name].reshape(len(labels), -1).astype(jnp.float32))
            moments[name] = fresh.update(z, labels)
        inner = epoch.inner if aux.method is None else aux.method
        return value, aux._replace(method=epoch._replace(moments=moments, inner=inner))

    def update(
        self,
        state: State,
        constants: Constants,
        batch: Batches,
        key: jax.Array,
        ctx: Context,
        draws: Any = None,
    ) -> tuple[State, Metrics]:
        before, place = state.method, state.step % self.epoch_steps
        after, metrics = super().update(state, constants, batch, key, ctx, draws)
        total = jnp.where(place == 0, 0.0, before.total) + metrics["loss"].astype(jnp.float32)
        mean, ends = total / (place + 1), place + 1 == self.epoch_steps
        low = (mean <= self.rest_loss) & (self.rest_loss > 0)
        resting = (ends & low) | (after.step >= self.rest_steps)
        method = after.method._replace(total=total, mean=jnp.where(ends, mean, before.mean), resting=resting)
        after = after._replace(method=method)
        kept = jax.tree.map(lambda old, new: jnp.where(before.resting, old, new), state, after)
        metrics |= {"epoch_loss": jnp.where(before.resting, before.mean, mean), "resting": kept.method.resting * 1.0}
        return kept._replace(step=after.step), metrics

    def finished(self, state: State) -> jax.Array:
        return state.method.resting

    def evaluated(self, state: State, constants: Constants, ctx: Context) -> dict[str, Model]:
        """Evaluators find the moments as `Model.extra`."""
        raw = super().evaluated(state, constants, ctx)["raw"]
        return {"raw": dataclasses.replace(raw, extra={"moments": state.method.moments} if self.moments else {})}


@objective
class Decoder(Objective):
    """A decoder of a frozen encoder's output: mean cross-entropy of one column of the labels (N, K).

    The samples are encodings; or, if the net "encoder" is frozen in the constants, stored samples, and each batch is
    encoded anew.
    """

    column: jax.Array = 0  # type: ignore[assignment]  # a leaf, which may be a number
    transform: str = "plain"
    batch_size: int | str = 400

    @property
    def views(self) -> tuple[View, ...]:
        return (View("train", (self.transform,), self.batch_size),)

    def loss(
        self,
        nets: Nets,
        state: State,
        constants: Constants,
        batch: Batches,
        draws: Any,
        ctx: Context,
    ) -> tuple[jax.Array, Aux]:
        x, labels = batch["train"].views[self.transform], jnp.take(batch["train"].labels, self.column, axis=1)
        output = nets("net", nets("encoder", x) if "encoder" in ctx.frozen else x)
        value = jnp.mean(optax.softmax_cross_entropy(output.logits, jnp.eye(output.logits.shape[1])[labels]))
        return value, Aux(output=output)
