"""What self-supervised methods share: two views of a sample, their branches, the online classifier, what is evaluated.

Losses are of arrays, rows are samples; they are computed in float32 or better, with products in full precision, and on
a mesh they are those of the global batch, in value and in gradient.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from infojax.measures.arrays import as_rows
from infojax.measures.spectra import unit_rows
from infojax.objectives.contract import Aux, Batches, Constants, Context, Model, Net, State, View
from infojax.objectives.nets import Nets
from infojax.objectives.objective import Objective, objective

VIEWS = ("view1", "view2")  # names of transforms; a method's recipe says what they do
# Nets on top of "net", in this order: name -> (its input, its output), features of what is evaluated.
HEADS = {
    "projector": ("embedding", "projection"),
    "predictor": ("projection", "prediction"),
    "online": ("embedding", "online"),
}


@objective
class SelfSupervised(Objective):
    """Base of the methods: source "train"; net "net", and, where the context has it, "online".

    "online" is a linear classifier of the embedding without a gradient into it: the accuracy that papers print while
    they train. Its labels are used for nothing else.

    Attributes:
      lr_scale: factor of the learning rate.
      batch_size: samples per step, each with all its views.
    """

    lr_scale: float = 1.0
    batch_size: int = 256

    @property
    def views(self):
        return (View("train", VIEWS, self.batch_size),)

    def network(self, ctx):
        return with_heads(tuple((name, net) for name, net in ctx.nets.items() if name in ("net", *HEADS)))

    def evaluated(self, state, constants, ctx):
        """Name -> `Model` of the net with the heads that it has; an average has its own copy of those it averages."""
        net, found = self.network(ctx), {"raw": Model(state.params, state.model_state, self.network(ctx))}
        for name, average in self.averages.items():
            if average.evaluated and average.statistics:
                own = {part: state.model_state[f"{name}/{part}"] for part in average.nets}
                params = state.params | state.averages[name]
                found[name] = Model(params, state.model_state | own, net)
        return found


@functools.cache
def with_heads(nets: tuple[tuple[str, Net], ...]) -> Net:
    """A net and its heads as one, whose variables are those of the state.

    Its output is the embedding and the features of "net", to which "projection" and "prediction" are added; the logits
    are those of "online", or None. It can stop at these two as at any feature.
    """
    by_name = dict(nets)
    outputs = {HEADS[name][1]: name for name in by_name if name in HEADS and name != "online"}

    def apply(params, model_state, x, train=False, start=None, stop=None, **options):
        def call(name, *inputs, **cut):
            return by_name[name].apply(params[name], model_state[name], *inputs, train=train, **options, **cut)[0]

        output = call("net", x, start=start, stop=None if stop in outputs else stop)
        if stop is not None and stop not in outputs:
            return output, model_state
        found: dict[str, Any] = {"embedding": output.embedding}
        for name, (of, result) in HEADS.items():
            if name in by_name:
                found[result] = call(name, found[of])
        if stop is not None:
            return found[stop], model_state
        own = {name: found[name] for name in outputs}
        features = {**output.features, **own}
        return output._replace(logits=found.get("online"), features=features), model_state

    return Net(None, apply)  # type: ignore[arg-type]  # it is never initialised


@objective
class TwoBranches(SelfSupervised):
    """Base of the methods that compare the projections of two views, which share "net" and "projector"."""

    def compared(self, one: jax.Array, two: jax.Array) -> jax.Array:
        """The loss (0-d) of two (n, D) projections, row i of both from sample i."""
        raise NotImplementedError

    def loss(
        self, nets: Nets, state: State, constants: Constants, batch: Batches, draws: Any, ctx: Context
    ) -> tuple[jax.Array, Aux]:
        """Each view passes separately, with its own batch statistics; "online" learns from the first one."""
        views, labels = batch["train"].views, batch["train"].labels
        embeddings = [nets("net", views[view]).embedding for view in VIEWS]
        value = self.compared(*(nets("projector", embedding) for embedding in embeddings))
        linear, metrics = online(nets, ctx, embeddings[0], labels)
        return value + linear, Aux(metrics={"loss_method": value} | metrics)


def online(nets: Nets, ctx: Context, embedding: jax.Array, labels: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(loss, metrics) of the classifier "online" of the embedding, which gets no gradient; (0, {}) without such a net.

    Args:
      labels: (n,); negative ones are unknown and left out.
    """
    if "online" not in ctx.nets:
        return jnp.zeros(()), {}
    logits, known = nets("online", jax.lax.stop_gradient(embedding)), labels >= 0
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    count = jnp.maximum(jnp.sum(known), 1)
    right = known & (jnp.argmax(logits, -1) == labels)
    value = jnp.sum(known * losses) / count
    return value, {"loss_online": value, "accuracy_online": jnp.sum(right) / count}


# Parts of losses


def unit(z: jax.Array) -> jax.Array:
    """Rows divided by their norms, (n, D), float32 or better; a row of zeros stays, with a gradient of 0."""
    return unit_rows(z)[0]


def pair(z1: jax.Array, z2: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both as float (n, D) arrays.

    Raises:
      ValueError: they are not of one shape.
    """
    z1, z2 = as_rows(z1, "z1"), as_rows(z2, "z2")
    if z1.shape != z2.shape:
        raise ValueError(f"z1 is {z1.shape}, z2 is {z2.shape}: both must be views of the same samples")
    return z1, z2


def off_diagonal(c: jax.Array) -> jax.Array:
    """sum_{i != j} c_ij^2 (0-d) of c (D, D), without cancellation."""
    return jnp.sum(jnp.where(jnp.eye(len(c), dtype=bool), 0, c) ** 2)
