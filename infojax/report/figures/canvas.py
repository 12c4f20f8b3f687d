"""What every figure shares: its style, its canvas, and its files.

Nothing here touches pyplot, so no display, backend or global figure is involved.
"""

import csv
import functools
import io
import re
import warnings
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from infojax import outputs
from infojax.report.tables.content import one_line

STYLE = {
    "font.size": 9,
    "font.family": ["DejaVu Sans"],  # ships with matplotlib: the same picture on every machine
    "text.usetex": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "legend.fontsize": 8,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.7,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


class Drawing(Figure):
    """A Figure that a notebook shows even where pyplot was never imported."""

    def _repr_png_(self) -> bytes:
        return png_bytes(self)


def styled(draw):
    """Draws in our style and leaves the caller's rcParams as they were."""

    @functools.wraps(draw)
    def call(*args, **kwargs):
        with matplotlib.rc_context(STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # of a name: its letters are drawn as boxes
            return draw(*args, **kwargs)

    return call


def plain(text, most=90) -> str:
    """A name as matplotlib shall show it: one line, its end if too long, and no mathematics."""
    text = one_line(text)
    return (text if len(text) <= most else "…" + text[1 - most :]).replace("$", r"\$")


def new_figure(title, width, height):
    """An empty figure of so many inches under a title."""
    figure = Drawing(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    return figure


@styled
def png_bytes(figure) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    return file.getvalue()


@styled
def svg_text(figure, prefix="figure") -> str:
    """The figure as SVG, every id under `prefix` so that several can stand in one page."""
    file = io.StringIO()
    nothing = dict.fromkeys(["Creator", "Date", "Format", "Type"])
    with matplotlib.rc_context({"svg.hashsalt": prefix, "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata=nothing)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", file.getvalue())


def save(directory, stem, figure, rows, prefix="figure") -> tuple[list[Path], str]:
    """Writes STEM.svg, .png and .csv; returns their paths and the SVG, with ids under `prefix`."""
    text = svg_text(figure, prefix)
    figure.set_layout_engine("none")  # keeps the layout just made, half of the time of drawing
    table = io.StringIO()
    writer = csv.DictWriter(table, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    paths = [Path(directory) / f"{stem}.{kind}" for kind in ("svg", "png", "csv")]
    with outputs.at_once() as add:
        for path, content in zip(paths, (text, png_bytes(figure), table.getvalue()), strict=True):
            add(path, content)
    return paths, text
