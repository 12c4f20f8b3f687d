"""One self-contained HTML page of tables, warnings and figures, readable offline and in ten years.

It loads no script, font or image. The same reports give the same bytes.
"""

import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape

from infojax.report.figures.canvas import Drawn, svg_text
from infojax.report.figures.reports import depth_figure, layer_figures, trajectory_figure
from infojax.report.tables.content import Report, by_step, comparison, headline, one_line, side_by_side
from infojax.report.tables.html import TABLE_STYLE, class_tables, measures_table, plain_table, warnings_box
from infojax.report.tables.words import in_words, lettered

PAGE_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0; background: #fff; color: #1a1a1a; }
main { max-width: 100rem; margin: 0 auto; padding: 1.5rem; }
.found { font-size: 1.25em; font-weight: 600; max-width: 55em; margin: .6em 0; }
.also { max-width: 70em; margin: .4em 0; }
nav { font-size: 13px; } nav ul { list-style: none; margin: 0; padding: 0; }
nav li { display: inline-block; margin: .2em 1.2em .2em 0; }
@media (min-width: 75rem) {
  main.contents { margin: 0; padding-left: 17rem; } nav li { display: block; margin: .4em 0; }
  main.contents > nav { position: fixed; left: 1.5rem; top: 1.9rem; width: 13.5rem; max-height: 95vh;
    overflow-y: auto; }
}
h1 { font-size: 1.7em; margin: 0 0 .2em; } h2 { font-size: 1.25em; margin: 2em 0 .4em; }
h3 { font-size: 1.1em; margin: 1.6em 0 .4em; }
h1, h2, h3, a { overflow-wrap: anywhere; } a { color: #0060a0; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; padding: .5rem; background: #fff; border: 1px solid #ddd; width: 100%; box-sizing: border-box;
  overflow-x: auto; }
