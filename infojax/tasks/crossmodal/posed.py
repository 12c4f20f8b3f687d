"""A config's study before anything is computed: data set, classes, shots, prompts, and what is refused."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from infojax.data import Source
from infojax.data.source import counted
from infojax.tasks.crossmodal.learning import Laid, laid_out
from infojax.tasks.crossmodal.recipe import UNTRAINED, check, templates_of
from infojax.tasks.crossmodal.samples import Samples, by_class, opened, samples_of
from infojax.tasks.towers import Towers, models_of, note_size, published, small_sizes


class Posed(NamedTuple):
    """A study whose config is checked, before anything is computed.

    Attributes:
      given: towers of published weights, or None; sizes: of the towers; seen: samples that small towers learn from.
      source: all training samples; names: of all classes; samples: `Samples`.
      laid: `Laid`, None where nothing is learnt.
      batch_size, per_epoch, total: of the training; flip: as of `Dataset`.
      notes: of the data set; told: of what is made of it.
    """

    given: Towers | None
    sizes: Any
    seen: np.ndarray
    source: Source
    names: list[str]
    samples: Samples
    laid: Laid | None
    batch_size: int
    per_epoch: int
    total: int
    flip: bool
    notes: Sequence[str]
    told: Sequence[str]


def pose(config: ConfigDict) -> Posed:
    """The `Posed` study of a config.

    Raises:
      ConfigError, DataError: names the key.
    """
    check(config)
    dtype = jnp.dtype(config.model.dtype)
    given = published(config.weights, config.model.activation, dtype) if config.weights else None
    dataset, names = opened(config, given.sizes.image_size if given else None)
    source = dataset.split("train")
    sizes = given.sizes if given else small_sizes(config.towers, source.shape)
    seen, rest = np.split(np.arange(len(source)), [0])
    if given is None:  # small towers never see what shots are drawn from
        seen, rest = rest[::2], rest[1::2]
    samples = samples_of(config, dataset, names, rest)
    labels = samples.shots[0].labels
    batch_size, per_epoch, total, told = lengths(config, len(labels))
    laid = None
    if config.method in UNTRAINED:
        told.append(f"zero-shot with {counted(len(templates_of(config)), 'template')}: {templates_of(config)[-1]!r}")
    else:
        laid = laid_out(config, models_of(sizes).tokenizer(sizes), samples.base, samples.novel)
        told += laid.notes
        if config.objective.per_class:
            by_class(labels[:, None], labels, config.objective.per_class, batch_size, len(samples.base))
    told = [*samples.notes, *note_size(sizes, source.shape), *told]
    return Posed(
        given, sizes, seen, source, names, samples, laid, batch_size, per_epoch, total, dataset.flip, dataset.notes,
        told,
    )  # fmt: skip


def lengths(config: ConfigDict, few: int) -> tuple[int, int, int, list[str]]:
    """(batch size, steps per epoch, steps in all, notes) of a study with `few` shots in all."""
    if config.method in UNTRAINED:
        return 1, few, 1, []
    batch_size = min(config.objective.batch_size, few)
    per_epoch = few // batch_size  # CoOp drops the last, smaller batch
    total = config.steps or max(1, round(config.epochs * per_epoch))
    asked = config.objective.batch_size
    fewer = f"config.objective.batch_size is {asked}: all {batch_size} shots are a batch"
    return batch_size, per_epoch, total, [fewer] * (batch_size < asked)
