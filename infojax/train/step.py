"""One step of any objective, and several runs of it in one program."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import jax
import jax.numpy as jnp

from infojax.objectives import Context, stream
from infojax.train.draw import Fed, draw

STEP_NOISE = 1 << 20  # keys of the loss, apart from those of the views, which are numbered from 0
HOW = {
    "vmap": "one program of all runs: for accelerators, and for networks of matrix products",
    "unroll": "one program with the runs one after the other",
    "loop": "a loop in one program, with the memory of one run",
    "dispatch": "the compiled step of one run, called for each: for convolutions on a CPU",
}


@dataclass(frozen=True, eq=False)
class Step:
    """A step of one run or of several: (objective, state, constants, seeds, fed=None) -> (state, metrics).

    Attributes:
      update: the function; pure, unless the runs are dispatched.
      ctx: the `Context` of its networks and optimisers.
      how: a key of `HOW`, or "one" for a step of one run.
      of_run: with how="dispatch", the update of the run numbered `run`: (objective, state, ..., fed, run); else None.
    """

    update: Callable
    ctx: Context
    how: str = "one"
    of_run: Callable | None = None

    def __call__(
        self, objective: Any, state: Any, constants: Mapping[str, Any], seeds: Any, fed: Fed | None = None
    ) -> tuple[Any, dict[str, jax.Array]]:
        return self.update(objective, state, constants, seeds, fed)

    @cached_property
    def _jitted(self):
        return jax.jit(_replaced(self.of_run) if self.of_run else self.update, donate_argnums=1)

    @cached_property
    def _stacked(self):
        return jax.jit(stack)

    @cached_property
    def _repeated(self):
        return cache(lambda count: jax.jit(_repeated(self.update, count), donate_argnums=1))

    def compiled(self, count: int = 1) -> Callable[..., tuple[Any, dict[str, jax.Array]]]:
        """The step, or `count` of them in one device call, compiled; it donates the state.

        Returns:
          f(objective, state, constants, seeds, fed) -> (state, metrics), of several runs with a leading axis (runs,).
        Raises:
          ValueError: several steps per call for dispatched runs.
        """
        if not self.of_run:
            return self._jitted if count == 1 else self._repeated(count)
        if count > 1:
            raise ValueError(f"runs that are dispatched take one step per call, not {count}")

        def each(objective, state, constants, seeds, fed=None):
            metrics = []
            for run in range(_count(seeds)):
                state, found = self._jitted(objective, state, constants, seeds, fed, run)
                metrics.append(found)
            return state, self._stacked(metrics)

        return each

    def check(
        self, objective: Any, state: Any, constants: Mapping[str, Any], seeds: Any, fed: Fed | None = None
    ) -> None:
        """Traces the step without computing anything; raises the error if shapes do not fit."""
        if self.of_run:
            jax.eval_shape(self.of_run, objective, state, constants, seeds, fed, 0)
        else:
            jax.eval_shape(self.update, objective, state, constants, seeds, fed)

    def flops(
        self, objective: Any, state: Any, constants: Mapping[str, Any], seeds: Any, fed: Fed | None = None
    ) -> float | None:
        """Floating-point operations of a step of all runs, as XLA counts them; None where it does not."""
        arguments = objective, state, constants, seeds, fed
        cost = self._jitted.lower(*arguments, *([0] if self.of_run else [])).cost_analysis()
        # XLA counts the body of a loop once.
        return cost.get("flops", 0.0) * (_count(seeds) if self.how in ("loop", "dispatch") else 1) if cost else None


def make_step(ctx: Context, transforms: Mapping[str, Callable[..., jax.Array]]) -> Step:
    """The `Step` of one run.

    constants["data"] holds the sources, constants["parts"] the rows of those that have a part for each run,
    constants["frozen"] the variables of frozen nets; whatever else it holds (cached encodings, entropies) is the
    objective's.

    Args:
      ctx: `Context`.
      transforms: name -> function of (key, samples as stored); the views name them.
    """

    def update(objective, state, constants, seeds, fed=None):
        seeds = seeds.at(state.step)
        parts = constants.get("parts", {})
        batch = draw(constants["data"], objective.views, transforms, seeds, state.step, fed, parts)
        key = jax.random.fold_in(jax.random.fold_in(stream("noise", seeds.noise), state.step), STEP_NOISE)
        return objective.update(state, constants, batch, key, ctx)

    return Step(update, ctx)


def map_runs(step: Step, how: str) -> Step:
    """The step for several runs at once: state, seeds and swept leaves of the objective have a leading axis of runs.

    A run with a NaN or Inf is frozen: it keeps its previous state (from which it retries the same step in vain), its
    metrics are marked `frozen`, and the other runs continue.

    Args:
      step: from `make_step`.
      how: a key of `HOW`. On a CPU convolutions are 10 to 200 times slower inside vmap or a loop than outside, and
        take a compilation per run when unrolled: dispatch them.
    """
    if how not in HOW:
        raise ValueError(f"how must be one of {', '.join(HOW)}; got {how!r}")
    guarded = _frozen_where_not_finite(step.update)

    def one(objective, state, constants, seeds, fed, run):
        state, seeds, fed = pick((state, seeds, fed), run)
        return guarded(swept(objective, run), state, constants, seeds, fed)

    def runs(objective, state, constants, seeds, fed=None):
        if how == "vmap":
            axes = jax.tree.map(lambda leaf: 0 if jnp.ndim(leaf) else None, objective)
            return jax.vmap(guarded, in_axes=(axes, 0, None, 0, 0))(objective, state, constants, seeds, fed)
        arguments = objective, state, constants, seeds, fed
        if how == "loop":
            return jax.lax.map(lambda run: one(*arguments, run), jnp.arange(_count(seeds)))
        return stack([one(*arguments, run) for run in range(_count(seeds))])

    return Step(runs, step.ctx, how, one if how == "dispatch" else None)


def pick(tree: Any, run: int | jax.Array) -> Any:
    """The tree of one of several runs: leaf[run] of each leaf (runs, ...)."""
    return jax.tree.map(lambda leaf: leaf[run], tree)


def swept(objective: Any, run: int | jax.Array) -> Any:
    """The objective of one of several runs: leaf[run] of the swept leaves (runs,), the same number for the others."""
    return jax.tree.map(lambda leaf: leaf[run] if jnp.ndim(leaf) else leaf, objective)


def stack(trees: Sequence[Any]) -> Any:
    """Trees of several runs as one with a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *trees)


