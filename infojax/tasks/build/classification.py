"""Supervised classification: the study that several tasks build on, and its recipe."""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from infojax.data import open_dataset, transforms
from infojax.measures.variability import NC1_CONVENTIONS
from infojax.objectives import Context, Facts, Optimizer, Supervised, flat_settings, with_settings
from infojax.objectives.regularizers import GRADIENTS, KINDS
from infojax.objectives.supervised import LOG_SOFTMAX
from infojax.tasks.build.checks import check_batch, check_choice, check_shares, note_term, total_steps
from infojax.tasks.build.data import facts_of, loaded, normalisation, note_fewer, placed, reading, subset
from infojax.tasks.build.evaluators import classifier
from infojax.tasks.build.networks import network
from infojax.tasks.build.optimizers import optimizer, optimizer_settings
from infojax.tasks.build.study import Study
from infojax.tasks.config import training


def classification_defaults(name: str, chosen: Any) -> ConfigDict:
    """The config of a classifier with TorchSSL's optimiser, which the papers use; presets set the rest."""
    config = training(name, chosen)
    config.task = "supervised"
    config.data = dict(
        name=chosen.data, dir="", options=dict(), train_samples=0, subset_seed=0, pad=4,  # 0 samples: all
        **reading(),
    )  # fmt: skip
    config.model = dict(
        name=chosen.model, dtype="float32", options=dict(), weights=""
    )  # a checkpoint: a file, or a run
    config.objective = supervised_settings(term=chosen.get("term", "off"))
    config.optimizer = optimizer_settings("sgd", lr=0.03, weight_decay=5e-4, schedule="cosine_7_16")
    return config


def supervised_settings(**changes: Any) -> dict[str, Any]:
    """The section "objective" of `Supervised`."""
    found = flat_settings(Supervised()) | changes
    del found["replacement"]
    return found


def torchssl(
    name: str,
    chosen: Any,
    *,
    lr: float,
    weight_decay: float,
    batch_size: int,
    schedule: str,
    steps: int | None = None,
    epochs: float | None = None,
) -> ConfigDict:
    """A preset of a supervised study of the papers, which train as TorchSSL does; its numbers are in the config."""
    tiny = chosen.preset == "tiny"
    if not chosen.model:
        chosen.model = "wide_resnet" if tiny else "wrn_28_8" if chosen.data == "cifar100" else "wrn_28_2"
    config = classification_defaults(name, chosen)
    config.optimizer.update(lr=lr, weight_decay=weight_decay, schedule=schedule)
    config.objective.batch_size = batch_size
    config.steps, config.epochs = steps, epochs
    if not tiny:
        config.evaluate.train_samples = 10_000  # of 50,000: measuring takes a few per cent of the time
    if chosen.preset == "paper":
        config.log.every, config.evaluate.every, config.checkpoint.every = 500, 5000, 5000
    elif chosen.preset == "small":
        config.log.every, config.checkpoint.every = 200, 5000
    else:
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


def classification(config: Any) -> Study:
    """Data, network, optimiser and evaluators of a classifier.

    Raises:
      ConfigError, DataError: names the key.
    """
    dataset = open_dataset(config.data.name, config.data.dir or None, **config.data.options)
    source, reads = loaded(config, subset(dataset, config.data))
    test = dataset.split("test")
    check_batch(config.objective.batch_size, len(source))
    per_epoch = len(source) / config.objective.batch_size  # not a whole number: an epoch may end within a batch
    total = total_steps(config, per_epoch)
    mean, std, notes = normalisation(dataset, source)
    views = transforms(mean, std, pad=config.data.pad, flip=dataset.flip)
    for path, values in {
        "objective.transform": views, "objective.term": KINDS, "objective.to": GRADIENTS,
        "objective.log_softmax": LOG_SOFTMAX, "evaluate.convention": NC1_CONVENTIONS,
    }.items():  # fmt: skip
        check_choice(config, path, values)
    check_shares(config.objective, "label_smoothing", "ema_decay")
    net = network(config.model, dataset.num_classes, jax.ShapeDtypeStruct((2, *source.shape), jnp.float32))
    return Study(
        objective=with_settings(Supervised(), config.objective),
        ctx=Context(
            nets={"net": net},
            optimizers={"main": Optimizer(optimizer(config.optimizer, total))},
            facts=facts_of(source, dataset.num_classes, total) if not reads else Facts(dataset.num_classes, total),
        ),
        transforms=views,
        **placed({"train": source}),
        splits={"train": source, "test": test},
        evaluators=lambda tools, due: classifier(tools, due, config),
        per_epoch=per_epoch,
        notes=(
            *notes,
            *reads,
            *note_fewer(config, train=source, test=test),
            *note_term(config.objective, config.sweep),
        ),
    )
