"""Measures saved features: `python -m infojax.measure FILE [FILE|DIR ...]`, no model, no training.

One file gives a table of measures; a folder of `step_*.npz` (or another kind) gives a row per step.
Rows are read in blocks, so a file may be larger than memory. Bad input ends in one line and code 2.
"""

import argparse
import fnmatch
import json
import math
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from infojax.analysis import InputError, analyze
from infojax.feature_files import DIGITS, OPENERS, FeatureFileError, StoredArray, near, open_arrays

EXAMPLES = """examples:
  python -m infojax.measure digits                         the bundled digits: features and labels
  python -m infojax.measure features.npz                   arrays found by name: features, labels, head, bias
  python -m infojax.measure z.npy --labels y.npy           arrays in separate files
  python -m infojax.measure f.npz --head model.safetensors:fc.weight --bias none
  python -m infojax.measure f.npz --layers 'layer*'        several arrays, one report each
  python -m infojax.measure run/features --html run.html   a folder of step_*.npz: curves over steps
  python -m infojax.measure f.npz --ci 200 --json - | jq   intervals; only the JSON on stdout

names found without a flag, in any case:
  features, feats, embeddings, z, x, h;  labels, y, targets;  head, weight, w;  bias, b
"""
ROLE_NAMES = {
    "features": ("features", "feats", "embeddings", "z", "x", "h"),
    "labels": ("labels", "y", "targets"),
    "head": ("head", "weight", "w"),
    "bias": ("bias", "b"),
}
STEP_NAME = re.compile(r"step[_-]?(\d+)", re.IGNORECASE)


class UsageError(ValueError):
    """A command line that cannot be carried out; the message is one line."""


class Opened(NamedTuple):
    """What is measured in one file: rows (N, D) by layer, labels (N,), head (C, D), bias (C,)."""

    path: str
    layers: dict[str, StoredArray]
    labels: np.ndarray | None
    head: np.ndarray | None
    bias: np.ndarray | None


class Series(NamedTuple):
    """An argument: one file (`steps` is None), or a folder with a file a step."""

    argument: str
    steps: list[int] | None
    files: list[str]


# Which array is which


def _listed(arrays: dict[str, StoredArray], most: int = 12) -> str:
    shown = [f"{name} {array}" for name, array in list(arrays.items())[:most]]
    more = [f"and {len(arrays) - most} more"] if len(arrays) > most else []
    return ", ".join(shown + more)


def choose(arrays: dict, path: str, role: str, prefix: str = "") -> str | None:
    """The array whose name says that it plays `role`; None if `role` is optional and none does.

    `prefix` is what a flag's value needs before the name: `FILE:` for an array of another file.

    Raises:
      FeatureFileError: two candidates, or none for the features; lists the arrays and the flag.
    """
    found = {name: a for name, a in arrays.items() if name.lower() in ROLE_NAMES[role]}
    if len(found) == 1:
        return next(iter(found))
    if not found and role != "features":
        return None
    candidates = found or {name: a for name, a in arrays.items() if len(a.full_shape) > 1} or arrays
    flags = [f"--{role} {shlex.quote(prefix + name)}" for name in list(candidates)[:4]]
    several = ", or --layers 'GLOB' for several" if role == "features" else ""
    raise FeatureFileError(
        f"{path}: which array holds the {role}? {_listed(found or arrays)}; "
        f"pass {' or '.join(flags)}{several if len(candidates) > 1 else ''}"
    )


def find(arrays: dict, path: str, role: str, key: str | None) -> StoredArray | None:
    """The array for `--role key`: a name in this file, FILE, FILE:NAME or none; else by its name.

    Raises:
      FeatureFileError: `key` is none of these; names the near ones.
    """
    if key is None:
        name = choose(arrays, path, role)
        return None if name is None else arrays[name]
    if key in arrays:
        return arrays[key]
    if role == "features":
        raise FeatureFileError(
            f"{path}: --features {key}: no such array{near(key, arrays)}; it holds {_listed(arrays)}"
        )
    if key == "none":
        return None
    file, _, name = (key, "", "") if os.path.isfile(key) else key.rpartition(":")
    if os.path.isfile(file):
        return _find_elsewhere(file, name, role)
    if Path(key).suffix.lower() in OPENERS:
        open_arrays(key)  # says that there is no such file, and which are near
    raise FeatureFileError(
        f"{path}: --{role} {key}: neither an array of this file nor a file{near(key, arrays)}; "
        f"it holds {_listed(arrays)}"
    )


