"""The loop: steps, rows, evaluations, checkpoints, in one fixed order.

At step k, that is after k updates (k = 0, 1, ..., until):
  1. log, if k is due: a row of kind "train" with the metrics of the last update; a NaN or Inf ends the run
  2. evaluate, if k is due: rows of kind "eval"; one with "not_finite" ends the run, but not a group of several;
     SIGTERM within an evaluator that trains ends the run without a checkpoint of k
  3. checkpoint, if k is due, or if the run was asked to stop (SIGTERM): rows are flushed first, the state is finite
  4. update
An objective that reports at a due step that it is finished ends the run there, as if that step were the last.
So the rows of a step are complete before its checkpoint is begun: a run that continues from the checkpoint of step k
drops the rows past k, and goes on at 4.
"""

import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np

from infojax.objectives import Objective, Seeds, State
from infojax.processes import asked_to_stop, heard
from infojax.train.checkpoint import Checkpoints
from infojax.train.feed import Feed
from infojax.train.keeper import Evaluator, Keeper
from infojax.train.runlog import RunFolder
from infojax.train.step import Step


class Preempted(Exception):
    """The process was asked to stop; the message says at which step, and whether it was saved."""


def every(interval: int, total: int, late: int = 0, late_from: float = 1.0) -> Callable[[int], bool]:
    """Due at 0, interval, 2 interval, ... and at the end; never for an interval of 0.

    Args:
      late: the interval from step late_from * total on, for protocols that select among the last evaluations; 0 keeps
        the first one.
    """

    def due(step):
        spacing = late if late and step >= late_from * total else interval
        return bool(interval) and (step % spacing == 0 or step == total)

    return due


def at(*steps: int) -> Callable[[int], bool]:
    """Due at these steps."""
    return lambda step: step in steps


def log_spaced(total: int, count: int, per_epoch: float = 1) -> Callable[[int], bool]:
    """Due at 0, at about `count` log-spaced steps rounded to whole epochs, and at the end."""
    epochs = max(1, total / per_epoch)
    points = np.rint(np.rint(np.geomspace(1, epochs, count)) * per_epoch).astype(int)
    return at(*{0, total, *points[points <= total].tolist()})


def fit(
    objective: Objective,
    state: State,
    constants: Mapping[str, Any],
    seeds: Seeds,
    step: Step,
    *,
    until: int,
    evaluators: Sequence[Evaluator] = (),
    rows: RunFolder | None = None,
    checkpoints: Checkpoints | None = None,
    log: Callable[[int], bool] = lambda step: False,
    save: Callable[[int], bool] = lambda step: False,
    progress: Callable[[int, dict[str, Any]], Any] = lambda step, values: None,
    feed: Feed | None = None,
    steps_per_call: int = 1,
    runs: Sequence[Mapping[str, Any]] = (),
) -> State:
    """Trains to step `until` and returns the state.

    Args:
      state: the start if there is no checkpoint; its arrays are donated to the first step.
      step: `Step` from `make_step` or `map_runs`.
      rows: a RunFolder, or None.
      checkpoints: `Checkpoints`, or None; the run continues from the newest readable one.
      log, save: step -> whether it is due.
      progress: called with (step, values) at logged steps, after evaluations, with "phase" as each begins, and with
        "note" for a line that stays.
      feed: supplies what the host reads for every step, or None.
      steps_per_call: updates per device call; 1 on CPU, where a loop inside a program is slower.
      runs: for several runs in one program (`map_runs`), what tells each apart, such as {"seed": 0}: part of its rows.
    Raises:
      NonFiniteError: a logged loss, an evaluation or a state about to be saved is not finite, in all runs of a group;
        the last good checkpoint stays.
      Preempted: any process received SIGTERM; CheckpointError: a checkpoint could not be written.
    """
    updates = {count: step.compiled(count) for count in (1, steps_per_call)}
    keeper = Keeper(objective, constants, step.ctx, evaluators, rows, checkpoints, log, save, progress, runs)
    begun = time.perf_counter()
    restored, state = keeper.restore(state)
    k, metrics = restored or 0, None
    with _termination() as asked:
        while True:
            ends = k >= until or (k == restored or keeper.due(k)) and keeper.finished(k, state)
            if k != restored:  # else all of this was done before the checkpoint
                try:
                    keeper.measure(k, state, metrics, until if ends else k, ends)
                except Preempted:  # from an evaluator that trains: rows of a step are complete, or dropped
                    raise Preempted(keeper.dropped(k, f"stopped while step {k} was measured")) from None
            stopping = asked()
            if stopping:
                heard.set()
            if k != restored and (save(k) or stopping or ends):
                keeper.checkpoint(k, state)
            if stopping:
                keeper.finish(k, begun)
                raise Preempted(f"stopped at step {k}")
            if ends:
                break
            inside = range(k + 1, k + steps_per_call)
            count = steps_per_call if k + steps_per_call <= until and not any(map(keeper.due, inside)) else 1
            fed = None if feed is None else keeper.fed(feed, k, count, metrics)
            update, arguments = updates[count], (objective, state, constants, seeds, fed)
            state, metrics = keeper.compiling(k, update, arguments) if metrics is None else update(*arguments)
            k += count
    keeper.finish(k, begun)
    return state


@contextmanager
def _termination():
    """Yields a function that returns whether SIGTERM arrived; the previous handler is restored and gets a late signal.

    A loop inside another one (an evaluator that trains) shares the outer one's and ends it. With jax.distributed, JAX
    has its own handler, which informs all processes. Only the main thread can have handlers.
    """
    if (outer := _asked.get()) is not None:
        yield outer
        return
    came, alone = threading.Event(), not jax.distributed.is_initialized()
    heard.clear()
    token = _asked.set(came.is_set if alone else asked_to_stop)
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        if callable(signal.getsignal(signal.SIGINT)):  # unless it is ignored
            handlers[signal.SIGINT] = signal.default_int_handler  # KeyboardInterrupt closes what is open
        if alone:
            handlers[signal.SIGTERM] = lambda *_: came.set()
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield _asked.get()
    finally:
        _asked.reset(token)
        for number, handler in before.items():
            signal.signal(number, handler)
    if came.is_set():  # after the loop's last check; no error ended it
        signal.raise_signal(signal.SIGTERM)


_asked: ContextVar[Callable[[], bool] | None] = ContextVar("of the outermost loop: whether to stop", default=None)
