"""The papers' statements about a study, for the page of its run: `infojax/report/expected/figures.json`."""

import json
from html import escape
from importlib.resources import files

from infojax.report.runs.rows import RunHistory


def statements(study: str) -> list[tuple[str, str]]:
    """(location, statement) of each figure and table of the papers that the config `study` reproduces."""
    found = json.loads((files("infojax.report") / "expected" / "figures.json").read_text(encoding="utf-8"))
    return [
        (f"{found['sources'][figure['source']].split(',')[0]}, {figure['where']}", figure["statement"])
        for figure in found["figures"]
        if study in figure["studies"]
    ]


def papers_box(history: RunHistory) -> str:
    """A folded section with the statements; "" if there are none."""
    found = statements(str(history.config.get("name", "")))
    rows = "".join(f"<li><b>{escape(where)}</b>: {escape(text)}</li>" for where, text in found)
    return f"<details><summary>What the papers say</summary><ul>{rows}</ul></details>" if found else ""
