"""Measures saved features: `python -m infojax.measure FILE [FILE|DIR ...]`, no model, no training.

One file gives a table of measures with a summary in words, or a row per layer if it has several; several files give
one table, side by side with differences; a folder of `step_*.npz` (or another kind) gives a row per step; other
folders, and globs in quotes, count as one file if their files belong together. With --weights the weight matrices of
a checkpoint are measured: their spectra, effective and stable ranks. Rows are read in blocks, so a file may be larger
than memory. With --distributed this is one of several processes (`infojax.processes`), all started alike and seeing the
same files: each reads a part of the rows of every file and their moments are merged; process 0 prints and writes. Exit
codes: 0 done; 2 bad input, or an output that cannot be written, explained in one line; 130 interrupted by Ctrl-C.
"""

import argparse
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from infojax import processes
from infojax.analysis import MOST_EMPTY_CLASSES, InputError, Report, analyze
from infojax.analysis.inputs import labelled_rows
from infojax.analysis.prompts import with_prompts
from infojax.analysis.rows import KeptRows
from infojax.analysis.sums import DIRECT_ROWS
from infojax.analysis.weights import weight_report
from infojax.commands import (
    NO_CACHE,
    Once,
    Parser,
    UsageError,
    keep_programs,
    named,
    one_line,
    say,
    show,
    versions,
    whole,
)
from infojax.features.arrays import Opened, check_inputs, open_features
from infojax.features.axes import MEANS, axes
from infojax.features.folders import Argument, expand
from infojax.features.sources import FeatureFileError, check_fits
from infojax.features.weights import open_weights
from infojax.measure.results import arrays_line, check_outputs, strict_json, tables, write_outputs

NAME = "infojax.measure"
EXAMPLES = """examples:
  python -m infojax.measure digits                         the bundled digits: features and labels
  python -m infojax.measure features.npz                   arrays found by name: features, labels, head, bias
  python -m infojax.measure z.npy --labels y.npy           arrays in separate files
  python -m infojax.measure f.npz --head model.safetensors:fc.weight --bias none
  python -m infojax.measure f.npz --layers 'layer*'        several arrays, one report each
  python -m infojax.measure h.npy --axes 'l b t d'         hidden states: layers, prompts, tokens, columns
  python -m infojax.measure 'out/*.safetensors'            hidden states as vLLM writes them, a file per prompt
  python -m infojax.measure model.safetensors --weights    spectra and ranks of the weight matrices
  python -m infojax.measure run/features --html run.html   a folder of step_*.npz: curves over steps
  python -m infojax.measure f.npz --ci 200 --json - | jq   intervals; only the JSON on stdout

names found without a flag, in any case:
  features, feats, embeddings, z, x, h, hidden_states, last_hidden_state;  labels, y, targets;  head, weight, w;
  bias, b;  attention_mask, lengths
and if these are missing: feature, embedding, representations;  label, target, class, y_true;
  fc.weight, classifier.weight, head.weight, lm_head.weight, linear.weight, and their .bias, also after the name
  of a network, as in module.fc.weight
"""


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


def check_memory(opened: Opened, chunk: int, exact: int) -> None:
    """Raises FeatureFileError if `analyze` needs more memory than is free.

    It needs at least, in float64, up to `exact` rows and a block of them, the class means, and a few matrices over
    pairs of classes.
    """
    classes = 1
    if opened.head is not None:
        classes = len(opened.head)
    elif opened.labels is not None:  # `analyze` rejects more
        found = np.unique(opened.labels)
        classes = len(found) if found.dtype.kind in "US" else int(found[-1]) + 1
        classes = min(classes, max(2 * len(found), MOST_EMPTY_CLASSES))
    fewer = "save fewer columns, pooled or projected", "measure some of the classes: their rows, and of the head theirs"
    for rows in opened.layers.values():
        n, dim = rows.shape if opened.kept is None else (len(opened.kept), rows.shape[1])
        needs = 16 * dim * (min(n, exact) + min(n, chunk)), 24 * classes * (classes + dim)
        size, fix = max(zip(needs, fewer, strict=True))
        check_fits(f"{opened.path}: {opened.used}: measuring it", size, fix)


