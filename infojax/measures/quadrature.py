"""Gauss and Gauss-Radau quadrature of the entropy function from Lanczos coefficients, on the host in float64.

For a vector z the sum_j (z . q_j)^2 f(l_j) over the eigenpairs of A is an integral of f over a measure whose Gauss rule
with s nodes is the eigendecomposition of the s x s Lanczos matrix T. For f(x) = -x log x every even derivative is
negative, and every odd one from the third on positive, on (0, inf). So the Gauss rule is an upper bound, and the
Gauss-Radau rule with one node at 0 a lower one.

References:
  Golub and Meurant, "Matrices, Moments and Quadrature", 1994; Ubaru, Chen and Saad, SIAM J. Matrix Anal. Appl. 2017.
"""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np


def entropy_terms(x: np.ndarray) -> np.ndarray:
    """-x log x elementwise, 0 for x <= 0."""
    positive = x > 0
    return np.where(positive, -x * np.log(np.where(positive, x, 1)), 0.0)


class Rules(NamedTuple):
    """For each unit vector, (b,): integrals of f by Gauss (above) and Gauss-Radau (below), and of x and x^2."""

    gauss: np.ndarray
    radau: np.ndarray
    first: np.ndarray
    second: np.ndarray


def rules(alpha: np.ndarray, beta: np.ndarray) -> Rules:
    """`Rules` from alpha (s, b), the diagonals of b Lanczos matrices, and beta (s, b): beta[j] couples j with j + 1."""
    alpha, beta = np.asarray(alpha, np.float64), np.asarray(beta, np.float64)
    return Rules(
        _integral(_tridiagonal(alpha, beta[:-1])),
        _integral(_tridiagonal(np.concatenate([alpha, _radau_entry(alpha, beta)[None]]), beta)),
        alpha[0],
        alpha[0] ** 2 + beta[0] ** 2,
    )


def _radau_entry(alpha, beta):
    """The last diagonal entry that gives the extended matrix the eigenvalue 0: beta_s^2 / d_s, d the pivots of T."""
    pivot = alpha[0]
    for a, b in zip(alpha[1:], beta[:-1], strict=True):
        pivot = a - _square_over(b, pivot)
    return _square_over(beta[-1], pivot)


def _square_over(b, pivot):
    """b^2 / pivot; 0 once the Krylov space is exhausted and pivots are rounding errors."""
    return np.where(pivot > 0, b * b / np.where(pivot > 0, pivot, 1), 0)


def _tridiagonal(diagonal, off):
    size, count = diagonal.shape
    t, i = np.zeros((count, size, size)), np.arange(size)
    t[:, i, i] = diagonal.T
    t[:, i[:-1], i[1:]] = t[:, i[1:], i[:-1]] = off.T
    return t


def _integral(t):
    nodes, vectors = np.linalg.eigh(t)
    return np.sum(vectors[:, 0, :] ** 2 * entropy_terms(nodes), axis=1)


class Sum(NamedTuple):
    """tr f estimated from probes: between lower and upper, up to the standard error and the rounding error.

    freedom: degrees of freedom of the standard error.
    """

    lower: float
    upper: float
    standard_error: float
    rounding: float
    freedom: int

    def margin(self, confidence: float) -> float:
        """The margin to add on both sides."""
        return t_quantile(confidence, self.freedom) * self.standard_error + self.rounding


def trace_of(found: Rules, size: float | np.ndarray, traces: np.ndarray, errors: np.ndarray) -> Sum:
    """`Sum` of tr f(B) from the `Rules` of vectors drawn uniformly from the unit sphere of `size` dimensions.

    z^T B z and z^T B^2 z of each vector are known as exactly as their means, the traces; what f(B) shares with them is
    removed by regression (control variates), and with it most of the variance.

    Args:
      traces: some of tr B, tr B^2; errors: their rounding errors.
    """
    controls = [size * x - t for x, t in zip((found.first, found.second), traces, strict=False)]
    middle, half = size * (found.gauss + found.radau) / 2, size * (found.gauss - found.radau) / 2
    x = np.stack(controls, axis=1)
    centered = x - x.mean(axis=0)
    scale = np.sqrt(np.sum(centered**2, axis=0))
    scale = np.where(scale > 0, scale, 1)
    inverse = np.linalg.pinv(centered / scale, rcond=1e-10)
    slopes = inverse @ (middle - middle.mean()) / scale
    residual = middle - x @ slopes
    freedom = len(middle) - 1 - x.shape[1]
    # The error of a regression line at the known means 0 of the controls, which includes the errors of the slopes.
    leverage = 1 / len(middle) + np.sum((x.mean(axis=0) / scale @ inverse) ** 2)
    error = np.sqrt(np.sum((residual - residual.mean()) ** 2) / freedom * leverage)
    rounding = float(np.abs(slopes) @ errors)
    return Sum(residual.mean() - half.mean(), residual.mean() + half.mean(), float(error), rounding, freedom)


def t_quantile(confidence: float, freedom: int) -> float:
    """Two-sided quantile of Student's t: Abramowitz and Stegun 26.7.5, right to 0.1% from 8 degrees of freedom on."""
    x = NormalDist().inv_cdf((1 + confidence) / 2)
    terms = (
        x,
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
    )
    return sum(term / freedom**k for k, term in enumerate(terms))
