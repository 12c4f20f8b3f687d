"""Data of a config: which samples are trained on, where they lie, how they are normalised, and the notes on them."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infojax.data import (
    Arrays,
    Chosen,
    DataError,
    Dataset,
    Joined,
    Source,
    channel_moments,
    constant_channels,
    in_memory,
    use_workers,
)
from infojax.data.splits import balanced
from infojax.objectives import Facts
from infojax.tasks.build.checks import check_choice
from infojax.tasks.config import ConfigError

STREAM = ("auto", "always", "never")
SHARE = 2  # data may take 1 / SHARE of a device's memory; on a CPU half of that, where they are held twice
MEASURED = 50_000  # samples of a split that is read from disk, where the config does not say how many
NORMALISED = 2**30  # values that means and deviations are taken over at most


def arrays_of(source: Arrays, **extra: Any) -> dict[str, Any]:
    """A source in memory in the form that a step takes: {"x", "labels", ...} on the device."""
    return {"x": jnp.asarray(source.x), "labels": jnp.asarray(source.labels), **extra}


def reading() -> dict[str, Any]:
    """Keys of the section "data" of studies that also train on sets which do not fit on the devices."""
    return dict(
        stream="auto",  # always, never, or auto: read step by step what takes more than half of a device's memory
        workers=-1,  # processes that decode pictures then; -1: one per core, 0: threads of this process instead
    )


def loaded(config: Any, source: Source) -> tuple[Source, tuple[str, ...]]:
    """(a training source in memory, or as it is where it is to be streamed; notes), as config.data.stream says.

    With "auto" a source is streamed that would take more than half of a device's memory, or, on a CPU, a quarter of the
    machine's. Pictures are then decoded in config.data.workers processes.

    Raises:
      DataError: it does not fit into the machine's memory.
    """
    if "stream" not in config.data:  # a run older than this option
        return in_memory(source), ()
    check_choice(config, "data.stream", STREAM)
    # uint8 pictures, int32 tokens
    size = len(source) * math.prod(source.shape) * (1 if len(source.shape) > 1 else 4)
    streamed = config.data.stream == "always" or config.data.stream == "auto" and size > memory()
    use_workers(config.data.workers if streamed else 0)
    if not streamed:
        return in_memory(source), ()
    if isinstance(source, Arrays):
        source = Chosen(source, np.arange(len(source)))  # so that it is read like any other
    note = f"data.stream: the {size / 1e9:,.3g} GB of {len(source):,} training samples are read step by step"
    return source, (note,)


def placed(sources: Mapping[str, Source]) -> dict[str, Any]:
    """The fields data and streams of a `Study`: sources in memory go to the devices, others are read by the host."""
    return {
        "data": {name: arrays_of(source) for name, source in sources.items() if isinstance(source, Arrays)},
        "streams": {name: source for name, source in sources.items() if not isinstance(source, Arrays)},
    }


def memory() -> float:
    """Bytes that training data may take on each device."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if limit:
        return limit / SHARE
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (2 * SHARE)


def facts_of(source: Source, num_classes: int, total: int) -> Facts:
    """`Facts` of a labelled training set and `total` steps."""
    return Facts(num_classes, total, tuple(np.bincount(source.labels, minlength=num_classes).tolist()))


def normalisation(dataset: Dataset, source: Source) -> tuple[Any, Any, Sequence[str]]:
    """(mean, std, notes) by which pictures are normalised: the data set's own, or those of the training samples.

    A channel with a single value has a standard deviation of zero: it is not divided, is 0 after its mean is
    subtracted, and the notes say so. Of large sets the moments are those of evenly spaced samples.
    """
    mean: Any
    std: Any
    notes, most = list(dataset.notes), max(1, NORMALISED // math.prod(source.shape))
    if dataset.mean:
        mean, std = dataset.mean, dataset.std
    else:
        mean, std = channel_moments(source, samples=most)
        if most < len(source):
            notes.append(f"{dataset.name}: normalised by {most:,} evenly spaced training samples of {len(source):,}")
    constant = constant_channels(mean, std)
    if not constant:
        return mean, std, notes
    notes.append(
        f"{dataset.name}: channels of one value in all training samples, not scaled: {constant} of {len(mean)}"
    )
    return mean, [1.0 if i in constant else x for i, x in enumerate(std)], notes


def subset(dataset: Dataset, settings: Any) -> Source:
    """The training samples, still to be read: all of them, or data.train_samples, balanced over the classes.

    Raises:
      ConfigError: a class has too few.
    """
    source = dataset.split("train")
    if not 0 < settings.train_samples < len(source):
        return source
    try:
        chosen = np.sort(balanced(source.labels, settings.train_samples, dataset.num_classes, settings.subset_seed))
    except DataError as error:
        raise ConfigError(f"data.train_samples: {str(error).removeprefix('num_labels ')}") from None
    return Chosen(source, chosen)


def with_unlabelled(dataset: Dataset, source: Source) -> Source:
    """All training samples, with those of the split "unlabelled" where the set has one, whose labels are -1."""
    return Joined(dataset.split("unlabelled"), source) if "unlabelled" in dataset.splits else source


def labelled_part(every: Source, source: Source) -> Source:
    """The training split as a part of what `with_unlabelled` and `loaded` made of it: in memory if that is."""
    if not isinstance(every, Arrays):
        return source
    return every if len(every) == len(source) else Arrays(every.x[-len(source) :], every.labels[-len(source) :])


def note_fewer(config: Any, **sources: Any) -> Iterator[str]:
    """A line for each number of samples in a config that exceeds what the set has, so that all are used; and for each
    that it leaves open where the split is read from disk, so that not all are measured."""
    streamed, train = not isinstance(sources["train"], Arrays), sources["train"]
    asked = {"data.train_samples": (config.data.get("train_samples"), train)}
    asked |= {f"evaluate.{name}_samples": (config.evaluate[f"{name}_samples"], of) for name, of in sources.items()}
    for path, (count, source) in asked.items():
        have = len(source)
        if count and count > have:
            yield f"config.{path} is {count:,}, more than the {have:,} samples that there are: all of them are used"
        if streamed and count is None and have > MEASURED:
            yield f"config.{path} has no value: {MEASURED:,} of the {have:,} samples, drawn once, are measured"
