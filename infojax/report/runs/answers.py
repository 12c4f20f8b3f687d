"""A study's question answered in one sentence: does the run behave as the paper says?

Pure functions of a history and its runs (for a sweep, of the history), which give "" where the question does not arise.
Runs are compared only with statements that `infojax/report/expected/figures.json` has; thresholds are stated.
"""

import math
from collections.abc import Sequence

import numpy as np

from infojax.report.runs.progress import at_chance, last_step
from infojax.report.runs.rows import RunHistory, at_end, first_accurate, limits, mean_at_end, mean_interval, splits_of
from infojax.report.tables.content import format_value

SEPARATED = -0.95  # Pearson's r, at most, where the law of equi-separation is said to hold
CONNECTED = 2.0  # points of error, at most, that the barrier between linearly connected networks has
SONG, TAN = "Song et al. 2024", "Tan et al. 2024"
OF_VIEWS = {"view_mutual_information": "MI of two views", "view_joint_entropy": "joint entropy of two views"}
MAXIMISE = ("spectral", "barlow")  # the losses of which Tan et al. prove that they maximise both quantities


def interplay(history: RunHistory, runs: Sequence[int]) -> str:
    """Whether MIR rises towards its limit and HDR falls (Fig. 3a)."""
    split = _split(history, "mir")
    chance, parts, held = at_chance(history, runs, split), [], []
    if chance is not None:
        return f"Near chance: accuracy {_percent(chance)} on {split} of {history.config['num_classes']} classes."
    for key, name, sign in (("mir", "MIR", 1), ("hdr", "HDR", -1)):
        first, last = _ends(history, split, key, runs)
        if not first.size:
            return ""
        found = limits(history, split, key, runs)
        limit = math.nan if found is None else float(found[-1])
        nearer = math.isnan(limit) or bool(np.all(np.abs(last - limit) < np.abs(first - limit)))
        held.append(bool(np.all(sign * (last - first) > 0)) and nearer)
        parts.append(_moved(name, first, last) + f" (limit {format_value(limit, 3)})" * math.isfinite(limit))
    said = f"{_like(held)} {SONG} (Fig. 3a), where MIR rises towards its limit and HDR falls"
    return f"{said}: {', '.join(parts)}, {split}."


def grokking(history: RunHistory, runs: Sequence[int]) -> str:
    """Whether runs generalise after they have memorised, and what MIR and HDR do in both phases (Fig. 3b)."""
    memorised, general = ({run: step for run in runs if (step := first_accurate(history, run, split)) is not None}
                          for split in ("train", "test"))  # fmt: skip
    late = {run: (memorised[run], step) for run, step in general.items() if memorised.get(run, step) < step}
    if not late:
        accuracies = (f"{_percent(mean_at_end(history, s, 'accuracy', runs))} on {s}" for s in ("train", "test"))
        at = np.median([*memorised.values()]) if memorised else 0
        state = f"memorised (99% on train) at step {at:,.0f}" if memorised else "not memorised"
        early = "; what generalised did so no later than it memorised" * bool(general)
        return f"No grokking by step {last_step(history):,}: {state}{early}; accuracy {', '.join(accuracies)}."
    here, there = np.median([*late.values()], axis=0)
    text = f"Grokked{f' in {len(late)} of {len(runs)} runs' if len(runs) > 1 else ''}: memorised (99% on train) at "
    text += f"step {here:,.0f}, generalised (99% on test) at {there:,.0f}"
    phases, held = [], []
    for key, name, sign in (("mir", "MIR", 1), ("hdr", "HDR", -1)):
        found = history.values.get(("step", "test", key), {})
        at = [[found.get(run, {}).get(k, math.nan) for k in (0, *pair)] for run, pair in late.items()]
        if not np.isfinite(at).all():
            return f"{text}."
        moves = sign * np.diff(np.array(at), axis=1)
        held += [bool(np.all(moves[:, 0] > 0) and np.all(moves[:, 1] < 0))]
        phases.append(f"{name} {', '.join(format_value(x, 2) for x in np.mean(at, 0))}")
    said = f"{_like(held).lower()} {SONG} (Fig. 3b: first MIR rises and HDR falls, then the reverse)"
    return f"{text}; {said}, at step 0 and these: {'; '.join(phases)}."


def separation(history: RunHistory, runs: Sequence[int]) -> str:
    """Whether NC1 falls by the same factor at every layer."""
    found = {s: mean_at_end(history, s, "equi_separation", runs) for s in splits_of(history, ["equi_separation"])}
    found = {split: r for split, r in found.items() if math.isfinite(r)}
    if not found or at_chance(history, runs, "train") is not None:
        return ""
    held = [split for split, r in found.items() if r <= SEPARATED]
    where = "" if len(held) in (0, len(found)) else f" on {' and '.join(held)} only"
    shown = ", ".join(f"r = {r:.3f} on {split}" for split, r in found.items())
    return f"The law of equi-separation {'holds' if held else 'does not hold'}{where}: {shown} (at most {SEPARATED})."


