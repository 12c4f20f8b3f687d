"""95% intervals by stratified subsampling without replacement.

With m = n / 2 of the samples, the variance of a smooth statistic over subsamples, sigma^2 / m (1 - m / n), equals its
variance sigma^2 / n over data sets, so the spread of the subsamples is the standard error and needs no rescaling
beyond sqrt(m / (n - m)), which is 1 except for odd counts. A bootstrap draws rows twice, and repeated rows lower the
rank and the entropy: its intervals are centred on a smaller n.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from infojax.analysis.inputs import Inputs, Options, silent
from infojax.analysis.measured import Measured, finish
from infojax.analysis.reports import Interval, Report
from infojax.analysis.rows import ArrayRows
from infojax.analysis.summary import describe
from infojax.analysis.sums import accumulate
from infojax.measures.catalogue import CATALOGUE

# Subsamples need random access to rows in memory; the float64 bytes they may take.
MEMORY = 2**30


def halves(labels: np.ndarray, draws: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """`draws` sorted index arrays, each a random half (rounded down) of every class, without replacement."""
    groups = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    for _ in range(draws):
        yield np.sort(np.concatenate([rng.choice(g, len(g) // 2, replace=False) for g in groups]))


def interval(value: float, at_m: np.ndarray, n: int, m: int) -> Interval:
    """The `Interval` of a statistic with the given value on n samples and values `at_m` on subsamples of m."""
    mean = float(np.mean(at_m))
    low, high = value + (m / (n - m)) ** 0.5 * (np.quantile(at_m, [0.025, 0.975]) - mean)
    return Interval(float(low), float(high), mean, mean - value, m)


def intervals(report: Report, inputs: Inputs, measured: Measured, options: Options, draws: int) -> Report:
    """The report with `intervals`, or with a warning that explains why there are none.

    Measures of a spectrum get none if half of the samples is no more than the columns: the spectrum is then limited by
    the number of samples, and no subsample shows what more samples would add. Nor do measures of a random subset of
    the rows, whose subsamples would not be smaller; nor the silhouette (N^2 per draw).
    """
    (n, dim), strata = inputs.rows.shape, inputs.classes
    smallest = np.unique(strata, return_counts=True)[1].min() // 2
    if n * dim * 8 > MEMORY:
        return _refused(report, f"the rows take more than {MEMORY >> 20} MiB in memory as float64; pass a subset")
    if smallest < 2:
        return _refused(report, "a class has fewer than 4 samples, so that half of it cannot be measured")
    z, found = inputs.rows.take(np.arange(n)).astype(np.float64), []
    for k, index in enumerate(halves(strata, draws, np.random.default_rng([options.seed, 1]))):
        labels = None if inputs.labels is None else strata[index]
        half = replace(inputs, rows=ArrayRows(z[index]), labels=labels)
        each = replace(options, chunk=len(index), progress=silent, distributed=False, thorough=False)
        found.append(describe(half, finish(half, accumulate(half, each), each)).measures)
        options.progress(k + 1, draws, "confidence intervals")
    m = len(index)
    if m <= dim:
        text = f"no intervals for spectral measures: half of the samples ({m}) is no more than the columns ({dim})"
        report = replace(report, warnings=(*report.warnings, f"ci: {text}, so that the spectrum is rank-limited"))
    families = set(measured.sampled) | ({"interplay"} if measured.estimated else set())
    on_a_part = families - {"silhouette"}
    if on_a_part:
        text = f"no intervals for measures of the {' and '.join(sorted(on_a_part))}"
        report = replace(report, warnings=(*report.warnings, f"ci: {text}: measured on a subset of rows, or estimated"))
    result = {}
    for key in found[0]:
        at_m = np.array([values[key] for values in found])
        entry = CATALOGUE[key]
        judged = (m > dim or not entry.rank_limited) and entry.family not in on_a_part
        # Measures of only the head do not vary.
        if judged and np.isfinite([report.measures[key], *at_m]).all() and np.ptp(at_m) > 0:
            result[key] = interval(report.measures[key], at_m, n, m)
    return replace(report, intervals=result)


def _refused(report, why):
    return replace(report, warnings=(*report.warnings, f"ci: refused, {why}"))
