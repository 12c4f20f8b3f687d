"""Checks of a config's values that need more than one key, or what was built."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from infojax.suggestions import suggest
from infojax.tasks.config import ConfigError


def note_term(settings: Any, sweep: Any) -> Iterator[str]:
    """A line if the information term of an objective changes nothing: it is off, or its strength is 0."""
    strong = settings.strength or sweep.name == "strength"
    if settings.term != "off" and not strong:
        yield f"config.objective.term is {settings.term}, but its strength is 0: it changes nothing"
    if settings.term == "off" and strong:
        yield "config.objective.strength is given, but the term is off: it changes nothing"


def total_steps(config: Any, per_epoch: float | None) -> int:
    """Number of updates of a run, from steps or epochs.

    Raises:
      ConfigError: neither or both are given, or there would be too many.
    """
    if (config.steps is None) == (config.epochs is None):
        raise ConfigError(f"give either steps or epochs; steps is {config.steps}, epochs is {config.epochs}")
    if config.epochs is not None and not 0 < config.epochs < math.inf:
        raise ConfigError(f"epochs must be a positive number, got {config.epochs}")
    total = config.steps if config.epochs is None else max(1, round(config.epochs * per_epoch))
    if total >= 2**31:
        raise ConfigError(f"epochs is {config.epochs:g}, which is {total:.3g} steps; expected fewer than 2^31")
    return total


def check_numbers(path: str, values: Any, what: str, fits: Callable[[Any], bool]) -> None:
    """Refuses anything but different numbers that all fit.

    Raises:
      ConfigError: names the path.
    """
    plain = all(type(value) in (int, float) for value in values)
    if not values or not plain or not all(fits(value) for value in values) or len(set(values)) < len(values):
        raise ConfigError(f"{path} must be different numbers, {what}; got {values!r}")


def check_shares(settings: Any, *names: str) -> None:
    """Refuses fields of the objective that are not in [0, 1).

    Raises:
      ConfigError: names the field.
    """
    for name in names:
        if not 0 <= settings[name] < 1:
            raise ConfigError(f"objective.{name} must be at least 0 and below 1, got {settings[name]}")


def check_choice(config: Any, path: str, values: Iterable[str]) -> None:
    """Refuses a value that is not one of `values`.

    Raises:
      ConfigError: names similar ones.
    """
    found = config
    for part in path.split("."):
        found = found[part]
    if found not in values:
        raise ConfigError(f"{path} cannot be {found!r}{suggest(found, values)}")


def check_batch(batch: Any, num_samples: int) -> None:
    """Refuses a batch that is larger than the training set.

    Raises:
      ConfigError: names both numbers.
    """
    if not 1 <= batch <= num_samples:
        raise ConfigError(f"objective.batch_size must be from 1 to {num_samples}, the training samples; got {batch}")
