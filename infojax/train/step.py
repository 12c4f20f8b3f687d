"""One step of any objective, and several runs of it in one program."""

import jax
import jax.numpy as jnp

from infojax.train.draw import draw

STEP_NOISE = 1 << 20  # keys of the loss, apart from those of the views, which are numbered from 0


def make_step(ctx, transforms):
    """step(objective, state, constants, seeds, fed=None) -> (state, metrics), a pure function to be jitted.

    constants["data"] holds the sources; whatever else it holds (frozen towers, cached encodings) is the objective's.
    """

    def step(objective, state, constants, seeds, fed=None):
        batch = draw(constants["data"], objective.views, transforms, seeds, state.step, fed)
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seeds.noise), state.step), STEP_NOISE)
        return objective.update(state, constants, batch, key, ctx)

    return step


HOW = ("vmap", "unroll", "loop")


def map_runs(step, how):
    """The step for several runs at once: state, seeds and swept leaves of the objective have a leading axis of runs.

    Args:
      how: "vmap" makes one program of them all: accelerators, and networks of matrix products. "unroll" writes them one
        after the other into one program, which is what convolutions on a CPU need (inside vmap they are 10 to 200 times
        slower). "loop" is a loop in the program: the memory of one run.
    """

    def axes(objective):
        return jax.tree.map(lambda leaf: 0 if jnp.ndim(leaf) else None, objective)

    def runs(objective, state, constants, seeds, fed=None):
        if how == "vmap":
            mapped = jax.vmap(step, in_axes=(axes(objective), 0, None, 0, None))
            return mapped(objective, state, constants, seeds, fed)

        def one(run):
            mine = jax.tree.map(lambda leaf: leaf[run] if jnp.ndim(leaf) else leaf, objective)
            own_state, own_seeds = jax.tree.map(lambda leaf: leaf[run], (state, seeds))
            return step(mine, own_state, constants, own_seeds, fed)

        count = len(jax.tree.leaves(seeds)[0])
        if how == "loop":
            return jax.lax.map(one, jnp.arange(count))
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *[one(run) for run in range(count)])

    if how not in HOW:
        raise ValueError(f"how must be one of {', '.join(HOW)}; got {how!r}")
    return runs


def stack(trees):
    """Trees of several runs as one with a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *trees)
