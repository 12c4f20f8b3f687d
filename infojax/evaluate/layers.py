"""Layers of a network, and their geometric compression: tr(S_W S_B^+) in two passes over one partition of a sample."""

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infojax.evaluate.forward import Sample
from infojax.measures.moments import ClassStats
from infojax.measures.variability import between_inverse, equi_separation, nc1_from_energy, within_energy
from infojax.objectives import Model, Net
from infojax.suggestions import suggest

INPUT = "input"


class LayerError(ValueError):
    """A pattern that matches no layer; the message names similar ones."""


def layers(model: Model, transform: Callable[..., jax.Array], x: jax.Array) -> dict[str, jax.Array]:
    """{name: (n, ...)} for a batch of stored samples, by depth: "input", the features, "embedding", "logits"."""
    x = transform(None, x)
    output = model(x)
    return {INPUT: x, **output.features, "embedding": output.embedding, "logits": output.logits}


def layer_shapes(net: Net, transform: Callable[..., jax.Array], x: Any) -> dict[str, tuple[int, ...]]:
    """{name: shape of one sample} of `layers`, by depth, for an untrained network; nothing is computed."""

    def outputs(x):
        found = layers(Model(*net.init(jax.random.key(0)), net), transform, x)
        names[:] = found  # eval_shape returns dicts sorted
        return found

    names: list[str] = []
    found = jax.eval_shape(outputs, jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype))
    return {name: found[name].shape[1:] for name in names}


def chosen_layers(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The layers that match any of the patterns (shell wildcards), in the order of `names`.

    Raises:
      LayerError: names the first pattern that matches none.
    """
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise LayerError(f"no layer {pattern!r}{suggest(pattern, list(names))}")
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def partition(n: int, batch_size: int) -> list[slice]:
    """The parts of a sample in order, the last possibly shorter: every measurement of layers uses them.

    The outputs of networks with batch statistics in evaluation (f+, f-) depend on the whole batch: passes that split a
    sample differently would see different features, as would a padded batch. The order of the sample must not depend on
    labels: sorted by class, it would make batches of one class.
    """
    return [slice(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]


def layerwise_nc1(
    transform: Callable[..., jax.Array],
    num_classes: int,
    batch_size: int,
    patterns: Sequence[str] = ("*",),
    convention: str = "thesis",
) -> Callable[..., dict[str, Any]]:
    """(`Model`, x, labels, stats=None) -> {layer: tr(S_W S_B^+) (0-d)} by depth.

    All layers in one forward pass per batch, in two passes over one `partition`; memory O(C D) per layer and one batch
    of features. A layer whose features are not finite gives nan. With `stats`, {layer: `ClassStats`} of an earlier
    first pass over all classes, their means are used, and only the second pass is made.

    Args:
      transform: of stored samples, such as "plain" of `transforms`.
      patterns: for names of `layers`.
      convention: a key of `NC1_CONVENTIONS`.
    References:
      Cheong 2025, Algorithm 1 with its factors of C / N corrected, for any class counts.
    """

    def features(model, x):
        found = layers(model, transform, x)
        return {name: found[name].reshape(len(x), -1).astype(jnp.float32) for name in chosen_layers(found, patterns)}

    @partial(jax.jit, donate_argnums=0)
    def first(stats, model, x, labels):
        found = features(model, x)
        return {name: stats[name].update(z, labels) for name, z in found.items()}

    @partial(jax.jit, donate_argnums=0)
    def second(energies, inverses, stats, model, x, labels):
        found = features(model, x)
        return {
            name: energy + within_energy(inverses[name], stats[name], found[name], labels)
            for name, energy in energies.items()
        }

    def run(model, x, labels, stats=None):
        parts, shapes = partition(len(x), batch_size), layer_shapes(model.net, transform, x)
        names = chosen_layers(shapes, patterns)
        count = jnp.bincount(labels, length=num_classes).astype(jnp.float32)
        if stats and all(bool(jnp.all((of.count > 0) | (count == 0))) for of in stats.values()):
            stats = {name: replace(of, count=count) for name, of in stats.items()}  # the energies are of this sample
        else:
            stats = {name: ClassStats.init(num_classes, int(np.prod(shapes[name]))) for name in names}
            for part in parts:
                stats = first(stats, model, x[part], labels[part])
        inverses = {
            name: between_inverse(found, convention=convention)
            for name, found in stats.items()
            if jnp.all(jnp.isfinite(found.mean))  # else its decomposition fails
        }
        if not inverses:
            return dict.fromkeys(names, jnp.nan)
        energies = {name: jnp.zeros(num_classes) for name in inverses}
        for part in parts:
            energies = second(energies, inverses, stats, model, x[part], labels[part])
        found = {name: nc1_from_energy(energies[name], stats[name], convention=convention)[0] for name in inverses}
        return {name: found.get(name, jnp.nan) for name in names}

    return run


def geometric(
    transform: Callable[..., jax.Array],
    samples: Sequence[Sample],
    num_classes: int,
    batch_size: int,
    patterns: Sequence[str],
    convention: str = "thesis",
) -> Callable[..., Iterator[dict[str, Any]]]:
    """An `Evaluator.run` over all runs: one row per split and layer with nc1, one per split with equi_separation.

    equi_separation: Pearson correlation of log nc1 with the index of the layer among those chosen. If a model has
    "moments" (`Epochs`), these are the first pass of the split "train".
    """
    measure = layerwise_nc1(transform, num_classes, batch_size, patterns, convention)

    def run(models):
        for number, of_run in enumerate(models):
            moments, model = of_run["raw"].extra.get("moments"), replace(of_run["raw"], extra={})
            for sample in samples:
                stats = moments if sample.split == "train" else None  # empty before the first epoch
                found = measure(model, sample.x, sample.labels, stats)
                shapes = layer_shapes(model.net, transform, sample.x)
                place = {"run": number, "split": sample.split, "n": len(sample.labels), "convention": convention}
                for name, value in found.items():
                    of_layer = {"layer": name, "depth": list(shapes).index(name), "dim": int(np.prod(shapes[name]))}
                    yield place | of_layer | {"nc1": float(value)}
                yield place | {"equi_separation": float(equi_separation(jnp.stack(list(found.values()))))}

    return run
