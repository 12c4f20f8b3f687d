"""Features in files as a data set, for probes."""

import zipfile
from pathlib import Path

import numpy as np

from infojax.data.source import Arrays, DataError, Dataset, counted, listing


def saved_features(dir: str | Path) -> Dataset:
    """A network's features, from features_train.npz and features_test.npz; probes take them unchanged.

    Each file has "features" (N, D) and "labels" (N,); "class_names" (C,), if present, name the classes.

    Args:
      dir: folder of both files.
    Raises:
      DataError: one is missing, cannot be read, or does not fit the other.
    """
    root = Path(dir).expanduser()
    found = {split: _read(root / f"features_{split}.npz") for split in ("train", "test")}
    widths = {split: x.shape[1] for split, (x, _, _) in found.items()}
    if widths["train"] != widths["test"]:
        raise DataError(f"features: train has {widths['train']} numbers per sample, test {widths['test']}, in {root}")
    labels = np.concatenate([y for _, y, _ in found.values()])
    names = next((names for *_, names in found.values() if names), ())
    if any(own and own != names for *_, own in found.values()):
        raise DataError(f"features: class_names of train and test differ, in {root}; both must have the same order")
    count = len(names) or int(labels.max()) + 1
    untrained = np.setdiff1d(found["test"][1], found["train"][1])
    sizes = ", ".join(f"{counted(len(y), 'sample')} in {split}" for split, (_, y, _) in found.items())
    note = f"features: {sizes}; {widths['train']} numbers each; {count:,} classes"
    notes = [note, f"features: no sample in train of labels of test: {listing([str(label) for label in untrained])}"]
    splits = {split: (lambda x=x, y=y: Arrays(x, y)) for split, (x, y, _) in found.items()}
    return Dataset("features", count, names, splits, flip=False, notes=notes[: 1 + bool(len(untrained))])


def _read(path):
    """(features, labels, class names or ()) of a file."""
    if not path.is_file():
        raise DataError(
            f"features: found no {path}; expected features_train.npz and features_test.npz, as "
            "configs/crossmodal.py:method=features writes them"
        )
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in ("features", "labels", "class_names") if name in file}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as an .npz file of numbers ({' '.join(str(error).split())})") from None
    missing = [name for name in ("features", "labels") if name not in arrays]
    if missing:
        raise DataError(f"{path} has no array {missing[0]!r}")
    x, labels = arrays["features"], arrays["labels"]
    if x.ndim != 2 or labels.shape != (len(x),) or labels.dtype.kind not in "iu" or not len(x):
        raise DataError(
            f"{path}: features must be (N, D) and labels (N,) whole numbers; they are {x.shape} {x.dtype} and "
            f"{labels.shape} {labels.dtype}"
        )
    lost = np.flatnonzero(~np.isfinite(x).all(1))
    if len(lost):
        raise DataError(f"{path}: features of row {lost[0]} are not finite ({counted(len(lost), 'row')} in all)")
    return x.astype(np.float32), labels.astype(np.int32), tuple(map(str, arrays.get("class_names", ())))
