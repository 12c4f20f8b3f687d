"""Grokking: a transformer that learns arithmetic modulo a prime by heart, and much later the rule."""

import jax
import jax.numpy as jnp
import numpy as np

from infojax.data import in_memory, open_dataset
from infojax.evaluate import classify, on_sample
from infojax.measures.variability import NC1_CONVENTIONS
from infojax.objectives import Context, Facts, Supervised
from infojax.objectives.regularizers import GRADIENTS, KINDS
from infojax.objectives.supervised import LOG_SOFTMAX
from infojax.tasks.config import ConfigError, training
from infojax.tasks.supervised import classifier, fewer, fields_of, known, network, shares, total_steps
from infojax.tasks.train import Study, run_of
from infojax.train import optim
from infojax.train.loop import Evaluator, every


def defaults(name, chosen):
    """The recipe of Nanda et al. 2023, full batches, without what presets decide."""
    config = training(name, chosen)
    config.task = "grokking"
    config.data = dict(name="modular", options=dict(p=113, operation=chosen.operation, train_fraction=0.3, seed=0))
    config.model = dict(name="transformer", dtype="float32", options=dict(dim=128, heads=4, width=512))
    config.objective = fields_of(Supervised) | dict(transform="plain", batch_size="all", log_softmax="float64")
    config.optimizer = dict(lr=1e-3, b1=0.9, b2=0.98, weight_decay=1.0, warmup_steps=10)
    config.evaluate.batch_size = 16_384  # whole splits
    config.evaluate.accuracy_every = 100  # steps between evaluations of accuracy and loss alone
    return config


def study(config):
    """Modular arithmetic, a transformer, AdamW with decay of everything, full batches.

    Raises:
      ConfigError, DataError: names the key.
    """
    dataset = open_dataset(config.data.name, **config.data.options)
    source, test = (in_memory(dataset.split(split)) for split in ("train", "test"))
    total = total_steps(config, 1)
    known(config, "objective.log_softmax", LOG_SOFTMAX)
    known(config, "objective.transform", ("plain",))
    known(config, "objective.batch_size", ("all",))
    known(config, "objective.term", KINDS)
    known(config, "objective.to", GRADIENTS)
    if config.evaluate.accuracy_every < 0:
        raise ConfigError(f"evaluate.accuracy_every must be at least 0, got {config.evaluate.accuracy_every}")
    known(config, "evaluate.convention", NC1_CONVENTIONS)
    shares(config.objective, "label_smoothing", "ema_decay")
    settings = config.optimizer
    if not 0 <= settings.warmup_steps < total:
        raise ConfigError(f"optimizer.warmup_steps must be from 0 to below {total}, got {settings.warmup_steps}")
    rate = optim.warmup(settings.lr, settings.warmup_steps)
    tx = optim.adamw(rate, b1=settings.b1, b2=settings.b2, weight_decay=settings.weight_decay, decayed=None)
    like = jax.ShapeDtypeStruct((2, *source.shape), jnp.int32)
    counts = tuple(np.bincount(source.labels, minlength=dataset.num_classes).tolist())
    accuracy_every = config.evaluate.accuracy_every

    def evaluators(look, due):
        for split in ("train", "test"):
            curve = on_sample(look.net, look.through, look.sample(split), (classify,))
            yield Evaluator("accuracy", lambda step: every(accuracy_every, total)(step) and not due(step), curve)
        yield from classifier(look, due, config)

    return Study(
        objective=Supervised(**config.objective),
        ctx=Context(
            {"net": network(config.model, dataset.num_classes, like)},
            {"main": tx},
            Facts(dataset.num_classes, total, counts),
        ),
        views={"plain": lambda key, tokens: tokens},
        data={"train": {"x": jnp.asarray(source.x), "labels": jnp.asarray(source.labels)}},
        sources={"train": source, "test": test},
        evaluators=evaluators,
        per_epoch=None,
        notes=(*dataset.notes, *fewer(config, train=source, test=test)),
    )


run = run_of(study)
