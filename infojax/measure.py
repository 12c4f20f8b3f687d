"""Measures saved features: `python -m infojax.measure FILE [FILE|DIR ...]`, no model, no training.

One file gives a table of measures; a folder of `step_*.npz` (or another kind) gives a row per step.
Rows are read in blocks, so a file may be larger than memory. Bad input ends in one line and code 2. With --distributed
this is one of several processes (`infojax.processes`), all started alike and seeing the same files: each reads a part
of the rows of every file and their moments are merged; process 0 prints and writes.
"""

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import jax

from infojax import processes
from infojax.analysis import InputError, analyze
from infojax.feature_arrays import FeatureFileError
from infojax.feature_sources import Opened, Series, check_inputs, expand, open_features

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


class UsageError(ValueError):
    """A command line that cannot be carried out; the message is one line."""


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
    common = {"ci": args.ci, "chunk": chunk, "seed": args.seed, "progress": progress, "distributed": args.distributed}
    common |= {"labels": opened.labels, "head": opened.head, "bias": opened.bias}
    try:
        if args.layers is None:
            return {"features": analyze(opened.layers["features"], name=opened.path, **common)}
        reports = analyze(opened.layers, **common)
        return {layer: reports[layer] for layer in opened.layers}
    except InputError as error:
        raise FeatureFileError(f"{opened.path}: {str(error).removeprefix(f'{opened.path}: ')}") from error


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


def titled(one: Series, layer: str) -> str:
    """A layer of an argument; the layer of a single array has no name of its own."""
    return one.argument if layer == "features" else f"{one.argument}: {layer}"


def table(one: Series, reports: list[dict]) -> str:
    """Plain text of at most 100 columns: a report, a row a layer, or a row a step."""
    from infojax.report.tables import render_layers, render_trajectory

    if one.steps is not None:
        blocks = []
        for layer in reports[0]:
            rows = render_trajectory(one.steps, [report[layer] for report in reports])
            blocks.append(f"{titled(one, layer)}\n{rows}")
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

    curves, steps = {}, None
    for one in (one for one in series if one.steps is not None):
        steps = one.steps
        for layer in results[one.files[0]]:
            label = titled(one, layer) if layer == "features" or len(series) > 1 else layer
            curves[label] = [results[file][layer] for file in one.files]
    last = {one.files[-1]: results[one.files[-1]] for one in series}
    title = ", ".join(one.argument for one in series)
    return html_page(last, title, trajectory=(steps, curves) if curves else None)


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
        "python -m infojax.measure", description=__doc__, epilog=EXAMPLES, formatter_class=raw, allow_abbrev=False
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
    processes.add_flags(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Measures, prints and writes; raises what `main` turns into one line."""
    if args.features is not None and args.layers is not None:
        raise UsageError("--features and --layers exclude each other; pass one of them")
    first = not args.distributed or jax.process_index() == 0
    flags = {name: getattr(args, name) for name in ("features", "layers", "labels", "head", "bias")}
    with processes.together():
        series = [expand(argument) for argument in dict.fromkeys(args.files)]
        files = list(dict.fromkeys(file for one in series for file in one.files))
        if first:
            check_outputs(series, args)
        check_inputs(series, **flags)
    processes.same(files=files)
    results = {}
    with progress_bar(first and sys.stderr.isatty() and not args.quiet, len(files)) as start:
        for file in files:
            with processes.together():
                opened = open_features(file, **flags)
            processes.same(**{str(layer): list(rows.shape) for layer, rows in opened.layers.items()})
            results[file] = measure_file(opened, args, start(file))
    if not first:
        return
    if args.json == "-":
        show(strict_json(results))
    else:
        show("\n\n".join(table(one, [results[file] for file in one.files]) for one in series))
    write_outputs(series, results, args)


def one_line(work: Callable) -> int:
    """The exit code of work(); 2 for bad input, after one line on stderr."""
    try:
        return work() or 0
    except (UsageError, FeatureFileError, processes.ProcessError, OSError) as error:
        print(f"infojax.measure: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code: 0, or 2 after one line on stderr."""

    def command():
        args = make_parser().parse_args(argv)
        return processes.run(lambda: one_line(lambda: run(args)), args, "infojax.measure")

    return one_line(command)


if __name__ == "__main__":
    sys.exit(main())