def measure_file(
    opened: Opened, args: argparse.Namespace, progress: Callable[[int, int, str], Any] | None = None
) -> dict[str, Report]:
    """{layer: Report} of one file; a single array is the layer `features`.

    Raises:
      FeatureFileError: `infojax.analyze` rejects the input (the message is prefixed with the file's name), or there is
        too little memory.
    """
    # Wide rows come in smaller blocks; `analyze` pads each block to `chunk`, so it gets the true size.
    chunk = min(rows.block_rows(args.chunk) for rows in opened.layers.values())
    with processes.together():
        check_memory(opened, chunk, args.exact or DIRECT_ROWS)
    common = {"ci": args.ci, "chunk": chunk, "seed": args.seed, "progress": progress, "distributed": args.distributed}
    common |= {"labels": opened.labels, "head": opened.head, "bias": opened.bias, "ignore_index": args.ignore_index}
    layers = {k: rows if opened.kept is None else KeptRows(rows, opened.kept) for k, rows in opened.layers.items()}
    common["exact"] = args.exact
    try:
        if list(layers) == ["features"]:
            reports = {"features": analyze(layers["features"], name=opened.path, **common)}
        else:
            reports = analyze(layers, **common)
    except InputError as error:
        raise FeatureFileError(f"{opened.path}: {str(error).removeprefix(f'{opened.path}: ')}") from error
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        fix = "lower --chunk, or measure fewer columns or classes"
        raise FeatureFileError(f"{opened.path}: out of memory measuring {opened.used}; {fix}") from error
    unused = [f"arrays that were not used: {opened.unused}"] if opened.unused else []
    if opened.prompts is not None:
        prompts = opened.prompts
        if opened.labels is not None:  # the rows that `analyze` measured
            counted = labelled_rows(opened.labels, len(prompts), args.ignore_index)[1]
            layers, prompts = {name: KeptRows(rows, counted) for name, rows in layers.items()}, prompts[counted]
        reports = {name: with_prompts(report, layers[name], prompts, chunk) for name, report in reports.items()}
    return {layer: replace(reports[layer], warnings=(*reports[layer].warnings, *unused)) for layer in opened.layers}


def measure_weights(path: str, args: argparse.Namespace, progress: Callable | None) -> tuple[dict[str, Report], str]:
    """{name: Report} of the weight matrices of one file, folder or glob, and a description of them."""
    weights, notes = open_weights(path)
    reports = {}
    for done, (name, (shape, tall)) in enumerate(weights.items()):
        if progress is not None:
            progress(done, len(weights), name)
        check_fits(f"{path}: {name}: measuring it", 16 * tall.shape[1] ** 2, "measure a smaller matrix")
        reports[name] = weight_report(name, shape, tall, tall.block_rows(args.chunk))
    return reports, notes


# The command line


def label(text: str) -> int | str:
    """An argparse type: a number or, where labels are names, a name."""
    return int(text) if text.removeprefix("-").isdecimal() else text


