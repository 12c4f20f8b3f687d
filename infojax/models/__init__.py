"""Networks, in Flax. Every one is called as `net(x, train)` and returns `Output`; `stages` says where it may be cut."""

import difflib
from functools import partial

import jax.numpy as jnp

from infojax.models.cnn import ThesisCNN
from infojax.models.mlp import MLP
from infojax.models.output import Output
from infojax.models.resnet import ResNet18
from infojax.models.transformer import Transformer
from infojax.models.vit import ViT
from infojax.models.wide_resnet import WideResNet

__all__ = [
    "MLP",
    "MODELS",
    "Output",
    "ResNet18",
    "ThesisCNN",
    "Transformer",
    "ViT",
    "WideResNet",
    "build",
    "options_of",
]

MODELS = {
    "wrn_28_2": partial(WideResNet, depth=28, width=2),
    "wrn_28_8": partial(WideResNet, depth=28, width=8),
    "wrn_37_2": partial(WideResNet, depth=28, width=2, groups=4, first_stride=2),  # STL-10's
    "wide_resnet": WideResNet,
    "resnet18": ResNet18,
    "vit_tiny": partial(ViT, size="tiny"),
    "vit_small": partial(ViT, size="small"),
    "vit_base": partial(ViT, size="base"),
    "vit_large": partial(ViT, size="large"),
    "f_plus": ThesisCNN,
    "f_minus": partial(ThesisCNN, skip=False, channels=(16, 32, 64)),
    "mlp": MLP,
    "mlp_100x8": partial(MLP, widths=(100,) * 8, norm=True),  # of constant width, as in He and Su 2023
    "transformer": Transformer,
}


def options_of(name):
    """What a network may be given, with its defaults, of which None is a whole number; {} for an unknown name."""
    net = MODELS.get(name)
    fields = getattr(net, "func", net).__dataclass_fields__.values() if net else ()
    own = {f.name: f.default for f in fields if f.name not in ("parent", "name", "num_classes", "dtype")}
    return own | getattr(net, "keywords", {})


def build(name, num_classes, *, dtype="float32", **options):
    """A network by name.

    Args:
      name: a key of MODELS.
      dtype: "float32" or "bfloat16", of the computation; parameters, statistics and losses stay float32.
      options: fields of its class, as `variant="google"`.
    Raises:
      ValueError: unknown name, dtype or option; names the near ones.
    """

    def unknown(kind, value, known):
        close = difflib.get_close_matches(str(value), known, 1)
        return ValueError(
            f"no {kind} {value!r}; " + (f"did you mean {close[0]}?" if close else f"there is {', '.join(known)}")
        )

    if name not in MODELS:
        raise unknown("model", name, MODELS)
    if dtype not in ("float32", "bfloat16"):
        raise unknown("dtype", dtype, ("float32", "bfloat16"))
    net = MODELS[name]
    known = [f for f in getattr(net, "func", net).__dataclass_fields__ if f not in ("parent", "name", "num_classes")]
    for option in options:
        if option not in known:
            raise unknown(f"option of {name},", option, known)
    return net(num_classes, dtype=jnp.dtype(dtype), **options)
