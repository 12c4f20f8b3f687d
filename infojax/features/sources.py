"""Reading in blocks: an array in a file as rows, so that it is never in memory whole.

Files are read, not memory-mapped: mapped pages count as the process's memory, so a map grows with
the file. `infojax.features.files` says where in its file the rows of an array lie.
"""

import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax
import ml_dtypes
import numpy as np

BLOCK_BYTES = 2**28  # no block is larger: very wide rows come in blocks of fewer than `chunk`
GAP_BYTES = 2**16  # reading over a gap this small is cheaper than seeking past it


class FeatureFileError(ValueError):
    """A feature file, or an array of it, that cannot be used; the message is one line."""


def free_memory() -> float:
    """Bytes that this process may still use: those of the machine, or of its control group if fewer; inf if unknown."""
    free = math.inf
    with suppress(OSError, ValueError):
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = sum(1024 * int(fields[name].split()[0]) for name in ("MemAvailable", "SwapFree") if name in fields)
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            free = min(free, int(Path(limit).read_text()))
    with suppress(ImportError, OSError, ValueError):
        import resource  # of Unix

        limit, used = resource.getrlimit(resource.RLIMIT_AS)[0], int(Path("/proc/self/statm").read_text().split()[0])
        free = free if limit == resource.RLIM_INFINITY else min(free, limit - used * resource.getpagesize())
    return free


def check_fits(what: str, size: int, fix: str = "save a smaller array") -> None:
    """Raises FeatureFileError where `size` bytes, which have to be held at once, are more than are free."""
    if size > (free := free_memory()):
        have = f"{size / 2**30:.3g} GiB of memory, {free / 2**30:.3g} are free"
        raise FeatureFileError(f"{what} needs {have}; {fix}")


@contextmanager
def one_line_errors(where: object) -> Iterator[None]:
    """Turns what a damaged file makes the format libraries raise into one line."""
    try:
        yield
    except FeatureFileError:
        raise
    except MemoryError as error:
        raise FeatureFileError(f"{where}: out of memory; lower --chunk, or save fewer rows or columns") from error
    except Exception as error:
        # Exception: zlib, zipfile, lzma, h5py, numpy and safetensors share no smaller class.
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = " ".join(reason.split())
        reason = reason if len(reason) <= 200 else reason[:199] + "…"
        raise FeatureFileError(f"{where}: cannot be read: {reason}") from error


# (start, stop) -> those rows; within one pass the ranges ascend and do not overlap
Read = Callable[[int, int], np.ndarray]
Opener = Callable[[], AbstractContextManager[Read]]


