"""The decodable information bottleneck: an encoder whose labels a decoder can read, and whose samples it cannot tell.

  min over encoders  I_V(h -> Dec(x, y)) - beta I_V(h -> y),    V = all parametrisations of what follows the cut

with I_V(h -> y) = H(y) - min over f in V of CE(f(h), y), and Dec(x, y) the digits of `infojax.measures.usable.relabel`.
The inner minima make it a game: digit decoders learn the digits, the encoder undoes them, max(0, .) where they know
less than the digits' frequencies.

References:
  Dubois, Kiela, Schwab, Vedantam 2020, whose beta weights the other term: 1 / beta here. Cheong 2025, eq. 1.5.
"""

import math

import jax
import jax.numpy as jnp
import optax

from infojax.objectives.contract import Aux, Net, Objective, View, descend, objective

STREAM = 1  # of keys: parameters of fresh decoders


@objective
class Bottleneck(Objective):
    """max(0, H(digits) - CE_digits) - beta (H(y) - CE_y) in nats, the first a mean over digits; nets "net", "digits".

    A step: fresh digit decoders if it is time; `inner` steps of theirs, by the optimiser "decoders", on the batch as
    the encoder gives it; one step of the net, by "main", against them. Optimisers made by `only` move their own alone.

    Attributes:
      beta: weight of the labels.
      lr_scale: factor of the net's learning rate.
      layer: stage of the net after which it is cut.
      inner: steps of the digit decoders before each of the net, on the same batch, as the authors' code has it (5):
        they answer the encoder as it is now, and it is encoded once. Small batches are learnt by heart.
      reset_every: steps after which the digit decoders and their optimiser begin anew; 0: never.
      transform: of the training samples; batch_size: samples a step, or "all".
    """

    beta: float = 1.0
    lr_scale: float = 1.0
    layer: str = "layer2"
    inner: int = 5
    reset_every: int = 0
    transform: str = "plain"
    batch_size: int | str = 64

    @property
    def views(self):
        return (View("train", (self.transform,), self.batch_size),)

    def update(self, state, constants, batch, key, ctx):
        """constants["entropies"]: {"labels": (), "digits": (N_D,)} in nats; batch["train"] has "digits", (n, N_D)."""
        step, state = state.step, self.fresh(state, key, ctx)
        h, _ = self.encode(state.params, state, batch, key, ctx)
        for _ in range(self.inner):
            state, _ = descend(self.decoding, state, constants, batch | {"h": h}, key, ctx, tx="decoders")
        state, metrics = descend(self.loss, state, constants, batch, key, ctx, scale=self.lr_scale)
        return state._replace(step=step + 1), metrics

    def fresh(self, state, key, ctx):
        """The state, with new digit decoders at every `reset_every`-th step after the first."""
        if not self.reset_every:
            return state

        def anew(state):
            digits, model_state = ctx.nets["digits"].init(jax.random.fold_in(key, STREAM))
            params = state.params | {"digits": digits}
            return state._replace(
                params=params,
                model_state=state.model_state | {"digits": model_state},
                opt_state=state.opt_state | {"decoders": ctx.tx["decoders"].init(params)},
            )

        return jax.lax.cond((state.step > 0) & (state.step % self.reset_every == 0), anew, lambda state: state, state)

    def encode(self, params, state, batch, key, ctx):
        x, rngs = batch["train"][self.transform], {"dropout": key}
        net = ctx.nets["net"]
        return net.apply(params["net"], state.model_state["net"], x, train=True, rngs=rngs, stop=self.layer)

    def decoding(self, params, state, constants, batch, key, ctx):
        """Mean cross-entropy of the digits, for their decoders."""
        losses, model_state = read(params["digits"], state, batch["h"], batch["train"]["digits"], key, ctx)
        return jnp.mean(losses), Aux({"digits": model_state})

    def loss(self, params, state, constants, batch, key, ctx):
        labels, digits, entropy = batch["train"]["labels"], batch["train"]["digits"], constants["entropies"]
        h, model_state = self.encode(params, state, batch, key, ctx)
        net, rngs = ctx.nets["net"], {"dropout": key}
        output, model_state = net.apply(params["net"], model_state, h, train=True, rngs=rngs, start=self.layer)
        cross_entropy = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(output.logits, labels))
        losses, _ = read(jax.lax.stop_gradient(params["digits"]), state, h, digits, key, ctx)

        sufficiency, minimality = entropy["labels"] - cross_entropy, entropy["digits"] - losses
        value = jnp.mean(jnp.maximum(minimality, 0)) - self.beta * sufficiency
        metrics = {
            "cross_entropy": cross_entropy,
            "accuracy": jnp.mean(jnp.argmax(output.logits, -1) == labels),
            "sufficiency": sufficiency / math.log(2),
            "minimality": jnp.mean(minimality) / math.log(2),
        }
        return value, Aux({"net": model_state}, metrics=metrics)


def read(params, state, h, digits, key, ctx):
    """Cross-entropy of each digit decoder on a batch, (N_D,) nats, and their model_state."""
    before, rngs = state.model_state["digits"], {"dropout": key}
    output, model_state = ctx.nets["digits"].apply(params, before, h, train=True, rngs=rngs)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(output.logits, digits.T), axis=1), model_state


def copies(net, count):
    """A `Net` of `count` of one net with parameters of their own: a leading axis of all that is theirs."""

    def apply(params, model_state, *inputs, train, **options):
        one = lambda params, model_state: net.apply(params, model_state, *inputs, train=train, **options)  # noqa: E731
        return jax.vmap(one)(params, model_state)

    return Net(lambda key: jax.vmap(net.init)(jax.random.split(key, count)), apply)


def only(tx, name, names=("net", "digits")):
    """An optimiser of the parameters of one net; the others' stay, whatever their gradients and decay are."""
    return optax.partition({True: tx, False: optax.set_to_zero()}, {other: other == name for other in names})
