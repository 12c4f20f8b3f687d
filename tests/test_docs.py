"""What the documentation says can be done: links resolve, commands parse, pictures exist, generated pages are fresh."""

import importlib.util
import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

import infojax
from infojax import measure
from infojax.bench.__main__ import BENCHES
from infojax.data.official import OFFICIAL
from infojax.processes import split_flags
from infojax.report import __main__ as report
from infojax.report.runs.statements import papers_box, statements
from infojax.tasks.config import ConfigError
from infojax.tasks.flags import parse

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md")), ROOT / "launch" / "README.md"]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
NOT_PARSED = {"--list", "--help"}


def gallery():
    spec = importlib.util.spec_from_file_location("gallery", DOCS / "gallery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands(text):
    """Words of each `python -m infojax...` of a text: shell lines, continued by a backslash, and inline code."""
    text = re.sub(r"\s*\\+\n\s*", " ", text)
    for found in re.finditer(r"python -m (infojax[\w.]*)((?: [^\n`]*)?)", text):
        line = re.split(r"\s{2,}|\s#|;| [|&>]", found[2].strip())[0]
        yield found[1], shlex.split(line)


def problem(module, words):
    """Why a command would be refused, or ""."""
    if not words or "--config=..." in words:
        return ""
    try:
        if module == "infojax.main" and not NOT_PARSED & set(words):
            _, rest = split_flags(words)
            parse(["infojax.main", *rest])
        elif module == "infojax.measure":
            measure.make_parser().parse_args(words)
        elif module == "infojax.report":
            report.make_parser().parse_args(words)
        elif module == "infojax.bench" and words[0] not in (*BENCHES, "NAME"):
            return f"no bench {words[0]}"
        elif module == "infojax.data.prepare":
            return "" if words[0] in OFFICIAL else f"no data set {words[0]}"
    except (ConfigError, Exception, SystemExit) as error:  # the parsers' own errors say what is wrong
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", [*PAGES, *CONFIGS], ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_parse(path):
    wrong = [
        f"python -m {module} {shlex.join(words)}: {why}"
        for module, words in commands(path.read_text())
        if (why := problem(module, words))
    ]
    assert wrong == []


def test_a_wrong_command_is_seen():
    text = "python -m infojax.main --config=configs/interplay.py:tny   # a comment\n    python -m infojax.bench fast\n"
    assert [bool(problem(*command)) for command in commands(text)] == [True, True]
    text = "`python -m infojax.main --config=configs/none.py`\n"
    text += "python -m infojax.main --config=configs/simplex.py \\\n  --config.epoch=3"
    assert [bool(problem(*command)) for command in commands(text)] == [True, True]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    own = [link.split("#")[0] for link in links if not re.match(r"\w+:", link) and not link.startswith("#")]
    assert [link for link in own if not (path.parent / link).exists()] == []
    named = re.findall(r"configs/\w+\.py", path.read_text())
    assert [name for name in named if name != "configs/NAME.py" and not (ROOT / name).is_file()] == []


def test_the_readme_is_short_and_its_picture_small():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 140
    assert "<!-- main job -->\n```sh\npython3 -m venv" in readme and "<!-- tests -->\n```sh\npython3 -m venv" in readme
    assert all(path.stat().st_size < 100_000 for path in (DOCS / "images").iterdir())


def test_the_gallery_is_fresh_and_whole():
    made = gallery()
    rows, expected = json.loads(made.ROWS.read_text()), json.loads(made.EXPECTED.read_text())
    assert [row["id"] for row in rows] == [figure["id"] for figure in expected["figures"]]
    assert {row["verdict"] for row in rows} <= set(made.VERDICTS)
    shown = [row | ({"image": f"images/{row['id']}.png"} if "series" in row else {}) for row in rows]
    assert (DOCS / "gallery.md").read_text() == made.page(shown, expected), "run python docs/gallery.py"
    assert [row["image"] for row in shown if "image" in row and not (DOCS / row["image"]).is_file()] == []


def test_the_papers_statements_belong_to_configs_and_files():
    folder = ROOT / "infojax" / "report" / "expected"
    figures = json.loads((folder / "figures.json").read_text())["figures"]
    names = {path.stem for path in CONFIGS}
    assert {study for figure in figures for study in figure["studies"]} <= names
    assert all((folder / f"{figure['cells']}.json").is_file() for figure in figures if "cells" in figure)
    (where, text), *_ = statements("temperature")
    assert where == "Song et al., Fig. 2b" and "falls with the temperature" in text
    assert statements("smoke") == [] and papers_box(SimpleNamespace(config={"name": "smoke"})) == ""
    assert "<b>Song et al., Fig. 2b</b>: The accuracy" in papers_box(SimpleNamespace(config={"name": "temperature"}))


def test_every_measure_has_its_formula():
    rows = set(re.findall(r"^\| `(\w+)` \|", (DOCS / "measures.md").read_text(), re.MULTILINE))
    parts = r"class_stats|second_pass|between_inverse|within_energy|nc1_one_pass|unit_rows|analyze|singular_values"
    parts += r"|(add_)?cka_moments|padded_groups|feature_norms|rhubarbwu_metrics|(update_)?vocabulary(_\w+)?"
    parts += r"|.*_from_\w+"
    public = {name for name in infojax.__all__ if name.islower() and not name.startswith("_")}
    assert {name for name in public - rows if not re.fullmatch(parts, name)} == set()


def test_the_tour_is_whole():
    """Every cell ran, in order, and left what a code host shows; it is run again in .ci/run."""
    path = DOCS / "tour.ipynb"
    every = json.loads(path.read_text())["cells"]
    said = "".join("".join(cell["source"]) for cell in every if cell["cell_type"] == "markdown")
    assert [link for link in re.findall(r"\]\(([^)\s]+)\)", said) if not (DOCS / link).exists()] == []
    cells = [cell for cell in every if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 5
    assert path.stat().st_size < 900_000
