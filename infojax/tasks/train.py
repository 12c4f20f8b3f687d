"""Training of one or several runs: what every task that trains a network has in common."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from infojax.commands import show
from infojax.data import near
from infojax.evaluate import fixed_sample, forward
from infojax.objectives import Context, Objective, Seeds, init_state
from infojax.parallel import here, make_mesh, map_matrices, replicated, sharded_views, whole
from infojax.processes import together
from infojax.tasks.config import ConfigError, buildable, plain
from infojax.tasks.faults import underway
from infojax.train.checkpoint import Checkpoints
from infojax.train.cost import estimate
from infojax.train.loop import every, fit, log_spaced
from infojax.train.progress import Progress
from infojax.train.runlog import RunFolder
from infojax.train.step import HOW, make_step, map_runs, stack


def say_once(text):
    """Prints, in one process."""
    if jax.process_index() == 0:
        show(text)


class Run(NamedTuple):
    """One of the networks that are trained together.

    Attributes:
      facts: what tells it apart in its rows, as {"temperature": 10.0, "seed": 0}.
      seeds: where its randomness comes from.
      floats: those of the objective that are its own.
    """

    facts: dict
    seeds: Seeds
    floats: Mapping[str, float] = {}


def one_of(seed):
    """The usual member of a seed: parameters, order and noise are its own."""
    return [({"seed": seed}, Seeds(seed, seed, seed))]


class Study(NamedTuple):
    """What a task gives to be trained.

    Attributes:
      objective, ctx: what is minimised, with which networks and optimisers.
      views: name -> transform, as of `infojax.data.transforms`.
      data: source -> {"x", "labels"}, what is trained on.
      sources: split -> what is evaluated on.
      evaluators: (`Look`, due) -> yields `Evaluator`s; `due` is the config's choice of steps.
      per_epoch: steps an epoch, a float; None where a step is an epoch.
      members: seed -> (facts, `Seeds`) of each network that it stands for, as the two ends of a path.
      nets: names of the trained networks; all by default.
      constants: what else the objective needs and does not train.
      notes: of the data set: what was read, left out, converted or estimated, a line each.
    """

    objective: Objective
    ctx: Context
    views: Mapping[str, Callable]
    data: Mapping[str, Any]
    sources: Mapping[str, Any]
    evaluators: Callable
    per_epoch: float | None
    members: Callable = one_of
    nets: tuple[str, ...] | None = None
    constants: Mapping[str, Any] = {}
    notes: Sequence[str] = ()


class Look(NamedTuple):
    """What evaluators see with.

    Attributes:
      net: the network; transform: of stored samples; through: the one compiled `forward` of both.
      sample: split -> the config's fixed part of it.
      runs: numbered as in the rows.
      mesh: of the devices that share a batch; None on one.
    """

    net: Any
    transform: Callable
    through: Callable
    sample: Callable
    runs: list[Run]
    mesh: Any

    @property
    def devices(self):
        return 1 if self.mesh is None else self.mesh.size


class Begun(NamedTuple):
    """A run before its first step: its arrays are where they stay, its step is not compiled.

    Attributes:
      mesh: None on one device.
      views: of the study, sharded; runs: what tells each apart; how: they are mapped.
      objective, state, constants, seeds: what `step` takes.
    """

    mesh: Any
    views: Mapping[str, Callable]
    runs: list[Run]
    how: str
    step: Callable
    objective: Objective
    state: Any
    constants: Mapping[str, Any]
    seeds: Any


def begin(study, config):
    """State, data and step of a run on the devices of all processes.

    Raises:
      ConfigError: names the key.
    """
    mesh = mesh_of(config, study)
    study = on_mesh(study, mesh)
    views = sharded_views(study.views, mesh)
    runs = list_runs(config, study)
    with buildable("the network or its step"):
        objective, seeds, state, step, how = several(study, config, views, runs)
    state, seeds, constants = replicated((state, seeds, {"data": study.data, **study.constants}), mesh)
    with buildable("the network or its step"):
        traced = step.one if how == "dispatch" else step
        jax.eval_shape(traced, objective, state, constants, seeds, None, *([0] if how == "dispatch" else []))
    return Begun(mesh, views, runs, how, step, objective, state, constants, seeds)


def run_of(study):
    """A task's `run`: (config, workdir, dry_run) -> the last state; `study` makes a `Study` of the config."""

    def run(config, workdir, dry_run=False):
        with buildable("data, model and objective"):
            prepared = study(config)
        return train(prepared, config, workdir, dry_run)

    return run


