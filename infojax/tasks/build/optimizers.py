"""Optimisers and learning-rate schedules of a config, by name."""

from typing import Any

import optax
from ml_collections import ConfigDict

from infojax.suggestions import suggest
from infojax.tasks.config import ConfigError
from infojax.train import optim


def sgd(settings: Any, rate: Any) -> optax.GradientTransformation:
    """SGD with momentum and coupled weight decay."""
    return optim.sgd(
        rate,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
        clip=settings.clip or None,
        decayed=DECAYED[settings.get("decayed", "matrices")],
    )


def adamw(settings: Any, rate: Any) -> optax.GradientTransformation:
    """Adam with decoupled weight decay."""
    return optim.adamw(
        rate,
        b1=settings.b1,
        b2=settings.b2,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        clip=settings.clip or None,
        decayed=DECAYED[settings.decayed],
        layer_decay=settings.get("layer_decay", 1.0),
    )


def lars(settings: Any, rate: Any) -> optax.GradientTransformation:
    """LARS: layer-wise adaptive rates, for large batches."""
    return optim.lars(
        rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        trust=settings.trust,
        clip=settings.clip or None,
    )


def larc(settings: Any, rate: Any) -> optax.GradientTransformation:
    """LARS whose layer-wise rate is bounded by the learning rate, as in solo-learn."""
    return optim.larc(
        rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        trust=settings.trust,
        clip=settings.clip or None,
    )


def constant(settings: Any, total: int) -> Any:
    """A constant learning rate."""
    return settings.lr


def cosine(settings: Any, total: int) -> Any:
    """Half a cosine down to 0, after a linear warm-up."""
    return optim.warmup_cosine(settings.lr, total, settings.warmup_steps)


def cosine_linspace(settings: Any, total: int) -> Any:
    """Half a cosine down to 0, after a warm-up from 3e-5 whose last step has the full rate: solo-learn's."""
    return optim.linspace_cosine(settings.lr, total, settings.warmup_steps, start=min(3e-5, settings.lr))


def cosine_7_16(settings: Any, total: int) -> Any:
    """cos(7 pi k / 16 K), FixMatch's and TorchSSL's."""
    return optim.cosine_7_16(settings.lr, total)


def coop(settings: Any, total: int) -> Any:
    """CoOp's: 1e-5 in the first epoch, then half a cosine, constant within an epoch."""
    if "epochs" not in settings:
        raise ConfigError("optimizer.schedule coop is for the task crossmodal, which counts in epochs")
    return optim.coop(settings.lr, total, settings.epochs)


def exponential(settings: Any, total: int) -> Any:
    """Falls exponentially to `optimizer.final` times its first value."""
    return lambda step: settings.lr * settings.final ** (step / total)


def warmup(settings: Any, total: int) -> Any:
    """A linear warm-up, then constant."""
    return optim.warmup(settings.lr, settings.warmup_steps)


OPTIMIZERS = {"sgd": sgd, "adamw": adamw, "lars": lars, "larc": larc}
SCHEDULES = {
    "constant": constant, "coop": coop, "cosine": cosine, "cosine_7_16": cosine_7_16,
    "cosine_linspace": cosine_linspace, "exponential": exponential, "warmup": warmup,
}  # fmt: skip
WARMING = ("cosine", "cosine_linspace", "warmup")
DECAYED = {"all": None, "matrices": optim.matrices, "kernels": optim.kernels}  # which parameters have weight decay
# Keys of the section "optimizer" besides name, lr, weight_decay, clip (0: no clipping), schedule and warmup_steps.
OWN: dict[str, dict[str, Any]] = {
    "sgd": dict(momentum=0.9, nesterov=True, decayed="matrices"),
    "adamw": dict(b1=0.9, b2=0.999, eps=1e-8, decayed="matrices", layer_decay=1.0),
    "lars": dict(momentum=0.9, trust=1e-3),
    "larc": dict(momentum=0.0, trust=0.02),
}


def optimizer_settings(
    name: str,
    *,
    lr: float,
    weight_decay: float,
    clip: float = 0.0,
    schedule: str = "constant",
    warmup_steps: int = 0,
    **own: Any,
) -> dict[str, Any]:
    """The section "optimizer" of a config: every key that the optimiser has."""
    common = dict(name=name, lr=lr, weight_decay=weight_decay, clip=clip, schedule=schedule, warmup_steps=warmup_steps)
    return common | OWN[name] | own


def optimizer(settings: Any, total: int, updates: int = 1, factor: float = 1.0) -> optax.GradientTransformation:
    """The optax transformation of the section "optimizer".

    Args:
      total: steps of the run; updates: this optimiser's updates per step; factor: multiplies its learning rate.
    Raises:
      ConfigError: unknown name, or a warm-up that the schedule does not have or that is too long.
    """
    for key, known in (("name", OPTIMIZERS), ("schedule", SCHEDULES)):
        if settings[key] not in known:
            raise ConfigError(f"optimizer.{key} cannot be {settings[key]!r}{suggest(settings[key], known)}")
    if settings.warmup_steps and settings.schedule not in WARMING:
        raise ConfigError(
            f"optimizer.warmup_steps is {settings.warmup_steps}; only the schedules {', '.join(WARMING)} have a warm-up"
        )
    if not 0 <= settings.warmup_steps < total:
        raise ConfigError(f"optimizer.warmup_steps must be from 0 to below {total}, got {settings.warmup_steps}")
    scaled = ConfigDict(settings.to_dict() | {"lr": factor * settings.lr})
    return OPTIMIZERS[settings.name](settings, SCHEDULES[settings.schedule](scaled, total * updates))
