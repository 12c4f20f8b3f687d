"""CLIP's towers compared with transformers' CLIPModel, and a CoOp step at 100 and 1,000 classes: time and memory.

Weights are random; names have 1 to 6 tokens, so that prompts with 16 learnt tokens use up to 25 of 77 positions. The
memory is what XLA plans for the step in addition to its arguments, which is known without running it. On a CPU the
step of 1,000 classes is planned but not run, unless the environment has INFOJAX_BENCH_CLASSES=1000: then in chunks of
100, since all at once takes 11 GiB, or 39 without truncation.
"""

import importlib.util
import os
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infojax.bench.data import best
from infojax.models import clip
from infojax.objectives import Context, Facts, Optimizer, Seeds, init_state
from infojax.objectives.crossmodal import PromptLearning, Prompts, lay_out, prompt_net
from infojax.train.networks import as_net
from infojax.train.optim import sgd
from infojax.train.step import make_step

TINY = clip.Architecture(16, 32, 1, 32, 16, 32, 1, 77, 1000, head_width=16)
TOKENS, BATCH = 16, 32


def towers(sizes: clip.Architecture, name: str, batch: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Images/s and prompts/s, with prompts at their own length and at 77 tokens, compared with transformers."""
    model, rng = clip.CLIP(sizes), np.random.default_rng(0)
    images = rng.normal(size=(batch, sizes.image_size, sizes.image_size, 3)).astype(np.float32)
    ids = rng.integers(1, sizes.vocabulary - 1, (batch, sizes.context)).astype(np.int32)
    variables = jax.jit(model.init)(jax.random.key(0), images[:1], ids[:1])
    other = _transformers(sizes, images, repeats) if importlib.util.find_spec("transformers") else None
    encode = jax.jit(lambda v, x, kind: model.apply(v, x, method=f"encode_{kind}"), static_argnums=2)
    for kind, x, length in (("image", images, None), ("text", ids, 25), ("text", ids, sizes.context)):
        x = jnp.asarray(x if length is None else x[:, :length])
        taken = best(lambda x=x, kind=kind: encode(variables, x, kind).block_until_ready(), repeats)
        row: dict[str, Any] = {
            "kind": "towers",
            "model": name,
            "tower": kind,
            "tokens": length,
            "batch": batch,
            "per_s": batch / taken,
        }
        if other:
            seconds = other(kind, None if length is None else np.asarray(x))
            row |= {"transformers_per_s": batch / seconds, "ratio": seconds / taken}
        yield row


def _transformers(sizes, images, repeats):
    """(kind, ids) -> seconds for the same batch in transformers' CLIPModel; None without torch."""
    if not importlib.util.find_spec("torch") or not isinstance(sizes.image_layers, int):
        return None
    import torch
    from transformers import CLIPConfig, CLIPModel

    device = "cuda" if torch.cuda.is_available() else "cpu"
    text = dict(vocab_size=sizes.vocabulary, hidden_size=sizes.text_width, intermediate_size=4 * sizes.text_width,
                num_hidden_layers=sizes.text_layers, num_attention_heads=sizes.text_width // sizes.head_width,
                max_position_embeddings=sizes.context, projection_dim=sizes.features,
                eos_token_id=sizes.vocabulary - 1)  # fmt: skip
    vision = dict(hidden_size=sizes.image_width, intermediate_size=4 * sizes.image_width,
                  num_hidden_layers=sizes.image_layers, num_attention_heads=sizes.image_width // sizes.head_width,
                  image_size=sizes.image_size, patch_size=sizes.patch, projection_dim=sizes.features)  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=sizes.features)
    model = CLIPModel(config).eval().to(device)
    pixels = torch.tensor(images.transpose(0, 3, 1, 2), device=device)

    def seconds(kind, ids):
        given = {"pixel_values": pixels} if kind == "image" else {"input_ids": torch.tensor(ids, device=device).long()}
        call = model.get_image_features if kind == "image" else model.get_text_features

        def run():
            with torch.inference_mode():
                call(**given)
            if device == "cuda":
                torch.cuda.synchronize()

        return best(run, repeats)

    return seconds


