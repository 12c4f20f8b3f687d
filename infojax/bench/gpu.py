"""One GPU in a few minutes: `python -m infojax.bench gpu --minutes 10 --out DIR`.

Needs jax, flax, optax and orbax; compares with PyTorch where it is installed. The most valuable figures come first.
Every row is written to DIR/gpu.jsonl as soon as it is known, so that an interrupted run keeps what it finished; at the
end DIR/gpu.md holds the same rows as tables. On a CPU small sizes exercise the same code.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import infojax as ij
from infojax import outputs
from infojax.bench.torch_rows import beside
from infojax.data import strong, transforms, weak
from infojax.models import build
from infojax.objectives import Context, Facts, Optimizer, Seeds, State, Supervised, init_state
from infojax.train.networks import as_net
from infojax.train.optim import sgd
from infojax.train.step import Step, make_step, map_runs, stack

CLASSES = 10
NETWORKS = {"wrn_28_2": {}, "resnet18": {}, "vit_tiny": {"patch": 4}}
PRECISIONS = {"bf16": "bfloat16", "TF32": "tensorfloat32", "float32": "float32"}  # of matrix products and convolutions
RESERVE = 20  # seconds that must be left to start another row


def spread(run: Callable[[], Any], repeats: int = 5) -> tuple[float, float, float]:
    """(median, minimum, maximum) seconds per call, after a warm-up call."""
    jax.block_until_ready(run())
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        jax.block_until_ready(run())
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken)), min(taken), max(taken)


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


# Correctness


def features(n: int, dim: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ReLU features of classes with a common mean, their labels and a head, in float32."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    decay = np.arange(1, dim + 1) ** -0.5
    z = np.maximum(rng.normal(size=(classes, dim))[labels] + decay * rng.normal(size=(n, dim)), 0)
    return z.astype(np.float32), labels.astype(np.int32), rng.normal(size=(classes, dim)).astype(np.float32)


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
from infojax.bench.gpu import trained
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


# Speed


class Case:
    """A supervised step: batch drawn and augmented on the device, forward, backward, update, averaged weights."""

    def __init__(self, network: str, precision: str, batch: int, quick: bool) -> None:
        options = {"depth": 10, "width": 1} if quick and network == "wrn_28_2" else NETWORKS[network]
        name = "wide_resnet" if quick and network == "wrn_28_2" else network
        rng = np.random.default_rng(0)
        n, dtype = 256 if quick else 50_000, "bfloat16" if precision == "bf16" else "float32"
        x = rng.integers(0, 256, (n, 32, 32, 3)).astype(np.uint8)
        data = {"x": jnp.asarray(x), "labels": jnp.asarray(rng.integers(0, CLASSES, n).astype(np.int32))}
        self.constants = {"data": {"train": data}}
        net = as_net(build(name, CLASSES, dtype=dtype, **options), jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32))
        self.ctx = Context({"net": net}, {"main": Optimizer(sgd(0.03, weight_decay=5e-4))}, Facts(CLASSES, 2**20))
        self.task = Supervised(batch_size=batch)
        views = transforms((125.0, 123.0, 114.0), (63.0, 62.0, 67.0))
        self.one, self.precision = make_step(self.ctx, views), PRECISIONS[precision]

    def step(self, *arguments: Any) -> Any:
        with jax.default_matmul_precision(self.precision):
            return self.one(*arguments)

    def state(self) -> State:
        return init_state(self.task, Seeds(), self.ctx)

    def many(self, steps: int) -> Callable[[], Any]:
        """A function that runs several steps per call: state -> state."""

        @jax.jit
        def call(state, constants):
            return jax.lax.fori_loop(
                0, steps, lambda _, state: self.step(self.task, state, constants, Seeds())[0], state
            )

        state = self.state()
        return lambda: call(state, self.constants)


def steps(quick: bool) -> Iterator[dict[str, Any]]:
    """Images/s of the training step by network, precision and batch; PyTorch's uses one fixed, normalised batch."""
    on_cpu = jax.default_backend() == "cpu"  # where convolutions inside a loop run ten times slower
    per_call = 1 if on_cpu else 20
    cases = [(n, p, b) for b in ((8,) if quick else (64, 512)) for n in NETWORKS for p in PRECISIONS]
    cases = [case for case in cases if case[0] == "wrn_28_2"][:1] if quick else cases
    for network, precision, batch in cases:
        case = Case(network, precision, batch, quick)
        begun = time.perf_counter()
        run = case.many(per_call)
        jax.block_until_ready(run())
        first = time.perf_counter() - begun
        seconds = [t / per_call for t in spread(run)]
        row = {"network": network, "precision": precision, "batch": batch, "steps_per_call": per_call}
        row |= _rate(batch, seconds) | {"steps_per_s": 1 / seconds[0], "first_call_s": first}
        if not quick:
            row |= beside("step", batch / seconds[0], network=network, precision=precision, batch=batch)
        yield row


