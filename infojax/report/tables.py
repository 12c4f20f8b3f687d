"""Reports as tables: fixed-width text, a rich renderable, and HTML for a notebook.

All three draw the same `sections(report)`; a measure that is NaN always stands beside its reason.
"""

import math
import textwrap
from typing import NamedTuple

import numpy as np

from infojax.commands import printable as one_line  # names and reasons come from files
from infojax.measures.catalogue import CATALOGUE, GROUPS, measure_of, shown_in

BARS = "▁▂▃▄▅▆▇█"


class Row(NamedTuple):
    """One measure, formatted; `reason` says why it has no value."""

    key: str
    value: str
    limit: str
    interval: str
    convention: str
    reason: str


def format_value(value, digits=5) -> str:
    """`digits` significant digits, scientific below 1e-3 and from 1e5; exact zero is 0."""
    value = float(value)
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:#.{digits}g}".rstrip(".")
    return f"{value:.{digits - 1}e}"


def _number(numbers, key, digits=5) -> str:
    """Formatted, or empty where there is none; a limit that does not exist may be NaN or absent."""
    value = numbers.get(key, math.nan)
    return "" if math.isnan(value) else format_value(value, digits)


def headline(report) -> str:
    """Name and size of what was measured."""
    classes = "" if report.num_classes is None else f", C = {report.num_classes:,}"
    return f"{one_line(report.name)}: n = {report.num_samples:,}, d = {report.dim:,}{classes}"


def subsampling(report) -> str:
    """What the intervals stand on, where there are any."""
    sizes = " or ".join(f"{m:,}" for m in sorted({x.m for x in report.intervals.values()}))
    return f"95% intervals from subsamples of m = {sizes} of n = {report.num_samples:,} samples."


def sections(report) -> dict[str, list[Row]]:
    """Group title -> rows, in the order of the report; empty groups are left out."""
    grouped = {title: [] for title in GROUPS}
    for key, value in report.measures.items():
        interval = report.intervals.get(key)
        bounds = [format_value(x, 4) for x in interval[:2]] if interval else []
        grouped[measure_of(key).group].append(
            Row(
                key=one_line(key),
                value=format_value(value),
                limit=_number(report.limits, key),
                interval=f"[{', '.join(bounds)}]" if bounds else "",
                convention=one_line(report.conventions.get(key, "")),
                reason=one_line(report.reasons.get(key, "")),
            )
        )
    return {title: rows for title, rows in grouped.items() if rows}


# Per class


def class_values(report) -> dict[str, np.ndarray]:
    """The per-class arrays as float64; a class is a position."""
    return {key: np.asarray(x, np.float64) for key, x in report.per_class.items()}


def worst(key, values) -> int | None:
    """The class furthest from collapse, by default of the largest value; None if all are equal."""
    finite = values[np.isfinite(values)]
    if finite.size < 2 or np.ptp(finite) == 0:
        return None
    badness = {"count": -values, "nc2_norm": abs(values - finite.mean())}  # few samples; unequal
    return int(np.nanargmax(badness.get(key, values)))


def sparkline(values, width=32) -> str:
    """One bar a class, or the largest of neighbouring classes where they do not fit; `·` is NaN."""
    chunks = np.array_split(np.asarray(values, np.float64), min(len(values), width))
    tops = [max(chunk[np.isfinite(chunk)], default=math.nan) for chunk in chunks]
    finite = [top for top in tops if math.isfinite(top)]
    low, span = min(finite, default=0.0), max(finite, default=0.0) - min(finite, default=0.0)
    heights = [(top - low) / span if span else top * 0 + 0.5 for top in tops]
    return "".join("·" if h != h else BARS[round(h * (len(BARS) - 1))] for h in heights)