def _find_elsewhere(file: str, name: str, role: str) -> StoredArray:
    arrays = open_arrays(file)
    if not name and len(arrays) == 1:
        return next(iter(arrays.values()))
    name = name or choose(arrays, file, role, prefix=f"{file}:") or ""
    if name in arrays:
        return arrays[name]
    missing = f"no array {name!r}" if name else f"no array named {' or '.join(ROLE_NAMES[role])}"
    raise FeatureFileError(
        f"{file}: {missing}{near(name, arrays)}; it holds {_listed(arrays)}; "
        f"pass --{role} {shlex.quote(f'{file}:{next(iter(arrays))}')} or another of these"
    )


def integer_labels(array: StoredArray) -> np.ndarray:
    """Labels (N,) as int64, from integers, whole floats or a column (N, 1).

    Raises:
      FeatureFileError: one-hot rows, fractions, or no numbers.
    """
    array.require_numbers()
    if array.shape[1] > 1:
        raise FeatureFileError(
            f"{array.where} has shape {array.full_shape}, labels must be (N,); "
            "if its rows are one-hot, save labels.argmax(axis=1)"
        )
    labels = array.load().reshape(-1)
    if labels.dtype.kind not in "biu":
        labels = labels.astype(np.float64)
        wrong = np.flatnonzero(~((np.abs(labels) < 2**53) & (labels == np.round(labels))))
        if wrong.size:
            raise FeatureFileError(
                f"{array.where}: labels must be whole numbers, row {wrong[0]} is "
                f"{labels[wrong[0]]:g}; pass another array with --labels, or --labels none"
            )
    return labels.astype(np.int64)


def _layers(arrays: dict, path: str, args: argparse.Namespace, taken: list) -> dict:
    if args.layers is None:
        return {"features": find(arrays, path, "features", args.features)}
    free = {k: v for k, v in arrays.items() if not any(v is array for array in taken)}
    layers = {k: v for k, v in free.items() if fnmatch.fnmatchcase(k, args.layers)}
    if not layers:
        raise FeatureFileError(
            f"{path}: --layers {shlex.quote(args.layers)} matches no array"
            f"{near(args.layers.replace('*', ''), free)}; it holds {_listed(free)}"
        )
    return layers


def open_features(path: str, args: argparse.Namespace) -> Opened:
    """Finds the features, labels, head and bias of one file by their names and the flags of `args`.

    Raises:
      FeatureFileError: one line; see `find` and `integer_labels`.
    """
    arrays = open_arrays(path)
    labels, head, bias = (find(arrays, path, r, getattr(args, r)) for r in ("labels", "head", "bias"))
    layers = _layers(arrays, path, args, taken=[labels, head, bias])
    for array in layers.values():
        array.require_numbers()
        if len(array.full_shape) < 2:
            raise FeatureFileError(f"{array.where} has shape {array.full_shape}, features must be (N, D) or (N, ...)")
    for role, array, expected in (("head", head, "(C, D)"), ("bias", bias, "(C,)")):
        if array is None:
            continue
        array.require_numbers()
        if len(array.full_shape) != (2 if role == "head" else 1):
            raise FeatureFileError(
                f"{array.where} has shape {array.full_shape}, the {role} must be {expected}; "
                f"pass another array with --{role}, or --{role} none"
            )
    if head is not None and labels is None:
        fix = "pass --labels KEY or FILE, or --head none"
        raise FeatureFileError(f"{head.where}: a head needs the labels of the rows; {fix}")
    if bias is not None and head is None:
        fix = "pass --head KEY or FILE, or --bias none"
        raise FeatureFileError(f"{bias.where}: a bias needs a head; {fix}")
    return Opened(
        path,
        layers,
        None if labels is None else integer_labels(labels),
        None if head is None else head.load(),
        None if bias is None else bias.load(),
    )


