"""Computes the numbers of a Report from the sums over the rows. Every process does the same work."""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from infojax.analysis.inputs import Inputs, Options
from infojax.analysis.sums import Sums, sample_of
from infojax.measures import collapse, entropy, head_interplay, host, separation, spectra, variability
from infojax.measures.arrays import matmul
from infojax.measures.estimate import Estimate, estimate_interplay, estimate_interplay_from_stats

# Largest side of the compressed joint matrix: ten classes of 512 features, 5 s for its float64 spectrum.
JOINT_SIDE = 6144
# Floats of the rows (256 MiB in float32) from which a larger joint entropy is estimated; with more, from a sample.
ESTIMATED = 2**26


class Measured(NamedTuple):
    """The numbers measured of one array, before they are described. Arrays are numpy float64."""

    num_samples: int
    dim: int
    counts: np.ndarray | None
    zero_rows: int
    spectrum: np.ndarray
    spectrum_centered: np.ndarray
    singular: np.ndarray
    covariance: np.ndarray
    values: dict[str, float]
    per_class: dict[str, np.ndarray]
    interplay: head_interplay.Interplay | None
    interplay_centered: head_interplay.Interplay | None
    interplay_counts: np.ndarray | None
    sampled: dict[str, int]  # measure family -> number of rows used, if not all
    estimated: dict[str, Estimate]  # measure -> its estimate with bounds, if it was not computed exactly
    coinciding: tuple[int, int] | None = None  # the first two classes with equal means


class _Interplay(NamedTuple):
    """Features compared with the head: raw, centred, the class counts used, and how they were computed."""

    raw: head_interplay.Interplay | None = None
    centered: head_interplay.Interplay | None = None
    counts: np.ndarray | None = None
    estimated: dict[str, Estimate] = {}
    rows: int | None = None  # number of rows used, if not all


def finish(inputs: Inputs, sums: Sums, options: Options) -> Measured:
    """`Measured`, from the sums and from the rows of the sample."""
    (n, dim), route = inputs.rows.shape, sums.route
    labelled, live = inputs.labels is not None, n - sums.zero_rows
    held = None
    if route.scatter is None or labelled:
        held = inputs.rows.take(route.sample).astype(np.float64) / sums.scale
    of_rows = _spectra(sums, held)
    sampled = {} if route.direct or route.scatter else {"spectrum": len(route.sample)}
    values, per_class = _class_values(inputs, sums, held) if labelled else ({}, {})
    if labelled and options.thorough:
        assert held is not None  # since there are labels
        values["silhouette"] = separation.silhouette(held, inputs.classes[route.sample])
        sampled |= {} if route.direct else {"silhouette": len(route.sample)}
    flow = _Interplay()
    if inputs.head is not None:
        values["entropy_head_weights"] = float(entropy.matrix_entropy(inputs.head))
        flow = _interplay(inputs, sums, held, options)
        sampled |= {} if flow.rows is None else {"interplay": flow.rows}
    mean_direction = np.asarray(sums.unit.count) @ np.asarray(sums.unit.mean) / max(live, 1)
    values["mean_energy"] = float(np.sum(mean_direction**2))
    values["coding_rate"] = float(_coding_rate(of_rows.rows, live, dim))
    return Measured(
        num_samples=n,
        dim=dim,
        counts=np.asarray(sums.raw.count) if labelled else None,
        zero_rows=sums.zero_rows,
        spectrum=of_rows.rows,
        spectrum_centered=of_rows.centered,
        singular=of_rows.singular,
        covariance=of_rows.covariance,
        values=values,
        per_class=per_class,
        interplay=flow.raw,
        interplay_centered=flow.centered,
        interplay_counts=flow.counts,
        sampled=sampled,
        estimated=flow.estimated,
        coinciding=_coinciding(sums.raw) if labelled and not np.isfinite(values["cdnv"]) else None,
    )


def _spectra(sums, held):
    """`host.Spectra`, all descending and without noise."""
    if sums.route.scatter is None:
        found = host.spectra_of(held)
        return found._replace(rows=_supported(found.rows), centered=_supported(found.centered))
    singular = np.sqrt(np.asarray(spectra.eigenvalues(_second_moment(sums.raw))))[::-1]
    mean = sums.raw.count @ sums.raw.mean / jnp.maximum(jnp.sum(sums.raw.count), 1)
    about_mean = _second_moment(replace(sums.raw, mean=sums.raw.mean - mean[None]))
    covariance = np.asarray(spectra.eigenvalues(about_mean))[::-1]
    return host.Spectra(_density_spectrum(sums.unit), _density_spectrum(sums.unit_centered), singular, covariance)


def _supported(eigenvalues):
    return spectra.support(eigenvalues)[::-1]


def _class_values(inputs, sums, held):
    """Name -> value, and name -> per-class values, of the measures of labels and, if given, the head."""
    route = sums.route
    found, per_class = _collapse_values(sums.raw, sums.second, sums.energies, inputs.head)
    per_class = {key: np.asarray(value) for key, value in per_class.items()}
    per_class["nc2_norm"] = sums.scale * per_class["nc2_norm"]
    if route.direct or route.per_class:
        source = held if route.direct else sums.unit
        per_class["entropy"] = _class_entropies(source, inputs.classes, inputs.num_classes)
    return {key: float(value) for key, value in found.items()}, per_class