class StoredArray:
    """An array (N, ...) in a file, as a matrix of N rows: the `Rows` that `infojax.analyze` takes.

    Attributes: `shape` (N, D), the axes after the first flattened; `full_shape` and `dtype` as
    stored (native byte order); `where`, the file and the name; `refusal`, why its rows are not
    read, or "". Nothing is read before `blocks`, `take` or `load`, and each of them opens the file anew.
    """

    def __init__(
        self,
        where: str,
        full_shape: Sequence[int],
        dtype: np.dtype,
        opener: Opener,
        in_memory: bool = False,
        refusal: str = "",
    ) -> None:
        self.where, self.full_shape, self.in_memory = where, tuple(full_shape), in_memory
        self.refusal = refusal
        # Of a single number, which is never read, it is (1,).
        rows, numbers = self.full_shape[:1], math.prod(self.full_shape[1:])
        self.shape: tuple[int, int] = (*rows, numbers)  # type: ignore[assignment]  # the length of a slice is not known
        # numpy has no name for bfloat16 and saves it as two raw bytes, like no other number.
        raw_bfloat16 = dtype.kind == "V" and dtype.itemsize == 2 and not dtype.fields
        self.dtype = np.dtype(ml_dtypes.bfloat16) if raw_bfloat16 else dtype.newbyteorder("=")
        self._opener = opener

    def __repr__(self) -> str:
        return f"({self.refusal})" if self.refusal else f"{self.full_shape} {self.dtype}"

    def require_numbers(self) -> None:
        """Raises FeatureFileError unless this is an array of real numbers with at least one row."""
        if self.refusal:
            problem = self.refusal
        elif self.dtype.hasobject:
            problem = "holds pickled Python objects, which are never loaded; save it as numbers"
        elif np.issubdtype(self.dtype, np.complexfloating):
            problem = f"is complex ({self.dtype}); save its real and imaginary parts as columns"
        elif self.dtype.kind == "m" or not (jax.dtypes.issubdtype(self.dtype, np.number) or self.dtype == bool):
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
        with one_line_errors(self.where), self._opener() as read:
            yield lambda start, stop: self._convert(read(start, stop))

    def _convert(self, rows: np.ndarray) -> np.ndarray:
        if rows.dtype.kind == "V" and rows.dtype != self.dtype:
            rows = rows.view(self.dtype)
        if self.dtype.kind == "f" and self.dtype.itemsize > 8:
            with np.errstate(all="ignore"):
                double = rows.astype(np.float64)
            if (np.isinf(double) & np.isfinite(rows)).any() or (rows.any() and not double.any()):
                raise FeatureFileError(f"{self.where} has values that float64 cannot hold; divide by a power of two")
            return double
        return rows if self.dtype.kind in "US" else rows.astype(self.dtype, copy=False)

    def block_rows(self, limit: int) -> int:
        """How many rows one block holds where at most `limit` are asked for: fewer if they are very wide."""
        return max(1, min(limit, BLOCK_BYTES // max(1, self.shape[1] * self.dtype.itemsize)))

    def blocks(self, chunk: int, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Row blocks (<= chunk, D) from `start` to before `stop`, in order; every call is a new pass over the file."""
        self.require_numbers()
        step, stop = self.block_rows(chunk), self.shape[0] if stop is None else stop
        with self._reading() as read:
            for first in range(start, stop, step):
                rows = read(first, min(first + step, stop))
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
        """The array in its stored shape: for labels, which may be strings, heads and biases."""
        if self.dtype.kind not in "US":
            self.require_numbers()
        check_fits(f"{self.where} {self}", math.prod(self.shape) * self.dtype.itemsize)
        with self._reading() as read:
            return read(0, self.shape[0]).reshape(self.full_shape)


# Openers of rows that lie as bytes in a file


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
        if held == needed or self.dtype.hasobject:
            return
        problem = f"truncated: {name} needs {needed} bytes, the file has {held}"
        if held > needed:
            problem = f"{held - needed} bytes follow {name}; save one array only (a second numpy.save is never read)"
        raise FeatureFileError(f"{path}: {problem}")


def _fill(stream: Any, nbytes: int) -> np.ndarray:
    buffer = np.empty(nbytes, np.uint8)
    view, got = buffer.data, 0
    while got < nbytes:
        more = stream.readinto(view[got:])
        if not more:
            raise EOFError(f"the data end {nbytes - got} bytes too early")
        got += more
    return buffer


def _read_rows(stream: Any, layout: Layout, count: int) -> np.ndarray:
    rows = _fill(stream, count * layout.row_bytes).view(layout.dtype)
    return rows.reshape(count, *layout.shape[1:])


def _read_columns(file: BinaryIO, offset: int, layout: Layout, start: int, stop: int) -> np.ndarray:
    """Rows in Fortran order, which stores each column in one piece: one short read a column."""
    columns = []
    for column in range(math.prod(layout.shape[1:])):
        file.seek(offset + (column * layout.shape[0] + start) * layout.dtype.itemsize)
        columns.append(_fill(file, (stop - start) * layout.dtype.itemsize).view(layout.dtype))
    return np.stack(columns).reshape(*layout.shape[:0:-1], stop - start).T


class Checksum(NamedTuple):
    """The CRC-32 that an archive gives for `size` bytes from `begin` on."""

    begin: int
    size: int
    crc: int

    def check(self, file: BinaryIO) -> None:
        found, left = 0, self.size
        file.seek(self.begin)
        while left:
            piece = _fill(file, min(left, 2**24))
            found, left = zlib.crc32(piece.data, found), left - len(piece)
        if found != self.crc:
            raise ValueError("its CRC-32 is wrong: the data are damaged; save or copy the file again")


def raw_rows(path: Path, offset: int, layout: Layout, checksum: Checksum | None = None) -> Opener:
    """Rows that lie uncompressed in the file from byte `offset` on; a checksum is compared at the first reading."""
    unchecked = [] if checksum is None else [checksum]

    @contextmanager
    def opener() -> Iterator[Read]:
        with open(path, "rb") as file:
            if unchecked:
                unchecked[0].check(file)
                unchecked.clear()

            def read(start, stop):
                if layout.fortran:
                    return _read_columns(file, offset, layout, start, stop)
                file.seek(offset + start * layout.row_bytes)
                return _read_rows(file, layout, stop - start)

            yield read

    return opener


def compressed_rows(path: Path, member: str, offset: int, layout: Layout) -> Opener:
    """Rows of a compressed archive member, unpacked front to back in each pass; zipfile compares the CRC-32 at its end.

    In Fortran order the first row ends near the last byte, so such a member is loaded whole.
    """

    @contextmanager
    def opener() -> Iterator[Read]:
        with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
            _fill(stream, offset)
            position = 0
            if layout.fortran:
                check_fits(f"{path}: {member} in Fortran order", layout.shape[0] * layout.row_bytes)
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
