"""Batches of a source that does not fit on the devices: every process reads the samples for its own devices."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from infojax.data import Source, stream
from infojax.objectives import Seeds, View
from infojax.parallel import from_local_rows, local_rows
from infojax.train.draw import indices


def feed(
    source: Source, view: View, place: int, seeds: Seeds, until: int, mesh: Mesh | None = None
) -> Callable[[int], dict[str, Any]]:
    """step -> {view: {"x", "labels", "index"}}, for `fit(feed=...)`: the batches that `draw` would take, read ahead.

    Args:
      source: a `Source`; view: the objective's view of it; place: the view's number among the objective's views.
      seeds: of the run; until: its last step; mesh: the same as for the step's transforms.
    Raises:
      DataError: from reading. ValueError: steps are not requested in order.
    """
    mine, waiting = local_rows(view.size, mesh), None  # type: ignore[arg-type]  # "all" is not fed
    chosen = jax.jit(lambda step: indices(view, place, seeds, step, len(source)))

    def own(step):
        return np.asarray(chosen(step))[mine]

    def batch(step):
        nonlocal waiting
        if waiting is None:
            waiting = stream(source, own, range(step, until))
        at, x, labels = next(waiting)
        if at != step:
            raise ValueError(f"step {step} was asked for, {at} is next")
        return {view.key: from_local_rows({"x": x, "labels": labels, "index": own(step)}, mesh)}

    return batch
