"""A run's result in a few sentences about its last evaluation, the study's answer first: for page and terminal."""

import math
from collections.abc import Sequence

import numpy as np

from infojax.report.runs.rows import RunHistory, at_end, first_accurate, limits, num_classes, run_means, splits_of
from infojax.report.tables.content import format_value
from infojax.report.tables.words import SIGNS, SMALL

INTERPLAY = {"mir": "MIR", "hdr": "HDR"}
VIEWS = {"view_joint_entropy": "joint entropy of two views", "view_mutual_information": "their MI"}
RANK = {"effective_rank_from_gram": "effective rank of the embedding"}
SWEPT = {"accuracy": "accuracy", **VIEWS, "entropy_features": "H(features)", **INTERPLAY, "nc1": "NC1"}
READ = ("grokking", "semisup", "crossmodal", "probe", "finetune")  # studies whose answer is an accuracy


def verdict(history: RunHistory) -> list[str]:
    """The sentences; for a sweep, how the quantities change from its first value to its last."""
    if not history.groups:
        return []
    if history.swept and len(history.groups) > 1:
        return [line for line in (_barriers(history), _sweep(history)) if line]
    runs = next(iter(history.groups.values()))
    accuracy, found = _accuracy(history, runs), [_barriers(history), _pruned(history, runs)]
    found += [accuracy] * (history.config.get("task") in READ) + [_selected(history, runs), _views(history, runs)]
    found += [_separation(history, runs), _collapse(history, runs), _interplay(history, runs), accuracy]
    return list(dict.fromkeys(filter(None, found)))


def _split(history: RunHistory, quantity: str) -> str | None:
    return next(iter(splits_of(history, [quantity])), None)


def _mean(history, split, quantity, runs):
    found = at_end(history, split, quantity, runs)
    found = found[np.isfinite(found)]
    return float(found.mean()) if found.size else math.nan


def _accuracy(history: RunHistory, runs: Sequence[int]) -> str:
    """Accuracy on each split; for a run that memorised first, when it did so and when it generalised."""
    found = {split: _mean(history, split, "accuracy", runs) for split in splits_of(history, ["accuracy"])}
    shown = [f"{100 * value:.4g}% on {split}" for split, value in found.items() if math.isfinite(value)][:3]
    if not shown:
        return ""
    text = f"Accuracy {', '.join(shown)}."
    learned = [(first_accurate(history, run, "train"), first_accurate(history, run, "test")) for run in runs]
    if history.config.get("task") == "grokking" and all(None not in pair for pair in learned):
        memorised, generalised = (np.median([pair[k] for pair in learned]) for k in (0, 1))
        text += f" 99% on train at step {memorised:,.0f} (memorised), on test at {generalised:,.0f} (generalised)."
    return text


def _selected(history: RunHistory, runs: Sequence[int]) -> str:
    """Pseudo-labels at the last evaluation."""
    names = {"mask_ratio": "selected", "pseudo_accuracy_selected": "of those right", "pseudo_accuracy": "of all right"}
    found = {name: _mean(history, "unlabelled_selected", key, runs) for key, name in names.items()}
    shown = [f"{100 * value:.3g}% {name}" for name, value in found.items() if math.isfinite(value)]
    return f"Pseudo-labels of unlabelled samples: {', '.join(shown)}." if shown else ""


def _views(history: RunHistory, runs: Sequence[int]) -> str:
    """Of a self-supervised run: entropies of two views and the effective rank, at the first and the last evaluation."""
    parts, tell = [], history.config.get("task") == "selfsup"
    for key, name in (VIEWS | RANK).items() if tell else ():
        found = run_means(history, "test", key, runs)
        if found is not None and np.isfinite(found.mean[[0, -1]]).all():
            parts.append(f"{name} {format_value(found.mean[0], 3)} to {format_value(found.mean[-1], 3)}")
    limit = _mean(history, "test", "limit_view_information", runs)
    most = f" (entropies of at most {format_value(limit, 3)} nats)" if parts and math.isfinite(limit) else ""
    text = f"From the first to the last evaluation (test): {', '.join(parts)}{most}."
    return text if parts else ""


def _separation(history: RunHistory, runs: Sequence[int]) -> str:
    """Whether NC1 falls by the same factor at every layer: the law of equi-separation."""
    found = {s: _mean(history, s, "equi_separation", runs) for s in splits_of(history, ["equi_separation"])}
    shown = [f"r = {value:.3f} on {split}" for split, value in found.items() if math.isfinite(value)]
    return (
        f"Law of equi-separation (-1: every layer compresses by the same factor): {', '.join(shown)}." if shown else ""
    )


def _collapse(history: RunHistory, runs: Sequence[int]) -> str:
    """Collapsed or not, by the signs in the last evaluation, on train if it is measured there."""
    classes, split = num_classes(history), _split(history, "nc1")
    if split is None or classes is None:
        return ""
    low: list[str] = []
    high: list[str] = []
    for key, name in SIGNS.items():
        value = _mean(history, split, key, runs) / (classes - 1 if key == "nc1" else 1)
        if math.isfinite(value):
            (low if value < SMALL else high).append(f"{name} {format_value(value, 2)}")
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
        value = math.nan if split is None else _mean(history, split, key, runs)
        if split is None or not math.isfinite(value):
            continue
        limit = limits(history, split, key, runs)
        end = math.nan if limit is None else float(limit[-1])
        apart = (
            f", {format_value(abs(value - end), 2)} from its limit {format_value(end, 4)}" if math.isfinite(end) else ""
        )
        parts.append(f"{name} {format_value(value, 4)} on {split}{apart}")
    return f"{'; '.join(parts)}." if parts else ""


def _barriers(history: RunHistory) -> str:
    """The height of the barrier between the two networks of each pair."""
    found = {value: _mean(history, "test", "barrier_error", runs) for value, runs in history.groups.items()}
    found = {value: height for value, height in found.items() if math.isfinite(height)}
    if not found:
        return ""
    at = f" at {history.swept} = {', '.join(f'{value:g}' for value in found)}" if history.swept else ""
    return f"Barrier of error on the way (test): {', '.join(f'{height:.1f}' for height in found.values())} points{at}."


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
        one, other = (_mean(history, split, key, group) for group in (runs, others))
        if math.isfinite(one) and math.isfinite(other):
            parts.append(f"{name} ({split}) from {format_value(one, 3)} to {format_value(other, 3)}")
    return f"From {history.swept} = {first} to {last}: {', '.join(parts)}." if parts else ""
