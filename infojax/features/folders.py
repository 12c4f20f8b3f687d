"""Folders and globs: files of steps, files whose rows belong together, and folders of layers."""

import glob
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from infojax.features.axes import HIDDEN, TOKENS
from infojax.features.files import DIGITS, OPENERS, open_arrays
from infojax.features.sources import FeatureFileError, StoredArray, joined

STEP_NAME = re.compile(r"step[_-]?(\d+)", re.IGNORECASE)
RANGE = re.compile(r"^(.*?)(\d+)-(\d+)$")  # thingsvision's features_0-500, features_500-1000
SHARD = re.compile(r"^(.*?)(\d+)-of-(\d+)$")  # train-00000-of-00004, model-00001-of-00002


class Argument(NamedTuple):
    """What a name on the command line stands for.

    Attributes:
      name: as given.
      steps: of the files, if it is a folder with one file per step; else None.
      files: to measure, one by one; a folder or glob whose files belong together counts as one.
      left_out: feature files of the folder without a step.
    """

    name: str
    steps: list[int] | None
    files: list[str]
    left_out: tuple[str, ...] = ()


class Together(NamedTuple):
    """The arrays of a folder or glob, a description of how its files were read, and the number of rows from each."""

    arrays: dict[str, StoredArray]
    notes: str = ""
    rows: tuple[int, ...] = ()


def expand(name: str) -> Argument:
    """A file, glob or folder as it is, except a folder of `step_NUMBER` files, which is expanded in order of steps.

    Raises:
      FeatureFileError: a step file has no usable number, or two have the same.
    """
    folder = Path(name)
    if name == DIGITS or not folder.is_dir():
        return Argument(name, None, [name])
    by_step: dict[int, Path] = {}
    left_out = []
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() not in OPENERS:
            continue
        if not file.name.lower().startswith("step"):  # labels.npy and the like may lie next to the steps
            left_out.append(file.name)
            continue
        match = STEP_NAME.fullmatch(file.stem)
        if match is None:
            raise FeatureFileError(f"{file}: no step number in the name; expected step_NUMBER")
        if int(match[1]) > 2**53:
            raise FeatureFileError(f"{file}: the step number has {len(match[1])} digits; expected at most 2^53")
        other = by_step.setdefault(int(match[1]), file)
        if other != file:
            raise FeatureFileError(f"{folder}: {other.name} and {file.name} are the same step")
    if not by_step:
        return Argument(name, None, [name])
    steps = sorted(by_step)
    return Argument(name, steps, [str(by_step[step]) for step in steps], tuple(left_out))


def open_together(path: str, parts: bool = False) -> Together:
    """The arrays of a file, of a glob, or of a folder.

    The files of a folder or glob are joined along their first axis, in the order of the numbers in their names, if
    `parts` is set or they are recognised as parts: vLLM's (hidden_states and token_ids, one file per prompt),
    thingsvision's (features_0-500) and shards (train-00000-of-00004). Otherwise the array of FILE is named FILE, or
    FILE.ARRAY if it holds several. Folders inside a folder are layers: thingsvision makes one per module.

    Raises:
      FeatureFileError: there are no feature files, or they do not fit together; one line.
    """
    if path == DIGITS or Path(path).is_file():
        return Together(open_arrays(path))
    if not Path(path).is_dir():
        found = sorted(map(Path, glob.glob(path))) if glob.has_magic(path) else []
        files = [file for file in found if file.suffix.lower() in OPENERS]
        return _of_files(path, files, parts) if files else Together(open_arrays(path))  # raises the error
    inside = sorted(Path(path).iterdir())
    files = [file for file in inside if file.suffix.lower() in OPENERS and file.is_file()]
    if files:
        return _of_files(path, files, parts)
    layers: dict[str, Any] = {}
    for folder in sorted((entry for entry in inside if entry.is_dir()), key=lambda p: _by_number(p.name)):
        files = [file for file in folder.iterdir() if file.suffix.lower() in OPENERS]
        if files:
            layers |= _named(folder.name, _of_files(str(folder), files, parts).arrays)
    if not layers:
        raise FeatureFileError(f"{path}: a folder without feature files; infojax reads {', '.join(OPENERS)}")
    return Together(layers, f"{len(layers)} arrays of its folders")


