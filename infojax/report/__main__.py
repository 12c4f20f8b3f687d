"""Draws run folders: `python -m infojax.report DIR [DIR ...]`, from their rows alone.

Writes DIR/report.html, self-contained, and DIR/figures; of several folders also a page that compares
them. Bad input ends in one line and code 2.
"""

import argparse
import os
import sys
from pathlib import Path

from infojax.report.rows import read_study
from infojax.report.runs import write_comparison, write_run
from infojax.train.runlog import RunFolderError


class UsageError(ValueError):
    """A command line that cannot be carried out; the message is one line."""


class Parser(argparse.ArgumentParser):
    """argparse, with one line and no usage text for an error."""

    def error(self, message: str):
        raise UsageError(f"{message} (see python -m infojax.report -h)")


def make_parser() -> Parser:
    """The flags of `python -m infojax.report`."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser("python -m infojax.report", description=__doc__, formatter_class=raw, allow_abbrev=False)
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folder of a run: config.json, metrics.jsonl")
    parser.add_argument("--out", metavar="DIR", help="where the comparison of several goes (./comparison)")
    return parser


def check_out(out: Path) -> None:
    """Raises UsageError where the comparison cannot be written, before the long work."""
    if (out / "metrics.jsonl").exists():
        raise UsageError(f"--out {out}: is the folder of a run, whose page would be overwritten")
    try:
        out.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written ({error.strerror})") from error
    if not os.access(out, os.W_OK):
        raise UsageError(f"--out {out}: no permission to write there")


def run(args: argparse.Namespace) -> None:
    """Checks everything, then writes and prints page by page."""
    folders = list({Path(folder).resolve(): Path(folder) for folder in args.folders}.values())
    if args.out is not None and len(folders) == 1:
        raise UsageError("--out is for the comparison of several folders; one folder's page goes into it")
    for folder in folders:
        read_study(folder)
    out = Path("comparison" if args.out is None else args.out)
    if len(folders) > 1:
        check_out(out)
    for folder in folders:
        print(write_run(folder))
    if len(folders) > 1:
        print(write_comparison(folders, out))


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code: 0, or 2 after one line on stderr."""
    try:
        run(make_parser().parse_args(argv))
    except (UsageError, RunFolderError, OSError) as error:
        print(f"infojax.report: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
