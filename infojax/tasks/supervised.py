"""Supervised classification, measured while it trains."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from infojax.data import (
    Arrays,
    DataError,
    channel_moments,
    constant_channels,
    in_memory,
    near,
    open_dataset,
    transforms,
)
from infojax.data.splits import balanced
from infojax.evaluate import classify, interplay, neural_collapse, on_sample
from infojax.measures.variability import NC1_CONVENTIONS
from infojax.models import build
from infojax.objectives import Context, Facts, Supervised
from infojax.objectives.regularizers import GRADIENTS, KINDS
from infojax.objectives.supervised import LOG_SOFTMAX
from infojax.tasks.config import ConfigError, training
from infojax.tasks.train import Study, run_of
from infojax.train import optim
from infojax.train.loop import Evaluator
from infojax.train.networks import as_net

SCHEDULES = ("cosine_7_16", "cosine", "constant")


def defaults(name, chosen):
    """The config of a supervised run: the recipe of TorchSSL, which the papers follow, without what presets decide."""
    config = training(name, chosen)
    config.task = "supervised"
    config.data = dict(
        name=chosen.data, dir="", options=dict(), train_samples=0, subset_seed=0, pad=4,  # 0 samples: all
    )  # fmt: skip
    config.model = dict(name=chosen.model, dtype="float32", options=dict())
    config.objective = fields_of(Supervised) | dict(term=chosen.get("term", "off"))
    config.optimizer = dict(
        lr=0.03, momentum=0.9, nesterov=True, weight_decay=5e-4, clip=0.0,  # 0: no clipping
        schedule="cosine_7_16", warmup_steps=0,
    )  # fmt: skip
    return config


def fields_of(objective):
    """The defaults of an objective."""
    return {field.name: field.default for field in dataclasses.fields(objective) if field.name != "replacement"}


def recipe(name, chosen):
    """The presets of a supervised study: paper is TorchSSL's recipe, small a tenth of it, tiny for a CPU."""
    tiny = chosen.preset == "tiny"
    if not chosen.model:
        chosen.model = "wide_resnet" if tiny else "wrn_28_8" if chosen.data == "cifar100" else "wrn_28_2"
    config = defaults(name, chosen)
    if chosen.preset != "tiny":
        config.evaluate.train_samples = 10_000  # of 50,000: measuring stays a few per cent of the time
    if chosen.preset == "paper":
        config.steps = 2**20
        config.log.every, config.evaluate.every, config.checkpoint.every = 500, 5000, 5000
    elif chosen.preset == "small":
        config.epochs = 100.0
        config.log.every, config.checkpoint.every = 200, 5000
    else:
        config.optimizer.update(lr=0.1, schedule="cosine")
        config.epochs = 30.0 if chosen.data == "digits" else 15.0
        if chosen.model == "wide_resnet":  # running statistics that follow a short run
            config.model.options = dict(depth=10, width=2, norm_decay=0.9)
        if chosen.data == "digits":
            config.data.pad = 1
        else:
            config.data.train_samples = 10_000
            config.evaluate.update(points=10, train_samples=2000, test_samples=2000)
            if chosen.model == "wide_resnet":  # strides 2, 2, 2: a quarter of the work
                config.model.options.first_stride = 2
    return config


def study(config):
    """Data, network, optimiser and evaluators of a config.

    Raises:
      ConfigError, DataError: names the key.
    """
    dataset = open_dataset(config.data.name, config.data.dir or None, **config.data.options)
    source, test = subset(dataset, config.data), dataset.split("test")
    batch = config.objective.batch_size
    if not 1 <= batch <= len(source):
        raise ConfigError(f"objective.batch_size must be from 1 to {len(source)}, the training samples; got {batch}")
    per_epoch = len(source) / batch  # an epoch may end within a step: the order of samples knows no gaps
    total = total_steps(config, per_epoch)
    mean, std, notes = moments(dataset, source)
    views = transforms(mean, std, pad=config.data.pad, flip=dataset.flip)
    known(config, "objective.transform", views)
    known(config, "objective.term", KINDS)
    known(config, "objective.to", GRADIENTS)
    known(config, "objective.log_softmax", LOG_SOFTMAX)
    known(config, "evaluate.convention", NC1_CONVENTIONS)
    shares(config.objective, "label_smoothing", "ema_decay")
    net = network(config.model, dataset.num_classes, jax.ShapeDtypeStruct((2, *source.shape), jnp.float32))
    facts = Facts(dataset.num_classes, total, tuple(np.bincount(source.labels, minlength=dataset.num_classes).tolist()))

    return Study(
        objective=Supervised(**config.objective),
        ctx=Context({"net": net}, {"main": optimizer(config.optimizer, total)}, facts),
        views=views,
        data={"train": {"x": jnp.asarray(source.x), "labels": jnp.asarray(source.labels)}},
        sources={"train": source, "test": test},
        evaluators=lambda look, due: classifier(look, due, config),
        per_epoch=per_epoch,
        notes=(*notes, *fewer(config, train=source, test=test)),
    )


