"""What a figure of runs is: a `Plan` of panels, each of which has lines."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from infojax.measures.catalogue import CATALOGUE


class Line(NamedTuple):
    """One curve of a panel; an empty `split` means that of the panel's column, or the train split (else the first).

    A quantity that ends in "@*" stands for a line per layer, coloured by depth; `layer` is filled in on drawing.
    """

    quantity: str
    label: str = ""
    split: str = ""
    dash: Any = "-"  # where colours distinguish runs, lines with the same dash get different ones
    layer: Any = None


class Panel(NamedTuple):
    """One axis; if `bottom` is given, y begins there, however low an interval reaches.

    `note` is the sentence of the caption that explains it, left out where the panel is.
    """

    title: str
    lines: tuple[Line, ...]
    log: bool = False
    bottom: float | None = None
    note: str = ""


class Plan(NamedTuple):
    """One figure.

    Attributes:
      title: its first line.
      caption: a sentence or two for the page.
      panels: one row per panel and one column per split; or, with `columns`, a grid with that many columns.
      columns: 0 for a column per split.
      x: "time" (epochs where known, else steps), "step", "swept" (the last evaluation against the swept
        hyper-parameter), or one of COORDINATES.
      task: the task whose runs it is for; "" for all.
      each_run: a column per run instead of per split, marking the steps where it memorised and generalised.
      limits: the legend's name for the dashed limits; "" draws none.
      compared: whether it is on the page of several runs, where lines of layers get a column per run.
      height: of a panel, in inches.
      seeds: the sentence of the caption about several seeds.
      swept: name of a swept hyper-parameter -> the sentence of the caption about it.
    """

    title: str
    caption: str
    panels: tuple[Panel, ...]
    columns: int = 0
    x: str = "time"
    task: str = ""
    each_run: bool = False
    limits: str = "limit at neural collapse"
    compared: bool = False
    height: float = 2.05
    seeds: str = ""
    swept: Mapping[str, str] = {}

    def caption_of(self, rows: Iterable[Mapping[str, Any]], several: bool = False, swept: str = "") -> str:
        """The caption, with what applies to the panels that were drawn, to several seeds, and to the swept parameter.

        The titles of the panels stand in the rows.
        """
        drawn = {row["panel"] for row in rows}
        notes = [panel.note for panel in self.panels if panel.title in drawn]
        parts = [self.caption, *notes, self.seeds * several, self.swept.get(swept, "")]
        return " ".join(filter(None, parts))


def lines(*quantities: str, **fields: Any) -> tuple[Line, ...]:
    """One line per quantity."""
    return tuple(Line(quantity, **fields) for quantity in quantities)


def splits(quantity: str) -> tuple[Line, ...]:
    """A quantity on train, and on test (dashed)."""
    return (Line(quantity, "train", "train"), Line(quantity, "test", "test", (0, (4, 1.5))))


def averaged(quantity: str) -> tuple[Line, ...]:
    """A quantity on the batches (pale), with the raw weights, and with their average."""
    average = Line(f"{quantity}_ema", "averaged weights (EMA)", dash=":")
    batch = "cross_entropy" if quantity == "loss" else quantity  # a batch loss includes terms that evaluation omits
    return (Line(batch, "batch", "batch"), Line(quantity, "raw weights"), average)


def titled(quantity: str) -> str:
    """The label of a quantity, capitalised."""
    label = CATALOGUE[quantity].label
    return label[0].upper() + label[1:]


ACCURACY = Panel("Accuracy", lines("accuracy"))
