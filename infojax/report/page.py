"""One self-contained HTML page: tables, warnings and figures, readable offline and in ten years.

No script, no font and no picture is loaded. The same reports give the same bytes.
"""

import math
from dataclasses import replace
from html import escape

from infojax.report.tables import (
    by_step,
    class_table,
    comparison,
    format_value,
    headline,
    one_line,
    sections,
    subsampling,
)

# Scoped to .infojax, since a notebook shows the fragment amid its own styles; colours are inherited
# there, so that the text follows the notebook's light or dark theme.
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
PAGE_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0; background: #fff; color: #1a1a1a; }
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.7em; margin: 0 0 .2em; } h2 { font-size: 1.25em; margin: 2em 0 .4em; }
h1, h2, a { overflow-wrap: anywhere; } nav a { margin-right: 1em; } a { color: #0060a0; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; padding: .5rem; background: #fff; border: 1px solid #ddd; max-width: 100%;
  box-sizing: border-box; }
figure svg { display: block; max-width: 100%; height: auto; }
figcaption { color: #333; font-size: 12px; max-width: 46em; padding-top: .4em; }
@media (prefers-color-scheme: dark) {
  body { background: #16181c; color: #e6e6e6; } a { color: #6db3f2; }
  .infojax .reason { color: #ffb454; } figure { border-color: #444; }
}
@media print { section { break-inside: avoid-page; } }
"""
CAPTIONS = {
    "spectrum": "Eigenvalues of the trace-one Gram density of the L2-normalised rows, by rank.",
    "renyi": "Rényi entropy by order α; a flat curve means equal eigenvalues.",
    "per_class": "Each measure by class; the grey line is the median, the named class the worst.",
    "depth": "Measures by depth. The dotted line is fitted to log NC1; r is Pearson's.",
    "trajectory": "Measures by step, unsmoothed.",
}


def _table(header, body) -> str:
    kinds = {"convention": ' class="text"', "by class": ' class="text"'}
    cells = "".join(f"<th{kinds.get(name, '')}>{escape(name)}</th>" for name in header)
    return (
        f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _row(cells, kind="") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f"<tr{kind}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _plain_table(header, rows) -> str:
    return _table(header, "\n".join(_row(r, "limit" if r[0] == "limit" else "") for r in rows))


def _warnings(lines) -> str:
    if not lines:
        return ""
    items = "\n".join(f"<li>{escape(one_line(line))}</li>" for line in lines)
    return f'<div class="warnings" role="note"><strong>Warnings</strong><ul>\n{items}\n</ul></div>'


def _measure_cells(row, report, limits) -> str:
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


def _measures(report) -> str:
    """Every measure with its limit, interval, convention, and the reason of a NaN."""
    limits = any(key in report.limits for key in report.measures)
    header = ["measure", "value"] + ["limit"] * limits
    header += ["95% interval", "at m", "bias"] if report.intervals else []
    lines = []
    for title, rows in sections(report).items():
        lines.append(f'<tr><th colspan="{len(header) + 1}">{title}</th></tr>')
        lines += [_measure_cells(row, report, limits) for row in rows]
    note = f"<p>{escape(subsampling(report))}</p>" if report.intervals else ""
    return _table([*header, "convention"], "\n".join(lines)) + note


def _classes(report, whole) -> str:
    header, rows = class_table(report)
    if not rows:
        return ""
    html = f'<p class="name">Per class</p>{_plain_table(header, rows)}'
    if whole and header[0] != "class":
        header, rows = class_table(report, most=math.inf)
        html += f"<details><summary>All {len(rows):,} classes</summary>"
        html += f"{_plain_table(header, rows)}</details>"
    return html


def fragment(report) -> str:
    """The report for a notebook cell: name, warnings, measures, classes in brief."""
    return (
        f'<div class="infojax"><style>{TABLE_STYLE}</style>'
        f'<p class="name">{escape(headline(report))}</p>\n'
        f"{_warnings(report.warnings)}\n{_measures(report)}\n{_classes(report, whole=False)}</div>"
    )


def _figure(drawn, kind, prefix) -> str:
    """An inline figure; the prefix keeps its ids apart from those of all other figures."""
    from infojax.report.figures import svg_text

    svg = svg_text(drawn[0], prefix)
    label = f'<svg role="img" aria-label="{escape(CAPTIONS[kind])}"'
    svg = svg[svg.index("<svg") :].replace("<svg", label, 1).strip()
    return f"<figure>{svg}<figcaption>{CAPTIONS[kind]}</figcaption></figure>"


def _figures(*figures) -> str:
    return f'<div class="figures">{"".join(figures)}</div>'


def _summary(reports) -> str:
    """Every warning first; then what several layers have in common, a line and a point each."""
    header, rows, notes = comparison(reports.items(), "layer")
    if len(reports) < 2:
        return _warnings([note for report in reports.values() for note in report.warnings])
    from infojax.report.figures import depth_figure

    figure = _figures(_figure(depth_figure(reports), "depth", "depth"))
    table = _plain_table(header, rows)
    return f"{_warnings(notes)}<section><h2>Layers</h2>{table}{figure}</section>"


def _trajectory(steps, reports_by_layer) -> str:
    from infojax.report.figures import trajectory_figure

    drawn = trajectory_figure(steps, reports_by_layer)
    figure = _figures(_figure(drawn, "trajectory", "trajectory"))
    html = f"<section><h2>Trajectory</h2>{figure}"
    for name, reports in reports_by_layer.items():
        header, rows, notes = comparison(by_step(steps, reports), "step")
        html += f"<details><summary>{escape(one_line(name))}: {len(reports):,} steps</summary>"
        html += f"{_warnings(notes)}{_plain_table(header, rows)}</details>"
    return html + "</section>"


def _layer(report, number, alone) -> str:
    from infojax.report.figures import layer_figures

    drawn = layer_figures(report)
    figures = [_figure(drawn[kind], kind, f"layer{number}-{kind}") for kind in drawn]
    warnings = "" if alone else _warnings(report.warnings)  # alone, they head the page already
    return (
        f'<section id="layer{number}"><h2>{escape(headline(report))}</h2>\n{warnings}\n'
        f"{_measures(report)}\n{_classes(report, whole=True)}\n{_figures(*figures)}</section>"
    )


def html_page(reports, title, trajectory=None) -> str:
    """The whole page as text.

    Args:
        reports: `{layer: report}`.
        title: the heading.
        trajectory: `(steps, {layer: [report of each step]})`, or None.
    """
    # Several files may each hold a layer "features": a report goes by its key here.
    reports = {name: replace(report, name=str(name)) for name, report in reports.items()}
    title = escape(one_line(title))
    names = [f'<a href="#layer{i}">{escape(one_line(n))}</a>' for i, n in enumerate(reports)]
    parts = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{TABLE_STYLE}{PAGE_STYLE}</style></head>",
        f'<body><main class="infojax"><h1>{title}</h1>',
        f"<nav>{' '.join(names)}</nav>" if len(names) > 1 else "",
        _summary(reports),
        _trajectory(*trajectory) if trajectory else "",
        *(_layer(r, i, alone=len(names) < 2) for i, r in enumerate(reports.values())),
        "</main></body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"
