"""The run folder: config.json, env.json, metrics.jsonl (authoritative), tensorboard/, status.json; by process 0."""

import errno
import json
import math
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import jax

from infojax import outputs
from infojax.processes import place, same, together
from infojax.train.board import Board
from infojax.train.environment import environment
from infojax.train.lock import InUseError, Lock, check_free


class RunFolderError(RuntimeError):
    """A run folder that cannot be used for this run; the message is one line."""


# Keys, or prefixes of keys, that may differ between parts of a run: when things are written, and how a step runs.
MAY_DIFFER = (
    "log", "evaluate", "checkpoint", "report", "how", "steps_per_call", "devices", "data.dir", "data.stream",
    "data.workers", "notes",
)  # fmt: skip
FILES = (".lock", "config.json", "env.json", "metrics.jsonl", "status.json", "report.html")
FOLDERS = ("checkpoints", "tensorboard", "figures")
MOST_NAMED = 8  # keys in one message
MATTERS = ("evaluate.convention", "evaluate.batch_size")  # must agree all the same: outputs may depend on the batch


class RunFolder:
    """Opens or continues a run.

    Args:
      folder: created if missing; every process must see it.
      config: nested dict of plain values, fully resolved, the same in every process.
    Raises:
      RunFolderError: the folder holds a run with another config; the message names what differs.
      ProcessError: process 0 raised an error, or processes have different configs.
    """

    def __init__(self, folder: str | Path, config: Mapping[str, Any]) -> None:
        self.folder, self._writes = Path(folder), jax.process_index() == 0
        self._rows: TextIO | None = None
        self._board: Board | None = None
        self._lock: Lock | None = None
        known, self._extent, self._config = self.folder / "config.json", (0, 0), 0
        config = json.loads(json.dumps(config))  # tuples become lists, as they will be read
        same(workdir=str(folder), **{key: value for key, value in flat(config) if key != "data.dir"})
        with together():
            if self._writes:
                self._open(known, config)
        with together():
            if not known.exists():
                raise RunFolderError(f"workdir {folder} must be on a file system that all processes share")

    def _open(self, known, config):
        if self.folder.exists() and not self.folder.is_dir():
            raise RunFolderError(f"workdir {self.folder} is a file; choose another")
        for name in (*FILES, *FOLDERS):
            path, kind = self.folder / name, "folder" if name in FOLDERS else "regular file"
            if path.exists() and not (path.is_dir() if name in FOLDERS else path.is_file()):
                raise RunFolderError(
                    f"{path} is not a {kind}, where the run writes one; move it away, or choose another workdir"
                )
        self.folder.mkdir(parents=True, exist_ok=True)
        with _in_words(self.folder):
            self._lock = Lock(self.folder / ".lock")
        try:
            self._check(known, config)
        except BaseException:
            self._lock.release()
            raise
        with outputs.at_once() as add:
            add(self.folder / "env.json", json.dumps(environment(), indent=2))
            add(known, json.dumps(config, indent=2, sort_keys=True))

    def _check(self, known, config):
        """Refuses the folder of another run, and one with output but without its config."""
        trained = any(part.name.isdigit() for part in (self.folder / "checkpoints").glob("*"))
        begun = trained or self.metrics.exists()
        if begun and not known.exists():
            raise RunFolderError(
                f"{known} is missing, but there are {'checkpoints' if trained else 'rows'} of a run, whose settings it "
                "holds; restore it, or choose another workdir"
            )
        if begun:  # otherwise nothing has been done yet
            _same_run(self.folder, _settings(known), config)
        elif known.exists() and not (self.folder / "env.json").exists():
            raise RunFolderError(f"{known} was not written by a run, as env.json is missing; choose another workdir")
        self._config = zlib.crc32(json.dumps(dict(_that_matters(config)), sort_keys=True).encode())

    @property
    def metrics(self) -> Path:
        """The path of metrics.jsonl."""
        return self.folder / "metrics.jsonl"

    def facts(self) -> dict[str, Any]:
        """What a checkpoint records of the folder: length and CRC-32 of the rows so far, and CRC-32 of the config."""
        return {"rows": list(self._extent), "config": self._config} if self._writes else {}

    def continue_from(self, step: int, facts: Mapping[str, Any] | None = None) -> int:
        """Drops the rows after a step, and a truncated last line; call it before the first `row`.

        The rows of a step are written before its checkpoint, so those up to the restored step are complete. After the
        checkpoint only its timing row may have been written.

        Args:
          step: the restored checkpoint's step; -1 if there is none.
          facts: what that checkpoint recorded of the folder (`facts`), or None.
        Returns:
          Number of dropped lines.
        Raises:
          RunFolderError: rows, or the config, were lost or changed since.
        """
        dropped = 0
        with together():
            if self._writes:
                there = self.metrics.read_bytes() if self.metrics.exists() else b""
                kept = self._kept(step, facts or {}, there)
                dropped = there.count(b"\n") - kept.count(b"\n")
                outputs.write(self.metrics, kept)
                self._extent = _extent(kept)
                self._board = Board(self.folder / "tensorboard", step)
        return dropped

    def _kept(self, step, facts, there):
        """The bytes of the rows up to a step."""
        if facts.get("config", self._config) != self._config:
            raise RunFolderError(
                f"{self.folder}: checkpoint {step} was written with another config than config.json now holds; choose "
                "another workdir"
            )
        if "rows" not in facts:  # there is no checkpoint, or one without facts
            rows = _lines(self.metrics)
            if step > 0 and not rows:
                raise RunFolderError(f"{self.metrics} is missing or empty; restore it, or choose another workdir")
            if step < 0 and any(row["kind"] == "timing" for _, row in rows):  # written after a checkpoint
                raise RunFolderError(
                    f"{self.folder} holds rows of a run whose checkpoints were removed; remove {self.metrics.name} to "
                    "begin anew, or choose another workdir"
                )
            return "".join(line for line, row in rows if row["step"] <= step).encode()
        size, sum_of_rows = facts["rows"]
        if _extent(there[:size]) != (size, sum_of_rows):
            lost = f"{size - len(there)} bytes are lost" if len(there) < size else "earlier rows were changed"
            raise RunFolderError(
                f"{self.metrics}: {lost} since checkpoint {step} was written; restore it, or choose another workdir"
            )
        late = ((line, _row(line)) for line in there[size:].splitlines(keepends=True) if line.endswith(b"\n"))
        return there[:size] + b"".join(
            line for line, row in late if row and row["kind"] == "timing" and row["step"] == step
        )

    def row(self, kind: str, step: int, **values: Any) -> None:
        """Appends one measurement: {"kind", "step", "time", ...}; a number that is not finite becomes null."""
        if not self._writes:
            return
        if self._rows is None:
            self._rows = open(self.metrics, "a")
        values = {name: _plain(value) for name, value in values.items()}
        now = round(time.time(), 3)
        line = json.dumps({"kind": kind, "step": int(step), "time": now, **values}) + "\n"
        self._rows.write(line)
        self._rows.flush()
        size, sum_so_far = self._extent
        self._extent = size + len(line.encode()), zlib.crc32(line.encode(), sum_so_far)
        if self._board is not None:
            self._board.row(kind, int(step), now, values)

    def flush(self) -> None:
        """Puts every row on disk; called before a checkpoint is written.

        Raises:
          OSError: the disk is full, or the file was removed or replaced since: rows would be lost.
        """
        if self._rows is not None:
            os.fsync(self._rows.fileno())
            if not (self.metrics.exists() and os.path.samestat(os.fstat(self._rows.fileno()), self.metrics.stat())):
                raise FileNotFoundError(errno.ENOENT, "was removed or replaced while the run wrote to it", self.metrics)
        if self._board is not None:
            self._board.flush()

    def status(self, **values: Any) -> None:
        """Replaces status.json atomically, so that readers never see a partial one.

        Raises:
          OSError: the folder was removed since: a lone status.json in its place would suggest that there is a run.
        """
        if self._writes:
            if not (self.folder / "config.json").exists():
                raise FileNotFoundError(errno.ENOENT, "was removed while the run wrote to it", str(self.folder))
            outputs.write(self.folder / "status.json", json.dumps({"time": round(time.time(), 3), **values}))

    def close(self) -> None:
        """Puts every row on disk, closes the files and releases the lock; may be called again."""
        rows, board, self._rows, self._board = self._rows, self._board, None, None
        try:
            if rows is not None:
                with rows:
                    rows.flush()
                    os.fsync(rows.fileno())
        finally:
            if board is not None:
                board.close()
            if self._lock is not None:
                self._lock.release()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        with suppress(*[OSError] * bool(kind)):  # the error that ended the run is the one to report
            self.close()


