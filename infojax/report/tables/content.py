"""What text and HTML tables of reports have in common: names, formatted numbers, per-class summaries, comparisons."""

import math
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from infojax.commands import printable as one_line  # names and reasons come from files
from infojax.measures.catalogue import CATALOGUE, GROUPS, measure_of, shown_in

BARS = "▁▂▃▄▅▆▇█"
ROUNDING = 1e-12  # a limit that is smaller is 0 but for rounding


class Report(Protocol):
    """The attributes of an `infojax.Report` that tables and figures use."""

    @property
    def name(self) -> str: ...
    @property
    def num_samples(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def num_classes(self) -> int | None: ...
    @property
    def measures(self) -> Mapping[str, float]: ...
    @property
    def limits(self) -> Mapping[str, float]: ...
    @property
    def conventions(self) -> Mapping[str, str]: ...
    @property
    def warnings(self) -> Sequence[str]: ...
    @property
    def reasons(self) -> Mapping[str, str]: ...
    @property
    def per_class(self) -> Mapping[str, np.ndarray]: ...
    @property
    def spectrum(self) -> np.ndarray: ...
    @property
    def renyi(self) -> Mapping[float, float]: ...
    @property
    def intervals(self) -> Mapping[str, Any]: ...


class Row(NamedTuple):
    """One measure, formatted; `reason` explains a missing value."""

    key: str
    value: str
    limit: str
    interval: str
    convention: str
    reason: str


def format_value(value: float, digits: int = 5) -> str:
    """`digits` significant digits, and all of those before the point: 110, not 1.1e+02; exact zero is 0.

    Scientific only below 1e-3 and above 1e5.
    """
    value = float(value)
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    scientific = f"{value:.{digits - 1}e}"
    rounded, exponent = abs(float(scientific)), int(scientific.partition("e")[2])
    if rounded < 1e-3 or abs(value) > 1e5:
        return scientific
    return f"{value:.{max(digits - 1 - exponent, 0)}f}"


def format_limit(value: float, digits: int = 5) -> str:
    """As `format_value`; what differs from 0 only by rounding is 0."""
    return format_value(0.0 if abs(value) < ROUNDING else value, digits)


def number_cell(limits: Mapping[str, float], key: str, digits: int = 5) -> str:
    """The formatted limit, or an empty string; a limit that does not exist may be NaN or absent."""
    value = limits.get(key, math.nan)
    return "" if math.isnan(value) else format_limit(value, digits)


def headline(report: Report) -> str:
    """Name and size of the measured features."""
    classes = "" if report.num_classes is None else f", C = {report.num_classes:,}"
    return f"{one_line(report.name)}: n = {report.num_samples:,}, d = {report.dim:,}{classes}"


def subsampling(report: Report) -> str:
    """The subsamples on which the intervals are based."""
    sizes = " or ".join(f"{m:,}" for m in sorted({x.m for x in report.intervals.values()}))
    return f"95% intervals from subsamples of m = {sizes} of n = {report.num_samples:,} samples."


def sections(report: Report) -> dict[str, list[Row]]:
    """Group title -> rows, in the order of the report; empty groups are omitted."""
    grouped: dict[str, list[Row]] = {title: [] for title in GROUPS}
    for key, value in report.measures.items():
        interval = report.intervals.get(key)
        bounds = [format_value(x, 4) for x in interval[:2]] if interval else []
        grouped[measure_of(key).group].append(
            Row(
                key=one_line(key),
                value=format_value(value),
                limit=number_cell(report.limits, key),
                interval=f"[{', '.join(bounds)}]" if bounds else "",
                convention=one_line(report.conventions.get(key, "")),
                reason=one_line(report.reasons.get(key, "")),
            )
        )
    return {title: rows for title, rows in grouped.items() if rows}


# Per class


def class_values(report: Report) -> dict[str, np.ndarray]:
    """The per-class arrays as float64; index = class."""
    return {key: np.asarray(x, np.float64) for key, x in report.per_class.items()}


def worst(key: str, values: np.ndarray) -> int | None:
    """The class furthest from collapse, by default the one with the largest value; None if all are equal."""
    finite = values[np.isfinite(values)]
    if finite.size < 2 or np.ptp(finite) == 0:
        return None
    badness = {"count": -values, "nc2_norm": abs(values - finite.mean())}  # few samples; far from the mean norm
    return int(np.nanargmax(badness.get(key, values)))


def sparkline(values: Sequence[float] | np.ndarray, width: int = 32) -> str:
    """One bar per class, or the largest of neighbouring classes if there are too many; `·` is NaN."""
    chunks = np.array_split(np.asarray(values, np.float64), min(len(values), width))
    tops = [max(chunk[np.isfinite(chunk)], default=math.nan) for chunk in chunks]
    finite = [top for top in tops if math.isfinite(top)]
    low, span = min(finite, default=0.0), max(finite, default=0.0) - min(finite, default=0.0)
    heights = [(top - low) / span if span else top * 0 + 0.5 for top in tops]
    return "".join("·" if h != h else BARS[round(h * (len(BARS) - 1))] for h in heights)


def class_table(report: Report, most: float = 10) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a row per class for up to `most` classes, otherwise a row per measure."""
    arrays = class_values(report)

    def cell(key, value):
        return f"{value:,.0f}" if key == "count" and value.is_integer() else format_value(value)

    count = max(map(len, arrays.values()), default=0)
    if count <= most:
        rows = [[str(c), *(cell(k, x[c]) for k, x in arrays.items())] for c in range(count)]
        return ["class", *arrays], rows
    rows = []
    for key, x in arrays.items():
        finite = x[np.isfinite(x)] if np.isfinite(x).any() else x[:1]
        at = worst(key, x)
        spread = [cell(key, summary(finite)) for summary in (np.min, np.median, np.max)]
        rows.append([key, *spread, "" if at is None else str(at), sparkline(x)])
    return ["measure", "min", "median", "max", "worst class", "by class"], rows


# Several reports side by side


def comparison(pairs: Collection[tuple[Any, Report]], label: str) -> tuple[list[str], list[list[str]], list[str]]:
    """Header, rows and notes of (name, report) pairs: a row of limits, reasons of NaN, conditions of estimates."""
    reports = [report for _, report in pairs]
    keys = [k for k in shown_in("compared") if any(k in r.measures for r in reports)]
    rows: list[list[str]] = []
    labels_of: dict[str, list[str]] = {}
    for name, report in pairs:
        name = one_line(name)
        cells = [format_value(report.measures[k], 4) if k in report.measures else "" for k in keys]
        rows.append([name, f"{report.num_samples:,}", f"{report.dim:,}", *cells])
        absent = {k: report.reasons[k] for k in keys if k in report.reasons}
        reasons = [f"{CATALOGUE[k].column} nan ({reason})" for k, reason in absent.items()]
        qualified = {k: report.conventions.get(k, "").partition("; ")[2] for k in keys}
        bounds = [f"{CATALOGUE[k].column} {text}" for k, text in qualified.items() if "estimated" in text]
        for note in [*reasons, *bounds, *report.warnings]:
            labels_of.setdefault(one_line(note), []).append(f"{label} {name}")
    limits = [{number_cell(r.limits, key, 4) for r in reports if key in r.measures} for key in keys]
    if any(limits) and set().union(*limits) != {""}:
        cells = [x.pop() if len(x) == 1 else "varies" for x in limits]
        rows.append(["limit", "", "", *cells])
    header = [label, "n", "d", *(CATALOGUE[k].column for k in keys)]
    notes = [f"{textwrap.shorten(', '.join(at), 72)}: {note}" for note, at in labels_of.items()]
    return header, rows, notes


def side_by_side(reports: Mapping[str, Report], letters: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one row per measure, one column per report; for two reports also the difference B - A."""
    keys = [key for key in CATALOGUE if any(key in report.measures for report in reports.values())]
    header, rows = ["measure", *letters], []
    if len(letters) == 2:
        header.append("B - A")
    limits = {k: {number_cell(r.limits, k) for r in reports.values() if k in r.measures} for k in keys}
    limits = {key: found.pop() if len(found) == 1 else "varies" for key, found in limits.items()}
    for key in keys:
        values = [reports[name].measures.get(key) for name in letters.values()]
        row = [key, *("" if value is None else format_value(value) for value in values)]
        if len(letters) == 2:
            one, other = values
            row.append("" if one is None or other is None else format_value(other - one, 3))
        rows.append([*row, limits[key]])
    if any(limits.values()):
        return [*header, "limit"], rows
    return header, [row[:-1] for row in rows]


def by_step(steps: Iterable[float], reports: Iterable[Report]) -> list[tuple[Any, Report]]:
    """(step, report) pairs; raises ValueError unless there is one report per step."""
    steps, reports = list(steps), list(reports)
    if len(steps) != len(reports):
        raise ValueError(f"steps: {len(steps)} for {len(reports)} reports; give one report per step.")
    return list(zip(steps, reports, strict=True))