def train(study, config, workdir, dry_run=False, say=say_once):
    """Trains to the end from wherever `workdir` stands, then draws; returns the last state.

    With `dry_run` it says what would be done and what it would cost, and writes nothing.
    """
    total, on_cpu = study.ctx.facts.total_steps, jax.default_backend() == "cpu"
    mesh, views, runs, how, step, objective, state, constants, seeds = begin(study, config)
    calls = 1 if how == "dispatch" else config.steps_per_call or (1 if on_cpu else 10)
    resolved = plain(config) | {
        "steps": total, "steps_per_epoch": study.per_epoch, "num_classes": study.ctx.facts.num_classes,
        "how": how, "steps_per_call": calls, "notes": list(study.notes),
    }  # fmt: skip
    folder = None if dry_run else RunFolder(workdir, resolved)
    progress = Progress(total, len(runs))
    store = (
        None
        if dry_run
        else Checkpoints(Path(workdir) / "checkpoints", config.checkpoint.keep, config.checkpoint.best or None)
    )
    if dry_run:
        say(json.dumps(resolved, indent=2))
    say("\n".join(describe(config, study, state, mesh, runs, how)))
    done = max(store.steps(), default=0) if store else 0
    if done < total:
        cost = estimate(step, (objective, state, constants, seeds), progress)
        if how == "loop" and cost.flops:
            cost = cost._replace(flops=cost.flops * len(runs))  # XLA counts the body of a loop once
        say(cost.line(total - done, study.objective.views, len(runs)))
    if dry_run:
        return None
    points, interval = config.evaluate.points, config.evaluate.every
    due = every(interval, total) if interval or not points else log_spaced(total, points, study.per_epoch or 1)
    with together():
        evaluators = list(study.evaluators(look_of(study, config, views, runs, mesh), due))
    begun = time.perf_counter()
    with underway(workdir), folder, store, progress.shown(folder):
        state = fit(
            objective, state, constants, seeds, step,
            until=total,
            evaluators=evaluators,
            rows=folder,
            checkpoints=store,
            log=every(config.log.every, total),
            save=every(config.checkpoint.every, total),
            progress=progress,
            steps_per_call=calls,
            runs=[run.facts for run in runs] if grouped(runs) else (),
        )  # fmt: skip
    say(f"trained in {time.perf_counter() - begun:.0f} s; rows in {folder.metrics}")
    if grouped(runs):
        say_frozen(runs, state, say)
    if config.report.draw and jax.process_index() == 0:
        from infojax.report.runs import summary_lines, write_run

        with underway(workdir):
            say("\n".join(summary_lines(workdir)))
            say(str(write_run(workdir)))
    return state


def say_frozen(runs, state, say):
    """Names the runs of a group whose state stayed behind, as `map_runs` leaves it where a number is not finite."""
    steps = np.asarray(here(state.step))
    for run, step in zip(runs, steps, strict=True):
        if step < steps.max():
            facts = ", ".join(f"{name} {value}" for name, value in run.facts.items())
            say(f"the run of {facts} became NaN or Inf after step {step:,}: its rows are marked frozen from there on")


def look_of(study, config, views, runs, mesh=None):
    """What the evaluators of a run see with."""

    @cache
    def sample(split):
        return fixed_sample(split, study.sources[split], config.evaluate[f"{split}_samples"])

    net, transform = study.ctx.nets["net"], views["plain"]
    devices = 1 if mesh is None else mesh.size
    return Look(net, transform, forward(net, transform, config.evaluate.batch_size, devices), sample, runs, mesh)


def mesh_of(config, study):
    """The mesh of a run, with equally many devices of every process; None on one device."""
    count, processes = config.devices or jax.device_count(), jax.process_count()
    if not 0 < count <= jax.device_count():
        raise ConfigError(f"devices is {count}, but there are {jax.device_count()}")
    for view in study.objective.views:
        size = len(study.data[view.source]["labels"]) if view.size == "all" else view.size
        if size % count:
            if config.devices:
                raise ConfigError(f"devices is {count}, which does not divide the batch of {size}")
            count = math.gcd(count, size)
    if count % processes:
        raise ConfigError(
            f"{processes} processes cannot share {count} devices, as many as divide the batch; change one of them"
        )
    return None if count == 1 else make_mesh(count)


