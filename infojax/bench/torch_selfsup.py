"""Steps of self-supervised methods as a PyTorch user writes them; nothing without torch."""

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

LOSSES = ("barlow", "simclr", "spectral", "vicreg", "byol", "mae", "umae", "mmae")  # the methods in this file


def rate(name: str, size: Mapping[str, Any], quick: bool = False) -> float | None:
    """Images/s of a step on precomputed views, channels last; None without torch or for a method not in this file.

    Args:
      size: as returned by `infojax.bench.selfsup.sizes`.
    """
    if importlib.util.find_spec("torch") is None or name not in LOSSES:
        return None
    import torch

    from infojax.bench.data import best

    step = masked(name, size) if "mae" in name else two_branches(name, size)

    def run():
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return size["batch"] / best(run, 3 if quick else 10)


def network(name: str, options: Mapping[str, Any]) -> tuple[Any, int]:
    """(the network without its classifier, width of its embedding)."""
    import torch
    from torch import nn

    from infojax.bench import torch_models

    if name == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(3072, options["widths"][0]), nn.ReLU()), options["widths"][0]
    if name == "wide_resnet":
        net: Any = torch_models.WideResNet28x2(10)
        net.blocks = nn.ModuleList(net.blocks[i] for i in (0, 4, 8))  # depth 10: one block per group
    else:
        net = torch_models.ResNet18(10)
    width, net.head = net.head.in_features, nn.Identity()
    return net.to(memory_format=torch.channels_last), width


def two_branches(name: str, size: Mapping[str, Any]) -> Callable[[], None]:
    """A step of SimCLR, Barlow Twins, VICReg, the spectral contrastive loss or BYOL, with SGD."""
    from copy import deepcopy

    import torch
    from torch import nn
    from torch.nn.functional import cosine_similarity

    device = "cuda" if torch.cuda.is_available() else "cpu"
    net, width = network(*size["net"])
    first, last = size["widths"]

    def head(wide):
        hidden, out = nn.Linear(wide, first, bias=False), nn.Linear(first, last, bias=False)
        return nn.Sequential(hidden, nn.BatchNorm1d(first), nn.ReLU(), out).to(device)

    both = nn.Sequential(net, head(width)).to(device)
    predictor, target = (head(last), deepcopy(both)) if name == "byol" else (nn.Identity(), None)
    optimizer = torch.optim.SGD([*both.parameters(), *predictor.parameters()], 0.01, 0.9)
    shape = (size["batch"], 3, 32, 32)
    views = [torch.randn(shape, device=device).to(memory_format=torch.channels_last) for _ in range(2)]

    def step():
        z1, z2 = (predictor(both(view)) for view in views)
        optimizer.zero_grad(set_to_none=True)
        if target is None:
            branches(name, z1, z2).backward()
            optimizer.step()
            return
        with torch.no_grad():
            aims = [target(view) for view in reversed(views)]
        (4 - 2 * sum(cosine_similarity(z, aim).mean() for z, aim in zip((z1, z2), aims, strict=True))).backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(target.parameters()), list(both.parameters()), 0.01)

    return step


def off_diagonal(c: Any) -> Any:
    """The sum of the squared off-diagonal entries."""
    return c.square().sum() - c.diagonal().square().sum()


def branches(name: str, z1: Any, z2: Any) -> Any:
    """The loss of a pair of projections, as in the methods' own code."""
    import torch
    from torch.nn.functional import cross_entropy, mse_loss, normalize

    n = len(z1)
    if name == "simclr":
        u = normalize(torch.cat([z1, z2]))
        cosines = (u @ u.T / 0.5).fill_diagonal_(float("-inf"))
        return cross_entropy(cosines, torch.arange(2 * n, device=u.device).roll(n))
    if name == "spectral":
        u1, u2 = normalize(z1), normalize(z2)
        return -2 * (u1 * u2).sum(1).mean() + off_diagonal(u1 @ u2.T) / (n * (n - 1))
    c1, c2 = z1 - z1.mean(0), z2 - z2.mean(0)
    if name == "barlow":
        c = (c1 / (c1.var(0, correction=0) + 1e-5).sqrt()).T @ (c2 / (c2.var(0, correction=0) + 1e-5).sqrt()) / n
        return (c.diagonal() - 1).square().sum() + 0.0051 * off_diagonal(c)
    value = 25 * mse_loss(z1, z2)
    for c in (c1, c2):
        covariance = c.T @ c / (n - 1)
        value = value + 25 * (1 - (covariance.diagonal() + 1e-4).sqrt()).relu().mean()
        value = value + off_diagonal(covariance) / c.shape[1]
    return value


def masked(name: str, size: Mapping[str, Any]) -> Callable[[], None]:
    """A step of MAE, U-MAE or M-MAE, with AdamW."""
    import torch
    from torch import nn
    from torch.nn.functional import normalize

    device, patch, patches = "cuda" if torch.cuda.is_available() else "cpu", 4, 64

    def blocks(width, depth, heads):
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True
        )
        return nn.TransformerEncoder(layer, depth, nn.LayerNorm(width, 1e-6), enable_nested_tensor=False)

    (wide, *_), (narrow, *_) = size["vit"], size["decoder"]
    parts: Any = nn.ModuleDict({
        "embed": nn.Conv2d(3, wide, patch, patch), "encoder": blocks(*size["vit"]), "project": nn.Linear(wide, narrow),
        "decoder": blocks(*size["decoder"]), "predict": nn.Linear(narrow, 3 * patch**2),
    }).to(device)  # fmt: skip
    token = nn.Parameter(torch.zeros(1, 1, wide, device=device))
    hidden = nn.Parameter(torch.zeros(1, 1, narrow, device=device))
    position, own = (torch.randn(1, patches + 1, w, device=device) for w in (wide, narrow))  # fixed
    optimizer = torch.optim.AdamW([*parts.parameters(), token, hidden], 1e-4, (0.9, 0.95))
    x, n, kept = torch.randn(size["batch"], 3, 32, 32, device=device), size["batch"], patches // 4

    def step():
        tokens = parts["embed"](x).flatten(2).transpose(1, 2) + position[:, 1:]
        order = torch.rand(n, patches, device=device).argsort(1)
        restore = order.argsort(1)
        seen = tokens.gather(1, order[:, :kept, None].expand(-1, -1, wide))
        latent = parts["encoder"](torch.cat([token.expand(n, -1, -1) + position[:, :1], seen], 1))
        y = parts["project"](latent)
        full = torch.cat([y[:, 1:], hidden.expand(n, patches - kept, -1)], 1)
        full = torch.cat([y[:, :1], full.gather(1, restore[..., None].expand(-1, -1, narrow))], 1)
        prediction = parts["predict"](parts["decoder"](full + own)[:, 1:])
        target = x.unfold(2, patch, patch).unfold(3, patch, patch).permute(0, 2, 3, 4, 5, 1).reshape(n, patches, -1)
        target = (target - target.mean(-1, True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        mask = (restore >= kept).float()
        loss = ((prediction - target).square().mean(-1) * mask).sum() / mask.sum()
        if name != "mae":
            u = normalize(parts["encoder"].norm(latent)[:, 0])
            gram = u.T @ u
            if name == "umae":
                loss = loss + 0.01 * gram.square().sum() / n**2
            else:
                loss = loss - 0.01 * torch.logdet(torch.eye(wide, device=device) + gram / wide)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step
