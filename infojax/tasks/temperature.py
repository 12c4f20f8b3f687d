"""Classifiers trained at several temperatures of the softmax: entropy and clustering of their features at the end."""

from typing import Any

from infojax.evaluate import clusters, on_sample, tsne
from infojax.tasks.build import check_numbers, classification
from infojax.tasks.build.study import Study
from infojax.tasks.config import ConfigError
from infojax.tasks.train import run_of
from infojax.train.loop import Evaluator, at

NEEDS = ("tsne_seed",)  # besides the keys of a supervised run


def study(config: Any) -> Study:
    """A supervised study that at its last step also clusters the test features.

    It has their silhouette at each temperature and their t-SNE map at both ends of the sweep.

    Raises:
      ConfigError, DataError: names the key.
    """
    if config.sweep.name != "temperature":
        raise ConfigError(f"sweep.name must be temperature, got {config.sweep.name!r}")
    check_numbers("sweep.values", config.sweep["values"], "positive", lambda value: value > 0)
    if not 0 <= config.tsne_seed < 2**32:
        raise ConfigError(f"tsne_seed must be from 0 to below 2^32, got {config.tsne_seed}")
    base = classification(config)
    end = at(base.ctx.facts.total_steps)

    def evaluators(tools, due):
        yield from base.evaluators(tools, due)
        sample = tools.sample("test")
        yield Evaluator("clusters", end, on_sample(tools.through, sample, (clusters,)))
        of_first_seed = [i for i, run in enumerate(tools.runs) if run.facts["seed"] == config.seed]
        of_first_seed.sort(key=lambda i: tools.runs[i].facts["temperature"])
        ends = dict.fromkeys((of_first_seed[0], of_first_seed[-1]))
        yield Evaluator("tsne", end, tsne(tools.through, sample, list(ends), config.tsne_seed), of_all_runs=True)

    return base._replace(evaluators=evaluators)


run = run_of(study)
