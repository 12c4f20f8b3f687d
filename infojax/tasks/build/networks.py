"""Networks of a config."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import config_dict

from infojax.commands import show
from infojax.features.files import open_arrays
from infojax.features.sources import FeatureFileError
from infojax.models import build, options_of
from infojax.models.convert import from_published
from infojax.objectives import Net
from infojax.tasks.config import ConfigError
from infojax.train.networks import as_net

TORCH = (".pt", ".pth", ".pth.tar", ".bin", ".ckpt")


def network(settings: Any, num_classes: int, *like: Any, start: str | None = None, **options: Any) -> Net:
    """The net of a config; `like` are batches of its inputs. With `start`, only what follows that stage.

    If `settings` names a file of `weights`, `init` returns these instead of drawing any.

    Raises:
      ConfigError: unknown model or option, or weights that are not its own.
    """
    try:
        module = build(settings.name, num_classes, dtype=settings.dtype, **{**settings.options, **options})
    except ValueError as error:
        raise ConfigError(f"model: {error}") from None
    net = as_net(module, *like, start=start, param_dtype=settings.get("param_dtype"))
    return net if start or not settings.get("weights") else with_weights(net, module, settings.weights)


def with_weights(net: Net, module: Any, file: str) -> Net:
    """The net whose `init` gives the parameters and statistics of a checkpoint; says what is left out.

    Args:
      module: the net's module, from `infojax.models`.
      file: .safetensors or .npz, with the names that `infojax.models.convert` knows; or the folder of a run, whose
        newest checkpoint is taken, of its first network if there are several.
    Raises:
      ConfigError: it cannot be read, or belongs to another network.
    """
    arrays = of_run(file) if Path(file).is_dir() else read_weights(file)
    params, model_state = jax.eval_shape(net.init, jax.random.key(0))
    try:
        found, notes = from_published(arrays, module, {"params": params, **model_state})
    except ValueError as error:
        raise ConfigError(f"model.weights: {file}: {error}") from None
    if jax.process_index() == 0:
        show("\n".join(f"{file}: {note}" for note in notes or ["all parameters are taken from it"]))

    def init(key):
        def choose(drawn, read):
            return drawn if isinstance(read, jax.ShapeDtypeStruct) else jax.numpy.asarray(read)

        params, model_state = net.init(key)
        drawn = {"params": params, **model_state}
        chosen = dict(jax.tree.map(choose, drawn, found))
        return chosen.pop("params"), chosen

    return net._replace(init=init)


def of_run(folder: str) -> Mapping[str, Any]:
    """name -> array of the network of a run folder, under its own names.

    Raises:
      ConfigError, RunFolderError, CheckpointError: as of `saved`.
    """
    from infojax.tasks.build.saved import saved  # which builds the run, and so its network

    found = saved(folder)
    params, model_state = found.model.params, found.model.model_state
    if not isinstance(params, Mapping):
        raise ConfigError(f"model.weights: what the run of {folder} trains is not a network")
    if params.keys() <= found.study.ctx.nets.keys():  # by name, where heads stand on the network
        params, model_state = params["net"], model_state["net"]
    leaves = jax.tree_util.tree_leaves_with_path({"params": params, **model_state})
    return {"/".join(part.key for part in path[1:]): leaf for path, leaf in leaves}


def read_weights(file: str) -> Mapping[str, np.ndarray]:
    """name -> array of a checkpoint, without torch; counters of batches, single numbers, are not read.

    Raises:
      ConfigError: it cannot be read; of PyTorch's own format it says how to convert it.
    """
    if file.endswith(TORCH):
        raise ConfigError(
            f"model.weights: {file} is PyTorch's own format; convert it where torch is, with "
            'safetensors.torch.save_file(torch.load(FILE, weights_only=True)["model"], "weights.safetensors")'
        )
    try:
        return {name: stored.load() for name, stored in open_arrays(file).items() if stored.full_shape}
    except FeatureFileError as error:
        raise ConfigError(f"model.weights: {error}") from None


def all_options(model: str) -> dict[str, Any]:
    """All options of a model with their defaults, so that each is a flag; an option without a default is an integer."""
    found = {name: config_dict.placeholder(int) if x is None else x for name, x in options_of(model).items()}
    return found | ({"norm_decay": 0.9} if "norm_decay" in found else {})  # running statistics that follow a short run
