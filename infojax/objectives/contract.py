"""The values that pass between an objective, its networks, its optimisers and the engine."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

# Inputs of objectives besides their state: "frozen" and whatever the method needs; a `Batch` for each view by its key.
Constants: TypeAlias = Mapping[str, Any]
Batches: TypeAlias = "Mapping[str, Batch]"
Metrics: TypeAlias = dict[str, jax.Array]


class Head(NamedTuple):
    """A linear classifier: weights (C, D), one row per class, and bias (C,)."""

    weights: jax.Array
    bias: jax.Array


class Net(NamedTuple):
    """A network independent of its library; every tower, projector, predictor and decoder is one.

    Attributes:
      init: key -> (params, model_state).
      apply: (params, model_state, *inputs, train, rngs={}, start=None, stop=None) -> (output, new model_state). `start`
        and `stop` name features: the input is then the feature `start`, the result the feature `stop`.
      head: params -> `Head` of the classifier; None for a network without one.
      of_batch: whether the output for a sample depends on the rest of its batch in evaluation too (f+, f-).
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


class Optimizer(NamedTuple):
    """An optax transformation and the names of the nets whose parameters it updates; () for all trained nets."""

    tx: optax.GradientTransformation
    nets: tuple[str, ...] = ()

    def of(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The parameters that this optimiser changes, net by net."""
        return {name: params[name] for name in self.nets} if self.nets else params


class Context(NamedTuple):
    """What does not change during a run and is not an array.

    Attributes:
      nets: name -> `Net`.
      optimizers: name -> `Optimizer`; "main" is the one that `Objective.optimise` uses.
      facts: `Facts`.
      frozen: names of the nets that are not trained; constants["frozen"][name] holds their (params, model_state).
      map_matrices: maps a function over a batch of matrices: jax.vmap, or its sharded form on a mesh.
      gather: gathers arrays split over a mesh. Needed before a Gram matrix is decomposed: the compiler would otherwise
        split the solver itself, and move parts of the matrix at every iteration.
      split: splits arrays along their leading axis over a mesh: work that does not begin with the batch, such as the
        prompts of all classes, which every device would otherwise do alike.
    """

    nets: Mapping[str, Net]
    optimizers: Mapping[str, Optimizer]
    facts: Facts
    frozen: tuple[str, ...] = ()
    map_matrices: Callable = jax.vmap
    gather: Callable = lambda tree: tree
    split: Callable = lambda tree: tree


class Seeds(NamedTuple):
    """Three sources of randomness that a study may vary one by one: parameters, order of samples, everything else.

    Attributes:
      init, order, noise: one seed each.
      trunk, fork: before step `fork`, order and noise are those of the seed `trunk`: runs that share init, trunk and
        fork are identical up to that step.
      part: which part of a source that has several (a labelled draw for each run) the run takes, from 0 on.
    """

    init: Any = 0
    order: Any = 0
    noise: Any = 0
    trunk: Any = 0
    fork: Any = 0
    part: Any = 0

    def at(self, step: jax.Array) -> "Seeds":
        """The seeds of a step, a traced number."""
        order, noise = (jnp.where(step < self.fork, self.trunk, own) for own in (self.order, self.noise))
        return self._replace(order=order, noise=noise)


def stream(name: str, seed: int | jax.Array) -> jax.Array:
    """The key of one of the `Seeds`: equal seeds of different streams give keys that have nothing in common."""
    return jax.random.fold_in(jax.random.key(seed), Seeds._fields.index(name))


class State(NamedTuple):
    """Arrays only: exactly what a checkpoint holds.

    Attributes:
      step: number of updates made.
      params, model_state: net -> its parameters, and its batch statistics. Batch statistics of an average's own are in
        model_state["AVERAGE/NET"].
      opt_state: optimiser -> its state.
      averages: average -> net -> parameters.
      method: the objective's own state.
    """

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
      transforms: name in the batch -> name of a transform of each sample. A tuple of transforms gives each its own
        name; two applications of one transform need two names, as in {"weak1": "weak", "weak2": "weak"}.
      size: samples per step, over all devices; "all" takes the whole source in order.
      name: of this view in the batch; by default that of the source.
      replacement: draw the samples independently, instead of one permutation per epoch.
    """

    source: str
    transforms: tuple[str, ...] | Mapping[str, str] = ("plain",)
    size: int | str = 64
    name: str = ""
    replacement: bool = False

    @property
    def key(self) -> str:
        """Its key in the batch."""
        return self.name or self.source

    @property
    def named(self) -> Mapping[str, str]:
        """Name in the batch -> transform."""
        return self.transforms if isinstance(self.transforms, Mapping) else {name: name for name in self.transforms}


class Batch(NamedTuple):
    """The samples of one `View`.

    Attributes:
      views: name -> transformed samples (n, ...).
      labels: (n,).
      index: (n,) of the samples in their source.
      extra: whatever else the source has per sample, such as the digits of the information bottleneck.
    """

    views: dict[str, jax.Array]
    labels: jax.Array
    index: jax.Array  # type: ignore[assignment]  # shadows tuple.index, which is not needed
    extra: dict[str, jax.Array] = {}


class Aux(NamedTuple):
    """What a loss returns besides its value; what it omits stays unchanged.

    Attributes:
      method: the objective's own state after the step; None leaves it unchanged.
      metrics: name -> scalar to log.
      output: what the loss computed, for objectives that wrap or extend it: for `Supervised`, the network's `Output`.
    """

    method: Any = None
    metrics: dict[str, jax.Array] = {}
    output: Any = None


class Average(NamedTuple):
    """An exponential moving average of the parameters of some nets.

    Attributes:
      nets: names of the nets whose parameters are averaged.
      decay: a number, or step -> number.
      statistics: whether the average has its own batch statistics, updated by its training-mode calls (BYOL's
        target); otherwise it uses those of the nets (an EMA of the classifier).
      evaluated: whether evaluators see it besides the raw parameters.
    """

    nets: tuple[str, ...]
    decay: float | Callable = 0.999
    statistics: bool = False
    evaluated: bool = True


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Model:
    """A network at fixed weights, as evaluators see it.

    Attributes:
      params, model_state: of `net`.
      net: the `Net` that is evaluated.
      extra: other arrays of the run that an evaluator reads, such as class moments gathered while training.
    """

    params: Any
    model_state: Any
    net: Net = dataclasses.field(metadata={"static": True})
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __call__(self, *inputs: Any, stop: str | None = None) -> Any:
        """The output in evaluation mode, or the feature `stop`."""
        return self.net.apply(self.params, self.model_state, *inputs, train=False, stop=stop)[0]

    @property
    def head(self) -> Head | None:
        """`Head` of the classifier, or None."""
        return self.net.head(self.params) if self.net.head else None
