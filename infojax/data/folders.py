"""A folder of pictures as a data set: which files are its samples, their classes, splits and one size."""

import os
from collections import Counter
from functools import cache, partial
from pathlib import Path
from unicodedata import normalize

import numpy as np

from infojax.data.images import SUFFIXES, Pictures, headers, scale_of
from infojax.data.source import ROLES, DataError, Dataset, counted, listing, printable, roles
from infojax.data.split_files import read_split_file

LARGEST = 224  # pixels per side, if no size is given
HIDDEN = (".", "__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN")  # prefixes of what systems add to folders
SPLIT_NAMES = tuple(name for usual in ROLES.values() for name in usual)
COLOURS = {
    "1": "black and white", "L": "grey", "LA": "grey with an alpha channel, which is dropped",
    "P": "with a palette", "P transparent": "with a palette and transparency, which is dropped",
    "RGB": "in colour", "RGBA": "with an alpha channel, which is dropped",
}  # fmt: skip


def folder(
    dir: str | Path,
    split_file: str = "",
    size: int | None = None,
    channels: int = 3,
    train_split: str = "",
    test_split: str = "",
    test_fraction: float = 0.0,
    seed: int = 0,
) -> Dataset:
    """A folder of pictures.

    Without a split file the pictures lie in SPLIT/CLASS/, or deeper, if there is a split with a usual name (train,
    training, test, val, valid, validation, ...) or one that is named here; else in CLASS/, or deeper. Classes are the
    folders that hold pictures in any split, numbered in the order of their names. Left out are hidden files, anything
    that is not a regular file or not named like a picture, and other folders with classes that no split has.

    Args:
      dir: the folder.
      split_file: JSON {split: [[path, label] or [path, label, class name], ...]}, paths relative to `dir`, as shared by
        CoOp and its successors; looked for in `dir` first.
      size: every picture is resized and centre-cropped to size x size. By default pictures that all have the same size
        of at most 224 x 224 are kept; others get their median shorter side, or 224 if that is less.
      train_split, test_split: names of the splits for training and measuring; by default train, and test or else val,
        valid or validation.
      test_fraction: share of each class of train that is held out as test; 0: a fifth if there are no splits at all.
      seed: seed of the held-out selection.
    Raises:
      DataError: no pictures, or some cannot be read.
    """
    root = Path(dir).expanduser()
    if not root.is_dir():
        raise DataError(f"folder: {root} is not a folder; give data.dir the folder that holds the pictures")
    if split_file:
        rows, names, notes = read_split_file(root, split_file)
        notes += _unlisted(root, rows)
    else:
        rows, names, notes = _by_class(root, [split for split in (train_split, test_split) if split])
        test_fraction = test_fraction or 0.2 * (set(rows) == {""} and not (train_split or test_split))
        rows = {split or "train": part for split, part in rows.items()}
    if test_fraction:
        rows, held = _held_out(rows, train_split, test_split, test_fraction, seed)
        notes.append(held)
    return of_rows(rows, names, notes, size, channels, train_split, test_split)


def of_rows(
    rows: dict[str, list[tuple[Path, int]]],
    names: tuple[str, ...],
    notes: list[str],
    size: int | None = None,
    channels: int = 3,
    train_split: str = "",
    test_split: str = "",
) -> Dataset:
    """The `Dataset` "folder" of listed pictures.

    Args:
      rows: split -> (path, label) of each picture; names: of the classes; notes: on where they come from.
    """
    chosen, said = roles("folder", rows, train=train_split, test=test_split)
    shape, resized, scales, converted = _pixels([path for part in rows.values() for path, _ in part], size, channels)
    opened = {
        split: cache(partial(Pictures, [f"{path}" for path, _ in part], [c for _, c in part], shape, resized, scales))
        for split, part in rows.items()
    }
    notes = [_summary(rows, names), *notes, *said, *_missing_classes(rows, names, chosen), *converted]
    return Dataset("folder", len(names), names, opened, roles=chosen, notes=notes)


# Which files


def _unlisted(root, rows):
    """A note on the pictures of the folder that a split file does not list."""
    listed = {os.path.normpath(path) for part in rows.values() for path, _ in part}
    rest = [path for path in _walk(root)[0] if os.path.normpath(root / path) not in listed]
    what = f"{counted(len(rest), 'picture')} ({listing(rest)})"
    return [f"folder: left out, not listed by the split file: {what}"] if rest else []


