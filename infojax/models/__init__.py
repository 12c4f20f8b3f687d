"""Networks, in Flax. Each is called as `net(x, train)` and returns `Output`; `stages` says where it can be cut."""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from infojax.models.cnn import ThesisCNN
from infojax.models.heads import Projector
from infojax.models.linear import Linear, LinearProbe
from infojax.models.mae import MAE, MAEOutput
from infojax.models.mlp import MLP
from infojax.models.output import Output
from infojax.models.resnet import ResNet
from infojax.models.transformer import Transformer
from infojax.models.vit import ViT
from infojax.models.wide_resnet import WideResNet
from infojax.suggestions import suggest

__all__ = [
    "MAE",
    "MLP",
    "MODELS",
    "Linear",
    "LinearProbe",
    "MAEOutput",
    "Output",
    "Projector",
    "ResNet",
    "ThesisCNN",
    "Transformer",
    "ViT",
    "WideResNet",
    "build",
    "options_of",
]

MODELS: dict[str, Any] = {
    "wrn_28_2": partial(WideResNet, depth=28, width=2),
    "wrn_28_8": partial(WideResNet, depth=28, width=8),
    "wrn_37_2": partial(WideResNet, depth=28, width=2, groups=4, first_stride=2),  # STL-10's
    "wide_resnet": WideResNet,
    "resnet18": partial(ResNet, depth=18),
    "resnet50": partial(ResNet, depth=50, stem="imagenet"),
    "vit_tiny": partial(ViT, size="tiny"),
    "vit_small": partial(ViT, size="small"),
    "vit_base": partial(ViT, size="base"),
    "vit_large": partial(ViT, size="large"),
    "vit_huge": partial(ViT, size="huge", patch=14),
    "mae_tiny": partial(MAE, size="tiny"),
    "mae_small": partial(MAE, size="small"),
    "mae_base": partial(MAE, size="base"),
    "mae_large": partial(MAE, size="large"),
    "mae_huge": partial(MAE, size="huge", patch=14),
    "f_plus": ThesisCNN,
    "f_minus": partial(ThesisCNN, skip=False, channels=(16, 32, 64)),
    "mlp": MLP,
    "mlp_100x8": partial(MLP, widths=(100,) * 8, norm=True),  # of constant width, as in He and Su 2023
    "transformer": Transformer,
}

LEAST = {"stem_padding": 0}  # lower bounds of whole numbers, alone or in a tuple; 1 by default
MOST = 2**20  # upper bound of all of them: anything larger is a mistake
BELOW = {"norm_decay": 1.0, "drop_path": 1.0, "mask_ratio": 1.0, "head_std": 1.0}  # others: at least 0, below these


def options_of(name: str) -> dict[str, Any]:
    """The options of a network with their defaults, None standing for a whole number; {} for an unknown name."""
    net = MODELS.get(name)
    fields = getattr(net, "func", net).__dataclass_fields__.values() if net else ()
    own = {f.name: f.default for f in fields if f.name not in ("parent", "name", "num_classes", "dtype")}
    return own | getattr(net, "keywords", {})


def build(name: str, num_classes: int, *, dtype: str = "float32", **options: Any) -> Any:
    """A network by name.

    Args:
      name: a key of MODELS.
      dtype: "float32" or "bfloat16", of the computation; parameters, statistics and losses stay float32.
      options: fields of its class, such as `variant="google"`.
    Raises:
      ValueError: unknown name, dtype or option (similar ones are named); an option out of range.
    """

    def unknown(kind, value, known):
        return ValueError(f"no {kind} {value!r}{suggest(value, known)}")

    if name not in MODELS:
        raise unknown("model", name, MODELS)
    if not isinstance(num_classes, int | np.integer) or isinstance(num_classes, bool) or num_classes < 1:
        raise ValueError(f"num_classes must be a whole number of at least 1, got {num_classes!r}")
    if dtype not in ("float32", "bfloat16"):
        raise unknown("dtype", dtype, ("float32", "bfloat16"))
    net = MODELS[name]
    known = [f for f in getattr(net, "func", net).__dataclass_fields__ if f not in ("parent", "name", "num_classes")]
    defaults = options_of(name)
    for option, value in options.items():
        if option not in known:
            raise unknown(f"option of {name},", option, known)
        wanted = _refusal(option, value, defaults[option])
        if wanted:
            raise ValueError(f"{option} of {name} must be {wanted}, got {value!r}")
    return net(num_classes, dtype=jnp.dtype(dtype), **options)


def _refusal(option, value, default):
    """What an option must be, judging by its default, or None if it is fine; the nets check strings themselves."""

    def whole(number):
        return isinstance(number, int) and not isinstance(number, bool) and LEAST.get(option, 1) <= number <= MOST

    given = value if isinstance(value, tuple | list) else (value,)
    large = any(isinstance(one, int) and one > MOST for one in given)
    ends = f"of at most {MOST:,}" if large else f"of at least {LEAST.get(option, 1)}"

    if isinstance(default, bool):
        return None if isinstance(value, bool) else "True or False"
    if isinstance(default, float):
        real = isinstance(value, int | float) and not isinstance(value, bool)
        return None if real and 0 <= value < BELOW[option] else f"at least 0 and below {BELOW[option]:g}"
    if isinstance(default, tuple):
        fits = isinstance(value, tuple | list) and all(map(whole, value))
        return None if fits else f"whole numbers {ends}"
    if default is None or isinstance(default, int):
        fits = whole(value) or (value is None and default is None)
        return None if fits else f"a whole number {ends}"
    return None
