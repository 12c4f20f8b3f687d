"""Layerwise compression: how far each layer of a network collapses the classes, and what decoders can read from it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from infojax.data import Arrays, Dataset, in_memory, open_dataset, transforms
from infojax.data.splits import shuffled
from infojax.evaluate import Decoding, LayerError, chosen_layers, geometric, layer_shapes, usable
from infojax.evaluate.layers import INPUT
from infojax.evaluate.usable import CONDITIONS, DIGITS, ENCODINGS, ENTROPIES, VALUES
from infojax.measures.variability import NC1_CONVENTIONS
from infojax.objectives import Context, Epochs, Net, Optimizer, Supervised
from infojax.tasks.build import (
    Study,
    all_options,
    arrays_of,
    check_batch,
    check_choice,
    classifier,
    facts_of,
    network,
    note_fewer,
    optimizer,
    optimizer_settings,
    total_steps,
)
from infojax.tasks.build.study import Tools
from infojax.tasks.config import ConfigError, training
from infojax.tasks.train import run_of
from infojax.train.loop import Evaluator, every
from infojax.train.step import HOW

LABELS = ("true", "random")


def defaults(name: str, chosen: Any) -> ConfigDict:
    """The recipe of the thesis, as in its text or as its released code runs; presets set the rest."""
    config, released = training(name, chosen), chosen.get("variant") == "released"
    config.task, config.variant = "compression", chosen.get("variant", "text")
    config.data = dict(
        name=chosen.data, dir="", options=dict(), labels=chosen.get("labels", "true"),
        per_class=1000, test_per_class=0,  # the first of each class, in the order of the set; 0: all
        imbalance=1.0,  # ratio of training samples of the first class to the last; geometric in between
        scale=1.0 if released else 255.0,  # that pixels are divided by
    )  # fmt: skip
    config.model = dict(
        name=chosen.model, dtype="bfloat16" if released else "float32",
        param_dtype="bfloat16" if released else "float32", options=all_options(chosen.model),
    )  # fmt: skip
    config.objective = dict(batch_size=400, rest_loss=0.0 if released else 0.02)  # mean loss of an epoch's batches
    config.optimizer = optimizer_settings("adamw", lr=2e-3, weight_decay=0.01, decayed="all")  # as PyTorch's
    config.layers = ()  # names or shell wildcards; none: all named layers
    config.amortised = released  # class means of train are summed during the epoch, by networks that still change
    config.usable = dict(
        layers=(), sufficiency_every=1, minimality_every=1,  # () all with the input; epochs; 0: never
        sufficiency_epochs=20 if released else 50, minimality_epochs=50, rest_loss=0.0 if released else 0.02,
        digits="mean", condition="none", entropy="log_c" if released else "empirical",
        value="running" if released else "evaluated", encodings="each_batch" if released else "auto",
        budget_gib=4.0, how="auto",
    )  # fmt: skip
    config.epochs = 20.0 if released else 50.0
    config.log.every = config.evaluate.every = config.evaluate.points = config.checkpoint.every = 0  # 0: every epoch
    config.evaluate.batch_size = 400  # also the partition that layers are measured by
    config.report.x_scale = "linear"
    return config


def study(config: Any) -> Study:
    """Data, network, optimiser and evaluators of a config.

    Raises:
      ConfigError, DataError: names the key.
    """
    check(config)
    dataset = open_dataset(config.data.name, config.data.dir or None, **config.data.options)
    train, test = splits(config, dataset)
    batch = config.objective.batch_size
    check_batch(batch, len(train))
    epoch = -(-len(train) // batch)
    total = total_steps(config, epoch)
    tx = optimizer(config.optimizer, total)
    views = transforms((0.0,), (config.data.scale,), pad=0)
    plain = {"plain": views["plain"]}
    like = jax.ShapeDtypeStruct((2, *train.shape), jnp.float32)
    net = network(config.model, dataset.num_classes, like)
    stored = jax.ShapeDtypeStruct((2, *train.shape), train.x.dtype)
    shapes = layer_shapes(net, plain["plain"], stored)
    cut = [name for name in shapes if name not in ("embedding", "logits")]  # a decoder follows each of these
    read = layers_of(cut, config.usable.layers or ("*",), "usable.layers")
    chosen = layers_of(shapes, config.layers or [name for name in cut if name != INPUT], "layers")
    if config.amortised and INPUT in chosen:
        raise ConfigError("amortised: the input's class means do not change; leave it out of layers")
    moments = tuple((name, int(np.prod(shapes[name]))) for name in chosen) if config.amortised else ()

    def net_of(layer):
        if layer == INPUT:
            return net
        decoder = jax.ShapeDtypeStruct((2, *shapes[layer]), config.model.dtype)
        return network(config.model, dataset.num_classes, decoder, start=layer)

    def evaluators(tools, due):
        yield from classifier(tools, due, config)
        samples = [tools.sample(split) for split in ("train", "test")]
        classes, size = dataset.num_classes, config.evaluate.batch_size
        convention = config.evaluate.convention
        measured = geometric(tools.transform, samples, classes, size, chosen, convention)
        yield Evaluator("layers", due, measured, of_all_runs=True)
        decoding = decoding_of(config, tools, net_of, tx, classes)
        seeds = [run.facts["seed"] for run in tools.runs]
        for kind in ("sufficiency", "minimality"):
            interval, epochs = config.usable[f"{kind}_every"], config.usable[f"{kind}_epochs"]
            ways = decoding._replace(epochs=epochs)
            found = usable(kind, tools.net, samples, shapes, read, ways, seeds)
            yield Evaluator("usable", every(interval * epoch, total), found, of_all_runs=True)

    return Study(
        objective=Epochs(
            Supervised(transform="plain", batch_size=batch),
            rest_loss=config.objective.rest_loss,
            epoch_steps=epoch,
            moments=moments,
        ),
        ctx=Context({"net": net}, {"main": Optimizer(tx)}, facts_of(train, dataset.num_classes, total)),
        transforms=plain,
        data={"train": arrays_of(train)},
        splits={"train": train, "test": test},
        evaluators=evaluators,
        per_epoch=epoch,
        intervals=dict(log=epoch, evaluate=epoch, checkpoint=epoch),
        notes=(*dataset.notes, *note_fewer(config, train=train, test=test)),
    )


def check(config: Any) -> None:
    """Refuses unknown values of choices, and numbers below their least."""
    check_choice(config, "data.labels", LABELS)
    check_choice(config, "evaluate.convention", NC1_CONVENTIONS)
    choices = {"digits": DIGITS, "condition": CONDITIONS, "value": VALUES, "entropy": ENTROPIES, "encodings": ENCODINGS}
    for name, values in (choices | {"how": ("auto", *HOW)}).items():
        check_choice(config, f"usable.{name}", values)
    least = {
        "objective.rest_loss": 0, "usable.rest_loss": 0, "usable.sufficiency_every": 0, "usable.minimality_every": 0,
        "usable.sufficiency_epochs": 1, "usable.minimality_epochs": 1, "usable.budget_gib": 0, "data.per_class": 0,
        "data.test_per_class": 0, "data.imbalance": 1,
    }  # fmt: skip
    flat = config.to_dict()
    for path, bound in least.items():
        part, name = path.split(".")
        if not flat[part][name] >= bound:
            raise ConfigError(f"{path} must be at least {bound}, got {flat[part][name]}")
    if not config.data.scale > 0:
        raise ConfigError(f"data.scale must be positive, got {config.data.scale}")
    if config.usable.condition == "label" and config.usable.encodings == "each_batch":
        raise ConfigError(
            "usable.condition label encodes once: batches of one class would change what batch normalisation computes"
        )
    for name in ("lr", "eps"):
        if not config.optimizer[name] > 0:
            raise ConfigError(f"optimizer.{name} must be positive, got {config.optimizer[name]}")
    if config.sweep.name:
        raise ConfigError(
            "a compression study has no sweep; train runs with a --workdir each and compare them by infojax.report"
        )


def splits(config: Any, dataset: Dataset) -> tuple[Arrays, Arrays]:
    """(train, test): the chosen samples of a data set in memory, shuffled, with random labels if it is about these."""
    train, test = (
        shuffled(first_of_each_class(in_memory(dataset.split(split)), dataset.num_classes, key, config.data))
        for split, key in (("train", "per_class"), ("test", "test_per_class"))
    )
    if config.data.labels == "random":
        train = Arrays(train.x, np.random.default_rng(config.seed).permutation(train.labels))
    return train, test


def first_of_each_class(source: Arrays, num_classes: int, key: str, settings: Any) -> Arrays:
    """The first samples of each class, in the order of the set: `key` of them, fewer for the later classes of train.

    Raises:
      ConfigError: a class has fewer.
    """
    labels, count = np.asarray(source.labels), settings[key]
    ratio = settings["imbalance"] if key == "per_class" else 1.0
    have = np.bincount(labels, minlength=num_classes)
    if not count and ratio == 1:
        return source
    if count > have.min():
        raise ConfigError(f"data.{key} is {count}, but the smallest class has {have.min()}")
    shares = ratio ** -(np.arange(num_classes) / (num_classes - 1))
    wanted = np.maximum(1, np.rint((count or have.min()) * shares)).astype(int)
    place = np.zeros(len(labels), int)  # position of a sample within its class
    for c in range(num_classes):
        place[labels == c] = np.arange(have[c])
    chosen = np.flatnonzero(place < wanted[labels])
    return Arrays(source.x[chosen], labels[chosen])


def layers_of(shapes: Iterable[str], patterns: Sequence[str], key: str) -> list[str]:
    """The layers that patterns name.

    Raises:
      ConfigError: one names none.
    """
    try:
        return chosen_layers(shapes, patterns)
    except LayerError as error:
        raise ConfigError(f"{key}: {error}") from None


def decoding_of(
    config: Any, tools: Tools, net_of: Callable[[str], Net], tx: optax.GradientTransformation, num_classes: int
) -> Decoding:
    """The `Decoding` of a config, by which V-information is measured."""
    settings = config.usable
    on_cpu = jax.default_backend() == "cpu"
    how = settings.how if settings.how != "auto" else "dispatch" if on_cpu else "vmap"
    names = ("rest_loss", "digits", "condition", "value", "entropy", "encodings")
    return Decoding(
        net_of=net_of, tx=tx, transform=tools.transform, num_classes=num_classes,
        batch_size=config.objective.batch_size, measured_batch=config.evaluate.batch_size,
        **{name: settings[name] for name in names}, budget=settings.budget_gib * 2**30,
        how=how, fused=not on_cpu and how != "dispatch", mesh=tools.mesh,
    )  # fmt: skip


run = run_of(study)
