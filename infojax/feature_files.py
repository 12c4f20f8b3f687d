"""Feature files read in row blocks: .npy, .npz, .safetensors and .h5, never one whole in memory.

`open_arrays` reads headers and returns a `StoredArray` per array; `infojax.analyze` takes one in
place of a matrix in memory. Files are read, not memory-mapped: mapped pages count as the process's
memory, so a map grows with the file. No code from a file is run: pickled arrays are refused.
A broken file ends in one `FeatureFileError` line.
"""

import difflib
import json
import math
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import jax
import ml_dtypes
import numpy as np

DIGITS = "digits"  # the name of the bundled set: scikit-learn's 8x8 digits
SAFETENSORS_DTYPES = {
    "BOOL": np.bool_,
    **{f"U{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"I{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"F{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}
BLOCK_BYTES = 2**28  # no block is larger: very wide rows come in blocks of fewer than `chunk`
GAP_BYTES = 2**16  # reading over a gap this small is cheaper than seeking past it


class FeatureFileError(ValueError):
    """A feature file, or an array of it, that cannot be used; the message is one line."""


@contextmanager
def _one_line(where: object) -> Iterator[None]:
    """Turns what a damaged file makes the format libraries raise into one line."""
    try:
        yield
    except FeatureFileError:
        raise
    except MemoryError as error:
        raise FeatureFileError(f"{where}: too large to read at once; lower --chunk") from error
    except Exception as error:
        # Exception: zlib, zipfile, lzma, h5py, numpy and safetensors share no smaller class.
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise FeatureFileError(f"{where}: cannot be read: {' '.join(reason.split())}") from error


# (start, stop) -> those rows; within one pass the ranges ascend and do not overlap
Read = Callable[[int, int], np.ndarray]


class StoredArray:
    """An array (N, ...) in a file, as a matrix of N rows: the `Rows` that `infojax.analyze` takes.

    Attributes: `shape` (N, D), the axes after the first flattened; `full_shape` and `dtype` as
    stored (native byte order); `where`, the file and the name. Nothing is read before `blocks`,
    `take` or `load`, and each of them opens the file anew.
    """

    def __init__(self, where: str, full_shape: tuple, dtype: np.dtype, opener, in_memory=False):
        self.where, self.full_shape, self.in_memory = where, tuple(full_shape), in_memory
        self.shape = (*self.full_shape[:1], math.prod(self.full_shape[1:]))
        # numpy has no name for bfloat16 and saves it as two raw bytes, like no other number.
        raw_bfloat16 = dtype.kind == "V" and dtype.itemsize == 2 and not dtype.fields
        self.dtype = np.dtype(ml_dtypes.bfloat16) if raw_bfloat16 else dtype.newbyteorder("=")
        self._opener = opener

    def __repr__(self) -> str:
        return f"{self.full_shape} {self.dtype}"

    def require_numbers(self) -> None:
        """Raises FeatureFileError unless this is an array of real numbers with at least one row."""
        if self.dtype.hasobject:
            problem = "holds pickled Python objects, which are never loaded; save it as numbers"
        elif np.issubdtype(self.dtype, np.complexfloating):
            problem = f"is complex ({self.dtype}); save its real and imaginary parts as columns"
        elif not jax.dtypes.issubdtype(self.dtype, np.number) and self.dtype != bool:
            problem = f"has dtype {self.dtype}, which is not a number"
        elif not self.full_shape:
            problem = "is a single number (shape ()), not an array of rows"
        elif not self.full_shape[0] or not self.shape[1]:
            problem = f"is empty: shape {self.full_shape}"
        else:
            return
        raise FeatureFileError(f"{self.where} {problem}")

    @contextmanager
    def _reading(self) -> Iterator[Read]:
        with _one_line(self.where), self._opener() as read:
            yield lambda start, stop: self._convert(read(start, stop))

    def _convert(self, rows: np.ndarray) -> np.ndarray:
        if rows.dtype.kind == "V" and rows.dtype != self.dtype:
            rows = rows.view(self.dtype)
        return rows.astype(self.dtype, copy=False)

    def block_rows(self, limit: int) -> int:
        """How many rows one block holds where at most `limit` are asked for: fewer if they are very wide."""
        return max(1, min(limit, BLOCK_BYTES // max(1, self.shape[1] * self.dtype.itemsize)))

    def blocks(self, chunk: int) -> Iterator[np.ndarray]:
        """Row blocks (<= chunk, D) in order; every call is a new pass over the file."""
        self.require_numbers()
        step = self.block_rows(chunk)
        with self._reading() as read:
            for start in range(0, self.shape[0], step):
                rows = read(start, min(start + step, self.shape[0]))
                yield rows.reshape(len(rows), self.shape[1])

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The rows (len(indices), D) at sorted `indices`; reads little else if it can seek."""
        self.require_numbers()
        indices = np.asarray(indices, dtype=np.int64)
        taken = np.empty((len(indices), self.shape[1]), self.dtype)
        if not len(indices):
            return taken
        block = self.block_rows(8192)
        gap = max(1, GAP_BYTES // max(1, self.shape[1] * self.dtype.itemsize))
        cuts = np.flatnonzero((np.diff(indices) > gap) | (np.diff(indices // block) > 0)) + 1
        with self._reading() as read:
            for at in np.split(np.arange(len(indices)), cuts):
                span = indices[at]
                rows = read(int(span[0]), int(span[-1]) + 1)
                taken[at] = rows.reshape(len(rows), self.shape[1])[span - span[0]]
        return taken

    def load(self) -> np.ndarray:
        """The whole array in its stored shape: for labels, heads and biases."""
        self.require_numbers()
        with self._reading() as read:
            return read(0, self.shape[0]).reshape(self.full_shape)


# How the rows of each format are reached: functions that return an opener


class Layout(NamedTuple):
    """What the bytes of an array mean."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool = False

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def check_length(self, path: Path, name: str, held: int) -> None:
        needed = math.prod(self.shape) * self.dtype.itemsize
        # The length of a pickle is not in its header; it is refused when it is chosen.
        if held < needed and not self.dtype.hasobject:
            problem = f"truncated: {name} needs {needed} bytes, the file has {held}"
            raise FeatureFileError(f"{path}: {problem}")


def _fill(stream, nbytes: int) -> np.ndarray:
    buffer = np.empty(nbytes, np.uint8)
    view, got = memoryview(buffer), 0
    while got < nbytes:
        more = stream.readinto(view[got:])
        if not more:
            raise EOFError(f"the data end {nbytes - got} bytes too early")
        got += more
    return buffer


def _read_rows(stream, layout: Layout, count: int) -> np.ndarray:
    rows = _fill(stream, count * layout.row_bytes).view(layout.dtype)
    return rows.reshape(count, *layout.shape[1:])


def _read_columns(file, offset: int, layout: Layout, start: int, stop: int) -> np.ndarray:
    """Rows in Fortran order, which stores each column in one piece: one short read a column."""
    columns = []
    for column in range(math.prod(layout.shape[1:])):
        file.seek(offset + (column * layout.shape[0] + start) * layout.dtype.itemsize)
        columns.append(_fill(file, (stop - start) * layout.dtype.itemsize).view(layout.dtype))
    return np.stack(columns).reshape(*layout.shape[:0:-1], stop - start).T


def _raw(path: Path, offset: int, layout: Layout):
    """Rows that lie uncompressed in the file from byte `offset` on."""

    @contextmanager
    def opener() -> Iterator[Read]:
        with open(path, "rb") as file:

            def read(start, stop):
                if layout.fortran:
                    return _read_columns(file, offset, layout, start, stop)
                file.seek(offset + start * layout.row_bytes)
                return _read_rows(file, layout, stop - start)

            yield read

    return opener


def _compressed(path: Path, member: str, offset: int, layout: Layout):
    """Rows of a compressed archive member, unpacked front to back in each pass.

    In Fortran order the first row ends near the last byte, so such a member is loaded whole.
    """

    @contextmanager
    def opener() -> Iterator[Read]:
        with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
            _fill(stream, offset)
            position = 0
            if layout.fortran:
                turned = Layout(layout.shape[::-1], layout.dtype)
                whole = _read_rows(stream, turned, turned.shape[0]).T
                yield lambda start, stop: whole[start:stop]
                return

            def read(start, stop):
                nonlocal position
                while position < start:  # in pieces, so that what is dropped is never held
                    step = min(start - position, 1 + 2**24 // max(1, layout.row_bytes))
                    _fill(stream, step * layout.row_bytes)
                    position += step
                position = stop
                return _read_rows(stream, layout, stop - start)

            yield read

    return opener


def _hdf5(path: Path, name: str):
    @contextmanager
    def opener() -> Iterator[Read]:
        # HDF5 stores tiles: the cache saves unpacking a tile once for every block it spans.
        with _import_h5py(path).File(path, "r", rdcc_nbytes=2**26) as file:
            dataset = file[name]
            yield lambda start, stop: dataset[start:stop]

    return opener


def _held(array: np.ndarray):
    return lambda: nullcontext(lambda start, stop: array[start:stop])


# What each format holds


def _npy_layout(stream) -> Layout:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"unknown .npy version {version}")
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    else:  # 3 differs from 2 in field names only, and arrays with fields are refused
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    if any(size < 0 for size in shape):
        raise ValueError(f"negative size in shape {shape}")
    return Layout(shape, dtype, fortran)


def _open_npy(path: Path) -> dict[str, StoredArray]:
    with open(path, "rb") as file:
        layout, offset = _npy_layout(file), file.tell()
    layout.check_length(path, "the array", path.stat().st_size - offset)
    opener = _raw(path, offset, layout)
    return {"features": StoredArray(str(path), layout.shape, layout.dtype, opener)}


def _open_npz(path: Path) -> dict[str, StoredArray]:
    arrays = {}
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                continue
            name = info.filename.removesuffix(".npy")
            with archive.open(info) as stream:
                layout, offset = _npy_layout(stream), stream.tell()
            layout.check_length(path, name, info.file_size - offset)
            if info.compress_type == zipfile.ZIP_STORED:
                # The data follow the member's own header: 30 bytes that end with two lengths.
                file.seek(info.header_offset + 26)
                lengths = struct.unpack("<HH", file.read(4))
                begin = info.header_offset + 30 + sum(lengths) + offset
                opener = _raw(path, begin, layout)
            else:
                opener = _compressed(path, info.filename, offset, layout)
            arrays[name] = StoredArray(f"{path}: {name}", layout.shape, layout.dtype, opener)
    return arrays


def _open_safetensors(path: Path) -> dict[str, StoredArray]:
    import safetensors

    # The library checks the header and all offsets. It would map the file, so `_raw` reads rows.
    with safetensors.safe_open(path, framework="numpy"):
        pass
    with open(path, "rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_bytes))
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        dtype = np.dtype(SAFETENSORS_DTYPES.get(entry["dtype"], "V1"))  # V1: refused when chosen
        begin = 8 + header_bytes + entry["data_offsets"][0]
        opener = _raw(path, begin, Layout(entry["shape"], dtype))
        arrays[name] = StoredArray(f"{path}: {name}", entry["shape"], dtype, opener)
    return arrays


def _import_h5py(path: Path):
    try:
        import h5py
    except ImportError as error:
        need = "reading HDF5 needs h5py: pip install infojax[h5]"
        raise FeatureFileError(f"{path}: {need}") from error
    return h5py


def _open_hdf5(path: Path) -> dict[str, StoredArray]:
    h5py, arrays = _import_h5py(path), {}

    def add(name, item):
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            arrays[name] = StoredArray(f"{path}: {name}", item.shape, item.dtype, _hdf5(path, name))

    with h5py.File(path, "r") as file:
        file.visititems(add)
    return arrays


def _open_digits() -> dict[str, StoredArray]:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return {
        "features": StoredArray(DIGITS, pixels.shape, pixels.dtype, _held(pixels), in_memory=True),
        "labels": StoredArray(DIGITS, labels.shape, labels.dtype, _held(labels), in_memory=True),
    }


OPENERS = {
    ".npy": _open_npy,
    ".npz": _open_npz,
    ".safetensors": _open_safetensors,
    ".h5": _open_hdf5,
    ".hdf5": _open_hdf5,
}


def near(name: str, names) -> str:
    """`; did you mean a or b?` for the names like `name`, or nothing."""
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def open_arrays(path: str | Path) -> dict[str, StoredArray]:
    """The arrays of a feature file by name; reads headers only.

    The array of a `.npy` file is named `features`; HDF5 groups give names such as `group/dataset`.
    The path `digits` is the bundled set, scikit-learn's: features (1797, 64) in 0..16, labels 0..9.

    Raises:
      FeatureFileError: one line, for a file that is missing, damaged, empty or of another kind.
    """
    if str(path) == DIGITS:
        return _open_digits()
    path = Path(path)
    if not path.is_file():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise FeatureFileError(f"{path}: no such file{near(path.name, beside)}")
    suffix = path.suffix.lower()
    if suffix not in OPENERS:
        raise FeatureFileError(
            f"{path}: unknown kind of file {path.suffix!r}; infojax reads {', '.join(OPENERS)} "
            "(numpy.savez writes an .npz)"
        )
    with _one_line(path):
        arrays = OPENERS[suffix](path)
    if not arrays:
        raise FeatureFileError(f"{path}: holds no arrays")
    return arrays