def _interplay(inputs, sums, held, options):
    """Exact from class moments if possible, else estimated, else exact for the rows held in memory."""
    route, head, labels, dim = sums.route, inputs.head, inputs.classes, inputs.rows.shape[1]
    side = np.minimum(np.bincount(labels, minlength=inputs.num_classes), dim).sum()
    if route.per_class and side <= JOINT_SIDE:
        raw, centered = (head_interplay.interplay_from_stats(s, head) for s in (sums.unit, sums.unit_centered))
        return _Interplay(raw, centered, np.asarray(sums.raw.count))
    if not route.direct and options.thorough:
        return _estimated_interplay(inputs, sums, options)
    used = labels[route.sample]
    raw, centered = (head_interplay.interplay(held, used, head, center=c) for c in (False, True))
    counts = np.bincount(used, minlength=inputs.num_classes)
    return _Interplay(raw, centered, counts, rows=None if route.direct else len(used))


def _estimated_interplay(inputs, sums, options):
    """From class moments if they are held, else from as many rows as fit, in float32.

    Rounding rows to float32 changes an entropy by about 1e-5, which the bounds allow for.
    """
    (n, dim), head, used = inputs.rows.shape, inputs.head, inputs.classes
    options.progress(0, 2, "estimating the joint entropy")
    if sums.route.per_class:
        both = (sums.unit, sums.unit_centered)
        found = [estimate_interplay_from_stats(stats, head, seed=options.seed) for stats in both]
    else:
        chosen = sample_of(n, max(ESTIMATED // dim, len(sums.route.sample)), options.seed)
        z, used = inputs.rows.take(chosen).astype(np.float32), used[chosen]
        found = []
        for center in (False, True):
            found.append(estimate_interplay(z, used, head.astype(np.float32), center=center, seed=options.seed))
            options.progress(len(found), 2, "estimating the joint entropy")
    estimated = {
        f"{key}{suffix}": getattr(estimates, key)
        for estimates, suffix in zip(found, ("", "_centered"), strict=True)
        for key in ("joint_entropy", "mutual_information", "mir", "hdr")
        if getattr(estimates, key).route == "estimate"
    }
    counts = np.bincount(used, minlength=len(head))
    return _Interplay(*(e.values for e in found), counts, estimated, len(used) if len(used) < n else None)


def _coinciding(stats):
    """The first two non-empty classes whose means are equal up to rounding, or None."""
    present, mean = np.flatnonzero(np.asarray(stats.count) > 0), np.asarray(stats.mean)
    rounding = float(variability.mean_rounding(stats))
    for i, one in enumerate(present):
        apart = np.linalg.norm(mean[present[i + 1 :]] - mean[one], axis=1)
        if (apart <= rounding).any():
            return int(one), int(present[i + 1 + np.argmax(apart <= rounding)])
    return None


def _second_moment(stats):
    """sum of z z^T over all classes, (D, D)."""
    scatter = stats.scatter if stats.kind == "within" else jnp.sum(stats.scatter, axis=0)
    return scatter + matmul((stats.count[:, None] * stats.mean).T, stats.mean)


def _density_spectrum(unit):
    moment = _second_moment(unit)
    return np.asarray(spectra.eigenvalues(moment / jnp.maximum(jnp.trace(moment), 1e-300)))[::-1]


def _coding_rate(spectrum, n, dim):
    """log det(I_D + (1 / D) sum u u^T) from the spectrum of the density: mu = 1, form "code"."""
    return np.sum(np.log1p(n / dim * spectrum))


@jax.jit
def _collapse_values(raw, second, energies, head):
    """(name -> value, name -> per-class values) of all collapse measures."""
    second = second._replace(energy=energies.get("thesis", second.energy))
    nc = collapse.collapse_from_passes(raw, second, head)
    values = {key: v for key, v in nc._asdict().items() if key != "per_class" and v is not None}
    # The conventions that share S_B share one inverse.
    shared = {"papyan": "papyan", "tding1": "tding1", "rhubarbwu": "papyan", "equi_separation": "tding1"}
    for key in [*shared, "trace_quotient"]:
        energy = energies.get(shared.get(key), second.energy)
        values[f"nc1_{key}"] = variability.nc1_from_energy(energy, raw, convention=key)[0]
    return values, {key: v for key, v in nc.per_class._asdict().items() if v is not None}


def _class_entropies(source, labels, num_classes):
    """H of each class's unit rows, from the rows or from their moments; nan for classes without samples."""
    if not isinstance(source, np.ndarray):
        second = source.scatter + source.count[:, None, None] * source.mean[:, :, None] * source.mean[:, None, :]
        spectra_of = [np.asarray(spectra.eigenvalues(k / jnp.maximum(jnp.trace(k), 1e-300))) for k in second]
    else:
        u = np.asarray(spectra.unit_rows(jnp.asarray(source))[0])
        groups = [u[labels == c] for c in range(num_classes)]
        spectra_of = [
            np.asarray(spectra.eigenvalues(np.asarray(spectra.smaller_gram(g)) / max(np.sum(g * g), 1e-300)))
            for g in groups
        ]
    counts = np.bincount(labels, minlength=num_classes)
    return np.array([spectrum_entropy(p) if n else np.nan for p, n in zip(spectra_of, counts, strict=True)])


def spectrum_entropy(p: np.ndarray, alpha: float = 1.0) -> float:
    """Rényi entropy of eigenvalues p (numpy, any order, zeros allowed); see `entropy.entropy_of_density`."""
    p = p[p > 0]
    if not len(p):
        return 0.0
    log_p = np.log(p / p.sum())
    if alpha == 1:
        return float(max(-np.sum(np.exp(log_p) * log_p), 0.0)) + 0.0  # no -0.0
    if alpha == np.inf:
        return float(max(-np.max(log_p), 0.0)) + 0.0
    top = np.max(alpha * log_p)
    return float(max((top + np.log(np.sum(np.exp(alpha * log_p - top)))) / (1 - alpha), 0.0)) + 0.0
