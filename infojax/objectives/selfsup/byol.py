"""BYOL: the projection of one view predicts that of the other by a slow copy of the network."""

import jax
import jax.numpy as jnp

from infojax.objectives.contract import Aux, Average
from infojax.objectives.objective import objective
from infojax.objectives.selfsup.common import VIEWS, SelfSupervised, online, pair, unit


def byol(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """mean (2 - 2 cos(q, sg t)) of one ordering of the views, in [0, 4]; the loss is the sum over both.

    Args:
      prediction: (B, D) of the online network; target: (B, D) of the target network, without a gradient.
    Returns:
      Scalar.
    References:
      Grill et al. 2020, equation 2.
    """
    q, t = (unit(z) for z in pair(prediction, target))
    return jnp.mean(jnp.sum((q - jax.lax.stop_gradient(t)) ** 2, axis=1))


def momentum(base: float | jax.Array, step: int | jax.Array, total: int) -> jax.Array:
    """tau = 1 - (1 - base) (cos(pi k / K) + 1) / 2 of step k of K: from `base` to 1."""
    return 1 - (1 - base) * (jnp.cos(jnp.pi * step / total) + 1) / 2


@objective
class BYOL(SelfSupervised):
    """`byol`(q(z_1), z'_2) + `byol`(q(z_2), z'_1); nets "net", "projector", "predictor", average "target".

    The target has its own batch statistics, which its passes update; its parameters begin as a copy of the online
    network's (DeepMind's code draws them apart) and follow by tau(k) after update k.

    Attributes:
      target_decay: tau at the beginning.
      target_steps: K of `momentum`; 0 keeps tau as it is.
    """

    target_decay: float = 0.99
    target_steps: int = 0

    @property
    def averages(self):
        def decay(step):  # the number of updates made, one more than k
            return momentum(self.target_decay, step - 1, self.target_steps)

        return {"target": Average(("net", "projector"), decay if self.target_steps else self.target_decay, True)}

    def loss(self, nets, state, constants, batch, draws, ctx):
        views, target = batch["train"].views, nets.averaged("target")
        embeddings = [nets("net", views[view]).embedding for view in VIEWS]
        one, two = (nets("predictor", nets("projector", embedding)) for embedding in embeddings)
        aim1, aim2 = (target("projector", target("net", views[view]).embedding) for view in VIEWS)
        value = byol(one, aim2) + byol(two, aim1)
        linear, metrics = online(nets, ctx, embeddings[0], batch["train"].labels)
        return value + linear, Aux(metrics={"loss_method": value} | metrics)