def views(history: RunHistory, runs: Sequence[int]) -> str:
    """What became of the information of two views and of the effective rank of the embedding."""
    names = OF_VIEWS | {"effective_rank_from_gram": "effective rank of the embedding"}
    moves = {key: _ends(history, "test", key, runs) for key in names}
    parts = [_moved(names[key], *ends) for key, ends in moves.items() if ends[0].size]
    limit, method = mean_at_end(history, "test", "limit_view_information", runs), history.config.get("method")
    most = f" (information: at most {format_value(limit, 3)} nats)" * math.isfinite(limit)
    rose = [bool(np.all(last > first)) for key, (first, last) in moves.items() if key in OF_VIEWS and first.size]
    said = f"{_like(rose)} {TAN}, who prove that this loss maximises both: " * (method in MAXIMISE and bool(rose))
    beside = f"; whether the term raises the rank ({TAN}, Fig. 4) shows beside a run of method=mae"
    beside *= str(method).startswith(("umae", "mmae"))
    text = f"{said}{', '.join(parts)}, from the first to the last evaluation on test{most}{beside}."
    return text[0].upper() + text[1:] if parts else ""


def connected(history: RunHistory) -> str:
    """Which pairs of networks are linearly connected; those near chance are not judged."""
    found: dict[str, list[str]] = {}
    for value, runs in history.groups.items():
        height, chance = mean_at_end(history, "test", "barrier_error", runs), at_chance(history, runs, "test")
        least = f"(barrier of error at most {CONNECTED:g} points)"
        kind = f"{'Linearly' if height <= CONNECTED else 'Not linearly'} connected {least}"
        shown = f"{height:.1f} points"
        if chance is not None:
            kind, shown = "Near chance, so not judged", f"accuracy {_percent(chance)}"
        if math.isfinite(height):
            found.setdefault(kind, []).append(shown + f" at {history.swept} = {value}" * bool(history.swept))
    return " ".join(f"{kind}, on test: {', '.join(shown)}." for kind, shown in sorted(found.items()))


def gain(history: RunHistory) -> str:
    """The accuracy at the last swept value minus that at the first, seed by seed; for temperatures also the entropy."""
    (first, runs), (last, others) = list(history.groups.items())[0], list(history.groups.items())[-1]
    span = f"from {history.swept} = {first} to {last}"
    key = next((k for k in ("accuracy", "accuracy_online") if ("step", "test", k) in history.values), "")
    one, other = (_by_seed(history, key, group) for group in (runs, others))
    moves = np.array([100 * (other[seed] - one[seed]) for seed in one.keys() & other.keys()])
    [mean], [half], [n] = mean_interval(moves.reshape(-1, 1))
    if not n:
        return ""
    text = f"The accuracy on test changes by {mean:+.1f} points {span} (one seed, so no interval)."
    if math.isfinite(half):
        shown = f"{mean:+.1f} ± {half:.1f} points (95%, {n} seeds)"
        none, verb = f"No difference in accuracy that the seeds can tell {span}", "rises" if mean > 0 else "falls"
        text = f"{none if abs(mean) <= half else f'The accuracy on test {verb} {span}'}: {shown}."
    if all(at_chance(history, group, "test") is not None for group in history.groups.values()):
        return f"All are near chance. {text}"
    cold, hot = (at_end(history, "test", "entropy_features", group) for group in (runs, others))
    if history.config.get("task") != "temperature" or not np.isfinite([*cold, *hot]).all():
        return text
    said = f"{'As' if hot.mean() < cold.mean() else 'Unlike'} in {SONG} (Fig. 2b), where the entropy of the features"
    return f"{said} falls with the temperature: {_moved('H(features)', cold, hot)} on test. {text}"


def _like(held: Sequence[bool]) -> str:
    return "As in" if all(held) else "Partly as in" if any(held) else "Unlike"


def _split(history: RunHistory, key: str) -> str:
    found = splits_of(history, [key]) or [""]
    return "test" if "test" in found else found[0]


def _ends(history: RunHistory, split: str, key: str, runs: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last finite value of each run that has two."""
    found = history.values.get(("step", split, key), {})
    numbers = [[x for _, x in sorted(found.get(run, {}).items()) if math.isfinite(x)] for run in runs]
    pairs = np.array([(x[0], x[-1]) for x in numbers if len(x) > 1]).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _moved(name: str, first: np.ndarray, last: np.ndarray) -> str:
    one, other = (format_value(x.mean(), 3) for x in (first, last))
    if one == other:
        return f"{name} stayed at {one}"
    up, n = int(np.sum(last > first)), len(first)
    verb = "rose" if up == n else "fell" if up == 0 else f"rose in {up} of {n} runs:"
    return f"{name} {verb} from {one} to {other}"


def _by_seed(history: RunHistory, key: str, runs: Sequence[int]) -> dict[int, float]:
    """{seed: mean over its networks}."""
    found: dict[int, list[float]] = {}
    for run, value in zip(runs, at_end(history, "test", key, runs), strict=True):
        found.setdefault(history.seeds.get(run, run), []).append(float(value))
    return {seed: float(np.mean(values)) for seed, values in found.items()}


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"
