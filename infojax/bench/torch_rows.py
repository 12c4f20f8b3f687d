"""The work of `bench gpu` as a PyTorch user writes it, on the same device. Gives empty rows without torch."""

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def compared(work: str, ours: float, **options: Any) -> dict[str, float]:
    """{"torch": rate, "ratio": ours / torch} in calls/s or images/s; {} without torch or a PyTorch version."""
    if importlib.util.find_spec("torch") is None or work not in WORK:
        return {}
    rate = WORK[work](**options)
    return {} if rate is None else {"torch": rate, "ratio": ours / rate}


def _seconds(run, repeats=5, inner=1):
    """Median seconds of a call that runs `inner` times, after a warm-up."""
    import torch

    def finished():
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    taken = []
    for _ in range(repeats + 1):
        finished()
        begun = time.perf_counter()
        for _ in range(inner):
            run()
        finished()
        taken.append((time.perf_counter() - begun) / inner)
    return float(np.median(taken[1:]))


def step(network: str, precision: str, batch: int) -> float | None:
    """Images/s of forward, backward and SGD on one fixed batch in memory, channels last."""
    import torch

    from infojax.bench import torch_models

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "TF32"
    torch.backends.cudnn.benchmark = True
    net, optimizer, device = torch_models.build(network, 10)
    x = torch.randn(batch, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (batch,), device=device)

    def run():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            loss = torch.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()

    run()
    return batch / _seconds(run, inner=1 if device == "cpu" else 20)


def _on_device(*arrays):
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = False
    return [torch.tensor(array, device=device) for array in arrays]


def matrix_entropy(n: int, z: Any, labels: Any, head: Any) -> float | None:
    """Calls/s of the entropy of the smaller Gram matrix."""
    import torch

    (z,) = _on_device(z)

    def run():
        u = torch.nn.functional.normalize(z, dim=1)
        p = torch.linalg.eigvalsh(u.T @ u / len(u)).clamp(min=1e-12)
        return -(p * p.log()).sum().item()

    return 1 / _seconds(run)


def effective_rank(n: int, z: Any, labels: Any, head: Any) -> float | None:
    """Calls/s of the entropy of the singular values."""
    import torch

    (z,) = _on_device(z)

    def run():
        p = torch.linalg.svdvals(z)
        p = (p / p.sum()).clamp(min=1e-12)
        return torch.exp(-(p * p.log()).sum()).item()

    return 1 / _seconds(run)


def nc1(n: int, z: Any, labels: Any, head: Any) -> float | None:
    """Calls/s of tr(S_W S_B^+) with both scatter matrices and a pseudo-inverse."""
    import torch

    z, y = _on_device(z, labels.astype(np.int64))
    classes = len(head)

    def run():
        count = torch.bincount(y, minlength=classes).to(z.dtype)
        means = torch.zeros(classes, z.shape[1], device=z.device).index_add_(0, y, z) / count[:, None]
        d = z - means[y]
        between = (means - z.mean(0)) * (count / len(z)).sqrt()[:, None]
        return torch.trace(d.T @ d / len(z) @ torch.linalg.pinv(between.T @ between, hermitian=True)).item()

    return 1 / _seconds(run)


def interplay(n: int, z: Any, labels: Any, head: Any) -> float | None:
    """Calls/s of three N x N spectra, where they fit."""
    import torch

    if n > 8192:
        return None
    z, v = _on_device(z, head[labels])

    def run():
        g1, g2 = (u @ u.T for u in (torch.nn.functional.normalize(x, dim=1) for x in (z, v)))
        h = [torch.linalg.eigvalsh(g / n).clamp(min=1e-12) for g in (g1, g2, g1 * g2)]
        h = [-(p * p.log()).sum().item() for p in h]
        return (h[0] + h[1] - h[2]) / min(h[:2])

    return 1 / _seconds(run)


WORK: dict[str, Callable[..., float | None]] = {
    "step": step,
    "matrix_entropy": matrix_entropy,
    "effective_rank": effective_rank,
    "nc1": nc1,
    "interplay": interplay,
}
