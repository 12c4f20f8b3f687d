"""The outputs of `python -m infojax.measure`: tables, JSON, a page and figures, all written or none."""

import argparse
import json
import math
import sys
import tempfile
import textwrap
from pathlib import Path

from infojax import outputs
from infojax.analysis import Report
from infojax.commands import UsageError, printable
from infojax.features.folders import Argument, same_name


def strict_json(results: dict) -> str:
    """`{file: {layer: {measures, conventions, warnings}}}`; a value that is not finite is null.

    The warnings give the reason of each null.
    """

    def entry(report: Report) -> dict:
        measures, notes = {}, [str(warning) for warning in report.warnings]
        for name, value in report.measures.items():
            value = float(value)
            measures[name] = value if math.isfinite(value) else None
            if measures[name] is None:
                notes.append(f"{name} is {value}: {report.reasons.get(name, 'no finite value')}")
        return {"measures": measures, "conventions": dict(report.conventions), "warnings": notes}

    table = {f: {name: entry(r) for name, r in layers.items()} for f, layers in results.items()}
    return json.dumps(table, indent=2, allow_nan=False) + "\n"


def titled(argument: Argument, layer: str) -> str:
    """The title of a layer of an argument: just the argument's name if it is a single array."""
    return printable(argument.name if layer == "features" else f"{argument.name}: {layer}")


def table(argument: Argument, reports: list[dict], width: int) -> str:
    """Plain text of at most `width` columns: a report, a row per layer, or a row per step."""
    from infojax.report.tables import in_words, render_layers, render_trajectory

    if argument.steps is not None:
        blocks = []
        for layer in reports[0]:
            rows = render_trajectory(argument.steps, [report[layer] for report in reports], width)
            blocks.append(f"{titled(argument, layer)}\n{rows}")
        return "\n\n".join(blocks)
    [layers] = reports
    if list(layers) == ["features"]:
        words = "\n".join(textwrap.fill(line, width) for line in in_words(layers["features"]))
        return f"{words}\n\n{layers['features'].table(width=width)}" if words else layers["features"].table(width=width)
    return f"{printable(argument.name)}\n{render_layers(layers, width)}"


def tables(arguments: list[Argument], results: dict, width: int) -> list[str]:
    """The table of each argument, or for several files one table per layer, side by side."""
    from infojax.report.tables import render_side_by_side

    if len(arguments) == 1 or any(argument.steps is not None for argument in arguments):
        return [table(argument, [results[file] for file in argument.files], width) for argument in arguments]
    of_layer: dict[str, dict[str, Report]] = {}
    for argument in arguments:
        for layer, report in results[argument.files[0]].items():
            of_layer.setdefault(layer, {})[argument.name] = report
    alone = list(of_layer) == ["features"]
    return [
        ("" if alone else f"{printable(layer)}\n") + render_side_by_side(reports, width)
        for layer, reports in of_layer.items()
    ]


def arrays_line(argument: Argument, used: dict[str, str]) -> str:
    """What was read of an argument, in one line; files of a folder are listed separately if their arrays differ."""
    alike: dict[str, list[str]] = {}
    for file in argument.files:
        alike.setdefault(used[file], []).append(file)
    parts = [f"{text} ({len(files)} files from {files[0]} on)" for text, files in alike.items()]
    left_out = f"; not read: {', '.join(argument.left_out)}" if argument.left_out else ""
    return printable(f"{argument.name}: read {'; '.join(alike if argument.steps is None else parts)}{left_out}")


def check_outputs(arguments: list[Argument], args: argparse.Namespace) -> None:
    """Raises UsageError if an output cannot be written, before the long work."""
    inputs = [file for argument in arguments for file in argument.files]
    for key in filter(None, (args.labels, args.head, args.bias, args.mask)):
        inputs += [key, key.rpartition(":")[0]]
    if args.html and len({tuple(argument.steps) for argument in arguments if argument.steps is not None}) > 1:
        raise UsageError("--html: the folders have different steps; write a page for each")
    targets = {"--json": args.json, "--html": args.html, "--figures": args.figures}
    targets = {flag: to for flag, to in targets.items() if to is not None and (flag, to) != ("--json", "-")}
    if sys.stdout is None and not targets:
        raise UsageError("stdout is closed, and none of --json, --html and --figures is given")
    for number, (flag, target) in enumerate(targets.items()):
        if target == "-":
            raise UsageError(f"{flag} -: only --json goes to stdout; pass a name")
        for other in list(targets)[:number]:
            if outputs.same_file(target, targets[other]):
                raise UsageError(f"{other} and {flag} both name {target}; pass two paths")
        if problem := outputs.refusal(target, folder=flag == "--figures"):
            raise UsageError(f"{flag} {target}: {problem}")
        if any(same_name(name, target) for name in inputs):
            raise UsageError(f"{flag} {target}: is also an input, and would be overwritten")
        if outputs.is_stdout(target):
            raise UsageError(
                f"{flag} {target}: is also where the table goes; pass --json - for numbers alone on stdout"
            )


def draw_page(arguments: list[Argument], results: dict) -> str:
    """The HTML page: all reports of files, and the last step and the curves of folders."""
    from infojax.report.page import html_page

    curves, steps = {}, None
    for argument in (argument for argument in arguments if argument.steps is not None):
        steps = argument.steps
        for layer in results[argument.files[0]]:
            label = titled(argument, layer) if layer == "features" or len(arguments) > 1 else layer
            curves[label] = [results[file][layer] for file in argument.files]
    last = {argument.files[-1]: results[argument.files[-1]] for argument in arguments}
    title = ", ".join(argument.name for argument in arguments)
    return html_page(last, title, trajectory=(steps, curves) if curves and steps is not None else None)


def draw_figures(arguments: list[Argument], results: dict, folder: Path) -> None:
    """Draws the figures of every argument; several arguments get a folder each."""
    from infojax.report.figures import save_figures, save_trajectory

    for number, argument in enumerate(arguments, start=1):
        inner = folder if len(arguments) == 1 else folder / f"{number}_{Path(argument.name).stem}"
        inner.mkdir(exist_ok=True)
        if argument.steps is None:
            save_figures(results[argument.files[0]], inner)
        else:
            layers = results[argument.files[0]]
            save_trajectory(argument.steps, {k: [results[f][k] for f in argument.files] for k in layers}, inner)


def write_outputs(arguments: list[Argument], results: dict, args: argparse.Namespace) -> None:
    """Writes the requested outputs, all of them or none."""
    with outputs.at_once() as add:
        if args.json not in (None, "-"):
            add(args.json, strict_json(results))
        if args.html:
            add(args.html, draw_page(arguments, results))
        if args.figures:
            target = Path(args.figures).absolute()
            beside = target if target.exists() else target.parent
            with tempfile.TemporaryDirectory(prefix=".infojax.", dir=beside) as drawn:
                draw_figures(arguments, results, Path(drawn))
                for path in sorted(path for path in Path(drawn).rglob("*") if path.is_file()):
                    add(target / path.relative_to(drawn), path.read_bytes())
