"""Errors that end a run: the exit code, and one line that says what happened and what to do."""

import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from infojax.data import DataError
from infojax.processes import ProcessError
from infojax.tasks.config import ConfigError
from infojax.train.checkpoint import CheckpointError, UnwrittenError
from infojax.train.keeper import NonFiniteError
from infojax.train.loop import Preempted
from infojax.train.runlog import RunFolderError

FAILED, BAD_INPUT, NON_FINITE, INTERRUPTED, PREEMPTED = 1, 2, 3, 130, 143  # the last two: 128 + the signal
CONTINUES = "the same command continues"
# The keys that decide how much memory a run needs.
SIZES = (
    "objective.batch_size", "usable.batch_size", "fresh.batch_size", "evaluate.batch_size", "evaluate.train_samples",
    "evaluate.test_samples", "seeds", "model.options", "data.options.size", "data.options.p",
)  # fmt: skip
# System errors that no other input would have avoided; others are bad input until the run has begun.
OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOMEM, errno.ESTALE, errno.EMFILE}
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50, "E": 2**60}


class SystemFailed(Exception):
    """The machine did not do what a run needs: the disk is full, or a folder is gone; the message is one line."""


@contextmanager
def underway(workdir: str | Path) -> Iterator[None]:
    """Inside, an error of the system is a failure of the machine, not bad input.

    Raises:
      SystemFailed: names the file, or else the run folder.
    """
    try:
        yield
    except OSError as error:
        where = error.filename if error.filename is not None and error.strerror else f"workdir {workdir}"
        raise SystemFailed(f"{where}: {error.strerror or error}; once that is fixed, {CONTINUES}") from error


def explain(error: BaseException, config: Any = None) -> tuple[int, str] | None:
    """(exit code, line) of a known error; None for any other, which is a bug of infojax and keeps its traceback.

    Args:
      config: of the run, if it was read: the keys that may be the cause are named with their values.
    """
    text = " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, f"interrupted; {CONTINUES}"
    if isinstance(error, Preempted):
        return PREEMPTED, f"{text}; {CONTINUES}"
    if isinstance(error, NonFiniteError):
        return NON_FINITE, f"{text}. {untrained(config) if text.startswith('step 0:') else tamer(config)}"
    if out_of_memory(error):
        return FAILED, f"out of memory{asked(text)}{lower(config)}"
    if isinstance(error, UnwrittenError):
        return FAILED, f"{text}; once that is fixed, {CONTINUES}"
    if isinstance(error, SystemFailed):
        return FAILED, text
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{error.filename}: "
        code = FAILED if error.errno in OF_THE_MACHINE else BAD_INPUT
        return code, f"{where}{error.strerror}" if error.strerror else text
    if isinstance(error, ConfigError | DataError | RunFolderError | CheckpointError | ProcessError):
        return BAD_INPUT, text or type(error).__name__
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether the host's or the device's memory was too small."""
    if isinstance(error, jax.errors.JaxRuntimeError):
        return "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error)
    return isinstance(error, MemoryError)


def asked(text: str) -> str:
    """ ": 37.3 GiB asked for at once", from the message of a failed allocation; "" if it names no size."""
    found = re.search(r"alloca\D+(\d+(?:\.\d+)?) ?([KMGTPE]?)i?B", text, re.IGNORECASE)
    if found is None:
        return ""
    size = float(found[1]) * UNITS[found[2].upper()]
    unit = next((unit for unit in "EPTGMK" if size >= UNITS[unit]), "")
    return f": {size / UNITS[unit]:.3g} {unit + 'iB' if unit else 'bytes'} asked for at once"


def lower(config: Any) -> str:
    """ "; lower objective.batch_size (64) or ...", of the sizes of a config."""
    found = [text for text in values(config, SIZES) if not text.endswith(" (1)")]
    return f"; lower {' or '.join(found)}" if found else ""


def untrained(config: Any) -> str:
    """The likely cause where no step was made."""
    found = values(config, ("data.scale", "model.dtype"))
    return f"No step was made yet: the data or the network is to blame{', see ' * bool(found)}{' and '.join(found)}"


def tamer(config: Any) -> str:
    """Which keys make training diverge, and how to change them."""
    found = values(config, ("optimizer.lr",))
    if value_of(config, "objective.term") not in (None, "off"):
        found += values(config, ("objective.strength",))
    if (value_of(config, "optimizer.weight_decay") or 0) > 1:
        found += values(config, ("optimizer.weight_decay",))
    ways = [f"Lower {' or '.join(found)}"] if found else []
    if (value_of(config, "objective.temperature") or 1) < 1:
        ways += [f"raise {values(config, ('objective.temperature',))[0]}"]
    if value_of(config, "optimizer.clip") == 0:
        ways += ["bound the gradient with optimizer.clip=1"]
    if name := value_of(config, "sweep.name"):
        ways += [f"leave the largest or smallest {name} out of sweep.values"]
    text = ", ".join(ways)
    return f"{text[:1].upper()}{text[1:]}; another value is another run, in another --workdir"


def values(config: Any, paths: Iterable[str]) -> list[str]:
    """["optimizer.lr (0.1)", ...] of the paths that a config has a value for."""
    found = ((path, value_of(config, path)) for path in paths)
    return [f"{path} ({value})" for path, value in found if value is not None and value != {}]


def value_of(config: Any, path: str) -> Any:
    """The value at a dotted path, or None."""
    for part in path.split("."):
        if config is None or part not in config:
            return None
        config = config[part]
    return config.to_dict() if hasattr(config, "to_dict") else config
