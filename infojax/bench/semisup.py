"""Steps/s of each semi-supervised method and where its time goes; FixMatch and FreeMatch compared with PyTorch.

WRN-28-2, 64 labelled samples (8 on a CPU) and mu times as many unlabelled ones, drawn from uint8 and augmented in the
step. PyTorch's step uses an augmented batch that is already in memory.
"""

import importlib.util
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import optax

from infojax.bench.data import best
from infojax.objectives import Seeds, init_state
from infojax.objectives.semisup import METHODS
from infojax.tasks import semisup
from infojax.tasks.build.study import Study
from infojax.tasks.config import choices
from infojax.train.draw import draw
from infojax.train.step import make_step

QUICK = ("fixmatch", "freematch_mi")
BESIDE = ("fixmatch", "freematch")  # those also written in PyTorch
ON_GPU = ("fixmatch", "freematch", "freematch_mi", "freematch_hd")


def study(name: str, quick: bool, dtype: str = "float32") -> Study:
    """The study of a method on synthetic pictures of 32 x 32 x 3."""
    model = "mlp" if quick else "wrn_28_2"
    chosen = choices("small", method=(name,), data="synthetic", labels=40, model=model, seeds=1)
    config = semisup.defaults("bench", chosen)
    config.objective.batch_size = 8 if quick or jax.default_backend() == "cpu" else 64
    config.steps, config.model.dtype = 2**16, dtype
    if quick:
        config.model.options = dict(widths=(16,))
    return semisup.study(config)


def parts(name: str, quick: bool) -> dict[str, Any]:
    """Steps/s, and the shares of a step that its views, one pass over all rows and the averages take in isolation.

    "convolution_share" is the part of that pass, forward and backward, that its convolutions take in isolation.
    """
    one, repeats = study(name, quick), 3 if quick else 10
    task, constants = one.objective, {"data": one.data}
    state = init_state(task, Seeds(), one.ctx)
    step = make_step(one.ctx, one.transforms).compiled()
    begun = time.perf_counter()
    state, _ = jax.block_until_ready(step(task, state, constants, Seeds()))
    first = time.perf_counter() - begun

    def advance():
        nonlocal state
        state, _ = jax.block_until_ready(step(task, state, constants, Seeds()))

    seconds = best(advance, repeats)
    views = jax.jit(lambda data, k: draw(data, task.views, one.transforms, Seeds(), k))
    rows = sum(len(x) for source in views(one.data, 0).values() for x in source.views.values())
    passed = network(rows, repeats, quick)
    averaged = jax.jit(lambda old, new: optax.incremental_update(new, old, 0.001))
    alone = {
        "views": best(lambda: jax.block_until_ready(views(one.data, 0)), repeats),
        "forward": passed["forward"],
        "backward": passed["backward"],
        "average": best(lambda: jax.block_until_ready(averaged(state.params, state.params)), repeats),
    }
    shares = {f"{part}_share": taken / seconds for part, taken in alone.items()}
    return {
        "method": name,
        "batch": task.batch_size,  # type: ignore[attr-defined]  # every method has one
        "rows": rows, "steps_per_s": 1 / seconds, **shares,
        "rest_share": 1 - sum(shares.values()), "convolution_share": passed["convolution"] / seconds,
        "first_call_s": first,
    }  # fmt: skip


def rate(name: str, dtype: str, per_call: int, quick: bool) -> dict[str, Any]:
    """Steps/s of a method at `per_call` steps per device call; the batch is drawn and augmented in the step."""
    one = study(name, quick, dtype)
    task, constants, step = one.objective, {"data": one.data}, make_step(one.ctx, one.transforms)

    @jax.jit
    def call(state, constants):
        return jax.lax.fori_loop(0, per_call, lambda _, state: step(task, state, constants, Seeds())[0], state)

    state = init_state(task, Seeds(), one.ctx)
    begun = time.perf_counter()
    jax.block_until_ready(call(state, constants))
    first = time.perf_counter() - begun
    seconds = best(lambda: jax.block_until_ready(call(state, constants)), 1 if quick else 5) / per_call
    return {"method": name, "steps_per_call": per_call, "steps_per_s": 1 / seconds, "first_call_s": first}


def on_gpu(quick: bool) -> Iterator[dict[str, Any]]:
    """Steps/s in bf16 and TF32, the latter compared with PyTorch's: rows of `bench gpu`."""
    for name in ON_GPU[:1] if quick else ON_GPU:
        for precision, dtype, products in (("bf16", "bfloat16", "bfloat16"), ("TF32", "float32", "tensorfloat32")):
            with jax.default_matmul_precision(products):
                row = {"precision": precision} | rate(name, dtype, 1 if quick else 20, quick)
            if not quick and precision == "TF32" and name in BESIDE:
                theirs = [found["steps_per_s"] for found in in_torch(name, 64, METHODS[name].ratio)]
                row |= {"torch": max(theirs), "ratio": row["steps_per_s"] / max(theirs)} if theirs else {}
            yield row


