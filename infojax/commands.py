"""Shared by the commands: checked flags, text for a terminal or a pipe, and one line for whatever ends them."""

import argparse
import math
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

BAD_INPUT, INTERRUPTED = 2, 130  # 128 + SIGINT, as a shell reports it


class UsageError(ValueError):
    """A command line that cannot be carried out; the message is one line."""


class Parser(argparse.ArgumentParser):
    """argparse, with one line and no usage text for an error."""

    def error(self, message: str) -> NoReturn:
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
