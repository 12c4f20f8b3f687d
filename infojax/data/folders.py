"""A folder of pictures as a data set: which files are its samples, their classes, splits and one size."""

import json
import os
from collections import Counter
from functools import cache, partial
from pathlib import Path
from unicodedata import normalize

import numpy as np

from infojax.data.images import SUFFIXES, Pictures, headers, scale_of
from infojax.data.source import ROLES, DataError, Dataset, counted, listing, printable, roles

LARGEST = 224  # pixels a side, where no size is given
HIDDEN = (".", "__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN")  # what systems put beside files begins so
SPLIT_NAMES = tuple(name for usual in ROLES.values() for name in usual)
COLOURS = {
    "1": "black and white", "L": "grey", "LA": "grey with an alpha channel, which is dropped",
    "P": "with a palette", "P transparent": "with a palette and transparency, which is dropped",
    "RGB": "in colour", "RGBA": "with an alpha channel, which is dropped",
}  # fmt: skip


def folder(dir, split_file="", size=None, channels=3, train_split="", test_split="", test_fraction=0.0, seed=0):
    """A folder of pictures.

    Without a split file the pictures lie in SPLIT/CLASS/, or deeper, where there is a split with a usual name (train,
    training, test, val, valid, validation, ...) or one that is named here; else in CLASS/, or deeper. Classes are the
    folders in which there are pictures in any split, numbered in the order of their names. Left out are hidden files,
    what is not a regular file or not named as a picture, and other folders with classes that no split has.

    Args:
      dir: the folder.
      split_file: JSON {split: [[path, label] or [path, label, class name], ...]}, paths relative to `dir`, as CoOp and
        its successors share them; looked for in `dir` first.
      size: every picture is resized and its middle cut out, so that it is size x size. By default pictures that all
        have one size of at most 224 x 224 are kept; others get their median shorter side, or 224 if that is less.
      train_split, test_split: names of the splits that are trained on and measured; by default train, and test or
        else val, valid or validation.
      test_fraction: share of each class of train that is held out as test; 0: a fifth where there are no splits at all.
      seed: of what is held out.
    Raises:
      DataError: no pictures, or some cannot be read.
    """
    root = Path(dir).expanduser()
    if not root.is_dir():
        raise DataError(f"folder: {root} is not a folder; give data.dir the folder that holds the pictures")
    if split_file:
        rows, names, notes = _listed(root, split_file)
    else:
        rows, names, notes = _by_class(root, [split for split in (train_split, test_split) if split])
        test_fraction = test_fraction or 0.2 * (set(rows) == {""} and not (train_split or test_split))
        rows = {split or "train": part for split, part in rows.items()}
    if test_fraction:
        rows, held = _held_out(rows, train_split, test_split, test_fraction, seed)
        notes.append(held)
    chosen, said = roles("folder", rows, train=train_split, test=test_split)
    shape, resized, scales, converted = _pixels([path for part in rows.values() for path, _ in part], size, channels)
    opened = {
        split: cache(partial(Pictures, [path for path, _ in part], [c for _, c in part], shape, resized, scales))
        for split, part in rows.items()
    }
    notes = [_summary(rows, names), *notes, *said, *_missing_classes(rows, names, chosen), *converted]
    return Dataset("folder", len(names), names, opened, roles=chosen, notes=notes)


# Which files


def _by_class(root, chosen):
    """({split: [(path, label), ...]}, class names, notes); the only split is "" where the folder has none."""
    found, left = _walk(root)
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
    return rows, names, [f"folder: left out: {_left_out(left)}"] if left else []


def _check_classes(root, names):
    """Refuses class folders that are something else: one around all others, or splits without class folders."""
    if len(names) == 1 and names[0].lower() not in SPLIT_NAMES:
        raise DataError(
            f"folder: all pictures of {root} lie in {printable(names[0])}, which would be the only class; if it holds "
            f"the splits or classes, give data.dir {root / printable(names[0])}"
        )
    splits = [name for name in names if name.lower() in SPLIT_NAMES]
    if splits and (len(names) - len(splits) < 2 or {name.lower() for name in splits} - set(ROLES["train"])):
        raise DataError(  # a train may be a class, beside others
            f"folder: pictures of {root} lie in {', '.join(splits)} without class folders; arrange them as "
            "SPLIT/CLASS/*.jpg, or name a split file"
        )


def _walk(root):
    """Pictures below a folder, as paths relative to it in the order of their names, those of a folder before those of
    the folders in it; and {reason: paths} of what was left out. Links are followed, but not to a folder around them."""
    found, left, barren = [], {}, []
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
            if reason:
                left.setdefault(reason, []).append(path)
        barren += [here] * (not below)
        stack += reversed(below)
    filled = {path.rpartition("/")[0] for path in found}
    empty = [path for path in barren if path and path not in filled]
    return found, left | ({"folders without pictures": empty} if empty else {})


def _is(entry, kind):
    try:
        return getattr(entry, f"is_{kind}")()
    except OSError:  # a link that leads round in a circle
        return False


def _left_out(left):
    return "; ".join(f"{reason}: {len(paths):,} ({listing(paths)})" for reason, paths in left.items())


