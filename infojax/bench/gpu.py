"""One GPU in a few minutes: `python -m infojax.bench gpu --minutes 10 --out DIR`.

Needs jax, flax, optax and orbax; compares with PyTorch where it is installed. The most valuable figures come first.
Every row is written to DIR/gpu.jsonl as soon as it is known, so that an interrupted run keeps what it finished; at the
end DIR/gpu.md holds the same rows as tables. On a CPU small sizes exercise the same code.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from infojax import outputs
from infojax.bench.gpu_checks import correctness, eigensolver, resume
from infojax.bench.gpu_speed import augmentation, measures, seeds, steps

RESERVE = 20  # seconds that must be left to start another row


def machine(quick: bool) -> Iterator[dict[str, Any]]:
    """Device, clocks and versions."""
    device = jax.devices()[0]
    row = {"device": device.device_kind, "platform": device.platform, "python": sys.version.split()[0]}
    for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "torch"):
        try:
            row[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            row[name] = "absent"
    query = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,memory.total"
    try:
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        row |= dict(zip(query.split(","), found.stdout.splitlines()[0].split(", "), strict=False))
    except (OSError, subprocess.SubprocessError, IndexError):
        row["nvidia-smi"] = "absent"
    yield row


def selfsup(quick: bool) -> Iterator[dict[str, Any]]:
    """Barlow Twins with ViT-S/16 and MAE with ViT-B/16, at 224 x 224, including their views."""
    from infojax.bench.selfsup import large

    yield from large(quick)


def coop(quick: bool) -> Iterator[dict[str, Any]]:
    """A CoOp step with the text tower of ViT-B/16; see `bench crossmodal`."""
    from infojax.bench import crossmodal

    found = crossmodal.steps(quick)
    yield from ({name: value for name, value in row.items() if name != "kind"} for row in found)


def few_labels(quick: bool) -> Iterator[dict[str, Any]]:
    """Steps/s of semi-supervised steps with 64 labelled pictures and two views of 448 unlabelled ones."""
    from infojax.bench import semisup

    yield from semisup.on_gpu(quick)


PARTS = {
    "machine": machine,
    "correctness": correctness,
    "measures": measures,
    "augmentation": augmentation,
    "eigensolver": eigensolver,
    "resume": resume,
    "few_labels": few_labels,
    "step": steps,  # half a minute of compilation each
    "seeds": seeds,
    "coop": coop,
    "selfsup": selfsup,
}


def run(quick: bool = False, minutes: float = 10.0, out: Any = None) -> list[dict[str, Any]]:
    """Rows of all parts, as far as the time allows; on a CPU the sizes are the smallest ones."""
    quick = quick or jax.default_backend() == "cpu"
    deadline = time.monotonic() + 60 * minutes
    folder = Path(out or ".")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    with open(folder / "gpu.jsonl", "w", encoding="utf-8") as file:
        for part, found in PARTS.items():
            for row in _until(deadline, part, found, quick):
                rows.append({"kind": part} | row)
                file.write(json.dumps(rows[-1]) + "\n")
                file.flush()
                print(json.dumps(rows[-1]), flush=True)
    outputs.write(folder / "gpu.md", markdown(rows))
    return rows


def _until(deadline, part, found, quick):
    """Rows of a part until the time is up; a part that fails reports it, and the next one runs."""
    rows = found(quick)
    while True:
        if time.monotonic() > deadline - RESERVE:
            yield {"left_out": f"the time was up in part {part}"}
            return
        try:
            yield next(rows)
        except StopIteration:
            return
        except Exception as error:  # the remaining parts are still worth running
            yield {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
            return


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """One table per part."""
    lines = []
    for part in dict.fromkeys(row["kind"] for row in rows):
        of_part = [{k: v for k, v in row.items() if k != "kind"} for row in rows if row["kind"] == part]
        keys = list(dict.fromkeys(key for row in of_part for key in row))
        lines += [f"## {part}", "", "| " + " | ".join(keys) + " |", "|" + "---|" * len(keys)]
        for row in of_part:
            cells = (row.get(key, "") for key in keys)
            lines.append("| " + " | ".join(f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells) + " |")
        lines.append("")
    return "\n".join(lines)
