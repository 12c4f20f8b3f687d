"""Describes numbers in a Report, with the convention, the theoretical limit and the caveats of each measure."""

import numpy as np

from infojax.analysis.inputs import Inputs
from infojax.analysis.measured import Measured, spectrum_entropy
from infojax.analysis.reports import Report
from infojax.analysis.sums import SCATTER_BUDGET
from infojax.measures.catalogue import CATALOGUE
from infojax.measures.limits import geometry_at_collapse, has_simplex, limits_at_collapse
from infojax.measures.ranks import FIT_RANGE

ALPHAS = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)


def describe(inputs: Inputs, found: Measured) -> Report:
    """The report of what was measured."""
    measures, (limits, bounds) = _measures(found), _limits(found)
    keys = list(measures)
    return Report(
        name=inputs.name,
        num_samples=found.num_samples,
        dim=found.dim,
        num_classes=None if found.counts is None else len(found.counts),
        measures=measures,
        limits={key: value for key, value in limits.items() if key in measures and np.isfinite(value)},
        conventions={key: CATALOGUE[key].convention + _rows_used(found, key) + _bounds(found, key) for key in keys},
        warnings=(*inputs.notes, *_warnings(found), *_unreachable(found, [key for key in keys if key in bounds])),
        reasons={key: _reason(key, found, measures[key]) for key in keys if not np.isfinite(measures[key])},
        per_class=found.per_class,
        spectrum=found.spectrum,
        renyi={alpha: spectrum_entropy(found.spectrum, alpha) for alpha in ALPHAS},
        class_names=inputs.class_names,
    )


def _measures(found):
    """All measures in the order of the catalogue."""
    entropy, sigma = spectrum_entropy(found.spectrum), found.singular
    share = sigma / sigma.sum() if sigma.any() else sigma
    values = {
        "entropy_features": entropy,
        "entropy_features_centered": spectrum_entropy(found.spectrum_centered),
        **{f"matrix_entropy_alpha_{a:g}": spectrum_entropy(found.spectrum, a) for a in (0.5, 2.0, 5.0)},
        "effective_rank": float(np.exp(spectrum_entropy(share))) if sigma.any() else 0.0,
        "effective_rank_from_gram": float(np.exp(entropy)) if found.spectrum.any() else 0.0,
        "rankme": float(np.exp(-np.sum((share + 1e-7) * np.log(share + 1e-7)))) if sigma.any() else 0.0,
        "stable_rank": float(np.sum((sigma / sigma.max()) ** 2)) if sigma.any() else 0.0,
        "srank": _reaching(sigma, 0.99),
        "approximate_rank": _reaching(sigma**2, 0.99),
        **_of_covariance(found.covariance),
        **found.values,
    }
    if min(found.dim, found.sampled.get("spectrum", found.num_samples) - 1) > FIT_RANGE[0]:
        values |= _alpha_req(found.covariance)
    for flow, suffix in ((found.interplay, ""), (found.interplay_centered, "_centered")):
        if flow is not None:
            fields = ("joint_entropy", "mutual_information", "mir", "hdr")
            values |= {key + suffix: float(getattr(flow, key)) for key in fields}
            values["entropy_head"] = float(found.interplay.entropy_head)
    return {key: values[key] for key in CATALOGUE if key in values}


def _reaching(parts, share):
    """How many of the largest parts (descending) reach this share of their sum; see `measures.srank`."""
    sums = np.cumsum(parts)
    return float(np.sum(sums < share * sums[-1] * (1 - 1e-12)) + 1) if parts.any() else 0.0


def _of_covariance(squares):
    """Effective ranks of the eigenvalues of the covariance; see `measures.covariance_rank`, `participation_ratio`."""
    if not squares.any():
        return {"covariance_rank": 0.0, "participation_ratio": 0.0}
    p = squares / squares.sum()
    return {"covariance_rank": float(np.exp(spectrum_entropy(p))), "participation_ratio": float(1 / np.sum(p**2))}


def _alpha_req(squares):
    """The exponent of their decay and R^2 of its fit; see `measures.alpha_req`."""
    first, last = FIT_RANGE
    fitted = squares[first - 1 : last][squares[first - 1 : last] > 0]
    exponent, r2 = float("nan"), float("nan")
    if len(fitted) > 1:
        x, y = np.log(np.arange(first, first + len(fitted))), np.log(fitted)
        line = np.polyfit(x, y, 1, w=np.exp(-x / 2))  # weights 1 / i of the squares
        exponent = -float(line[0])
        if np.ptp(y) > 1e-12:
            r2 = 1 - float(np.sum((y - np.polyval(line, x)) ** 2) / np.sum((y - y.mean()) ** 2))
    return {"alpha_req_alpha": exponent, "alpha_req_r2": r2}


