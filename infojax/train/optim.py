"""Optimisers and schedules as in the papers' code, composed from optax.

Weight decay and layer-wise adaptation leave out every parameter with fewer than two axes, unless a mask says otherwise:
biases, and the scales and shifts of normalisation layers.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def matrices(params: Any) -> Any:
    """Mask of the parameters with two axes or more: kernels and embeddings."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def kernels(params: Any) -> Any:
    """Mask of the parameters named "kernel": `matrices` without tokens and positions, as MAE's fine-tuning decays."""
    return jax.tree_util.tree_map_with_path(lambda path, p: getattr(path[-1], "key", "") == "kernel", params)


def scale_by_layer(decay: float) -> optax.GradientTransformation:
    """Multiplies the update of a ViT's layer l of L by decay^(L + 1 - l), as in fine-tuning of BEiT and MAE.

    l is 0 for patches, positions and tokens, i for "block<i>", L + 1 for what follows the blocks. Parameters are
    matched by their top-level name in the net; a net without blocks is one layer, which is not scaled.
    """

    def layer(path):
        name = next((key for part in path if (key := str(getattr(part, "key", ""))) in BEFORE or _block(key)), "")
        return 0 if name in BEFORE else _block(name)

    def update(updates, state, params=None):
        leaves, tree = jax.tree_util.tree_flatten_with_path(updates)
        numbers = [layer(path) for path, _ in leaves]
        last = 1 + max((number for number in numbers if number), default=-1)
        scales = [decay ** (last - (last if number is None else number)) if last else 1.0 for number in numbers]
        return jax.tree.unflatten(tree, [scale * leaf for scale, (_, leaf) in zip(scales, leaves, strict=True)]), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


BEFORE = ("token", "position", "patches")  # what precedes the blocks of a ViT


def _block(name):
    """i of "block<i>", else None."""
    return int(name[5:]) if name.startswith("block") and name[5:].isdigit() else None


def cosine_7_16(lr: float, total_steps: int) -> optax.Schedule:
    """lr * max(0, cos(7 pi k / (16 K))), without warm-up; ends at 0.195 lr.

    References:
      FixMatch, and all methods of TorchSSL.
    """

    def schedule(step):
        return lr * jnp.maximum(jnp.cos(7 * jnp.pi * step / (16 * total_steps)), 0)

    return schedule


def coop(lr: float, total_steps: int, epochs: int, first: float = 1e-5) -> optax.Schedule:
    """Constant within an epoch: `first` in epoch 1, then lr (1 + cos(pi (e - 2) / epochs)) / 2 in epoch e = 2, 3, ...

    The cosine begins after the warm-up, so it does not reach 0: 0.002, 0.001998027, 0.001992115, ... for 50 epochs.

    References:
      CoOp, whose schedule is Dassl.pytorch's cosine with ConstantWarmupScheduler.
    """

    def schedule(step):
        epoch = step * epochs // total_steps  # from 0 on
        return jnp.where(epoch == 0, first, lr * 0.5 * (1 + jnp.cos(jnp.pi * (epoch - 1) / epochs)))

    return schedule


def warmup(lr: float, steps: int) -> float | optax.Schedule:
    """lr * min(k / steps, 1): the first update is by zero, as with PyTorch's LambdaLR of min(k / steps, 1)."""
    return optax.linear_schedule(0.0, lr, steps) if steps else lr


def warmup_cosine(lr: float, total_steps: int, warmup_steps: int = 0, end: float = 0.0) -> optax.Schedule:
    """Linear from 0 to lr over `warmup_steps`, then half a cosine down to `end` at `total_steps`."""
    return optax.warmup_cosine_decay_schedule(0.0 if warmup_steps else lr, lr, warmup_steps, total_steps, end)


def linspace_cosine(
    lr: float, total_steps: int, warmup_steps: int, start: float = 0.0, end: float = 0.0
) -> optax.Schedule:
    """linspace(start, lr, warmup_steps), then half a cosine: lr is reached at step warmup_steps - 1, and kept for one.

    `warmup_cosine` reaches it a step later; its rates in between are lower.

    References:
      solo-learn, with start = 3e-5; HaoChen's spectral_contrastive_learning.
    """
    last = max(warmup_steps - 1, 1)

    def schedule(step):
        rising = start + (lr - start) * jnp.minimum(step / last, 1)
        done = jnp.clip((step - warmup_steps) / max(total_steps - warmup_steps, 1), 0, 1)
        falling = end + (lr - end) * (1 + jnp.cos(jnp.pi * done)) / 2
        return jnp.where(step < warmup_steps, rising, falling)

    return schedule


