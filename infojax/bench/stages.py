"""Where the time of a training step goes: nested programs, each with one more part of the step than the one before.

Shares are differences of consecutive programs over the step, so that they sum to 1: a share is what the part adds to
the program, not what it takes in isolation. XLA fuses across the boundaries (the optimiser into the end of the backward
pass, the normalisation of a view into the first layer), and each program writes out what its last part computed, which
a longer one may never store: the cost of what is fused is in the share of either neighbour.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from infojax.commands import UsageError
from infojax.objectives import Batch, Context, Nets, Objective, Seeds, init_state, stream
from infojax.suggestions import suggest
from infojax.train.draw import draw
from infojax.train.step import make_step

# On a batch in memory up to the loss, its gradient, what the optimiser makes of it, and the averages of the parameters;
# then the whole step, which also draws the batch and makes its views.
STAGES = ("forward", "backward", "update", "average", "views")
ADVANCING = STAGES[2:]  # those that return a state, and donate the one they are given


def methods(only: str, known: Sequence[str]) -> Sequence[str]:
    """The methods of `--only A+B`; all of them if it is empty.

    Raises:
      UsageError: a name that is not known.
    """
    chosen = only.split("+") if only else known
    for name in chosen:
        if name not in known:
            raise UsageError(f"--only {only}: no method {name!r}{suggest(name, known)}")
    return chosen


def programs(method: Objective, ctx: Context, transforms: Mapping[str, Callable]) -> dict[str, Callable]:
    """Stage -> jitted function of (method, state, constants, batch), of which the last, the step, ignores the batch.

    A method whose step is not one descent on a `loss` (Meta Pseudo Labels) has no "forward" and no "backward": what
    they do is in "update".
    """
    step = make_step(ctx, transforms)

    def noise(state):
        return jax.random.fold_in(stream("noise", 0), state.step)

    def forward(method, state, constants, batch, params=None):
        params, key = state.params if params is None else params, noise(state)
        nets = Nets(state._replace(params=params), constants, key, ctx)
        value, aux = method.loss(nets, state, constants, batch, method.draws(key, batch, ctx), ctx)
        return value, (aux, nets.statistics)

    def backward(*given):
        return jax.value_and_grad(lambda params: forward(*given, params), has_aux=True)(given[1].params)

    def update(method, state, constants, batch):
        key = noise(state)
        return method.optimise(state, constants, batch, method.draws(key, batch, ctx), key, ctx)

    def average(method, state, constants, batch):
        return method.update(state, constants, batch, noise(state), ctx)

    def views(method, state, constants, batch):
        return step(method, state, constants, Seeds())

    found = dict(zip(STAGES, (forward, backward, update, average, views), strict=True))
    kept = STAGES if hasattr(method, "loss") else ADVANCING
    return {stage: jax.jit(found[stage], donate_argnums=1 if stage in ADVANCING else ()) for stage in kept}


def batch_of(method: Objective, transforms: Mapping[str, Callable], data: Mapping[str, Any]) -> dict[str, Batch]:
    """A batch of the shapes of the method's own, with normal numbers and labels 0, which compiles no view."""
    shapes = jax.eval_shape(lambda data: draw(data, method.views, transforms, Seeds(), 0), data)

    def filled(leaf):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return jax.random.normal(jax.random.key(0), leaf.shape, leaf.dtype)
        return jnp.zeros(leaf.shape, leaf.dtype)

    return jax.tree.map(filled, shapes)


def calls(compiled: Mapping[str, Callable], method: Objective, ctx: Context, *given: Any) -> dict[str, Callable]:
    """Stage -> a call of its program on (constants, batch) that waits for the result, and goes on from a new state."""
    shared = jax.jit(lambda: init_state(method, Seeds(), ctx))()

    def repeated(program):
        return lambda: jax.block_until_ready(program(method, shared, *given))

    def advancing(program):
        state = jax.tree.map(jnp.copy, shared)  # it is donated

        def call():
            nonlocal state
            state, _ = jax.block_until_ready(program(method, state, *given))

        return call

    return {stage: (advancing if stage in ADVANCING else repeated)(program) for stage, program in compiled.items()}


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
