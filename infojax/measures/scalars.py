"""Checks of single values: whole numbers, floats, flags and names; and of sizes, against the memory."""

import functools
import math
import operator
import os
from collections.abc import Callable, Collection
from typing import Any

import jax
import numpy as np

from infojax.measures.conversion import described


def check_size(what: str, *shape: int, itemsize: int = 4) -> None:
    """Raises ValueError if an array of this shape exceeds the machine's memory: a number of classes must be wrong."""
    if (size := math.prod(shape) * itemsize) > memory():
        raise ValueError(
            f"{what} would take {size / 2**30:,.3g} GiB of memory; this machine has {memory() / 2**30:.3g}"
        )


@functools.cache
def memory() -> float:
    """Memory of this machine in bytes; inf if unknown."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return math.inf


def whole_number(value: Any, name: str, least: int | None = None, most: int | None = None) -> int:
    """A static integer from `least` to `most` as an int; raises ValueError for anything else."""
    if isinstance(value, jax.core.Tracer):
        raise ValueError(f"{name} is traced, but must be a static whole number: jit with static_argnames={name!r}")
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number; got {described(value)}") from None
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}; got {number}")
    if most is not None and number > most:
        raise ValueError(f"{name} must be at most {most}; got {described(number)}")
    return number


def number(value: Any, name: str, expected: str, fits: Callable[[float], bool] = lambda x: True) -> Any:
    """A scalar for which `fits` is true, returned as given; ValueError "`name` must be `expected`" otherwise.

    Traced numbers are not checked.
    """
    if isinstance(value, jax.core.Tracer):
        return value
    try:
        if isinstance(value, str | bytes) or np.ndim(value):
            raise TypeError
        good = fits(float(value))
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(f"{name} must be {expected}; got {described(value)}")
    return value


def positive(value: Any, name: str) -> Any:
    """A number x with 0 < x < inf, returned unchanged, else ValueError; traced numbers are not checked."""
    return number(value, name, "a positive number", lambda x: 0 < x < np.inf)


def flag(value: Any, name: str) -> Any:
    """True or False, also as 0, 1 or a 0-d array, traced or not, returned unchanged; else ValueError."""
    if isinstance(value, bool | np.bool_ | int) or (isinstance(value, np.ndarray | jax.Array) and value.shape == ()):
        return value
    raise ValueError(f"{name} must be True or False; got {described(value)}")


def one_of(value: Any, name: str, known: Collection[str]) -> Any:
    """One of the known names, returned unchanged; ValueError that lists them for anything else."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}; got {described(value)}")
    return value