@cache
def network(rows: int, repeats: int, quick: bool) -> dict[str, float]:
    """Seconds of a pass of `rows` samples in training mode: forward, backward, and the convolutions of both."""
    net = study("fixmatch", quick).ctx.nets["net"]  # all methods use this network
    params, model_state = net.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (rows, 32, 32, 3))

    def loss(params, model_state, x):
        output, after = net.apply(params, model_state, x, train=True)
        return jnp.mean(jax.nn.logsumexp(output.logits, -1) - output.logits[:, 0]), after

    both = jax.grad(loss, has_aux=True)
    passes = jax.jit(loss), jax.jit(both)
    seconds = [best(lambda f=f: jax.block_until_ready(f(params, model_state, x)), repeats) for f in passes]
    convolved = convolutions(jax.make_jaxpr(both)(params, model_state, x).jaxpr, repeats)
    return {"forward": seconds[0], "backward": seconds[1] - seconds[0], "convolution": convolved}


def convolutions(jaxpr: Any, repeats: int) -> float:
    """Seconds that the convolutions of a program take, each compiled and timed in isolation."""
    alike: dict[str, list[Any]] = {}
    for equation in equations(jaxpr):
        if equation.primitive.name == "conv_general_dilated":
            shapes = [variable.aval for variable in equation.invars]
            alike.setdefault(f"{shapes} {equation.params}", []).append(equation)
    total = 0.0
    for first, *others in alike.values():
        inputs = [jax.random.normal(jax.random.key(i), v.aval.shape, v.aval.dtype) for i, v in enumerate(first.invars)]
        call = jax.jit(lambda *inputs, first=first: first.primitive.bind(*inputs, **first.params))
        seconds = best(lambda call=call, inputs=inputs: jax.block_until_ready(call(*inputs)), repeats)
        total += seconds * (1 + len(others))
    return total


def equations(jaxpr: Any) -> Iterator[Any]:
    """The equations of a program and of its nested programs."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def in_torch(name: str, batch: int, ratio: int) -> Iterator[dict[str, Any]]:
    """Steps/s of the same step in PyTorch, in both memory formats, with TF32 on a GPU as in XLA; no rows without
    PyTorch."""
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    for layout in ("contiguous_format", "channels_last"):
        run = torch_step(name, batch, ratio, getattr(torch, layout))
        yield {"layout": layout, "steps_per_s": 1 / best(run)}


def torch_step(name: str, batch: int, ratio: int, layout: Any) -> Callable[[], None]:
    """A step of FixMatch or FreeMatch with averaged weights, as a PyTorch user writes it."""
    import torch
    from torch.nn.functional import cross_entropy

    from infojax.bench import torch_models

    net, optimizer, device = torch_models.build("wrn_28_2", 10)
    net = net.to(memory_format=layout)
    average = [p.detach().clone() for p in net.parameters()]
    labelled, weak, strong = (
        torch.randn(n, 3, 32, 32, device=device).to(memory_format=layout) for n in (batch, batch * ratio, batch * ratio)
    )
    y = torch.randint(0, 10, (batch,), device=device)
    tau = torch.tensor(0.1, device=device)
    model, share = torch.full((10,), 0.1, device=device), torch.full((10,), 0.1, device=device)

    def run():
        logits = net(torch.cat([labelled, weak, strong]))
        known, (guessed, learnt) = logits[:batch], logits[batch:].chunk(2)
        p = guessed.detach().softmax(-1)
        top, guess = p.max(-1)
        loss = cross_entropy(known, y)
        if name == "fixmatch":
            mask = top >= 0.95
        else:
            tau.mul_(0.999).add_(0.001 * top.mean())
            model.mul_(0.999).add_(0.001 * p.mean(0))
            share.mul_(0.999).add_(0.001 * torch.bincount(guess, minlength=10) / len(guess))
            mask = top >= (tau * model / model.max())[guess]
            kept = learnt[mask].softmax(-1)
            if len(kept):
                found = torch.bincount(kept.argmax(-1), minlength=10) / len(kept)
                a, b = model / share, kept.mean(0) * torch.where(found > 0, 1 / found, 0)
                loss = loss + 0.01 * (a / a.sum() * (b / b.sum() + 1e-12).log()).sum()
        loss = loss + (cross_entropy(learnt, guess, reduction="none") * mask).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, list(net.parameters()), 0.001)
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def run(quick: bool = False) -> Iterator[dict[str, Any]]:
    """A row for each method; after two of them, rows of PyTorch with the ratio of our steps/s to PyTorch's."""
    for name in QUICK if quick else METHODS:
        ours = parts(name, quick)
        yield {"kind": "step", **ours}
        if name in BESIDE and not quick:
            for row in in_torch(name, ours["batch"], METHODS[name].ratio):
                yield {"kind": "PyTorch", "method": name, **row, "ratio": ours["steps_per_s"] / row["steps_per_s"]}
