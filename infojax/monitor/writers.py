"""Where results go: rows in metrics.jsonl, which `python -m infojax.report` draws, and the boards that people use."""

import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from infojax import outputs


class Rows:
    """The rows of a monitor in FOLDER/metrics.jsonl, with a config.json beside it. A later monitor appends.

    Raises:
      ValueError: the folder holds another run, or is none.
    """

    def __init__(self, folder: str) -> None:
        if not isinstance(folder, str | Path) or not str(folder):
            raise ValueError(f"folder is {folder!r}; expected a path, or None")
        self.folder = Path(folder)
        self.path = self.folder / "metrics.jsonl"
        if self.path.is_dir():
            raise ValueError(f"folder: {self.path} is a folder; choose another one than {folder}")
        if not next(place for place in (self.folder, *self.folder.absolute().parents) if place.exists()).is_dir():
            raise ValueError(f"folder: {folder} is a file, or in one; choose another")
        self._size: int | None = None  # of metrics.jsonl after the last row
        self._classes = 0  # the most that the labels have shown
        known = self.folder / "config.json"
        if known.exists():
            try:
                found = json.loads(known.read_text(encoding="utf-8"))
                task, self._classes = found.get("task"), int(found.get("num_classes", 0))
            except (ValueError, TypeError, AttributeError):
                task = None
            if task != "monitor":
                raise ValueError(f"{folder} holds a run that is none of a Monitor; choose another folder")
        self._settings: dict[str, Any] | None = None

    def settings(self, classes: int | None, labels: np.ndarray | None) -> None:
        """Writes config.json: the name, and the number of classes, from which figures take limits."""
        if classes is None and labels is not None:
            classes = self._classes = max(self._classes, int(labels.max()) + 1)
        found = {"name": self.folder.name, "task": "monitor"} | ({"num_classes": classes} if classes else {})
        if found != self._settings or not (self.folder / "config.json").exists():
            outputs.write(self.folder / "config.json", json.dumps(found, indent=2))
            self._settings = found

    def row(self, kind: str, step: int, **values: Any) -> str:
        """Appends a row; a number that is not finite becomes null. No file stays open: `close` may be forgotten.

        Returns what has happened to the file since the last row, in words; "" if nothing.
        """
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        line = json.dumps({"kind": kind, "step": step, "time": round(time.time(), 3), **plain}) + "\n"
        known, self._size = self._size, None  # unknown, should the row be written in part
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab+") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            if file.read(1) not in (b"", b"\n"):  # a line that was cut by a kill is ended first
                line = "\n" + line
            file.write(line.encode())
        self._size = size + len(line.encode())
        if known is None or known == size:
            return ""
        if size > known:
            return f"{self.path} was written by somebody else too; give every Monitor a folder of its own"
        return f"{self.path} lost rows since the last one: it was cut, or removed"


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
        self.names, self._folder = [names] if isinstance(names, str) else list(names), folder
        self._open: dict[str, Writer] = {}
        for name in self.names:
            if name not in WRITERS:
                raise ValueError(f"writers: {name!r} is none of {', '.join(WRITERS)}")
            packages = PACKAGES.get(name, (name,))
            if not any(package in sys.modules or find_spec(package) for package in packages):
                raise ValueError(f"writers: {name} needs {' or '.join(packages)}: pip install {packages[0]}")

    def write(self, name: str, step: int, results: Mapping[str, float]) -> None:
        """Writes results of a step to a board, which is opened on its first row."""
        if name not in self._open:
            self._open[name] = WRITERS[name](self._folder)
        self._open[name].write(step, results)

    def close(self, name: str) -> None:
        """Closes a board if it was opened."""
        if name in self._open:
            self._open.pop(name).close()


class Results:
    """All that a monitor writes: rows of a folder, if there is one, and boards.

    A full disk or a board out of reach must not end a training: what is lost is told in a warning.
    """

    def __init__(self, folder: str | None, boards: str | Sequence[str]) -> None:
        self.rows = None if folder is None else Rows(folder)
        self.boards = Boards(boards, folder)

    def row(self, kind: str, step: int, **values: Any) -> None:
        """A row of metrics.jsonl."""
        if self.rows is not None and (told := self._guarded("the row", step, self.rows.row, kind, step, **values)):
            tell(told)

    def settings(self, step: int, classes: int | None, labels: np.ndarray | None) -> None:
        """config.json, see `Rows.settings`."""
        if self.rows is not None:
            self._guarded("config.json", step, self.rows.settings, classes, labels)

    def shown(self, step: int, results: Mapping[str, float]) -> None:
        """The results of a step on all boards."""
        for board in self.boards.names:
            self._guarded(board, step, self.boards.write, board, step, results)

    def close(self, step: int) -> None:
        """Closes the boards."""
        for board in self.boards.names:
            self._guarded(board, step, self.boards.close, board)

    def _guarded(self, what: str, at: int, write: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """What `write` returns; None, with a warning, if it fails."""
        try:
            return write(*given, **named)
        except Exception as error:  # boards raise what they like
            tell(f"step {at}: {what} cannot be written, and is lost: {error}")
        return None


def tell(text: str, depth: int = 5) -> None:
    """Warns of something at the place of the user's call, `depth` frames up."""
    warnings.warn(f"infojax.Monitor: {text}", RuntimeWarning, stacklevel=depth)
