"""Training of one or several runs: what every task that trains a network has in common."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np

from infojax.commands import show
from infojax.outputs import write
from infojax.parallel import local_copy
from infojax.processes import together
from infojax.tasks.build import Prepared, prepare
from infojax.tasks.build.study import Run, Study
from infojax.tasks.config import buildable, plain
from infojax.tasks.faults import underway
from infojax.train.checkpoint import Checkpoints
from infojax.train.cost import estimate
from infojax.train.loop import every, fit, log_spaced
from infojax.train.progress import Progress
from infojax.train.runlog import RunFolder


def say_once(text: str) -> None:
    """Prints, in one process."""
    if jax.process_index() == 0:
        show(text)


def run_of(study: Callable[[Any], Study]) -> Callable[..., Any]:
    """A task's `run`: (config, workdir, dry_run) -> the last state; `study` makes a `Study` of the config."""

    def run(config, workdir, dry_run=False):
        with buildable("data, model and objective"):
            found = study(config)
        return train(found, config, workdir, dry_run)

    return run


def train(
    study: Study,
    config: Any,
    workdir: str | Path,
    dry_run: bool = False,
    say: Callable[[str], None] = say_once,
) -> Any:
    """Trains to the end, continuing from what `workdir` holds, and draws the report; returns the last state.

    With `dry_run`, prints what would be done and what it would cost, and writes nothing.
    """
    prepared = prepare(study, config)
    study, step, runs = prepared.study, prepared.step, prepared.runs
    total, resolved = study.ctx.facts.total_steps, resolve(config, prepared)
    feed = prepared.feed(resolved["steps_per_call"])
    progress = Progress(total, len(runs))
    folder: Any = None if dry_run else RunFolder(workdir, resolved)
    keep, best = config.checkpoint.keep, config.checkpoint.best or None
    store: Any = None if dry_run else Checkpoints(Path(workdir) / "checkpoints", keep, best)
    if dry_run:
        say(json.dumps(resolved, indent=2))
    say("\n".join(describe(config, prepared)))
    done = max(store.steps(), default=0) if store else 0
    if done < total:
        cost = estimate(step, prepared.arguments, progress, fed=feed and feed.like())
        say(cost.line(total - done, study.objective.views, len(runs)))
    if dry_run:
        return None
    with together():
        evaluators = list(study.evaluators(prepared.tools(config.evaluate), evaluated_at(config, resolved)))
    begun = time.perf_counter()
    with underway(workdir), folder, store, progress.shown(folder), closing(feed) if feed else nullcontext():
        for name, text in study.files.items() if jax.process_index() == 0 else ():
            write(Path(workdir) / name, text)
        state = fit(
            *prepared.arguments, step,
            until=total,
            evaluators=evaluators,
            rows=folder,
            checkpoints=store,
            log=every(resolved["log"]["every"], total),
            save=every(resolved["checkpoint"]["every"], total),
            progress=progress,
            feed=feed,
            steps_per_call=resolved["steps_per_call"],
            runs=[run.facts for run in runs] if prepared.grouped else (),
        )  # fmt: skip
    taken = time.perf_counter() - begun
    waited = f", {feed.waited / taken:.1%} of it waiting for samples to be read" if feed else ""
    say(f"trained in {taken:.0f} s{waited}; rows in {folder.metrics}")
    if prepared.grouped:
        say_frozen(runs, state, say)
    if config.report.draw and jax.process_index() == 0:
        from infojax.report.runs import summary_lines, write_run

        with underway(workdir):
            say("\n".join(summary_lines(workdir)))
            say(str(write_run(workdir)))
    return state


def resolve(config: Any, prepared: Prepared) -> dict[str, Any]:
    """The settings of the run folder: the config with intervals filled in, and what followed from data and machine."""
    study, step, settings = prepared.study, prepared.step, plain(config)
    for section, steps in study.intervals.items():
        if section != "evaluate" or not settings[section]["points"]:
            settings[section]["every"] = settings[section]["every"] or steps
    calls = 1 if step.how == "dispatch" else config.steps_per_call or (1 if jax.default_backend() == "cpu" else 10)
    return settings | {
        "steps": study.ctx.facts.total_steps, "steps_per_epoch": study.per_epoch,
        "num_classes": study.ctx.facts.num_classes, "how": step.how, "steps_per_call": calls,
        "notes": list(study.notes),
    }  # fmt: skip


def evaluated_at(config: Any, resolved: dict[str, Any]) -> Callable[[int], bool]:
    """step -> whether the evaluators run there: at an interval if there is one, else at log-spaced points."""
    points, interval, total = config.evaluate.points, resolved["evaluate"]["every"], resolved["steps"]
    if interval or not points:
        return every(interval, total, config.evaluate.late_every, config.evaluate.late_from)
    return log_spaced(total, points, resolved["steps_per_epoch"] or 1)


def say_frozen(runs: Sequence[Run], state: Any, say: Callable[[str], None]) -> None:
    """Names the runs of a group that were frozen: `map_runs` leaves their state at an earlier step."""
    steps = np.asarray(local_copy(state.step))
    for run, step in zip(runs, steps, strict=True):
        if step < steps.max():
            facts = ", ".join(f"{name} {value}" for name, value in run.facts.items())
            say(f"the run of {facts} became NaN or Inf after step {step:,}: its rows are marked frozen from there on")


def describe(config: Any, prepared: Prepared) -> list[str]:
    """Lines that name what is trained, on which data, with which shapes of layers, on which devices."""
    study, runs = prepared.study, prepared.runs
    lines = [f"{config.name}:{config.preset}"]
    for name, params in prepared.state.params.items():
        size = sum(leaf.size for leaf in jax.tree.leaves(params)) // len(runs)
        lines[0] += f"  {config.model.name if name == 'net' else name}: {size:,} parameters"
    for name, arrays in study.data.items():
        shape = " x ".join(map(str, arrays["x"].shape[1:]))
        lines.append(f"{config.data.name}, {name}: {len(arrays['x']):,} samples of {shape} {arrays['x'].dtype}")
    for name, source in study.streams.items():
        shape = " x ".join(map(str, source.shape))
        lines.append(f"{config.data.name}, {name}: {len(source):,} samples of {shape}, read step by step")
    lines += [*study.notes, shapes(prepared)]
    kind = jax.devices()[0].device_kind
    used = 1 if prepared.mesh is None else prepared.mesh.size
    processes = f" in {jax.process_count()} processes" * (jax.process_count() > 1)
    runs_by = f", {len(runs)} runs by {prepared.step.how}" * (len(runs) > 1)
    lines.append(f"{used} of {jax.device_count()} devices ({kind}){processes}{runs_by}")
    return lines


def shapes(prepared: Prepared) -> str:
    """The network's features of one sample, layer by layer."""
    model, study = prepared.first_models()["raw"], prepared.study
    x: Any = next((arrays["x"][:1] for arrays in study.data.values()), None)
    x = next(iter(study.streams.values())).read(np.arange(1))[0] if x is None else x
    found = jax.eval_shape(lambda model, x: model(study.transforms["plain"](None, x)), model, x)
    layers = (
        found.features | {"embedding": found.embedding} | ({} if found.logits is None else {"logits": found.logits})
    )
    return "net: " + ", ".join(f"{name} {' x '.join(map(str, a.shape[1:]))}" for name, a in layers.items())
