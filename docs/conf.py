"""The site: `python -m sphinx -W --keep-going docs site`. Sphinx with MyST and furo, as JAX's own libraries use."""

import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

project = "infojax"
author = "The infojax authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["**.ipynb_checkpoints"]
html_theme = "furo"
html_title = "infojax"

# The tour has its outputs; `jupyter execute` makes them, in a step of its own.
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings tell shapes and units, which types do not
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
default_role = "code"

# Code below docs/ is not part of the site; links to it are links to files.
suppress_warnings = ["myst.xref_missing", "config.cache"]


def formulas():
    """{function: LaTeX} of the tables in measures.md, the one place that has them."""
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", (DOCS / "measures.md").read_text(), re.MULTILINE)
    return {name: formula for name, formula in rows if "$" in formula}


def escaped(line):
    """A line of a docstring with the characters that mean something in reStructuredText taken literally."""
    parts = re.split(r"(``.*?``|`[^`]*`)", line)
    return "".join(part if i % 2 else re.sub(r"([\\*|_])", r"\\\1", part) for i, part in enumerate(parts))


def process(app, what, name, obj, options, lines):
    """Docstrings are written for the terminal: indented formulas stay as they are, and measures get LaTeX."""
    out, body = [], True
    for line in lines:
        body = body and not re.match(r"(Args|Returns|Raises|References|Attributes|Examples?):", line)
        indented = body and line.startswith(" ") and line.strip()
        if indented and out and out[-1].strip() and not out[-1].startswith(" "):
            out += ["", "::", ""]
        elif indented and out and not out[-1].strip():
            out += ["::", ""] if not any(o.strip() and o.startswith(" ") for o in out[-2:]) else []
        elif not indented and out and out[-1].startswith(" ") and line.strip() and body:
            out.append("")
        out.append(line if indented else escaped(line))
    formula = formulas().get(name.rsplit(".", 1)[-1]) if what == "function" else None
    if formula:
        found = re.findall(r"\$(.+?)\$", formula)
        at = next((i for i, line in enumerate(out) if not line.strip()), len(out))
        out[at:at] = ["", *(f".. math:: {f}" + "\n" for f in found[:1]), ""]
    lines[:] = "\n".join(out).split("\n")


def setup(app):
    app.connect("autodoc-process-docstring", process, priority=100)
