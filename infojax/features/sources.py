"""Reading in blocks: an array in a file as rows, without holding all of it in memory.

Files are read, not memory-mapped: mapped pages count towards the memory of the process, which would grow with the file.
The format modules determine where in its file an array lies.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

import jax
import ml_dtypes
import numpy as np

BLOCK_BYTES = 2**28  # maximum block size: very wide rows come in blocks of fewer than `chunk`
GAP_BYTES = 2**16  # reading over a gap this small is cheaper than seeking past it


class FeatureFileError(ValueError):
    """A feature file, or one of its arrays, cannot be used; the message is one line."""


def free_memory() -> float:
    """Bytes this process may still use, of the machine or, if fewer, of its control group; inf if unknown."""
    free = math.inf
    with suppress(OSError, ValueError):
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = sum(1024 * int(fields[name].split()[0]) for name in ("MemAvailable", "SwapFree") if name in fields)
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            free = min(free, int(Path(limit).read_text()))
    with suppress(ImportError, OSError, ValueError):
        import resource  # Unix only

        limit, used = resource.getrlimit(resource.RLIMIT_AS)[0], int(Path("/proc/self/statm").read_text().split()[0])
        free = free if limit == resource.RLIM_INFINITY else min(free, limit - used * resource.getpagesize())
    return free


def check_fits(what: str, size: int, fix: str = "save a smaller array") -> None:
    """Raises FeatureFileError if `size` bytes, which have to be held at once, exceed the free memory."""
    if size > (free := free_memory()):
        have = f"{size / 2**30:.3g} GiB of memory, {free / 2**30:.3g} are free"
        raise FeatureFileError(f"{what} needs {have}; {fix}")


@contextmanager
def one_line_errors(where: object) -> Iterator[None]:
    """Turns the errors that format libraries raise for damaged files into one line."""
    try:
        yield
    except FeatureFileError:
        raise
    except MemoryError as error:
        raise FeatureFileError(f"{where}: out of memory; lower --chunk, or save fewer rows or columns") from error
    except Exception as error:
        # Exception: zlib, zipfile, lzma, h5py, numpy and safetensors have no narrower base class in common.
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = " ".join(reason.split())
        reason = reason if len(reason) <= 200 else reason[:199] + "…"
        raise FeatureFileError(f"{where}: cannot be read: {reason}") from error


# A slice of every axis -> that part of the array. Within one pass the parts come in storage order.
Index = tuple[slice, ...]
Read = Callable[[Index], np.ndarray]
Opener = Callable[[], AbstractContextManager[Read]]
ROW_AXES = "nbt"  # samples, prompts (a batch), tokens: the axes that make rows


class StoredArray:
    """An array in a file as a matrix of N rows: the `Rows` that `infojax.analyze` takes.

    Nothing is read before `blocks`, `take` or `load`, each of which opens the file anew.

    Attributes:
      where: the file and the name.
      full_shape, dtype: as stored; the dtype in native byte order.
      axes: one letter per axis: n, b and t make the rows, in this order, d the columns, and of l one index is taken.
        By default the first axis makes the rows, and the others the columns.
      row_sizes, column_sizes: sizes of the row axes and of the column axes.
      shape: (N, D), the products of these.
      refusal: why the array cannot be read, or "".
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
        # numpy has no bfloat16 and saves it as two raw bytes, which no other number uses.
        raw_bfloat16 = dtype.kind == "V" and dtype.itemsize == 2 and not dtype.fields
        self.dtype = np.dtype(ml_dtypes.bfloat16) if raw_bfloat16 else dtype.newbyteorder("=")
        self._opener = opener
        self._set_axes("n" + "d" * (len(self.full_shape) - 1), 0)

    def _set_axes(self, axes: str, layer: int) -> None:
        self.axes, self._layer = axes, layer
        self.row_sizes = tuple(s for a, s in zip(axes, self.full_shape, strict=False) if a in ROW_AXES)
        self.column_sizes = tuple(s for a, s in zip(axes, self.full_shape, strict=False) if a == "d")
        # Of a single number, which is never read, it is (1,).
        self.shape: tuple[int, int] = (
            (math.prod(self.row_sizes), math.prod(self.column_sizes)) if self.full_shape else (1,)  # type: ignore[assignment]
        )

    def along(self, axes: str, layer: int = 0) -> "StoredArray":
        """The same array with other axes, and index `layer` of an axis l."""
        other = copy.copy(self)
        other._set_axes(axes, layer)
        return other

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
        elif 0 in self.full_shape:
            problem = f"is empty: shape {self.full_shape}"
        else:
            return
        raise FeatureFileError(f"{self.where} {problem}")

    @contextmanager
    def reading(self) -> Iterator[Read]:
        """A function that reads parts of the array, given a slice of every axis."""
        with one_line_errors(self.where), self._opener() as read:
            yield lambda index: self._convert(read(index))

    def _convert(self, part: np.ndarray) -> np.ndarray:
        if part.dtype.kind == "V" and part.dtype != self.dtype:
            part = part.view(self.dtype)
        if self.dtype.kind == "f" and self.dtype.itemsize > 8:
            with np.errstate(all="ignore"):
                double = part.astype(np.float64)
            if (np.isinf(double) & np.isfinite(part)).any() or (part.any() and not double.any()):
                raise FeatureFileError(f"{self.where} has values that float64 cannot hold; divide by a power of two")
            return double
        return part if self.dtype.kind in "US" else part.astype(self.dtype, copy=False)

    def _rows(self, read: Read, start: int, stop: int) -> np.ndarray:
        """The rows (stop - start, D) from `start` up to `stop` (exclusive)."""
        place = {a: i for i, a in enumerate(self.axes) if a in ROW_AXES}
        order = [*place.values(), *(i for i, a in enumerate(self.axes) if a not in ROW_AXES)]
        index = [slice(self._layer, self._layer + 1) if a == "l" else slice(0, s)
                 for a, s in zip(self.axes, self.full_shape, strict=True)]  # fmt: skip
        pieces = []
        for box in boxes(start, stop, self.row_sizes):
            for axis, part in zip(place.values(), box, strict=True):
                index[axis] = part
            pieces.append(read(tuple(index)).transpose(order).reshape(-1, self.shape[1]))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def block_rows(self, limit: int) -> int:
        """The number of rows per block if at most `limit` are requested: fewer if they are very wide."""
        return max(1, min(limit, BLOCK_BYTES // max(1, self.shape[1] * self.dtype.itemsize)))

    def blocks(self, chunk: int, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Row blocks (<= chunk, D) from `start` up to `stop`, in order; every call is a new pass over the file."""
        self.require_numbers()
        step, stop = self.block_rows(chunk), self.shape[0] if stop is None else stop
        with self.reading() as read:
            for first in range(start, stop, step):
                yield self._rows(read, first, min(first + step, stop))

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The rows (len(indices), D) at sorted `indices`; reads little else if the file is seekable."""
        self.require_numbers()
        indices = np.asarray(indices, dtype=np.int64)
        taken = np.empty((len(indices), self.shape[1]), self.dtype)
        if not len(indices):
            return taken
        block = self.block_rows(8192)
        gap = max(1, GAP_BYTES // max(1, self.shape[1] * self.dtype.itemsize))
        cuts = np.flatnonzero((np.diff(indices) > gap) | (np.diff(indices // block) > 0)) + 1
        with self.reading() as read:
            for at in np.split(np.arange(len(indices)), cuts):
                span = indices[at]
                taken[at] = self._rows(read, int(span[0]), int(span[-1]) + 1)[span - span[0]]
        return taken

    def load(self) -> np.ndarray:
        """The array in its stored shape: for labels, which may be strings, heads and biases."""
        if self.dtype.kind not in "US":
            self.require_numbers()
        check_fits(f"{self.where} {self}", math.prod(self.full_shape) * self.dtype.itemsize)
        with self.reading() as read:
            return read(tuple(slice(0, size) for size in self.full_shape)).reshape(self.full_shape)


def boxes(start: int, stop: int, sizes: Sequence[int]) -> Iterator[Index]:
    """The rows from `start` up to `stop`, counted over axes of these sizes, as boxes: a slice of every axis."""
    if len(sizes) == 1:
        yield (slice(start, stop),)
        return
    inner = math.prod(sizes[1:])
    (first, skipped), (last, more) = divmod(start, inner), divmod(stop, inner)
    if skipped:
        end = min(stop - first * inner, inner)
        yield from ((slice(first, first + 1), *box) for box in boxes(skipped, end, sizes[1:]))
        first += 1
    if first < last:
        yield (slice(first, last), *(slice(0, size) for size in sizes[1:]))
    if more and first <= last:
        yield from ((slice(last, last + 1), *box) for box in boxes(0, more, sizes[1:]))


def joined(where: str, arrays: Sequence[StoredArray]) -> StoredArray:
    """Arrays of several files, concatenated along their first axis."""
    first = arrays[0]
    for array in arrays:
        if not array.full_shape and not array.refusal:
            raise FeatureFileError(f"{array.where} is a single number; files are joined along their first axis")
        if array.full_shape[1:] != first.full_shape[1:] or array.dtype != first.dtype:
            raise FeatureFileError(
                f"{array.where} is {array}, but {first.where} is {first}; files whose rows are joined may differ only "
                "in their number of rows"
            )
    refusal = next((array.refusal for array in arrays if array.refusal), "")
    if refusal:
        return StoredArray(where, (), first.dtype, first._opener, refusal=refusal)
    ends = np.cumsum([array.full_shape[0] for array in arrays])

    @contextmanager
    def opener() -> Iterator[Read]:
        def read(index):
            start, stop = index[0].start, index[0].stop
            pieces = []
            for k in range(int(np.searchsorted(ends, start, side="right")), len(arrays)):
                begin = int(ends[k]) - arrays[k].full_shape[0]
                if begin >= stop:
                    break
                with arrays[k].reading() as read_part:
                    part = slice(max(start - begin, 0), min(stop - begin, arrays[k].full_shape[0]))
                    pieces.append(read_part((part, *index[1:])))
            return np.concatenate(pieces)

        yield read

    return StoredArray(where, (int(ends[-1]), *first.full_shape[1:]), first.dtype, opener)


def held(where: str, array: np.ndarray) -> StoredArray:
    """An array in memory."""
    return StoredArray(where, array.shape, array.dtype, lambda: nullcontext(lambda index: array[index]), in_memory=True)
