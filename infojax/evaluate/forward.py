"""Outputs of a network on a fixed sample, at fixed weights."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from infojax.data import Chosen, order
from infojax.data.source import Source
from infojax.objectives import Head, Model
from infojax.parallel import local_copy


class Sample(NamedTuple):
    """A fixed part of a split, in its stored form.

    Attributes:
      split: its name; x: (n, ...) samples, an array on the device or `Unread`; labels: (n,) int32.
    """

    split: str
    x: Any
    labels: jax.Array


class Unread:
    """Samples of a source, (n, ...), which are read whenever some are taken: x[20:40]."""

    def __init__(self, source: Source) -> None:
        self.source, self.shape = source, (len(source), *source.shape)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, rows: Any) -> jax.Array:
        return jnp.asarray(self.source.read(np.arange(len(self))[rows])[0])


def fixed_sample(split: str, source: Source, n: int | None = None, seed: int = 0, read: bool = True) -> Sample:
    """The whole split, or n of its samples drawn once without replacement.

    Args:
      read: whether it lies on the device, or is read from the source each time it is used.
    """
    chosen = np.arange(len(source)) if n is None or n >= len(source) else np.asarray(_first(n, len(source), seed))
    if not read:
        part = Chosen(source, np.sort(chosen))
        return Sample(split, Unread(part), jnp.asarray(part.labels))
    x, labels = source.read(np.sort(chosen))
    return Sample(split, jnp.asarray(x), jnp.asarray(labels))


@partial(jax.jit, static_argnums=(0, 1))
def _first(n, total, seed):
    return order(jax.random.key(seed), 0, n, total)


class Outputs(NamedTuple):
    """logits (n, C), or None for a network without a classifier, and embedding (n, D), float32."""

    logits: jax.Array | None
    embedding: jax.Array


class Evaluation(NamedTuple):
    """The input of the measures: a sample and a network's outputs on it, complete in every process.

    Attributes:
      outputs: "raw" and each average -> `Outputs`.
      head: `Head` of the raw classifier, or None.
    """

    sample: Sample
    outputs: dict[str, Outputs]
    head: Head | None


def on_sample(
    through: Callable[..., Outputs],
    sample: Sample,
    measures: Sequence[Callable[[Evaluation], Iterable[tuple[str, Any]]]],
) -> Callable[[Mapping[str, Model]], Iterator[tuple[str, Any]]]:
    """An evaluator's `run`: one pass of the sample through the network with each set of weights, then all measures.

    Outputs that are not finite are not measured: decompositions of them fail or never end. "not_finite" then names the
    output; if a loss is not finite although the logits are, it names that loss.

    Args:
      through: `forward`, shared by all samples: each `forward` is compiled separately.
      measures: generators of (name, value) from `Evaluation`; of their values only losses have to be finite.
    """

    def run(models):
        outputs = {name: through(model, sample.x) for name, model in models.items()}
        yield "split", sample.split
        yield "n", len(sample.labels)
        found = not_finite(outputs)
        for measure in () if found else measures:
            for name, value in measure(Evaluation(sample, outputs, local_copy(models["raw"].head))):
                yield name, value
                if not found and name.split("_")[0] == "loss" and not np.isfinite(value):
                    found = name
        if found:
            yield "not_finite", found

    return run


def not_finite(outputs: Mapping[str, Outputs]) -> str | None:
    """Name of the first output that is not finite, such as "embedding" or "logits_ema"; None if all are."""
    for name, found in outputs.items():
        for output, values in (("embedding", found.embedding), ("logits", found.logits)):
            if values is not None and not jnp.all(jnp.isfinite(values)):
                return output if name == "raw" else f"{output}_{name}"
    return None


def forward(
    transform: Callable[..., jax.Array], batch_size: int = 512, devices: int = 1
) -> Callable[[Model, jax.Array], Outputs]:
    """(`Model`, x) -> `Outputs` of all samples, batch by batch in evaluation mode; one program for all sizes.

    If the transform is sharded, the devices share each batch; the outputs are gathered on one device of every process.

    Args:
      transform: of stored samples, such as "plain" of `transforms`.
      devices: number in the mesh; batches are padded to a multiple of it, except for a net that is `of_batch`: its last
        batch is the remainder, and is compiled separately.
    """

    @jax.jit
    def batch(model, x):
        output = model(transform(None, x))
        return Outputs(output.logits, output.embedding)

    def run(model, x):
        of_batch = model.net.of_batch
        size = min(batch_size, len(x)) if of_batch else -(-min(batch_size, len(x)) // devices) * devices
        rows = (x[start : start + size] for start in range(0, len(x), size))
        model = replace(model, extra={})
        parts = [local_copy(batch(model, part if of_batch else _padded(part, size))) for part in rows]
        return jax.tree.map(lambda *part: jnp.concatenate(part)[: len(x)], *parts)

    return run


def _padded(x, size):
    return jnp.pad(x, ((0, size - len(x)),) + ((0, 0),) * (x.ndim - 1)) if len(x) < size else x
