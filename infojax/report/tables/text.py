"""Reports as fixed-width text, and for rich."""

import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from infojax.report.tables.content import (
    Report,
    Row,
    by_step,
    class_table,
    comparison,
    format_value,
    headline,
    one_line,
    sections,
    side_by_side,
    subsampling,
)
from infojax.report.tables.words import in_words, lettered

if TYPE_CHECKING:
    from rich.console import ConsoleRenderable


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def _decimal_pad(cells: Sequence[str]) -> list[str]:
    """Pads the cells so that their decimal points line up."""
    split = [cell.partition("." if cell[:1] != "[" else "]") for cell in cells]
    left = max(len(a) for a, _, _ in split)
    right = max(len(dot + b) for _, dot, b in split)
    return [a.rjust(left) + (dot + b).ljust(right) for a, dot, b in split]


def _grid_lines(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Right-aligned columns under their names; the first (and a sparkline) is left-aligned.

    Columns that do not fit continue in another grid, which repeats the first column.
    """
    left = (header[0], "by class")
    table = zip(header, *rows, strict=True)
    columns = [[name, *(x if name in left else _decimal_pad(x))] for name, *x in table]
    first = max(map(len, columns[0]))
    first = min(first, max(width // 3, 8))
    columns[0] = [x if len(x) <= first else "…" + x[1 - first :] for x in columns[0]]
    columns = [
        [cell.ljust(w) if x[0] in left else cell.rjust(w) for cell in x] for x in columns for w in [max(map(len, x))]
    ]
    lines, rest = [], columns[1:]
    while rest:
        fits = 1
        while fits < len(rest) and 2 + first + sum(2 + len(x[0]) for x in rest[: fits + 1]) <= width:
            fits += 1
        lines += ["  " + "  ".join(cells).rstrip() for cells in zip(columns[0], *rest[:fits], strict=True)]
        rest = rest[fits:]
    return lines


def _wrapped(text: str, width: int, first: str = "  ", then: str = "  ") -> list[str]:
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=then)


def _column(name: str, cells: Mapping[str, str]) -> dict[str, str]:
    """Key -> padded cell, and the padded name under ""; all empty if no cell has text."""
    if not any(cells.values()):
        return dict.fromkeys(["", *cells], "")
    padded = _decimal_pad(list(cells.values()))
    width = max(len(name), len(padded[0]))
    return {"": name.rjust(width)} | {k: c.rjust(width) for k, c in zip(cells, padded, strict=True)}


def _measure_lines(row: Row, columns: Mapping[str, Mapping[str, str]], names: int, width: int) -> list[str]:
    """One measure of the table. Names and numbers are never cut: what does not fit goes on lines of its own.

    The definition in a convention may be cut (HTML and the Report show all of it), but not what follows its first
    semicolon: the rows that were used, the conditions of an estimate.
    """
    long = len(row.key) > names
    start = "  " + ("" if long else row.key).ljust(names) + "  "
    above = _wrapped(row.key, width) if long else []
    if row.reason:
        limit = f"; limit {row.limit}" if row.limit else ""
        return above + _wrapped(f"{row.value} ({row.reason}){limit}", width, start, " " * len(start))
    below: list[str] = []
    line = start[:-2]
    for name, column in columns.items():
        if column[""] and not below and len(line) + 2 + len(column[""]) <= width:
            line += "  " + column[row.key]
        elif column[""]:
            below.append(f"{name} {column[row.key].strip()}" if column[row.key].strip() else "")
    room, (definition, _, rest) = width - len(line) - 2, row.convention.partition("; ")
    # A definition cut shorter than this is useless.
    if room >= 20:
        fits = len(row.convention) <= room
        line += "  " + (row.convention if fits else _cut(definition + ";" * bool(rest), room))
        rest = "" if fits else rest
    indent = width - room if room >= 40 else 4
    return [*above, line, *_below(filter(None, [*below, rest]), indent, width)]


def _below(texts: Iterable[str], indent: int, width: int) -> list[str]:
    return [line for text in texts for line in _wrapped(text, width, " " * indent, " " * indent)]


def render_table(report: Report, width: int = 100) -> str:
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


def _comparison_text(pairs: Collection[tuple[Any, Report]], label: str, width: int) -> str:
    header, rows, notes = comparison(pairs, label)
    lines = _grid_lines(header, rows, width) if rows else [f"  no {label}s"]
    lines += [line for note in notes for line in _wrapped(note, width, "  ! ", "    ")]
    return "\n".join(lines)


def render_layers(reports: Mapping[str, Report], width: int = 100) -> str:
    """One line per layer of `{layer: report}`: the key measures, their limits, reasons and warnings."""
    return _comparison_text(reports.items(), "layer", width)


def render_trajectory(steps: Sequence[float], reports: Sequence[Report], width: int = 100) -> str:
    """One line per step, for the reports of one layer."""
    return _comparison_text(by_step(steps, reports), "step", width)


def render_side_by_side(reports: Mapping[str, Report], width: int = 100) -> str:
    """`{name: report}`: each in words, then one column per report and, for two, their difference."""
    letters = lettered(list(reports))
    lines = []
    for letter, name in letters.items():
        report = reports[name]
        sizes = headline(report).removeprefix(f"{one_line(report.name)}: ")
        lines += _wrapped(f"{letter} = {one_line(name)}: {sizes}", width, "", "    ")
        lines += [line for text in in_words(report) for line in _wrapped(text, width, "    ", "    ")]
    header, rows = side_by_side(reports, letters)
    lines += ["─" * width, *_grid_lines(header, rows, width)]
    letters_of: dict[str, list[str]] = {}
    for letter, name in letters.items():
        report = reports[name]
        absent = [f"{key} {format_value(report.measures[key])} ({why})" for key, why in report.reasons.items()]
        for note in [*absent, *report.warnings]:
            letters_of.setdefault(one_line(note), []).append(letter)
    notes = [f"{', '.join(at)}: {note}" for note, at in letters_of.items()]
    return "\n".join([*lines, *(line for note in notes for line in _wrapped(note, width, "  ! ", "    "))])


def rich_table(render: Callable[[int], str]) -> "ConsoleRenderable":
    """render(width), a table's text, for rich: as wide as the console; names are never parsed as rich markup."""
    from rich.text import Text

    class Table:
        def __rich_console__(self, console, options):
            text = Text(render(options.max_width), no_wrap=True, overflow="crop")
            text.highlight_regex(r"(?m)^[^\s─].*$", "bold")
            text.highlight_regex(r"\bnan \(.*(\n {20,}\S.*)*", "yellow")
            text.highlight_regex(r"(?ms)^  ! .*", "yellow")
            yield text

    return Table()