def expand(argument: str) -> Series:
    """A file as it is; a folder as its `step_NUMBER` files, by number.

    Raises:
      FeatureFileError: a folder without such files, with one without a number, or two of one step.
    """
    folder = Path(argument)
    if argument == DIGITS or not folder.is_dir():
        return Series(argument, None, [argument])
    by_step: dict[int, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() not in OPENERS or not file.name.lower().startswith("step"):
            continue  # labels.npy and the like may lie beside the steps
        match = STEP_NAME.fullmatch(file.stem)
        if match is None:
            raise FeatureFileError(f"{file}: no step number in the name; expected step_NUMBER")
        other = by_step.setdefault(int(match[1]), file)
        if other != file:
            raise FeatureFileError(f"{folder}: {other.name} and {file.name} are the same step")
    if not by_step:
        raise FeatureFileError(f"{folder}: a folder without step files; expected step_NUMBER with {', '.join(OPENERS)}")
    steps = sorted(by_step)
    return Series(argument, steps, [str(by_step[step]) for step in steps])


def check_inputs(series: list[Series], args: argparse.Namespace) -> None:
    """Opens every file once before the long work, so that a bad one is known at the start."""
    for one in series:
        first = None
        for file in one.files:
            layers = list(open_features(file, args).layers)
            first = first or layers
            if layers != first:
                raise FeatureFileError(
                    f"{file}: holds the layers {', '.join(layers)}, but {one.files[0]} holds "
                    f"{', '.join(first)}; the steps of one folder need the same"
                )


# The measurement


@contextmanager
def progress_bar(shown: bool, files: int) -> Iterator[Callable]:
    """Yields `start(label)`, which gives the callback (done, total, phase) for the next file."""
    if not shown:
        yield lambda label: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task, count = bar.add_task(""), 0

        def start(label):
            nonlocal count
            count += 1
            title = escape(label if files == 1 else f"{label} ({count}/{files})")
            return lambda done, total, phase: bar.update(
                task, description=f"{title}: {phase}", completed=done, total=total
            )

        yield start


def measure_file(opened: Opened, args: argparse.Namespace, progress=None) -> dict:
    """{layer: Report} of one file; a single array is the layer `features`.

    Raises:
      FeatureFileError: what `infojax.analyze` refuses, with the file's name before it.
    """
    # Wide rows come in smaller blocks; `analyze` pads each block to `chunk`, so it is told the true size.
    chunk = min(rows.block_rows(args.chunk) for rows in opened.layers.values())
    common = {"ci": args.ci, "chunk": chunk, "seed": args.seed, "progress": progress}
    common |= {"labels": opened.labels, "head": opened.head, "bias": opened.bias}
    try:
        if args.layers is None:
            return {"features": analyze(opened.layers["features"], name=opened.path, **common)}
        reports = analyze(opened.layers, **common)
        return {layer: reports[layer] for layer in opened.layers}
    except InputError as error:
        raise FeatureFileError(f"{opened.path}: {error}") from error


# What comes out


def strict_json(results: dict) -> str:
    """`{file: {layer: {measures, conventions, warnings}}}`; a value that is not finite is null.

    The reason of each null stands in the warnings.
    """

    def entry(report) -> dict:
        measures, warnings = {}, [str(warning) for warning in report.warnings]
        for name, value in report.measures.items():
            value = float(value)
            measures[name] = value if math.isfinite(value) else None
            if measures[name] is None:
                warnings.append(f"{name} is {value}: {report.reasons.get(name, 'no finite value')}")
        return {"measures": measures, "conventions": dict(report.conventions), "warnings": warnings}

    table = {f: {name: entry(r) for name, r in layers.items()} for f, layers in results.items()}
    return json.dumps(table, indent=2, allow_nan=False) + "\n"


def table(one: Series, reports: list[dict]) -> str:
    """Plain text of at most 100 columns: a report, a row a layer, or a row a step."""
    from infojax.report.tables import render_layers, render_trajectory

    if one.steps is not None:
        blocks = []
        for layer in reports[0]:
            title = one.argument if layer == "features" else f"{one.argument}: {layer}"
            rows = render_trajectory(one.steps, [report[layer] for report in reports])
            blocks.append(f"{title}\n{rows}")
        return "\n\n".join(blocks)
    [layers] = reports
    if list(layers) == ["features"]:
        return layers["features"].table(width=100)
    return f"{one.argument}\n{render_layers(layers)}"


def show(text: str) -> None:
    """Prints also where stdout has no Unicode, as in some CI logs."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(str.maketrans("─…·", "-~."))
        text = text.encode(encoding, "replace").decode(encoding)
    print(text, end="" if text.endswith("\n") else "\n")


def check_outputs(series: list[Series], args: argparse.Namespace) -> None:
    """Raises UsageError where an output cannot be written, before the long work."""
    inputs = [file for one in series for file in one.files]
    for key in filter(None, (args.labels, args.head, args.bias)):
        inputs += [key, key.rpartition(":")[0]]
    if args.html and len({tuple(one.steps) for one in series if one.steps is not None}) > 1:
        raise UsageError("--html: the folders have different steps; write a page for each")
    if args.html and args.html == args.json:
        raise UsageError(f"--json and --html both name {args.html}; pass two files")
    for flag, target in (("--json", args.json), ("--html", args.html), ("--figures", args.figures)):
        if target is None or (flag == "--json" and target == "-"):
            continue
        path = Path(target)
        parent = path.absolute().parent
        if not parent.is_dir():
            raise UsageError(f"{flag} {target}: no folder {parent}; make it first")
        wants_folder = flag == "--figures"
        if path.exists() and path.is_dir() != wants_folder:
            kind = "a file, expected a folder" if wants_folder else "a folder, expected a file"
            raise UsageError(f"{flag} {target}: is {kind}")
        if path.exists() and any(os.path.exists(i) and os.path.samefile(path, i) for i in inputs):
            raise UsageError(f"{flag} {target}: is also an input, and would be overwritten")
        if not os.access(path if path.is_dir() else parent, os.W_OK):
            raise UsageError(f"{flag} {target}: no permission to write there")


def draw_page(series: list[Series], results: dict) -> str:
    """The HTML page: all reports of files, the last step and the curves of folders."""
    from infojax.report.page import html_page

    reports, curves, steps = {}, {}, None
    for one in series:
        last = one.files[-1]
        for layer, report in results[last].items():
            alone = len(series) == 1 and one.steps is None
            label = layer if alone else last if layer == "features" else f"{last}: {layer}"
            reports[label] = report
            if one.steps is not None:
                steps = one.steps
                label = layer if len(series) == 1 else f"{one.argument}: {layer}"
                curves[label] = [results[file][layer] for file in one.files]
    title = ", ".join(one.argument for one in series)
    return html_page(reports, title, trajectory=(steps, curves) if curves else None)


def draw_figures(series: list[Series], results: dict, folder: Path) -> None:
    """Figures of every argument; those of several arguments go to a folder each."""
    from infojax.report.figures import save_figures, save_trajectory

    for number, one in enumerate(series, start=1):
        inner = folder if len(series) == 1 else folder / f"{number}_{Path(one.argument).stem}"
        inner.mkdir(exist_ok=True)
        if one.steps is None:
            save_figures(results[one.files[0]], inner)
        else:
            layers = results[one.files[0]]
            save_trajectory(one.steps, {k: [results[f][k] for f in one.files] for k in layers}, inner)


def write_outputs(series: list[Series], results: dict, args: argparse.Namespace) -> None:
    """Writes beside the targets first and renames when all of it is there: nothing half written."""
    with ExitStack() as cleanup:
        renames = []

        def staged(target: str) -> Path:
            path = Path(target)
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            cleanup.callback(lambda: temporary.unlink(missing_ok=True))
            renames.append((temporary, path))
            return temporary

        if args.json not in (None, "-"):
            staged(args.json).write_text(strict_json(results), encoding="utf-8")
        if args.html:
            page = draw_page(series, results)
            staged(args.html).write_text(page, encoding="utf-8")
        if args.figures:
            target = Path(args.figures)
            parent = target.absolute().parent
            folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(dir=parent)))
            draw_figures(series, results, folder)
            drawn = [path for path in folder.rglob("*") if path.is_file()]
            renames += [(path, target / path.relative_to(folder)) for path in drawn]
        for temporary, path in renames:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary, path)


# The command line


class Parser(argparse.ArgumentParser):
    """argparse, with one line and no usage text for an error."""

    def error(self, message: str):
        raise UsageError(f"{message} (see python -m infojax.measure -h)")


def whole(least: int) -> Callable[[str], int]:
    """An argparse type: a whole number of at least `least`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from {least} on")
        return number

    return parse


def make_parser() -> Parser:
    """The flags of `python -m infojax.measure`."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        "python -m infojax.measure",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=raw,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="features, a folder of step files, or digits")
    add("--features", metavar="KEY", help="the array that holds the features")
    add("--layers", metavar="GLOB", help="measure all arrays with such names, one report each")
    for role in ("labels", "head", "bias"):
        add(f"--{role}", metavar="KEY|FILE", help="an array of FILE, a file, FILE:KEY, or none")
    add("--json", metavar="FILE", help="write the numbers; - is stdout, in place of the table")
    add("--html", metavar="FILE", help="write one self-contained page")
    add("--figures", metavar="DIR", help="write figures, and curves over steps for a folder")
    add("--ci", type=whole(20), metavar="N", help="95%% intervals from N resamples (200 is usual)")
    add("--chunk", type=whole(1), default=4096, metavar="N", help="rows read at once (4096)")
    add("--seed", type=whole(0), default=0, metavar="N", help="of the resamples (0)")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def run(args: argparse.Namespace) -> None:
    """Measures, prints and writes; raises what `main` turns into one line."""
    if args.features is not None and args.layers is not None:
        raise UsageError("--features and --layers exclude each other; pass one of them")
    series = [expand(argument) for argument in dict.fromkeys(args.files)]
    files = list(dict.fromkeys(file for one in series for file in one.files))
    check_outputs(series, args)
    check_inputs(series, args)
    results = {}
    with progress_bar(sys.stderr.isatty() and not args.quiet, len(files)) as start:
        for file in files:
            results[file] = measure_file(open_features(file, args), args, start(file))
    if args.json == "-":
        show(strict_json(results))
    else:
        show("\n\n".join(table(one, [results[file] for file in one.files]) for one in series))
    write_outputs(series, results, args)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code: 0, or 2 after one line on stderr."""
    try:
        run(make_parser().parse_args(argv))
    except (UsageError, FeatureFileError, OSError) as error:
        print(f"infojax.measure: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
