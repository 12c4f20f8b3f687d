"""Supervised learning: cross-entropy, with the papers' information terms."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from infojax.measures.classification import cross_entropy
from infojax.objectives.contract import Aux, Average, Batches, Constants, Context, State, View
from infojax.objectives.mixing import Mixing
from infojax.objectives.nets import Nets
from infojax.objectives.objective import Objective, objective
from infojax.objectives.regularizers import InformationTerm

LOG_SOFTMAX = ("float32", "float64")


@objective
class Supervised(Objective):
    """mean CE(logits / temperature, labels) + information term; net "net", source "train".

    Attributes:
      information: the papers' term between the embedding and the head.
      temperature: of the softmax in training; evaluation uses the logits as they are.
      label_smoothing: mass spread evenly over all classes.
      ema_decay: of the evaluated average of the parameters.
      mix: mixup and CutMix of the training images and labels; not with the information term.
      lr_scale: factor of the learning rate.
      log_softmax: "float32", whose gradient rounds to nothing or to noise where the loss is below 1e-7 ("slingshots" of
        grokking), or "float64": as exact as a float64 log-softmax, `infojax.measures.classification.cross_entropy`.
      transform: of the training samples.
      batch_size: samples per step, or "all".
      replacement: samples are drawn independently, as TorchSSL does, instead of one permutation per epoch.
    """

    information: InformationTerm = InformationTerm()
    temperature: float = 1.0
    label_smoothing: float = 0.0
    ema_decay: float = 0.999
    mix: Mixing = Mixing()
    lr_scale: float = 1.0
    log_softmax: str = "float32"
    transform: str = "weak"
    batch_size: int | str = 64
    replacement: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.mix.mixing != "off" and self.information.term != "off":
            raise ValueError(
                f"mixing is {self.mix.mixing}: mixed samples have no label for the term; turn one of them off"
            )

    @property
    def views(self) -> tuple[View, ...]:
        return (View("train", (self.transform,), self.batch_size, replacement=self.replacement),)

    @property
    def averages(self) -> Mapping[str, Average]:
        return {"ema": Average(("net",), self.ema_decay)}

    def draws(self, key: jax.Array, batch: Batches, ctx: Context) -> Any:
        return () if self.mix.mixing == "off" else self.mix.draw(key)

    def cross_entropy(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """(N,) with smoothed labels."""
        if self.log_softmax == "float64":
            own = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
            return cross_entropy(logits, labels) + self.label_smoothing * (own - jnp.mean(logits, axis=1))
        targets = optax.smooth_labels(jnp.eye(logits.shape[1])[labels], self.label_smoothing)
        return optax.softmax_cross_entropy(logits, targets)

    def loss(
        self,
        nets: Nets,
        state: State,
        constants: Constants,
        batch: Batches,
        draws: Any,
        ctx: Context,
    ) -> tuple[jax.Array, Aux]:
        labels = batch["train"].labels
        x, share = batch["train"].views[self.transform], 1.0
        if self.mix.mixing != "off":
            x, share = self.mix(x, draws)
        output = nets("net", x)
        value = jnp.mean(self.cross_entropy(output.logits / self.temperature, labels))
        if self.mix.mixing != "off":
            other = jnp.mean(self.cross_entropy(output.logits / self.temperature, labels[::-1]))
            value = share * value + (1 - share) * other
        metrics = {"cross_entropy": value, "accuracy": jnp.mean(jnp.argmax(output.logits, -1) == labels)}
        if self.information.term != "off":
            term, found = self.information(output.embedding, labels, nets.head(), ctx)
            value, metrics = value + term, metrics | found
        return value, Aux(metrics=metrics, output=output)
