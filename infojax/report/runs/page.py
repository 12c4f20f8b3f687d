"""The pages of runs: of one folder, and of several side by side. The same rows give the same bytes."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from infojax.report.figures.canvas import Drawn, plain, save
from infojax.report.page import document, found_box, found_boxes, inline
from infojax.report.runs.by_class import CLASSES, draw_classes, draw_similarity
from infojax.report.runs.by_class import MAPS as SIMILAR
from infojax.report.runs.curves import Method, compared, in_common, methods_of
from infojax.report.runs.figures import draw
from infojax.report.runs.layers import GAPS, PLANES, draw_gaps, draw_planes
from infojax.report.runs.pictures import BINNING, CLOUDS, draw_binning, draw_clouds, draw_maps
from infojax.report.runs.plan import Plan
from infojax.report.runs.plans import COMPARED, COMPARISON, FIGURES, SHOWN
from infojax.report.runs.progress import rested, untrained
from infojax.report.runs.reconstructions import RECONSTRUCTIONS, draw_reconstructions
from infojax.report.runs.rows import RunHistory, splits_of
from infojax.report.runs.selection import selections_table, several
from infojax.report.runs.statements import papers_box
from infojax.report.runs.tables import (
    data_and_model,
    differing,
    facts,
    final_table,
    labels_of,
    last_evaluation,
    layers_tables,
    phased,
    phases_table,
    seeds_tables,
    span,
    summary_tables,
    title_of,
    warnings_of,
)
from infojax.report.runs.verdict import verdict
from infojax.report.tables.html import plain_table, warnings_box

MAPS = (
    "t-SNE of the features of one seed, at both ends of the sweep (Song et al. 2024, Figs. 2d and 2e); colours: "
    "classes. Distances between clusters mean little in t-SNE."
)
BANDS = "bands: 95% intervals of the mean"
MEANS = "Means over seeds."
ERRORS = ("error_ema", "error")  # how semi-supervised runs are compared


class Picture(NamedTuple):
    """A figure that is not a `Plan`.

    Attributes:
      title, caption: as in a `Plan`.
      draw: (methods, title) -> (figure, rows), or None if there is nothing to draw.
      task: the task whose runs it is for; "" for all.
      compared: whether it is on the page of several runs.
      quantities: what it shows, where the heading must state how that was measured.
      seeds: the sentence of the caption about several seeds.
    """

    title: str
    caption: str
    draw: Callable[..., Drawn | None]
    task: str = ""
    compared: bool = False
    quantities: tuple[str, ...] = ()
    seeds: str = ""


PICTURES = {
    "classes": Picture("Class by class", CLASSES, draw_classes, "crossmodal"),
    "similarity": Picture("Similarity of images and texts", SIMILAR, draw_similarity, "crossmodal"),
    "binning": Picture("Binning of a saturating unit", BINNING, lambda *_: draw_binning(), "compression"),
    "cloud": Picture("Features of three dimensions", CLOUDS, draw_clouds),
    "gaps": Picture("Compression and generalisation", GAPS, draw_gaps, "compression", True, ("nc1",), MEANS),
    "reconstructions": Picture("Hidden patches", RECONSTRUCTIONS, draw_reconstructions, "selfsup", True),
    "planes": Picture("Information planes", PLANES, draw_planes, "compression", True, seeds=MEANS),
}
# The order of a page: the questions Cheong 2025 asks about layers, then the others.
THESIS = ("layers", "separation", "usable", "planes", "gaps", "compression_curves", "binning", "cloud")
ORDER = dict.fromkeys((*THESIS, *FIGURES, "classes", "similarity", "reconstructions"))


def run_page(history: RunHistory, figures: str | Path) -> str:
    """Draws every figure that has data into the folder `figures`; returns the page."""
    methods, drawn, contents = methods_of(history), [], {}
    for name in sorted(ORDER, key=_rank):
        plan = FIGURES.get(name) or PICTURES[name]
        if plan.task not in ("", history.config.get("task")) or isinstance(plan, Plan) and _shown(history, plan):
            continue
        if isinstance(plan, Plan):
            found = draw(plan, methods, _heading(history, plan))
        elif untrained(history) and name != "binning":  # an illustration
            continue
        else:
            note = _convention([history], plan.quantities)
            found = plan.draw(methods, _lines(f"{plan.title}: {title_of(history)}\n{facts(history)}{note}"))
        if found is not None:
            drawn.append(
                inline(save(figures, name, *found, prefix=name)[1], _caption(plan, found[1], methods), f"figure-{name}")
            )
            contents[f"figure-{name}"] = plan.title
    if history.maps:
        found = draw_maps(history, _map_heading(history))
        drawn.append(inline(save(figures, "tsne", *found, prefix="tsne")[1], MAPS, "figure-tsne"))
        contents["figure-tsne"] = "t-SNE of the features"
    tables = [_titled(3, heading) + plain_table(header, rows) for heading, header, rows in summary_tables(history)]
    for heading, header, rows in layers_tables(history):
        tables.append(_titled(3, heading) + plain_table(header, rows))
    seeds = "".join(_titled(3, split) + plain_table(header, rows) for split, header, rows in seeds_tables(history))
    many = any(len(runs) > 1 for runs in history.groups.values()) or history.swept
    contents |= {"last": "Last evaluation"} if any(tables) else {}
    contents |= {"settings": "Settings"} | ({"environment": "Environment"} if history.environment else {})
    parts = [
        found_box(verdict(history)),
        _paragraph("; ".join(filter(None, (facts(history), _steps(history), hardware(history.environment))))),
        warnings_box(warnings_of(history)),
        _gallery(drawn),
        f'<section id="last"><h2>Last evaluation</h2>{_paragraph(_note(history))}{"".join(tables)}'
        if any(tables)
        else "",
        _folded("Each run", seeds) if many and seeds else "",
        _titled(3, "Phases, on test") + plain_table(*phases_table(history)) if phased(history) else "",
        _titled(3, "Error on test, by evaluation") + plain_table(*selections_table(history))
        if several(history)
        else "",
        "</section>" if any(tables) else "",
        papers_box(history),
        _folded("Settings", _json(history.config), "settings"),
        _folded("Environment", _json(history.environment), "environment") if history.environment else "",
    ]
    return document(title_of(history), parts, contents)


def _rank(name: str) -> int:
    """The place of a figure on the page: the study's own subject comes first, then what a sweep found."""
    plan = FIGURES.get(name) or PICTURES[name]
    along = plan.x if isinstance(plan, Plan) else "time"
    return 0 if plan.task or along not in ("time", "step", "swept") else 1 if along == "swept" else 2