def make_parser() -> Parser:
    """The flags of `python -m infojax.measure`."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        "python -m infojax.measure", description=__doc__, epilog=EXAMPLES, formatter_class=raw, allow_abbrev=False
    )
    add = partial(parser.add_argument, action=Once)
    parser.add_argument(
        "files", nargs="+", type=named, metavar="FILE", help="features, a folder of step files, or digits"
    )
    add("--features", type=named, metavar="KEY", help="the array that holds the features")
    add("--layers", type=named, metavar="GLOB", help="measure all arrays with such names, one report each")
    for role in ("labels", "head", "bias", "mask"):
        add(f"--{role}", type=named, metavar="KEY|FILE", help="an array of FILE, a file, FILE:KEY, or none")
    add(
        "--axes",
        type=axes,
        metavar="AXES",
        help=f"one letter per axis of the features: {MEANS}",
    )
    parser.add_argument("--parts", action="store_true", help="files of a folder or glob are parts of one set of rows")
    parser.add_argument("--weights", action="store_true", help="measure the weight matrices of checkpoints")
    add("--json", type=named, metavar="FILE", help="write the numbers; - is stdout, in place of the table")
    add("--html", type=named, metavar="FILE", help="write one self-contained page")
    add("--figures", type=named, metavar="DIR", help="write figures, and curves over steps for a folder")
    add("--ci", type=whole(20), metavar="N", help="95%% intervals from N resamples (200 is usual)")
    add("--chunk", type=whole(1), default=4096, metavar="N", help="rows read at once (4096)")
    add("--exact", type=whole(1), metavar="N", help="rows held at once, up to which nothing is estimated (4096)")
    add("--seed", type=whole(0, 2**32 - 1), default=0, metavar="N", help="of the resamples (0)")
    add("--ignore-index", type=label, metavar="LABEL", help="leave out rows of this label, as those of negative ones")
    parser.add_argument("--version", action="version", version=versions())
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument(*NO_CACHE[:1], action="store_true", help="keep no compiled programs in the user's cache folder")
    processes.add_flags(parser)
    return parser


OF_FEATURES = ("features", "layers", "labels", "head", "bias", "mask", "axes", "parts")  # flags of `open_features`


def check_flags(args: argparse.Namespace) -> None:
    """Raises UsageError for flags that exclude each other."""
    if args.features is not None and args.layers is not None:
        raise UsageError("--features and --layers exclude each other; pass one of them")
    others = [name for name in (*OF_FEATURES, "ci", "ignore_index", "distributed") if getattr(args, name)]
    if args.weights and others:
        raise UsageError(f"--weights measures every weight matrix; --{others[0].replace('_', '-')} is of features")


def measure_all(files: list[str], args: argparse.Namespace, start: Callable) -> tuple[dict, dict[str, str]]:
    """{file: {layer: Report}}, and {file: which arrays were read}."""
    flags = {name: getattr(args, name) for name in OF_FEATURES}
    results, used = {}, {}
    for file in files:
        if args.weights:
            results[file], used[file] = measure_weights(file, args, start(file))
            continue
        with processes.together():
            opened = open_features(file, **flags)
        processes.same(**{str(layer): list(rows.shape) for layer, rows in opened.layers.items()})
        results[file], used[file] = measure_file(opened, args, start(file)), opened.used
    return results, used


def run(args: argparse.Namespace) -> None:
    """Measures, prints and writes; `main` turns errors into one line."""
    check_flags(args)
    first = not args.distributed or jax.process_index() == 0
    with processes.together():
        names = list(dict.fromkeys(args.files))
        arguments = [Argument(name, None, [name]) if args.weights else expand(name) for name in names]
        files = list(dict.fromkeys(file for argument in arguments for file in argument.files))
        if first:
            check_outputs(arguments, args)
        if not args.weights:
            check_inputs(arguments, **{name: getattr(args, name) for name in OF_FEATURES})
    processes.same(files=files)
    terminal = sys.stderr is not None and sys.stderr.isatty()
    with progress_bar(first and terminal and not args.quiet, len(files)) as start:
        results, used = measure_all(files, args, start)
    if not first:
        return
    for name in names:
        if (times := args.files.count(name)) > 1:
            say(NAME, f"{name} is given {times} times, and measured once")
    lines = [arrays_line(argument, used) for argument in arguments]
    if args.json == "-":
        for line in lines:
            say(NAME, line)
        show(strict_json(results))
    else:
        width = min(max(shutil.get_terminal_size((100, 24)).columns, 20), 100)
        wrapped = [textwrap.fill(line, width, subsequent_indent="  ", break_on_hyphens=False) for line in lines]
        parts = tables(arguments, results, width)
        both = zip(parts, wrapped, strict=True) if len(parts) == len(wrapped) else [(*parts, *wrapped)]
        show("\n\n".join(part for pair in both for part in pair))
    write_outputs(arguments, results, args)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    errors = (FeatureFileError, processes.ProcessError)

    def command():
        args = make_parser().parse_args(keep_programs(NAME, sys.argv[1:] if argv is None else argv))
        return processes.run(lambda: one_line(NAME, lambda: run(args), errors), args, NAME)

    return one_line(NAME, command, errors)
