"""Thresholds: `effective_rank < 0.5 * start`.

  NAME OP VALUE, with OP one of < <= > >=, and VALUE a number, or WORD, or NUMBER * WORD:
    start  the first measurement      last  the one before
    least, most                       of all measurements before

NAME is a measure, of a layer as in "effective_rank@layer4". A rule says nothing while there is no earlier measurement
to compare with. A value that is nan breaks it.
"""

import math
import operator
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

COMPARED = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
WORDS: dict[str, Callable[[Sequence[float]], Any]] = {
    "start": lambda x: x[0],
    "last": lambda x: x[-1],
    "least": min,
    "most": max,
}
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
RULE = re.compile(
    rf"\s*(?P<name>[^\s<>=*]+)\s*(?P<op><=|>=|<|>)\s*"
    rf"(?:(?P<number>{NUMBER})|(?:(?P<factor>{NUMBER})\s*\*\s*)?(?P<word>{'|'.join(WORDS)}))\s*"
)


class ThresholdError(RuntimeError):
    """A `stop_if` of a Monitor holds; the message is one line with the step and the numbers."""


class Rule(NamedTuple):
    """A threshold: `name` compared by `op` with `factor` times a word's value, or with `factor` alone."""

    text: str
    name: str
    op: str
    factor: float
    word: str

    @property
    def measure(self) -> str:
        """The name without its layer."""
        return self.name.partition("@")[0]

    @property
    def layer(self) -> str:
        """The layer of the name, the part after "@"; "" if there is none."""
        return self.name.partition("@")[2]

    def broken(self, found: Mapping[str, float], history: Mapping[str, Sequence[float]]) -> str:
        """The rule with its numbers where it holds; "" where it does not.

        Args:
          found: the new measurements. history: the finite values of earlier ones.
        Raises:
          ValueError: its name is not measured.
        """
        if self.name not in found and self.name in history:
            return ""  # all its rows were left out, which is told
        if self.name not in found:
            raise ValueError(f"{self.text!r}: {self.name} is not measured; measured are {', '.join(found)}")
        value, before = found[self.name], history.get(self.name, ())
        if math.isnan(value):
            return f"{self.name} is nan ({self.text})"
        if self.word and not before:
            return ""
        limit = self.factor * (WORDS[self.word](before) if self.word else 1)
        return f"{self.text} ({value:.6g} {self.op} {limit:.6g})" if COMPARED[self.op](value, limit) else ""


def parse(text: str) -> Rule:
    """The rule that a text says.

    Raises:
      ValueError: it is none.
    """
    found = RULE.fullmatch(text) if isinstance(text, str) else None
    if found is None or found["name"].endswith("@") or math.isinf(float(found["number"] or found["factor"] or 1)):
        words = ", ".join(WORDS)
        raise ValueError(
            f"{text!r} is no threshold; expected NAME < VALUE (or <=, >, >=), where VALUE is a number, one of {words}, "
            "or a number times one of these, as in 'effective_rank < 0.5 * start'"
        )
    factor = float(found["number"] or found["factor"] or 1)
    return Rule(" ".join(text.split()), found["name"], found["op"], factor, found["word"] or "")


class Thresholds:
    """The rules of a monitor, and the measurements that they are compared with.

    Attributes:
      rules: those of `warn_if`, then those of `stop_if`.
      history: name -> its finite values so far.
    Raises:
      ValueError: a text is no threshold.
    """

    def __init__(self, warn_if: Sequence[str], stop_if: Sequence[str]) -> None:
        self.rules = [parse(text) for text in (*warn_if, *stop_if)]
        self.history: dict[str, list[float]] = {}
        self._warn_only = len(warn_if)

    def check(self, step: int, found: Mapping[str, float]) -> None:
        """Warns or raises where a rule holds for the new measurements, which are then part of the history.

        Raises:
          ThresholdError: a `stop_if` holds. ValueError: the name of a rule is not measured.
        """
        try:
            for i, rule in enumerate(self.rules):
                line = rule.broken(found, self.history)
                if line and i >= self._warn_only:
                    raise ThresholdError(f"infojax.Monitor: step {step}: {line}")
                if line:
                    warnings.warn(f"infojax.Monitor: step {step}: {line}", RuntimeWarning, stacklevel=4)
        finally:
            for name, value in found.items():
                if math.isfinite(value):
                    self.history.setdefault(name, []).append(value)
