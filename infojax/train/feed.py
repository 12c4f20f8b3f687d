"""Batches of sources that do not fit on the devices: each process reads the samples of its own devices, ahead of time.

The samples are those that a step would draw from a source on the devices (`infojax.train.draw.indices`), to the bit, so
nothing about reading is in a checkpoint: a run continues in the middle of an epoch as if it had never stopped.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from infojax.data import Source
from infojax.objectives import Seeds, View
from infojax.parallel import from_local_rows, local_rows, replicated
from infojax.train.draw import Fed, indices

BLOCK = 64  # steps whose samples are drawn at once
AHEAD = 2  # device calls whose samples are being read or are waiting


class Feed:
    """feed(k, n) -> `Fed` for the n steps from k on; steps must be requested in order, starting anywhere.

    Args:
      sources: those of the views that are read by the host.
      views: of the objective.
      seeds: of the run, or of a group of runs with a leading axis.
      until: the last step of the run.
      mesh: the same as for the step's transforms.
      steps: the largest number requested at once.
      parts: as for `infojax.train.draw.draw`.

    Attributes:
      waited: seconds for which the devices had nothing to do because rows were not there yet, after the first step.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        views: Sequence[View],
        seeds: Seeds,
        until: int,
        mesh: Mesh | None = None,
        steps: int = 1,
        parts: Mapping[str, jax.Array] = {},
    ) -> None:
        self.sources, self.mesh, self.until, self.waited = sources, mesh, until, 0.0
        self.views = [view for view in views if view.source in sources]
        self._seeds, self._runs = jax.device_get(seeds), np.shape(seeds.order)
        self._draw = [
            _drawing(view, place, len(sources[view.source]), bool(self._runs), parts.get(view.source))
            for place, view in enumerate(views)
            if view.source in sources
        ]
        self._waiting: deque[tuple[int, Future]] = deque()
        self._ahead = AHEAD * steps
        self._next: int | None = None  # the next step to read
        self._drawn: tuple[int, list[np.ndarray]] = (-1, [])
        self._threads = ThreadPoolExecutor(min(self._ahead, 4), "infojax-feed")

    def ready(self, count: int = 1) -> bool:
        """Whether the next `count` steps can be had without waiting."""
        reading = list(self._waiting)[:count]
        return len(reading) == count and all(future.done() for _, future in reading)

    def __call__(self, step: int, count: int = 1) -> Fed:
        """Raises DataError from reading; ValueError if steps are not requested in order."""
        if self._next is None:
            self._next = step
        self._read_ahead()
        found = []
        for k in range(step, step + count):
            at, future = self._waiting.popleft() if self._waiting else (None, None)
            if at != k or future is None:
                raise ValueError(f"step {k} was asked for, {at} is next")
            found.append(future.result())
            self._read_ahead()
        rows = found[0] if count == 1 else jax.tree.map(lambda *parts: np.stack(parts), *found)
        numbers = np.arange(step, step + count, dtype=np.int32).reshape(-1, *[1] * len(self._runs))
        numbers = np.broadcast_to(numbers, (count, *self._runs))
        return self._placed(numbers if count > 1 else numbers[0], rows, (count > 1) + len(self._runs))

    def like(self, count: int = 1) -> Fed:
        """A `Fed` of the right shapes with random samples, without reading any."""
        rng, shape, rows = np.random.default_rng(0), (count,) * (count > 1) + self._runs, {}
        for view in self.views:
            source, n = self.sources[view.source], len(local_rows(view.size, self.mesh))  # type: ignore[arg-type]
            kind = source.read(np.arange(1))[0].dtype
            x = rng.integers(0, 2 if kind != np.uint8 else 256, (*shape, n, *source.shape), dtype=kind)
            rows[view.key] = {"x": x} | {name: np.zeros((*shape, n), np.int32) for name in ("labels", "index")}
        return self._placed(np.zeros(shape, np.int32), rows, len(shape))

    def close(self) -> None:
        """Ends the threads; what they read is dropped."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _placed(self, steps, rows, axis):
        return Fed(replicated(jnp.asarray(steps), self.mesh), from_local_rows(rows, self.mesh, axis))

    def _read_ahead(self):
        while len(self._waiting) < self._ahead and self._next < self.until:
            self._waiting.append((self._next, self._threads.submit(self._read, self._chosen(self._next))))
            self._next += 1

    def _chosen(self, step):
        """[samples (*runs, n) of each view] of this process's devices at a step; drawn for many steps at once."""
        first = step - step % BLOCK
        if self._drawn[0] != first:
            # Where JAX also has a CPU device, the accelerators are not interrupted.
            with jax.default_device(cpu) if (cpu := _cpu()) else nullcontext():
                many = [np.asarray(draw(self._seeds, first + np.arange(BLOCK))) for draw in self._draw]
            # "all" is not fed.
            mine = [local_rows(view.size, self.mesh) for view in self.views]  # type: ignore[arg-type]
            self._drawn = first, [drawn[..., rows] for drawn, rows in zip(many, mine, strict=True)]
        return [drawn[step - first] for drawn in self._drawn[1]]

    def _read(self, chosen):
        rows = {}
        for view, index in zip(self.views, chosen, strict=True):
            # Runs that differ in something else draw the same samples.
            once, back = np.unique(index, return_inverse=True)
            if len(once) == index.size:
                x, labels = self.sources[view.source].read(index.ravel())
            else:
                x, labels = (found[back.ravel()] for found in self.sources[view.source].read(once))
            rows[view.key] = {
                "x": x.reshape(*index.shape, *x.shape[1:]),
                "labels": labels.reshape(index.shape),
                "index": index,
            }
        return rows


def _drawing(view, place, num_samples, grouped, parts):
    """(seeds, (k,) steps) -> samples (k, *runs, n)."""

    def one(seeds, step):
        if parts is None:
            return indices(view, place, seeds.at(step), step, num_samples)
        own = parts[seeds.part]
        return own[indices(view, place, seeds.at(step), step, len(own))]

    each = jax.vmap(one, (0, None)) if grouped else one
    return jax.jit(jax.vmap(each, (None, 0)))


def _cpu():
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # the enabled platforms do not include a CPU
        return None
