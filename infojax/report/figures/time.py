"""Axes of steps and epochs, at which evaluations are log-spaced from 0, with plain tick labels."""

import math

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator


def scale_time(axis: Axes, kind: str, start: float, top: float, most: int = 9) -> None:
    """Scales an axis of steps or epochs from 0 to `top`, with ticks at integers.

    Args:
      kind: "symlog" (linear up to `start`, logarithmic from there), "log" or "linear".
      start: rounded down to a power of ten.
      most: maximum number of tick labels.
    """
    start = 10.0 ** math.floor(math.log10(start)) if math.isfinite(start) else 1.0
    if kind == "linear" or top <= 5 * start:
        axis.xaxis.set_major_locator(MaxNLocator(most - 2, integer=top >= 1))
        axis.set_xlim(-0.02 * (top or 1), 1.02 * (top or 1))
        return
    if kind == "log":
        axis.set_xscale("log", nonpositive="mask")
        axis.set_xlim(0.9 * start, 1.1 * top)
    else:
        axis.set_xscale("symlog", linthresh=start, linscale=0.4)
        axis.set_xlim(-0.12 * start, 1.1 * top)
    ticks = time_ticks(start, top, kind != "log", most)
    axis.set_xticks(ticks, [tick_name(tick) for tick in ticks])
    axis.xaxis.set_minor_locator(NullLocator())


def time_ticks(start: float, top: float, with_zero: bool = True, most: int = 9) -> list[float]:
    """0 and 1, 2, 5, 10, ... from start to top; only powers of ten where that would be too many."""
    powers = [start * 10.0**k for k in range(math.floor(math.log10(top / start)) + 1)]
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [digit * power for power in powers for digit in digits if digit * power <= top]
        if len(ticks) + with_zero <= most:
            break
    return [0.0] * with_zero + ticks


def tick_name(value: float) -> str:
    """A short tick label: 0, 0.5, 200, 50k, 2M."""
    for size, letter in ((1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (size if letter == 'M' else 1e3):g}{letter}"
    return f"{value:g}"
