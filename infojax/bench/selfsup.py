"""Images/s of each self-supervised method with its views, compared with PyTorch, and where a step's time goes.

ResNet-18 with the CIFAR stem, projector 2048-256, or a ViT-Tiny with patches of 4 and a decoder of 192 x 4, on pictures
of 32 x 32; on a CPU WRN-10-2 and a ViT of 96 x 4. Our step draws a batch of uint8 and makes its views; PyTorch's uses
precomputed views, so that our "views_share" is work it does not do. Shares are those of `infojax.bench.stages`.
For views compared with Pillow, see `bench data`.
"""

import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp

from infojax.bench import stages
from infojax.bench.data import best, two_views
from infojax.bench.torch_selfsup import rate
from infojax.data import RECIPES, open_dataset, view_transforms
from infojax.measures.coding import coding_rate
from infojax.models import Projector, build
from infojax.objectives import Context, Facts, Optimizer, Seeds, init_state, with_settings
from infojax.objectives.selfsup import METHODS
from infojax.tasks import selfsup
from infojax.tasks.build.study import Study
from infojax.tasks.config import choices
from infojax.train.draw import draw
from infojax.train.networks import as_net
from infojax.train.optim import adamw

QUICK = ("barlow", "mmae")
ALL = tuple(name for name in METHODS if not name.endswith("_released"))  # those cost the same as the others
PATCH = 4


def sizes(quick: bool) -> dict[str, Any]:
    """Names and options of the networks, projector widths, and batch size."""
    found: dict[str, Any]
    if quick:
        found = {
            "net": ("mlp", {"widths": (16,)}),
            "vit": (8, 1, 1),
            "decoder": (8, 1, 1),
            "widths": (8, 8),
            "batch": 8,
        }
    elif jax.default_backend() == "cpu":
        found = {"net": ("wide_resnet", {"depth": 10, "width": 2}), "vit": (96, 4, 3), "decoder": (48, 1, 3)}
        found |= {"widths": (256, 64), "batch": 64}
    else:
        found = {"net": ("resnet18", {}), "vit": (192, 12, 3), "decoder": (192, 4, 3), "widths": (2048, 256)}
        found["batch"] = 256
    return found


def study(name: str, quick: bool = False, dtype: str = "float32") -> Study:
    """The study of a method on synthetic pictures of 32 x 32 x 3."""
    size, masked = sizes(quick), name in selfsup.MASKED
    chosen = choices("small", method=(name,), data="synthetic", model="mae_tiny" if masked else size["net"][0], seeds=1)
    config = selfsup.defaults("bench", chosen)
    config.model.dtype = dtype
    config.model.options = size["net"][1]
    if masked:
        config.model.options = dict(size=size["vit"], patch=PATCH, decoder=size["decoder"])
    config.projector.widths, config.predictor.widths = size["widths"], size["widths"]
    config.objective.batch_size, config.steps = size["batch"], 2**16
    return selfsup.study(config)


def timed(
    task: Any, ctx: Context, transforms: Any, data: Any, repeats: int, reached: float | None = None, split: bool = True
) -> dict[str, Any]:
    """Images/s of a method's step, FLOPs, the shares of its stages, and memory per image.

    Args:
      reached: FLOP/s that the device reaches, from `peak`.
      split: whether to compile a program for each stage, or only the step, beside which the views are timed alone.
    """
    batch, given = task.batch_size, ({"data": data}, stages.batch_of(task, transforms, data))
    programs = stages.programs(task, ctx, transforms)
    state = jax.eval_shape(lambda: init_state(task, Seeds(), ctx))
    lowered = programs["views"].lower(task, state, *given)  # type: ignore[attr-defined]  # a jitted function
    flops, begun = (lowered.cost_analysis() or {}).get("flops"), time.perf_counter()
    step = programs["views"] = lowered.compile()
    taken = time.perf_counter() - begun
    if split:
        measured = stages.interleaved(stages.calls(programs, task, ctx, *given), repeats)
        shares = stages.shares(measured)
    else:
        drawn = jax.jit(lambda data, k: draw(data, task.views, transforms, Seeds(), k))
        timed = stages.calls({"views": step}, task, ctx, *given)
        measured = stages.interleaved(timed | {"alone": lambda: jax.block_until_ready(drawn(data, 0))}, repeats)
        shares = {"views_over_step": median(measured["alone"]) / median(measured["views"])}
    seconds = min(measured["views"])
    row: dict[str, Any] = {
        "batch": batch, "images_per_s": batch / seconds, "ms": 1e3 * seconds, **shares,
        "compile_s": taken, "MB_per_image": getattr(step.memory_analysis(), "temp_size_in_bytes", 0) / batch / 1e6,
    }  # fmt: skip
    if flops:
        row["GFLOP_per_s"] = flops / seconds / 1e9
        row |= {"share_of_peak": flops / seconds / reached} if reached else {}
    return row


