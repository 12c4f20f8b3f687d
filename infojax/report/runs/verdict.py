"""A run's result in a few sentences about its last evaluation, the study's answer first: for page and terminal."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from infojax.report.runs.answers import connected, gain, grokking, interplay, separation, views
from infojax.report.runs.progress import at_chance, frozen_runs, no_finding, settled, so_far
from infojax.report.runs.rows import RunHistory, limits, mean_at_end, num_classes, run_means, splits_of
from infojax.report.tables.content import format_value
from infojax.report.tables.words import SIGNS, SMALL, sign_value

INTERPLAY = {"mir": "MIR", "hdr": "HDR"}
VIEWS = {"view_joint_entropy": "joint entropy of two views", "view_mutual_information": "their MI"}
ANSWERS: dict[str, tuple[Callable[[RunHistory, Sequence[int]], str], ...]] = {
    "supervised": (interplay,),
    "grokking": (grokking,),
    "compression": (separation,),
    "selfsup": (views,),
}
SWEPT = {"accuracy": "accuracy", **VIEWS, "entropy_features": "H(features)", **INTERPLAY, "nc1": "NC1"}
READ = ("semisup", "crossmodal", "probe", "finetune")  # studies whose answer is an accuracy


def verdict(history: RunHistory) -> list[str]:
    """The sentences; for a sweep, how the quantities change from its first value to its last.

    Of a run that has not ended the first one begins with its step; before the first step of training there is none.
    """
    if not history.groups:
        return []
    frozen, nothing, begun = frozen_runs(history), no_finding(history), so_far(history)
    several, history = len(history.groups) > 1, settled(history)
    swept = history.swept and len(history.groups) > 1
    if several and not swept:
        begun += f"Only {history.swept} = {next(iter(history.groups))} stayed finite: "
    if nothing:
        found = [nothing, "" if swept else _untrained_probes(history, next(iter(history.groups.values())))]
    else:
        found = list(filter(None, _of_sweep(history) if swept else _of_runs(history)))
        found[:1] = [begun + line for line in found[:1]]
    return list(dict.fromkeys(filter(None, [*found[:1], frozen, *found[1:]])))


def _of_sweep(history: RunHistory) -> list[str]:
    return [connected(history), gain(history), _sweep(history)]


def _of_runs(history: RunHistory) -> list[str]:
    runs, task = next(iter(history.groups.values())), str(history.config.get("task"))
    accuracy, found = _accuracy(history, runs), [connected(history), _pruned(history, runs)]
    found += [accuracy] * (task in READ or history.config.get("name") in READ)
    found += [answer(history, runs) for answer in ANSWERS.get(task, ())] + [_selected(history, runs)]
    found += [_untrained_probes(history, runs), separation(history, runs)]
    return [*found, _collapse(history, runs), _interplay(history, runs), accuracy]


def _split(history: RunHistory, quantity: str) -> str | None:
    return next(iter(splits_of(history, [quantity])), None)


def _accuracy(history: RunHistory, runs: Sequence[int]) -> str:
    """Accuracy on each split, and that of zero-shot CLIP where it is known."""
    shown = []
    for split in splits_of(history, ["accuracy"])[:3]:
        value, other = (mean_at_end(history, split, key, runs) for key in ("accuracy", "accuracy_zero_shot"))
        beside = f" ({100 * (value - other):+.1f} points from zero-shot CLIP)" if math.isfinite(other) else ""
        shown += [f"{100 * value:.4g}% on {split}{beside}"] * math.isfinite(value)
    return f"Accuracy {', '.join(shown)}." if shown else ""


def _untrained_probes(history: RunHistory, runs: Sequence[int]) -> str:
    """The accuracies of probes that need no steps."""
    names = {"accuracy_logistic": "logistic regression", "accuracy_knn_20": "20 neighbours"}
    found = {name: mean_at_end(history, "test", key, runs) for key, name in names.items()}
    shown = [f"{name} {100 * value:.4g}%" for name, value in found.items() if math.isfinite(value)]
    return f"Accuracy on test of probes that need no steps: {', '.join(shown)}." if shown else ""


def _selected(history: RunHistory, runs: Sequence[int]) -> str:
    """Pseudo-labels at the last evaluation."""
    names = {"mask_ratio": "selected", "pseudo_accuracy_selected": "of those right", "pseudo_accuracy": "of all right"}
    found = {name: mean_at_end(history, "unlabelled_selected", key, runs) for key, name in names.items()}
    shown = [f"{100 * value:.3g}% {name}" for name, value in found.items() if math.isfinite(value)]
    return f"Pseudo-labels of unlabelled samples: {', '.join(shown)}." if shown else ""


def _collapse(history: RunHistory, runs: Sequence[int]) -> str:
    """Collapsed or not, by the signs in the last evaluation, on train if it is measured there."""
    classes, split = num_classes(history), _split(history, "nc1")
    if split is None or classes is None:
        return ""
    chance = at_chance(history, runs, split)
    if chance is not None:
        return f"Not judged for collapse: near chance, with {100 * chance:.4g}% accuracy on {split}."
    low: list[str] = []
    high: list[str] = []
    for key, name in SIGNS.items():
        value = mean_at_end(history, split, key, runs) / (classes - 1 if key == "nc1" else 1)
        if math.isfinite(value):
            (low if value < SMALL else high).append(f"{name} {sign_value(value)}")
    if low and high:
        return f"Partly collapsed on {split}: {', '.join(low)} below {SMALL}; {', '.join(high)} not."
    if low:
        return f"Collapsed on {split}: {', '.join(low)}, all below {SMALL}."
    return f"Not collapsed on {split}: {', '.join(high)}, none below {SMALL}." if high else ""


def _interplay(history: RunHistory, runs: Sequence[int]) -> str:
    """How close MIR and HDR are to their limits at neural collapse."""
    parts = []
    for key, name in INTERPLAY.items():
        split = _split(history, key)
        value = math.nan if split is None else mean_at_end(history, split, key, runs)
        if split is None or not math.isfinite(value):
            continue
        limit = limits(history, split, key, runs)
        end = math.nan if limit is None else float(limit[-1])
        apart = (
            f", {format_value(abs(value - end), 2)} from its limit {format_value(end, 4)}" if math.isfinite(end) else ""
        )
        parts.append(f"{name} {format_value(value, 4)} on {split}{apart}")
    return f"{'; '.join(parts)}." if parts else ""


def _pruned(history: RunHistory, runs: Sequence[int]) -> str:
    """What half of the weights matter: entropy, HDR of before and after, and accuracy at the sparsity next to 0.5."""
    parts = []
    for key, name in {"accuracy": "accuracy", "entropy_features": "H(features)"}.items():
        found = run_means(history, "test", key, runs, "sparsity")
        if found is None:
            return ""
        at = int(np.argmin(np.abs(np.array(found.place) - 0.5)))
        parts.append(f"{name} {format_value(found.mean[0], 3)} to {format_value(found.mean[at], 3)}")
        place = found.place[at]
    return f"Without its {100 * place:g}% smallest weights (test): {', '.join(parts)}."


def _sweep(history: RunHistory) -> str:
    """Accuracy, entropy and interplay at the first and at the last swept value."""
    (first, runs), (last, others) = list(history.groups.items())[0], list(history.groups.items())[-1]
    parts = []
    for key, name in SWEPT.items():
        split = "test" if "test" in splits_of(history, [key]) else _split(history, key)
        if split is None:
            continue
        one, other = (mean_at_end(history, split, key, group) for group in (runs, others))
        if math.isfinite(one) and math.isfinite(other):
            parts.append(f"{name} ({split}) from {format_value(one, 3)} to {format_value(other, 3)}")
    return f"From {history.swept} = {first} to {last}: {', '.join(parts)}." if parts else ""