def prompts_of(sizes: clip.Architecture, classes: int, full: bool) -> Prompts:
    """Prompts with random names, padded to the longest or to the full context."""
    rng, end = np.random.default_rng(0), sizes.vocabulary - 1
    names = [rng.integers(1, end - 1, 1 + c % 6).tolist() for c in range(classes)]
    found = lay_out(names, [[1]] * classes, TOKENS, start=end - 1, end=end, context=sizes.context)
    if not full:
        return found
    missing = ((0, 0), (0, sizes.context - found.tokens.shape[1]))
    return found._replace(tokens=jnp.pad(found.tokens, missing), slot=jnp.pad(found.slot, missing, constant_values=-1))


def coop_step(
    sizes: clip.Architecture, classes: int, full: bool, chunk: int, remat: bool, dtype: Any, timed: bool
) -> dict[str, Any]:
    """Memory of a CoOp step with CMA on cached features, and its seconds if it is run."""
    tower, batch = clip.text_tower(sizes, dtype, remat), min(BATCH, classes)
    net = as_net(tower, jnp.zeros((1, 2), jnp.int32))
    nets = {"prompt": prompt_net((TOKENS, sizes.text_width)), "text": net}
    ctx = Context(nets, {"main": Optimizer(sgd(0.002))}, Facts(classes, 10), frozen=("text",))
    method = PromptLearning(weight=0.5, alignment="released", chunk=chunk, batch_size=batch)
    x = jax.random.normal(jax.random.key(1), (batch, sizes.features))
    constants: dict[str, Any] = {
        "data": {"train": {"x": x, "labels": jnp.arange(batch)}}, "logit_scale": jnp.log(100.0),
        "prompts": prompts_of(sizes, classes, full), "frozen": {"text": net.init(jax.random.key(0))},
    }  # fmt: skip
    state = init_state(method, Seeds(), ctx)
    step: Any = make_step(ctx, {"plain": lambda key, x: x}).compiled()
    begun = time.perf_counter()
    program = step.lower(method, state, constants, Seeds()).compile()
    row: dict[str, Any] = {
        "classes": classes,
        "tokens": constants["prompts"].tokens.shape[1],
        "chunk": chunk,
        "remat": remat,
    }
    row |= {"dtype": jnp.dtype(dtype).name, "compile_s": time.perf_counter() - begun}
    planned = program.memory_analysis()
    if planned is not None:
        row["plan_gib"] = planned.temp_size_in_bytes / 2**30
        row["with_arguments_gib"] = row["plan_gib"] + planned.argument_size_in_bytes / 2**30
    if timed:
        state, _ = jax.block_until_ready(program(method, state, constants, Seeds()))
        begun = time.perf_counter()
        jax.block_until_ready(program(method, state, constants, Seeds()))
        row["seconds"] = time.perf_counter() - begun
    return row


def steps(quick: bool) -> Iterator[dict[str, Any]]:
    """Steps with the text tower of ViT-B/16: truncated or not, chunked or not, float32 and bfloat16."""
    sizes, on_cpu = (TINY if quick else clip.ARCHITECTURES["ViT-B/16"]), jax.default_backend() == "cpu"
    asked = int(os.environ.get("INFOJAX_BENCH_CLASSES", 100))
    for classes in (4, 8) if quick else (100, 1000):
        for full in (False, True):
            for chunk, remat in ((0, False), (2 if quick else 100, False), (2 if quick else 50, True)):
                for dtype in (jnp.float32,) if quick or on_cpu else (jnp.float32, jnp.bfloat16):
                    chosen = chunk == (0 if classes == 100 else 100) and not remat  # what fits into 8 GiB
                    timed = quick or not on_cpu or classes <= asked and chosen
                    try:
                        yield {"kind": "coop step", **coop_step(sizes, classes, full, chunk, remat, dtype, timed)}
                    except jax.errors.JaxRuntimeError as error:  # it does not fit on this device
                        text = " ".join(str(error).split())[:80]
                        yield {"kind": "coop step", "classes": classes, "chunk": chunk, "remat": remat, "failed": text}


def run(quick: bool = False) -> Iterator[dict[str, Any]]:
    """The towers, then the steps."""
    if quick:
        yield from towers(TINY, "tiny", 2, 1)
        yield from islice(steps(True), 2)
    else:
        batch = 16 if jax.default_backend() == "cpu" else 256
        yield from towers(clip.ARCHITECTURES["ViT-B/32"], "ViT-B/32", batch, 3)
        yield from steps(False)
