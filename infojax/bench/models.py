"""Images/s of a forward pass and of a training step, compared with the same network in PyTorch where installed."""

import importlib.util
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from infojax.bench.data import best
from infojax.models import build
from infojax.train.optim import sgd

MODELS = {"wrn_28_2": {}, "resnet18": {}, "vit_tiny": {"patch": 4}}
BATCH, CLASSES = 64, 10


def ours(name: str, options: Mapping[str, Any], dtype: str, x: Any, y: Any, repeats: int) -> tuple[float, float, float]:
    """Seconds of a forward pass, of a step, and of the step's first call."""
    net, tx = build(name, CLASSES, dtype=dtype, **options), sgd(0.03, weight_decay=5e-4)
    variables = jax.jit(lambda key: net.init(key, jnp.asarray(x), train=False))(jax.random.key(0))
    params, model_state = variables.pop("params"), variables

    @jax.jit
    def forward(params, model_state, x):
        return net.apply({"params": params, **model_state}, x, train=False).logits

    @jax.jit
    def step(params, model_state, opt_state, x, y):
        def loss(params):
            output, updated = net.apply({"params": params, **model_state}, x, train=True, mutable=list(model_state))
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(output.logits, y)), updated

        gradients, updated = jax.grad(loss, has_aux=True)(params)
        changes, opt_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, changes), updated, opt_state

    state = (params, model_state, tx.init(params))
    x, y = jnp.asarray(x), jnp.asarray(y)
    start = time.perf_counter()
    jax.block_until_ready(step(*state, x, y))
    first = time.perf_counter() - start
    return (
        best(lambda: forward(params, model_state, x).block_until_ready(), repeats),
        best(lambda: jax.block_until_ready(step(*state, x, y)), repeats),
        first,
    )


def theirs(name: str, x: Any, y: Any, repeats: int) -> tuple[float, float]:
    """Seconds of a forward pass and of a step in PyTorch."""
    import torch

    from infojax.bench import torch_models

    net, optimizer, device = torch_models.build(name, CLASSES)
    x = torch.tensor(x.transpose(0, 3, 1, 2)).to(device, memory_format=torch.channels_last)
    y = torch.tensor(y, dtype=torch.long, device=device)

    def finished():
        if device == "cuda":
            torch.cuda.synchronize()

    def forward():
        with torch.inference_mode():
            net(x)
        finished()

    def step():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
        finished()

    trained = best(step, repeats)
    net.eval()
    return best(forward, repeats), trained


def run(quick: bool = False) -> list[dict[str, Any]]:
    """One row per model and dtype."""
    rng = np.random.default_rng(0)
    batch = 8 if quick else BATCH
    x, y = rng.normal(size=(batch, 32, 32, 3)).astype(np.float32), rng.integers(0, CLASSES, batch)
    repeats, rows = 2 if quick else 5, []
    torch_here = importlib.util.find_spec("torch") is not None
    for name, options in MODELS.items():
        torch_seconds = theirs(name, x, y, repeats) if torch_here else (None, None)
        for dtype in ("float32", "bfloat16") if jax.default_backend() != "cpu" else ("float32",):
            forward, step, first = ours(name, options, dtype, x, y, repeats)
            row = {"model": name, "dtype": dtype, "batch": batch, "first_call_s": first}
            for what, taken, other in (("forward", forward, torch_seconds[0]), ("step", step, torch_seconds[1])):
                row |= {f"{what}_images_per_s": batch / taken}
                row |= {f"torch_{what}_images_per_s": batch / other, f"{what}_ratio": other / taken} if other else {}
            rows.append(row)
    return rows