def _of_files(path: str, files: Sequence[Path], parts: bool) -> Together:
    files = sorted(files, key=lambda file: _by_number(file.name))
    opened = {file: open_arrays(file) for file in files}
    if parts or _are_parts(opened):
        if (missing := _missing(files)) and not parts:
            fix = "get the others, pass --parts to join those that are there, or name the files one by one"
            raise FeatureFileError(f"{path}: {missing}; {fix}")
        if len(files) > 1:
            return _join(path, opened, missing)
    arrays: dict[str, StoredArray] = {}
    for file, found in opened.items():
        named = found if len(files) == 1 else _named(file.stem, found)
        if both := arrays.keys() & named.keys():
            raise FeatureFileError(f"{path}: two of its files hold an array {min(both)}; rename one of them")
        arrays |= named
    return Together(arrays, f"{len(files)} files, {files[0].name} to {files[-1].name}" if len(files) > 1 else "")


def _named(stem: str, arrays: Mapping[str, StoredArray]) -> dict[str, StoredArray]:
    if len(arrays) == 1:
        return {stem: next(iter(arrays.values()))}
    return {f"{stem}.{name}": array for name, array in arrays.items()}


def _by_number(name: str) -> list[tuple[int, int, str]]:
    """A sort key that puts layer2 before layer10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _are_parts(opened: Mapping[Path, dict[str, StoredArray]]) -> bool:
    """Whether names and contents of the files show that their rows belong together."""
    names = [{name.lower() for name in arrays} for arrays in opened.values()]
    if all(found & set(HIDDEN) and found & set(TOKENS) for found in names):
        return True
    return bool(_shards(opened) or _ranges(opened))


def _shards(files: Iterable[Path]) -> dict[int, set[int]]:
    """The numbers of the shards by how many there should be; empty unless all files are shards of one name."""
    matches = [SHARD.match(file.stem) for file in files]
    if not all(matches) or len({match[1] for match in matches if match}) != 1:
        return {}
    found: dict[int, set[int]] = {}
    for match in filter(None, matches):
        found.setdefault(int(match[3]), set()).add(int(match[2]))
    return found


def _ranges(files: Iterable[Path]) -> list[tuple[int, int]]:
    """The ranges of rows in order; empty unless all files are ranges of one name: 2026-01 and layer1-0 are none."""
    matches = [RANGE.match(file.stem) for file in files]
    ranges = sorted((int(match[2]), int(match[3])) for match in matches if match)
    one_name = all(matches) and len({match[1] for match in matches if match}) == 1
    in_order = all(start <= stop for start, stop in ranges) and all(a[1] <= b[0] for a, b in pairwise(ranges))
    return ranges if one_name and in_order else []


def _missing(files: Sequence[Path]) -> str:
    """Which of the parts are not there, half of a checkpoint or of a data set; "" if none is known to be missing."""
    for count, there in _shards(files).items():
        if len(there) < count:
            return f"{len(there)} of {count} shards are there"
    for (_, stop), (start, _) in pairwise(_ranges(files)):
        if start > stop + 1:
            return f"the rows from {stop} to {start} are in no file"
    return ""


def _join(path: str, opened: Mapping[Path, dict[str, StoredArray]], missing: str) -> Together:
    """Joins arrays of the same name; one held by a single file, such as weights in shards, is returned as it is."""
    holders: dict[str, list[StoredArray]] = {}
    for arrays in opened.values():
        for name, array in arrays.items():
            holders.setdefault(name, []).append(array)
    files, found, rows = list(opened), {}, ()
    for name, arrays in holders.items():
        if len(arrays) not in (1, len(files)):
            without = next(file for file, held in opened.items() if name not in held)
            raise FeatureFileError(f"{without}: holds no array {name}, which {len(arrays)} other files of {path} hold")
        found[name] = arrays[0] if len(arrays) == 1 else joined(f"{path}: {name}", arrays)
        if len(arrays) > 1 and (not rows or name.lower().rpartition(".")[2] in HIDDEN):
            rows = tuple(array.full_shape[0] if array.full_shape else 0 for array in arrays)
    what = "joined" if rows else "with different arrays"
    notes = [f"{len(files)} files, {what}, {files[0].name} to {files[-1].name}", missing]
    return Together(found, "; ".join(filter(None, notes)), rows)


def same_name(name: str, path: str) -> bool:
    """Whether `path` is `name`, or one of the files of the folder or glob that it names."""
    if not os.path.exists(path):
        return False
    inside = [name]
    if os.path.isdir(name):
        inside += [str(file) for file in Path(name).rglob("*") if file.suffix.lower() in OPENERS]
    elif not os.path.exists(name):
        inside += glob.glob(name)
    return any(os.path.exists(file) and os.path.samefile(file, path) for file in inside)
