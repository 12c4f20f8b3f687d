"""Reports of run folders, using only their rows: figures with a page, a comparison, a summary for the terminal.

The summary does not load matplotlib.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from infojax import outputs
from infojax.report.runs.rows import read_history
from infojax.report.runs.selection import selection_lines, several
from infojax.report.runs.tables import text_lines
from infojax.report.runs.verdict import verdict


def write_run(folder: str | Path) -> Path:
    """Draws FOLDER/figures/*.{svg,png,csv} and writes FOLDER/report.html; returns the page's path.

    Raises:
      RunFolderError: something is missing or damaged; the message is one line.
    """
    from infojax.report.runs.page import run_page

    history = read_history(folder)
    path = history.folder / "report.html"
    outputs.write(path, run_page(history, history.folder / "figures"))
    return path


def write_comparison(folders: Iterable[str | Path], out: str | Path) -> Path:
    """Draws OUT/figures/comparison_SPLIT.* and writes OUT/report.html; returns the page's path."""
    from infojax.report.runs.page import comparison_page

    histories, out = [read_history(folder) for folder in folders], Path(out)
    path = out / "report.html"
    outputs.write(path, comparison_page(histories, out / "figures"))
    return path


def write_table(name: str, folders: Iterable[str | Path], out: str | Path, select: str = "best") -> str:
    """Writes OUT/NAME.txt, .md, .csv, .json and .html, a paper's table next to the runs, and OUT/figures.

    Returns the text.
    """
    from infojax.report.page import document
    from infojax.report.runs import beside, by_class, error_rates, few_shot, published

    histories = [read_history(folder) for folder in folders]
    figures = Path(out) / "figures"
    drawn: list[str] = []
    if name in beside.STUDIES:
        found = beside.grids(name, histories)
    elif name == "crossmodal":
        found = few_shot.grids(histories)
        drawn = by_class.draw_figures(found[0], histories, figures)
    else:
        found = published.grids(name, histories, select)
        drawn = error_rates.draw_figures(found[0], histories, figures)
    shown = "\n".join(map(published.text, found))
    contents = {"txt": shown, "md": "\n".join(map(published.markdown, found)), "csv": published.rows_of(found)}
    contents["json"] = json.dumps(published.records(found), indent=1, ensure_ascii=False) + "\n"
    contents["html"] = document(f"Table: {name}", [*map(published.html, found), *drawn])
    for kind, content in contents.items():
        outputs.write(Path(out) / f"{name}.{kind}", content)
    return shown


def summary_lines(folder: str | Path) -> list[str]:
    """The last evaluation as a fixed-width table: mean ± half of the 95% interval over seeds, and limits."""
    history = read_history(folder)
    return [*text_lines(history), *(selection_lines(history) if several(history) else []), *verdict(history)]
