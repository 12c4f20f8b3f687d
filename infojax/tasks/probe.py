"""Probes of a network's frozen features: linear by LARS, exact logistic regression, nearest neighbours, spectra.

The features of both splits are computed once; a linear classifier is then trained on them as any network is.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from infojax.commands import show
from infojax.data import Arrays, open_dataset, transforms
from infojax.evaluate import classify, on_sample
from infojax.evaluate.knn import knn_accuracies
from infojax.evaluate.probe import LinearLoss, accuracy, frozen_features, logistic_regression, standard
from infojax.measures.entropy import matrix_entropy, rankme
from infojax.models import LinearProbe
from infojax.models.output import Output
from infojax.objectives import Context, Model, Net, Optimizer, with_settings
from infojax.tasks.build import (
    Study,
    arrays_of,
    check_batch,
    facts_of,
    network,
    normalisation,
    note_fewer,
    optimizer,
    optimizer_settings,
    total_steps,
)
from infojax.tasks.build.saved import saved
from infojax.tasks.config import ConfigError, buildable, training
from infojax.tasks.train import train
from infojax.train.loop import Evaluator, at
from infojax.train.networks import as_net

# The network of features that are given.
GIVEN = Net(lambda key: ((), ()), lambda params, state, x, **_: (Output(None, x, {}), state))  # type: ignore[arg-type]  # no head


class Frozen(NamedTuple):
    """What is probed.

    Attributes:
      name: of its network; data: of its data set.
      model: at fixed weights; transform: of stored samples.
      splits: "train" and "test" -> `Source`; num_classes: C of these.
      notes: lines on where it comes from.
    """

    name: str
    data: str
    model: Model
    transform: Callable
    splits: Mapping[str, Any]
    num_classes: int
    notes: tuple[str, ...]


def defaults(name: str, chosen: ConfigDict) -> ConfigDict:
    """MAE's recipe on features that are computed once, without what presets decide."""
    config = training(name, chosen)
    config.task = "probe"
    config.checkpoint.run = ""  # the folder of a run; none: `model` as it begins, or with its weights, on `data`
    config.data = dict(name=chosen.data, dir="", options=dict())  # "": that of the run, or digits
    config.model = dict(name=chosen.model, dtype="float32", options=dict(), weights="")
    config.frozen = dict(run=0, weights="raw", layer="embedding", batch_size=512)  # which of several runs; or "ema"
    config.objective = dict(batch_size=256, label_smoothing=0.0)
    config.optimizer = optimizer_settings("lars", lr=0.1, weight_decay=0.0, schedule="cosine")
    config.logistic = dict(c=1.0, tolerance=1e-4, steps=1000)  # scikit-learn's C and tol; 0 steps: none
    config.knn = dict(k=(20,), rule="cosine", temperature=0.07)  # () for none
    config.spectrum = dict(samples=10_000)  # of each split, at most; 0: none
    config.evaluate.points = 8
    return config


def run(config: Any, workdir: str | Path, dry_run: bool = False) -> Any:
    """Probes a checkpoint or a model; the last state of the linear probe."""
    with buildable("the frozen network or its probe"):
        frozen = frozen_of(config)
        resolved = ConfigDict(config.to_dict())
        resolved.data.name, resolved.model.name = frozen.data, f"linear probe of {frozen.name}"
        found = study(resolved, frozen)
    return train(found, resolved, workdir, dry_run)


def frozen_of(config: Any) -> Frozen:
    """The network of a run folder, or of the config itself.

    Raises:
      ConfigError, DataError: names the key.
    """
    own = config.checkpoint.run and not config.data.name
    name = "" if own else config.data.name or "digits"
    dataset = None if own else open_dataset(name, config.data.dir or None, **config.data.options)
    splits = {} if dataset is None else {split: dataset.split(split) for split in ("train", "test")}
    if config.checkpoint.run:
        found = saved(config.checkpoint.run, config.frozen.run, config.frozen.weights)
        of = found.study
        name = name or found.settings["data"]["name"]
        classes = dataset.num_classes if dataset else of.ctx.facts.num_classes
        notes = (
            f"probed: {found.settings['model']['name']} of {config.checkpoint.run} after {found.step:,} steps, "
            f"{config.frozen.weights} weights, {config.frozen.layer}; config.model is not used",
            *found.notes,
        )
        splits = splits or {split: of.splits[split] for split in ("train", "test")}  # novel classes have other labels
        check_shapes(splits, of.splits["train"].shape)
        return Frozen(
            found.settings["model"]["name"], name, found.model, of.transforms["plain"], splits, classes, notes
        )
    assert dataset is not None
    if (config.frozen.run, config.frozen.weights) != (0, "raw"):
        raise ConfigError("frozen.run and frozen.weights choose a part of a run: give it, --config.checkpoint=RUN")
    if name == "features":
        return Frozen(
            name, name, Model((), (), GIVEN), lambda key, x: x, splits, dataset.num_classes, tuple(dataset.notes)
        )
    source = splits["train"]
    mean, std, told = normalisation(dataset, source)
    net = network(config.model, dataset.num_classes, jax.ShapeDtypeStruct((2, *source.shape), jnp.float32))
    params, model_state = net.init(jax.random.key(config.seed))
    model = Model(params, model_state, net)
    origin = f"the weights of {config.model.weights}" if config.model.weights else "untrained weights"
    notes = (*told, f"probed: {config.model.name} with {origin}, {config.frozen.layer}")
    plain = transforms(mean, std, pad=0, flip=False)["plain"]
    return Frozen(config.model.name, name, model, plain, splits, dataset.num_classes, notes)


