"""The batch of a step: a pure function of (seeds, step)."""

import jax
import jax.numpy as jnp

from infojax.data import order, order_with_replacement
from infojax.objectives.contract import stream


def indices(view, place, seeds, step, num_samples):
    """The samples that a view takes at a step; `place` is the view's number among the objective's views."""
    if view.size == "all":
        return jnp.arange(num_samples)
    key = jax.random.fold_in(stream("order", seeds.order), place)
    draw = order_with_replacement if view.replacement else order
    return draw(key, step, view.size, num_samples)


def draw(data, views, transforms, seeds, step, fed=None):
    """The batch of a step: source -> {transform: array, "labels": (n,), ...(, "index": (n,))}.

    Args:
      data: source -> {"x": (N, ...) samples as stored, "labels": (N,), ...}, on the device; what else a source has of
        its samples (other labels, as of `relabel`) is drawn along.
      views: of an objective, one a source.
      transforms: name -> function of (key, samples as stored), by name in the views.
      seeds: `Seeds`; the order decides which samples, the noise how they are transformed.
      fed: source -> {"x", "labels"(, "index")} of this step, for sources that were read by the host instead.
    """
    batch, noise = {}, jax.random.fold_in(stream("noise", seeds.noise), step)
    for place, view in enumerate(views):
        if fed and view.source in fed:
            rows = fed[view.source]
        else:
            source = data[view.source]
            chosen = indices(view, place, seeds, step, len(source["labels"]))
            rows = {name: array if view.size == "all" else array[chosen] for name, array in source.items()}
            rows["index"] = chosen
        key = jax.random.fold_in(noise, place)
        views_of = {
            name: transforms[name](jax.random.fold_in(key, i), rows["x"]) for i, name in enumerate(view.transforms)
        }
        along = {name: array for name, array in rows.items() if name != "x" and (view.index or name != "index")}
        batch[view.source] = views_of | along
    return batch
