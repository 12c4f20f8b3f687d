"""Arrays stored as bytes in a file, plain or compressed: parts of them are read with little of what lies between.

They may be in C order, Fortran order or strided, so that one layer of a stack of hidden states can be read alone.
"""

import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from infojax.features.sources import GAP_BYTES, FeatureFileError, Index, Opener, Read, check_fits

SPAN_BYTES = 2**24  # read at once, including gaps


class Layout(NamedTuple):
    """How the bytes of an array are laid out: in C order, Fortran order, or with strides in bytes."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool = False
    given: tuple[int, ...] | None = None

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from one entry to the next along each axis."""
        if self.given is not None:
            return self.given
        if self.fortran:
            return tuple(self.dtype.itemsize * math.prod(self.shape[:axis]) for axis in range(len(self.shape)))
        return tuple(self.dtype.itemsize * math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape)))

    def check_length(self, path: Path, name: str, held: int) -> None:
        """Raises FeatureFileError if the file holds fewer or more bytes than the array `name` needs."""
        needed = math.prod(self.shape) * self.dtype.itemsize
        # The header does not give the length of a pickle, which is rejected once it is chosen.
        if held == needed or self.dtype.hasobject:
            return
        problem = f"truncated: {name} needs {needed} bytes, the file has {held}"
        if held > needed:
            problem = f"{held - needed} bytes follow {name}; save one array only (a second numpy.save is never read)"
        raise FeatureFileError(f"{path}: {problem}")


Fetch = Callable[[int, int], np.ndarray]  # (begin, number of bytes) -> these bytes


def _part(fetch: Fetch, layout: Layout, index: Index) -> np.ndarray:
    """A part of an array, by a slice of every axis."""
    begin = sum(part.start * stride for part, stride in zip(index, layout.strides, strict=True))
    shape = tuple(part.stop - part.start for part in index)
    return _strided(fetch, begin, shape, layout.strides, layout.dtype)


def _strided(fetch: Fetch, begin: int, shape: Sequence[int], strides: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """Numbers with the given strides in bytes: one read if the gaps are small, else one per piece."""
    numbers = math.prod(shape)
    if not numbers:
        return np.empty(shape, dtype)
    lengths = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
    span = dtype.itemsize + sum(lengths)
    stride, axis = max(((s, i) for i, s in enumerate(strides) if shape[i] > 1), default=(0, -1))
    gap = stride - (span - lengths[axis]) if axis >= 0 else 0
    if span <= 2 * numbers * dtype.itemsize or (gap <= GAP_BYTES and span <= SPAN_BYTES):
        return np.ndarray(shape, dtype, fetch(begin, span).data, strides=tuple(strides))
    step = max(1, min(shape[axis] - 1, SPAN_BYTES // stride)) if gap <= GAP_BYTES else 1
    pieces = []
    for first in range(0, shape[axis], step):
        some = list(shape)
        some[axis] = min(step, shape[axis] - first)
        pieces.append(_strided(fetch, begin + first * stride, some, strides, dtype))
    return np.concatenate(pieces, axis)


def _fill(stream: Any, nbytes: int) -> np.ndarray:
    buffer = np.empty(nbytes, np.uint8)
    view, got = buffer.data, 0
    while got < nbytes:
        more = stream.readinto(view[got:])
        if not more:
            raise EOFError(f"the data end {nbytes - got} bytes too early")
        got += more
    return buffer


class Checksum(NamedTuple):
    """The CRC-32 that an archive gives for `size` bytes starting at `begin`."""

    begin: int
    size: int
    crc: int

    def check(self, file: BinaryIO) -> None:
        """Reads the bytes; raises ValueError if they have another CRC-32, EOFError if the file ends before them."""
        found, left = 0, self.size
        file.seek(self.begin)
        while left:
            piece = _fill(file, min(left, 2**24))
            found, left = zlib.crc32(piece.data, found), left - len(piece)
        if found != self.crc:
            raise ValueError("its CRC-32 is wrong: the data are damaged; save or copy the file again")


def data_of(info: zipfile.ZipInfo, file: BinaryIO) -> int:
    """Where the data of an archive member begin: after its own header, 30 bytes that end with two lengths."""
    file.seek(info.header_offset + 26)
    return info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))


def raw_parts(path: Path, offset: int, layout: Layout, checksum: Checksum | None = None) -> Opener:
    """An array stored uncompressed in a file from byte `offset`; a checksum is verified at the first read."""
    unchecked = [] if checksum is None else [checksum]

    @contextmanager
    def opener() -> Iterator[Read]:
        with open(path, "rb") as file:
            if unchecked:
                unchecked[0].check(file)
                unchecked.clear()

            def fetch(begin, nbytes):
                file.seek(offset + begin)
                return _fill(file, nbytes)

            yield lambda index: _part(fetch, layout, index)

    return opener


def compressed_parts(path: Path, member: str, offset: int, layout: Layout) -> Opener:
    """A compressed archive member, unpacked from the beginning in each pass; zipfile verifies the CRC-32 at its end.

    In Fortran order the first row ends near the last byte, so such a member is loaded as a whole.
    """

    @contextmanager
    def opener() -> Iterator[Read]:
        with zipfile.ZipFile(path) as archive, ExitStack() as streams:
            stream, position = streams.enter_context(archive.open(member)), -offset

            def fetch(begin, nbytes):
                nonlocal stream, position
                if begin < position:
                    streams.close()
                    stream, position = streams.enter_context(archive.open(member)), -offset
                while position < begin:  # in pieces, so that skipped data are never held in memory
                    step = min(begin - position, 2**24)
                    _fill(stream, step)
                    position += step
                position += nbytes
                return _fill(stream, nbytes)

            if layout.fortran:
                size = math.prod(layout.shape) * layout.dtype.itemsize
                check_fits(f"{path}: {member} in Fortran order", size)
                whole = fetch(0, size).view(layout.dtype).reshape(layout.shape, order="F")
                yield lambda index: whole[index]
                return
            yield lambda index: _part(fetch, layout, index)

    return opener
