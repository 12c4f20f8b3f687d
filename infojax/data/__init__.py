"""Data sets by name, the order of their samples, and what happens to them on the device.

`open_dataset(name, dir)` gives a `Dataset`, `in_memory(dataset.split("train"))` its arrays. `order` says which samples
a step takes; `weak`, `strong` and `normalise` make views of them inside a jitted step; `stream` reads larger sets.
"""

import inspect
import os
from functools import partial

from infojax.data.augment import normalise, strong, transforms, weak
from infojax.data.generated import digits, modular, synthetic
from infojax.data.images import folder
from infojax.data.official import OFFICIAL, open_official
from infojax.data.order import order, order_with_replacement
from infojax.data.records import open_records
from infojax.data.source import Arrays, DataError, Dataset, Source, channel_moments, in_memory, near
from infojax.data.splits import labelled
from infojax.data.stream import stream

__all__ = [
    "Arrays", "DataError", "Dataset", "Source", "channel_moments", "in_memory", "labelled", "normalise",
    "open_dataset", "order", "order_with_replacement", "stream", "strong",
    "transforms", "weak",
]  # fmt: skip

DATASETS = {
    "digits": digits,
    "synthetic": synthetic,
    "modular": modular,
    "folder": folder,
    **{name: partial(open_official, name) for name in OFFICIAL},
}


def open_dataset(name="digits", dir=None, **options):
    """A data set by name.

    Args:
      name: a key of DATASETS, or "tfds:NAME" for a set that TensorFlow Datasets prepared as ArrayRecord.
      dir: folder of its files; by default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      options: arguments of the set: see `digits`, `synthetic`, `modular`, `folder`, `open_records`.
    Raises:
      DataError: unknown name or option, missing or broken files.
    """
    kind, _, rest = str(name).partition(":")
    if kind == "tfds" and rest:
        opener = partial(open_records, rest)
    elif name in DATASETS:
        opener = DATASETS[name]
    else:
        raise DataError(f"no data set {name!r}{near(name, (*DATASETS, 'tfds:NAME'))}")
    known = inspect.signature(opener).parameters
    for option in options:
        if option not in known:
            raise DataError(f"{name} has no option {option!r}{near(option, known)}")
    if "dir" in known:
        options["dir"] = dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return opener(**options)
