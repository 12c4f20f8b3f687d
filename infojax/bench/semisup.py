"""Steps/s of each semi-supervised method, and what its step is made of; FixMatch and FreeMatch beside PyTorch.

WRN-28-2, 64 labelled samples (8 on a CPU) and mu times as many unlabelled ones, drawn from uint8 and augmented in the
step. PyTorch's step takes a batch that lies in memory, augmented already.
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
from infojax.objectives import Context, Seeds, init_state
from infojax.objectives.semisup import METHODS
from infojax.tasks import semisup
from infojax.tasks.build.study import Study
from infojax.tasks.config import choices
from infojax.train.draw import draw
from infojax.train.step import make_step

QUICK = ("fixmatch", "freematch_mi")
BESIDE = ("fixmatch", "freematch")  # written in PyTorch, too


def study(name: str, quick: bool) -> Study:
    """The study of a method on synthetic pictures of 32 x 32 x 3."""
    model = "mlp" if quick else "wrn_28_2"
    chosen = choices("small", method=(name,), data="synthetic", labels=40, model=model, seeds=1)
    config = semisup.defaults("bench", chosen)
    config.objective.batch_size = 8 if quick or jax.default_backend() == "cpu" else 64
    config.steps = 2**16
    if quick:
        config.model.options = dict(widths=(16,))
    return semisup.study(config)


def parts(name: str, quick: bool) -> dict[str, Any]:
    """Steps/s, and the shares of a step that its views, one pass of all rows and the averages take by themselves."""
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
    forward, both = network(one.ctx, rows, repeats)
    averaged = jax.jit(lambda old, new: optax.incremental_update(new, old, 0.001))
    alone = {
        "views": best(lambda: jax.block_until_ready(views(one.data, 0)), repeats),
        "forward": forward,
        "backward": both - forward,
        "average": best(lambda: jax.block_until_ready(averaged(state.params, state.params)), repeats),
    }
    shares = {f"{part}_share": taken / seconds for part, taken in alone.items()}
    return {
        "method": name,
        "batch": task.batch_size,  # type: ignore[attr-defined]  # every method has one
        "rows": rows, "steps_per_s": 1 / seconds, **shares,
        "rest_share": 1 - sum(shares.values()), "first_call_s": first,
    }  # fmt: skip


@cache
def _passes(net: Any) -> tuple[Callable, Callable]:
    """A forward pass in training mode, and its gradient, compiled for every number of rows once."""

    def loss(params, model_state, x):
        output, after = net.apply(params, model_state, x, train=True)
        return jnp.mean(jax.nn.logsumexp(output.logits, -1) - output.logits[:, 0]), after

    return jax.jit(loss), jax.jit(jax.grad(loss, has_aux=True))


def network(ctx: Context, rows: int, repeats: int) -> tuple[float, float]:
    """Seconds of a forward pass of `rows` samples, and of the same pass with its derivatives."""
    net = ctx.nets["net"]
    params, model_state = net.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (rows, 32, 32, 3))
    forward, both = (best(lambda f=f: jax.block_until_ready(f(params, model_state, x)), repeats) for f in _passes(net))
    return forward, both


def beside(name: str, batch: int, ratio: int) -> Iterator[dict[str, Any]]:
    """Steps/s of the same step in PyTorch, in both memory formats; nothing where it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return
    import torch

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


def run(quick: bool = False) -> list[dict[str, Any]]:
    """A row for each method, then those of PyTorch with the ratio of our steps/s to its own."""
    ours = {name: {"kind": "step", **parts(name, quick)} for name in (QUICK if quick else METHODS)}
    theirs = [
        {"kind": "beside PyTorch", "method": name, **row, "ratio": ours[name]["steps_per_s"] / row["steps_per_s"]}
        for name in BESIDE if name in ours and not quick
        for row in beside(name, ours[name]["batch"], METHODS[name].ratio)
    ]  # fmt: skip
    return [*ours.values(), *theirs]
