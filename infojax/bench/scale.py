"""Sizes that do not fit: joint entropies and MIR of up to a million samples, streamed moments, work per device.

Features are drawn block by block from a seed (class means, power-law noise, ReLU), so that any N streams without a
file. Three kinds of rows: `entropy` times the routes on the machine's device; `moments` compares streamed class
statistics with the time to read the same memory; `devices` reads FLOPs, memory and bytes moved from programs compiled
for TPU pods (where libtpu is installed) or for CPU devices: computed, not timed.
"""

import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

import infojax as ij
from infojax import parallel
from infojax.bench.collectives import bytes_moved
from infojax.bench.measures import peak_mb, seconds
from infojax.measures.estimate import InterplayEstimate
from infojax.measures.moments import ClassStats

SAMPLES = (1_000, 4_000, 50_000, 200_000, 1_000_000)
SHAPES = {(10, 128): SAMPLES, (100, 512): SAMPLES, (1000, 2048): SAMPLES[:3]}  # (C, D) -> N; larger ones take hours
MOST_BYTES = 3 << 30  # of features that are held at once
DENSE = 4_000  # largest N for which the float64 N x N spectrum is the reference
BLOCK = 50_000


def blocks(
    n: int, num_classes: int, dim: int, seed: int = 0, size: int = BLOCK
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (z, labels) float32, ReLU class features with a power-law spectrum; the same rows for any n."""
    rng = np.random.default_rng(seed)
    means: Any = np.float32(0.7 * rng.normal(size=(num_classes, dim)) + 0.4)
    scale = np.arange(1, dim + 1, dtype=np.float32) ** -0.5
    scale *= np.float32(0.7 / np.sqrt(np.mean(scale**2)))
    for start in range(0, n, size):
        rows = min(size, n - start)
        noise = np.random.default_rng([seed, start]).standard_normal((rows, dim), dtype=np.float32)
        labels = (start + np.arange(rows)) % num_classes
        noise *= scale
        noise += means[labels]
        yield np.maximum(noise, 0, out=noise), labels


def head_of(num_classes: int, dim: int, seed: int = 0) -> Any:
    """The centred class means, with noise."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(num_classes, dim))
    return np.float32(means - means.mean(0) + 0.3 * rng.normal(size=means.shape))


def dense_joint_entropy(z: Any, labels: Any, head: Any) -> float:
    """Float64, N x N."""
    u, w = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (np.float64(z), np.float64(head)))
    values = np.linalg.eigvalsh((u @ u.T) * (w @ w.T)[np.ix_(labels, labels)] / len(z))
    values = values[values > 0]
    return -np.sum(values * np.log(values))


def entropy_row(n: int, num_classes: int, dim: int) -> dict[str, Any]:
    """Route, seconds, memory, value, half width of the interval and error against the dense reference, for one size."""
    row = {"kind": "entropy", "n": n, "C": num_classes, "D": dim}
    if n * dim * 4 > MOST_BYTES:
        return streamed_row(row, n, num_classes, dim)
    parts = list(blocks(n, num_classes, dim))
    z, labels = (np.concatenate(x) if len(x) > 1 else x[0] for x in zip(*parts, strict=True))
    del parts
    z, head = jnp.asarray(z), head_of(num_classes, dim)
    found, took = ij.estimate_interplay(z, labels, head), []

    def again():
        start = time.perf_counter()
        ij.estimate_interplay(z, labels, head)
        took.append(time.perf_counter() - start)

    memory = peak_mb(again)
    row |= described(found) | {"s": took[0], "MB": memory}
    if n <= DENSE:
        truth = dense_joint_entropy(z, labels, head)
        row |= {"truth": truth, "error": found.joint_entropy.value - truth}
        forced = ij.estimate_interplay(z, labels, head, exact_side=max(dim, num_classes))
        if forced.joint_entropy.route == "estimate":
            row |= {"estimate error": forced.joint_entropy.value - truth}
            row |= {"estimate half": (forced.joint_entropy.upper - forced.joint_entropy.lower) / 2}
    return row


def streamed_row(row: dict[str, Any], n: int, num_classes: int, dim: int) -> dict[str, Any]:
    """From class moments of the unit rows, block by block, if they fit in memory."""
    if num_classes * dim * dim * 4 > MOST_BYTES:
        return row | {"route": "none: neither the samples nor C D^2 moments fit"}
    start = time.perf_counter()
    stats = ClassStats.init(num_classes, dim, scatter="class")
    for z, labels in blocks(n, num_classes, dim):
        stats = stats.update(ij.unit_rows(jnp.asarray(z))[0], labels)
    jax.block_until_ready(stats)
    streamed = time.perf_counter() - start
    start = time.perf_counter()
    found = ij.estimate_interplay_from_stats(stats, head_of(num_classes, dim))
    return row | described(found) | {"s": time.perf_counter() - start, "s streaming": streamed}


