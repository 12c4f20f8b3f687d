"""Objectives: which samples a step draws, what it minimises, and what evaluators see.

One contract for every method: supervised, semi-supervised, self-supervised, prompts on frozen towers, decoders. Most
methods write `views` and `loss` alone; one with several optimiser steps (Meta Pseudo Labels) writes `optimise`.
"""

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import optax

from infojax.objectives.contract import (
    Aux,
    Average,
    Batches,
    Constants,
    Context,
    Metrics,
    Model,
    Net,
    Seeds,
    State,
    View,
    stream,
)
from infojax.objectives.nets import descend

T = TypeVar("T")
Part = TypeVar("Part", bound=Any)


@dataclass_transform(frozen_default=True)
def objective(cls: type[T]) -> type[T]:
    """Makes a class a frozen dataclass and a pytree.

    Fields annotated `float` or `jax.Array` are leaves, which may differ between the runs of one program: floats can be
    swept. Fields that are dataclasses or objectives themselves, such as `InformationTerm`, are parts with leaves of
    their own. Everything else is static.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]  # it is one at this point
    children = [field.name for field in fields if field.type in (float, jax.Array) or is_part(field)]
    static = [field.name for field in fields if field.name not in children]
    return jax.tree_util.register_dataclass(cls, data_fields=children, meta_fields=static)


def is_part(field: dataclasses.Field) -> bool:
    """Whether a field of an objective holds a dataclass or an objective."""
    return dataclasses.is_dataclass(field.type) or field.type is Objective


class Objective:
    """Base of all objectives; subclasses are decorated with `objective`.

    Each has `loss(nets, state, constants, batch, draws, ctx)`, which returns the scalar to minimise and `Aux`, or its
    own `optimise`. `nets` are the networks bound to their variables (`Nets`), `batch` has a `Batch` per view.

    Class attributes, fields or properties:
      views: what a step draws.
      averages: name -> `Average`.
      lr_scale: factor of every parameter update; a field of the objectives whose learning rate is swept.
    """

    views: tuple[View, ...] = ()
    averages: Mapping[str, Average] = {}
    lr_scale = 1.0
    loss: Callable[..., tuple[jax.Array, Aux]]

    def __post_init__(self):
        """Raises ValueError if two arrays of a batch would have the same name."""
        keys = [view.key for view in self.views]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"two views are called {key!r}; give one of them a name of its own, View(..., name=)")
        for view in self.views:
            if len(view.named) < len(view.transforms):
                raise ValueError(
                    f"the view {view.key!r} has a transform twice, {view.transforms}; name both, as "
                    '{"weak1": "weak", "weak2": "weak"}'
                )

    def init(self, key: jax.Array, ctx: Context) -> Any:
        """The method's own state at step 0, a pytree of arrays, by default none."""
        return ()

    def draws(self, key: jax.Array, batch: Batches, ctx: Context) -> Any:
        """Arrays (a pytree) that the method draws besides its views: mixing coefficients, masks, directions."""
        return ()

    def update(
        self,
        state: State,
        constants: Constants,
        batch: Batches,
        key: jax.Array,
        ctx: Context,
        draws: Any = None,
    ) -> tuple[State, Metrics]:
        """One step, and its metrics: draw, optimise, count the step, move the averages.

        Args:
          draws: recorded draws to replay; by default they are drawn from the key.
        """
        draws = self.draws(key, batch, ctx) if draws is None else draws
        state, metrics = self.optimise(state, constants, batch, draws, key, ctx)
        return move_averages(self.averages, state._replace(step=state.step + 1)), metrics

    def optimise(
        self,
        state: State,
        constants: Constants,
        batch: Batches,
        draws: Any,
        key: jax.Array,
        ctx: Context,
    ) -> tuple[State, Metrics]:
        """The state after descending on `loss` with the optimiser "main", its step not yet counted, and 0-d metrics."""
        return descend(self.loss, state, constants, batch, draws, key, ctx, scale=self.lr_scale)

    def finished(self, state: State) -> bool | jax.Array:
        """Whether further steps change nothing but `step`: a scalar, or (runs,)."""
        return False

    def network(self, ctx: Context) -> Net:
        """The `Net` that evaluators look at."""
        return ctx.nets["net"]

    def evaluated(self, state: State, constants: Constants, ctx: Context) -> dict[str, Model]:
        """Name -> `Model` that evaluators look at: "raw", and each average that is evaluated."""
        net = self.network(ctx)
        found = {"raw": Model(state.params["net"], state.model_state["net"], net)}
        for name, average in self.averages.items():
            if average.evaluated and "net" in average.nets:
                statistics = state.model_state[f"{name}/net" if average.statistics else "net"]
                found[name] = Model(state.averages[name]["net"], statistics, net)
        return found


