"""The network of a run folder, at the weights of its newest checkpoint."""

from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from infojax.objectives import Model
from infojax.report.runs.reading import read_settings
from infojax.suggestions import suggest
from infojax.tasks import TASKS, load
from infojax.tasks.build.prepared import prepare
from infojax.tasks.build.study import Study
from infojax.tasks.config import ConfigError, buildable
from infojax.train.checkpoint import Checkpoints
from infojax.train.step import pick

TOWERS = "towers.safetensors"  # of small towers, in the run folder


class Saved(NamedTuple):
    """A finished or interrupted run.

    Attributes:
      settings: its config, as a dict.
      study: with its data, transforms and networks.
      model: at the weights of its newest checkpoint, of step `step`.
      notes: which of several runs was taken.
    """

    settings: dict[str, Any]
    study: Study
    model: Model
    step: int
    notes: tuple[str, ...] = ()


def saved(folder: str, run: int = 0, weights: str = "raw") -> Saved:
    """The newest checkpoint of a run folder, of any task that trains networks.

    Args:
      run: which of the runs that were trained together.
      weights: "raw", or the name of an average, as "ema".
    Raises:
      ConfigError, RunFolderError, CheckpointError: there is no such run, checkpoint or average.
    """
    where, settings = Path(folder).expanduser(), settings_of(folder)
    task = settings["task"]
    # As the run was built, on one device; its steps are known, so that no epochs are.
    config = ConfigDict(_tuples(settings) | {"epochs": None, "devices": 1, "how": "auto"})
    if "weights" in config.model:
        config.model.weights = ""  # the checkpoint has others
    study = load(task).study
    own = {}
    if "workdir" in signature(study).parameters:  # frozen towers that the run trained for itself lie in its folder
        if not config.get("weights") and not (where / TOWERS).is_file():
            raise ConfigError(f"checkpoint.run: {folder} has no {TOWERS}, the towers that its prompts were learnt on")
        own = {"workdir": where}
    with buildable(f"the run of {folder}"):
        prepared = prepare(study(config, **own), config)
    with Checkpoints(where / "checkpoints", read_only=True) as store:
        found = store.restore(prepared.state)
    if found is None:
        raise ConfigError(f"checkpoint.run: {folder} has no finished checkpoint")
    step, state = found
    count = len(prepared.runs)
    if run >= count:
        raise ConfigError(f"frozen.run must be below {count}, the runs of {folder}; got {run}")
    state = pick(state, run) if prepared.grouped else state
    models = prepared.study.objective.evaluated(state, prepared.constants, prepared.study.ctx)
    if weights not in models:
        raise ConfigError(f"frozen.weights cannot be {weights!r}{suggest(weights, models)}")
    facts = ", ".join(f"{name} {value}" for name, value in prepared.runs[run].facts.items())
    notes = (f"{folder}: run {run} of {count} ({facts})",) if count > 1 else ()
    return Saved(settings, prepared.study, models[weights], step, notes)


def settings_of(folder: str, key: str = "checkpoint.run") -> dict[str, Any]:
    """The config of a run folder that has checkpoints of a network.

    Raises:
      ConfigError, RunFolderError: it is no such folder; `key` is named.
    """
    where = Path(folder).expanduser()
    settings = read_settings(where / "config.json")
    if not settings or not (where / "checkpoints").is_dir():
        empty = " with settings" * (where / "config.json").is_file()
        missing = "checkpoints" if settings else f"config.json{empty}"
        raise ConfigError(f"{key}: {folder} has no {missing}; give the folder of a run")
    task = settings.get("task")
    if task not in TASKS or not hasattr(load(task), "study"):
        raise ConfigError(f"{key}: {folder} is of the task {task!r}, which trains no network")
    return settings


def encoder_of(folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sections "data" and "model" of a run, to train its network further; of an MAE the ViT of its encoder.

    Raises:
      ConfigError, RunFolderError: as of `settings_of`.
    """
    settings = _tuples(settings_of(folder, "weights"))
    data, model = settings["data"], settings["model"]
    if model["name"].startswith("mae"):
        options = {key: model["options"][key] for key in ("size", "patch") if key in model["options"]}
        model = model | {"name": model["name"].replace("mae", "vit"), "options": options}
    return data, model


def _tuples(value):
    """Lists as tuples: JSON has no tuples, and configs have no lists."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
