"""Networks bound to their variables, and an optimiser step on a loss of them."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from infojax.objectives.contract import Aux, Batches, Constants, Context, Head, Metrics, State


class Nets:
    """The networks of a step, called by name: `nets("net", x)`.

    Trained nets, frozen ones and averages (`nets.averaged("ema")`) are called alike. New batch statistics are
    collected here, and the step stores them once. Every call has its own dropout key. Calls inside a transformation by
    the method itself (jax.grad with respect to the input, jax.vmap) pass update_statistics=False: statistics cannot
    leave it.
    """

    def __init__(self, state: State, constants: Constants, key: jax.Array, ctx: Context) -> None:
        self._params, self._averages = state.params, state.averages
        self._frozen = constants["frozen"] if ctx.frozen else {}
        self._ctx, self._key, self._calls = ctx, key, 0
        self.statistics = dict(state.model_state)  # model_state after the calls so far

    def __call__(
        self,
        name: str,
        *inputs: Any,
        train: bool | None = None,
        update_statistics: bool = True,
        start: str | None = None,
        stop: str | None = None,
    ) -> Any:
        """The output of a net.

        Args:
          name: of the net; inputs: what it takes.
          train: statistics of the batch (True), or the running ones; by default True for nets that are trained.
          update_statistics: whether the running statistics follow this batch.
          start, stop: features between which the net is cut, see `Net`.
        """
        if name in self._ctx.frozen:
            params, statistics = self._frozen[name]
            return self._apply(name, params, statistics, inputs, bool(train), start, stop)[0]
        train = True if train is None else train
        output, found = self._apply(name, self._params[name], self.statistics[name], inputs, train, start, stop)
        if update_statistics:
            self.statistics[name] = found
        return output

    def _apply(self, name, params, statistics, inputs, train, start, stop):
        rngs = {"dropout": jax.random.fold_in(self._key, self._calls)}
        self._calls += 1
        apply = self._ctx.nets[name].apply
        return apply(params, statistics, *inputs, train=train, rngs=rngs, start=start, stop=stop)

    def head(self, name: str = "net") -> Head:
        """`Head` of a net's classifier.

        Raises:
          ValueError: the net has none.
        """
        params = self._frozen[name][0] if name in self._ctx.frozen else self._params[name]
        found = self._ctx.nets[name].head
        head = found(params) if found else None
        if head is None:
            raise ValueError(f"the net {name!r} has no classifier head")
        return head

    def averaged(self, average: str) -> "_Averaged":
        """The nets of an `Average`, called like these; no gradient reaches them."""
        return _Averaged(self, average)


class _Averaged:
    """The nets of one average."""

    def __init__(self, nets, average):
        if average not in nets._averages:
            raise ValueError(f"there is no average {average!r}; there is {', '.join(nets._averages) or 'none'}")
        self._nets, self._name = nets, average

    def __call__(self, name, *inputs, train=True, update_statistics=True, start=None, stop=None):
        nets, params, own = self._nets, self._of(name), f"{self._name}/{name}"
        place = own if own in nets.statistics else name
        statistics = jax.lax.stop_gradient(nets.statistics[place])
        output, found = nets._apply(name, params, statistics, inputs, train, start, stop)
        if update_statistics and place == own:
            nets.statistics[own] = found
        return jax.lax.stop_gradient(output)

    def head(self, name="net"):
        """`Head` of the averaged classifier."""
        return self._nets._ctx.nets[name].head(self._of(name))

    def _of(self, name):
        params = self._nets._averages[self._name]
        if name not in params:
            raise ValueError(f"the average {self._name!r} has no net {name!r}, but {', '.join(params)}")
        return jax.lax.stop_gradient(params[name])


def descend(
    loss: Callable[..., tuple[jax.Array, Aux]],
    state: State,
    constants: Constants,
    batch: Batches,
    draws: Any,
    key: jax.Array,
    ctx: Context,
    *,
    optimizer: str = "main",
    scale: float | jax.Array = 1.0,
) -> tuple[State, Metrics]:
    """State after one step of an optimiser on `loss`, and the metrics: the loss's own, its value and gradient norm.

    Only the parameters of the optimiser's nets are differentiated and changed. `Objective.update` increments `step`.

    Args:
      loss: (nets, state, constants, batch, draws, ctx) -> (scalar, `Aux`).
      optimizer: its name in the context.
      scale: factor of the parameter update. The optimisers of `infojax.train.optim` have no learning rate in their
        state, so that it scales the learning rate.
    """
    chosen = ctx.optimizers[optimizer]
    own = chosen.of(state.params)

    def value_of(own):
        nets = Nets(state._replace(params=state.params | own), constants, key, ctx)
        value, aux = loss(nets, state, constants, batch, draws, ctx)
        return value, (aux, nets.statistics)

    (value, (aux, statistics)), gradients = jax.value_and_grad(value_of, has_aux=True)(own)
    changes, opt_state = chosen.tx.update(gradients, state.opt_state[optimizer], own)
    own = optax.apply_updates(own, jax.tree.map(lambda change: scale * change, changes))
    state = state._replace(
        params=state.params | own,
        model_state=statistics,
        opt_state=state.opt_state | {optimizer: opt_state},
        method=state.method if aux.method is None else aux.method,
    )
    return state, {"loss": value, "grad_norm": optax.tree.norm(gradients), **aux.metrics}