def refuse_in_use(folder: str | Path) -> None:
    """Raises RunFolderError if another process uses a run folder, before the data is read; `RunFolder` checks again."""
    if place() == 0:
        with _in_words(folder):
            check_free(Path(folder) / ".lock")


@contextmanager
def _in_words(folder):
    try:
        yield
    except InUseError as error:
        raise RunFolderError(f"workdir {folder} is in use: {error}, or choose another --workdir") from None


def read_rows(folder: str | Path) -> list[dict[str, Any]]:
    """The rows of a run folder in order; a truncated last line is left out.

    Raises:
      RunFolderError: a line before the last is damaged; the message names the file and the line.
    """
    return [row for _, row in _lines(Path(folder) / "metrics.jsonl")]


def _lines(path):
    """(line, row) of each complete line."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    rows = [(line, _row(line)) for line in lines]
    for number, (line, row) in enumerate(rows, 1):
        if row is None:
            raise RunFolderError(f"{path}: line {number} is damaged: {line.strip()[:60]!r}; restore or remove it")
    return rows


def _row(line):
    """The row of a line, or None."""
    try:
        row = json.loads(line)
        return row if isinstance(row["kind"], str) and isinstance(row["step"], int) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _plain(value):
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _extent(data):
    """(length, CRC-32) of bytes."""
    return len(data), zlib.crc32(data)


def _settings(path):
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        dict(flat(found))
        return found
    except (ValueError, AttributeError, RecursionError):
        raise RunFolderError(f"{path} is damaged; restore it, or choose another workdir") from None


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, value) of nested settings."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _that_matters(config):
    """(dotted key, value) of the settings that must not differ between parts of a run."""
    for key, value in flat(config):
        free = any(key == may or key.startswith(f"{may}.") for may in MAY_DIFFER)
        if key in MATTERS or not free:
            yield key, value


def _same_run(folder, old, new):
    old, new = dict(_that_matters(old)), dict(_that_matters(new))
    differing = [
        f"{key} was {old.get(key, 'absent')!r}, is {new.get(key, 'absent')!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, "absent") != new.get(key, "absent")
    ]
    if differing:
        more = f"; and {len(differing) - MOST_NAMED} more keys" if len(differing) > MOST_NAMED else ""
        named = "; ".join(differing[:MOST_NAMED])
        raise RunFolderError(f"{folder} holds another run: {named}{more}; choose another workdir")