def class_table(report, most=10) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a row a class up to `most` classes, above it a row a measure."""
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


# Fixed-width text


def _cut(text, width) -> str:
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def _decimal_pad(cells) -> list[str]:
    """Pads so that the decimal points stand in one column."""
    split = [cell.partition("." if cell[:1] != "[" else "]") for cell in cells]
    left = max(len(a) for a, _, _ in split)
    right = max(len(dot + b) for _, dot, b in split)
    return [a.rjust(left) + (dot + b).ljust(right) for a, dot, b in split]


def _grid_lines(header, rows, width) -> list[str]:
    """Right-aligned columns under their names, the first (and a sparkline) to the left.

    Columns that do not fit follow in a further grid, after the first column again.
    """
    left = (header[0], "by class")
    table = zip(header, *rows, strict=True)
    columns = [[name, *(x if name in left else _decimal_pad(x))] for name, *x in table]
    first = max(map(len, columns[0]))
    first = min(first, max(width // 3, 8))
    columns[0] = [x if len(x) <= first else "…" + x[1 - first :] for x in columns[0]]
    columns = [[cell.ljust(w) if x[0] in left else cell.rjust(w) for cell in x] for x, w in _with_widths(columns)]
    lines, rest = [], columns[1:]
    while rest:
        fits = 1
        while fits < len(rest) and 2 + first + sum(2 + len(x[0]) for x in rest[: fits + 1]) <= width:
            fits += 1
        lines += ["  " + "  ".join(cells).rstrip() for cells in zip(columns[0], *rest[:fits], strict=True)]
        rest = rest[fits:]
    return lines


def _with_widths(columns):
    return [(column, max(map(len, column))) for column in columns]


def _wrapped(text, width, first="  ", then="  ") -> list[str]:
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=then)


def _column(name, cells) -> dict[str, str]:
    """Key -> padded cell, and the padded name under ""; all empty where no cell has text."""
    if not any(cells.values()):
        return dict.fromkeys(["", *cells], "")
    padded = _decimal_pad(list(cells.values()))
    width = max(len(name), len(padded[0]))
    return {"": name.rjust(width)} | {k: c.rjust(width) for k, c in zip(cells, padded, strict=True)}


def _measure_lines(row, columns, names, width) -> list[str]:
    """A row of the table. Names and numbers are never cut: what does not fit stands on lines of its own.

    The definition of a convention may be cut (HTML and the Report have all of it), but not what follows its
    first semicolon: the rows that were used, the bounds of an estimate.
    """
    long = len(row.key) > names
    start = "  " + ("" if long else row.key).ljust(names) + "  "
    above = _wrapped(row.key, width) if long else []
    if row.reason:
        limit = f"; limit {row.limit}" if row.limit else ""
        return above + _wrapped(f"{row.value} ({row.reason}){limit}", width, start, " " * len(start))
    line, below = start[:-2], []
    for name, column in columns.items():
        if column[""] and not below and len(line) + 2 + len(column[""]) <= width:
            line += "  " + column[row.key]
        elif column[""]:
            below.append(f"{name} {column[row.key].strip()}" if column[row.key].strip() else "")
    room, (definition, _, rest) = width - len(line) - 2, row.convention.partition("; ")
    # Cut shorter than this a definition says nothing.
    if room >= 20:
        fits = len(row.convention) <= room
        line += "  " + (row.convention if fits else _cut(definition + ";" * bool(rest), room))
        rest = "" if fits else rest
    indent = width - room if room >= 40 else 4
    return [*above, line, *_below(filter(None, [*below, rest]), indent, width)]


def _below(texts, indent, width) -> list[str]:
    return [line for text in texts for line in _wrapped(text, width, " " * indent, " " * indent)]


def render_table(report, width=100) -> str:
    """The report as plain text, no line longer than `width`."""
    groups = sections(report)
    rows = [row for group in groups.values() for row in group]
    shown = [row for row in rows if not row.reason]
    names = min(max((len(row.key) for row in rows), default=0), max(width * 9 // 20, 12))
    fields = {"value": "value", "limit": "limit", "interval": "95% interval"}
    columns = {fields[f]: _column(fields[f], {row.key: getattr(row, f) for row in shown}) for f in fields}
    title = Row("", "", "", "", "convention" if any(r.convention for r in rows) else "", "")
    lines = [*_wrapped(headline(report), width, "", ""), "─" * width, *_measure_lines(title, columns, names, width)[:1]]
    for group, members in groups.items():
        lines += ["", group]
        lines += [line for row in members for line in _measure_lines(row, columns, names, width)]
    if report.intervals:
        lines += ["", *_wrapped(subsampling(report), width)]
    header, class_rows = class_table(report)
    if class_rows:
        lines += ["", "Per class", *_grid_lines(header, class_rows, width)]
    lines += ["", "Warnings"] if report.warnings else []
    for warning in report.warnings:
        lines += _wrapped(one_line(warning), width, "  ! ", "    ")
    return "\n".join(_cut(line.rstrip(), width) for line in lines)


# Several reports side by side


def comparison(pairs, label) -> tuple[list[str], list[list[str]], list[str]]:
    """Header, rows and notes of (name, report) pairs; a row of limits, why there is a NaN, the bounds of estimates."""
    reports = [report for _, report in pairs]
    keys = [k for k in shown_in("compared") if any(k in r.measures for r in reports)]
    rows, notes = [], {}
    for name, report in pairs:
        name = one_line(name)
        cells = [format_value(report.measures[k], 4) if k in report.measures else "" for k in keys]
        rows.append([name, f"{report.num_samples:,}", f"{report.dim:,}", *cells])
        absent = {k: report.reasons[k] for k in keys if k in report.reasons}
        reasons = [f"{CATALOGUE[k].column} nan ({reason})" for k, reason in absent.items()]
        qualified = {k: report.conventions.get(k, "").partition("; ")[2] for k in keys}
        bounds = [f"{CATALOGUE[k].column} {text}" for k, text in qualified.items() if "estimated" in text]
        for note in [*reasons, *bounds, *report.warnings]:
            notes.setdefault(one_line(note), []).append(f"{label} {name}")
    limits = [{_number(r.limits, key, 4) for r in reports if key in r.measures} for key in keys]
    if any(limits) and set().union(*limits) != {""}:
        cells = [x.pop() if len(x) == 1 else "varies" for x in limits]
        rows.append(["limit", "", "", *cells])
    header = [label, "n", "d", *(CATALOGUE[k].column for k in keys)]
    notes = [f"{textwrap.shorten(', '.join(at), 72)}: {note}" for note, at in notes.items()]
    return header, rows, notes


def by_step(steps, reports) -> list[tuple]:
    """(step, report) pairs; ValueError where there is not one report a step."""
    steps, reports = list(steps), list(reports)
    if len(steps) != len(reports):
        raise ValueError(f"steps: {len(steps)} for {len(reports)} reports; give one report a step.")
    return list(zip(steps, reports, strict=True))


def _comparison_text(pairs, label, width) -> str:
    header, rows, notes = comparison(pairs, label)
    lines = _grid_lines(header, rows, width) if rows else [f"  no {label}s"]
    lines += [line for note in notes for line in _wrapped(note, width, "  ! ", "    ")]
    return "\n".join(lines)


def render_layers(reports, width=100) -> str:
    """One line a layer of `{layer: report}`: the key measures, their limits, reasons, warnings."""
    return _comparison_text(reports.items(), "layer", width)


def render_trajectory(steps, reports, width=100) -> str:
    """One line a step, for the reports of one layer."""
    return _comparison_text(by_step(steps, reports), "step", width)


def html_table(report) -> str:
    """The report as an HTML fragment for a notebook's `_repr_html_`."""
    from infojax.report.fragment import fragment  # which needs these tables, but not to be imported

    return fragment(report)


def rich_table(render):
    """render(width), a table's text, for rich: as wide as the console; names are never read as rich markup."""
    from rich.text import Text

    class Table:
        def __rich_console__(self, console, options):
            text = Text(render(options.max_width), no_wrap=True, overflow="crop")
            text.highlight_regex(r"(?m)^[^\s─].*$", "bold")
            text.highlight_regex(r"\bnan \(.*(\n {20,}\S.*)*", "yellow")
            text.highlight_regex(r"(?ms)^  ! .*", "yellow")
            yield text

    return Table()
