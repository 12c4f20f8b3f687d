"""The correctness checks of `bench gpu`: measures against float64, eigenvalues of low-rank Grams, bitwise resume."""

import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import infojax as ij
from infojax.bench.gpu_speed import CLASSES, Case, features, spread
from infojax.objectives import Seeds


def correctness(quick: bool) -> Iterator[dict[str, Any]]:
    """Values and gradients on the device in float32 compared with float64 on the host."""
    z, labels, head = features(256 if quick else 2048, 32 if quick else 128, CLASSES)
    measures = {
        "matrix_entropy": lambda z, w: ij.matrix_entropy(z),
        "effective_rank": lambda z, w: ij.effective_rank(z),
        "mutual_information": lambda z, w: ij.interplay(z, labels, w).mutual_information,
        "mir": lambda z, w: ij.interplay(z, labels, w).mir,
        "hdr": lambda z, w: ij.interplay(z, labels, w).hdr,
        "nc1": lambda z, w: ij.nc1(z, labels, CLASSES),
        "nc2_etf_distance": lambda z, w: ij.nc2(z, labels, CLASSES).etf_distance,
        "nc3": lambda z, w: ij.nc3(z, labels, w),
        "cdnv": lambda z, w: ij.cdnv(z, labels, CLASSES),
        "coding_rate": lambda z, w: ij.coding_rate(z),
    }
    host = jax.devices("cpu")[0]
    for name, measure in measures.items():
        both = jax.jit(jax.value_and_grad(measure))
        value, gradient = both(jnp.asarray(z), jnp.asarray(head))
        with jax.enable_x64(True), jax.default_device(host):
            exact, slope = both(jnp.asarray(z, jnp.float64), jnp.asarray(head, jnp.float64))
        yield {
            "measure": name,
            "value": float(value),
            "relative_error": abs(float(value) - float(exact)) / abs(float(exact)),
            "gradient_relative_error": float(np.linalg.norm(gradient - np.asarray(slope)) / np.linalg.norm(slope)),
        }


def eigensolver(quick: bool) -> Iterator[dict[str, Any]]:
    """Eigenvalues of float32 Gram matrices of low rank, whose exact spectrum follows from the small factor."""
    for n in (128,) if quick else (4096, 8192, 16384):
        z, _, _ = features(n, 32 if quick else 256, CLASSES)
        u = z / np.linalg.norm(z, axis=1, keepdims=True)
        exact = np.linalg.eigvalsh(u.T.astype(np.float64) @ u.astype(np.float64)) / n
        gram = jnp.matmul(u, u.T, precision="highest") / n
        solve = jax.jit(jnp.linalg.eigvalsh)
        seconds, *_ = spread(lambda gram=gram, solve=solve: solve(gram), 1)
        found = np.asarray(solve(gram), np.float64)
        yield {
            "n": n,
            "rank": int(np.sum(exact > 1e-12)),
            "seconds": seconds,
            "not_finite": int(np.sum(~np.isfinite(found))),
            "least_over_largest": float(found.min() / found.max()),
            "largest_error_over_largest": float(np.abs(found[-len(exact) :] - exact).max() / exact.max()),
            "entropy_error": float(ij.matrix_entropy_from_gram(gram * n))
            - float(-np.sum(exact[exact > 0] * np.log(exact[exact > 0]))),
        }


RESUME = """
import sys
from infojax.bench.gpu_checks import trained
print(trained(int(sys.argv[1]), sys.argv[2], bool(int(sys.argv[3]))))
"""


def trained(steps: int, folder: str | Path, quick: bool) -> int:
    """CRC-32 of the state after `steps` steps, continuing from the checkpoint in `folder` if there is one."""
    from infojax.train.checkpoint import Checkpoints

    case = Case("wrn_28_2", "bf16", 8 if quick else 64, quick=True)  # small, because each process compiles it
    state, step = case.state(), jax.jit(case.step)
    with Checkpoints(folder) as checkpoints:
        if found := checkpoints.restore(state):
            state = found[1]
        while int(state.step) < steps:
            state, _ = step(case.task, state, case.constants, Seeds())
        checkpoints.save(int(state.step), state)
    return zlib.crc32(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)))


def resume(quick: bool) -> Iterator[dict[str, Any]]:
    """Whether resuming from a checkpoint is bitwise equal to an uninterrupted run, with deterministic operations.

    Every process compiles anew, as after a preemption: kernels that are chosen by timing could differ.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if jax.default_backend() == "gpu":
        flags += " --xla_gpu_deterministic_ops=true"
    environment = os.environ | {"XLA_FLAGS": flags, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    half, all_steps = (1, 2) if quick else (20, 40)
    sums = []
    with tempfile.TemporaryDirectory() as folder:
        for steps, name in ((all_steps, "uninterrupted"), (half, "resumed"), (all_steps, "resumed")):
            command = [sys.executable, "-c", RESUME, str(steps), str(Path(folder) / name), str(int(quick))]
            child = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            if child.returncode:
                raise RuntimeError((child.stderr.strip().splitlines() or ["no message"])[-1])
            sums.append(child.stdout.split()[-1])
    yield {"flags": flags.strip(), "steps": all_steps, "bitwise": sums[0] == sums[2]}
