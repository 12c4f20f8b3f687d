"""Evaluators that several studies share."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from infojax.evaluate import classify, interplay, neural_collapse, on_sample
from infojax.tasks.build.study import Tools
from infojax.train.loop import Evaluator


def classifier(tools: Tools, due: Callable[[int], bool], config: Any) -> Iterator[Evaluator]:
    """Accuracy, information and collapse on both splits, at all due steps."""
    measures = (classify, interplay, partial(neural_collapse, convention=config.evaluate.convention))
    for split in ("train", "test"):
        yield Evaluator("classifier", due, on_sample(tools.through, tools.sample(split), measures))
