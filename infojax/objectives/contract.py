"""What an objective is: which views it asks for, and how a step changes the state.

One contract for every method: supervised, semi-supervised, self-supervised, prompts on frozen towers, decoders. Most
write `loss` alone; a method with several optimiser steps (MPL) writes `update`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Variables = Mapping[str, Any]


class Net(NamedTuple):
    """A network without its library; every tower, projector, predictor, decoder.

    Attributes:
      init: key -> (params, model_state).
      apply: (params, model_state, *inputs, train, rngs={}, start=None, stop=None) -> (output, new model_state); `start`
        and `stop` name features: the input is then the feature `start`, the result the feature `stop`.
      head: params -> (weights (C, D), bias (C,)) of the classifier, or None.
      of_batch: what it says of a sample depends on the batch around it, in evaluation too (f+, f-).
    """

    init: Callable
    apply: Callable
    head: Callable | None = None
    of_batch: bool = False


class Facts(NamedTuple):
    """Numbers of the run that a loss may need, all static."""

    num_classes: int
    total_steps: int
    label_counts: tuple[int, ...] = ()
    num_unlabelled: int = 0


class Context(NamedTuple):
    """What does not change during a run and is not an array: networks, optimisers, facts.

    Attributes:
      nets: name -> Net; those whose parameters are in State are trained, others are frozen in `constants`.
      tx: name -> optimiser; "main" is the one of `Objective.update`.
      map_matrices: maps a function over a batch of matrices: jax.vmap, or its sharded form on a mesh.
      whole: gathers what is split over a mesh. For what a Gram matrix is decomposed of: the compiler would otherwise
        split the solver itself, and move parts of the matrix at every turn.
    """

    nets: Mapping[str, Net]
    tx: Mapping[str, optax.GradientTransformation]
    facts: Facts
    map_matrices: Callable = jax.vmap
    whole: Callable = lambda tree: tree


class Seeds(NamedTuple):
    """Three sources of randomness that a study may vary one by one: parameters, order of samples, everything else.

    Attributes:
      init, order, noise: a seed each.
      trunk, fork: before step `fork`, order and noise are those of the seed `trunk`: runs that share init, trunk and
        fork are one run up to there.
    """

    init: Any = 0
    order: Any = 0
    noise: Any = 0
    trunk: Any = 0
    fork: Any = 0

    def at(self, step):
        """The seeds of a step, a traced number."""
        order, noise = (jnp.where(step < self.fork, self.trunk, own) for own in (self.order, self.noise))
        return self._replace(order=order, noise=noise)


def stream(name, seed):
    """The key of one of the `Seeds`: equal seeds of different streams have nothing in common."""
    return jax.random.fold_in(jax.random.key(seed), Seeds._fields.index(name))


class State(NamedTuple):
    """Arrays only: exactly what a checkpoint holds."""

    step: jax.Array
    params: dict[str, Any]
    model_state: dict[str, Any]
    opt_state: dict[str, Any]
    averages: dict[str, Any]
    method: Any = ()


class View(NamedTuple):
    """What a step takes from a source.

    Attributes:
      source: a key of the run's data.
      transforms: of each sample, by name; each gives one array of the batch.
      size: samples a step, over all devices; "all" takes the whole source in its order.
      index: also give the indices of the samples.
      replacement: draw independently, instead of a permutation an epoch.
    """

    source: str
    transforms: tuple[str, ...] = ("plain",)
    size: int | str = 64
    index: bool = False
    replacement: bool = False


class Aux(NamedTuple):
    """What a loss returns beside its value: new model_state, new method state, scalars to log."""

    model_state: dict[str, Any]
    method: Any = ()
    metrics: dict[str, jax.Array] = {}


class Average(NamedTuple):
    """An exponential moving average of the parameters of some nets.

    Attributes:
      nets: whose parameters are averaged.
      decay: a number, or step -> number.
    """

    nets: tuple[str, ...]
    decay: float | Callable = 0.999


def objective(cls):
    """Makes a class a frozen dataclass and a pytree: fields annotated `float` or `jax.Array` are leaves.

    Leaves may differ between the runs of one program: floats can be swept.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(cls)
    leaves = [field.name for field in fields if field.type in (float, "float", jax.Array, "jax.Array")]
    rest = [field.name for field in fields if field.name not in leaves]
    return jax.tree_util.register_dataclass(cls, data_fields=leaves, meta_fields=rest)


