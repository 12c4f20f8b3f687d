"""The measures compared with what people paste: the same work in NumPy and PyTorch, on the same arrays, in one run.

The pasted versions are written like ten lines of a notebook: N x N spectra for entropies, a covariance and a
pseudo-inverse for NC1. The versions of a row are called alternately and compared by their medians, so that other work
on the machine slows all of them. `goal` is the target ratio to the faster of the two; it was set against released
libraries, which also compute eigenvectors (repitl) or one-hot products (rhubarbwu), and are slower than these versions.

Where a goal is not reached, this is where the time goes (two cores of a Xeon):
  MI: one spectrum of side sum_c min(n_c, D), 1,280 of 4,000 rows and 1,000 of 1,000, takes two thirds of the time; a
    pasted version has three of side N. So the ratio cannot exceed 3 (N / 1,280)^3 by much.
  NC1: two passes over 100 MB, each 8 ms of memory traffic alone, and N D C products, or N D^2 / 2 from C = D on; these
    equal one bare Z^T Z, at full speed, where C = 1,000.
  analyze: four spectra in float64 with the digits of an SVD, where the pasted version has two in float32.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import infojax as ij
from infojax.bench.measures import features

Calls = dict[str, Callable[[], Any]]  # who -> work

BUDGET = 12.0  # seconds for the rounds of one row, after the first
ROUNDS = (3, 15)
TURN = 0.05  # seconds per turn: short calls are repeated, since the first one finds cold caches
PAUSE = 0.05  # seconds before each call: the threads of the previous call keep a core busy for a while
CONFIRMED = 2e-3  # relative: how closely the versions must agree to be compared; pasted ones round in float32


def entropy_numpy(z: np.ndarray) -> float:
    """H of the N x N cosine Gram."""
    u = z / np.linalg.norm(z, axis=1, keepdims=True)
    w = np.linalg.eigvalsh(u @ u.T).astype(np.float64) / len(u)
    w = w[w > 0]
    return float(-np.sum(w * np.log(w)))


def entropy_torch(z: np.ndarray) -> float:
    """H of the N x N cosine Gram."""
    import torch

    u = torch.nn.functional.normalize(torch.from_numpy(z))
    w = (torch.linalg.eigvalsh(u @ u.T) / len(u)).clamp(min=1e-12).double()
    return float(-(w * w.log()).sum())


def mutual_information_numpy(z: np.ndarray, labels: np.ndarray, head: np.ndarray) -> float:
    """I of features and head rows from three N x N spectra."""
    grams = []
    for rows in (z, head[labels]):
        u = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        grams.append(u @ u.T)
    spectra = [np.linalg.eigvalsh(k).astype(np.float64) / len(z) for k in (*grams, grams[0] * grams[1])]
    one, other, joint = (float(-np.sum(w[w > 0] * np.log(w[w > 0]))) for w in spectra)
    return one + other - joint


def mutual_information_torch(z: np.ndarray, labels: np.ndarray, head: np.ndarray) -> float:
    """I of features and head rows from three N x N spectra."""
    import torch

    grams = []
    for rows in (z, head[labels]):
        u = torch.nn.functional.normalize(torch.from_numpy(rows))
        grams.append(u @ u.T)
    found = []
    for k in (*grams, grams[0] * grams[1]):
        w = (torch.linalg.eigvalsh(k) / len(z)).clamp(min=1e-12).double()
        found.append(float(-(w * w.log()).sum()))
    return found[0] + found[1] - found[2]


def nc1_numpy(z: np.ndarray, labels: np.ndarray) -> float:
    """tr(S_W S_B^+) from D x D covariances, as in the released notebooks."""
    count = np.bincount(labels)
    means = np.stack([z[labels == c].mean(0) for c in range(len(count))])
    d = z - means[labels]
    within = d.T @ d / len(z)
    m = (means - (count / len(z)) @ means) * np.sqrt(count / len(z))[:, None]
    return float(np.trace(within @ np.linalg.pinv(m.T @ m, rcond=1e-6)))


def nc1_torch(z: np.ndarray, labels: np.ndarray) -> float:
    """tr(S_W S_B^+) from D x D covariances, in batches of 500, as in accumulators."""
    import torch

    x, y = torch.from_numpy(z), torch.from_numpy(labels)
    count = torch.bincount(y)
    means = torch.zeros(len(count), x.shape[1])
    for i in range(0, len(x), 500):
        means.index_add_(0, y[i : i + 500], x[i : i + 500])
    means /= count[:, None]
    within = torch.zeros(x.shape[1], x.shape[1])
    for i in range(0, len(x), 500):
        d = x[i : i + 500] - means[y[i : i + 500]]
        within += d.T @ d
    share = count / len(x)
    m = (means - share @ means) * share.sqrt()[:, None]
    return float(torch.trace(within / len(x) @ torch.linalg.pinv(m.T @ m, rtol=1e-6)))


def two_spectra_numpy(z: np.ndarray) -> float:
    """Cosine entropy and effective rank (of the singular values), each from the Gram of the smaller side."""
    u = z / np.linalg.norm(z, axis=1, keepdims=True)
    w = np.linalg.eigvalsh(u @ u.T).astype(np.float64) / len(u)
    s = np.sqrt(np.maximum(np.linalg.eigvalsh(z @ z.T), 0).astype(np.float64))
    p = s[s > 0] / s.sum()
    return float(-np.sum(w[w > 0] * np.log(w[w > 0]))) + 0 * float(np.exp(-np.sum(p * np.log(p))))


def two_spectra_torch(z: np.ndarray) -> float:
    """Cosine entropy and effective rank (of the singular values), each from the Gram of the smaller side."""
    import torch

    x = torch.from_numpy(z)
    u = torch.nn.functional.normalize(x)
    w = (torch.linalg.eigvalsh(u @ u.T) / len(u)).clamp(min=1e-12).double()
    s = torch.linalg.eigvalsh(x @ x.T).clamp(min=0).double().sqrt()
    p = (s / s.sum()).clamp(min=1e-30)
    return float(-(w * w.log()).sum()) + 0 * float(torch.exp(-(p * p.log()).sum()))


def effective_rank_numpy(z: np.ndarray) -> float:
    """exp of the entropy of the singular values."""
    s = np.linalg.svd(z, compute_uv=False)
    p = s[s > 0] / s.sum()
    return float(np.exp(-np.sum(p * np.log(p))))


def effective_rank_torch(z: np.ndarray) -> float:
    """exp of the entropy of the singular values."""
    import torch

    s = torch.linalg.svdvals(torch.from_numpy(z))
    p = (s / s.sum()).clamp(min=1e-30)
    return float(torch.exp(-(p * p.log()).sum()))


def cases(quick: bool = False) -> list[tuple[str, Calls, float]]:
    """(work, who -> call, goal) of each row; `quick` keeps the small ones."""
    found: list[tuple[str, Calls, float]] = []
    ours: Calls
    pasted: Calls
    for n, entropy_goal, information_goal in ((4_000, 1000, 100), (1_000, 50, 10))[quick:]:
        z, labels, head, _ = features(n, 10, 128)
        ours = {"infojax": lambda z=z: ij.matrix_entropy(z)}
        pasted = {"numpy": lambda z=z: entropy_numpy(z), "torch": lambda z=z: entropy_torch(z)}
        found.append((f"H, {n:,} x 128", ours | pasted, entropy_goal))
        given = z, labels, head
        ours = {"infojax": lambda given=given: ij.interplay(*given).mutual_information}
        pasted = {
            "numpy": lambda given=given: mutual_information_numpy(*given),
            "torch": lambda given=given: mutual_information_torch(*given),
        }
        found.append((f"MI with head rows, {n:,} x 128, C = 10", ours | pasted, information_goal))
    n = 2_000 if quick else 50_000
    for c, goal in ((10, 5), (100, 3), (1_000, 3))[: 1 if quick else 3]:
        z, labels, _, _ = features(n, c, 512)
        ours = {"infojax": lambda z=z, labels=labels: ij.nc1(z, labels)}
        pasted = {
            "numpy": lambda z=z, labels=labels: nc1_numpy(z, labels),
            "torch": lambda z=z, labels=labels: nc1_torch(z, labels),
            "Z^T Z": lambda z=z: z.T @ z,
        }
        found.append((f"NC1, {n:,} x 512, C = {c:,}", ours | pasted, goal))
    shape = (200, 512) if quick else (1_000, 4_096)
    z = features(shape[0], 10, shape[1])[0]
    size = f"{shape[0]:,} x {shape[1]:,}"
    ours = {"infojax": lambda: ij.analyze(z).measures["entropy_features"]}
    pasted = {"numpy": lambda: two_spectra_numpy(z), "torch": lambda: two_spectra_torch(z)}
    found.append((f"analyze compared with two spectra, {size}", ours | pasted, 1))
    ours = {"infojax": lambda: ij.effective_rank(z)}
    pasted = {"numpy": lambda: effective_rank_numpy(z), "torch": lambda: effective_rank_torch(z)}
    found.append((f"effective rank, {size}", ours | pasted, 3))
    return found


def taken(calls: Calls, budget: float) -> dict[str, float]:
    """Median seconds of each call; the calls alternate as often as the budget allows, after one warm-up round.

    Raises:
      ValueError: two of them disagree on the value.
    """
    values = {who: np.asarray(jax.block_until_ready(call())) for who, call in calls.items()}
    numbers = {who: float(value) for who, value in values.items() if not value.ndim}
    for who, value in numbers.items():
        if abs(value - numbers["infojax"]) > CONFIRMED * abs(numbers["infojax"]):
            raise ValueError(f"{who} found {value}, infojax {numbers['infojax']}")
    times: dict[str, list[float]] = {who: [] for who in calls}
    begun = time.perf_counter()
    for rounds in range(ROUNDS[1]):
        if rounds >= ROUNDS[0] and (time.perf_counter() - begun) * (rounds + 1) > budget * rounds:
            break
        for who, call in calls.items():
            time.sleep(PAUSE)
            turn = time.perf_counter()
            while (start := time.perf_counter()) < turn + TURN:
                jax.block_until_ready(call())
                times[who].append(time.perf_counter() - start)
    return {who: statistics.median(found) for who, found in times.items()}


def warnings() -> list[str]:
    """Reasons why the figures may not carry over to other machines."""
    found = [
        f"{key} is set ({os.environ[key]}): NumPy's BLAS is not as users have it"
        for key in ("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
        if key in os.environ
    ]
    load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, os.cpu_count() or 1
    if load > cores / 2:
        found.append(f"other work is on the {cores} cores (load {load:.1f}): compare ratios, not seconds")
    return found


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Rows: work, median seconds of infojax and of the pasted versions, ratio to the faster of them, goal."""
    for warning in warnings():
        print(f"warning: {warning}", file=sys.stderr)
    try:
        import torch  # noqa: F401
    except ImportError:
        print("warning: torch is not installed: infojax is compared with NumPy only", file=sys.stderr)
        without = {"torch"}
    else:
        without = set()
    rows = []
    for work, calls, goal in cases(quick):
        found = taken({who: call for who, call in calls.items() if who not in without}, 0.2 if quick else BUDGET)
        ours = found["infojax"]
        least = min(found[who] for who in ("numpy", "torch") if who in found)
        row = {"work": work} | {f"{who}_s": found.get(who) for who in ("infojax", "numpy", "torch")}
        row |= {"ratio": least / ours, "goal": goal}
        rows.append(row | ({"over_ZtZ": ours / found["Z^T Z"]} if "Z^T Z" in found else {}))
    return rows
