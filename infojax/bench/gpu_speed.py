"""The timings of `bench gpu`: training steps, seeds together, augmentation and measures, compared with PyTorch."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import infojax as ij
from infojax.bench.torch_rows import compared
from infojax.data import strong, transforms, weak
from infojax.models import build
from infojax.objectives import Context, Facts, Optimizer, Seeds, State, Supervised, init_state
from infojax.train.networks import as_net
from infojax.train.optim import sgd
from infojax.train.step import Step, make_step, map_runs, stack

CLASSES = 10
NETWORKS = {"wrn_28_2": {}, "resnet18": {}, "vit_tiny": {"patch": 4}}
PRECISIONS = {"bf16": "bfloat16", "TF32": "tensorfloat32", "float32": "float32"}  # of matrix products and convolutions


def spread(run: Callable[[], Any], repeats: int = 5) -> tuple[float, float, float]:
    """(median, minimum, maximum) seconds per call, after a warm-up call."""
    jax.block_until_ready(run())
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        jax.block_until_ready(run())
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken)), min(taken), max(taken)


def features(n: int, dim: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ReLU features of classes with a common mean, their labels and a head, in float32."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    decay = np.arange(1, dim + 1) ** -0.5
    z = np.maximum(rng.normal(size=(classes, dim))[labels] + decay * rng.normal(size=(n, dim)), 0)
    return z.astype(np.float32), labels.astype(np.int32), rng.normal(size=(classes, dim)).astype(np.float32)


def _rate(images, seconds):
    median, least, most = seconds
    return {"images_per_s": images / median, "slowest": images / most, "fastest": images / least}


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
        """One step at the precision of the case."""
        with jax.default_matmul_precision(self.precision):
            return self.one(*arguments)

    def state(self) -> State:
        """The state at step 0."""
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
            row |= compared("step", batch / seconds[0], network=network, precision=precision, batch=batch)
        yield row


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
                row |= compared(
                    name, 1 / taken[0], n=n, z=np.asarray(z), labels=np.asarray(labels), head=np.asarray(head)
                )
            yield row
