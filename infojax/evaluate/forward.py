"""What a network says of a fixed sample, at fixed weights."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from infojax.data import order
from infojax.parallel import here


class Sample(NamedTuple):
    """A fixed part of a split, on the device as it is stored.

    Attributes:
      split: its name; x: (n, ...) samples; labels: (n,) int32.
    """

    split: str
    x: jax.Array
    labels: jax.Array


def fixed_sample(split, source, n=None, seed=0):
    """The whole split, or n of its samples drawn once without replacement."""
    chosen = np.arange(len(source)) if n is None or n >= len(source) else np.asarray(_first(n, len(source), seed))
    x, labels = source.read(np.sort(chosen))
    return Sample(split, jnp.asarray(x), jnp.asarray(labels))


@partial(jax.jit, static_argnums=(0, 1))
def _first(n, total, seed):
    return order(jax.random.key(seed), 0, n, total)


class Said(NamedTuple):
    """logits (n, C) and embedding (n, D), float32."""

    logits: jax.Array
    embedding: jax.Array


class Seen(NamedTuple):
    """What the measures look at: a sample, and what a network says of it, whole in every process.

    Attributes:
      said: "raw" and each average -> `Said`.
      head, bias: (C, D) and (C,) of the classifier, raw; None where the network has none.
    """

    sample: Sample
    said: dict[str, Said]
    head: jax.Array | None
    bias: jax.Array | None


def on_sample(net, through, sample, measures):
    """An evaluator's `run`: the network "net" sees the sample once with each set of weights, then all measures look.

    Outputs that are not finite are measured by nothing: decompositions of them fail or never end. "not_finite" then
    names the output; after a loss that is not finite, though the logits are, it names that loss.

    Args:
      through: `forward` of the net, one for all samples: each is compiled by itself.
      measures: generators of (name, value) of `Seen`; of their values only losses have to be finite.
    """

    def run(evaluated):
        said = {name: through(p["net"], state["net"], sample.x) for name, (p, state) in evaluated.items()}
        head, bias = net.head(here(evaluated["raw"][0]["net"])) if net.head else (None, None)
        yield "split", sample.split
        yield "n", len(sample.labels)
        found = not_finite(said)
        for measure in () if found else measures:
            for name, value in measure(Seen(sample, said, head, bias)):
                yield name, value
                if not found and name.split("_")[0] == "loss" and not np.isfinite(value):
                    found = name
        if found:
            yield "not_finite", found

    return run


def not_finite(said):
    """Name of the first output that is not finite, as "embedding" or "logits_ema", of {"raw": `Said`, ...}; or None."""
    for name, outputs in said.items():
        for output, values in (("embedding", outputs.embedding), ("logits", outputs.logits)):
            if not jnp.all(jnp.isfinite(values)):
                return output if name == "raw" else f"{output}_{name}"
    return None


def forward(net, transform, batch_size=512, devices=1):
    """(params, model_state, x) -> `Said` of all samples, batch by batch in evaluation mode; one program for all sizes.

    Where the transform is sharded the devices share each batch; what they say is gathered on one of every process.

    Args:
      net: a `Net`; transform: of stored samples, as "plain" of `transforms`.
      devices: of the mesh; batches are padded until it divides them. Not so those of a net that is `of_batch`: its last
        batch is what is left, and is compiled by itself.
    """

    @jax.jit
    def batch(params, model_state, x):
        output, _ = net.apply(params, model_state, transform(None, x), train=False)
        return Said(output.logits, output.embedding)

    def run(params, model_state, x):
        size = min(batch_size, len(x)) if net.of_batch else -(-min(batch_size, len(x)) // devices) * devices
        starts, pad = range(0, len(x), size), not net.of_batch
        rows = (x[start : start + size] for start in starts)
        parts = [here(batch(params, model_state, _padded(part, size) if pad else part)) for part in rows]
        return Said(*(jnp.concatenate(part)[: len(x)] for part in zip(*parts, strict=True)))

    return run


def _padded(x, size):
    return jnp.pad(x, ((0, size - len(x)),) + ((0, 0),) * (x.ndim - 1)) if len(x) < size else x