def parts(name: str, quick: bool, reached: float | None = None) -> dict[str, Any]:
    """`timed` of a method on pictures of 32 x 32, with tokens/s and the time of the log-determinant over the step's.

    The latter is in isolation, beside the sharing of the step: what it adds to a step is less where XLA overlaps it.
    """
    one, repeats = study(name, quick), 3 if quick else 10
    row = {"method": name, **timed(one.objective, one.ctx, one.transforms, one.data, repeats, reached)}
    if name in selfsup.MASKED:
        row |= tokens(row["images_per_s"], (32 // PATCH) ** 2)
    if name == "mmae":
        row["logdet_over_step"] = 1e3 * determinant(row["batch"], sizes(quick)["vit"][0], repeats) / row["ms"]
    return row


def tokens(images_per_s: float, patches: int) -> dict[str, float]:
    """Tokens/s of the encoder, which sees a quarter of the patches, and of the decoder, which sees all."""
    return {
        "encoder_tokens_per_s": images_per_s * (1 + patches // 4),
        "decoder_tokens_per_s": images_per_s * (1 + patches),
    }


def large(quick: bool) -> Iterator[dict[str, Any]]:
    """Barlow Twins with ViT-S/16 and MAE with ViT-B/16, 224 x 224, batch 256 in bf16: for `bench gpu`."""
    side, batch = (32, 4) if quick else (224, 256)
    like = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    noise = jax.ShapeDtypeStruct((2, (side // 16) ** 2), jnp.float32)
    key = jax.random.key(0)
    x = jax.random.randint(key, (2 * batch, side, side, 3), 0, 256, jnp.int32).astype(jnp.uint8)
    data = {"train": {"x": x, "labels": jnp.zeros(len(x), jnp.int32)}}
    for method, name, recipe in (("barlow", "vit_small", "byol"), ("mae", "mae_base", "mae")):
        options: dict[str, Any] = {"size": (16, 1, 2)} if quick else {}
        if method == "mae":
            options |= {"decoder": (16, 1, 2)} if quick else {}
        inputs = (like, noise) if method == "mae" else (like,)
        nets = {"net": as_net(build(name, 10, dtype="bfloat16", **options), *inputs)}
        if method == "barlow":
            width = jax.eval_shape(nets["net"].init, key)[0]["norm"]["scale"].shape[0]
            embedding = jax.ShapeDtypeStruct((2, width), jnp.float32)
            nets["projector"] = as_net(Projector((64,) * 3 if quick else (2048,) * 3, dtype=jnp.bfloat16), embedding)
        ctx = Context(nets, {"main": Optimizer(adamw(1e-4, weight_decay=0.05))}, Facts(10, 2**16))
        task = with_settings(METHODS[method], {"batch_size": batch})
        views = view_transforms((125.0, 123.0, 114.0), (63.0, 62.0, 67.0), RECIPES[recipe])
        row = {"method": method, "network": name, "precision": "bf16", **timed(task, ctx, views, data, 3, split=False)}
        yield row | (tokens(row["images_per_s"], noise.shape[1]) if method == "mae" else {})


def determinant(batch: int, width: int, repeats: int) -> float:
    """Seconds of the coding rate of a batch of class tokens with its gradient, in isolation."""
    z = jax.random.normal(jax.random.key(0), (batch, width))
    both = jax.jit(jax.value_and_grad(coding_rate))
    return best(lambda: jax.block_until_ready(both(z)), repeats)


def peak(quick: bool) -> float:
    """FLOP/s of a product of two float32 matrices at default precision: what the device reaches in practice."""
    side = 256 if quick else 1536 if jax.default_backend() == "cpu" else 8192
    x = jnp.ones((side, side))
    product = jax.jit(jnp.matmul)
    return 2 * side**3 / best(lambda: jax.block_until_ready(product(x, x)), 3 if quick else 10)


def in_torch(quick: bool, ours: dict[str, float]) -> Iterator[dict[str, Any]]:
    """Images/s of the same step in PyTorch, if it is installed and the method is written for it."""
    for name, images in ours.items():
        found = rate(name, sizes(quick), quick)
        if found:
            yield {"method": name, "torch_images_per_s": found, "ours_images_per_s": images, "ratio": images / found}


def run(quick: bool = False, only: str = "") -> Iterator[dict[str, Any]]:
    """A row for each method, followed by PyTorch's step; without `only` also views compared with Pillow."""
    chosen = stages.methods(only, QUICK if quick else ALL)
    reached = peak(quick)
    yield {"kind": "peak", "GFLOP_per_s": reached / 1e9}
    for name in chosen:
        ours = parts(name, quick, reached)
        yield {"kind": "step", **ours}
        yield from ({"kind": "PyTorch", **row} for row in in_torch(quick, {name: ours["images_per_s"]}))
    if not only:
        train: Any = open_dataset("synthetic", num_train=500).split("train")
        yield from ({"kind": "views compared with Pillow", **row} for row in two_views(train, quick))
