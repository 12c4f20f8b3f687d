"""The gallery: every figure and table of the papers beside ours.

  python docs/gallery.py               writes docs/gallery.md from docs/gallery.json and the papers' statements
  python docs/gallery.py fig-2b        first runs that row's command again: picture, seeds, n, time, commit
  python docs/gallery.py fig-2b RUN    first takes them from the folder of a run that is there already

The papers' side is in infojax/report/expected/figures.json, which the pages of runs read, too. A row of gallery.json
says what we found, and how: `run` (a command after `python -m infojax.main`), `figure` (of the run's page), `crop` (the
part of its height that is shown). Rows without a picture of a run may draw the numbers of docs/results.md (`series`).
"""

import io
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
ROWS = DOCS / "gallery.json"
EXPECTED = ROOT / "infojax" / "report" / "expected" / "figures.json"
VERDICTS = {
    "reproduces": "reproduce",
    "partly": "reproduce in part",
    "does not": "do not",
    "cannot be run here": "cannot be run here",
    "schematic": "is a diagram",
}
LARGEST = 60_000  # bytes of a picture
HEAD = """# Gallery

Every figure and table of the papers with the paper's statement, and what this code found. Most of ours are small:
bundled digits, Fashion-MNIST, two CPU cores. **Reproduces** and **does not** speak of the statement at that scale, not
of the paper's figure at its own; **cannot be run here** names the command and what it is expected to cost.

`python docs/gallery.py ID` runs a row again, with its picture. [What was run](results.md) has all numbers; pictures
without a commit draw those. The papers' sides are in `infojax/report/expected`, in one place for this page and for the
pages of runs. Costs on one GPU are estimated from the steps/s measured on one H200 ([bench gpu](results.md));
`--dry_run` prints FLOPs and time for yours.
"""


def picture_of(source, crop, width=860):
    """PNG bytes of a figure, smaller and with few colours, of at most LARGEST bytes."""
    from PIL import Image

    image = Image.open(source).convert("RGB")
    top, bottom = crop or (0.0, 1.0)
    image = image.crop((0, int(top * image.height), image.width, int(bottom * image.height)))
    for colours in (None, 128, 64, 32):
        small = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        if colours:  # an octree keeps thin coloured lines, which a median cut turns grey
            small = small.quantize(colours, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        small.save(out, "PNG", optimize=True)
        if out.tell() <= LARGEST:
            break
    return out.getvalue()


def chart_of(series):
    """PNG bytes of numbers: panels of {title, x, xlabel, lines: {name: [values] or [values, half widths]}}."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(series), figsize=(3.3 * len(series), 2.5), squeeze=False)
    for axis, panel in zip(axes[0], series, strict=True):
        for name, values in panel["lines"].items():
            several = isinstance(values[0], list)
            axis.errorbar(panel["x"], values[0] if several else values, values[1] if several else None,
                          label=name, marker="o", markersize=3, linewidth=1.3, capsize=2)  # fmt: skip
        for name, value in panel.get("limits", {}).items():
            axis.axhline(value, color="black", linestyle="--", linewidth=0.8, label=name)
        axis.set_xscale(panel.get("xscale", "linear"))
        axis.set_yscale(panel.get("yscale", "linear"))
        axis.set_title(panel["title"], fontsize=9, loc="left")
        axis.set_xlabel(panel["xlabel"], fontsize=8)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=6, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    pyplot.close(figure)
    return out.getvalue()


def rerun(row, folder=None):
    """Runs the row's command, or takes a finished run; fills in its picture, n, seeds, seconds and commit."""
    if folder is None:
        folder = ROOT / "runs" / "gallery" / row["id"]
        started = time.time()
        command = [sys.executable, "-m", "infojax.main", *shlex.split(row["run"]), f"--workdir={folder}"]
        subprocess.run(command, cwd=ROOT, check=True)
        row["seconds"] = round(time.time() - started)
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text())
    row["commit"] = json.loads((folder / "env.json").read_text()).get("git", "")[:7]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    sizes = {one["split"]: one["n"] for one in rows if one.get("kind") == "eval" and "n" in one}
    row["n"] = ", ".join(f"{split} {n:,}" for split, n in sizes.items())
    row["seeds"] = config.get("seeds", 1)
    row.pop("series", None)
    row["image"] = f"images/{row['id']}.png"
    (DOCS / row["image"]).write_bytes(picture_of(folder / "figures" / f"{row['figure']}.png", row.get("crop")))


def page(rows, expected):
    """The text of gallery.md."""
    parts, by_id = [HEAD], {row["id"]: row for row in rows}
    verdicts = [row["verdict"] for row in rows]
    said = [f"{verdicts.count(v)} {words}" for v, words in VERDICTS.items()]
    parts.append(f"Of {len(rows)} rows {', '.join(said)}.\n")
    for key, title in expected["sources"].items():
        parts.append(f"## {title}\n")
        for figure in (f for f in expected["figures"] if f["source"] == key):
            parts.append(section(figure, by_id[figure["id"]]))
    return "\n".join(parts)


def section(figure, row):
    """One row: both statements, the picture, how it was made."""
    where = figure["where"] + (f", page {figure['page']}" if "page" in figure else "")
    lines = [f"### {where}\n", f"`{row['id']}`\n", f"*The paper*: {figure['statement']}\n"]
    lines.append(f"*Here*: **{row['verdict']}**. {row['ours']}\n")
    if "image" in row:
        lines.append(f"![{where}]({row['image']})\n")
    facts = []
    if "run" in row:
        facts.append(f"`python -m infojax.main {row['run']}`")
    facts += [f"{name} {row[key]}" for key, name in (("n", "n:"), ("seeds", "seeds:"), ("intervals", "intervals:"),
              ("seconds", "seconds:"), ("commit", "commit")) if row.get(key) not in (None, "")]  # fmt: skip
    if facts:
        lines.append("; ".join(facts) + ".\n")
    if "gpu" in row:
        lines.append(f"Only a GPU can settle it: `python -m infojax.main {row['gpu']['run']}`, {row['gpu']['cost']}.\n")
    return "\n".join(lines)


def main(argv):
    rows = json.loads(ROWS.read_text(encoding="utf-8"))
    known = {row["id"]: row for row in rows}
    if argv:
        if argv[0] not in known or "figure" not in known[argv[0]]:
            print(f"no row {argv[0]} with a run; rows: {', '.join(k for k, r in known.items() if 'figure' in r)}")
            return 2
        rerun(known[argv[0]], *argv[1:2])
        ROWS.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for row in rows:
        if "series" in row:
            row["image"] = f"images/{row['id']}.png"
            if not (DOCS / row["image"]).exists():
                (DOCS / row["image"]).write_bytes(chart_of(row["series"]))
    (DOCS / "gallery.md").write_text(page(rows, json.loads(EXPECTED.read_text(encoding="utf-8"))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
