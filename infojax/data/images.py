"""Encoded pictures: reading headers, decoding to 8 bits, resizing all to one size."""

import io
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from infojax.data.source import DataError, listing
from infojax.data.workers import THREADS, decode_all, quiet

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF")  # Pillow tries them in this order
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".gif")
ORIENTATION = 0x0112  # of EXIF: 1 is upright, from 5 on height and width are swapped
TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
    8: "ROTATE_90",
}  # fmt: skip


class Header(NamedTuple):
    """What is known about a picture before its pixels are converted.

    Attributes:
      size: (height, width) as displayed.
      mode: of Pillow, with " transparent" if a palette has a transparent colour.
      turned: whether EXIF data say that it is stored rotated or mirrored.
      several: whether the file holds more pictures than the first, which is read.
      limits: smallest and largest value of pixels of more than 8 bits, or None.
      largest: value that becomes 255, if the type of such pixels implies it; else None.
    """

    size: tuple[int, int]
    mode: str
    turned: bool
    several: bool
    limits: tuple[float, float] | None
    largest: int | None


def decode(
    encoded: Any,
    where: Any = None,
    *,
    channels: int = 3,
    size: int | None = None,
    scales: Mapping[str, tuple[float, float]] | None = None,
) -> np.ndarray:
    """A picture as (H, W, channels) uint8, upright according to its EXIF data; the first if a file holds several.

    Pixels of 16 bits are divided by 257. Those of 32-bit integers and floats, whose type does not imply a scale, are
    multiplied so that the end of their scale becomes 255: see `scale_of`. An alpha channel is dropped.

    Args:
      encoded: a path or the bytes of a file.
      where: its name in errors; the path by default.
      channels: 3 (RGB) or 1 (grey).
      size: the shorter side is resized to this (bicubic) and the middle square kept; None keeps the picture as it is.
        A JPEG with a shorter side of at least four times that is decoded at 1/2, 1/4 or 1/8 of its size, twice `size`
        or more, which takes a fraction of the time: see `_drafted`.
      scales: mode "I" (32-bit integers) or "F" (floats) -> (low, high), which become 0 and 255; by default those of the
        picture itself.
    Raises:
      DataError: it is missing or broken.
    """
    from PIL import Image

    mode = "RGB" if channels == 3 else "L"
    with _opened(encoded, where) as image:
        _drafted(image, size)
        image.load()
        turn = TURNS.get(_orientation(image))  # once loaded: Pillow turns TIFF files itself
        if image.mode[0] in "IF":
            image = _eight_bits(image, (scales or {}).get(image.mode))
        elif image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        image = image if image.mode == mode else image.convert(mode)
        if turn:
            image = image.transpose(Image.Transpose[turn])
        if size is not None and image.size != (size, size):
            image = _middle_square(image, size)
        pixels = np.asarray(image)
    return pixels if channels == 3 else pixels[..., None]


def header(path: str | Path) -> Header:
    """The `Header` of a picture file; pixels of more than 8 bits are read for their limits.

    Raises:
      DataError: it is not a regular file, is empty, or is not a picture.
    """
    with _opened(path) as image:
        orientation, (width, height) = _orientation(image), image.size
        lying = orientation >= 5 and image.format != "TIFF"  # for TIFF, Pillow gives the upright size
        transparent = " transparent" if image.mode == "P" and "transparency" in image.info else ""
        return Header(
            size=(width, height) if lying else (height, width),
            mode=image.mode + transparent,
            turned=orientation in TURNS,
            several=getattr(image, "is_animated", False),
            limits=_limits(image) if image.mode[0] in "IF" else None,
            largest=_largest(image),
        )


def headers(paths: Sequence[str | Path]) -> list[Header]:
    """The headers of many picture files.

    Raises:
      DataError: says how many cannot be read, which ones, and why the first cannot.
    """

    def attempt(path):
        try:
            return header(path)
        except DataError as error:
            return error

    found: list[Any] = []
    with quiet():
        for start in range(0, len(paths), 10_000):
            found += THREADS.map(attempt, paths[start : start + 10_000])
    bad = [(path, error) for path, error in zip(paths, found, strict=True) if isinstance(error, DataError)]
    if bad:
        others = listing([os.path.basename(path) for path, _ in bad[1:]])
        raise DataError(f"{bad[0][1]}" + (f"; {len(bad) - 1:,} more cannot be read: {others}" if others else ""))
    return found


