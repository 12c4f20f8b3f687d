"""`python -m infojax.bench NAME [--json FILE|-]`: prints a table, and writes the same rows as JSON lines to FILE."""

import argparse
import importlib
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from infojax import outputs
from infojax.commands import Once, Parser, UsageError, named, one_line, versions, whole

BENCHES = {
    "scale": "joint entropies of up to a million samples, streamed moments, bytes and work per device of a pod",
    "measures": "speed, memory and float32 error of the measures against the dense N x N route",
    "peers": "the measures compared with NumPy and PyTorch as people paste them: medians of alternating calls",
    "file": "measuring a 2,000,000 x 256 float32 .npy file in bounded memory",
    "models": "forward pass and training step of the classifiers, compared with PyTorch where it is installed",
    "train": "images/s of training, cost of the information terms and of measuring, seeds together and separately",
    "semisup": "steps/s of the semi-supervised methods and where a step's time goes, compared with PyTorch",
    "crossmodal": "CLIP's towers compared with transformers', a CoOp step at 100 and 1,000 classes: time and memory",
    "selfsup": "images/s of the self-supervised methods with their views, compared with PyTorch, and parts of a step",
    "layers": "tr(S_W S_B^+) of every layer of f+, and minimality of the layers of f-",
    "gpu": "a GPU in a few minutes: correctness, steps, measures, augmentation, compared with PyTorch",
    "images": "training from a folder of JPEGs that is not held in memory, compared with PyTorch's loader",
    "pods": "compiled training steps and evaluators of TPU pods: FLOPs, bytes moved, memory, estimated step time",
    "data": "drawing and augmenting a batch on the device, and reading ArrayRecord, compared with Pillow",
}


def machine() -> str:
    """One line about the machine that ran the benchmark."""
    import jax

    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as f:
            model = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), model)
    device = jax.devices()[0]
    return f"{device.platform} {device.device_kind}, {model}, {os.cpu_count()} cores, jax {jax.__version__}"


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of one kind as a fixed-width table; None and missing cells are blank."""
    keys = list(dict.fromkeys(key for row in rows for key in row))

    def text(value):
        return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)

    cells = [keys] + [[text(row.get(key)) for key in keys] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def minutes(text: str) -> float:
    """An argparse type: a positive number of minutes, up to a week."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 10_080:
        raise argparse.ArgumentTypeError(f"{text[:40]!r}: expected a positive number up to 10,080")
    return number


def make_parser() -> Parser:
    """The flags of `python -m infojax.bench`."""
    listing = "\n".join(f"  {name:12s}{text}" for name, text in BENCHES.items())
    parser = Parser(
        prog="python -m infojax.bench",
        description=f"Timings are the best of several calls after a warm-up.\n\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("name", choices=BENCHES)
    parser.add_argument("--version", action="version", version=versions())
    parser.add_argument(
        "--json", action=Once, type=named, metavar="FILE", help="also write the rows as JSON lines; - for stdout"
    )
    parser.add_argument("--quick", action="store_true", help="run only the smallest sizes")
    parser.add_argument("--minutes", type=minutes, metavar="MINUTES", help="gpu: time budget; 10 by default")
    parser.add_argument(
        "--out", action=Once, type=named, metavar="DIR",
        help="gpu: where rows are written as soon as they are known; . by default. images: where its pictures are kept",
    )  # fmt: skip
    parser.add_argument(
        "--only", metavar="TEXT",
        help='pods: only programs whose "name on pod" contains this text. images: reading or training. semisup and '
        "selfsup: the methods A+B",
    )  # fmt: skip
    parser.add_argument("--classes", type=whole(1), help="images: number of classes; 1000 by default")
    parser.add_argument("--images", type=whole(1), help="images: number of pictures; 20,000 by default")
    return parser


def run(args: argparse.Namespace) -> None:
    """Checks everything, then runs one benchmark, prints its tables and writes its rows."""
    own = {"minutes": ("gpu",), "out": ("gpu", "images"), "classes": ("images",), "images": ("images",)}
    own["only"] = ("pods", "images", "semisup", "selfsup")
    options = {key: value for key in own if (value := getattr(args, key)) is not None}
    for key in options:
        if args.name not in own[key]:
            raise UsageError(f"--{key} is for the bench {' and '.join(own[key])}, and {args.name} has none")
    if args.images is not None and args.images < (args.classes or 1000):
        raise UsageError(f"--images {args.images}: expected one for each of the {args.classes or 1000} classes or more")
    for flag, path, folder in (("--json", args.json, False), ("--out", args.out, True)):
        if path not in (None, "-") and (problem := outputs.refusal(path, folder=folder)):
            raise UsageError(f"{flag} {path}: {problem}")
    if args.json != "-":
        print(machine(), flush=True)
    rows: list[Mapping[str, Any]] = []
    try:
        for row in importlib.import_module(f"infojax.bench.{args.name}").run(quick=args.quick, **options):
            rows.append(row)
            keep(args, rows)
    finally:  # what is known is shown where the rest is cut off
        if args.json != "-":
            for kind in dict.fromkeys(row.get("kind") for row in rows):
                print_table([row for row in rows if row.get("kind") == kind])


def keep(args: argparse.Namespace, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the JSON lines known so far: a file holds them all, standard output gets the newest."""
    lines = [json.dumps({"bench": args.name, "machine": machine(), **row}) + "\n" for row in rows]
    if args.json == "-":
        print(lines[-1], end="", flush=True)
    elif args.json:
        outputs.write(args.json, "".join(lines))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one benchmark; exit code 0, or 2 for bad flags and outputs, told in one line."""
    return one_line("infojax.bench", lambda: run(make_parser().parse_args(argv)), ())


if __name__ == "__main__":
    sys.exit(main())
