"""The spectrum of a weight matrix, and its ranks, as a `Report`."""

import numpy as np

from infojax.analysis.measured import spectrum_entropy
from infojax.analysis.reports import Report
from infojax.analysis.rows import Rows
from infojax.analysis.summary import ALPHAS
from infojax.measures import host

MEASURES = {
    "effective_rank": "exp entropy of the singular values of the raw W (Roy & Vetterli)",
    "stable_rank": "||W||_F^2 / ||W||_2^2",
    "spectral_norm": "||W||_2, the largest singular value",
    "frobenius_norm": "||W||_F, root of the sum of squares",
}


def singular_values(tall: Rows, chunk: int) -> np.ndarray:
    """The singular values of a matrix in descending order, from the eigenvalues of A^T A, summed over blocks of rows.

    In float64, of the matrix over a power of two: values below about 1e-7 of the largest are rounding errors and are
    zero. All are nan if the matrix has nan or inf.
    """
    n, dim = tall.shape
    gram = np.zeros((dim, dim))
    with np.errstate(all="ignore"):
        largest = float(np.max([np.abs(np.asarray(rows, np.float64)).max() for rows in tall.blocks(chunk, 0, n)]))
        if not np.isfinite(largest):
            return np.full(dim, np.nan)
        scale = np.exp2(np.floor(np.log2(largest))) if largest > 0 else 1.0
        for block in tall.blocks(chunk, 0, n):
            rows = np.asarray(block, np.float64) / scale
            gram += rows.T @ rows
    w = np.linalg.eigvalsh(gram)[::-1]
    noise = host.noise_of((n, dim)) * np.finfo(np.float64).eps * w[0]
    return scale * np.sqrt(np.where(w <= noise, 0, w))[: min(n, dim)]


def weight_report(name: str, shape: tuple[int, int], tall: Rows, chunk: int) -> Report:
    """Ranks and norms of a weight matrix, from its singular values s_1 >= s_2 >= ...

    effective_rank = exp(-sum p log p) with p = s / sum(s) (Roy and Vetterli 2007), stable_rank = sum s^2 / s_1^2,
    spectral_norm = s_1, frobenius_norm = sqrt(sum s^2).

    Args:
      name: of the layer.
      shape: of the matrix.
      tall: the matrix or its transpose, with at least as many rows as columns.
      chunk: rows read at a time.
    """
    s = singular_values(tall, chunk)
    total, largest = float(s.sum()), float(s.max())
    values = dict.fromkeys(MEASURES, float("nan") if np.isnan(total) else 0.0)
    if largest > 0:
        squares = np.sum((s / largest) ** 2)
        values = {
            "effective_rank": float(np.exp(spectrum_entropy(s / total))),
            "stable_rank": float(squares),
            "spectral_norm": largest,
            "frobenius_norm": float(largest * np.sqrt(squares)),
        }
    density = (s / largest) ** 2 / np.sum((s / largest) ** 2) if largest > 0 else np.zeros_like(s)
    return Report(
        name=name,
        num_samples=shape[0],
        dim=shape[1],
        num_classes=None,
        measures=values,
        limits={},
        conventions=dict(MEASURES),
        warnings=("the matrix is zero",) if largest == 0 else (),
        reasons=dict.fromkeys(MEASURES, "the matrix has entries that are nan or inf") if np.isnan(total) else {},
        per_class={},
        spectrum=density,
        renyi={alpha: spectrum_entropy(density, alpha) for alpha in ALPHAS},
    )
