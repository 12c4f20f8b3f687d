"""Grokking: a transformer memorises arithmetic modulo a prime, and generalises much later."""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from infojax.data import in_memory, open_dataset
from infojax.evaluate import classify, on_sample
from infojax.measures.variability import NC1_CONVENTIONS
from infojax.objectives import Context, Optimizer, Supervised, with_settings
from infojax.objectives.regularizers import GRADIENTS, KINDS
from infojax.objectives.supervised import LOG_SOFTMAX
from infojax.tasks.build import (
    Study,
    arrays_of,
    check_choice,
    check_shares,
    classifier,
    facts_of,
    network,
    note_fewer,
    optimizer,
    optimizer_settings,
    supervised_settings,
    total_steps,
)
from infojax.tasks.config import ConfigError, training
from infojax.tasks.train import run_of
from infojax.train.loop import Evaluator, every


def defaults(name: str, chosen: Any) -> ConfigDict:
    """The recipe of Nanda et al. 2023 with full batches; presets set the rest."""
    config = training(name, chosen)
    config.task = "grokking"
    config.data = dict(name="modular", options=dict(p=113, operation=chosen.operation, train_fraction=0.3, seed=0))
    config.model = dict(name="transformer", dtype="float32", options=dict(dim=128, heads=4, width=512))
    config.objective = supervised_settings(transform="plain", batch_size="all", log_softmax="float64")
    config.optimizer = optimizer_settings(
        "adamw", lr=1e-3, b1=0.9, b2=0.98, weight_decay=1.0, decayed="all", schedule="warmup", warmup_steps=10
    )
    config.evaluate.batch_size = 16_384  # whole splits
    config.evaluate.accuracy_every = 100  # steps between evaluations of accuracy and loss alone
    return config


def study(config: Any) -> Study:
    """Modular arithmetic, a transformer, AdamW with decay of everything, full batches.

    Raises:
      ConfigError, DataError: names the key.
    """
    dataset = open_dataset(config.data.name, **config.data.options)
    source, test = (in_memory(dataset.split(split)) for split in ("train", "test"))
    total = total_steps(config, 1)
    for path, values in {
        "objective.log_softmax": LOG_SOFTMAX, "objective.transform": ("plain",), "objective.batch_size": ("all",),
        "objective.term": KINDS, "objective.to": GRADIENTS, "evaluate.convention": NC1_CONVENTIONS,
    }.items():  # fmt: skip
        check_choice(config, path, values)
    if config.evaluate.accuracy_every < 0:
        raise ConfigError(f"evaluate.accuracy_every must be at least 0, got {config.evaluate.accuracy_every}")
    check_shares(config.objective, "label_smoothing", "ema_decay")
    like = jax.ShapeDtypeStruct((2, *source.shape), jnp.int32)
    accuracy_every = config.evaluate.accuracy_every

    def evaluators(tools, due):
        for split in ("train", "test"):
            curve = on_sample(tools.through, tools.sample(split), (classify,))
            yield Evaluator("accuracy", lambda step: every(accuracy_every, total)(step) and not due(step), curve)
        yield from classifier(tools, due, config)

    return Study(
        objective=with_settings(Supervised(), config.objective),
        ctx=Context(
            nets={"net": network(config.model, dataset.num_classes, like)},
            optimizers={"main": Optimizer(optimizer(config.optimizer, total))},
            facts=facts_of(source, dataset.num_classes, total),
        ),
        transforms={"plain": lambda key, tokens: tokens},
        data={"train": arrays_of(source)},
        splits={"train": source, "test": test},
        evaluators=evaluators,
        per_epoch=None,
        notes=(*dataset.notes, *note_fewer(config, train=source, test=test)),
    )


run = run_of(study)
