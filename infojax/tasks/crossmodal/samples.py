"""Classes and samples of a study: names, base and novel classes, the shots of each seed."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from infojax.data import Dataset, Source, open_dataset, options_of
from infojax.data.fewshot import few_shot, halves, of_classes
from infojax.data.source import listing
from infojax.tasks.config import ConfigError
from infojax.tasks.files import read_text

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Split(NamedTuple):
    """Which samples of a source a run has, and their labels among its classes."""

    source: Source
    chosen: np.ndarray
    labels: np.ndarray


class Samples(NamedTuple):
    """The classes and samples of a study.

    Attributes:
      base, novel: names of the classes that are learnt, and of those that are not; labels are places in these lists.
      shots: those of every seed, one `Split` each; they have the same labels in the same order.
      test, unseen: test samples of the base classes, and of the novel ones (None without any).
      notes: what was drawn, one line each.
    """

    base: list[str]
    novel: list[str]
    shots: list[Split]
    test: Split
    unseen: Split | None
    notes: tuple[str, ...]


def opened(config: ConfigDict, size: int | None) -> tuple[Dataset, list[str]]:
    """The data set and the names of its classes.

    Args:
      size: side of the pictures that given weights take, for sets that have this option and no value for it.
    Raises:
      ConfigError: there are no names, or a file does not list as many as there are classes.
    """
    options = dict(config.data.options)
    if size and "size" in options_of(config.data.name) and not options.get("size") and config.data.name != "synthetic":
        options["size"] = size
    dataset = open_dataset(config.data.name, config.data.dir or None, **options)
    if config.data.names:
        lines = read_text(config.data.names, "data.names").splitlines()
        names = [line.strip() for line in lines if line.strip()]
        if len(names) != dataset.num_classes:
            raise ConfigError(
                f"data.names: {config.data.names} lists {len(names)} names; {dataset.name} has {dataset.num_classes} "
                "classes, one name per line is expected"
            )
    else:
        names = list(DIGITS if dataset.name == "digits" else dataset.class_names)
    if not names:
        raise ConfigError(f"{dataset.name} has no class names; give a file of them, --config.data.names=FILE")
    if not all(name.strip() for name in names):
        raise ConfigError(f"{dataset.name}: a class has an empty name; give a file of names, --config.data.names=FILE")
    return dataset, [name.replace("_", " ") for name in names]


def samples_of(config: ConfigDict, dataset: Dataset, names: Sequence[str], rest: np.ndarray) -> Samples:
    """The `Samples` of a config.

    Args:
      rest: training samples from which shots may be drawn.
    """
    base, novel = halves(len(names)) if config.data.classes == "base_to_novel" else (np.arange(len(names)), None)
    seeds = [config.data.few_shot_seed + i for i in range(1 if config.method == "zero_shot" else config.seeds)]
    train, shots, notes = dataset.split("train"), [], []
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        notes.append(f"{dataset.name}: classes share a name, and have equal prompts: {listing(twice)}")
    for seed in seeds:
        drawn = rest[few_shot(train.labels[rest], int(config.shots), seed)[0]]
        kept, labels = of_classes(train.labels[drawn], base)
        shots.append(Split(train, drawn[kept], labels))
    each = f"data.few_shot_seed {seeds[0]}" + (f" to {seeds[-1]}, one for each seed" if len(seeds) > 1 else "")
    notes.append(
        f"{dataset.name}: {len(shots[0].labels):,} few-shot samples, {config.shots} of each of {len(base)} classes, "
        f"drawn with {each}"
    )
    counts = np.bincount(shots[0].labels, minlength=len(base))
    if counts.min() < int(config.shots):
        fewer = np.sum(counts < int(config.shots))
        notes.append(f"{dataset.name}: {fewer:,} classes have fewer than {config.shots} samples")
    test = _tested(config, dataset, base, "test")
    unseen = None if novel is None else _tested(config, dataset, novel, "novel")
    return Samples(
        [names[int(c)] for c in base],
        [] if novel is None else [names[int(c)] for c in novel],
        shots,
        test,
        unseen,
        tuple(notes),
    )


def _tested(config, dataset, classes, name):
    """The test samples of some classes, at most evaluate.test_samples."""
    source, most = dataset.split("test"), config.evaluate.test_samples
    chosen, labels = of_classes(source.labels, classes)
    if not len(chosen):
        raise ConfigError(f"{dataset.name} has no test samples of the {name} classes")
    if most and most < len(chosen):
        part = np.sort(np.random.default_rng(0).permutation(len(chosen))[:most])
        chosen, labels = chosen[part], labels[part]
    return Split(source, chosen, labels)


def in_one(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A source for all seeds: their samples one after the other."""
    return {name: jnp.concatenate([part[name] for part in parts]) for name in parts[0]}


def by_class(x: np.ndarray, labels: np.ndarray, per_class: int, batch_size: int, num_classes: int) -> dict[str, Any]:
    """The source "classes": the shots of each class, (C, K, E).

    Raises:
      ConfigError: a class has another number of shots, or too few; there are too few classes for a batch.
    """
    if not per_class <= batch_size <= per_class * num_classes:
        raise ConfigError(
            f"objective.per_class is {per_class}: a batch must then have from {per_class} to {per_class * num_classes} "
            f"samples, of {num_classes} classes; objective.batch_size is {batch_size}"
        )
    counts = np.bincount(labels, minlength=num_classes)
    if counts.min() != counts.max() or per_class > counts.min():
        raise ConfigError(
            f"objective.per_class is {per_class}, but classes have {counts.min()} to {counts.max()} shots; expected at "
            "most as many, and the same number in each class"
        )
    rows = x[np.argsort(labels, kind="stable")].reshape(num_classes, counts[0], -1)
    return {"x": jnp.asarray(rows), "labels": jnp.arange(num_classes)}