def moments(dataset, source):
    """(mean, std, notes) by which pictures are normalised: the data set's own, or those of the training samples.

    A channel with a single value carries nothing and has no deviation to be divided by: it is 0 after its mean is
    subtracted, and the notes say so.
    """
    mean, std = (dataset.mean, dataset.std) if dataset.mean else channel_moments(source)
    constant = constant_channels(mean, std)
    if not constant:
        return mean, std, dataset.notes
    told = f"{dataset.name}: channels with one value in all training samples, not scaled: {constant} of {len(mean)}"
    return mean, [1.0 if i in constant else x for i, x in enumerate(std)], (*dataset.notes, told)


def network(settings, num_classes, like, start=None, **options):
    """The net of a config; `like` is a batch of what it is called with. With `start`, what comes after that stage.

    Raises:
      ConfigError: unknown model or option.
    """
    try:
        module = build(settings.name, num_classes, dtype=settings.dtype, **{**settings.options, **options})
    except ValueError as error:
        raise ConfigError(f"model: {error}") from None
    return as_net(module, like, start=start, param_dtype=settings.get("param_dtype"))


def classifier(look, due, config):
    """Accuracy, information and collapse on both splits, at all due steps."""
    measures = (classify, interplay, partial(neural_collapse, convention=config.evaluate.convention))
    for split in ("train", "test"):
        yield Evaluator("classifier", due, on_sample(look.net, look.through, look.sample(split), measures))


def subset(dataset, settings):
    """The training samples in memory: all of them, or so many balanced over the classes."""
    source = in_memory(dataset.split("train"))
    if not 0 < settings.train_samples < len(source):
        return source
    try:
        chosen = np.sort(balanced(source.labels, settings.train_samples, dataset.num_classes, settings.subset_seed))
    except DataError as error:
        raise ConfigError(f"data.train_samples: {str(error).removeprefix('num_labels ')}") from None
    return Arrays(source.x[chosen], source.labels[chosen])


def fewer(config, **sources):
    """Lines: which numbers of samples a config asks for are more than there are, so that all are taken."""
    asked = {"data.train_samples": config.data.get("train_samples")}
    asked |= {f"evaluate.{split}_samples": config.evaluate[f"{split}_samples"] for split in sources}
    for path, count in asked.items():
        have = len(sources["test" if "test_" in path else "train"])
        if count and count > have:
            yield f"config.{path} is {count:,}, more than the {have:,} samples that there are: all of them are used"


def total_steps(config, per_epoch):
    """Updates of the run, from steps or epochs."""
    if (config.steps is None) == (config.epochs is None):
        raise ConfigError(f"give either steps or epochs; steps is {config.steps}, epochs is {config.epochs}")
    if config.epochs is not None and not 0 < config.epochs < math.inf:
        raise ConfigError(f"epochs must be a positive number, got {config.epochs}")
    total = config.steps if config.epochs is None else max(1, round(config.epochs * per_epoch))
    if total >= 2**31:
        raise ConfigError(f"epochs is {config.epochs:g}, which is {total:.3g} steps; expected fewer than 2^31")
    return total


def optimizer(settings, total):
    """SGD with the schedule of the config."""
    if settings.schedule not in SCHEDULES:
        raise ConfigError(f"optimizer.schedule cannot be {settings.schedule!r}{near(settings.schedule, SCHEDULES)}")
    if settings.warmup_steps and settings.schedule != "cosine":
        raise ConfigError(f"optimizer.warmup_steps is {settings.warmup_steps}; only the schedule cosine has a warm-up")
    if not 0 <= settings.warmup_steps < total:
        raise ConfigError(f"optimizer.warmup_steps must be from 0 to below {total}, got {settings.warmup_steps}")
    schedule = {
        "cosine_7_16": lambda: optim.cosine_7_16(settings.lr, total),
        "cosine": lambda: optim.warmup_cosine(settings.lr, total, settings.warmup_steps),
        "constant": lambda: settings.lr,
    }[settings.schedule]()
    return optim.sgd(
        schedule,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
        clip=settings.clip or None,
    )


def numbers(path, values, what, fits):
    """Refuses what is not a list of different numbers, all of which fit."""
    plain = all(type(value) in (int, float) for value in values)
    if not values or not plain or not all(fits(value) for value in values) or len(set(values)) < len(values):
        raise ConfigError(f"{path} must be different numbers, {what}; got {values!r}")


def shares(settings, *names):
    """Refuses what is not in [0, 1)."""
    for name in names:
        if not 0 <= settings[name] < 1:
            raise ConfigError(f"objective.{name} must be at least 0 and below 1, got {settings[name]}")


def known(config, path, values):
    """Refuses a value that is not one of those known."""
    found = config
    for part in path.split("."):
        found = found[part]
    if found not in values:
        raise ConfigError(f"{path} cannot be {found!r}{near(found, values)}")


run = run_of(study)
