"""Where results go: rows in metrics.jsonl, which `python -m infojax.report` draws, and the boards that people use."""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from infojax import outputs


class Rows:
    """The rows of a monitor in FOLDER/metrics.jsonl, with a config.json beside it. A later monitor appends.

    Raises:
      ValueError: the folder holds another run.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        known = self.folder / "config.json"
        if known.exists():
            try:
                task = json.loads(known.read_text(encoding="utf-8")).get("task")
            except (ValueError, AttributeError):
                task = None
            if task != "monitor":
                raise ValueError(f"{folder} holds a run that is none of a Monitor; choose another folder")
        self._settings: dict[str, Any] | None = None

    def settings(self, classes: int | None, labels: np.ndarray | None) -> None:
        """Writes config.json: the name, and the number of classes, from which figures take limits."""
        if classes is None and labels is not None:
            classes = int(labels.max()) + 1
        found = {"name": self.folder.name, "task": "monitor"} | ({} if classes is None else {"num_classes": classes})
        if found != self._settings:
            outputs.write(self.folder / "config.json", json.dumps(found, indent=2))
            self._settings = found

    def row(self, kind: str, step: int, **values: Any) -> None:
        """Appends a row; a number that is not finite becomes null. No file stays open: `close` may be forgotten."""
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        line = json.dumps({"kind": kind, "step": step, "time": round(time.time(), 3), **plain}) + "\n"
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(line)


class Writer:
    """A board: `write(step, results)`, then `close()`."""

    def __init__(self, write: Callable[[int, Mapping[str, float]], Any], close: Callable[[], Any]) -> None:
        self.write, self.close = write, close


def _tensorboard(folder: str | None) -> Writer:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        from torch.utils.tensorboard import SummaryWriter  # type: ignore[no-redef]
    board = SummaryWriter(os.path.join(folder or ".", "tensorboard"))

    def write(step, results):
        for name, value in results.items():
            board.add_scalar(f"infojax/{name}", value, step)
        board.flush()

    return Writer(write, board.close)


def _wandb(folder: str | None) -> Writer:
    import wandb

    # The training logs steps of its own, which must not go back: these values have their own axis.
    run = wandb.run or wandb.init(dir=folder)
    run.define_metric("infojax/*", step_metric="infojax/step")
    return Writer(lambda step, results: run.log(_named(step, results)), lambda: None)


def _trackio(folder: str | None) -> Writer:
    import trackio

    return Writer(lambda step, results: trackio.log(_named(step, results)), lambda: None)


def _named(step, results):
    return {"infojax/step": step, **{f"infojax/{name}": value for name, value in results.items()}}


WRITERS = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}


PACKAGES = {"tensorboard": ("tensorboardX", "tensorboard")}  # one of these; others are named as their package


class Boards:
    """Writers by name, opened at the first results, so only by the process that has any.

    Raises:
      ValueError: there is no such writer, or its package is not installed.
    """

    def __init__(self, names: str | Sequence[str], folder: str | None) -> None:
        self._names, self._folder = [names] if isinstance(names, str) else list(names), folder
        self._open: list[Writer] | None = None
        for name in self._names:
            if name not in WRITERS:
                raise ValueError(f"writers: {name!r} is none of {', '.join(WRITERS)}")
            packages = PACKAGES.get(name, (name,))
            if not any(package in sys.modules or find_spec(package) for package in packages):
                raise ValueError(f"writers: {name} needs {' or '.join(packages)}: pip install {packages[0]}")

    def write(self, step: int, results: Mapping[str, float]) -> None:
        if self._open is None:
            self._open = [WRITERS[name](self._folder) for name in self._names]
        for writer in self._open:
            writer.write(step, results)

    def close(self) -> None:
        for writer in self._open or []:
            writer.close()
        self._open = None
