"""The loop: steps, rows, evaluations, checkpoints, in one fixed order.

At step k, that is after k updates (k = 0, 1, ..., until):
  1. log, if k is due: a row of kind "train" with the metrics of the update that led here; not finite ends the run
  2. evaluate, if k is due: rows of kind "eval"
  3. checkpoint, if k is due, or if the run was asked to stop (SIGTERM): rows are flushed first, the state is finite
  4. update
So the rows of a step are whole before its checkpoint is begun: a run that continues from the checkpoint of step k drops
the rows past k, and goes on at 4.
"""

import signal
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class NonFiniteError(RuntimeError):
    """Training left the finite numbers; the message names the step and the quantity."""


class Preempted(Exception):
    """The process was asked to stop; a checkpoint of the step was written."""


class Evaluator(NamedTuple):
    """What is measured at fixed weights.

    Attributes:
      name: of its rows.
      due: step -> whether it runs there.
      run: {"raw": (params, model_state), ...} of `Objective.evaluated` -> yields (name, value).
    """

    name: str
    due: Callable
    run: Callable


def every(interval, total):
    """Due at 0, interval, 2 interval, ... and at the end; never for an interval of 0."""
    return lambda step: bool(interval) and (step % interval == 0 or step == total)


def log_spaced(total, count, per_epoch=1):
    """Due at 0, at about `count` steps whose logarithms are evenly spaced, on whole epochs, and at the end."""
    epochs = max(1, total // per_epoch)
    points = np.unique(np.rint(np.geomspace(1, epochs, count)).astype(int)) * per_epoch
    chosen = {0, total, *points[points <= total].tolist()}
    return lambda step: step in chosen


def fit(
    objective,
    state,
    constants,
    seeds,
    step,
    *,
    until,
    evaluators=(),
    rows=None,
    checkpoints=None,
    log=lambda step: False,
    save=lambda step: False,
    progress=lambda step, values: None,
    feed=None,
    steps_per_call=1,
):
    """Trains to step `until` and returns the state.

    Args:
      step: (objective, state, constants, seeds, fed) -> (state, metrics), as of `make_step` or `map_runs`.
      rows: a RunFolder, or None.
      checkpoints: `Checkpoints`, or None; the newest readable one is where the run continues.
      log, save: step -> whether it is due.
      progress: called with (step, values) at logged steps, after evaluations, and with "phase" when one begins.
      feed: step -> rows of sources that the host reads, or None.
      steps_per_call: updates in one call of the device; 1 on CPU, where a loop inside a program is slower.
    Raises:
      NonFiniteError: a logged loss or a state about to be saved is not finite; the last good checkpoint stays.
      Preempted: SIGTERM came; CheckpointError: a checkpoint could not be written; ValueError: fed several steps a call.
    """
    if feed is not None and steps_per_call > 1:
        raise ValueError("steps_per_call must be 1 where the host feeds every step")
    one = jax.jit(step, donate_argnums=1)
    many = jax.jit(_repeated(step, steps_per_call), donate_argnums=1) if steps_per_call > 1 else None
    finite = jax.jit(_all_finite)
    start, found = 0, checkpoints.restore(state) if checkpoints else None
    if found:
        start, state = found
    if rows:
        rows.continue_from(start if found else -1)
    events = [log, save, *(evaluator.due for evaluator in evaluators)]

    def write(k, kind, values):
        for run, part in _by_run(values):
            rows.row(kind, k, **run, **part)

    def checkpoint(k):
        if not bool(finite(state)):
            raise NonFiniteError(f"step {k}: the state is not finite; no checkpoint of it was written")
        if rows:
            rows.flush()
        checkpoints.save(k, state)

    def measure(k, metrics):
        if metrics is not None and log(k):
            values = jax.device_get(metrics)
            if rows:
                write(k, "train", values)
            _check(k, values)
            progress(k, values)
        for evaluator in evaluators:
            if evaluator.due(k):
                progress(k, {"phase": evaluator.name})
                values = dict(evaluator.run(objective.evaluated(state)))
                if rows:
                    write(k, "eval", {"evaluator": evaluator.name, **values})
                progress(k, values)

    with _termination() as asked:
        k, metrics = start, None
        while True:
            if not (found and k == start):  # else all of this was done before the checkpoint
                measure(k, metrics)
                if checkpoints and (save(k) or asked()):
                    checkpoint(k)
            if asked():
                if checkpoints:
                    checkpoints.wait()
                raise Preempted(f"stopped at step {k}")
            if k >= until:
                break
            begun = None if metrics is not None else time.perf_counter()
            if begun:
                progress(k, {"phase": "compiling, first step"})
            inside = range(k + 1, k + steps_per_call)
            together = many and k + steps_per_call <= until and not any(due(j) for j in inside for due in events)
            state, metrics = (many if together else one)(
                objective, state, constants, seeds, None if feed is None else feed(k)
            )
            if begun:
                jax.block_until_ready(metrics)
                if rows:
                    rows.row("timing", k + 1, first_step_seconds=round(time.perf_counter() - begun, 3))
            k += steps_per_call if together else 1
    if checkpoints:
        checkpoints.wait()
    if rows:
        rows.flush()
    return state


def _repeated(step, count):
    """`count` updates in one program, and the metrics of the last."""

    def repeated(objective, state, constants, seeds, fed=None):
        def body(_, state):
            return step(objective, state, constants, seeds, fed)[0]

        return step(objective, jax.lax.fori_loop(0, count - 1, body, state), constants, seeds, fed)

    return repeated


def _all_finite(state):
    leaves = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def _check(step, values):
    for name in ("loss", "grad_norm"):
        bad = np.flatnonzero(~np.isfinite(np.atleast_1d(values.get(name, 0.0))))
        if len(bad):
            run = f" of run {bad[0]}" if np.ndim(values[name]) else ""
            raise NonFiniteError(f"step {step}: {name}{run} is {np.atleast_1d(values[name])[bad[0]]}")


def _by_run(values):
    """({}, values) of one run, or ({"run": i}, values) of each of several."""
    runs = max((len(value) for value in values.values() if np.ndim(value) == 1), default=0)
    if not runs:
        return [({}, values)]
    return [
        ({"run": i}, {name: value[i] if np.ndim(value) == 1 else value for name, value in values.items()})
        for i in range(runs)
    ]


@contextmanager
def _termination():
    """Yields a function that tells whether SIGTERM came; the handler before it is put back."""
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda *_: came.set())
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
