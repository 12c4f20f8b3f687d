"""Draws run folders: `python -m infojax.report DIR [DIR ...]`, from their rows alone.

Writes DIR/report.html, self-contained, and DIR/figures; of several folders also a page that compares
them. With --table NAME it writes that table of a paper beside the runs, as text, Markdown, CSV and HTML, into
./tables or --out. Lines of a folder that are damaged are left out and counted. Bad input ends in one line and code
2, Ctrl-C in 130.
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
        "folders", nargs="+", type=named, metavar="DIR", help="folder of a run: config.json, metrics.jsonl"
    )
    parser.add_argument("--version", action="version", version=versions())
    parser.add_argument(
        "--out", action=Once, type=named, metavar="DIR", help="where the comparison of several goes (./comparison)"
    )
    parser.add_argument(
        "--table",
        action=Once,
        choices=TABLES,
        help="a paper's table beside these runs instead of their pages, in --out",
    )
    parser.add_argument(
        "--select", action=Once, choices=SELECTIONS, help="of the table: which evaluation counts (best)"
    )
    return parser


def check_out(out: Path, folder: Path | None = None) -> None:
    """Raises UsageError where a page and its figures cannot be written, before the long work."""
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
        raise UsageError("--select is for --table, which says which evaluation counts")
    if args.table == "crossmodal" and args.select is not None:
        raise UsageError("--select is not for the table crossmodal, whose prompts are measured at their last step")
    if args.table is not None:
        out = Path("tables" if args.out is None else args.out)
        if problem := outputs.refusal(out, folder=True):
            raise UsageError(f"--out {out}: {problem}")
        show(write_table(args.table, folders, out, args.select or "best"))
        show(str(out))
        return
    if args.out is not None and len(folders) == 1:
        same = ", and the same folder was given twice" if len(args.folders) > 1 else ""
        raise UsageError(f"--out is for the comparison of several folders; one folder's page goes into it{same}")
    notes = [note for folder in folders for note in read_history(folder).notes]
    for folder in folders:
        check_out(folder, folder)
    out = Path("comparison" if args.out is None else args.out)
    if len(folders) > 1:
        check_out(out)
    for note in notes:
        say(NAME, note)
    if len(folders) < len(args.folders):
        say(NAME, f"{len(args.folders)} folders are given, {len(folders)} of which differ; each is drawn once")
    for folder in folders:
        show(str(write_run(folder)))
    if len(folders) > 1:
        show(str(write_comparison(folders, out)))


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    return one_line(NAME, lambda: run(make_parser().parse_args(argv)), (RunFolderError,))


if __name__ == "__main__":
    if not sys.warnoptions:  # of libraries, about what the page shows
        warnings.simplefilter("ignore")
    sys.exit(main())
