"""Steps/s of each semi-supervised method and where its time goes; FixMatch and FreeMatch compared with PyTorch.

WRN-28-2, 64 labelled samples (8 on a CPU) and mu times as many unlabelled ones, drawn from uint8 and augmented in the
step. PyTorch's step uses an augmented batch that is already in memory. Shares of a step are those of
`infojax.bench.stages` and sum to 1; "network_over_step" is the time of the network alone, forward and backward on the
same rows, over that of the step: what is missing to 1 is what all the rest costs.
"""

import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from infojax.bench import stages
from infojax.bench.data import best
from infojax.objectives import Seeds, init_state
from infojax.objectives.semisup import METHODS
from infojax.tasks import semisup
from infojax.tasks.build.study import Study
from infojax.tasks.config import choices
from infojax.train.step import make_step

QUICK = ("fixmatch", "freematch_mi")
BESIDE = ("fixmatch", "freematch")  # those also written in PyTorch
ON_GPU = ("fixmatch", "freematch", "freematch_mi", "freematch_hd")
# How rows pass through the network, in labelled batches: groups with a gradient, and groups whose output is a target.
# The other methods pass all their rows together, in one group.
PASSES = {
    "supervised": ((1,), ()),
    "pi_model": ((1, 1), (1,)),
    "pseudo_label": ((1, 1), ()),
    "vat": ((1, 1, 1), ()),
    "mean_teacher": ((1, 1), (1,)),  # the target is the averaged network's
    "mixmatch": ((1, 1, 1), (1, 1)),
    "remixmatch": ((1, 1, 1, 1, 1, 1), (1,)),
    "mpl": ((15, 8), (1,)),  # the teacher's, then the student's, whose loss after the step is the feedback
}


def study(name: str, quick: bool, dtype: str = "float32") -> Study:
    """The study of a method on synthetic pictures of 32 x 32 x 3."""
    model = "mlp" if quick else "wrn_28_2"
    chosen = choices("small", method=(name,), data="synthetic", labels=40, model=model, seeds=1)
    config = semisup.defaults("bench", chosen)
    config.objective.batch_size = 8 if quick or jax.default_backend() == "cpu" else 64
    config.steps, config.model.dtype = 2**16, dtype
    if name == "dash":
        config.objective.warmup = 0  # its first 2,048 steps have no unlabelled samples
    if quick:
        config.model.options = dict(widths=(16,))
    return semisup.study(config)


def parts(name: str, quick: bool) -> dict[str, Any]:
    """Steps/s, the shares of the stages of a step, and the time of the network alone over that of the step.

    "steps_per_s" is of the fastest call, as PyTorch's; shares and "network_over_step" are of medians.
    """
    one, repeats = study(name, quick), 3 if quick else 5 if jax.default_backend() == "cpu" else 10
    task: Any = one.objective
    batch = stages.batch_of(task, one.transforms, one.data)
    programs = stages.programs(task, one.ctx, one.transforms)
    timed = stages.calls(programs, task, one.ctx, {"data": one.data}, batch)
    begun = time.perf_counter()
    timed["views"]()
    first = time.perf_counter() - begun
    seconds = stages.interleaved(timed | {"network": network(passes(name, task), quick)}, repeats)
    alone = statistics.median(seconds.pop("network"))
    groups, unlearned = passes(name, task)
    return {
        "method": name, "batch": task.batch_size, "rows": sum(groups) + sum(unlearned),
        "steps_per_s": 1 / min(seconds["views"]), **stages.shares(seconds),
        "network_over_step": alone / statistics.median(seconds["views"]), "first_call_s": first,
    }  # fmt: skip


def passes(name: str, task: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Rows of the groups that pass through the network in a step: forward and backward, and forward only."""
    joint = 1 + len(task.unlabelled) * task.ratio
    learnt, unlearned = PASSES.get(name, ((joint,), ()))
    return tuple(task.batch_size * n for n in learnt), tuple(task.batch_size * n for n in unlearned)


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
def network(groups: tuple[tuple[int, ...], tuple[int, ...]], quick: bool) -> Callable[[], Any]:
    """A call of the network alone in training mode, on rows in memory: `passes`, with a loss that is next to nothing.

    Over a step it may exceed 1 where the step fuses what is written out here. Besides views, method and optimiser it
    leaves out VAT's Hessian-vector product.
    """
    net = study("fixmatch", quick).ctx.nets["net"]  # all methods use this network
    params, model_state = net.init(jax.random.key(0))
    learnt, unlearned = ([jax.random.normal(jax.random.key(n), (n, 32, 32, 3)) for n in sizes] for sizes in groups)

    def loss(params, model_state, learnt, unlearned):
        after, value = [], jnp.zeros(())
        for i, x in enumerate([*learnt, *unlearned]):
            output, found = net.apply(params, model_state, x, train=True)
            z = output.logits if i < len(learnt) else jax.lax.stop_gradient(output.logits)
            value += jnp.mean(jax.nn.logsumexp(z, -1) - z[:, 0])
            after.append(found)
        return value, after

    both = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return lambda: jax.block_until_ready(both(params, model_state, learnt, unlearned))


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


def run(quick: bool = False, only: str = "") -> Iterator[dict[str, Any]]:
    """A row for each method; after two of them, rows of PyTorch with the ratio of our steps/s to PyTorch's."""
    for name in stages.methods(only, QUICK if quick else tuple(METHODS)):
        ours = parts(name, quick)
        yield {"kind": "step", **ours}
        if name in BESIDE and not quick:
            for row in in_torch(name, ours["batch"], METHODS[name].ratio):
                yield {"kind": "PyTorch", "method": name, **row, "ratio": ours["steps_per_s"] / row["steps_per_s"]}