def _by_class(root, chosen):
    """({split: [(path, label), ...]}, class names, notes); the only split is "" if the folder has none."""
    found, left, links = _walk(root)
    parts = [path.split("/") for path in found]
    splits = {p[0] for p in parts if len(p) > 2 and (p[0] in chosen or p[0].lower() in SPLIT_NAMES)}
    depth = 1 if splits else 0  # of the class folder
    by_folder = {}
    for path, p in zip(found, parts, strict=True):
        if len(p) > depth + 1:
            by_folder.setdefault((p[0] if depth else "", normalize("NFC", p[depth])), []).append(path)
        else:
            left.setdefault("in no class folder", []).append(path)
    names = {name for split, name in by_folder if not depth or split in splits}
    if depth:  # another folder is a split too if it is arranged like these
        others = {split for split, _ in by_folder} - splits
        alike = {o for o in others if {name for split, name in by_folder if split == o} <= names}
        for split, name in [key for key in by_folder if key[0] in others - alike]:
            left.setdefault("in folders that are no split", []).extend(by_folder.pop((split, name)))
    names = tuple(sorted(names))
    if not names:
        said = f" ({_left_out(left)})" if left else ""
        raise DataError(
            f"folder: {root} has no pictures as SPLIT/CLASS/*.jpg or CLASS/*.jpg{said}; name a split file, or arrange "
            "them so"
        )
    if not depth:
        _check_classes(root, names)
    rows = {
        split: [(root / path, c) for c, name in enumerate(names) for path in by_folder.get((split, name), ())]
        for split in sorted({split for split, _ in by_folder})
    }
    again = _again(root, found) if links else []
    notes = [f"folder: links lead again to {counted(len(again), 'picture')}: {listing(again)}"] if again else []
    return rows, names, notes + [f"folder: left out: {_left_out(left)}"] * bool(left)


def _check_classes(root, names):
    """Refuses class folders that are not: one around all others, or splits without class folders."""
    if len(names) == 1 and names[0].lower() not in SPLIT_NAMES:
        raise DataError(
            f"folder: all pictures of {root} lie in {printable(names[0])}, which would be the only class; if it holds "
            f"the splits or classes, give data.dir {root / printable(names[0])}"
        )
    splits = [name for name in names if name.lower() in SPLIT_NAMES]
    if splits and (len(names) - len(splits) < 2 or {name.lower() for name in splits} - set(ROLES["train"])):
        raise DataError(  # "train" may be a class, among others
            f"folder: pictures of {root} lie in {', '.join(splits)} without class folders; arrange them as "
            "SPLIT/CLASS/*.jpg, or name a split file"
        )


def _walk(root):
    """The contents of a folder, by relative paths; links are followed, but not to a folder that contains them.

    Returns:
      pictures, in the order of their names, those of a folder before those of its subfolders; {reason: paths} of what
      is left out; whether anything is reached through a link.
    """
    found, left, barren, links = [], {}, [], False
    stack = [("", ())]
    while stack:
        here, above = stack.pop()
        try:
            status = os.stat(root / here)
            entries = sorted(os.scandir(root / here), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"folder: {root / here} cannot be read ({error.strerror})") from None
        above, below = (*above, (status.st_dev, status.st_ino)), []
        for entry in entries:
            path, reason = f"{here}/{entry.name}".lstrip("/"), None
            if entry.name.startswith(HIDDEN):
                reason = "hidden"
            elif _is(entry, "dir"):
                status = os.stat(entry.path)
                if (status.st_dev, status.st_ino) in above:
                    reason = "links to a folder around them"
                else:
                    below.append((path, above))
            elif os.path.splitext(entry.name)[1].lower() not in SUFFIXES:
                reason = "not named as pictures"
            elif not _is(entry, "file"):
                reason = "not regular files, or links to nothing"
            else:
                found.append(path)
            links |= not reason and entry.is_symlink()
            if reason:
                left.setdefault(reason, []).append(path)
        barren += [here] * (not below)
        stack += reversed(below)
    filled = {path.rpartition("/")[0] for path in found}
    empty = [path for path in barren if path and path not in filled]
    return found, left | ({"folders without pictures": empty} if empty else {}), links


def _again(root, paths):
    """Paths of files that an earlier path leads to as well."""
    first = {}
    for path in paths:
        first.setdefault(os.path.realpath(root / path), path)
    return sorted(set(paths) - set(first.values()))


def _is(entry, kind):
    try:
        return getattr(entry, f"is_{kind}")()
    except OSError:  # a circular link
        return False


def _left_out(left):
    return "; ".join(f"{reason}: {len(paths):,} ({listing(paths)})" for reason, paths in left.items())


