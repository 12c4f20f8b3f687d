"""Encoded pictures: decoding, and one size for all; a folder of them as a data set."""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np

from infojax.data.source import DataError, Dataset

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
      split_file: JSON {split: [[path, label] or [path, label, class name], ...]}, paths below `dir`, as CoOp and its
        successors share them; looked for in `dir` too. Without it the folder is {split}/{class}/*.jpg and so on,
        classes numbered in the order of their names.
      size: every picture is resized and cropped to size x size.
    """
    root = Path(dir).expanduser()
    if not root.is_dir():
        raise DataError(f"folder: {root} is not a folder; give data.dir the folder that holds the pictures")
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
        rows = {split: [(root / row[0], int(row[1])) for row in part] for split, part in listed.items()}
        names = {int(row[1]): str(row[2]) for part in listed.values() for row in part if len(row) > 2}
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise DataError(f"{path} is not {{split: [[path, label, class name], ...]}} ({error})") from None
    labels = np.array([label for part in rows.values() for _, label in part])
    if not len(labels) or labels.min() < 0:
        raise DataError(f"{path} lists {'no pictures' if not len(labels) else f'label {labels.min()}'}")
    missing = next((p for part in rows.values() for p, _ in part if not p.exists()), None)
    if missing is not None:
        raise DataError(f"{path} lists {missing}, which does not exist")
    return rows, tuple(names.get(c, str(c)) for c in range(labels.max() + 1))


def _by_class(root):
    splits = sorted(p for p in root.iterdir() if p.is_dir())
    names = sorted({p.name for split in splits for p in split.iterdir() if p.is_dir()})
    rows = {
        split.name: [
            (path, label)
            for label, name in enumerate(names)
            for path in sorted((split / name).glob("*"))
            if path.suffix.lower() in SUFFIXES
        ]
        for split in splits
    }
    rows = {split: part for split, part in rows.items() if part}
    if not rows:
        raise DataError(f"folder: {root} has no pictures as SPLIT/CLASS/*.jpg; name a split file, or arrange them so")
    return rows, tuple(names)