class Objective:
    """Base of all objectives; subclasses are decorated with `objective`.

    Each has `loss(params, state, constants, batch, key, ctx)`, which returns the scalar to minimise in params and
    `Aux`, or an `update` of its own.

    Class attributes or fields:
      views: what a step draws.
      averages: name -> Average; "ema" is evaluated beside the raw parameters.
    """

    views: tuple[View, ...] = ()
    averages: Mapping[str, Average] = {}
    lr_scale = 1.0  # factor of every change of the parameters; a field of the objectives whose learning rate is swept

    def init(self, key, ctx):
        """The method's own state at step 0."""
        return ()

    def update(self, state, constants, batch, key, ctx):
        """One step: descend on `loss` with the optimiser "main", then move the averages."""
        state, metrics = descend(self.loss, state, constants, batch, key, ctx, scale=self.lr_scale)
        return move_averages(self.averages, state), metrics

    def finished(self, state):
        """Whether further steps change nothing but `step`: a scalar, or (runs,)."""
        return False

    def evaluated(self, state):
        """Name -> (params, model_state) that evaluators look at; averages lend their parameters, not statistics."""
        raw = {"raw": (state.params, state.model_state)}
        means = {
            name: (state.params | state.averages[name], state.model_state)
            for name in self.averages
            if name in state.averages
        }
        return raw | means


def descend(loss, state, constants, batch, key, ctx, *, tx="main", scale=1.0):
    """State after one step of an optimiser on `loss`, and the metrics: the loss's own, its value and gradient norm.

    `scale` multiplies the change of the parameters; the optimisers of `infojax.train.optim` have no learning rate in
    their state, so that this is a factor of it.
    """
    (value, aux), gradients = jax.value_and_grad(loss, has_aux=True)(state.params, state, constants, batch, key, ctx)
    changes, opt_state = ctx.tx[tx].update(gradients, state.opt_state[tx], state.params)
    metrics = {"loss": value, "grad_norm": optax.tree.norm(gradients), **aux.metrics}
    state = state._replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, jax.tree.map(lambda change: scale * change, changes)),
        model_state=state.model_state | aux.model_state,
        opt_state=state.opt_state | {tx: opt_state},
        method=aux.method,
    )
    return state, metrics


def move_averages(averages, state):
    """mean <- decay mean + (1 - decay) params, of the parameters after the step; no debiasing."""
    moved = {}
    for name, (nets, decay) in averages.items():
        rate = 1 - (decay(state.step) if callable(decay) else decay)
        params = {net: state.params[net] for net in nets}
        moved[name] = optax.incremental_update(params, state.averages[name], rate)
    return state._replace(averages=state.averages | moved)


def init_state(objective, seeds, ctx, nets=None):
    """State at step 0.

    Args:
      seeds: `Seeds`; parameters come from seeds.init alone.
      nets: names of the trained nets; all by default.
    """
    key = stream("init", seeds.init)
    names = list(ctx.nets if nets is None else nets)
    variables = {name: ctx.nets[name].init(jax.random.fold_in(key, i)) for i, name in enumerate(names)}
    params = {name: found[0] for name, found in variables.items()}
    means = {name: {net: params[net] for net in average.nets} for name, average in objective.averages.items()}
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state={name: found[1] for name, found in variables.items()},
        opt_state={name: tx.init(params) for name, tx in ctx.tx.items()},
        averages=jax.tree.map(jnp.copy, means),  # not the parameters' own buffers: a step may donate both
        method=objective.init(jax.random.fold_in(key, len(names)), ctx),
    )