figure svg { min-width: var(--least, 0); display: block; width: 100%; height: auto; }
figcaption { position: sticky; left: 0; color: #333; font-size: 12px; padding-top: .4em; }
@media (prefers-color-scheme: dark) {
  body { background: #16181c; color: #e6e6e6; } a { color: #6db3f2; }
  .infojax .reason { color: #ffb454; } figure { border-color: #444; }
}
@media print {
  body { background: #fff; color: #000; font-size: 10pt; } nav, details:not([open]) { display: none; }
  main, main.contents { display: block; max-width: none; padding: 0; }
  figure { overflow: visible; } figure svg { min-width: 0; }
  figure, table { break-inside: avoid-page; } h2, h3 { break-after: avoid-page; } figure { margin-bottom: 1em; }
  h2 + p { break-after: avoid-page; } .infojax .scroll { overflow: visible; }
  a { color: inherit; text-decoration: none; }
}
"""
CAPTIONS = {
    "spectrum": "Eigenvalues of the trace-one Gram density of the L2-normalised rows, by rank.",
    "renyi": "Rényi entropy by order α; a flat curve means equal eigenvalues.",
    "per_class": "Each measure by class; the grey line is the median, and the worst class is named.",
    "depth": "Measures by depth. A dotted line is fitted to log NC1; r is Pearson's.",
    "trajectory": "Measures by step, unsmoothed.",
}


def inline(svg: str, caption: str, key: str = "") -> str:
    """An SVG file's text as a figure of the page, at most as wide as it was drawn, with its caption."""
    width = re.search(r'<svg[^>]*? width="([\d.]+)pt"', svg)
    style = f' style="max-width: calc({width[1]}pt + 1rem); --least: {0.7 * float(width[1]):.0f}pt"' if width else ""
    name = f' id="{key}"' if key else ""
    label = f'<svg role="img" aria-label="{escape(caption)}"'
    svg = svg[svg.index("<svg") :].replace("<svg", label, 1).strip()
    return f"<figure{name}{style}>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def found_box(sentences: Iterable[str]) -> str:
    """The first sentence, what was found, in larger letters, and the others below it."""
    classes = itertools.chain(["found"], itertools.repeat("also"))
    return "".join(f'<p class="{kind}">{escape(line)}</p>' for kind, line in zip(classes, sentences, strict=False))


def found_boxes(named: Iterable[tuple[str, Sequence[str]]]) -> str:
    """A line for each name: the findings of several runs or files."""
    lines = (f"{name}: {' '.join(sentences)}" for name, sentences in named if sentences)
    return "".join(f'<p class="also">{escape(line)}</p>' for line in lines)


def document(title: str, parts: Iterable[str], contents: Mapping[str, str] | None = None) -> str:
    """The whole page as text: a title and parts of HTML; empty parts are skipped.

    contents: id -> name of each section, listed at the side of the page.
    """
    links = "".join(f'<li><a href="#{key}">{escape(name)}</a></li>' for key, name in (contents or {}).items())
    side = f'<nav aria-label="Contents"><ul>{links}</ul></nav>' if links else ""
    kind = "infojax contents" if links else "infojax"
    title = escape(one_line(title))
    head = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{TABLE_STYLE}{PAGE_STYLE}</style></head>",
        f'<body><main class="{kind}"><h1>{title}</h1>',
        side,
    ]
    return "\n".join(part for part in [*head, *parts, "</main></body></html>"] if part) + "\n"


def _figures(drawn: Mapping[str, Drawn], prefix: str) -> str:
    """Inline figures of `{kind: (figure, rows)}`; the prefix keeps their ids unique in the page."""
    figures = [inline(svg_text(figure, f"{prefix}-{kind}"), CAPTIONS[kind]) for kind, (figure, _) in drawn.items()]
    return f'<div class="figures">{"".join(figures)}</div>'


def _called(file: str, layer: str, files: Mapping[str, Mapping[str, Report]]) -> str:
    """A report's name on the page; several files may hold layers of the same name."""
    if list(files[file]) == ["features"]:
        return str(file)
    return str(layer) if len(files) == 1 else f"{file}: {layer}"


def _summary(
    files: Mapping[str, Mapping[str, Report]], title: str, reports: Collection[Report], ids: Iterable[str]
) -> str:
    """All warnings first, then a table with one line per report."""
    if len(reports) < 2:
        return found_box(line for report in reports for line in in_words(report)) + warnings_box(
            [note for report in reports for note in report.warnings]
        )
    file, *others = map(one_line, files)
    heading = "Files" if others else "Layers" if file == title else f"Layers of {file}"
    header, rows, notes = comparison([(r.name, r) for r in reports], "file" if others else "layer")
    table = plain_table(header, rows, links=ids)
    words = found_boxes((one_line(r.name), in_words(r)) for r in reports) if others else ""
    beside = _side_by_side(files) if others else ""
    return f"{words}{warnings_box(notes)}<section><h2>{escape(heading)}</h2>{table}{beside}</section>"


def _side_by_side(files: Mapping[str, Mapping[str, Report]]) -> str:
    """For each layer that several files have, a row per measure and a column per file; of two, their difference."""
    of_layer: dict[str, dict[str, Report]] = {}
    for file, layers in files.items():
        for layer, report in layers.items():
            of_layer.setdefault(layer, {})[file] = report
    html = ""
    for layer, reports in of_layer.items():
        if len(reports) > 1:
            letters = lettered(list(reports))
            named = "; ".join(f"{letter} = {one_line(name)}" for letter, name in letters.items())
            named += "" if layer == "features" else f"; layer {one_line(layer)}"
            html += f"<p>{escape(named)}</p>{plain_table(*side_by_side(reports, letters))}"
    return html


def _trajectory(steps: Sequence[float], reports_by_name: Mapping[str, Sequence[Report]]) -> str:
    figure = _figures({"trajectory": trajectory_figure(steps, reports_by_name)}, "steps")
    html = f"<section><h2>Trajectory</h2>{figure}"
    for name, reports in reports_by_name.items():
        header, rows, notes = comparison(by_step(steps, reports), "step")
        html += f"<details><summary>{escape(one_line(name))}: {len(reports):,} steps</summary>"
        html += f"{warnings_box(notes)}{plain_table(header, rows)}</details>"
    return html + "</section>"


def _report(report: Report, key: str, level: int, alone: bool) -> str:
    warnings = "" if alone else warnings_box(report.warnings)  # those of a single report already head the page
    return (
        f'<section id="{key}"><h{level}>{escape(headline(report))}</h{level}>\n{warnings}\n'
        f"{measures_table(report)}\n{class_tables(report, whole=True)}\n"
        f"{_figures(layer_figures(report), key)}</section>"
    )


def html_page(
    files: Mapping[str, Mapping[str, Report]],
    title: str,
    trajectory: tuple[Sequence[float], Mapping[str, Sequence[Report]]] | None = None,
) -> str:
    """The whole page as text: a summary of all reports, then each file.

    Args:
        files: `{file: {layer: report}}`; the layer of a file with one array is `features`.
        title: the heading.
        trajectory: `(steps, {name: [report at each step]})`, or None.
    """
    reports = {
        (file, layer): replace(report, name=_called(file, layer, files))  # type: ignore[type-var]  # a dataclass
        for file, layers in files.items()
        for layer, report in layers.items()
    }
    ids = {key: f"report{i}" for i, key in enumerate(reports)}
    title = one_line(title)
    parts = [
        _summary(files, title, reports.values(), ids.values()),
        _trajectory(*trajectory) if trajectory else "",
    ]
    for i, (file, layers) in enumerate(files.items()):
        headed = len(layers) > 1 and one_line(file) != title
        if headed:
            parts.append(f"<h2>{escape(one_line(file))}</h2>")
        if len(layers) > 1:
            parts.append(_figures({"depth": depth_figure(layers)}, f"file{i}"))
        for key in ((file, layer) for layer in layers):
            parts.append(_report(reports[key], ids[key], 3 if headed else 2, alone=len(reports) < 2))
    return document(title, parts)