# Splits


def _held_out(rows, train_split, test_split, fraction, seed):
    """The rows with a share of each class of train moved to test; each keeps at least one sample of a class that has
    two."""
    source = roles("folder", rows, train=train_split)[0].get("train")
    if test_split or "test" in rows or source is None:
        raise DataError("folder: test_fraction holds out a share of train, which needs a train split and no test split")
    labels = np.array([label for _, label in rows[source]])
    rng, held = np.random.default_rng(seed), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(len(members) - 1, max(1, round(fraction * len(members))))
        held[rng.permutation(members)[:count]] = True
    split = {
        source: [row for row, out in zip(rows[source], held, strict=True) if not out],
        "test": [row for row, out in zip(rows[source], held, strict=True) if out],
    }
    note = (
        f"folder: no test split: {held.sum():,} of {len(held):,} pictures, drawn with seed {seed} from each "
        "class, are held out as test"
    )
    return rows | split, note


def _summary(rows, names):
    counts = ", ".join(f"{counted(len(part), 'picture')} in {printable(split)}" for split, part in rows.items())
    classes = f"{len(names):,} classes, numbered in this order" if len(names) > 1 else "one class only"
    return f"folder: {counts}; {classes}: {listing(names, 10)}"


def _missing_classes(rows, names, chosen):
    """Notes on classes without a picture in train or test."""
    for role, split in chosen.items():
        seen = {label for _, label in rows[split]}
        absent = [name for label, name in enumerate(names) if label not in seen]
        if absent:
            yield f"folder: no picture in {role} of {len(absent):,} of {len(names):,} classes: {listing(absent)}"


# Pixels


def _pixels(paths, size, channels):
    """(shape of all, size to resize to or None, scales of `decode`, notes) of picture files."""
    found = headers(paths)
    sides = np.array([header.size for header in found])
    low, high = sides.min(0).tolist(), sides.max(0).tolist()
    spans = [f"{a}" if a == b else f"{a} to {b}" for a, b in zip(low, high, strict=True)]
    if low == high and (low == [size, size] if size else max(low) <= LARGEST):
        shape, size = (*low, channels), None
        note = f"folder: all pictures are {spans[0]} x {spans[1]} pixels, and stay so"
    else:
        how = "" if size else f" (their median shorter side, at most {LARGEST}; data.options.size chooses another)"
        size = size or min(LARGEST, int(np.median(sides.min(1))))
        shape, cropped = (size, size, channels), int(np.sum(sides[:, 0] != sides[:, 1]))
        cut = f", and the longer side of {cropped:,} of them is cut to its middle" if cropped else ""
        note = (
            f"folder: pictures are {spans[0]} pixels high and {spans[1]} wide; all are resized, the shorter side to "
            f"{size}{how}{cut}"
        )
    scales, said = _scales(found)
    return shape, size, scales, [note, *said, *_conversions(found, channels)]


def _scales(found):
    """({mode: (low, high)} as in `decode`, notes): one scale for all pictures of a type that does not imply one."""
    scales, notes = {}, []
    for mode, largest in sorted({(h.mode, h.largest) for h in found if h.limits}, key=str):
        limits = [h.limits for h in found if (h.mode, h.largest) == (mode, largest)]
        least, most = min(a for a, _ in limits), max(b for _, b in limits)
        scale = (0, largest) if largest else scales.setdefault(mode, scale_of(least, most, mode == "F"))
        kind = "16-bit integers" if largest else "32-bit floats" if mode == "F" else "32-bit integers"
        notes.append(
            f"folder: {counted(len(limits), 'picture')} of {kind} from {least:g} to {most:g}: {scale[0]:g} to "
            f"{scale[1]:g} is taken as black to white, in 8 bits"
        )
    return scales, notes


def _conversions(found, channels):
    modes = Counter(header.mode for header in found)
    kinds = [
        f"{count:,} {COLOURS.get(mode, 'in ' + mode)}"
        for mode, count in modes.most_common()
        if mode != ("RGB" if channels == 3 else "L") and mode[0] not in "IF"  # these have notes above
    ]
    if kinds:
        yield f"folder: converted to {'RGB' if channels == 3 else 'grey'}: {'; '.join(kinds)}"
    turned, several = (sum(getattr(header, what) for header in found) for what in ("turned", "several"))
    if turned:
        yield f"folder: turned upright, as the EXIF data say: {counted(turned, 'picture')}"
    if several:
        yield f"folder: the first of several pictures is read of {counted(several, 'file')}"
