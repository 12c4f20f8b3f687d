"""OTMatch: FreeMatch with an optimal-transport loss whose costs follow the classifier's rows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from infojax.objectives.contract import Aux, State
from infojax.objectives.objective import objective
from infojax.objectives.semisup.common import masked
from infojax.objectives.semisup.freematch import Confidence, FreeMatch


class Transport(NamedTuple):
    """Method state of `OTMatch`: FreeMatch's, and the costs (C, C) between classes."""

    confidence: Confidence
    cost: jax.Array


@objective
class OTMatch(FreeMatch):
    """FreeMatch + transport mean 1[selected] sum_j cost(c, j) p_strong(j): the Wasserstein distance to one class.

    cost <- cost_decay cost + (1 - cost_decay) (1 - cos(W_i, W_j)), zero on the diagonal, beginning at 1 off it.

    The code is not public. Assumed: the form and start of the cost, its decay, and the weight (0.5 on CIFAR-10, 0.15 on
    CIFAR-100 and STL-10 as remembered, not read); the loss is masked as FreeMatch's is.

    References:
      Tan et al. 2024, "OTMatch: Improving Semi-Supervised Learning with Optimal Transport".
    """

    transport: float = 0.5
    cost_decay: float = 0.999

    def init(self, key, ctx):
        return Transport(super().init(key, ctx), 1 - jnp.eye(ctx.facts.num_classes))

    def selected(self, state: State, logits: jax.Array) -> jax.Array:
        return super().selected(state._replace(method=state.method.confidence), logits)

    def loss(self, nets, state, constants, batch, draws, ctx):
        rows = nets.head().weights
        unit = rows / jnp.sqrt(jnp.sum(rows**2, -1, keepdims=True) + 1e-12)
        angles = (1 - unit @ unit.T) * (1 - jnp.eye(len(rows)))
        cost = self.cost_decay * state.method.cost + (1 - self.cost_decay) * jax.lax.stop_gradient(angles)
        value, aux = super().loss(nets, state._replace(method=state.method.confidence), constants, batch, draws, ctx)
        strong, guess, mask = aux.output
        moved = masked(mask, jnp.sum(cost[guess] * jax.nn.softmax(strong.logits), -1))
        metrics = aux.metrics | {"transport_loss": moved}
        return value + self.transport * moved, Aux(Transport(aux.method, cost), metrics)
