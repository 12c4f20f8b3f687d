"""Supervised learning: cross-entropy, with the papers' information terms."""

import jax.numpy as jnp
import optax

from infojax.objectives.contract import Aux, Average, Objective, View, objective
from infojax.objectives.regularizers import information_term


@objective
class Supervised(Objective):
    """mean CE(logits / temperature, labels) + strength * information term; net "net", source "train".

    Attributes:
      strength: lambda of the term.
      temperature: of the softmax that is trained; evaluation is of the logits as they are.
      label_smoothing: mass spread evenly over all classes.
      ema_decay: of the evaluated average of the parameters.
      term, to, normalise: see `information_term`.
      transform: of the training samples.
      batch_size: samples a step, or "all".
      replacement: samples are drawn independently, as TorchSSL does, instead of a permutation an epoch.
    """

    strength: float = 0.0
    temperature: float = 1.0
    label_smoothing: float = 0.0
    ema_decay: float = 0.999
    term: str = "off"
    to: str = "both"
    normalise: bool = False
    transform: str = "weak"
    batch_size: int | str = 64
    replacement: bool = False

    @property
    def views(self):
        return (View("train", (self.transform,), self.batch_size, replacement=self.replacement),)

    @property
    def averages(self):
        return {"ema": Average(("net",), self.ema_decay)}

    def loss(self, params, state, constants, batch, key, ctx):
        x, labels = batch["train"][self.transform], batch["train"]["labels"]
        output, model_state = ctx.nets["net"].apply(
            params["net"], state.model_state["net"], x, train=True, rngs={"dropout": key}
        )
        targets = optax.smooth_labels(jnp.eye(ctx.facts.num_classes)[labels], self.label_smoothing)
        cross_entropy = jnp.mean(optax.softmax_cross_entropy(output.logits / self.temperature, targets))
        metrics = {"cross_entropy": cross_entropy, "accuracy": jnp.mean(jnp.argmax(output.logits, -1) == labels)}
        value = cross_entropy
        if self.term != "off":
            head, _ = ctx.nets["net"].head(params["net"])
            features, labels = ctx.whole((output.embedding, labels))
            term, found = information_term(self.term, features, labels, head, to=self.to, normalise=self.normalise)
            value, metrics = value + self.strength * term, metrics | found
        return value, Aux({"net": model_state}, metrics=metrics)
