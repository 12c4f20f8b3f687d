"""The figures next to a paper's table: lg(error) of every cell, and the curves of the runs behind the cells."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from infojax.report.figures.canvas import Drawn, new_figure, plain, save, styled
from infojax.report.figures.panels import COLOURS
from infojax.report.page import inline
from infojax.report.runs.curves import compared
from infojax.report.runs.figures import draw
from infojax.report.runs.plans import FIGURES
from infojax.report.runs.published import OURS, Cell, Grid
from infojax.report.runs.rows import RunHistory
from infojax.report.runs.selection import several
from infojax.report.runs.tables import labels_of

CAPTION = (
    "Song et al. 2024, Fig. 4: decimal logarithm of the error in %, by number of labels. Filled: these runs, with "
    "their standard deviation over seeds; open: the paper."
)


def draw_figures(grid: Grid, histories: Sequence[RunHistory], folder: Path) -> list[str]:
    """Draws error_rates.* and semisup_error.* into a folder, where there is data for them; returns their HTML."""
    runs = [history for history in histories if several(history)]
    plan, found = FIGURES["semisup_error"], {"error_rates": (draw_error_rates(grid), CAPTION)}
    if runs:
        methods = [m._replace(dash=None) for m in compared(runs, labels_of([history.folder for history in runs]))]
        found["semisup_error"] = draw(plan, methods, plan.title), plan.caption
    return [
        inline(save(folder, name, *drawn, prefix=name)[1], caption) for name, (drawn, caption) in found.items() if drawn
    ]


@styled
def draw_error_rates(grid: Grid) -> Drawn | None:
    """(figure, rows): a panel per data set, a line per method, a colour per number of labels.

    An error of zero has no logarithm and is left out of the figure; its row has NaN.
    """
    rows = [
        _row(method, data, labels, source, cell)
        for source, cells in grid.sources.items()
        for (method, (data, labels)), cell in cells.items()
    ]
    names = list(dict.fromkeys(row["data"] for row in rows))
    if not names:
        return None
    figure = new_figure("lg(error in %)", 2.6 + 2.6 * len(names), 1.6 + 0.24 * len(grid.rows))
    axes = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    height = {method: -place for place, method in enumerate(grid.rows)}
    for axis, name in zip(axes, names, strict=True):
        found = [row for row in rows if row["data"] == name]
        counts = sorted({row["labels"] for row in found}, key=lambda n: n or math.inf)
        for row in found:
            _mark(axis, row, height[row["method"]], COLOURS[counts.index(row["labels"]) % len(COLOURS)])
        handles = [Line2D([], [], color=COLOURS[i % len(COLOURS)], marker="o", ls="") for i in range(len(counts))]
        axis.legend(handles, [f"{n or 'all'} labels" for n in counts], loc="best")
        axis.set_title(plain(name, 30))
        axis.set_xlabel("lg(error in %)")
    axes[0].set_yticks(list(height.values()), [plain(str(method), 30) for method in height])
    return figure, rows


def _row(method: str, data: str, labels: int, source: str, cell: Cell) -> dict[str, Any]:
    """The numbers of one mark; the ends of its bar are the logarithms of mean ± deviation, NaN where undefined."""
    ends = [cell.mean + sign * (cell.std if cell.n != 1 else math.nan) for sign in (0, -1, 1)]
    lg = [math.log10(x) if x > 0 else math.nan for x in ends]
    row = {"data": data, "labels": labels, "method": method, "source": source, "error": cell.mean, "std": cell.std}
    return row | dict(zip(("lg_error", "low", "high"), lg, strict=True))


def _mark(axis: Any, row: dict[str, Any], y: float, colour: str) -> None:
    ours = row["source"] == OURS
    y += 0.15 if ours else -0.15
    axis.plot(row["lg_error"], y, "o", color=colour, markerfacecolor=colour if ours else "none", markersize=4.5)
    if np.isfinite(row["low"] + row["high"]):
        axis.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=1, alpha=0.6)
