"""Data sets by name, the order of their samples, and what happens to them on the device.

`open_dataset(name, dir)` gives a `Dataset`, `in_memory(dataset.split("train"))` its arrays. `order` says which samples
a step takes; `weak`, `strong` and `normalise` make views of them inside a jitted step; `stream` reads larger sets.
"""

import inspect
import os
from functools import partial
from pathlib import Path
from typing import Any

from infojax.data.augment import normalise, strong, transforms, weak
from infojax.data.coop import SETS, open_coop
from infojax.data.folders import folder
from infojax.data.generated import digits, modular, synthetic
from infojax.data.official import OFFICIAL, open_official
from infojax.data.options import check_options
from infojax.data.order import order, order_with_replacement
from infojax.data.records import open_records
from infojax.data.saved import saved_features
from infojax.data.source import (
    Arrays,
    Chosen,
    DataError,
    Dataset,
    Joined,
    Source,
    channel_moments,
    constant_channels,
    in_memory,
)
from infojax.data.splits import labelled
from infojax.data.stream import stream
from infojax.data.views import RECIPES, Recipe, view, view_transforms
from infojax.data.workers import use_workers
from infojax.suggestions import suggest

__all__ = [
    "Arrays", "Chosen", "DataError", "Dataset", "Joined", "RECIPES", "Recipe", "Source", "channel_moments",
    "constant_channels", "in_memory", "labelled", "normalise", "open_dataset", "options_of", "order",
    "order_with_replacement", "stream", "strong", "transforms", "use_workers", "view", "view_transforms", "weak",
]  # fmt: skip

DATASETS = {
    "digits": digits,
    "synthetic": synthetic,
    "modular": modular,
    "folder": folder,
    "features": saved_features,
    **{name: partial(open_official, name) for name in OFFICIAL},
    **{name: partial(open_coop, name) for name in SETS},
}


def open_dataset(name: str = "digits", dir: str | Path | None = None, **options: Any) -> Dataset:
    """A data set by name.

    Args:
      name: a key of DATASETS, or "tfds:NAME" for a set that TensorFlow Datasets prepared as ArrayRecord.
      dir: folder of its files; by default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      options: arguments of the set: see `digits`, `synthetic`, `modular`, `folder`, `open_records`; their ranges are in
        `infojax.data.options`.
    Raises:
      DataError: unknown name or option, a value out of range, missing or broken files.
    """
    opener = _opener(name)
    if opener is None:
        raise DataError(f"no data set {name!r}{suggest(name, (*DATASETS, 'tfds:NAME'))}")
    check_options(name, options, options_of(name))
    reads_files = "dir" in inspect.signature(opener).parameters
    if dir and not reads_files:
        raise DataError(f"{name} is made without files, but a folder is given: {dir}; leave it out")
    if reads_files:
        options["dir"] = dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return opener(**options)


def options_of(name: str) -> dict[str, Any]:
    """The options of a data set with their defaults, None standing for a whole number; {} for an unknown name."""
    opener = _opener(name)
    given = inspect.signature(opener).parameters.values() if opener else ()
    return {option.name: option.default for option in given if option.name != "dir"}


def _opener(name):
    kind, _, rest = str(name).partition(":")
    return partial(open_records, rest) if kind == "tfds" and rest else DATASETS.get(str(name))
