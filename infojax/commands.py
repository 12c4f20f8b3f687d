"""Shared by the commands: checked flags, text for a terminal or a pipe, one line for whatever ends them, and the
compiled programs that are kept from one command to the next.
"""

import argparse
import hashlib
import math
import os
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

BAD_INPUT, INTERRUPTED = 2, 130  # 128 + SIGINT, as a shell reports it
CACHE_BYTES = 1 << 29  # of compiled programs; the least recently used are removed first
KEPT_IN = "jax_compilation_cache_dir"
NO_CACHE = ("--no-cache", "--no_cache")


class UsageError(ValueError):
    """A command line that cannot be carried out; the message is one line."""


class Parser(argparse.ArgumentParser):
    """argparse, with one line and no usage text for an error."""

    def error(self, message: str) -> NoReturn:
        """Raises UsageError with one line, where argparse prints the usage and exits."""
        raise UsageError(f"{message} (see {self.prog} -h)")

    def _print_message(self, message: str, file: Any = None) -> None:
        show(message)


class Once(argparse.Action):
    """Stores the value of a flag that may be given only once: otherwise one of two values would be dropped silently."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any, flag: str | None = None
    ) -> None:
        given = namespace.__dict__.setdefault("_given", set())
        if self.dest in given:
            parser.error(f"argument {flag}: given twice")
        given.add(self.dest)
        setattr(namespace, self.dest, value)


def named(text: str) -> str:
    """An argparse type: a name or path, neither empty nor containing NUL, which no file name may contain."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; expected a name")
    if "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r}: holds a NUL character")
    return text


def whole(least: int, most: float = math.inf) -> Callable[[str], int]:
    """An argparse type: a whole number from `least` to `most`."""
    span = f"from {least} on" if most == math.inf else f"from {least} to {most}"

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text[:40]!r}: expected a whole number {span}")
        return number

    return parse


def printable(text: object) -> str:
    """One line without control characters: names come from files, and a terminal would obey them."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def show(text: str) -> None:
    """Prints, even if stdout has no Unicode, as in some CI logs; a reader that has gone (`| head`) is not an error."""
    if sys.stdout is None:  # closed by `>&-`
        return
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(str.maketrans("─…·", "-~."))
        text = text.encode(encoding, "replace").decode(encoding)
    try:
        print(text, end="" if text.endswith("\n") else "\n", flush=True)
    except BrokenPipeError:
        _drop_stdout()
    except OSError as error:
        _drop_stdout()
        raise OSError(error.errno, error.strerror, "stdout") from error


def _drop_stdout() -> None:
    """Discards what is left in stdout's buffer; at exit Python would complain about it again."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def say(name: str, message: object) -> None:
    """One line on stderr, after the name of the command."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(f"{name}: {printable(message)}", file=sys.stderr, flush=True)


def one_line(name: str, work: Callable, errors: tuple) -> int:
    """The exit code of work(); one line on stderr for the errors (2), the system's (2), memory (2) and Ctrl-C (130)."""
    try:
        return work() or 0
    except KeyboardInterrupt:
        say(name, "interrupted")
        return INTERRUPTED
    except MemoryError:
        say(name, "out of memory")
    except OSError as error:
        known = error.filename is not None and error.strerror
        say(name, f"{os.fsdecode(error.filename)}: {error.strerror}" if known else error)
    except (UsageError, *errors) as error:
        say(name, error)
    return BAD_INPUT


def versions() -> str:
    """The versions of infojax and of what it computes with, in one line."""
    import jax
    import numpy as np

    own = sys.modules["infojax"].__version__
    return f"infojax {own} (jax {jax.__version__}, numpy {np.__version__}, Python {platform.python_version()})"


def keep_programs(name: str, argv: Sequence[str]) -> list[str]:
    """argv without `NO_CACHE`; unless it holds that, programs that XLA compiles are kept for the next command.

    They go to the user's cache folder (`cache_folder`), at most `CACHE_BYTES`; a folder that JAX was told of, by
    JAX_COMPILATION_CACHE_DIR for instance, is left alone. What cannot be written there is compiled again.
    """
    rest = [word for word in argv if word not in NO_CACHE]
    import jax

    if len(rest) < len(argv):
        jax.config.update("jax_enable_compilation_cache", False)
        return rest
    told = getattr(jax.config, KEPT_IN)
    if told is not None or find_spec("filelock") is None:  # JAX needs it to bound the cache
        return rest
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            return rest
        new = next(folder.iterdir(), None) is None
        _remove_torn(folder)
    except (OSError, NotImplementedError):  # the home folder is read-only, full or without locks
        return rest
    if new and sys.stderr is not None and sys.stderr.isatty():
        say(name, f"compiling, once on this machine: programs are kept in {folder}; --no-cache keeps none")
    jax.config.update(KEPT_IN, os.fspath(folder))
    jax.config.update("jax_compilation_cache_max_size", CACHE_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    return rest


def _remove_torn(folder):
    """Removes programs that a killed process was writing.

    JAX writes the time of last use after a program, and from then on no program at all if one lacks it.
    """
    from filelock import FileLock, Timeout

    with suppress(Timeout), FileLock(folder / ".lockfile", timeout=5):  # JAX's own, which it holds while it writes
        for path in folder.glob("*-cache"):
            used = path.with_name(path.name.removesuffix("-cache") + "-atime")
            if not used.exists() or not used.stat().st_size:
                path.unlink()


def cache_folder() -> Path:
    """Where programs are kept: a folder for each type of CPU, since machine code of one may not run on another.

    Several machines may share the user's home.
    """
    home = Path.home()
    base = {"darwin": home / "Library" / "Caches", "win32": Path(os.environ.get("LOCALAPPDATA", home))}
    root = base.get(sys.platform, Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache"))
    cpu = [platform.machine(), platform.processor()]
    with suppress(OSError):
        kinds = ("model name", "flags", "Features", "CPU part")
        with open("/proc/cpuinfo") as file:
            cpu += sorted({line.strip() for line in file if line.startswith(kinds)})
    return root / "infojax" / "programs" / f"{platform.machine()}-{hashlib.sha256(repr(cpu).encode()).hexdigest()[:12]}"