def _caption(plan: Plan | Picture, rows: Sequence[dict[str, Any]], methods: Sequence[Method]) -> str:
    several = _several(methods)
    if isinstance(plan, Plan):
        return plan.caption_of(rows, several, methods[0].history.swept)
    return f"{plan.caption} {plan.seeds * several}".strip()


def _several(methods: Iterable[Method]) -> bool:
    """Whether any line is a mean over seeds, with a band."""
    return any(len(method.runs) > 1 for method in methods)


def comparison_page(histories: Sequence[RunHistory], figures: str | Path) -> str:
    """Draws a figure per split into the folder `figures`; returns the page, with one line per run."""
    labels = labels_of([history.folder for history in histories])
    methods = compared(histories, labels)
    begun = [method for method in methods if not untrained(method.history)]
    splits = list(dict.fromkeys(split for history in histories for split in splits_of(history, COMPARED)))
    drawn, tables, contents, left_out = [], [], {}, []
    for split in splits:
        title = _compared_heading(histories, begun, split)
        plan, alone = in_common(COMPARISON, histories, split)
        left_out += [f"{split or 'sample'}: {', '.join(alone)}"] * bool(alone)
        found = draw(plan, begun, title, split) if plan.panels else None
        if found is not None:
            name = f"comparison_{split or 'sample'}"
            caption = f"{split}: {_caption(plan, found[1], begun)}".lstrip(": ")
            drawn.append(inline(save(figures, name, *found, prefix=name)[1], caption, f"figure-{name}"))
            contents[f"figure-{name}"] = f"{COMPARISON.title}{f', {split}' * bool(split)}"
        shown = (*ERRORS, *COMPARED) if any(map(several, histories)) else COMPARED
        header, rows = final_table(methods, split, shown)
        tables.append(_titled(3, split) + plain_table(header, rows) if rows else "")
    for name in ORDER:
        plan = FIGURES.get(name) or PICTURES[name]
        of_task = [history for history in histories if plan.task in ("", history.config.get("task"))]
        if not plan.compared or len(of_task) < min(2, len(histories)):
            continue
        of_it = [method for method in begun if any(method.history is history for history in of_task)]
        if isinstance(plan, Plan):
            plan, alone = in_common(plan, of_task)
            left_out += [f"{plan.title}: {', '.join(alone)}"] * bool(alone)
            said = f"{f'{BANDS} over seeds' * _several(of_it)}{_convention(of_task, _measured(plan))}".lstrip("; ")
            title = _lines(f"{plan.title}\n{said}".strip())
            found = draw(plan, [method._replace(dash=None) for method in of_it], title) if plan.panels else None
        else:
            found = plan.draw(of_it, _lines(f"{plan.title}{_convention(of_task, plan.quantities)}"))
        if found is not None:
            drawn.append(
                inline(save(figures, name, *found, prefix=name)[1], _caption(plan, found[1], of_it), f"figure-{name}")
            )
            contents[f"figure-{name}"] = plan.title
    header, rows = differing(histories, labels)
    notes = [
        f"{label}: {note}" for history, label in zip(histories, labels, strict=True) for note in warnings_of(history)
    ]
    settings = plain_table(header, rows) if rows else "<p>None.</p>"
    contents = {"last": "Last evaluations"} | contents | {"differing": "Settings that differ"}
    lone = f"Not drawn, since one run alone has it: {'; '.join(left_out)}." if left_out else ""
    verdicts = zip(labels, map(verdict, histories), strict=True)
    parts = [
        found_boxes(verdicts),
        warnings_box(notes),
        f"<section id='last'><h2>Last evaluations</h2>{_paragraph(MEANING if _several(methods) else '')}"
        f"{''.join(tables)}</section>",
        _gallery(drawn) if drawn else _paragraph("The runs have no measured quantity in common."),
        _paragraph(lone) if lone else "",
        f'<section id="differing"><h2>Settings that differ</h2>{settings}</section>',
        *(
            _folded(f"{label}: settings", _json(history.config))
            for history, label in zip(histories, labels, strict=True)
        ),
    ]
    return document("Comparison of " + ", ".join(labels), parts, contents)


