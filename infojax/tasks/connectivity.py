"""Two networks and the straight line between them: linear mode connectivity."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from infojax.data import order
from infojax.evaluate import along_path, classify, interplay, looking, refreshing
from infojax.objectives import Model, Seeds
from infojax.tasks.build import check_choice, classification, network
from infojax.tasks.build.study import Study, Tools
from infojax.tasks.config import ConfigError
from infojax.tasks.train import run_of
from infojax.train.loop import Evaluator, at

INIT = ("same", "different")
WEIGHTS = ("raw", "ema")
# Besides the keys of a supervised run.
NEEDS = ("path.init", "path.fork", "path.points", "path.weights", "path.recompute_samples")


def study(config: Any) -> Study:
    """A supervised study of two networks per seed; at its last step those between them are evaluated on the test split.

    The networks of a pair differ in the order and the augmentation of the data and, if path.init is "different", in
    their initial parameters; up to step path.fork they are one network.

    Raises:
      ConfigError, DataError: names the key.
    """
    path = config.path
    check_choice(config, "path.init", INIT)
    check_choice(config, "path.weights", WEIGHTS)
    base = classification(config)
    total = base.ctx.facts.total_steps
    if path.points < 2:
        raise ConfigError(f"path.points must be at least 2, got {path.points}")
    if path.recompute_samples < 0:
        raise ConfigError(f"path.recompute_samples must be at least 0 (all of train), got {path.recompute_samples}")
    if not 0 <= path.fork < total:
        raise ConfigError(f"path.fork must be from 0 to below {total}, the number of steps; got {path.fork}")
    if path.fork and path.init == "different":
        raise ConfigError(f"path.fork is {path.fork}: networks that differ from the start cannot fork later")
    if config.seed + config.seeds > 2**30:
        raise ConfigError(f"seed must be below 2^30 for two networks each, got {config.seed}")

    def members(seed):
        first = 2 * seed
        for end in (0, 1):
            own = first + end
            init = own if path.init == "different" else first
            yield {"seed": seed, "end": end}, Seeds(init, own, own, trunk=first, fork=path.fork)

    def evaluators(tools, due):
        yield from base.evaluators(tools, due)
        look = looking(tools.through, tools.sample("test"), (classify, interplay))
        pairs = [(i, i + 1) for i in range(0, len(tools.runs), 2)]
        weights = np.linspace(0, 1, path.points)
        on_path = along_path(look, pairs, weights, path.weights, refresh(config, tools, base))
        yield Evaluator("path", at(total), on_path, of_all_runs=True)

    return base._replace(members=members, evaluators=evaluators)


def refresh(config: Any, tools: Tools, base: Study) -> Callable[[Model], Model] | None:
    """Recomputes batch statistics from path.recompute_samples of train; None if the network has none."""
    if "batch_stats" not in jax.eval_shape(tools.net.init, jax.random.key(0))[1]:
        return None
    source = base.splits["train"]
    count = min(config.path.recompute_samples or len(source), len(source))
    shuffled = order(jax.random.key(config.seed), 0, count, len(source))  # a set may be stored class by class
    x = jax.numpy.asarray(source.read(np.asarray(shuffled))[0])
    like = jax.ShapeDtypeStruct((2, *x.shape[1:]), "float32")
    forgetful = network(config.model, base.ctx.facts.num_classes, like, norm_decay=0.0)
    batches = -(-count // config.evaluate.batch_size)
    size = count // batches // tools.devices * tools.devices  # equal batches, and no padding: every row counts
    if not size:
        raise ConfigError(f"path.recompute_samples is {count}, fewer than the {tools.devices} devices")
    return refreshing(forgetful, tools.transform, x, size)


run = run_of(study)