def selfsup(quick: bool) -> Iterator[dict[str, Any]]:
    """Barlow Twins with ViT-S/16 and MAE with ViT-B/16, at 224 x 224, including their views."""
    from infojax.bench.selfsup import large

    yield from large(quick)


def seeds(quick: bool) -> Iterator[dict[str, Any]]:
    """Several seeds of one step by vmap compared with one seed."""
    batch = 8 if quick else 64
    case = Case("wrn_28_2", "bf16", batch, quick)
    for count in (2,) if quick else (1, 3, 8):
        of_all = stack([Seeds(seed, seed, seed) for seed in range(count)])
        state = jax.jit(jax.vmap(lambda s: init_state(case.task, s, case.ctx)))(of_all)
        mapped = map_runs(Step(case.step, case.ctx), "vmap")
        repeats = 1 if quick else 20

        @jax.jit
        def call(state, constants, mapped=mapped, of_all=of_all, repeats=repeats):
            return jax.lax.fori_loop(0, repeats, lambda _, state: mapped(case.task, state, constants, of_all)[0], state)

        taken = spread(lambda call=call, state=state: call(state, case.constants), 1 if quick else 5)
        yield {"network": "wrn_28_2", "precision": "bf16", "batch": batch, "seeds": count} | _rate(
            batch * count, [t / repeats for t in taken]
        )


def augmentation(quick: bool) -> Iterator[dict[str, Any]]:
    """Images/s of the weak and the strong view on the device."""
    batch = 32 if quick else 448
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (batch, 32, 32, 3)).astype(np.uint8))
    repeats = 1 if quick else 50
    for name, view in {"weak": weak, "strong": strong}.items():

        @jax.jit
        def call(images, view=view):
            return jax.lax.fori_loop(0, repeats, lambda i, x: view(jax.random.key(i), x), images)

        yield {"view": name, "batch": batch} | _rate(
            batch, [t / repeats for t in spread(lambda call=call: call(images))]
        )


def measures(quick: bool) -> Iterator[dict[str, Any]]:
    """Seconds of the compiled measures on arrays on the device, compared with pasted PyTorch on the same device."""
    sizes = [(256, 16, 4)] if quick else [(50_000, 512, 10), (50_000, 512, 100), (4_000, 128, 10)]
    for n, dim, classes in sizes:
        z, labels, head = (jnp.asarray(a) for a in features(n, dim, classes))
        calls = {
            "matrix_entropy": jax.jit(lambda z, y, w: ij.matrix_entropy(z)),
            "effective_rank": jax.jit(lambda z, y, w: ij.effective_rank(z)),
            "interplay": jax.jit(lambda z, y, w: ij.interplay(z, y, w)),
            "nc1": jax.jit(lambda z, y, w, c=classes: ij.nc1(z, y, c)),
            "neural_collapse": jax.jit(lambda z, y, w: ij.neural_collapse(z, y, w)),
        }
        for name, call in calls.items():
            if name == "interplay" and classes * min(n, dim) > 8192 and n > 8192:
                continue  # the joint matrix is too large to be worth a minute
            taken = spread(lambda call=call, z=z, y=labels, w=head: call(z, y, w))
            row = {"measure": name, "n": n, "D": dim, "C": classes, "seconds": taken[0], "least": taken[1]}
            if not quick:
                row |= beside(
                    name, 1 / taken[0], n=n, z=np.asarray(z), labels=np.asarray(labels), head=np.asarray(head)
                )
            yield row


def coop(quick: bool) -> Iterator[dict[str, Any]]:
    """A CoOp step with the text tower of ViT-B/16; see `bench crossmodal`."""
    from infojax.bench import crossmodal

    found = crossmodal.steps(quick)
    yield from ({name: value for name, value in row.items() if name != "kind"} for row in found)


def _rate(images, seconds):
    median, least, most = seconds
    return {"images_per_s": images / median, "slowest": images / most, "fastest": images / least}


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
