"""Networks of a config."""

from ml_collections import config_dict

from infojax.models import build, options_of
from infojax.tasks.config import ConfigError
from infojax.train.networks import as_net


def network(settings, num_classes, like, start=None, **options):
    """The net of a config; `like` is a batch of what it is called with. With `start`, what comes after that stage.

    Raises:
      ConfigError: unknown model or option.
    """
    try:
        module = build(settings.name, num_classes, dtype=settings.dtype, **{**settings.options, **options})
    except ValueError as error:
        raise ConfigError(f"model: {error}") from None
    return as_net(module, like, start=start, param_dtype=settings.get("param_dtype"))


def all_options(model):
    """All options of a model, so that each is a flag; those without a value are whole numbers."""
    found = {name: config_dict.placeholder(int) if x is None else x for name, x in options_of(model).items()}
    return found | ({"norm_decay": 0.9} if "norm_decay" in found else {})  # running statistics that follow a short run
