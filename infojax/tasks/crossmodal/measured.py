"""What is measured of a study: the shots of each run, the test samples, novel classes, and zero-shot CLIP."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from infojax.data import Arrays
from infojax.evaluate import cross_modal, fixed_sample
from infojax.evaluate.crossmodal import class_by_class
from infojax.evaluate.forward import Sample
from infojax.objectives import Model
from infojax.objectives.crossmodal import Prompts
from infojax.train.loop import Evaluator, at


class Encoded(NamedTuple):
    """Image features of the samples of a study, and the texts of its classes.

    Attributes:
      shots: of each seed; test, unseen: as of `Samples`.
      scale: ln of the factor of the cosines; batch_size: of the evaluation.
      names, templates: split -> names of its classes, and text features (C, E) of zero-shot CLIP.
      novel: `Prompts` of the novel classes, or their text features where nothing is learnt; None without any.
    """

    shots: list[Arrays]
    test: Arrays
    unseen: Arrays | None
    scale: float
    batch_size: int
    names: Mapping[str, Sequence[str]]
    templates: Mapping[str, Any]
    novel: Any

    @property
    def splits(self) -> dict[str, Arrays]:
        """By name, with the shots of the first seed."""
        return {"train": self.shots[0], "test": self.test} | ({"novel": self.unseen} if self.unseen else {})


def evaluators_of(encoded: Encoded, most: int | None, total: int, learnt: bool) -> Callable:
    """A study's `evaluators`.

    Args:
      most: shots that are measured, at most; total: the last step; learnt: whether a prompt is.
    """

    def evaluators(tools, due):
        accuracy: dict[int, float] = {}  # of the base classes, by the model that has it at this step

        def remember(model, found):
            accuracy[id(model)] = found["accuracy"]
            return ()

        shots = [fixed_sample("train", part, most) for part in encoded.shots]
        yield _of_shots(encoded, shots, tools.runs, due)
        test = fixed_sample("test", encoded.test)
        yield Evaluator("cross_modal", due, cross_modal(test, encoded.scale, encoded.batch_size, remember))
        ends = at(0, total)
        yield Evaluator(
            "by_class", ends, class_by_class(test, encoded.scale, encoded.names["test"], encoded.batch_size)
        )
        if encoded.unseen is not None:
            novel = fixed_sample("novel", encoded.unseen)
            yield Evaluator("cross_modal", due, _of_novel(encoded, novel, accuracy))
            on_novel = class_by_class(novel, encoded.scale, encoded.names["novel"], encoded.batch_size)
            yield Evaluator("by_class", ends, lambda models: on_novel({"raw": renamed(models["raw"], encoded.novel)}))
        if learnt:
            yield Evaluator("zero_shot", at(0), lambda _: _zero_shot(encoded), of_all_runs=True)

    return evaluators


def _of_shots(encoded: Encoded, shots: Sequence[Sample], runs: Sequence[Any], due: Callable) -> Evaluator:
    """Each run on its own shots."""
    each = [cross_modal(sample, encoded.scale, encoded.batch_size) for sample in shots]
    if len(each) == 1:
        return Evaluator("cross_modal", due, each[0])

    def run(models):
        for number, (member, own) in enumerate(zip(runs, models, strict=True)):
            yield {"run": number, **dict(each[member.seeds.part](own))}

    return Evaluator("cross_modal", due, run, of_all_runs=True)


def _of_novel(encoded: Encoded, sample: Sample, accuracy: dict[int, float]) -> Callable:
    """The evaluator's `run` on novel classes: the same prompt with their names; their harmonic mean with the base's."""

    def run(models):
        model, mine = models["raw"], accuracy.pop(id(models["raw"]), math.nan)

        def harmonic(_, found):
            both = mine + found["accuracy"]
            yield "harmonic_mean", 2 * mine * found["accuracy"] / both if both else 0.0

        measure = cross_modal(sample, encoded.scale, encoded.batch_size, harmonic)
        yield from measure({"raw": renamed(model, encoded.novel)})

    return run


def renamed(model: Model, part: Any) -> Model:
    """The model with other classes: their `Prompts`, or text features (C, E) of zero-shot CLIP."""
    if isinstance(part, Prompts):
        own, text, _, logit_scale = model.params
        return dataclasses.replace(model, params=(own, text, part, logit_scale))
    return dataclasses.replace(model, params=(part, model.params[1]))


def _zero_shot(encoded: Encoded) -> Iterator[dict[str, Any]]:
    """Accuracy of the templates, which is the same for all runs: a row of the first."""
    for split, source in encoded.splits.items():
        if split != "train":
            cosines = np.asarray(source.x, np.float64) @ np.asarray(encoded.templates[split], np.float64).T
            value = float(np.mean(np.argmax(cosines, axis=1) == source.labels))
            yield {"run": 0, "split": split, "n": len(source.labels), "accuracy_zero_shot": value}