def study(config: Any, frozen: Frozen | None = None) -> Study:
    """A linear classifier of frozen features, and what else is measured of these before its first step.

    Raises:
      ConfigError, DataError: names the key.
    """
    frozen = frozen_of(config) if frozen is None else frozen
    check_layer(config.frozen.layer, frozen)
    of, features = config.frozen, {}
    for split, source in frozen.splits.items():
        if frozen.model.net is not GIVEN and jax.process_index() == 0:  # a large network takes minutes
            show(f"computing the features of {len(source):,} samples of {split} with {frozen.name}")
        features[split] = Arrays(*frozen_features(frozen.model, frozen.transform, source, of.layer, of.batch_size))
    train, test = features["train"], features["test"]
    check_batch(config.objective.batch_size, len(train))
    if config.knn.k and max(config.knn.k) > len(train):
        raise ConfigError(f"knn.k must be at most {len(train)}, the training samples; got {max(config.knn.k)}")
    per_epoch = len(train) / config.objective.batch_size
    total = total_steps(config, per_epoch)
    net = as_net(LinearProbe(frozen.num_classes), jax.ShapeDtypeStruct((2, *train.shape), jnp.float32))

    def evaluators(tools, due):
        for split in ("train", "test"):
            yield Evaluator("probe", due, on_sample(tools.through, tools.sample(split), (classify,)))
        yield Evaluator("features", at(0), lambda _: measured(config, features, frozen.num_classes), of_all_runs=True)

    return Study(
        objective=with_settings(LinearLoss(), config.objective),
        ctx=Context({"net": net}, {"main": Optimizer(optimizer(config.optimizer, total))},
                    facts_of(train, frozen.num_classes, total)),
        transforms={"plain": lambda key, x: x},
        data={"train": arrays_of(train)},
        splits=features,
        evaluators=evaluators,
        per_epoch=per_epoch,
        notes=(*frozen.notes, *note_fewer(config, train=train, test=test)),
    )  # fmt: skip


def measured(config: Any, features: Mapping[str, Arrays], num_classes: int) -> Iterator[dict[str, Any]]:
    """Rows of both splits: what needs no training by steps."""
    train, test = features["train"], features["test"]
    found: dict[str, dict[str, Any]] = {"train": {}, "test": {}}
    if config.logistic.steps:
        scaled = {split: standard(train.x)(source.x) for split, source in features.items()}
        settings = config.logistic
        fitted = logistic_regression(
            scaled["train"], train.labels, num_classes, settings.c, tolerance=settings.tolerance, steps=settings.steps
        )
        if not fitted.converged:
            what = f"its gradient is {fitted.gradient:.1e}, and logistic.tolerance {settings.tolerance:.1e}"
            show(f"logistic regression was stopped after {fitted.steps} steps: {what}")
        for split, source in features.items():
            found[split]["accuracy_logistic"] = accuracy(fitted.head, scaled[split], source.labels)
    if config.knn.k:
        rule, temperature = config.knn.rule, config.knn.temperature
        of_k = knn_accuracies(test.x, test.labels, train.x, train.labels, num_classes, config.knn.k, rule, temperature)
        kind = "" if rule == "cosine" else f"_{rule}"
        found["test"] |= {f"accuracy_knn{kind}_{k}": value for k, value in of_k.items()}
    if config.spectrum.samples:
        for split, source in features.items():
            found[split] |= spectrum(source.x, config.spectrum.samples)
    for split, row in found.items():
        if row:
            yield {"run": 0, "split": split, "n": len(features[split])} | row


def spectrum(x: np.ndarray, samples: int) -> dict[str, Any]:
    """Entropy and ranks of the features of at most `samples` rows, drawn once."""
    count = min(samples, len(x))
    z = x[np.sort(np.random.default_rng(0).permutation(len(x))[:count])]
    entropy = float(matrix_entropy(z))
    return {
        "entropy_features": entropy, "effective_rank_from_gram": float(np.exp(entropy)), "rankme": float(rankme(z)),
        "embedding_dim": z.shape[1], "spectrum_samples": count,
    }  # fmt: skip


def check_layer(layer: str, frozen: Frozen) -> None:
    """Refuses what the network does not return."""
    x = frozen.splits["train"].read(np.arange(2))[0]
    output = jax.eval_shape(lambda model, x: model(frozen.transform(None, x)), frozen.model, x)
    if layer != "embedding" and layer not in output.features:
        raise ConfigError(f"frozen.layer cannot be {layer!r}; there is embedding, {', '.join(output.features)}")


def check_shapes(splits: Mapping[str, Any], shape: tuple[int, ...]) -> None:
    """Refuses samples of another shape than the network was trained on."""
    if splits["train"].shape != shape:
        raise ConfigError(f"data: samples have the shape {splits['train'].shape}, the network was trained on {shape}")
