"""Encoded pictures: decoding, and one size for all; a folder of them as a data set."""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np

from infojax.data.source import DataError, Dataset, check_whole

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")  # Pillow tries them in this order
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
POOL = ThreadPoolExecutor(thread_name_prefix="infojax-decode")  # Pillow decodes without the interpreter's lock


def decode(encoded, where=None, *, channels=3, size=None):
    """A picture as (H, W, channels) uint8.

    Args:
      encoded: a path or the bytes of a file.
      where: what to call it in an error; the path by default.
      channels: 3 (RGB) or 1 (grey).
      size: the shorter side is resized to this (bicubic) and the middle square kept; None keeps the picture as it is.
    Raises:
      DataError: it is missing or broken.
    """
    from PIL import Image

    mode = "RGB" if channels == 3 else "L"
    try:
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded, formats=FORMATS) as image:
            if image.mode.startswith("I"):  # 16 bits a pixel, of which convert() would keep what is below 256
                image = Image.fromarray(np.rint(np.clip(np.asarray(image) / 257, 0, 255)).astype(np.uint8))
            elif image.mode == "F":
                raise ValueError("pixels are floating-point numbers")
            image = image if image.mode == mode else image.convert(mode)
            if size is not None and image.size != (size, size):
                image = _middle_square(image, size)
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{where or encoded}: not a readable picture ({' '.join(str(error).split())})") from None
    return pixels if channels == 3 else pixels[..., None]


def _middle_square(image, size):
    from PIL import Image

    width, height = image.size
    scale = size / min(width, height)
    width, height = max(size, round(width * scale)), max(size, round(height * scale))
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))


class Pictures:
    """A split of picture files, decoded when read."""

    def __init__(self, paths, labels, size, channels=3):
        self.paths, self.labels, self.shape = paths, np.asarray(labels, np.int32), (size, size, channels)

    def __len__(self):
        return len(self.paths)

    def read(self, indices):
        decoded = POOL.map(
            partial(decode, size=self.shape[0], channels=self.shape[2]), [self.paths[i] for i in indices]
        )
        return np.stack(list(decoded)), self.labels[indices]


def folder(dir, split_file=None, size=224, channels=3):
    """A folder of pictures.

    Args:
      dir: the folder; names that begin with a dot are left out.
      split_file: JSON {split: [[path, label] or [path, label, class name], ...]}, paths below `dir`, as CoOp and its
        successors share them; looked for in `dir` too. Without it the folder is {split}/{class}/*.jpg and so on,
        classes numbered in the order of their names.
      size: every picture is resized and cropped to size x size.
    """
    root = Path(dir).expanduser()
    if not root.is_dir():
        raise DataError(f"folder: {root} is not a folder; give data.dir the folder that holds the pictures")
    check_whole("folder", size=size)
    if channels not in (1, 3):
        raise DataError(f"folder: channels must be 1 (grey) or 3 (RGB), got {channels!r}")
    rows, names = _listed(root, split_file) if split_file else _by_class(root)
    splits = {
        split: cache(partial(Pictures, [path for path, _ in part], [label for _, label in part], size, channels))
        for split, part in rows.items()
    }
    return Dataset("folder", len(names), names, splits)


def _listed(root, split_file):
    path = next((p for p in (root / split_file, Path(split_file).expanduser()) if p.is_file()), None)
    if path is None:
        raise DataError(f"folder: found no split file {split_file} in {root} or here")
    try:
        listed = json.loads(path.read_text())
        rows = {split: [(root / row[0], row[1]) for row in part] for split, part in listed.items()}
        names = {row[1]: str(row[2]) for part in listed.values() for row in part if len(row) > 2}
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise DataError(f"{path} is not {{split: [[path, label, class name], ...]}} ({error})") from None
    for split, part in rows.items():
        if not part:
            raise DataError(f"{path}: split {split!r} lists no pictures")
        for picture, label in part:
            if type(label) is not int or label < 0:
                raise DataError(f"{path}: label {label!r} of {picture.name} is not a number 0, 1, 2, ...")
            if not _exists(picture):
                raise DataError(f"{path} lists {picture}, which does not exist")
    labels = {label for part in rows.values() for _, label in part}
    if not labels or max(labels) >= len(labels):
        gap = next(c for c in range(len(labels) + 1) if c not in labels)
        raise DataError(
            f"{path}: {f'no picture has label {gap}, but one has {max(labels)}' if labels else 'no splits'}"
        )
    return rows, tuple(names.get(c, str(c)) for c in range(len(labels)))


def _exists(path):
    try:
        return path.exists()
    except OSError:  # a name that no file can have
        return False


def _by_class(root):
    def below(folder):
        return sorted(p for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []

    splits = [p for p in below(root) if p.is_dir()]
    names = sorted({p.name for split in splits for p in below(split) if p.is_dir()})
    rows = {
        split.name: [
            (path, label)
            for label, name in enumerate(names)
            for path in below(split / name)
            if path.suffix.lower() in SUFFIXES
        ]
        for split in splits
    }
    rows = {split: part for split, part in rows.items() if part}
    if not rows:
        raise DataError(f"folder: {root} has no pictures as SPLIT/CLASS/*.jpg; name a split file, or arrange them so")
    return rows, tuple(names)
