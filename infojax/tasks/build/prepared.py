"""A study before its first step: runs, mesh, state and step, on the devices of all processes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
from jax.sharding import Mesh

from infojax.evaluate import fixed_sample, forward
from infojax.objectives import Model, float_settings, init_state, with_settings
from infojax.parallel import gather, make_mesh, map_matrices, replicated, sharded_views, split
from infojax.suggestions import suggest
from infojax.tasks.build.data import MEASURED
from infojax.tasks.build.study import Run, Study, Tools
from infojax.tasks.config import ConfigError, buildable
from infojax.train.feed import Feed
from infojax.train.step import HOW, Step, make_step, map_runs, pick, stack


@dataclass(frozen=True)
class Prepared:
    """A run before its first step: its arrays are on their devices, its step is not compiled.

    Attributes:
      study: whose context knows the mesh and whose transforms are sharded over it.
      runs: one, or a group in one program.
      mesh: of the devices that share a batch; None for a single device.
      step: of one run or of the group; objective, state, constants, seeds: its arguments.
    """

    study: Study
    runs: Sequence[Run]
    mesh: Any
    step: Step
    objective: Any
    state: Any
    constants: Mapping[str, Any]
    seeds: Any

    @property
    def grouped(self) -> bool:
        """Whether the state has an axis of runs."""
        return self.step.how != "one"

    @property
    def arguments(self) -> tuple[Any, Any, Any, Any]:
        """The arguments of the step."""
        return self.objective, self.state, self.constants, self.seeds

    def tools(self, settings: Any) -> Tools:
        """`Tools` of the evaluators; `settings` is the config's section "evaluate"."""
        study, streamed = self.study, bool(self.study.streams)

        @cache
        def sample(split):
            count = settings[f"{split}_samples"] or (MEASURED if streamed else None)
            return fixed_sample(split, study.splits[split], count, read=not streamed)

        transform = study.transforms["plain"]
        devices = 1 if self.mesh is None else self.mesh.size
        through = forward(transform, settings["batch_size"], devices)
        return Tools(study.objective.network(study.ctx), transform, through, sample, self.runs, self.mesh)

    def feed(self, steps: int = 1) -> Feed | None:
        """`Feed` of the sources that the host reads, up to `steps` steps at once; None where there are none."""
        study = self.study
        if not study.streams:
            return None
        total = study.ctx.facts.total_steps
        parts = study.constants.get("parts", {})
        return Feed(study.streams, study.objective.views, self.seeds, total, self.mesh, steps, parts)

    def first_models(self) -> dict[str, Model]:
        """The models of the first run that evaluators see."""
        state = pick(self.state, 0) if self.grouped else self.state
        return self.study.objective.evaluated(state, self.constants, self.study.ctx)


def prepare(study: Study, config: Any) -> Prepared:
    """The `Prepared` run of a study.

    Raises:
      ConfigError: names the key.
    """
    mesh = mesh_of(study, config.devices)
    study = on_mesh(study, mesh)
    runs = list_runs(study, config)
    with buildable("the network or its step"):
        step, objective, state, seeds = assembled(study, runs, config.how)
    state, seeds, constants = replicated((state, seeds, {"data": study.data, **study.constants}), mesh)
    prepared = Prepared(study, runs, mesh, step, objective, state, constants, seeds)
    with buildable("the network or its step"):
        feed = prepared.feed()
        step.check(objective, state, constants, seeds, None if feed is None else feed.like())
    return prepared


def mesh_of(study: Study, devices: int = 0) -> Mesh | None:
    """The mesh of a run, with equally many devices of every process; None for a single device.

    Raises:
      ConfigError: names the number of devices.
    """
    count, processes = devices or jax.device_count(), jax.process_count()
    if not 0 < count <= jax.device_count():
        raise ConfigError(f"devices is {count}, but there are {jax.device_count()}")
    for view in study.objective.views:
        if view.size == "all" and view.source in study.streams:
            raise ConfigError(
                f"data.stream: a step takes all of {view.source}, which must be on the devices; give never"
            )
        size: Any = len(study.data[view.source]["labels"]) if view.size == "all" else view.size
        if size % count:
            if devices:
                raise ConfigError(f"devices is {count}, which does not divide the batch of {size}")
            count = math.gcd(count, size)
    if count % processes:
        raise ConfigError(
            f"{processes} processes cannot share {count} devices, the most that divide the batch; change either number"
        )
    return None if count == 1 else make_mesh(count)


def on_mesh(study: Study, mesh: Mesh | None) -> Study:
    """The study with a context that knows its mesh, and transforms whose results are sharded over it."""
    ctx = study.ctx._replace(
        map_matrices=partial(map_matrices, mesh=mesh),
        gather=partial(gather, mesh=mesh),
        split=partial(split, mesh=mesh),
    )
    return study._replace(ctx=ctx, transforms=sharded_views(study.transforms, mesh))


def list_runs(study: Study, config: Any) -> list[Run]:
    """The networks of a config: those of each seed, for each value of the sweep if there is one.

    Raises:
      ConfigError: the sweep is not of a float of the objective.
    """
    members = [member for i in range(config.seeds) for member in study.members(config.seed + i)]
    name, values = config.sweep.name, config.sweep["values"]
    if bool(name) != bool(values):
        raise ConfigError(f"sweep needs a name and values; got name {name!r}, values {values!r}")
    if not name:
        return [Run(facts, seeds) for facts, seeds in members]
    floats = float_settings(study.objective)
    if name not in floats and name != "lr":
        raise ConfigError(f"sweep.name cannot be {name!r}{suggest(name, [*floats, 'lr'])}")
    try:
        values = [float(value) for value in values]
    except (TypeError, ValueError):
        raise ConfigError(f"sweep.values must be numbers, got {values!r}") from None
    if len(set(values)) < len(values):
        raise ConfigError(f"sweep.values has a value twice: {values}")
    if name == "lr" and not min(config.optimizer.lr, *values) > 0:
        raise ConfigError(f"learning rates must be positive; got optimizer.lr {config.optimizer.lr}, values {values}")

    def own(value):
        return {"lr_scale": value / config.optimizer.lr} if name == "lr" else {name: value}

    return [Run({name: value, **facts}, seeds, own(value)) for value in values for facts, seeds in members]


def assembled(study: Study, runs: Sequence[Run], how: str = "auto") -> tuple[Step, Any, Any, Any]:
    """(step, objective, state, seeds) of one run, or stacked for a group of runs.

    Args:
      how: a key of `HOW`; "auto" dispatches on a CPU (README, `python -m infojax.bench train`), and is vmap elsewhere.
    Raises:
      ConfigError: unknown `how`.
    """
    if how not in ("auto", *HOW):
        raise ConfigError(f"how cannot be {how!r}{suggest(how, ('auto', *HOW))}")
    step, seeds = make_step(study.ctx, study.transforms), [run.seeds for run in runs]
    objectives = [with_settings(study.objective, run.floats) for run in runs]
    states = [init_state(own, seed, study.ctx) for own, seed in zip(objectives, seeds, strict=True)]
    if len(runs) == 1 and not runs[0].floats:  # one run, without a swept value
        return step, objectives[0], states[0], seeds[0]
    if how == "auto":
        how = "dispatch" if jax.default_backend() == "cpu" else "vmap"
    swept = {name: jax.numpy.array([run.floats[name] for run in runs]) for name in runs[0].floats}
    return map_runs(step, how), with_settings(study.objective, swept), stack(states), stack(seeds)