def scale_of(low: float, high: float, fractions: bool) -> tuple[float, float]:
    """(low, high) of the scale that values are assumed to have: the first that holds them of 0 to 1 (for floats), 0 to
    255 and 0 to 65,535; else from the smallest to the largest value."""
    for top in (1, 255, 65535) if fractions else (255, 65535):
        if low >= 0 and high <= top:
            return 0, top
    return low, max(high, low + 1)


@contextmanager
def _opened(encoded, where=None):
    """A picture opened by Pillow, which can raise nearly anything on a damaged file.

    Raises:
      DataError: one line.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        if not isinstance(encoded, bytes):
            status = os.stat(encoded)
            if not stat.S_ISREG(status.st_mode):  # reading a FIFO or a device may never end
                raise ValueError("not a regular file")
            if not status.st_size:
                raise ValueError("the file is empty")
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded, formats=FORMATS) as image:
            yield image
    except UnidentifiedImageError:
        reason = f"damaged, or none of {', '.join(FORMATS)}"
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    else:
        return
    raise DataError(f"{where or encoded}: not a readable picture ({reason})")


def _orientation(image):
    try:
        found = image.getexif().get(ORIENTATION, 1)
        return found if isinstance(found, int) else 1
    except Exception:  # damaged EXIF data in an intact picture
        return 1


def _largest(image):
    """The largest value that integer pixels of more than 8 bits can have, or None if the format does not say."""
    if image.mode.startswith("I;16"):
        bits = image.tag_v2.get(258, (16,))[0] if image.format == "TIFF" else 16
        return 2**bits - 1
    return 65535 if image.mode == "I" and image.format in ("PNG", "PPM") else None


def _limits(image):
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise ValueError("it has pixels that are NaN or infinite")
    return float(values.min()), float(values.max())


def _eight_bits(image, scale):
    from PIL import Image

    if _largest(image):
        low, high = 0, _largest(image)
    else:
        low, high = scale or scale_of(*_limits(image), image.mode == "F")
    values = (np.asarray(image, np.float64) - low) / ((high - low) / 255)
    return Image.fromarray(np.rint(np.clip(values, 0, 255)).astype(np.uint8))


def _drafted(image, size):
    """Lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its size where that leaves twice the size needed, or more.

    The decoder then averages blocks of pixels, and the resizing that follows has a factor of at least 2 left, with
    which Pillow documents "a result close to fair resampling" (`reducing_gap`).
    """
    if size is not None and image.format == "JPEG":
        image.draft(image.mode, (2 * size, 2 * size))


def _middle_square(image, size):
    from PIL import Image

    # As torchvision's Resize(size) and CenterCrop(size): the longer side is cut to a whole number, halves of the border
    # are rounded to even.
    shorter = min(image.size)
    width, height = (int(size * side / shorter) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))


class Encoded:
    """A split of encoded pictures, decoded when read; subclasses say where the encoded ones come from.

    Args:
      shape: (H, W, channels) of all of them.
      size, scales: as in `decode`.
    """

    def __init__(
        self, shape: tuple[int, ...], size: int | None, scales: Mapping[str, tuple[float, float]] | None = None
    ) -> None:
        self.shape = shape
        self._decode = partial(decode, channels=shape[2], size=size, scales=scales)

    def encoded(self, indices: np.ndarray) -> tuple[list[Any], list[str], np.ndarray]:
        """(n,) indices -> paths or contents of files, what to call them in errors, labels (n,)."""
        raise NotImplementedError

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `Source.read`.

        Raises:
          DataError: a file cannot be decoded, or its size has changed.
        """
        files, names, labels = self.encoded(indices)
        decoded = decode_all(self._decode, files, names)
        for name, pixels in zip(names, decoded, strict=True):
            if pixels.shape != self.shape:
                raise DataError(f"{name}: is {pixels.shape[0]} x {pixels.shape[1]} now, not what it was at the start")
        return np.stack(decoded), labels


class Pictures(Encoded):
    """A split of picture files.

    Args:
      paths, labels: of the samples; others as for `Encoded`.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        labels: Sequence[int] | np.ndarray,
        shape: tuple[int, ...],
        size: int | None,
        scales: Mapping[str, tuple[float, float]] | None,
    ) -> None:
        super().__init__(shape, size, scales)
        self.paths, self.labels = [os.fspath(path) for path in paths], np.asarray(labels, np.int32)

    def __len__(self) -> int:
        return len(self.paths)

    def encoded(self, indices: np.ndarray) -> tuple[list[Any], list[str], np.ndarray]:
        paths = [self.paths[i] for i in indices]
        return paths, paths, self.labels[indices]
