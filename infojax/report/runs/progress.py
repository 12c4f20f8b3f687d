"""How far runs have come: what was evaluated, whether training ended, which runs count, and which are near chance."""

import math
from collections.abc import Sequence
from dataclasses import replace

from infojax.report.runs.rows import BATCH, RunHistory, mean_at_end
from infojax.report.tables.content import one_line


def last_step(history: RunHistory, runs: Sequence[int] | None = None) -> int:
    """The step of the last evaluation, of any run or of the given ones."""
    found = _evaluated(history)
    return max((step for run, step in found.items() if runs is None or run in runs), default=history.last)


def _evaluated(history: RunHistory) -> dict[int, int]:
    """{run: step of its last evaluation}."""
    found: dict[int, int] = {}
    for (axis, split, _), runs in history.values.items():
        for run, of_run in runs.items() if axis == "step" and split != BATCH else ():
            found[run] = max(found.get(run, 0), int(max(of_run)))
    return found


def planned(history: RunHistory) -> int | None:
    """The steps that the config plans, if it says so."""
    steps = history.config.get("steps")
    return steps if isinstance(steps, int) else None


def rested(history: RunHistory) -> bool:
    """Whether every run that is not frozen reached the end that its objective sets, maybe before the planned steps."""
    found = history.values.get(("step", BATCH, "resting"), {})
    ends = [of_run[max(of_run)] for run, of_run in found.items() if run not in history.frozen]
    return bool(ends) and all(end == 1 for end in ends)


def finished(history: RunHistory) -> bool:
    """Whether the last evaluation is that of the end; True if no number of steps is planned."""
    steps = planned(history)
    return steps is None or last_step(history) >= steps or rested(history)


def untrained(history: RunHistory) -> bool:
    """Whether all that was evaluated is step 0 of a training, which was planned or has been logged since."""
    return bool(planned(history) or history.last) and bool(_evaluated(history)) and last_step(history) == 0


def settled(history: RunHistory) -> RunHistory:
    """The runs that are not frozen, up to the last evaluation that all of them have; all runs if every one is frozen.

    So runs, and the values of a sweep, are compared at the same step.
    """
    alive = {run for runs in history.groups.values() for run in runs if run not in history.frozen}
    kept = alive or {run for runs in history.groups.values() for run in runs}
    groups = {value: [run for run in runs if run in kept] for value, runs in history.groups.items()}
    ends = [step for run, step in _evaluated(history).items() if run in alive]
    common = min(ends, default=history.last)
    values = {
        (axis, split, name): {
            run: {place: x for place, x in of_run.items() if axis != "step" or split == BATCH or place <= common}
            for run, of_run in runs.items()
            if run in kept
        }
        for (axis, split, name), runs in history.values.items()
    }
    values = {key: {run: of_run for run, of_run in runs.items() if of_run} for key, runs in values.items()}
    return replace(
        history,
        groups={value: runs for value, runs in groups.items() if runs},
        values={key: runs for key, runs in values.items() if runs},
    )


def so_far(history: RunHistory) -> str:
    """What must stand before a finding: "" for a run that ended, else the step that the finding is about."""
    step, steps = last_step(settled(history)), planned(history)
    of = f"step {step:,}{f' of {steps:,}' if steps else ''}"
    if lost_entirely(history):
        return f"Stopped, since it became NaN or Inf; at {of}, the last finite evaluation: "
    if step < last_step(history):
        return f"At {of}, the last that all runs reached: "
    return "" if finished(history) else f"At {of} (unfinished): "


def no_finding(history: RunHistory) -> str:
    """Why nothing can be said of a run that was not evaluated after step 0; "" if it was."""
    steps = planned(history)
    of = f" of {steps:,}" if steps else ""
    if not _evaluated(history):
        return "" if finished(history) else f"No finding yet: nothing was evaluated by step {history.last:,}{of}."
    if not untrained(settled(history)):
        return ""
    which = "some of the runs were evaluated only at step 0" if last_step(history) else f"only step 0{of} was evaluated"
    return f"No finding{'' if lost_entirely(history) else ' yet'}: {which}, before training."


def lost_entirely(history: RunHistory) -> bool:
    """Whether every run became NaN or Inf."""
    return all(run in history.frozen for runs in history.groups.values() for run in runs)


def frozen_runs(history: RunHistory) -> str:
    """A sentence that names the runs that became NaN or Inf; "" if there are none."""
    names = []
    for value, runs in history.groups.items():
        for run in (run for run in runs if run in history.frozen):
            of = f", {history.swept} = {one_line(value)}" * bool(history.swept)
            seed = f" (seed {history.seeds.get(run, run)}{of})"
            names.append(f"run {run}{seed} from step {history.frozen[run]:,}")
    rest = "" if lost_entirely(history) else ", and not counted"
    return f"NaN or Inf{rest}: {', '.join(names)}." if names else ""


def when(history: RunHistory, step: int) -> str:
    """The epoch of a step, or the step itself in a run that is shorter than an epoch or has none."""
    per_epoch = history.config.get("steps_per_epoch")
    return f"epoch {round(step / per_epoch, 2):g}" if per_epoch and by_epochs(history) else f"step {step:,}"


def by_epochs(history: RunHistory) -> bool:
    """Whether time is told in epochs: where these are known and the run is at least one long."""
    per_epoch = history.config.get("steps_per_epoch")
    return per_epoch is not None and history.last >= per_epoch > 0


def at_chance(history: RunHistory, runs: Sequence[int], split: str) -> float | None:
    """The mean accuracy at the end if it is hardly above 1/C, else None.

    Hardly: by less than three standard errors, by less than a tenth of what is left to 1, or (of many classes) by less
    than 1/C.
    """
    classes, found = history.config.get("num_classes"), mean_at_end(history, split, "accuracy", runs)
    if not isinstance(classes, int) or classes < 2:
        return None
    share = 1 / classes
    error = math.sqrt(share * (1 - share) / history.sizes.get(split, 100))
    return found if found <= share + max(3 * error, min(share, (1 - share) / 10)) else None
