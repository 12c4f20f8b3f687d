"""Entropies of prompts: of the tokens of each, and of the prompts as a data set. NumPy, one prompt at a time."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from infojax.analysis.measured import spectrum_entropy
from infojax.analysis.reports import Report
from infojax.analysis.rows import Rows
from infojax.measures import host, spectra
from infojax.measures.catalogue import CATALOGUE


def with_prompts(report: Report, rows: Rows, prompts: np.ndarray, chunk: int = 4096) -> Report:
    """The report with `measures.prompt_entropy`, its mean and std over prompts, and `measures.dataset_entropy`.

    Args:
      rows: the measured rows, (N, D), read in one pass; those of one prompt and of a block are held at a time.
      prompts: the prompt of each row, (N,), ascending.
      chunk: rows read at a time.
    """
    entropies, means = [], []
    for tokens in _each(rows, np.flatnonzero(prompts[1:] != prompts[:-1]) + 1, chunk):
        u, p = host.directions(tokens.astype(np.float64), None, True)
        entropies.append(_entropy_of(host.gram(u * np.sqrt(p)[:, None])))
        means.append(p @ u)
    found = {"prompt_entropy": float(np.mean(entropies)), "prompt_entropy_std": float("nan")}
    if len(entropies) > 1:
        found["prompt_entropy_std"] = float(np.std(entropies, ddof=1))
        found["dataset_entropy"] = _entropy_of(host.gram(np.stack(means)))
    values = report.measures | found
    told = {name: f"{CATALOGUE[name].convention}; {len(entropies):,} prompts" for name in found}
    reasons = {name: "one prompt" for name, value in found.items() if np.isnan(value)}
    return replace(
        report,
        measures={name: values[name] for name in CATALOGUE if name in values},
        conventions=dict(report.conventions) | told,
        reasons=dict(report.reasons) | reasons,
    )


def _each(rows: Rows, cuts: np.ndarray, chunk: int) -> Iterator[np.ndarray]:
    """The rows between one cut and the next. A compressed file can only be read from its start, hence one pass."""
    at = 0
    waiting: list[np.ndarray] = []
    for block in rows.blocks(chunk, 0, rows.shape[0]):
        *ended, rest = np.split(block, cuts[(cuts >= at) & (cuts < at + len(block))] - at)
        for piece in ended:
            yield np.concatenate([*waiting, piece])
            waiting = []
        waiting.append(rest)
        at += len(block)
    yield np.concatenate(waiting)


def _entropy_of(k):
    w = spectra.support(host.eigenvalues(k))
    return spectrum_entropy(w / w.sum()) if w.any() else 0.0
