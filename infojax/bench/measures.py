"""The measures over N, C and D: route, seconds, memory and float32 error, compared with the dense N x N route.

Features are ReLU class features with a power-law within-class spectrum and a common mean, like a trained network's.
Every call is eager, on data already in memory. Dense routes are timed up to a bearable N; beyond it they are
extrapolated by N^3 and marked `~`.
"""

import gc
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import infojax as ij

SAMPLES = (1_000, 10_000, 50_000)
HEADS = ((10, 128), (100, 512), (1000, 512))
DENSE = {"entropy": 4_000, "interplay": 2_000}  # largest N whose dense route takes seconds, not minutes
COMPRESSED = 4_096  # largest side of the joint matrix that this benchmark decomposes exactly


def features(n: int, num_classes: int, dim: int, seed: int = 0) -> tuple[Any, ...]:
    """(z, labels, head, bias) as float32 numpy arrays."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % num_classes)
    means = rng.normal(size=(num_classes, dim)) + 0.5
    z = means[labels] + rng.normal(size=(n, dim)) * np.arange(1, dim + 1) ** -0.5
    head = means - means.mean(0) + 0.3 * rng.normal(size=means.shape)
    as32 = [np.float32(x) for x in (np.maximum(z, 0), head, 0.1 * rng.normal(size=num_classes))]
    return as32[0], labels, *as32[1:]


def seconds(f: Callable[[], Any], budget: float = 2.0) -> float:
    """Best time of f() after one warm-up, within about `budget` seconds of repetition."""
    jax.block_until_ready(f())
    best, spent = float("inf"), 0.0
    while spent < budget:
        start = time.perf_counter()
        jax.block_until_ready(f())
        taken = time.perf_counter() - start
        best, spent = min(best, taken), spent + max(taken, budget / 50)
    return best


def peak_mb(f: Callable[[], Any]) -> float | None:
    """Growth of the resident set at its peak during f(), in MB; None where the system does not report it."""
    try:
        gc.collect()
        with open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")  # sets the recorded peak back to the current size
        before = _status_mb("VmRSS")
        jax.block_until_ready(f())
        return max(_status_mb("VmHWM") - before, 0.0)
    except OSError:
        return None


def _status_mb(key):
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) / 1024 for line in f if line.startswith(key))


def dense_entropy(z: Any) -> jax.Array:
    """The naive implementation: the spectrum of the N x N Gram, float32."""
    w = jnp.linalg.eigvalsh(ij.gram(z)) / len(z)
    return -jnp.sum(jnp.where(w > 0, w * jnp.log(jnp.where(w > 0, w, 1)), 0))


def dense_mutual_information(z: Any, labels: Any, head: Any) -> jax.Array:
    """The naive implementation: three N x N spectra."""
    k1, k2 = ij.gram(z), ij.gram(head[labels])

    def entropy(k):
        w = jnp.linalg.eigvalsh(k) / len(k)
        return -jnp.sum(jnp.where(w > 0, w * jnp.log(jnp.where(w > 0, w, 1)), 0))

    return entropy(k1) + entropy(k2) - entropy(k1 * k2)


def row(
    name: str,
    route: str,
    n: int,
    c: int,
    d: int,
    dtype: Any,
    f: Callable[[], Any],
    exact: Any = None,
    reference: Any = None,
    baseline: Any = None,
) -> dict[str, Any]:
    """One line of the table; `reference` is (seconds, extrapolated) of the baseline named by `baseline`."""
    value = float(f())
    taken = seconds(f)
    memory = peak_mb(f)
    error = None if exact is None else abs(value - exact) / max(abs(exact), 1e-30)
    result = {
        "measure": name, "N": n, "C": c, "D": d, "dtype": dtype, "route": route, "seconds": taken,
        "peak_mb": None if memory is None else round(memory), "rel_error": error,
    }  # fmt: skip
    if reference is not None:
        other, extrapolated = reference
        result |= {"baseline": ("~" if extrapolated else "") + baseline, "baseline_s": other, "ratio": other / taken}
    return result


def run(quick: bool = False) -> list[dict[str, Any]]:
    """All rows; `quick` keeps N = 1000."""
    rows = []
    for c, d in HEADS:
        for n in SAMPLES[:1] if quick else SAMPLES:
            rows += _case(n, c, d)
    return rows


def _dense_seconds(f, largest, n, exponent=3):
    """(seconds, extrapolated) of a dense route at N = min(n, largest), scaled by N^3 beyond."""
    m = min(n, largest)
    taken = seconds(lambda: f(m), budget=0.5)
    return taken * (n / m) ** exponent, m < n


def _case(n, c, d):
    arrays = features(n, c, d)
    z, labels, head, bias = (jnp.asarray(a) for a in arrays)
    compressed = sum(np.minimum(np.bincount(arrays[1], minlength=c), d))
    with jax.enable_x64(True):
        z64, head64, bias64 = (jnp.asarray(np.float64(a)) for a in (arrays[0], arrays[2], arrays[3]))
        exact = {
            "entropy": float(ij.matrix_entropy(z64)),
            "nc1": float(ij.nc1(z64, labels, c)),
            "cdnv": float(ij.neural_collapse(z64, labels, head64, bias64).cdnv),
        }
        if compressed <= COMPRESSED:
            exact["mi"] = float(ij.interplay(z64, labels, head64).mutual_information)
    dense_h = _dense_seconds(lambda m: dense_entropy(z[:m]), DENSE["entropy"], n)
    side = f"{min(n, d)} x {min(n, d)}"
    out = [
        row("matrix_entropy", side, n, c, d, "float32", lambda: ij.matrix_entropy(z), exact["entropy"],
            dense_h, "N x N eigvalsh"),
        row("matrix_entropy alpha=2", "Frobenius", n, c, d, "float32", lambda: ij.matrix_entropy(z, alpha=2.0)),
    ]  # fmt: skip
    if compressed <= COMPRESSED:
        dense_mi = _dense_seconds(lambda m: dense_mutual_information(z[:m], labels[:m], head), DENSE["interplay"], n)
        route = f"{compressed} x {compressed}"
        mi = lambda *a: ij.interplay(*a).mutual_information  # noqa: E731
        out.append(row("interplay MI", route, n, c, d, "float32", lambda: mi(z, labels, head), exact["mi"],
                       dense_mi, "3 N x N eigvalsh"))  # fmt: skip
        with jax.enable_x64(True):
            out.append(row("interplay MI", route, n, c, d, "float64", lambda: mi(z64, labels, head64), exact["mi"]))
    host = np.asarray(z)
    gram = (seconds(lambda: host.T @ host), False)
    out.append(row("nc1", "two passes", n, c, d, "float32", lambda: ij.nc1(z, labels, c), exact["nc1"],
                   gram, "Z^T Z (BLAS)"))  # fmt: skip
    everything = lambda: ij.neural_collapse(z, labels, head, bias).cdnv  # noqa: E731
    out.append(row("NC1-NC4, CDNV, DB", "two passes", n, c, d, "float32", everything, exact["cdnv"],
                   gram, "Z^T Z (BLAS)"))  # fmt: skip
    return out