def sgd(
    lr: float | optax.Schedule,
    *,
    momentum: float = 0.9,
    nesterov: bool = True,
    weight_decay: float = 0.0,
    clip: float | None = None,
    decayed: Any = matrices,
) -> optax.GradientTransformation:
    """SGD with coupled weight decay: g <- g + wd p; v <- momentum v + g; p <- p - lr (g + momentum v) (Nesterov).

    Args:
      lr: number or schedule (step -> number), evaluated at each step.
      decayed: mask of the parameters with decay; None for all of them.
      clip: largest global norm of the gradient before the decay is added, or None.
    """
    return _chain(
        clip,
        optax.add_decayed_weights(weight_decay, decayed),
        optax.trace(momentum, nesterov) if momentum else optax.identity(),
        optax.scale_by_learning_rate(lr),
    )


def adamw(
    lr: float | optax.Schedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    clip: float | None = None,
    decayed: Any = matrices,
    layer_decay: float = 1.0,
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay, p <- p - lr (m / (sqrt v + eps) + wd p), m and v bias-corrected.

    `decayed` is the mask of the parameters with decay; None for all of them. `layer_decay`: see `scale_by_layer`.
    """
    tx = optax.adamw(lr, b1, b2, eps, weight_decay=weight_decay, mask=decayed)
    return _chain(clip, tx, *([] if layer_decay == 1 else [scale_by_layer(layer_decay)]))


def lars(
    lr: float | optax.Schedule,
    *,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    trust: float = 1e-3,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """LARS as in the MAE and MoCo v3 code: d = g + wd p; v <- momentum v + trust |p| / |d| d; p <- p - lr v.

    The buffer holds adapted gradients and is multiplied by the *current* learning rate; `optax.lars` puts the learning
    rate into the buffer, which differs while the rate changes. Where |p| or |d| is zero, d is used as it is.

    References:
      You, Gitman and Ginsburg 2017; facebookresearch/mae util/lars.py.
    """
    return _chain(
        clip,
        optax.add_decayed_weights(weight_decay, matrices),
        optax.masked(optax.scale_by_trust_ratio(trust_coefficient=trust), matrices),
        optax.trace(momentum) if momentum else optax.identity(),
        optax.scale_by_learning_rate(lr),
    )


def larc(
    lr: float | optax.Schedule,
    *,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    trust: float = 0.02,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """LARS with a bound, as in solo-learn: v <- momentum v + min(s / lr, 1) (g + wd p); p <- p - lr v.

    s = trust |p| / (|g| + wd |p|). Where s < lr, without momentum, the step is s (g + wd p), whatever lr is: the
    schedule is only a bound. A matrix with |p| = 0 or |g| = 0 has neither decay nor adaptation.

    References:
      solo-learn's LARS with clip_lr, used with momentum 0 in its recipes for CIFAR; NVIDIA's LARC.
    """

    def update(updates, state, params=None):
        rate = lr(state.count) if callable(lr) else lr

        def one(g, p):
            norm_p, norm_g = jnp.linalg.norm(p), jnp.linalg.norm(g)
            apply = (p.ndim > 1) & (norm_p > 0) & (norm_g > 0)
            s = trust * norm_p / jnp.where(apply, norm_g + weight_decay * norm_p, 1)
            return jnp.where(apply, jnp.minimum(s / rate, 1) * (g + weight_decay * p), g)

        return jax.tree.map(one, updates, params), optax.ScaleByScheduleState(state.count + 1)

    def start(params):
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    return _chain(
        clip,
        optax.GradientTransformation(start, update),
        optax.trace(momentum) if momentum else optax.identity(),
        optax.scale_by_learning_rate(lr),
    )


def _chain(clip, *steps):
    return optax.chain(*([] if clip is None else [optax.clip_by_global_norm(clip)]), *steps)