def on_mesh(study, mesh):
    """The study with an objective that knows its mesh."""
    ctx = study.ctx._replace(map_matrices=partial(map_matrices, mesh=mesh), whole=partial(whole, mesh=mesh))
    return study._replace(ctx=ctx)


def list_runs(config, study):
    """The networks of a config: for each swept value, where there are any, those of each seed."""
    members = [member for i in range(config.seeds) for member in study.members(config.seed + i)]
    name, values = config.sweep.name, config.sweep["values"]
    if bool(name) != bool(values):
        raise ConfigError(f"sweep needs a name and values; got name {name!r}, values {values!r}")
    if not name:
        return [Run(facts, seeds) for facts, seeds in members]
    floats = [field.name for field in fields(study.objective) if field.type in (float, "float")]
    if name not in floats and name != "lr":
        raise ConfigError(f"sweep.name cannot be {name!r}{near(name, [*floats, 'lr'])}")
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


def grouped(runs):
    """Whether the state has an axis of runs: there are several, or one with a swept value."""
    return len(runs) > 1 or len(runs[0].facts) > 1


def several(study, config, views, runs):
    """(objective, seeds, state, step, how): of one run, or stacked for a group of runs."""
    if config.how not in ("auto", *HOW):
        raise ConfigError(f"how cannot be {config.how!r}{near(config.how, ('auto', *HOW))}")
    step = make_step(study.ctx, views)
    seeds = [run.seeds for run in runs]
    objectives = [replace(study.objective, **run.floats) for run in runs]
    if not grouped(runs):
        return objectives[0], seeds[0], init_state(objectives[0], seeds[0], study.ctx, study.nets), step, "one"
    states = [init_state(o, s, study.ctx, study.nets) for o, s in zip(objectives, seeds, strict=True)]
    how = config.how
    if how == "auto":  # measured on CPU: README, `python -m infojax.bench train`
        how = "dispatch" if jax.default_backend() == "cpu" else "vmap"
    swept = {name: jax.numpy.array([run.floats[name] for run in runs]) for name in runs[0].floats}
    return replace(study.objective, **swept), stack(seeds), stack(states), map_runs(step, how), how


def describe(config, study, state, mesh, runs, how):
    """Lines: what is trained, the shapes on the way, on what, with which devices."""
    count = len(runs)
    lines = [f"{config.name}:{config.preset}"]
    for name, params in state.params.items():
        size = sum(leaf.size for leaf in jax.tree.leaves(params)) // count
        lines[0] += f"  {config.model.name if name == 'net' else name}: {size:,} parameters"
    for name, arrays in study.data.items():
        shape = " x ".join(map(str, arrays["x"].shape[1:]))
        lines.append(f"{config.data.name}, {name}: {len(arrays['x']):,} samples of {shape} {arrays['x'].dtype}")
    lines += study.notes
    if "net" in state.params:
        lines.append(shapes(study, jax.tree.map(lambda leaf: leaf[0], state) if grouped(runs) else state))
    kind = jax.devices()[0].device_kind
    used = 1 if mesh is None else mesh.size
    processes = f" in {jax.process_count()} processes" * (jax.process_count() > 1)
    runs_by = f", {count} runs by {how}" * (count > 1)
    lines.append(f"{used} of {jax.device_count()} devices ({kind}){processes}{runs_by}")
    return lines


def shapes(study, state):
    """The network's features of one sample, layer by layer."""

    def outputs(params, model_state, x):
        return study.ctx.nets["net"].apply(params, model_state, study.views["plain"](None, x), train=False)[0]

    x = next(iter(study.data.values()))["x"][:1]
    found = jax.eval_shape(outputs, state.params["net"], state.model_state["net"], x)
    layers = found.features | {"embedding": found.embedding, "logits": found.logits}
    return "net: " + ", ".join(f"{name} {' x '.join(map(str, a.shape[1:]))}" for name, a in layers.items())