MEANING = "Mean ± half of the 95% interval over seeds (Student's t); a number alone is one run's."


def _heading(history: RunHistory, plan: Plan) -> str:
    """Two lines above a figure: what it shows of which run, and how it was measured."""
    bands = f"; {BANDS}" if any(len(runs) > 1 for runs in history.groups.values()) and not plan.each_run else ""
    return _lines(
        f"{plan.title}: {title_of(history)}\n{facts(history)}{bands}{_convention([history], _measured(plan))}"
    )


def _measured(plan: Plan) -> set[str]:
    """The quantities of a plan, without their layers."""
    return {line.quantity.split("@")[0] for panel in plan.panels for line in panel.lines}


def _convention(histories: Sequence[RunHistory], quantities: Collection[str]) -> str:
    """The convention of NC1, if it is among the quantities."""
    found = dict.fromkeys(history.convention for history in histories if history.convention)
    return f"; NC1: {', '.join(found)} convention" if found and "nc1" in quantities else ""


def _shown(history: RunHistory, plan: Plan) -> bool:
    """Whether the task-specific figures of the run already show what this general one would."""
    present = {name for axis, _, name in history.values if axis == "step" and name in _measured(plan)}
    return plan.task == "" and plan.x == "time" and present <= SHOWN.get(history.config.get("task", ""), set())


def _map_heading(history: RunHistory) -> str:
    return _lines(f"t-SNE of the features: {title_of(history)}\n{data_and_model(history)}")


def _compared_heading(histories: Sequence[RunHistory], methods: Sequence[Method], split: str) -> str:
    """What all runs have in common, or its range."""
    names = dict.fromkeys(data_and_model(history) for history in histories)
    sizes = span(history.sizes[split] for history in histories if split in history.sizes)
    seeds = span(len(method.runs) for method in methods)
    first = [f"{len(methods)} runs on {split or 'the sample'}", *names][: 2 if len(names) == 1 else 1]
    convention = dict.fromkeys(history.convention for history in histories if history.convention)
    second = [f"n = {sizes}" * bool(sizes), f"{seeds} seed{'' if seeds == '1' else 's'}"]
    second += [f"{BANDS} over seeds"] * _several(methods)
    second += [f"NC1: {', '.join(convention)} convention"] * bool(convention)
    return _lines("; ".join(filter(None, first)) + "\n" + "; ".join(filter(None, second)))


def _lines(text: str) -> str:
    return "\n".join(plain(line, 200) for line in text.split("\n"))


def _steps(history: RunHistory) -> str:
    """How far the run has come."""
    planned, per_epoch = history.config.get("steps"), history.config.get("steps_per_epoch")
    unfinished = isinstance(planned, int) and planned != history.last
    text = f"{history.last:,}{f' of {planned:,}' if unfinished else ''} steps"
    text += ", as its objective ended it" * (unfinished and rested(history))
    return text + (f", {per_epoch:,.4g} per epoch" if per_epoch else "")


def hardware(environment: Mapping[str, Any]) -> str:
    """One line: devices, processes, versions, commit; empty if unknown."""
    device = environment.get("device")
    platform = environment.get("platform", "?")
    kind = f" ({platform})" if platform != device else ""
    parts = [f"{environment.get('devices', 1)} × {device}{kind}" if device else ""]
    parts += [f"jax {environment['versions']['jax']}" if (environment.get("versions") or {}).get("jax") else ""]
    commit = environment.get("git") or ""
    parts += [f"commit {commit[:12]}{' with changes' * commit.endswith('+')}" if commit else ""]
    return ", ".join(filter(None, parts))


def _note(history: RunHistory) -> str:
    perfect = [header for _, header, _ in summary_tables(history) if any("at 100%" in name for name in header)]
    at = "; “at 100%”: where each run's training accuracy first reached 100%" if perfect else ""
    return f"{last_evaluation(history)}{at}"


def _titled(level: int, text: str) -> str:
    return f"<h{level}>{escape(text)}</h{level}>" if text else ""


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>" if text else ""


def _folded(title: str, html: str, key: str = "") -> str:
    name = f' id="{key}"' if key else ""
    return f"<details{name}><summary>{escape(title)}</summary>{html}</details>"


def _gallery(drawn: Iterable[str]) -> str:
    return f'<section><h2>Figures</h2><div class="figures">{"".join(drawn)}</div></section>' if drawn else ""


def _json(values: Mapping[str, Any]) -> str:
    return f'<pre class="scroll">{escape(json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False))}</pre>'
