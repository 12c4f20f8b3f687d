"""One step of any objective, and several runs of it in one program."""

import jax
import jax.numpy as jnp

from infojax.objectives.contract import stream
from infojax.train.draw import draw

STEP_NOISE = 1 << 20  # keys of the loss, apart from those of the views, which are numbered from 0
HOW = ("vmap", "unroll", "loop", "dispatch")


def make_step(ctx, transforms):
    """step(objective, state, constants, seeds, fed=None) -> (state, metrics), a pure function to be jitted.

    constants["data"] holds the sources; whatever else it holds (frozen towers, cached encodings) is the objective's.
    """

    def step(objective, state, constants, seeds, fed=None):
        seeds = seeds.at(state.step)
        batch = draw(constants["data"], objective.views, transforms, seeds, state.step, fed)
        key = jax.random.fold_in(jax.random.fold_in(stream("noise", seeds.noise), state.step), STEP_NOISE)
        return objective.update(state, constants, batch, key, ctx)

    return step


def map_runs(step, how):
    """The step for several runs at once: state, seeds and swept leaves of the objective have a leading axis of runs.

    A run that leaves the finite numbers is frozen: it keeps the state before (whose step it then tries again, in vain),
    its metrics say `frozen`, and the others go on.

    Args:
      how: "vmap" makes one program of them all: accelerators, and networks of matrix products. "unroll" writes them one
        after the other into one program; "loop" is a loop in the program, with the memory of one run. "dispatch"
        compiles the step of one run and calls it for each: what convolutions on a CPU need, which are 10 to 200 times
        slower inside vmap or a loop and take a compilation each when unrolled.
    """
    if how not in HOW:
        raise ValueError(f"how must be one of {', '.join(HOW)}; got {how!r}")
    step = _frozen_where_not_finite(step)

    def one(objective, state, constants, seeds, fed, run):
        mine = jax.tree.map(lambda leaf: leaf[run] if jnp.ndim(leaf) else leaf, objective)
        own_state, own_seeds = jax.tree.map(lambda leaf: leaf[run], (state, seeds))
        return step(mine, own_state, constants, own_seeds, fed)

    def runs(objective, state, constants, seeds, fed=None):
        if how == "vmap":
            axes = jax.tree.map(lambda leaf: 0 if jnp.ndim(leaf) else None, objective)
            return jax.vmap(step, in_axes=(axes, 0, None, 0, None))(objective, state, constants, seeds, fed)
        arguments = objective, state, constants, seeds, fed
        if how == "loop":
            return jax.lax.map(lambda run: one(*arguments, run), jnp.arange(_count(seeds)))
        return stack([one(*arguments, run) for run in range(_count(seeds))])

    return Dispatched(one) if how == "dispatch" else runs


class Dispatched:
    """A step of several runs that is compiled for one of them; called as it is, not jitted. Donates the state."""

    def __init__(self, one):
        def replaced(objective, state, constants, seeds, fed, run):
            mine, metrics = one(objective, state, constants, seeds, fed, run)
            return jax.tree.map(lambda all_runs, leaf: all_runs.at[run].set(leaf), state, mine), metrics

        self.one, self.stack = jax.jit(replaced, donate_argnums=1), jax.jit(stack)

    def __call__(self, objective, state, constants, seeds, fed=None):
        found = []
        for run in range(_count(seeds)):
            state, metrics = self.one(objective, state, constants, seeds, fed, run)
            found.append(metrics)
        return state, self.stack(found)


def stack(trees):
    """Trees of several runs as one with a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *trees)


def all_finite(tree):
    """Whether every number of a tree is finite, a scalar."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def _frozen_where_not_finite(step):
    def guarded(objective, state, constants, seeds, fed=None):
        after, metrics = step(objective, state, constants, seeds, fed)
        said = {name: metrics[name] for name in ("loss", "grad_norm") if name in metrics}
        fine = all_finite((after, said))  # a ratio among the metrics may be 0 / 0
        return jax.tree.map(lambda new, old: jnp.where(fine, new, old), after, state), metrics | {"frozen": ~fine}

    return guarded


def _count(seeds):
    return len(jax.tree.leaves(seeds)[0])
