"""Split files: which pictures of a folder are in which split, and their labels, as JSON."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any
from unicodedata import normalize

from infojax.data.source import DataError, counted, listing, printable


def read_split_file(
    root: Path, split_file: str | Path
) -> tuple[dict[str, list[tuple[Path, int]]], tuple[str, ...], list[str]]:
    """The pictures that a split file lists.

    Args:
      root: folder to which its paths are relative, and where it is looked for first.
    Returns:
      {split: [(path, label), ...]}, class names, notes.
    Raises:
      DataError: it is missing, is not a split file, or lists pictures that are missing.
    """
    path = next((p for p in (root / split_file, Path(split_file).expanduser()) if _exists(p)), None)
    if path is None:
        raise DataError(f"folder: found no split file {split_file} in {root} or here")
    where = ""
    try:
        listed = json.loads(path.read_bytes(), object_pairs_hook=_no_key_twice)  # UTF-8, 16 or 32, with or without BOM
        for split, part in listed.items():
            where = f"at {split!r}: "
            listed[split] = [_row(row) for row in part]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OSError) as error:
        raise DataError(f"{path} is not {{split: [[path, label, class name], ...]}} ({where}{error})") from None
    rows: dict[str, list[Any]] = {}
    missing, foreign, outside = [], [], []
    for split, part in listed.items():
        if not part:
            raise DataError(f"{path}: split {split!r} lists no pictures")
        rows[split] = []
        for text, label, *_ in part:
            if type(label) is not int or label < 0:
                raise DataError(f"{path}: label {label!r} of {printable(text)} is not a number 0, 1, 2, ...")
            picture, as_written = _place(root, text)
            if picture is None:
                missing.append(text)
                continue
            foreign += [text] * (not as_written)
            outside += [text] * (not Path(os.path.abspath(picture)).is_relative_to(os.path.abspath(root)))
            rows[split].append((picture, label))
    if missing:
        are = "which does not exist or is no regular file"
        if len(missing) > 1:
            are = f"{len(missing):,} pictures that do not exist or are no regular files"
        raise DataError(f"{path} lists {listing(missing)}, {are}")
    names, notes = _names_of(path, listed)
    if foreign:
        notes.append(f"folder: paths of {path.name} written for another system: {len(foreign):,} ({listing(foreign)})")
    if outside:
        notes.append(
            f"folder: {path.name} lists {counted(len(outside), 'picture')} outside the folder: {listing(outside)}"
        )
    return rows, names, notes + _repeated(path.name, rows)


def _row(row):
    """(path, label) or (path, label, class name) of a row."""
    if not isinstance(row, list) or len(row) not in (2, 3):
        raise ValueError(f"it has {str(row)[:60]!r} for a row")
    return str(row[0]), row[1], *map(str, row[2:])


def _names_of(path, listed):
    """Class names of a split file and notes on them; refuses labels with gaps or with two names."""
    labels = {label for part in listed.values() for _, label, *_ in part}
    if not labels:
        raise DataError(f"{path}: no splits")
    if max(labels) >= len(labels):
        gap = next(c for c in range(len(labels) + 1) if c not in labels)
        raise DataError(
            f"{path}: no picture has label {gap}, but one has {max(labels)}; number the {len(labels)} classes from 0 on"
        )
    names = {}
    for part in listed.values():
        for text, label, *name in part:
            if name and names.setdefault(label, name[0]) != name[0]:
                where = printable(text)
                raise DataError(f"{path}: label {label} is {names[label]!r} and, at {where}, {name[0]!r}")
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    notes = [
        f"folder: {path.name} gives several labels to {counted(len(twice), 'class name')}: {listing(twice)}"
    ] * bool(twice)
    return tuple(names.get(c, str(c)) for c in range(len(labels))), notes


def _no_key_twice(pairs):
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"it has {twice[0]!r} twice")
    return dict(pairs)


def _place(root, text):
    """The file that a path of a split file means, and whether it is spelled as on this system."""
    slashed = text.replace("\\", "/")
    for variant in dict.fromkeys((text, slashed, normalize("NFC", slashed), normalize("NFD", slashed))):
        if variant and _exists(root / variant):
            return root / variant, variant == text
    return None, False


def _exists(path):
    try:
        return path.is_file()
    except (OSError, ValueError):  # an impossible file name
        return False


def _repeated(name, rows):
    """Notes on pictures that are listed more than once: with two labels, in two splits, or in one."""
    places = {}
    for split, part in rows.items():
        for path, label in part:
            places.setdefault(os.path.normpath(path), []).append((split, label))
    said = {"with two labels": [], "in two splits": [], "in one split": []}
    for path, found in places.items():
        if len(found) > 1:
            labels, splits = ({each[i] for each in found} for i in (1, 0))
            kind = "with two labels" if len(labels) > 1 else "in two splits" if len(splits) > 1 else "in one split"
            said[kind].append(os.path.join(os.path.basename(os.path.dirname(path)), os.path.basename(path)))
    return [
        f"folder: {name} lists {counted(len(paths), 'picture')} more than once, {kind}: {listing(paths)}"
        for kind, paths in said.items()
        if paths
    ]