def described(found: InterplayEstimate) -> dict[str, Any]:
    """What a row says of an estimate; "half" is half the width of an interval."""
    joint = found.joint_entropy
    return {
        "route": joint.route, "joint": joint.value, "half": (joint.upper - joint.lower) / 2, "met": joint.met,
        "mir": found.mir.value, "mir half": (found.mir.upper - found.mir.lower) / 2,
        "products": joint.products, "steps": joint.steps,
    }  # fmt: skip


def moments_row(n: int = 1_000_000, num_classes: int = 1000, dim: int = 512) -> dict[str, Any]:
    """Counts, means and within-class variances, streamed in blocks, compared with one sum over the same blocks."""
    parts = [(jnp.asarray(z), labels) for z, labels in blocks(n, num_classes, dim)]
    add = jax.jit(lambda z: jnp.sum(z, axis=0))

    def stream():
        stats = ClassStats.init(num_classes, dim)
        for z, labels in parts:
            stats = stats.update(z, labels)
        return stats

    took, limit = seconds(stream), seconds(lambda: [add(z) for z, _ in parts])
    size = n * dim * 4
    return {
        "kind": "moments", "n": n, "C": num_classes, "D": dim, "s": took, "read s": limit, "ratio": took / limit,
        "GB/s": size / took / 1e9, "read GB/s": size / limit / 1e9, "MB": peak_mb(stream),
    }  # fmt: skip


def gram_row(n: int, dim: int = 128) -> dict[str, Any]:
    """eigvalsh of a low-rank float32 Gram matrix, at which solvers of some GPUs fail, and infojax's route."""
    z = next(blocks(n, 10, dim))[0]
    truth = float(ij.matrix_entropy(z))
    row = {"kind": "low-rank Gram", "n": n, "D": dim, "truth": truth}
    gram = ij.gram(jnp.asarray(z))
    try:
        start = time.perf_counter()
        row |= {"eigh error": float(ij.matrix_entropy_from_gram(gram)) - truth, "eigh s": time.perf_counter() - start}
    except Exception as error:  # the failure is the result
        row |= {"eigh": f"failed: {type(error).__name__}"}
    start = time.perf_counter()
    found = ij.estimate_matrix_entropy_from_gram(gram)
    return row | {
        "estimate error": found.value - truth, "half": (found.upper - found.lower) / 2, "s": time.perf_counter() - start
    }  # fmt: skip


def device_rows(quick: bool) -> list[dict[str, Any]]:
    """FLOPs, bytes and memory per device of compiled programs, over N, D, C and the number of devices."""
    try:
        import libtpu  # noqa: F401
    except ImportError:
        return []
    from infojax.bench import pods

    tables = (("v5e:2x4", 8192, 16, 64), ("v5e:2x4", 65536, 16, 64)) if quick else POD_SIZES
    rows = []
    for topology, n, num_classes, dim in tables:
        mesh = pods.topology_mesh(topology)
        z = pods.abstract(mesh, (n, dim), jnp.float32, P("data"))
        y = pods.abstract(mesh, (n,), jnp.int32, P("data"))
        stats = jax.jit(lambda z, y, c=num_classes, m=mesh: parallel.class_stats(z, y, c, mesh=m))
        moment = jax.jit(lambda z, m=mesh: parallel.second_moment(z, mesh=m))
        programs = [("class_stats", stats.lower(z, y).compile()), ("second_moment", moment.lower(z).compile())]
        columns = 8 if num_classes > 100 else 32
        programs += pods.estimator_stages(mesh, n, num_classes, dim, columns, names=("extend", "advance"))
        for name, program in programs:
            sizes = {"n": n, "C": num_classes, "D": dim}
            rows.append({"kind": "devices", "program": name, "pod": topology} | sizes | cost(program, mesh.size))
    return rows


# Smaller and larger N, C, D and pods; ImageNet on 256 chips comes last.
POD_SIZES = (
    ("v5e:2x4", 65_536, 100, 512),
    ("v5e:2x4", 524_288, 100, 512),
    ("v5e:16x16", 524_288, 100, 512),
    ("v5e:16x16", 1_281_024, 1000, 2048),
)


def cost(program: Any, devices: int) -> dict[str, Any]:
    """Per device: GFLOP, GB read and written, MB moved by collectives, MB of memory."""
    found, memory = program.cost_analysis(), program.memory_analysis()
    return {
        "devices": devices,
        "GFLOP": found["flops"] / 1e9,
        "GB": found["bytes accessed"] / 1e9,
        "moved MB": sum(bytes_moved(program).values()) / 1e6,
        "memory MB": (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 1e6,
    }


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Rows of the bench."""
    sizes = (
        ((1_000, 10, 128), (4_000, 100, 128))
        if quick
        else [(n, *shape) for shape, counts in SHAPES.items() for n in counts]
    )
    rows = []
    for n, num_classes, dim in sizes:
        rows.append(entropy_row(n, num_classes, dim))
        print(rows[-1], flush=True)
    rows.append(moments_row(100_000, 100, 128) if quick else moments_row())
    rows += [gram_row(n) for n in ((1024,) if quick else (4096, 8192))]
    return rows + device_rows(quick)