def move_averages(averages: Mapping[str, Average], state: State) -> State:
    """mean <- decay mean + (1 - decay) params, with the parameters after the step; no debiasing."""
    moved = {}
    for name, average in averages.items():
        decay = average.decay(state.step) if callable(average.decay) else average.decay
        params = {net: state.params[net] for net in average.nets}
        moved[name] = optax.incremental_update(params, state.averages[name], 1 - decay)
    return state._replace(averages=state.averages | moved)


def init_state(objective: Objective, seeds: Seeds, ctx: Context) -> State:
    """State at step 0; parameters come from seeds.init alone, and those of a net do not depend on the other nets."""
    key = stream("init", seeds.init)
    variables = {name: net.init(named_key(key, name)) for name, net in ctx.nets.items() if name not in ctx.frozen}
    params, model_state = ({name: pair[i] for name, pair in variables.items()} for i in (0, 1))
    averages: dict[str, Any] = {}
    own_statistics: dict[str, Any] = {}
    for name, average in objective.averages.items():
        averages[name] = {net: params[net] for net in average.nets}
        if average.statistics:
            own_statistics |= {f"{name}/{net}": model_state[net] for net in average.nets}
    own = objective.init(named_key(key, "method"), ctx)
    # A step may donate every buffer: none of them may be in the state twice.
    averages, own_statistics, method = jax.tree.map(jnp.copy, (averages, own_statistics, own))
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state | own_statistics,
        opt_state={name: optimizer.tx.init(optimizer.of(params)) for name, optimizer in ctx.optimizers.items()},
        averages=averages,
        method=method,
    )


def named_key(key: jax.Array, name: str) -> jax.Array:
    """The key of a net by its name: adding a net leaves the others' parameters unchanged."""
    return jax.random.fold_in(key, 0 if name == "net" else zlib.crc32(name.encode()))


def flat_settings(part: Any) -> dict[str, Any]:
    """The fields of an objective with their values, its parts' alongside its own: what a config lists."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        found |= flat_settings(value) if is_part(field) else {field.name: value}
    return found


def float_settings(part: Any) -> list[str]:
    """Names of the fields of an objective and its parts that are floats, which can be swept."""
    inner = [float_settings(getattr(part, field.name)) for field in dataclasses.fields(part) if is_part(field)]
    return [field.name for field in dataclasses.fields(part) if field.type is float] + sum(inner, [])


def with_settings(part: Part, settings: Mapping[str, Any]) -> Part:
    """The objective with new values for some fields, by name, its own or those of a part.

    Raises:
      ValueError: no field has one of the names.
    """
    unknown = settings.keys() - flat_settings(part).keys()
    if unknown:
        raise ValueError(f"{type(part).__name__} has no {', '.join(sorted(unknown))}")
    changed = {}
    for field in dataclasses.fields(part):
        if is_part(field):
            inner = getattr(part, field.name)
            changed[field.name] = with_settings(inner, {k: settings[k] for k in flat_settings(inner) if k in settings})
        elif field.name in settings:
            changed[field.name] = settings[field.name]
    return dataclasses.replace(part, **changed)