def _limits(found):
    """Values at exact neural collapse with the counts, mean energy and dimensions measured, or bounds on them."""
    if found.counts is None:
        return {}, set()
    counts = found.counts if found.interplay_counts is None else found.interplay_counts
    present = int(np.sum(counts > 0))
    if present < 2:
        return {}, set()
    known = ("nc4", "cdnv", "davies_bouldin", "silhouette")  # and those of NC1, whatever the geometry
    limits = {key: CATALOGUE[key].limit for key in found.values if key[:3] == "nc1" or key in known}
    geometry, bounds = geometry_at_collapse(len(counts), present, found.dim)
    limits |= geometry
    if not has_simplex(len(counts), found.dim):
        most = min(found.dim, present)
        spectral = {"entropy_features": np.log(most), "entropy_features_centered": np.log(most)}
        spectral |= {"effective_rank_from_gram": most, "entropy_head": np.log(most)}
        return limits | {key: float(value) for key, value in spectral.items()}, bounds | spectral.keys()
    raw, centered = limits_at_collapse(counts, found.values["mean_energy"], found.dim)
    names = ("joint_entropy", "mutual_information", "mir", "hdr")
    limits["entropy_features"] = raw.entropy_features
    limits["entropy_features_centered"] = centered.entropy_features
    limits["effective_rank_from_gram"] = float(np.exp(raw.entropy_features))
    limits["entropy_head"] = raw.entropy_head
    limits |= {key: getattr(raw, key) for key in names}
    return limits | {f"{key}_centered": getattr(centered, key) for key in names}, bounds


def _rows_used(found, key):
    for family, rows in found.sampled.items():
        if CATALOGUE[key].family == family:
            return f"; on {rows} of {found.num_samples} rows drawn at random"
    return ""


def _bounds(found, key):
    e = found.estimated.get(key)
    return f"; estimated, in [{e.lower:.6g}, {e.upper:.6g}] at 95%" if e else ""


def _warnings(found):
    n, dim, energy = found.num_samples, found.dim, found.values["mean_energy"]
    warnings = []
    if n == 1:
        warnings.append("one sample: every entropy is 0 and every ratio is undefined")
    elif (used := found.sampled.get("spectrum", n)) <= dim:
        warnings.append(
            f"N <= D ({used} samples, {dim} columns): the spectrum is rank-limited; entropies are at most log {used} = "
            f"{np.log(used):.4g} whatever the features"
        )
    if found.zero_rows:
        rows = "1 row is" if found.zero_rows == 1 else f"{found.zero_rows} rows are"
        warnings.append(f"{rows} zero: without a direction, and left out of entropies")
    if n > 1 and found.spectrum.any() and not found.spectrum_centered.any():
        warnings.append("all rows are equal: nothing varies, and the *_centered measures are undefined")
    elif energy > 0.5:
        warnings.append(
            f"large common mean: mean energy s = {energy:.3g}, so the rows share a direction; compare the *_centered "
            "measures, and limits only at this s"
        )
    for family, rows in found.sampled.items():
        warnings.append(
            f"{family}: measured on {rows} of {n} rows drawn at random, the most held in memory; exact={n} "
            f"(--exact {n}) holds all"
        )
    if unmet := [key for key, e in found.estimated.items() if not e.met]:
        warnings.append(f"estimates less accurate than requested: {', '.join(unmet)}; their bounds still hold")
    if found.counts is None:
        return warnings
    if "entropy" not in found.per_class:
        warnings.append(
            f"per-class entropies left out: scatter matrices of classes take {len(found.counts) * dim**2:,} numbers, "
            f"and the budget is {SCATTER_BUDGET:,}; exact={n} (--exact {n}) holds all rows instead"
        )
    if found.coinciding:
        one, other = found.coinciding
        warnings.append(
            f"class means coincide, for instance those of {one} and {other}: ratios to the distance between them are "
            "infinite or 0/0"
        )
    return warnings + _class_warnings(found.counts)


def _unreachable(found, bounds):
    """The warning about the limits of a simplex with too many vertices for the dimensions."""
    if found.counts is None or np.sum(found.counts > 0) < 2 or has_simplex(len(found.counts), found.dim):
        return []
    classes = len(found.counts)
    named = f"; the limits shown are bounds: {', '.join(bounds)}" if bounds else ""
    return [
        f"C > D + 1 ({classes} classes, {found.dim} columns): a simplex of {classes} classes needs {classes - 1} "
        f"dimensions; measures of its angles have no limit{named}"
    ]


def _class_warnings(counts):
    warnings, present = [], counts[counts > 0].astype(int)
    missing = np.flatnonzero(counts == 0)
    if len(missing):
        shown = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        warnings.append(f"{len(missing)} of {len(counts)} classes have no samples ({shown}): left out")
    if len(present) < 2:
        return [*warnings, "fewer than two classes have samples: there are no classes to compare"]
    single = int(np.sum(present == 1))
    if single:
        warnings.append(f"{single} classes have one sample: their within-class variance is 0 by construction")
    elif present.min() < 10:
        warnings.append(f"too few samples: the smallest class has {present.min()}; its variance is biased low")
    if present.max() > 1.5 * present.min():
        warnings.append(
            f"class imbalance: {present.min()} to {present.max()} samples per class; the NC1 conventions differ, and "
            "the limits shown are for these counts"
        )
    return warnings


def _reason(key, found, value):
    if found.counts is not None and np.sum(found.counts > 0) < 2:
        return "fewer than two classes have samples"
    if key in ("cdnv", "davies_bouldin") and found.coinciding:
        one, other = found.coinciding
        if np.isinf(value):
            return f"inf: classes {one} and {other} have the same mean and spread around it"
        return f"0/0: classes {one} and {other} have the same mean and no spread around it"
    if key.startswith(("mir", "hdr")):
        return "0/0: an entropy is zero (all directions equal up to sign, or two opposite head rows)"
    if key.startswith("alpha_req"):
        return "fewer than two eigenvalues of the covariance in the range of the fit are not zero, or all are equal"
    if key.startswith("silhouette"):
        return "needs at least two classes and a class with two samples"
    if key.startswith("nc3") or key.endswith("_head"):
        return "0/0: the head or all centred class means are zero"
    return "0/0: class means coincide, there is no variance between classes"
