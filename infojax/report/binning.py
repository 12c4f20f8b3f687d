"""Why usable information is measured and not that of binned units: an illustration that needs no rows."""

import numpy as np

from infojax.report.canvas import new_figure, styled
from infojax.report.panels import COLOURS

BINNING = (
    "Cheong 2025, Fig. 1.2: the borders of 30 equal bins, by which Shwartz-Ziv and Tishby (2017) measured the mutual "
    "information of tanh units. Where a unit is saturated (|x| > 1.68) it stands in one of the two outer bins and is "
    "counted as one bit, whatever it tells: what looks like compression is saturation (Saxe et al. 2019). infojax "
    "measures V-information instead, which needs no bins."
)


@styled
def draw_binning(bins=30, title="Binning of a saturating unit"):
    """(figure, rows) of tanh, the identity, and the borders of equal bins of [-1, 1]."""
    figure = new_figure(title, 5.2, 3.8)
    axis = figure.subplots()
    borders, x = np.linspace(-1, 1, bins + 1), np.linspace(-4, 4, 161)
    axis.hlines(borders, -4, 4, color="#aaaaaa", linewidth=0.6, zorder=1.2)
    axis.plot(x, np.tanh(x), color=COLOURS[0], label="h = tanh(x)")
    axis.plot([-1, 1], [-1, 1], "--", color="black", linewidth=1, label="h = x")
    axis.plot([], [], color="#aaaaaa", linewidth=0.6, label=f"borders of {bins} bins")
    axis.set(xlim=(-4, 4), ylim=(-1.04, 1.04), xlabel="x, before the activation", ylabel="h")
    axis.grid(False)
    figure.legend(loc="outside lower center", ncols=3)
    rows = [{"curve": "tanh", "x": at, "y": float(np.tanh(at))} for at in x.tolist()]
    rows += [{"curve": "identity", "x": at, "y": at} for at in (-1.0, 1.0)]
    return figure, rows + [{"curve": "border", "y": border} for border in borders.tolist()]
