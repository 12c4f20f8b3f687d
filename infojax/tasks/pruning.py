"""Magnitude pruning: accuracy and features of trained classifiers without their smallest weights."""

from typing import Any

from infojax.evaluate import by_sparsity, classify, interplay
from infojax.tasks.build import check_numbers, classification
from infojax.tasks.build.study import Study
from infojax.tasks.train import run_of
from infojax.train.loop import Evaluator, at

NEEDS = ("sparsities",)  # besides the keys of a supervised run


def study(config: Any) -> Study:
    """A supervised study that at its last step also evaluates the pruned networks on the test split.

    Raises:
      ConfigError, DataError: names the key.
    """
    check_numbers("sparsities", config.sparsities, "of at least 0 and below 1", lambda value: 0 <= value < 1)
    base = classification(config)

    def evaluators(tools, due):
        yield from base.evaluators(tools, due)
        measured = by_sparsity(tools.through, tools.sample("test"), (classify, interplay), config.sparsities)
        yield Evaluator("pruned", at(base.ctx.facts.total_steps), measured, of_all_runs=True)

    return base._replace(evaluators=evaluators)


run = run_of(study)
