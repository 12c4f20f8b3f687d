"""Reads the files of a run folder, however old or damaged: what cannot be used is left out, with a note."""

import base64
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infojax.measures.catalogue import LABELLED
from infojax.train.runlog import RunFolderError
from infojax.train.schema import BY_CLASS, NUMBER, POINTS, TYPES

MOST = 2**53  # integers up to this are exact as floats
DEEPEST = 50  # levels of nested settings; JSON readers fail at some depth, each with an error of its own

# The settings that figures and tables rely on; others may hold anything.
OF_SETTINGS = {
    "name": str, "task": str, "num_classes": int, "steps": int, "steps_per_epoch": NUMBER, "sweep": dict,
    "sweep.name": str, "report": dict, "report.x_scale": str, "path.fork": int, "versions": dict, "git": str,
}  # fmt: skip


def read_settings(path: Path) -> dict:
    """The JSON object in a file; {} if there is no such file.

    Raises:
      RunFolderError: it is not a JSON object, or a setting that figures rely on has another type.
    """
    if not path.exists():
        return {}
    if not path.is_file():
        raise RunFolderError(f"{path}: not a regular file; expected one JSON object")
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or _depth(found) > DEEPEST:
        raise RunFolderError(f"{path}: damaged; expected one JSON object")
    for key, kind in OF_SETTINGS.items():
        part, _, inner = key.rpartition(".")
        holder = found.get(part) if part else found
        value = holder.get(inner) if isinstance(holder, dict) else None
        if value is not None and not _is(value, kind):
            raise RunFolderError(f"{path}: {key} is {str(value)[:40]!r}, expected {_named(kind)}")
    return found


def read_rows(path: Path, swept: str = "") -> tuple[list[dict], list[str]]:
    """(rows, notes): the usable rows, and one line for each kind of thing left out, with the reason.

    A non-finite number is read as None, as it was written; `swept` is a key whose values may be text.
    """
    rows: list[dict] = []
    damaged: dict[str, list[int]] = {}
    text: dict[str, list[int]] = {}
    lines = path.read_text(encoding="utf-8-sig", errors="replace").split("\n")
    cut_short = lines.pop()  # "" where the last line is complete
    for number, line in enumerate(lines, 1):
        row, problem = _row(line, swept)
        if row is None:
            damaged.setdefault(problem, []).append(number)
            continue
        for name, value in row.items():
            shown = (name in LABELLED or name.startswith("limit_")) and name != swept
            if shown and value is not None and type(value) not in NUMBER:
                text.setdefault(name, []).append(number)
            elif type(value) in NUMBER and not math.isfinite(value):
                row[name] = None
        rows.append(row)
    if cut_short:
        damaged["cut short"] = [len(lines) + 1]
    notes = [f"{name} is not a number in {_places(at)}: left out there" for name, at in text.items()]
    if damaged:
        count = sum(map(len, damaged.values()))
        reasons = "; ".join(f"{problem} ({_places(at)})" for problem, at in damaged.items())
        notes.insert(0, f"{count} of {len(lines) + bool(cut_short)} lines are damaged and were skipped: {reasons}")
    return rows, [f"{path}: {note}" for note in notes]


def _row(line: str, swept: str) -> tuple[dict | None, str]:
    """(row, "") or (None, the reason why it is unusable)."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None, "not JSON"
    if not isinstance(row, dict):
        return None, "not a JSON object"
    for key in ("kind", "step"):
        if key not in row:
            return None, f"no {key}"
    for key, value in row.items():
        kind = TYPES.get(key, (*NUMBER, str) if key == swept else None)
        if kind and not _is(value, kind):
            return None, f"{key} is {str(value)[:40]!r}, expected {_named(kind)}"
        if isinstance(value, int) and abs(value) > (MOST if kind else 1e300):
            return None, f"{key} has {len(str(value))} digits"
    if row["step"] < 0:
        return None, "step is negative"
    for names in POINTS:
        if names[0] in row and not _same_length([row.get(name) for name in (*names, "labels")]):
            return None, f"{', '.join(names)} and labels must be lists of numbers of equal length"
    if "tsne_x" in row and not {"split", "n"} <= row.keys():
        return None, "a map without split or n"
    if "cloud_x" in row and not _fits(row):
        return None, "means must be a list of three numbers per class, and labels indices into it"
    if "class_names" in row and not _by_class(row):
        return None, "per-class values must be lists of numbers as long as class_names, and the map square"
    if "pictures" in row and not _pictured(row):
        return None, "pictures must be the bytes of an array of shape pictures_shape (n, H, W, 3 or 7)"
    return row, ""


def _by_class(row: dict[str, Any]) -> bool:
    """Whether per-class lists have a number or None for each class name, and the map one for each pair."""
    names = row["class_names"]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return False

    def fits(values):
        return isinstance(values, list) and len(values) == len(names)

    def numbers(values):
        return fits(values) and all(value is None or _is(value, NUMBER) for value in values)

    grid = row.get("similarity_map", [None] * len(names))
    return (
        all(numbers(row.get(name)) for name in BY_CLASS)
        and fits(grid)
        and all(own is None or numbers(own) for own in grid)
    )


def _pictured(row: dict[str, Any]) -> bool:
    """Whether pictures are base64 of as many bytes as their shape requires: picture, prediction, hidden patches."""
    shape = row.get("pictures_shape")
    if not (isinstance(shape, list) and len(shape) == 4 and all(_is(x, int) and 0 < x < 10**5 for x in shape)):
        return False
    try:
        return shape[3] in (3, 7) and len(base64.b64decode(row["pictures"], validate=True)) == math.prod(shape)
    except (TypeError, ValueError):
        return False


def _fits(cloud: dict[str, Any]) -> bool:
    """Whether means and head, which are optional, are lists of three numbers (None if not finite) per class."""
    means, head = cloud.get("means", ()), cloud.get("head", [])
    threes = all(
        isinstance(x, list)
        and all(isinstance(v, list) and len(v) == 3 and all(c is None or _is(c, NUMBER) for c in v) for v in x)
        for x in (means, head)
    )
    return threes and all(type(label) is int and 0 <= label < len(means) for label in cloud["labels"])


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool)) and value == value


def _named(kind: Any) -> str:
    names = {str: "text", int: "a whole number", NUMBER: "a number", dict: "an object", bool: "true or false"}
    return names.get(kind, "a number or text")


def _same_length(lists: list) -> bool:
    whole = all(isinstance(x, list) and all(_is(v, NUMBER) and abs(v) < 1e300 for v in x) for x in lists)
    return whole and len({len(x) for x in lists}) == 1 and bool(lists[0])


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        level = [
            part for x in level if isinstance(x, dict | list) for part in (x.values() if isinstance(x, dict) else x)
        ]
        depth += 1
    return depth


def _places(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
    return f"line{'s' * (len(numbers) > 1)} {shown}"
