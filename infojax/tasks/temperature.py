"""Classifiers trained at several temperatures of the softmax: entropy and clustering of their features at the end."""

from infojax.evaluate import clusters, on_sample, tsne
from infojax.tasks import supervised
from infojax.tasks.config import ConfigError, buildable
from infojax.tasks.train import train
from infojax.train.loop import Evaluator, at


def run(config, workdir, dry_run=False):
    """Trains every temperature with every seed, measures, draws; see `infojax.tasks.train.train`."""
    with buildable("data, model and objective"):
        prepared = study(config)
    return train(prepared, config, workdir, dry_run)


def study(config):
    """A supervised study whose last step also has the silhouette of test, and its map at both ends of the sweep.

    Raises:
      ConfigError, DataError: names the key.
    """
    if config.sweep.name != "temperature" or not all(value > 0 for value in config.sweep["values"]):
        raise ConfigError(
            "sweep must be of the temperature, over positive values; "
            f"got name {config.sweep.name!r}, values {config.sweep['values']!r}"
        )
    base = supervised.study(config)
    end = at(base.ctx.facts.total_steps)

    def evaluators(look, due):
        yield from base.evaluators(look, due)
        sample = look.sample("test")
        yield Evaluator("clusters", end, on_sample(look.net, look.through, sample, (clusters,)))
        of_first_seed = [i for i, run in enumerate(look.runs) if run.facts["seed"] == config.seed]
        of_first_seed.sort(key=lambda i: look.runs[i].facts["temperature"])
        ends = dict.fromkeys((of_first_seed[0], of_first_seed[-1]))
        yield Evaluator("tsne", end, tsne(look.through, sample, list(ends), config.tsne_seed), together=True)

    return base._replace(evaluators=evaluators)
