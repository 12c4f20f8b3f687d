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
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from infojax.objectives import Objective, Seeds, State
from infojax.processes import asked_to_stop, heard
from infojax.train.checkpoint import Checkpoints
from infojax.train.cost import duration
from infojax.train.feed import Feed
from infojax.train.runlog import RunFolder
from infojax.train.schema import COORDINATES, SEVERAL_A_SPLIT
from infojax.train.step import Step, all_finite, pick, swept

TOLD = 30  # seconds of evaluations to come, from which they are worth a line


class NonFiniteError(RuntimeError):
    """A training quantity became NaN or Inf; the message names the step, the quantity and the last checkpoint."""


class Preempted(Exception):
    """The process was asked to stop; the message says at which step, and whether it was saved."""


class Evaluator(NamedTuple):
    """What is measured at fixed weights.

    Attributes:
      name: of its rows.
      due: step -> whether it runs there.
      run: {"raw": `Model`, ...} from `Objective.evaluated` -> yields (name, value) pairs, which make a row. The value
        "not_finite" names the network output that is NaN or Inf; other values may themselves be NaN or Inf.
      of_all_runs: `run` takes a list of these, one per run, and yields whole rows, as dicts; "run" is the number of
        its run (0 by default), "runs" the numbers of the runs behind it if there are several. A row of a frozen run, or
        of a "not_finite" one in a group, is marked "frozen"; one computed from a frozen run "of_frozen".
    """

    name: str
    due: Callable
    run: Callable
    of_all_runs: bool = False


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
      progress: called with (step, values) at logged steps, after evaluations, with "phase" when one begins, and with
        "note" for a line that stays.
      feed: of what the host reads for every step, or None.
      steps_per_call: updates per device call; 1 on CPU, where a loop inside a program is slower.
      runs: for several runs in one program (`map_runs`), what tells each apart, such as {"seed": 0}: part of its rows.
    Raises:
      NonFiniteError: a logged loss, an evaluation or a state about to be saved is not finite, in all runs of a group;
        the last good checkpoint stays.
      Preempted: any process received SIGTERM; CheckpointError: a checkpoint could not be written.
    """
    one = step.compiled()
    many: Any = step.compiled(steps_per_call) if steps_per_call > 1 else None
    keeper = _Keeper(objective, constants, step.ctx, evaluators, rows, checkpoints, log, save, progress, runs)
    begun = time.perf_counter()
    restored, state = keeper.restore(state)
    k, metrics = restored or 0, None
    with _termination() as asked:
        while True:
            ends = k >= until or (k == restored or keeper.due(k)) and keeper.finished(k, state)
            if k != restored:  # else all of this was done before the checkpoint
                try:
                    keeper.measure(k, state, metrics, until if ends else k, ends)
                except Preempted:  # from decoders trained there: rows of a step are complete, or dropped
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
            together = many and k + steps_per_call <= until and not any(keeper.due(j) for j in inside)
            fed = None if feed is None else keeper.fed(feed, k, steps_per_call if together else 1, metrics)
            arguments = objective, state, constants, seeds, fed
            if metrics is None:
                state, metrics = keeper.compiling(k, many if together else one, arguments)
            else:
                state, metrics = (many if together else one)(*arguments)
            k += steps_per_call if together else 1
    keeper.finish(k, begun)
    return state


@dataclass(frozen=True)
class _Keeper:
    """Keeps the records of a run: its rows, its checkpoints, its progress."""

    objective: Any
    constants: Any
    ctx: Any
    evaluators: Sequence[Evaluator]
    rows: Any
    checkpoints: Any
    log: Callable
    save: Callable
    progress: Callable
    runs: Sequence[Mapping[str, Any]]
    # Spent on each kind of work beside the steps; evaluators, whose first call compiles; "test accuracy" -> values of
    # the runs, of this step; place among the evaluators -> seconds of each of their calls.
    seconds: Counter = field(default_factory=Counter)
    called: set = field(default_factory=set)
    measured: dict = field(default_factory=dict)
    taken: dict = field(default_factory=dict)

    def due(self, k):
        return any(due(k) for due in (self.log, self.save, *(evaluator.due for evaluator in self.evaluators)))

    def finished(self, k, state):
        """Whether no run changes anymore: each is finished, or frozen before step k."""
        return bool(np.all(np.logical_or(self.objective.finished(state), np.asarray(state.step) < k)))

    def restore(self, state):
        """(step, state) of the newest checkpoint, or (None, state); drops the rows past it."""
        found = (self.checkpoints and self.checkpoints.restore(state)) or (None, state)
        if self.rows:
            step = found[0]
            facts = None if step is None else self.checkpoints.facts(step)
            dropped = self.rows.continue_from(-1 if step is None else step, facts)
            if step is not None:
                after = f"; the {dropped} rows after it were dropped" * bool(dropped)
                self.progress(step, {"note": f"continues from the checkpoint of this step{after}"})
            elif dropped:
                self.progress(0, {"note": f"there is no checkpoint, begins anew; {dropped} earlier rows were dropped"})
        return found

    def fed(self, feed, k, count, metrics):
        """The rows of some steps. Timed is how long the devices have nothing to do, from the end of the last step."""
        if metrics is None:
            with self._timed("first_calls"):
                return feed(k, count)
        if not feed.ready(count):
            jax.block_until_ready(metrics)
        with self._timed("data"):
            found = feed(k, count)
        feed.waited = self.seconds["data"]
        return found

    def compiling(self, k, step, arguments):
        """The first call of a process, timed."""
        self.progress(k, {"phase": "compiling, first step"})
        with self._timed("first_calls"):
            return jax.block_until_ready(step(*arguments))

    def measure(self, k, state, metrics, place, ends=False):
        """What is due at `place`: at step k, or, where the run ends early, at its end."""
        self.measured.clear()
        if not self.due(place) and not ends:
            return
        jax.block_until_ready(state)  # dispatched work counts as the steps' time
        # A frozen run stays at the step before its numbers were no longer finite.
        frozen = [{"frozen": True} if step < k else {} for step in np.atleast_1d(state.step)] if self.runs else [{}]
        if metrics is not None and self.log(place):
            with self._timed("rows"):
                metrics = jax.device_get(metrics)
                metrics.pop("frozen", None)
                for run in range(len(frozen)):
                    self._write(k, "train", run, (pick(metrics, run) if self.runs else metrics) | frozen[run])
            for name in ("loss", "grad_norm"):
                if not self.runs and not np.isfinite(metrics.get(name, 0.0)):
                    raise self.not_finite(k, f"{name} is {metrics[name]}")
        if all(frozen):
            raise self.not_finite(k, "the loss or the weights of every run became NaN or Inf, and all are frozen")
        self._evaluate(k, state, place, frozen)

    def _evaluate(self, k, state, place, frozen):
        """The rows of the evaluators that are due; marks the runs whose network is not finite as frozen."""
        models = None
        for place_of, evaluator in enumerate(self.evaluators):
            if evaluator.due(k) or evaluator.due(place):
                models, begun = models or self._models(state), time.perf_counter()
                self.progress(k, {"phase": evaluator.name})
                for values in self._evaluated(evaluator, models):
                    run = values.pop("run", 0)
                    others = any(frozen[i] for i in values.pop("runs", ()))
                    # Networks derived from the trained one say nothing about its training.
                    lost = "not_finite" in values and not COORDINATES.keys() & values.keys()
                    frozen[run] = frozen[run] or ({"frozen": True} if lost and self.runs else {})
                    mark = frozen[run] or ({"of_frozen": True} if others else {})
                    self._write(k, "eval", run, {"evaluator": evaluator.name, **values, **mark})
                    if lost and (not self.runs or all(frozen)):
                        text = f"{values['not_finite']} of {values.get('split', 'the evaluation')} became NaN or Inf"
                        raise self.not_finite(k, text + ", in every run" * bool(self.runs))
                    for name, value in values.items():
                        if isinstance(value, float) and not mark and not SEVERAL_A_SPLIT & values.keys():
                            self.measured.setdefault(f"{values.get('split', '')} {name}", []).append(value)
                self.taken.setdefault(place_of, []).append(time.perf_counter() - begun)
        if models is not None and max(map(len, self.taken.values())) == 2:  # the first ones compile
            self._tell_evaluations(place)

    def _tell_evaluations(self, k):
        """What the evaluations to come will take, decoders that they train included."""
        steps = range(k + 1, self.ctx.facts.total_steps + 1)
        left = {place: sum(map(self.evaluators[place].due, steps)) for place in self.taken}
        seconds = sum(min(self.taken[place]) * count for place, count in left.items())
        if seconds > TOLD:
            self.progress(k, {"note": f"the evaluations to come take about {duration(seconds)}"})

    def _models(self, state):
        """What evaluators see of each run."""
        if not self.runs:
            return [self.objective.evaluated(state, self.constants, self.ctx)]
        state = state._replace(opt_state={})  # not to be copied
        return [
            swept(self.objective, run).evaluated(pick(state, run), self.constants, self.ctx)
            for run in range(len(self.runs))
        ]

    def _evaluated(self, evaluator, models):
        """The rows of an evaluator, each timed."""
        if evaluator.of_all_runs:
            found = evaluator.run(models)
        else:
            found = ({"run": run, **dict(evaluator.run(model))} for run, model in enumerate(models))
        while True:
            first = evaluator.run not in self.called
            self.called.add(evaluator.run)
            with self._timed("first_calls" if first else "evaluate"):
                row = next(found, None)
            if row is None:
                return
            yield row

    def _write(self, k, kind, run, values):
        if self.runs:
            values = {"run": run, **self.runs[run], **values}
        if self.rows:
            self.rows.row(kind, k, **values)
        self.progress(k, values)

    def checkpoint(self, k, state):
        """Writes it in the background, with the measurements of this step, by which the best is chosen."""
        if not self.checkpoints:
            return
        with self._timed("checkpoint"):
            if not bool(_finite(state)):
                raise self.not_finite(k, "the state is not finite and was not saved")
            if self.rows:
                self.rows.flush()
            measured = {name: float(np.mean(found)) for name, found in self.measured.items()}
            self.checkpoints.save(k, state, measured, self.rows.facts() if self.rows else None)

    def not_finite(self, k, text):
        """The error that ends the run."""
        return NonFiniteError(self.dropped(k, f"step {k}: {text}"))

    def dropped(self, k, text):
        """The message for a run that ends without a checkpoint of step k, with the step of the last good one."""
        if self.checkpoints:
            self.checkpoints.wait()
            saved = [step for step in self.checkpoints.steps() if step <= k]
            text += f"; the last good checkpoint is of step {saved[-1]}" if saved else "; there is no checkpoint before"
        return text

    def finish(self, k, begun):
        """Puts everything on disk; where the time went is the last row, if there was any work."""
        if self.checkpoints:
            with self._timed("checkpoint"):
                self.checkpoints.wait()
        if self.rows:
            if self.seconds["first_calls"]:
                whole = time.perf_counter() - begun
                parts = {"steps": whole - sum(self.seconds.values()), **self.seconds}
                self.rows.row("timing", k, **{f"{name}_seconds": round(part, 3) for name, part in parts.items()})
            self.rows.flush()

    @contextmanager
    def _timed(self, name):
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - begun


_finite = jax.jit(all_finite)


@contextmanager
def _termination():
    """Yields a function that tells whether SIGTERM came; the previous handler is restored and gets a late signal.

    A loop inside another one (an evaluator that trains) asks on its behalf, and ends it. With jax.distributed, JAX has
    a handler of its own, which informs all processes. Only the main thread can have handlers.
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
