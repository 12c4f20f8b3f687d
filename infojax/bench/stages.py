"""Where the time of a training step goes: nested programs, each with one more part of the step than the one before.

Shares are differences of consecutive programs over the step, so that they sum to 1: a share is what the part adds to
the program, not what it takes in isolation. XLA fuses across the boundaries (the optimiser into the end of the backward
pass, the normalisation of a view into the first layer), and each program writes out what its last part computed, which
a longer one may never store: the cost of what is fused is in the share of either neighbour.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from infojax.objectives import Aux, Context, Nets, Objective, Seeds, View, init_state
from infojax.train.step import make_step

STAGES = ("views", "forward", "backward", "update", "average")


class Until(NamedTuple):
    """A method whose step ends at a stage, and returns what it has computed by then.

    "views" draws and transforms the batch, "forward" goes on to the loss, "backward" to its gradient, "update" to what
    the optimiser makes of it, and "average" moves the averaged parameters: it is the whole step.
    """

    method: Objective
    stage: str

    @property
    def views(self) -> tuple[View, ...]:
        return self.method.views

    def update(self, state: Any, constants: Any, batch: Any, key: jax.Array, ctx: Context) -> Any:
        """As of `Objective`, up to the stage."""
        if self.stage == "views":
            return batch
        if self.stage == "average":
            return self.method.update(state, constants, batch, key, ctx)
        draws = self.method.draws(key, batch, ctx)
        if self.stage == "update":
            return self.method.optimise(state, constants, batch, draws, key, ctx)

        def loss(params: Any) -> tuple[jax.Array, tuple[Aux, Any]]:
            nets = Nets(state._replace(params=params), constants, key, ctx)
            value, aux = self.method.loss(nets, state, constants, batch, draws, ctx)
            return value, (aux, nets.statistics)

        return (loss if self.stage == "forward" else jax.value_and_grad(loss, has_aux=True))(state.params)


def programs(
    method: Objective, ctx: Context, transforms: Mapping[str, Callable], stages: Sequence[str] = STAGES
) -> dict[str, Callable]:
    """Stage -> jitted function of (method, state, constants); the last two donate the state and return the new one.

    A method whose step is not one descent on a `loss` (Meta Pseudo Labels) has no "forward" and no "backward": what
    they do is in "update".
    """
    step, whole = make_step(ctx, transforms), hasattr(method, "loss")

    def until(stage):
        donated = {"donate_argnums": 1} if stage in ("update", "average") else {}
        return jax.jit(lambda method, *given: step(Until(method, stage), *given, Seeds()), **donated)

    return {stage: until(stage) for stage in stages if whole or stage not in ("forward", "backward")}


def calls(
    compiled: Mapping[str, Callable], method: Objective, ctx: Context, constants: Mapping[str, Any]
) -> dict[str, Callable[[], Any]]:
    """Stage -> a call of its program that waits for the result; those that return a state go on from it."""
    shared = init_state(method, Seeds(), ctx)

    def repeated(program):
        return lambda: jax.block_until_ready(program(method, shared, constants))

    def advancing(program):
        state = init_state(method, Seeds(), ctx)

        def call():
            nonlocal state
            state, _ = jax.block_until_ready(program(method, state, constants))

        return call

    return {
        stage: (advancing if stage in ("update", "average") else repeated)(program)
        for stage, program in compiled.items()
    }


def interleaved(
    calls: Mapping[str, Callable[[], Any]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each of `repeats` rounds, in which all calls take their turn, after one warm-up round.

    What slows the machine down for a while slows all of them down, and not one.
    """
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            begun = clock()
            call()
            seconds[name].append(clock() - begun)
    return seconds


def shares(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """{stage}_share of nested programs, the last of which is the step: differences of medians over the last median.

    A program that took longer than one with more parts counts as long as that one: the part in between has share 0,
    and the shares still sum to 1. "noise_share" is the largest such excess, of noise or of fusion: smaller differences
    of shares say nothing.
    """
    medians = [statistics.median(seconds[stage]) for stage in seconds]
    bounded = [min(medians[i:]) for i in range(len(medians))]
    step, before = medians[-1], [0.0, *bounded]
    found = {f"{stage}_share": (t - s) / step for stage, s, t in zip(seconds, before, bounded, strict=False)}
    return found | {"noise_share": max(t - s for s, t in zip(bounded, medians, strict=True)) / step}