def _listed(root, split_file):
    """As `_by_class`, of a split file."""
    path = next((p for p in (root / split_file, Path(split_file).expanduser()) if _exists(p)), None)
    if path is None:
        raise DataError(f"folder: found no split file {split_file} in {root} or here")
    try:
        listed = json.loads(path.read_bytes(), object_pairs_hook=_no_key_twice)  # UTF-8, 16 or 32, with or without BOM
        listed = {split: [(str(row[0]), row[1], *map(str, row[2:3])) for row in part] for split, part in listed.items()}
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OSError) as error:
        raise DataError(f"{path} is not {{split: [[path, label, class name], ...]}} ({error})") from None
    rows, missing, foreign, outside = {}, [], [], []
    for split, part in listed.items():
        if not part:
            raise DataError(f"{path}: split {split!r} lists no pictures")
        rows[split] = []
        for text, label, *_ in part:
            if type(label) is not int or label < 0:
                raise DataError(f"{path}: label {label!r} of {os.path.basename(text)} is not a number 0, 1, 2, ...")
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


def _names_of(path, listed):
    """Class names of a split file and notes on them; refuses labels that leave one out or have two names."""
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
                raise DataError(
                    f"{path}: label {label} is {names[label]!r} and, at {os.path.basename(text)}, {name[0]!r}"
                )
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
    """The file that a split file means, and whether it is written as on this system."""
    slashed = text.replace("\\", "/")
    for variant in dict.fromkeys((text, slashed, normalize("NFC", slashed), normalize("NFD", slashed))):
        if variant and _exists(root / variant):
            return root / variant, variant == text
    return None, False


def _exists(path):
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
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
            said[kind].append(os.path.basename(path))
    return [
        f"folder: {name} lists {counted(len(paths), 'picture')} more than once, {kind}: {listing(paths)}"
        for kind, paths in said.items()
        if paths
    ]


# Splits


def _held_out(rows, train_split, test_split, fraction, seed):
    """The rows with a share of each class of train as test; at least one sample of a class stays in each, if it has
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
        f"folder: no test split: {held.sum():,} of {len(held):,} pictures, {fraction:.0%} of each class drawn with "
        f"seed {seed}, are held out as test"
    )
    return rows | split, note


def _summary(rows, names):
    counts = ", ".join(f"{counted(len(part), 'picture')} in {printable(split)}" for split, part in rows.items())
    classes = f"{len(names):,} classes, numbered in this order" if len(names) > 1 else "one class only"
    return f"folder: {counts}; {classes}: {listing(names, 10)}"


def _missing_classes(rows, names, chosen):
    """Notes on classes of which train or test has no picture."""
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
    (low, high), one_size = (sides.min(0).tolist(), sides.max(0).tolist()), len(np.unique(sides, axis=0)) == 1
    kept = one_size and (low == [size, size] if size else max(low) <= LARGEST)
    notes = []
    if kept:
        shape, size = (*low, channels), None
        notes.append(f"folder: all pictures are {low[0]} x {low[1]} pixels, and stay so")
    else:
        median = int(np.median(sides.min(1)))
        given, size = bool(size), size or min(LARGEST, median)
        shape = (size, size, channels)
        are = (
            f"{low[0]} x {low[1]}" if one_size else f"{low[0]} to {high[0]} pixels high and {low[1]} to {high[1]} wide"
        )
        cropped = int(np.sum(sides[:, 0] != sides[:, 1]))
        cut = f", and the longer side of {cropped:,} of them is cut to its middle" if cropped else ""
        why = "" if given else f" (their median shorter side, at most {LARGEST}; size=... chooses another)"
        notes.append(f"folder: pictures are {are}; all are resized, the shorter side to {size}{why}{cut}")
    scales = {}
    for mode, largest in sorted({(h.mode, h.largest) for h in found if h.limits}, key=str):
        limits = [h.limits for h in found if (h.mode, h.largest) == (mode, largest)]
        least, most = min(a for a, _ in limits), max(b for _, b in limits)
        scale = (0, largest) if largest else scales.setdefault(mode, scale_of(least, most, mode == "F"))
        kind = "16-bit integers" if largest else "32-bit floats" if mode == "F" else "32-bit integers"
        notes.append(
            f"folder: {counted(len(limits), 'picture')} of {kind} from {least:g} to {most:g}: {scale[0]:g} to "
            f"{scale[1]:g} is taken as black to white, in 8 bits"
        )
    return shape, size, scales, notes + list(_conversions(found, channels))


def _conversions(found, channels):
    modes = Counter(header.mode for header in found)
    kinds = [
        f"{count:,} {COLOURS.get(mode, 'in ' + mode)}"
        for mode, count in modes.most_common()
        if mode != ("RGB" if channels == 3 else "L") and mode[0] not in "IF"  # of which more is said above
    ]
    if kinds:
        yield f"folder: converted to {'RGB' if channels == 3 else 'grey'}: {'; '.join(kinds)}"
    turned, several = (sum(getattr(header, what) for header in found) for what in ("turned", "several"))
    if turned:
        yield f"folder: turned upright, as the EXIF data say: {counted(turned, 'picture')}"
    if several:
        yield f"folder: the first of several pictures is read of {counted(several, 'file')}"
