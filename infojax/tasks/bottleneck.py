"""Encoders trained by the decodable information bottleneck, at one beta or several."""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from infojax.data import in_memory, open_dataset, transforms
from infojax.data.splits import shuffled
from infojax.evaluate import Decoding, layer_shapes, usable
from infojax.evaluate.usable import label_entropy
from infojax.measures.usable import relabel
from infojax.measures.variability import NC1_CONVENTIONS
from infojax.objectives import Bottleneck, Context, Net, Optimizer, flat_settings
from infojax.objectives.bottleneck import copies
from infojax.tasks.build import (
    OPTIMIZERS,
    Study,
    all_options,
    arrays_of,
    check_batch,
    check_choice,
    classifier,
    facts_of,
    network,
    normalisation,
    note_fewer,
    optimizer,
    optimizer_settings,
    subset,
    total_steps,
)
from infojax.tasks.build.study import Tools
from infojax.tasks.config import ConfigError, training
from infojax.tasks.train import run_of
from infojax.train.loop import Evaluator, at


def defaults(name: str, chosen: Any) -> ConfigDict:
    """Adam for both players, as in Dubois et al. and the thesis; presets set the rest."""
    config = training(name, chosen)
    config.task = "bottleneck"
    config.data = dict(name=chosen.data, dir="", options=dict(), train_samples=0, subset_seed=0, pad=4)  # 0: all
    config.model = dict(name=chosen.model, dtype="float32", options=all_options(chosen.model))
    config.objective = flat_settings(Bottleneck())
    config.optimizer = optimizer_settings(
        "adamw", lr=2e-3, weight_decay=0.01, schedule="exponential",
        final=1.0,  # share of the learning rate at the end
        decoders=1.0,  # learning rate of the digit decoders over that of the net
    )  # fmt: skip
    # Decoders that read the frozen encoder at the end, with the learning rate of those of the game.
    config.fresh = dict(epochs=100, batch_size=250, rest_loss=0.02)
    return config


def study(config: Any) -> Study:
    """Data whose labels are also written in digits, a network cut in two, decoders of digits that have the form of its
    second part, and an optimiser for each player.

    Raises:
      ConfigError, DataError: names the key.
    """
    dataset = open_dataset(config.data.name, config.data.dir or None, **config.data.options)
    num_classes = dataset.num_classes
    source, test = (shuffled(of) for of in map(in_memory, (subset(dataset, config.data), dataset.split("test"))))
    objective = checked(config, len(source))
    per_epoch = len(source) / objective.batch_size  # type: ignore[operator]  # a number: "all" was refused
    total = total_steps(config, per_epoch)
    mean, std, notes = normalisation(dataset, source)
    views = transforms(mean, std, pad=config.data.pad, flip=dataset.flip)
    check_choice(config, "objective.transform", views)
    check_choice(config, "evaluate.convention", NC1_CONVENTIONS)
    digits = relabel(source.labels, num_classes)
    like = jax.ShapeDtypeStruct((2, *source.shape), jnp.float32)
    net = network(config.model, num_classes, like)
    shapes = jax.eval_shape(lambda x: net.apply(*net.init(jax.random.key(0)), x, train=False)[0].features, like)
    check_choice(config, "objective.layer", tuple(shapes))
    decoder = network(config.model, num_classes, shapes[objective.layer], start=objective.layer)

    def evaluators(tools, due):
        """Those of a classifier, and at the end newly trained decoders, for other digits than in training."""
        yield from classifier(tools, due, config)
        samples = [tools.sample(split) for split in ("train", "test")]
        shapes = layer_shapes(tools.net, tools.transform, samples[0].x)
        decoding = fresh_decoding(config, tools, decoder, num_classes)
        for kind in ("sufficiency", "minimality"):
            seeds = [run.facts["seed"] for run in tools.runs]
            read = usable(kind, tools.net, samples, shapes, (objective.layer,), decoding, seeds)
            yield Evaluator("usable", at(total), read, of_all_runs=True)

    return Study(
        objective=objective,
        ctx=Context(
            nets={"net": net, "digits": copies(decoder, digits.shape[1])},
            optimizers={
                "main": Optimizer(optimizer(config.optimizer, total), ("net",)),
                "decoders": Optimizer(
                    optimizer(config.optimizer, total, objective.inner, config.optimizer.decoders), ("digits",)
                ),
            },
            facts=facts_of(source, num_classes, total),
        ),
        transforms=views,
        data={"train": arrays_of(source, digits=digits)},
        splits={"train": source, "test": test},
        evaluators=evaluators,
        per_epoch=per_epoch,
        notes=(*notes, *note_fewer(config, train=source, test=test)),
        constants={
            "entropies": {
                "labels": jnp.asarray(label_entropy(source.labels), jnp.float32),
                "digits": jnp.array([label_entropy(digit) for digit in digits.T], jnp.float32),
            }
        },
    )


def checked(config: Any, num_samples: int) -> Bottleneck:
    """The objective of a config."""
    settings = config.objective
    check_batch(settings.batch_size, num_samples)
    betas = config.sweep["values"] if config.sweep.name == "beta" else ()
    for path, value, least in (
        *(("objective.beta", beta, 0) for beta in (settings.beta, *betas)),
        ("objective.inner", settings.inner, 1),
        ("objective.reset_every", settings.reset_every, 0),
        ("fresh.epochs", config.fresh.epochs, 1),
        ("fresh.batch_size", config.fresh.batch_size, 1),
        ("fresh.rest_loss", config.fresh.rest_loss, 0),
    ):
        if not value >= least:
            raise ConfigError(f"{path} must be at least {least}, got {value}")
    for name in ("lr", "decoders", "final"):
        if not config.optimizer[name] > 0:
            raise ConfigError(f"optimizer.{name} must be positive, got {config.optimizer[name]}")
    return Bottleneck(**settings)


def fresh_decoding(config: Any, tools: Tools, decoder: Net, num_classes: int) -> Decoding:
    """How new decoders are trained on the frozen encoder at the end of a run."""
    return Decoding(
        net_of=lambda layer: decoder,
        tx=OPTIMIZERS[config.optimizer.name](config.optimizer, config.optimizer.lr * config.optimizer.decoders),
        transform=tools.transform, num_classes=num_classes, batch_size=config.fresh.batch_size,
        measured_batch=config.evaluate.batch_size, epochs=config.fresh.epochs,
        rest_loss=config.fresh.rest_loss, mesh=tools.mesh,
    )  # fmt: skip


run = run_of(study)
