"""The records of a run: rows, evaluations, checkpoints and progress, as `train.loop` asks for them."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from infojax.train.cost import duration
from infojax.train.schema import COORDINATES, SEVERAL_A_SPLIT
from infojax.train.step import all_finite, pick, swept

TOLD = 30  # seconds of future evaluations from which they are reported
_finite = jax.jit(all_finite)


class NonFiniteError(RuntimeError):
    """A training quantity became NaN or Inf; the message names the step, the quantity and the last checkpoint."""


class Evaluator(NamedTuple):
    """What is measured at fixed weights.

    Attributes:
      name: the name that its rows carry.
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


@dataclass(frozen=True)
class Keeper:
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
    seconds: Counter = field(default_factory=Counter)  # kind of work other than steps -> seconds
    called: set = field(default_factory=set)  # evaluators that have run, since their first call compiles
    measured: dict = field(default_factory=dict)  # "test accuracy" -> values of the runs at this step
    taken: dict = field(default_factory=dict)  # index of an evaluator -> seconds of each of its calls

    def due(self, k: int) -> bool:
        """Whether anything happens at step k: a row, a checkpoint or an evaluation."""
        return any(due(k) for due in (self.log, self.save, *(evaluator.due for evaluator in self.evaluators)))

    def finished(self, k: int, state: Any) -> bool:
        """Whether no run changes any more: each has finished, or was frozen before step k."""
        return bool(np.all(np.logical_or(self.objective.finished(state), np.asarray(state.step) < k)))

    def restore(self, state: Any) -> tuple[int | None, Any]:
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

    def fed(self, feed: Any, k: int, count: int, metrics: Any) -> Any:
        """The samples of `count` steps. Times how long the devices wait for them, from the end of the last step."""
        if metrics is None:
            with self._timed("first_calls"):
                return feed(k, count)
        if not feed.ready(count):
            jax.block_until_ready(metrics)
        with self._timed("data"):
            found = feed(k, count)
        feed.waited = self.seconds["data"]
        return found

    def compiling(self, k: int, step: Callable, arguments: tuple) -> Any:
        """The first call of a process, timed."""
        self.progress(k, {"phase": "compiling, first step"})
        with self._timed("first_calls"):
            return jax.block_until_ready(step(*arguments))

    def measure(self, k: int, state: Any, metrics: Any, place: int, ends: bool = False) -> None:
        """Logs and evaluates what is due at `place`: step k or, if the run ends early, its planned end."""
        self.measured.clear()
        if not self.due(place) and not ends:
            return
        jax.block_until_ready(state)  # dispatched work counts as the steps' time
        # A frozen run stays at the last step at which its numbers were finite.
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
                    # The training is not affected by networks derived from the trained one.
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
        """Reports the time that future evaluations will take, including the decoders that they train."""
        steps = range(k + 1, self.ctx.facts.total_steps + 1)
        left = {place: sum(map(self.evaluators[place].due, steps)) for place in self.taken}
        seconds = sum(min(self.taken[place]) * count for place, count in left.items())
        if seconds > TOLD:
            self.progress(k, {"note": f"the evaluations to come take about {duration(seconds)}"})

    def _models(self, state):
        """The models of each run that evaluators get."""
        if not self.runs:
            return [self.objective.evaluated(state, self.constants, self.ctx)]
        state = state._replace(opt_state={})  # avoids copying it
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

    def checkpoint(self, k: int, state: Any) -> None:
        """Saves in the background, with the measurements of this step, which decide the best checkpoint."""
        if not self.checkpoints:
            return
        with self._timed("checkpoint"):
            if not bool(_finite(state)):
                raise self.not_finite(k, "the state is not finite and was not saved")
            if self.rows:
                self.rows.flush()
            measured = {name: float(np.mean(found)) for name, found in self.measured.items()}
            self.checkpoints.save(k, state, measured, self.rows.facts() if self.rows else None)

    def not_finite(self, k: int, text: str) -> NonFiniteError:
        """The error that ends the run."""
        return NonFiniteError(self.dropped(k, f"step {k}: {text}"))

    def dropped(self, k: int, text: str) -> str:
        """The message for a run that ends without a checkpoint of step k, with the step of the last good one."""
        if self.checkpoints:
            self.checkpoints.wait()
            saved = [step for step in self.checkpoints.steps() if step <= k]
            text += f"; the last good checkpoint is of step {saved[-1]}" if saved else "; there is no checkpoint before"
        return text

    def finish(self, k: int, begun: float) -> None:
        """Writes everything to disk; the last row is the time spent on each kind of work, if there was any."""
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
