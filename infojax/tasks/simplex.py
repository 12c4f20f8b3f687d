"""A classifier with a three-dimensional embedding: its training samples, class means and head rows as they move."""

from typing import Any

from infojax.evaluate import on_sample
from infojax.evaluate.cloud import cloud
from infojax.tasks.build import classification
from infojax.tasks.build.study import Study
from infojax.tasks.config import ConfigError
from infojax.tasks.train import run_of
from infojax.train.loop import Evaluator


def study(config: Any) -> Study:
    """A supervised study that at each evaluation also records training samples, class means and head rows in 3-D.

    Raises:
      ConfigError, DataError: names the key.
    """
    if config.model.name == "mlp" and tuple(config.model.options.get("widths", ()))[-1:] != (3,):
        raise ConfigError(f"model.options.widths must end with 3, got {config.model.options.get('widths', ())}")
    base = classification(config)

    def evaluators(tools, due):
        yield from base.evaluators(tools, due)
        yield Evaluator("cloud", due, on_sample(tools.through, tools.sample("train"), (cloud,)))

    return base._replace(evaluators=evaluators)


run = run_of(study)
