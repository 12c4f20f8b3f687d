"""Measuring a file of 2,000,000 x 256 float32 (2 GB) in bounded memory: `python -m infojax.bench file`."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROWS, COLUMNS, CLASSES = 2_000_000, 256, 10

CHILD = """
import resource, sys
from infojax import measure
import infojax, jax.numpy as jnp
jnp.zeros(8).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
code = measure.main(sys.argv[1:])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(after - before, file=sys.stderr)
sys.exit(code)
"""


def write_blocks(path: Path, rows: int, columns: int, classes: int, seed: int = 0, block: int = 50_000) -> None:
    """Writes random class features as .npy, and their labels to another, block by block."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(classes, columns)).astype(np.float32)
    labels = rng.integers(0, classes, rows)
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, columns)}
    with open(path, "wb") as f:
        np.lib.format.write_array_header_1_0(f, header)
        for start in range(0, rows, block):
            y = labels[start : start + block]
            f.write((means[y] + rng.standard_normal((len(y), columns), np.float32)).tobytes())
    np.save(path.with_suffix(".labels.npy"), labels)


def run(quick: bool = False) -> list[dict[str, Any]]:
    """One row: seconds and growth of the peak resident set over the whole measurement."""
    rows = ROWS // 20 if quick else ROWS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npy"
        write_blocks(path, rows, COLUMNS, CLASSES)
        flags = ["--labels", str(path.with_suffix(".labels.npy")), "--json", str(Path(folder) / "out.json"), "--quiet"]
        start = time.perf_counter()
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(path), *flags], capture_output=True, text=True, check=False
        )
        taken = time.perf_counter() - start
        if child.returncode:
            raise RuntimeError(child.stderr.strip())
        found = json.loads((Path(folder) / "out.json").read_text())[str(path)]["features"]["measures"]
        size = path.stat().st_size
    growth = int(child.stderr.split()[-1]) / 1024
    return [
        {
            "rows": rows, "columns": COLUMNS, "classes": CLASSES, "file_mb": round(size / 1e6), "seconds": taken,
            "peak_rss_growth_mb": round(growth), "entropy_features": found["entropy_features"], "nc1": found["nc1"],
        }
    ]  # fmt: skip
