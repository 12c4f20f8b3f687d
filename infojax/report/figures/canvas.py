"""The style, canvas and output files that all figures share.

Nothing in this module touches pyplot, so no display, backend or global figure is involved.
"""

import csv
import functools
import io
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from infojax import outputs
from infojax.report.tables.content import one_line

P = ParamSpec("P")
R = TypeVar("R")

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


Drawn = tuple[Drawing, list[dict[str, Any]]]  # a figure, and the rows of numbers it shows


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Decorator: draws in infojax's style and leaves the caller's rcParams unchanged."""

    @functools.wraps(draw)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # letters missing from the font are drawn as boxes
            return draw(*args, **kwargs)

    return call


def plain(text: str, most: int = 90) -> str:
    """A name for matplotlib: on one line, cut at the front to `most` characters, with mathtext switched off."""
    text = one_line(text)
    return (text if len(text) <= most else "…" + text[1 - most :]).replace("$", r"\$")


def broken(line: str, most: int) -> str:
    """A line of text as lines of about the same length, of at most `most` letters each; 13 fit an inch at 10 points."""
    number = math.ceil(len(line) / most)
    if number < 2:
        return line
    whole = line.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    return textwrap.fill(whole, min(most, len(line) // number + 12))


def new_figure(title: str, width: float, height: float) -> Drawing:
    """An empty figure with a title; width and height in inches."""
    figure = Drawing(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("\n".join(broken(line, int(13 * width)) for line in title.split("\n")), fontsize=10)
    return figure


@styled
def png_bytes(figure: Figure) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    return file.getvalue()


@styled
def svg_text(figure: Figure, prefix: str = "figure") -> str:
    """The figure as SVG; every id starts with `prefix`, so that one page can hold several figures."""
    file = io.StringIO()
    nothing = dict.fromkeys(["Creator", "Date", "Format", "Type"])
    with matplotlib.rc_context({"svg.hashsalt": prefix, "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata=nothing)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", file.getvalue())


def save(
    directory: str | Path, stem: str, figure: Figure, rows: Sequence[Mapping[str, Any]], prefix: str = "figure"
) -> tuple[list[Path], str]:
    """Writes STEM.svg, .png and .csv; returns their paths and the SVG, whose ids start with `prefix`."""
    text = svg_text(figure, prefix)
    figure.set_layout_engine("none")  # keeps the layout just computed, which is half of the drawing time
    table = io.StringIO()
    writer = csv.DictWriter(table, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    paths = [Path(directory) / f"{stem}.{kind}" for kind in ("svg", "png", "csv")]
    contents: list[str | bytes] = [text, png_bytes(figure), table.getvalue()]
    with outputs.at_once() as add:
        for path, content in zip(paths, contents, strict=True):
            add(path, content)
    return paths, text
