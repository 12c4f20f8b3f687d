"""The batch of a step: a pure function of (seeds, step)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from infojax.data import order, order_with_replacement
from infojax.objectives import Batch, Seeds, View, stream


class Fed(NamedTuple):
    """Samples that the host has read for a step.

    Attributes:
      step: the step, () int32.
      rows: view -> {"x", "labels", "index"}.
    For a group of runs each leaf has a leading axis of runs; for several steps per call, an axis of steps before it.
    """

    step: Any
    rows: Mapping[str, Mapping[str, Any]]


def indices(view: View, place: int, seeds: Seeds, step: int | jax.Array, num_samples: int) -> jax.Array:
    """The samples that a view takes at a step; `place` is the view's number among the objective's views."""
    if view.size == "all":
        return jnp.arange(num_samples)
    key = jax.random.fold_in(stream("order", seeds.order), place)
    draw = order_with_replacement if view.replacement else order
    return draw(key, step, view.size, num_samples)  # type: ignore[arg-type]  # resolved to a number


def draw(
    data: Mapping[str, Mapping[str, jax.Array]],
    views: Sequence[View],
    transforms: Mapping[str, Callable[..., jax.Array]],
    seeds: Seeds,
    step: int | jax.Array,
    fed: Fed | None = None,
    parts: Mapping[str, jax.Array] = {},
) -> dict[str, Batch]:
    """The batch of a step: view -> `Batch`.

    Args:
      data: source -> {"x": (N, ...) samples as stored, "labels": (N,), ...}, on the device; whatever else a source has
        per sample (such as the labels of `relabel`) is drawn along as `Batch.extra`.
      views: the objective's views.
      transforms: name -> function of (key, samples as stored), by name in the views.
      seeds: `Seeds`; the order decides which samples, the noise how they are transformed.
      fed: the rows of this step, for views that the host reads instead; `data` may still have other arrays of their
        sources, which are drawn along.
      parts: source -> (P, n) rows of each of its parts, of which a run takes the one that its seeds name; a source that
        is not mentioned is used in full. What the host reads already comes from the right part.
    """
    batch, noise = {}, jax.random.fold_in(stream("noise", seeds.noise), step)
    for place, view in enumerate(views):
        given = fed.rows.get(view.key, {}) if fed is not None else {}
        source = data.get(view.source, {}) if given else data[view.source]
        part = parts[view.source][seeds.part] if view.source in parts else None
        if given:
            chosen = given["index"]
        elif part is None:
            chosen = indices(view, place, seeds, step, len(source["labels"]))
        else:
            chosen = part[indices(view, place, seeds, step, len(part))]
        whole = view.size == "all" and part is None
        rows = {name: array if whole else array[chosen] for name, array in source.items()}
        rows |= {"index": chosen, **given}
        key, x = jax.random.fold_in(noise, place), rows.pop("x")
        transformed = {
            name: transforms[transform](jax.random.fold_in(key, i), x)
            for i, (name, transform) in enumerate(view.named.items())
        }
        batch[view.key] = Batch(transformed, rows.pop("labels"), rows.pop("index"), rows)
    return batch
