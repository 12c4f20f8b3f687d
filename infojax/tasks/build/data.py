"""Data of a config: which samples are trained on, how they are normalised, and the notes on them."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from infojax.data import Arrays, DataError, Dataset, Source, channel_moments, constant_channels, in_memory
from infojax.data.splits import balanced
from infojax.objectives import Facts
from infojax.tasks.config import ConfigError


def arrays_of(source: Arrays, **extra: Any) -> dict[str, Any]:
    """A source in memory in the form that a step takes: {"x", "labels", ...} on the device."""
    return {"x": jnp.asarray(source.x), "labels": jnp.asarray(source.labels), **extra}


def facts_of(source: Source, num_classes: int, total: int) -> Facts:
    """`Facts` of a labelled training set and `total` steps."""
    return Facts(num_classes, total, tuple(np.bincount(source.labels, minlength=num_classes).tolist()))


def normalisation(dataset: Dataset, source: Source) -> tuple[Any, Any, Sequence[str]]:
    """(mean, std, notes) by which pictures are normalised: the data set's own, or those of the training samples.

    A channel with a single value has a standard deviation of zero: it is not divided, is 0 after its mean is
    subtracted, and the notes say so.
    """
    mean: Any
    std: Any
    mean, std = (dataset.mean, dataset.std) if dataset.mean else channel_moments(source)
    constant = constant_channels(mean, std)
    if not constant:
        return mean, std, dataset.notes
    told = f"{dataset.name}: channels of one value in all training samples, not scaled: {constant} of {len(mean)}"
    return mean, [1.0 if i in constant else x for i, x in enumerate(std)], (*dataset.notes, told)


def subset(dataset: Dataset, settings: Any) -> Arrays:
    """The training samples in memory: all of them, or data.train_samples, balanced over the classes.

    Raises:
      ConfigError: a class has too few.
    """
    source = in_memory(dataset.split("train"))
    if not 0 < settings.train_samples < len(source):
        return source
    try:
        chosen = np.sort(balanced(source.labels, settings.train_samples, dataset.num_classes, settings.subset_seed))
    except DataError as error:
        raise ConfigError(f"data.train_samples: {str(error).removeprefix('num_labels ')}") from None
    return Arrays(source.x[chosen], source.labels[chosen])


def with_unlabelled(dataset: Dataset, source: Arrays) -> Arrays:
    """All training samples, with those of the split "unlabelled" where the set has one, whose labels are -1."""
    if "unlabelled" not in dataset.splits:
        return source
    more = in_memory(dataset.split("unlabelled"))
    return Arrays(np.concatenate([more.x, source.x]), np.concatenate([more.labels, source.labels]))


def note_fewer(config: Any, **sources: Any) -> Iterator[str]:
    """A line for each number of samples in a config that exceeds what the set has, so that all are used."""
    asked = {"data.train_samples": config.data.get("train_samples")}
    asked |= {f"evaluate.{split}_samples": config.evaluate[f"{split}_samples"] for split in sources}
    for path, count in asked.items():
        have = len(sources["test" if "test_" in path else "train"])
        if count and count > have:
            yield f"config.{path} is {count:,}, more than the {have:,} samples that there are: all of them are used"