def all_finite(tree: Any) -> jax.Array:
    """Whether every number in a tree is finite, as a scalar."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def _frozen_where_not_finite(update):
    def guarded(objective, state, constants, seeds, fed=None):
        after, metrics = update(objective, state, constants, seeds, fed)
        checked = {name: metrics[name] for name in ("loss", "grad_norm") if name in metrics}
        fine = all_finite((after, checked))  # a ratio among the metrics may be 0 / 0
        if fed is not None:
            fine &= fed.step == state.step  # the rows belong to a different step from the one it would retry
        return jax.tree.map(lambda new, old: jnp.where(fine, new, old), after, state), metrics | {"frozen": ~fine}

    return guarded


def _replaced(of_run):
    """The update of one of several runs, written back into the state of all."""

    def replaced(objective, state, constants, seeds, fed, run):
        mine, metrics = of_run(objective, state, constants, seeds, fed, run)
        return jax.tree.map(lambda all_runs, leaf: all_runs.at[run].set(leaf), state, mine), metrics

    return replaced


def _repeated(update, count):
    """`count` updates in one program, and the metrics of the last."""

    def repeated(objective, state, constants, seeds, fed=None):
        def body(i, state):
            return update(objective, state, constants, seeds, pick(fed, i))[0]

        before = jax.lax.fori_loop(0, count - 1, body, state)
        return update(objective, before, constants, seeds, pick(fed, count - 1))

    return repeated


def _count(seeds):
    return len(jax.tree.leaves(seeds)[0])
