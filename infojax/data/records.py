"""TensorFlow Datasets stored as ArrayRecord: random access without TensorFlow. The only module that reads them."""

from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from infojax.data.images import Encoded
from infojax.data.official import OFFICIAL, PREPARED
from infojax.data.source import UNLABELLED, DataError, Dataset, check_labels, roles
from infojax.suggestions import suggest


class Records(Encoded):
    """A split of a prepared set, decoded when read."""

    def __init__(
        self,
        records: Any,
        where: str,
        num_classes: int,
        shape: tuple[int, ...],
        size: int | None,
        image_key: str,
        label_key: str,
    ) -> None:
        super().__init__(shape, size)
        self._records, self._where, self._num_classes = records, where, num_classes
        self._unlabelled = where.endswith(f" {UNLABELLED}")
        self._image_key, self._label_key = image_key, label_key

    def __len__(self) -> int:
        return len(self._records)

    def encoded(self, indices: np.ndarray) -> tuple[list[Any], list[str], np.ndarray]:
        rows, labels = self._rows(indices)
        pictures = [row[self._image_key].bytes_list.value[0] for row in rows]
        return pictures, [f"{self._where}, record {i}" for i in indices], labels

    def _rows(self, indices):
        from tensorflow_datasets.proto import tf_example_pb2

        try:
            raw = self._records.__getitems__([int(i) for i in indices])
            rows = [tf_example_pb2.Example.FromString(record).features.feature for record in raw]
        except Exception as error:  # from the record reader, which defines no error types
            raise DataError(f"{self._where}: {' '.join(str(error).split())}; prepare the set anew") from None
        labels = np.array([row[self._label_key].int64_list.value[0] for row in rows], np.int32)
        check_labels(labels, self._num_classes, self._where, self._unlabelled)
        return rows, labels

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) int32, read from every record on first use, without decoding pictures."""
        return self.labels_at(np.arange(len(self)))

    def labels_at(self, indices: np.ndarray) -> np.ndarray:
        """Labels (n,) of the records `indices` (n,), read in blocks."""
        if "labels" in vars(self):
            return self.labels[indices]
        return np.concatenate([self._rows(indices[a : a + 1000])[1] for a in range(0, len(indices), 1000)])


def open_records(
    name: str,
    dir: str | Path,
    version: str = "",
    size: int | None = None,
    image_key: str = "image",
    label_key: str = "label",
    train_split: str = "",
    test_split: str = "",
) -> Dataset:
    """The set `name` (a TFDS name, with /CONFIG if it has several) prepared as ArrayRecord in dir.

    Args:
      size: pictures of different sizes are resized and cropped to size x size.
      version: of the set; the highest of those in dir by default.
      image_key, label_key: names of the features.
      train_split, test_split: splits for training and measuring, or parts such as "train[:80%]"; by default train, and
        test or else validation.
    Raises:
      DataError: missing, in a different file format, or without such features.
    """
    import tensorflow_datasets as tfds

    builder, versions = _builder(name, Path(dir).expanduser(), version)
    features = builder.info.features
    _check_feature(name, features, image_key, tfds.features.Image, "image_key")
    _check_feature(name, features, label_key, tfds.features.ClassLabel, "label_key")
    height, width, channels = features[image_key].shape
    if size is None and None in (height, width):
        raise DataError(f"tfds:{name}: its pictures differ in size; give size=224 or another")
    shape = (height, width, channels) if size is None else (size, size, channels)
    label = features[label_key]

    def source(split):
        try:
            raw = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        except (ValueError, AssertionError) as error:  # a part that cannot be parsed
            raise DataError(f"tfds:{name}: split {split!r}: {' '.join(str(error).split())}") from None
        return Records(raw, f"tfds:{name}, split {split}", label.num_classes, shape, size, image_key, label_key)

    parts = [split for split in (train_split, test_split) if "[" in split]
    splits = {split: cache(partial(source, split)) for split in (*builder.info.splits, *parts)}
    chosen, notes = roles(f"tfds:{name}", splits, train=train_split, test=test_split)
    if len(versions) > 1:
        notes.append(f"tfds:{name}: version {versions[-1]} is read, of {', '.join(versions)}")
    if size is not None and (height, width) != (size, size):
        notes.append(f"tfds:{name}: every picture is resized, its shorter side to {size}, and its middle cut out")
    facts = OFFICIAL.get(name)
    moments: dict[str, Any] = {"mean": facts.mean, "std": facts.std} if facts else {}
    names = tuple(label.names or ())
    return Dataset(f"tfds:{name}", label.num_classes, names, splits, **moments, roles=chosen, notes=notes)


def _builder(name, root, version):
    """The TFDS builder of the highest matching version prepared in root, and the names of those versions, ascending.

    Raises:
      DataError: there is none, it is damaged, or it is not stored as ArrayRecord.
    """
    import tensorflow_datasets as tfds

    built = sorted(
        (path.parent for path in (root / name).glob(f"{version or '*'}/dataset_info.json")),
        key=lambda p: _version(p.name),
    )
    if not built:
        ours = f"python -m infojax.data.prepare {name} --source FOLDER_OF_OFFICIAL_FILES --out {root}, or "
        raise DataError(
            f"tfds:{name}: no prepared set in {root / name}; to get it: {ours if name in PREPARED else ''}"
            f"with TensorFlow installed: tfds build {name} --file_format=array_record --data_dir={root}"
        )
    try:
        builder = tfds.builder_from_directory(built[-1])
    except Exception as error:  # from damaged JSON, in the reader's own types
        detail = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(f"{built[-1]} is damaged ({detail}); prepare the set anew") from None
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise DataError(
            f"{built[-1]} is stored as {builder.info.file_format.value}, which only TensorFlow reads; convert it: "
            f"tfds convert_format --root_data_dir={root} --out_file_format=array_record"
        )
    return builder, [path.name for path in built]


def _check_feature(name, features, key, kind, flag):
    if key not in features or not isinstance(features[key], kind):
        hint = f"; set {flag}{suggest(key, features)}"
        raise DataError(f"tfds:{name}: feature {key!r} is not a {kind.__name__}{hint}")


def _version(text):
    return tuple(int(part) for part in text.split(".") if part.isdigit())
