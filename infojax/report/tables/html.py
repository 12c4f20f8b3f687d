"""One report as HTML tables, without figures: what a notebook shows, and most of a page."""

import itertools
import math
from collections.abc import Iterable, Sequence
from html import escape

from infojax.report.tables.content import (
    Report,
    Row,
    class_table,
    format_value,
    headline,
    one_line,
    sections,
    subsampling,
)

# Scoped to .infojax, since a notebook shows it among its own styles; colours are inherited
# so that the text follows the notebook's light or dark theme.
TABLE_STYLE = """
.infojax { font: 14px/1.45 system-ui, -apple-system, "Segoe UI", sans-serif; }
.infojax .scroll { overflow-x: auto; }
.infojax table { border-collapse: collapse; margin: .4em 0 1em; font-size: 13px; }
.infojax th, .infojax td { padding: .2em 1.2em .2em 0; text-align: right; vertical-align: top;
  white-space: nowrap; font-variant-numeric: tabular-nums; background: none; }
.infojax th:first-child, .infojax td:first-child { text-align: left; }
.infojax thead th { border-bottom: 1px solid currentColor; font-weight: 600; }
.infojax tbody th { padding-top: .9em; text-align: left; font-weight: 600; }
.infojax tr.limit td { border-top: 1px dashed currentColor; }
.infojax .text { text-align: left; }
.infojax td.text { white-space: normal; min-width: 18em; opacity: .75; }
.infojax .reason { text-align: left; white-space: normal; min-width: 12em; color: #b35900; }
.infojax .warnings { border-left: 4px solid #e08e00; padding: .5em 1em; margin: .8em 0;
  background: rgba(224, 142, 0, .13); }
.infojax .warnings ul { margin: .2em 0; padding-left: 1.2em; }
.infojax p.name { font-weight: 600; margin: .4em 0; }
.infojax details { margin: .5em 0 1em; } .infojax summary { cursor: pointer; }
"""


def _table(header: Sequence[str], body: str) -> str:
    kinds = {"convention": ' class="text"', "by class": ' class="text"'}
    cells = "".join(f"<th{kinds.get(name, '')}>{escape(name)}</th>" for name in header)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]], links: Iterable[str] = ()) -> str:
    """Rows of text, with a row of limits set apart; the first cells link to the ids in `links`, if given."""
    lines = []
    for row, link in itertools.zip_longest(rows, links):
        first, *rest = map(escape, row)
        kind = ' class="limit"' if first == "limit" and not link else ""
        first = f'<a href="#{link}">{first}</a>' if link else first
        lines.append(f"<tr{kind}>" + "".join(f"<td>{cell}</td>" for cell in (first, *rest)) + "</tr>")
    return _table(header, "\n".join(lines))


def warnings_box(lines: Sequence[str]) -> str:
    """A box with the lines, or an empty string if there are none."""
    if not lines:
        return ""
    items = "\n".join(f"<li>{escape(one_line(line))}</li>" for line in lines)
    return f'<div class="warnings" role="note"><strong>Warnings</strong><ul>\n{items}\n</ul></div>'


def _measure_cells(row: Row, report: Report, limits: bool) -> str:
    interval = report.intervals.get(row.key)
    cells = [row.limit] if limits else []
    if report.intervals:
        numbers = [interval.at_m, interval.bias] if interval else []
        cells += [row.interval, *(format_value(x, 4) for x in numbers)]
        cells += [""] * (2 - len(numbers))
    value = f"<td>{escape(row.value)}</td>"
    if row.reason:
        value = f'<td class="reason">{escape(row.value)} ({escape(row.reason)})</td>'
    rest = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    note = f'<td class="text">{escape(row.convention)}</td>'
    return f"<tr><td>{escape(row.key)}</td>{value}{rest}{note}</tr>"


def measures_table(report: Report) -> str:
    """Every measure with its limit, interval, convention, and the reason if it is NaN."""
    limits = any(key in report.limits for key in report.measures)
    header = ["measure", "value"] + ["limit"] * limits
    header += ["95% interval", "at m", "bias"] if report.intervals else []
    lines = []
    for title, rows in sections(report).items():
        lines.append(f'<tr><th colspan="{len(header) + 1}">{title}</th></tr>')
        lines += [_measure_cells(row, report, limits) for row in rows]
    note = f"<p>{escape(subsampling(report))}</p>" if report.intervals else ""
    return _table([*header, "convention"], "\n".join(lines)) + note


def class_tables(report: Report, whole: bool) -> str:
    """A summary of the per-class values; `whole` adds a folded row per class where there are many."""
    header, rows = class_table(report)
    if not rows:
        return ""
    html = f'<p class="name">Per class</p>{plain_table(header, rows)}'
    if whole and header[0] != "class":
        header, rows = class_table(report, most=math.inf)
        html += f"<details><summary>All {len(rows):,} classes</summary>"
        html += f"{plain_table(header, rows)}</details>"
    return html


def html_table(report: Report) -> str:
    """The report as an HTML fragment for a notebook cell: name, warnings, measures, per-class summary."""
    return (
        f'<div class="infojax"><style>{TABLE_STYLE}</style>'
        f'<p class="name">{escape(headline(report))}</p>\n'
        f"{warnings_box(report.warnings)}\n{measures_table(report)}\n{class_tables(report, whole=False)}</div>"
    )
