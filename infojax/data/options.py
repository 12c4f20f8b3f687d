"""The options of data sets: the range of each, and the check of a value against it."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from infojax.data.coop import SETS
from infojax.data.source import DataError
from infojax.suggestions import suggest


class Whole(NamedTuple):
    """A whole number from `least` to `most`; None if the option has no default and is not given."""

    least: int = 0
    most: int = 2**31 - 1

    def refusal(self, value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < self.least:
            return f"a whole number of at least {self.least}"
        return f"at most {self.most:,}" if value > self.most else None


class Number(NamedTuple):
    """A finite number from `least` to `most`."""

    least: float = 0.0
    most: float = math.inf

    def refusal(self, value: Any) -> str | None:
        real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        if real and self.least <= value <= self.most and math.isfinite(value):
            return None
        kind = "" if real and math.isfinite(value) else "a finite number of "
        return f"{kind}at least {self.least:g}" + (f" and at most {self.most:g}" if math.isfinite(self.most) else "")


class Text(NamedTuple):
    """Text: a name or a path; "" if none is given."""

    def refusal(self, value: Any) -> str | None:
        return None if isinstance(value, str) else "text"


class OneOf(NamedTuple):
    """One of several strings."""

    values: tuple
    words: str

    def refusal(self, value: Any) -> str | None:
        known = any(type(value) is type(one) and value == one for one in self.values)
        return None if known else self.words


SEED, SIZE, CHANNELS = Whole(), Whole(1, 4096), OneOf((1, 3), "1 (grey) or 3 (RGB)")
SPLITS = {"train_split": Text(), "test_split": Text()}
RANGES: dict[str, dict[str, Any]] = {  # data set -> option -> what it may be
    "digits": {},
    "features": {},
    "synthetic": {
        "num_classes": Whole(1, 100_000), "size": SIZE, "channels": Whole(1, 4096), "num_train": Whole(1),
        "num_test": Whole(1), "noise": Number(), "seed": SEED,
    },
    "modular": {"p": Whole(2, 4096), "operation": Text(), "train_fraction": Number(0.0, 1.0), "seed": SEED},
    "folder": {
        "split_file": Text(), "size": SIZE, "channels": CHANNELS, **SPLITS, "test_fraction": Number(0.0, 0.9),
        "seed": SEED,
    },
    **{name: {"size": SIZE} for name in SETS},
    "tfds": {"version": Text(), "size": SIZE, "image_key": Text(), "label_key": Text(), **SPLITS},
}  # fmt: skip


def check_options(name: str, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuses options that a data set does not have or whose value is out of range; None stands for "not given".

    Args:
      name: of the data set, as requested.
      options: name -> value; defaults: name -> default of every option it has.
    Raises:
      DataError: names the option, its value, and what it may be.
    """
    ranges = RANGES.get(name.partition(":")[0], {})
    for option, value in options.items():
        if option not in defaults:
            raise DataError(f"{name} has no option {option!r}{suggest(option, defaults)}")
        wanted = None if value is None and defaults[option] is None else ranges[option].refusal(value)
        if wanted:
            raise DataError(f"{name}: {option} must be {wanted}, got {value!r}")
