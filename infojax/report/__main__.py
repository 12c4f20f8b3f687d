"""Draws run folders: `python -m infojax.report DIR [DIR ...]`, using only their rows.

Writes DIR/report.html, which is self-contained, and DIR/figures; given several folders, also a page that compares
them. With --table NAME it writes that table of a paper next to the runs, as text, Markdown, CSV, JSON and HTML,
into ./tables or --out. Damaged lines are skipped and counted. Bad input prints one line and exits with code 2, Ctrl-C
with 130.
"""

import argparse
import sys
import warnings
from pathlib import Path

from infojax import outputs
from infojax.commands import Once, Parser, UsageError, named, one_line, say, show, versions
from infojax.report.runs import write_comparison, write_run, write_table
from infojax.report.runs.published import TABLES
from infojax.report.runs.rows import read_history
from infojax.report.runs.selection import SELECTIONS
from infojax.train.runlog import RunFolderError

NAME = "infojax.report"


def make_parser() -> Parser:
    """The flags of `python -m infojax.report`."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser("python -m infojax.report", description=__doc__, formatter_class=raw, allow_abbrev=False)
    parser.add_argument(
        "folders", nargs="+", type=named, metavar="DIR", help="run folder with config.json and metrics.jsonl"
    )
    parser.add_argument("--version", action="version", version=versions())
    parser.add_argument(
        "--out", action=Once, type=named, metavar="DIR", help="where to write the comparison (default ./comparison)"
    )
    parser.add_argument(
        "--table",
        action=Once,
        choices=TABLES,
        help="write a paper's table next to these runs, into --out, instead of their pages",
    )
    parser.add_argument(
        "--select", action=Once, choices=SELECTIONS, help="with --table: which evaluation to report (default best)"
    )
    return parser


def check_out(out: Path, folder: Path | None = None) -> None:
    """Raises UsageError if a page and its figures cannot be written, before the long work."""
    if folder is None and (out / "metrics.jsonl").exists():
        raise UsageError(f"--out {out}: is the folder of a run, whose page would be overwritten")
    where = f"--out {out}" if folder is None else f"{folder}"
    if problem := outputs.refusal(out, folder=True):
        raise UsageError(f"{where}: {problem}")
    for name in ("report.html", "figures"):
        if out.exists() and (problem := outputs.refusal(out / name, folder=name == "figures")):
            raise UsageError(f"{where}: {name}: {problem}")


def run(args: argparse.Namespace) -> None:
    """Checks everything, then writes and prints page by page."""
    folders = list({Path(folder).resolve(): Path(folder) for folder in args.folders}.values())
    if args.select is not None and args.table is None:
        raise UsageError("--select needs --table: it chooses the evaluation that the table reports")
    if args.table not in (None, "semisup") and args.select is not None:
        raise UsageError(f"--select does not apply to --table {args.table}: it reports the last evaluation")
    if args.table is not None:
        out = Path("tables" if args.out is None else args.out)
        if problem := outputs.refusal(out, folder=True):
            raise UsageError(f"--out {out}: {problem}")
        show(write_table(args.table, folders, out, args.select or "best"))
        show(str(out))
        return
    if args.out is not None and len(folders) == 1:
        same = ", and the same folder was given twice" if len(args.folders) > 1 else ""
        raise UsageError(f"--out is for comparing several folders; the page of a single folder goes into it{same}")
    notes = [note for folder in folders for note in read_history(folder).notes]
    for folder in folders:
        check_out(folder, folder)
    out = Path("comparison" if args.out is None else args.out)
    if len(folders) > 1:
        check_out(out)
    for note in notes:
        say(NAME, note)
    if len(folders) < len(args.folders):
        say(NAME, f"{len(args.folders)} folders given, {len(folders)} of them distinct; each is drawn once")
    for folder in folders:
        show(str(write_run(folder)))
    if len(folders) > 1:
        show(str(write_comparison(folders, out)))


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    return one_line(NAME, lambda: run(make_parser().parse_args(argv)), (RunFolderError,))


if __name__ == "__main__":
    if not sys.warnoptions:  # library warnings: the page shows what they are about
        warnings.simplefilter("ignore")
    sys.exit(main())
