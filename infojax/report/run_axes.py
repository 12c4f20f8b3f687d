"""The x axes of runs: steps and epochs, which are evaluated log-spaced from 0, and swept values; plain tick labels."""

import math

from matplotlib.ticker import MaxNLocator, NullLocator


def scale_time(axis, kind, start, top, most=9):
    """An axis of steps or epochs from 0 to `top`.

    Args:
      kind: "symlog" (linear up to `start`, logarithmic from there), "log" or "linear".
      start: rounded down to a power of ten.
      most: labels that fit.
    """
    start = 10.0 ** math.floor(math.log10(start)) if math.isfinite(start) else 1.0
    if kind == "linear" or top <= 5 * start:
        axis.xaxis.set_major_locator(MaxNLocator(most - 2, integer=top >= 5))
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


def time_ticks(start, top, with_zero=True, most=9) -> list[float]:
    """0 and 1, 2, 5, 10, ... from start to top; only powers of ten where these are too many."""
    powers = [start * 10.0**k for k in range(math.floor(math.log10(top / start)) + 1)]
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [digit * power for power in powers for digit in digits if digit * power <= top]
        if len(ticks) + with_zero <= most:
            break
    return [0.0] * with_zero + ticks


def tick_name(value) -> str:
    """Plain: 0, 0.5, 200, 50k, 2M."""
    for size, letter in ((1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (size if letter == 'M' else 1e3):g}{letter}"
    return f"{value:g}"


def scale_places(axis, places, names=None):
    """Ticks at the swept places where they are few, or their names; a log axis where they span decades."""
    if len(places) <= 12:
        if names is None and places.min() > 0 and places.max() / places.min() >= 8:
            axis.set_xscale("log")
        axis.set_xticks(places, names or [f"{place:g}" for place in places])
        axis.xaxis.set_minor_locator(NullLocator())
