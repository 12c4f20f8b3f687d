"""Tables: the columns of a Parquet, Arrow or Feather file as arrays by name, read batch by batch with pyarrow."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from infojax.features.sources import FeatureFileError, Index, Read, StoredArray

BATCH = 4096  # rows per batch


def open_table(path: Path) -> dict[str, StoredArray]:
    """The columns of a table: numbers (N,), text (N,), and lists of equal lengths (N, D) or (N, T, D).

    The lengths of lists are taken from the first row; reading a row with others gives a one-line error.

    Raises:
      FeatureFileError: pyarrow is missing, or the file has no rows.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise FeatureFileError(f"{path}: reading this kind of file needs pyarrow: pip install pyarrow") from error
    rows = _count(path)
    first = next(_batches(path, None), None)
    if not rows or first is None:
        raise FeatureFileError(f"{path}: holds no rows")
    arrays = {}
    for field in first.schema:
        kind, sizes, sample = field.type, [], first.column(field.name)
        while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            sizes.append(len(sample[0]) if len(sample) and sample[0].is_valid else 0)
            sample, kind = sample.flatten(), kind.value_type
        arrays[field.name] = _column(path, field.name, kind, (rows, *sizes))
    return arrays


def _column(path: Path, name: str, kind: Any, shape: tuple[int, ...]) -> StoredArray:
    """One column."""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    refusal = "" if text or number else f"is of the type {kind}, and not of numbers"
    dtype = np.dtype(kind.to_pandas_dtype() if number else str if text else "V1")

    @contextmanager
    def opener() -> Iterator[Read]:
        waiting, begin = iter(()), 0
        batch: np.ndarray | None = None

        def read(index: Index) -> np.ndarray:
            nonlocal waiting, begin, batch
            start, stop = index[0].start, index[0].stop
            if batch is None or start < begin:
                begin, waiting = _from(path, name, start)
                batch = next(waiting)
            pieces = []
            while True:
                values = batch[max(start - begin, 0) : stop - begin]
                pieces += [values[:, *index[1:]]] if len(values) else []
                if begin + len(batch) >= stop:
                    return np.concatenate(pieces)
                begin += len(batch)
                batch = next(waiting)

        yield read

    return StoredArray(f"{path}: {name}", shape, dtype, opener, refusal=refusal)


def _from(path: Path, name: str, start: int) -> tuple[int, Iterator[np.ndarray]]:
    """The first row of the first batch, and the batches of a column from the one that holds row `start` or earlier."""
    begin, groups = 0, None
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        metadata, group = pq.ParquetFile(path).metadata, 0
        while begin + metadata.row_group(group).num_rows <= start:
            begin += metadata.row_group(group).num_rows
            group += 1
        groups = list(range(group, metadata.num_row_groups))
    return begin, _values(path, name, groups)


def _values(path: Path, name: str, groups: list[int] | None) -> Iterator[np.ndarray]:
    sizes: tuple[int, ...] | None = None
    for batch in _batches(path, name, groups):
        values = _to_numpy(batch.column(name), f"{path}: {name}")
        if sizes is not None and values.shape[1:] != sizes:
            raise FeatureFileError(
                f"{path}: {name} holds lists of {sizes} and of {values.shape[1:]} numbers; expected equal lengths"
            )
        sizes = values.shape[1:]
        yield values


def _to_numpy(column: Any, where: str) -> np.ndarray:
    """A column, or a batch of it, as an array; nested lists become axes."""
    import pyarrow as pa
    import pyarrow.compute

    sizes = [len(column)]
    while True:
        if column.null_count:
            raise FeatureFileError(
                f"{where}: {column.null_count} values are missing (null); drop these rows, or fill them"
            )
        kind = column.type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
            break
        lengths = (
            np.unique(pa.compute.list_value_length(column).to_numpy(zero_copy_only=False))
            if len(column)
            else np.array([0])
        )
        if len(lengths) > 1:
            raise FeatureFileError(
                f"{where}: its lists have from {lengths[0]} to {lengths[-1]} entries; expected equal lengths"
            )
        sizes.append(int(lengths[0]))
        column = column.flatten()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    values = column.to_numpy(zero_copy_only=False)
    values = values.astype(str) if values.dtype == object else values
    return values.reshape(sizes) if math.prod(sizes) == len(values) else values


def _count(path: Path) -> int:
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        return pq.ParquetFile(path).metadata.num_rows
    return sum(batch.num_rows for batch in _batches(path, None))


def _batches(path: Path, name: str | None, groups: list[int] | None = None) -> Iterator[Any]:
    """The record batches of a table in order; only the named column of a Parquet file, if given."""
    import pyarrow as pa

    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as table:
            yield from table.iter_batches(BATCH, row_groups=groups, columns=None if name is None else [name])
        return
    with pa.OSFile(str(path)) as source:
        try:
            found = pa.ipc.open_file(source)
            batches = (found.get_batch(i) for i in range(found.num_record_batches))
        except pa.ArrowInvalid:  # a stream, as written by Hugging Face's datasets
            source.seek(0)
            batches = iter(pa.ipc.open_stream(source))
        yield from batches
