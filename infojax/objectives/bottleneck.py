"""The decodable information bottleneck: an encoding from which decoders predict labels but cannot identify samples.

  min over encoders  I_V(h -> Dec(x, y)) - beta I_V(h -> y),    V = all parametrisations of what follows the cut

with I_V(h -> y) = H(y) - min over f in V of CE(f(h), y), and Dec(x, y) the digits of `infojax.measures.usable.relabel`.
The inner minima make it a game: digit decoders learn the digits, the encoder counteracts them, and max(0, .) applies
where they do worse than the digits' frequencies.

References:
  Dubois, Kiela, Schwab, Vedantam 2020, whose beta weights the other term: 1 / beta here. Cheong 2025, eq. 1.5.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from infojax.objectives.contract import Aux, Batches, Constants, Context, Metrics, Net, State, View
from infojax.objectives.nets import Nets, descend
from infojax.objectives.objective import Objective, objective

RESET = 1  # folded into a step's key, for the parameters of new digit decoders


@objective
class Bottleneck(Objective):
    """max(0, H(digits) - CE_digits) - beta (H(y) - CE_y) in nats, the first a mean over digits; nets "net", "digits".

    A step: new digit decoders if due; `inner` steps of theirs, by the optimiser "decoders", on the encoded batch; one
    step of the net, by "main", against them.

    Attributes:
      beta: weight of the labels.
      lr_scale: factor of the net's learning rate.
      layer: stage of the net after which it is cut.
      inner: steps of the digit decoders before each one of the net, on the same batch, as in the authors' code (5):
        they respond to the current encoder, and the batch is encoded once. Small batches are memorised.
      reset_every: steps after which the digit decoders and their optimiser are reset; 0: never.
      transform: of the training samples; batch_size: samples per step, or "all".
    """

    beta: float = 1.0
    lr_scale: float = 1.0
    layer: str = "layer2"
    inner: int = 5
    reset_every: int = 0
    transform: str = "plain"
    batch_size: int | str = 64

    @property
    def views(self) -> tuple[View, ...]:
        return (View("train", (self.transform,), self.batch_size),)

    def optimise(
        self,
        state: State,
        constants: Constants,
        batch: Batches,
        draws: Any,
        key: jax.Array,
        ctx: Context,
    ) -> tuple[State, Metrics]:
        """constants["entropies"]: {"labels": (), "digits": (N_D,)} in nats; the samples' extra "digits" is (n, N_D)."""
        state = self.fresh(state, key, ctx)
        h = self.encode(Nets(state, constants, key, ctx), batch)

        def decoding(nets, state, constants, batch, draws, ctx):
            return jnp.mean(read(nets, h, batch["train"].extra["digits"])), Aux()

        for _ in range(self.inner):
            state, _ = descend(decoding, state, constants, batch, draws, key, ctx, optimizer="decoders")
        return descend(self.loss, state, constants, batch, draws, key, ctx, scale=self.lr_scale)

    def fresh(self, state: State, key: jax.Array, ctx: Context) -> State:
        """The state, with new digit decoders at every `reset_every`-th step after the first."""
        if not self.reset_every:
            return state

        def anew(state):
            digits, model_state = ctx.nets["digits"].init(jax.random.fold_in(key, RESET))
            params, decoders = state.params | {"digits": digits}, ctx.optimizers["decoders"]
            return state._replace(
                params=params,
                model_state=state.model_state | {"digits": model_state},
                opt_state=state.opt_state | {"decoders": decoders.tx.init(decoders.of(params))},
            )

        return jax.lax.cond((state.step > 0) & (state.step % self.reset_every == 0), anew, lambda state: state, state)

    def encode(self, nets: Nets, batch: Batches) -> jax.Array:
        """The output of stage `layer` for the batch, (n, ...): what the decoders read."""
        return nets("net", batch["train"].views[self.transform], stop=self.layer)

    def loss(
        self,
        nets: Nets,
        state: State,
        constants: Constants,
        batch: Batches,
        draws: Any,
        ctx: Context,
    ) -> tuple[jax.Array, Aux]:
        labels, digits, entropy = batch["train"].labels, batch["train"].extra["digits"], constants["entropies"]
        h = self.encode(nets, batch)
        output = nets("net", h, start=self.layer)
        cross_entropy = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(output.logits, labels))
        losses = read(nets, h, digits, update_statistics=False)

        sufficiency, minimality = entropy["labels"] - cross_entropy, entropy["digits"] - losses
        value = jnp.mean(jnp.maximum(minimality, 0)) - self.beta * sufficiency
        metrics = {
            "cross_entropy": cross_entropy,
            "accuracy": jnp.mean(jnp.argmax(output.logits, -1) == labels),
            "sufficiency": sufficiency / math.log(2),
            "minimality": jnp.mean(minimality) / math.log(2),
        }
        return value, Aux(metrics=metrics)


def read(nets: Nets, h: jax.Array, digits: jax.Array, update_statistics: bool = True) -> jax.Array:
    """Cross-entropy of each digit decoder on a batch, (N_D,) nats."""
    output = nets("digits", h, update_statistics=update_statistics)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(output.logits, digits.T), axis=1)


def copies(net: Net, count: int) -> Net:
    """A `Net` of `count` copies of one net with their own parameters: everything of theirs has a leading axis."""

    def apply(params, model_state, *inputs, train, **options):
        one = lambda params, model_state: net.apply(params, model_state, *inputs, train=train, **options)  # noqa: E731
        return jax.vmap(one)(params, model_state)

    return Net(lambda key: jax.vmap(net.init)(jax.random.split(key, count)), apply)
