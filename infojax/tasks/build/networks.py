"""Networks of a config."""

from typing import Any

from ml_collections import config_dict

from infojax.models import build, options_of
from infojax.objectives import Net
from infojax.tasks.config import ConfigError
from infojax.train.networks import as_net


def network(settings: Any, num_classes: int, like: Any, start: str | None = None, **options: Any) -> Net:
    """The net of a config; `like` is a batch of what it is called with. With `start`, what comes after that stage.

    Raises:
      ConfigError: unknown model or option.
    """
    try:
        module = build(settings.name, num_classes, dtype=settings.dtype, **{**settings.options, **options})
    except ValueError as error:
        raise ConfigError(f"model: {error}") from None
    return as_net(module, like, start=start, param_dtype=settings.get("param_dtype"))


def all_options(model: str) -> dict[str, Any]:
    """All options of a model with their defaults, so that each is a flag; an option without a default is an integer."""
    found = {name: config_dict.placeholder(int) if x is None else x for name, x in options_of(model).items()}
    return found | ({"norm_decay": 0.9} if "norm_decay" in found else {})  # running statistics that follow a short run
