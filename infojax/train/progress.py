"""Progress of a run: one updating line on a terminal, an occasional line elsewhere; process 0 only."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import jax
import numpy as np

from infojax.train.cost import duration
from infojax.train.schema import COORDINATES

LINE_SECONDS = 10  # between plain lines
STATUS_SECONDS = 5  # between heartbeats


class Progress:
    """Called by the loop with (step, values): metrics of a step, of an evaluation, {"phase": name} or {"note": text}.

    Args:
      total: steps.
      runs: number of runs in one program; their mean is shown.
    """

    def __init__(self, total: int, runs: int = 1, stream: TextIO | None = None) -> None:
        self.total, self.runs, self.stream = total, runs, stream or sys.stderr
        self.on = jax.process_index() == 0
        self.live: Any = None
        self.folder: Any = None
        self.step = 0
        self.seen: dict[str, list[float]] = {}  # name -> values of the runs last shown
        self.marks: list[tuple[int, float]] = []  # (step, time) of steps without an evaluation between them
        self.rate: float | None = None
        self.printed = self.beaten = -float("inf")
        self.text = ""  # the last line printed, which is not repeated

    @contextmanager
    def shown(self, folder: Any = None) -> Iterator[None]:
        """Shows a line on the terminal while it is open; `folder` gets the heartbeat."""
        self.folder, state = folder, "stopped"
        try:
            if self.on and self.stream is not None and self.stream.isatty() and os.environ.get("TERM") != "dumb":
                from rich.console import Console
                from rich.live import Live

                with Live(console=Console(file=self.stream), auto_refresh=False, transient=True) as self.live:
                    yield
            else:
                yield
            state = "finished"
        finally:
            self.live = None
            if folder is not None:
                with suppress(*[OSError] * (state == "stopped")):  # report what ended the run
                    folder.status(step=self.step, total=self.total, state=state)

    def __call__(self, step: int, values: Mapping[str, Any]) -> None:
        if not self.on:
            return
        now, self.step = time.monotonic(), step
        if "note" in values:
            self._show(f"step {step:,} of {self.total:,}: {values['note']}", now, stays=True)
            return
        if "phase" in values:
            self.marks = []
            self._show(
                f"step {step:,} of {self.total:,}: {values['phase']}", now, always="compiling" in values["phase"]
            )
            return
        if "evaluator" not in values and values.get("run", 0) == 0:
            self._tick(step, now)
        if self.folder is not None and now - self.beaten > STATUS_SECONDS:
            self.folder.status(step=step, total=self.total, state="running")
            self.beaten = now
        if COORDINATES.keys() & values.keys():  # measured on a network other than the trained one
            return
        if "layer" in values:
            place = ", ".join(filter(None, (values["layer"], values.get("split"))))
            self._show(f"step {step:,} of {self.total:,}: {values['evaluator']} of {place}", now)
            return
        self._remember(values)
        if values.get("run", 0) == self.runs - 1:
            self._show(self.line(step), now, always="accuracy" in values and values.get("split") == "test")

    def line(self, step: int) -> str:
        """Step, speed, time left, and the last known loss, accuracy, MIR and its distance to the limit."""
        parts = [f"step {step:,} of {self.total:,}"]
        if self.rate:
            parts += [f"{self.rate:.3g} steps/s", f"{duration((self.total - step) / self.rate)} left"]
        last = {name: float(np.nanmean(found)) for name, found in self.seen.items() if not np.all(np.isnan(found))}
        if "loss" in last:
            parts.append(f"loss {last['loss']:.4g}")
        accuracies = [
            f"{100 * last[f'{split} accuracy']:.1f}%" for split in ("train", "test") if f"{split} accuracy" in last
        ]
        if accuracies:
            parts.append(f"accuracy {' / '.join(accuracies)}")
        if "mir" in last:
            to_limit = f", {last['limit_mir'] - last['mir']:+.4f} to its limit" if "limit_mir" in last else ""
            parts.append(f"MIR {last['mir']:.4f}{to_limit}")
        return ", ".join(parts)

    def _tick(self, step, now):
        self.marks = [*self.marks[-20:], (step, now)]
        (first, begun), (last, ended) = self.marks[0], self.marks[-1]
        if last > first and ended > begun:
            self.rate = (last - first) / (ended - begun)

    def _remember(self, values):
        def keep(name, value):
            found = self.seen.setdefault(name, [np.nan] * self.runs)
            found[values.get("run", 0)] = float(value)

        if "evaluator" not in values:
            keep("loss", values.get("loss", np.nan))
            return
        if "accuracy" in values:
            keep(f"{values.get('split', '')} accuracy", values["accuracy"])
        if values.get("split") == "test":
            for name in ("mir", "limit_mir"):
                if name in values:
                    keep(name, values[name])

    def _show(self, text, now, always=False, stays=False):
        with suppress(OSError):  # whoever read the lines has gone; the run continues
            if self.live is not None and stays:
                self.live.console.print(text, markup=False, highlight=False)
            elif self.live is not None:
                from rich.text import Text

                self.live.update(Text(text), refresh=True)
            elif self.stream is None or text == self.text:
                return
            elif always or stays or now - self.printed > LINE_SECONDS:
                print(text, file=self.stream, flush=True)
                self.printed, self.text = now, text
