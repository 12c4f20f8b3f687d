"""A run whose batches are read by the host, and the same run from data on the devices; prints what was read."""

import json
import sys
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np

from infojax import processes
from infojax.data import Arrays, in_memory, open_dataset, transforms
from infojax.models import MLP
from infojax.objectives import Context, Facts, Optimizer, Seeds, Supervised, init_state
from infojax.parallel import local_copy, make_mesh, replicated, sharded_views
from infojax.train.feed import Feed
from infojax.train.loop import fit
from infojax.train.networks import as_net
from infojax.train.optim import sgd
from infojax.train.step import make_step

STEPS, BATCH = 5, 32


class Recorded(Arrays):
    """Keeps which samples were read."""

    taken: list[list[int]] = []

    def read(self, indices):
        self.taken.append(np.asarray(indices).tolist())
        return super().read(indices)


def program():
    train = in_memory(open_dataset().split("train"))
    source, mesh = Recorded(train.x, train.labels), make_mesh()
    views = sharded_views(transforms((70.0,), (90.0,), flip=False), mesh)
    task = Supervised(batch_size=BATCH, transform="plain")
    net = as_net(MLP(10, widths=(8,)), jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32))
    ctx = Context({"net": net}, {"main": Optimizer(sgd(0.05))}, Facts(10, STEPS))
    step, seeds = make_step(ctx, views), Seeds(3, 4, 5)

    def trained(data, feed=None, **options):
        state, constants = replicated((init_state(task, seeds, ctx), {"data": data}), mesh)
        return local_copy(fit(task, state, constants, seeds, step, until=STEPS, feed=feed, **options).params)

    uploaded = trained({"train": {"x": train.x, "labels": train.labels}})
    same = True
    for options in ({}, {"steps_per_call": 2}):
        with closing(Feed({"train": source}, task.views, seeds, STEPS, mesh, *options.values())) as feed:
            fed = trained({}, feed, **options)
        same &= all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), uploaded, fed)))
    print(json.dumps({"same": same, "taken": source.taken}))
    return 0


if __name__ == "__main__":
    sys.exit(processes.run(program, processes.split_flags(sys.argv[1:])[0], "fed"))
