"""Unit rows, densities and spectra of concrete CPU arrays in NumPy: the same numbers as `spectra` without compilation.

For features of a few thousand rows, calling a compiled program, which copies its arrays, costs more than the work.
"""

from typing import NamedTuple

import numpy as np

from infojax.measures import cores
from infojax.measures.by_class import squares_of

# Row norms in this range have squares that fit any float dtype.
MODERATE = (2.0**-24, 2.0**24)
# Side of a matrix up to which one thread decomposes it: more threads would wait longer for each other than they save.
ONE_THREAD = 512
MOST_APART = 2048  # side up to which several matrices are decomposed at the same time, one per core
DIGITS = 1e-8  # relative error of singular values in float64: most have 12 digits
LOST = 1e-4  # share of a row's square that must remain when the mean is subtracted: 12 digits are left
ROUNDING = 8  # of the eigenvalues of a Gram matrix, in units of eps times the largest


def unit_rows(z: np.ndarray, floor: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """`spectra.unit_rows` of z (N, D): unit or zero rows (N, D), and which are unit rows (N,)."""
    with np.errstate(all="ignore"):
        lengths = np.sqrt(squares_of(z))
        if floor <= 0 and MODERATE[0] <= lengths.min(initial=1) and lengths.max(initial=1) <= MODERATE[1]:
            return z / lengths[:, None], np.ones(len(z), bool)
        info = np.finfo(z.dtype)
        largest = np.maximum(z.max(axis=1, initial=0), -z.min(axis=1, initial=0))
        live = ~(largest <= max(floor, info.tiny / info.eps))
        s = np.where(np.isfinite(largest), np.exp2(np.floor(np.log2(np.where(live, largest, 1)))), largest)
        y = z / s.astype(z.dtype)[:, None]
        return np.where(live[:, None], y / np.where(live, np.sqrt(squares_of(y)), 1)[:, None], 0), live


def directions(z: np.ndarray, weights: np.ndarray | None, center: bool) -> tuple[np.ndarray, np.ndarray]:
    """`spectra.directions` of z (N, D), weights (N,) or None for ones: unit rows (N, D), probabilities (N,)."""
    w = np.ones(len(z), z.dtype) if weights is None else weights
    if not w.all():
        z = np.where(w[:, None] <= 0, 0, z)
    floor = 0.0
    if center:
        largest = float(np.maximum(z.max(initial=0), -z.min(initial=0)))
        s = 1.0 if MODERATE[0] <= largest <= MODERATE[1] else float(np.exp2(np.floor(np.log2(largest or 1))))
        with np.errstate(all="ignore"):
            z = z if s == 1 else z / z.dtype.type(s)
            z = z - (w @ z / max(w.sum(), np.finfo(z.dtype).tiny))
        floor = 16 * float(np.finfo(z.dtype).eps) * largest / s
    u, live = unit_rows(z, floor)
    mass = np.where(live, w, 0)
    return u, mass / max(mass.sum(), np.finfo(z.dtype).tiny)


def density(z: np.ndarray, weights: np.ndarray | None, center: bool) -> np.ndarray:
    """`entropy.density_of_features` of z (N, D), weights (N,) or None: (N, N) or (D, D), whichever is smaller.

    In float64: the spectrum takes no longer, and small eigenvalues keep their digits.
    """
    u, p = directions(z, weights, center)
    if not z.size:
        return np.zeros((1, 1))
    with np.errstate(all="ignore"):
        if weights is None:  # all rows with a direction count equally
            return gram(u) * float(p.max())
        return gram(u * np.sqrt(p)[:, None])


def eigenvalues(k: np.ndarray) -> np.ndarray:
    """Ascending eigenvalues (n,) of a symmetric matrix (n, n), noise included; all nan if it is not finite."""
    if not np.isfinite(k).all():
        return np.full(k.shape[:1], np.nan, k.dtype)
    if len(k) > ONE_THREAD:
        return np.linalg.eigvalsh(k)
    with cores.one_thread():
        return np.linalg.eigvalsh(k)


def noise_of(shape: tuple[int, ...]) -> float:
    """The error of singular values in units of eps times the largest, matching `spectra.support` for eigenvalues."""
    return max(4, max(shape) ** 0.5)


def gram(a: np.ndarray) -> np.ndarray:
    """A A^T or A^T A of a (n, m), whichever is smaller, in float64."""
    rows = a.astype(np.float64, copy=False)
    return rows @ rows.T if len(a) <= a.shape[1] else rows.T @ rows


def singular_values(a: np.ndarray) -> np.ndarray:
    """Descending singular values (min(n, m),) of a finite a (n, m); those at rounding level are exactly zero.

    From its Gram matrix if that is accurate enough, else from an SVD, which is several times slower.
    """
    if not a.size:
        return np.zeros(min(a.shape), a.dtype)
    k = gram(a)
    return singular_values_of_gram(a, eigenvalues(k), np.diagonal(k))


def singular_values_of_gram(a: np.ndarray, w: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """`singular_values` of a (n, m) from `gram(a)`: its ascending eigenvalues w and its diagonal, (min(n, m),) both.

    An error e s_1^2 in an eigenvalue, e = `ROUNDING` eps, causes one of at most e s_1^2 / s_i in s_i. The sum of these
    must be below `DIGITS`, or the rounding of their dtype, times the sum of the s_i; otherwise an SVD is used.
    """
    s, e = np.sqrt(np.maximum(w[::-1], 0)), ROUNDING * np.finfo(np.float64).eps
    noise, least = noise_of(a.shape) * np.finfo(a.dtype).eps * s[0], e**0.5 * s[0]
    resolved = s > max(noise, least)
    error = np.sum(e * s[0] ** 2 / s[resolved])
    if least > noise:
        error += least * (np.sum(~resolved) - np.sum(squares == 0))  # zero rows have eigenvalues of exactly zero
    if error > max(DIGITS, np.finfo(a.dtype).eps) * np.sum(s):
        with cores.one_thread():  # two are not faster
            s = np.linalg.svd(a, compute_uv=False)
    s = s.astype(a.dtype, copy=False)
    return np.where(s <= noise, 0, s)


class Spectra(NamedTuple):
    """Of features: eigenvalues of the densities of the rows and of the centred rows, ascending and with their noise;
    singular values, and eigenvalues of the scatter about the mean, descending, without noise."""

    rows: np.ndarray
    centered: np.ndarray
    singular: np.ndarray
    covariance: np.ndarray


def spectra_of(z: np.ndarray) -> Spectra:
    """The four spectra of z (N, D).

    With N <= D one product serves all: the others are functions of Z Z^T, unless that loses digits.
    """
    k = gram(z)
    densities: tuple[np.ndarray | None, ...] = (None, None)
    if len(z) <= z.shape[1]:
        mean = k.mean(axis=0)
        about_mean = k - mean[:, None] - mean[None, :] + mean.mean()
        densities = tuple(_density_of_gram(matrix, np.diagonal(k).max(initial=0)) for matrix in (k, about_mean))
    raw, centered = (density(z, None, c) if x is None else x for c, x in zip((False, True), densities, strict=True))
    differences = densities[1] is not None
    if not differences:
        about_mean = gram(z - z.mean(axis=0))
    matrices = (raw, centered, k, about_mean)
    apart = len(k) <= MOST_APART
    found = cores.shared(eigenvalues, matrices) if apart else [eigenvalues(matrix) for matrix in matrices]
    largest = max(found[2 if differences else 3].max(initial=0), 0)  # of the matrix whose rounding they hold
    noise = noise_of(z.shape) * np.finfo(np.float64).eps * largest
    covariance = np.where(found[3] <= noise, 0, found[3])[::-1]
    return Spectra(found[0], found[1], singular_values_of_gram(z, found[2], np.diagonal(k)), covariance)


def _density_of_gram(matrix, largest):
    """The density of rows from their Gram matrix; None if they would lose more than four digits."""
    squares = np.diagonal(matrix)
    if not squares.min(initial=np.inf) > LOST * largest > 0:
        return None
    scale = 1 / np.sqrt(squares)
    return matrix * (scale[:, None] / len(matrix)) * scale[None, :]
