"""A zoo of matrices, and brute-force references in NumPy that share no code with infojax.

References work in float64 on the full N x N matrix, with plain subsets instead of masks and repeated
rows instead of integer weights.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays


@lru_cache
def half():
    """float16, or bfloat16 where XLA compiles no float16: below AVX it lacks the conversion, __extendhfsf2."""
    try:
        jax.jit(lambda x: x.astype(jnp.float32))(jnp.ones(2, jnp.float16)).block_until_ready()
        return jnp.dtype(jnp.float16)
    except jax.errors.JaxRuntimeError:
        return jnp.dtype(jnp.bfloat16)


# --- the zoo ---------------------------------------------------------------------------------------------------


def simplex(num_classes, dim=None):
    """(C, D) unit rows with all cosines -1/(C-1): the centred identity, rotated into C-1 dimensions."""
    centred = np.eye(num_classes) - 1 / num_classes
    rows = centred @ np.linalg.svd(centred)[2][: num_classes - 1].T
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.pad(rows, ((0, 0), (0, (dim or num_classes - 1) - rows.shape[1])))


def simplex_gram(num_classes):
    """K = C/(C-1) I - J/(C-1)."""
    return (num_classes * np.eye(num_classes) - 1) / (num_classes - 1)


def shifted_simplex(num_classes, s):
    """(C, C) unit rows sqrt(s) u + sqrt(1-s) e_c with u orthogonal to the simplex: their mean has energy s."""
    shift = np.full((num_classes, 1), math.sqrt(s))
    return np.hstack([math.sqrt(1 - s) * simplex(num_classes), shift])


def power_law(n, dim, decay=1.5, seed=0):
    """(N, D) features whose singular values fall like 1 / i^decay."""
    rng = np.random.default_rng(seed)
    rank = min(n, dim)
    left, right = (np.linalg.qr(rng.standard_normal((m, rank)))[0] for m in (n, dim))
    return (left * np.arange(1, rank + 1.0) ** -decay) @ right.T


def features():
    """Name -> (N, D) float64 features: ordinary ones, and everything that has ever made an entropy NaN.

    Four shapes in all, (8, 5), (8, 11), (8, 1) and (1, 5), because every new one compiles.
    """
    rng = np.random.default_rng(1)
    generic = rng.standard_normal((8, 5))
    wide = rng.standard_normal((8, 11))
    zeros = generic.copy()
    zeros[[2, 5]] = 0
    v = generic[0]
    return {
        "N > D": generic,
        "N < D": wide,
        "N = 1": generic[:1],
        "D = 1": generic[:, :1],
        "axes": np.eye(8, 5) + np.eye(8, 5, -5),  # each once or twice
        "orthonormal": rotation(11)[:8],
        "simplex": simplex(8, 11) @ rotation(11),
        "shifted simplex": np.pad(shifted_simplex(8, 0.5), ((0, 0), (0, 3))) @ rotation(11),
        "collapsed classes": np.repeat(simplex(4, 5), 2, axis=0) @ rotation(5),
        "two collapsed classes": np.repeat(simplex(2, 5), 4, axis=0) @ rotation(5),
        "rank one": np.outer(rng.uniform(0.5, 2, 8), v),
        "rank one with signs": np.outer([1, -1, 2, -3, 1, 1, -1, 0.5], v),
        "all equal": np.tile(v, (8, 1)),
        "rank two": rng.standard_normal((8, 2)) @ rng.standard_normal((2, 5)),
        "rank two, N < D": rng.standard_normal((8, 2)) @ rng.standard_normal((2, 11)),
        "duplicated rows": generic[[0, 1, 2, 0, 1, 2, 0, 1]],
        "zero rows": zeros,
        "all zero": np.zeros((8, 5)),
        "one row left": np.where(np.arange(8)[:, None] == 3, generic, 0),
        "power law": power_law(8, 5),
        "steep power law": power_law(8, 5, decay=6),
        "uneven scales": generic * np.logspace(-12, 12, 8)[:, None],
    }


def rotation(n, seed=0):
    """A random orthogonal matrix."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


def with_spectrum(eigenvalues, seed=0):
    """A symmetric matrix with these eigenvalues, in a random basis."""
    q = rotation(len(eigenvalues), seed)
    k = (q * np.asarray(eigenvalues, float)) @ q.T
    return (k + k.T) / 2


def positive_definite():
    """Name -> 5 x 5 positive-definite matrices at which a derivative that goes through eigenvectors is at risk."""
    return {
        "generic": with_spectrum([0.1, 0.4, 0.9, 1.7, 3.0]),
        "identity": np.eye(5),
        "simplex + 0.1": simplex_gram(5) + 0.1 * np.eye(5),
        "repeated": with_spectrum([1, 1, 2, 2, 5]),
        "almost repeated": with_spectrum([1, 1 + 1e-9, 2, 2 + 1e-13, 5]),
    }


def random_symmetric(n, seed=0):
    e = np.random.default_rng(seed).standard_normal((n, n))
    return (e + e.T) / 2


def grid_rows(n, dim):
    """Hypothesis strategy: (n, dim) rows on a coarse grid, many of them zero, equal or multiples of one another."""
    z = arrays(float, (n, dim), elements=st.integers(-6, 6).map(lambda x: x / 4))
    source = arrays(int, n, elements=st.integers(0, n - 1), fill=st.nothing())
    factor = arrays(float, n, elements=st.sampled_from([1, 1, 1, 0, -2.0]), fill=st.nothing())
    return st.builds(lambda z, source, factor: factor[:, None] * z[source], z, source, factor)


# --- brute force -----------------------------------------------------------------------------------------------


def unit(z):
    """L2-normalised rows; there must be no zero row."""
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def cosine_gram(z):
    return unit(z) @ unit(z).T


def spectrum_entropy(p, alpha=1.0):
    """Renyi entropy of probabilities, those below 1e-13 taken for rounding."""
    p = p[p > 1e-13]
    if alpha == 1:
        return float(-(p * np.log(p)).sum())
    return float(np.log((p**alpha).sum()) / (1 - alpha))


def gram_entropy(k, alpha=1.0):
    """H_alpha(K / tr K) by a dense eigenproblem."""
    return spectrum_entropy(np.linalg.eigvalsh(k / np.trace(k)), alpha)


def pair_values(k1, k2, alpha=1.0):
    """H1, H2, H12, MI, MIR, HDR of two Gram matrices; ratios with a zero denominator are nan."""
    h1, h2, h12 = (gram_entropy(k, alpha) for k in (k1, k2, k1 * k2))
    return Pair(h1, h2, h12, *_ratios(h1, h2, h12))


def _ratios(h1, h2, h12):
    mi, low, high = h1 + h2 - h12, min(h1, h2), max(h1, h2)
    return mi, mi / low if low > 1e-12 else math.nan, abs(h1 - h2) / high if high > 1e-12 else math.nan


class Pair(NamedTuple):
    """In the order of `infojax.Interplay`, which has three more fields."""

    entropy_features: float
    entropy_head: float
    joint_entropy: float
    mutual_information: float
    mir: float
    hdr: float


def dense_interplay(z, labels, head, weights=None, center=False):
    """The fields of `infojax.Interplay` from the N x N Gram matrices of the samples that count."""
    labels, head = np.asarray(labels), np.asarray(head, float)
    weights = np.ones(len(z)) if weights is None else np.asarray(weights, float)
    counts = np.flatnonzero((weights > 0) & (labels >= 0) & (labels < len(head)))
    counts = counts[np.linalg.norm(head[labels[counts]], axis=1) > 0]
    z, y, w = np.asarray(z, float)[counts], labels[counts], weights[counts]
    if center and len(z):
        z = z - w @ z / w.sum()
    norm = np.linalg.norm(z, axis=1)
    live = norm > 1e-14 * norm.max(initial=0)
    z, y, w = z[live], y[live], w[live]
    if not len(z):
        return (0.0, 0.0, 0.0, 0.0, math.nan, math.nan, 0.0, 0, 0)
    p = w / w.sum()
    u, v = unit(z), unit(head[y])
    scale = np.sqrt(np.outer(p, p))
    h1, h2, h12 = (gram_entropy(scale * k) for k in (u @ u.T, v @ v.T, (u @ u.T) * (v @ v.T)))
    mean = p @ u
    return (h1, h2, h12, *_ratios(h1, h2, h12), mean @ mean, len(z), len(np.unique(y)))


def entropy_gradient(z, weights=None):
    """dH_1/dz in closed form: -(log rho + H) on the support of rho = sum_i p_i u_i u_i^T, chained to the rows.

    dH = -tr(log rho drho), d(u u^T) = du u^T + u du^T, du = (I - u u^T) dz / ||z||. Zero rows get zero.
    """
    weights = np.ones(len(z)) if weights is None else np.asarray(weights, float)
    norm = np.linalg.norm(z, axis=1)
    live = (norm > 0) & (weights > 0)
    gradient = np.zeros_like(z)
    if not live.any():
        return gradient
    u, p = z[live] / norm[live, None], weights[live] / weights[live].sum()
    w, v = np.linalg.eigh((u * p[:, None]).T @ u)
    keep = w > 1e-12
    slope = -(v[:, keep] * (np.log(w[keep]) + spectrum_entropy(w))) @ v[:, keep].T
    along = 2 * p[:, None] * (u @ slope)
    gradient[live] = (along - u * (along * u).sum(1, keepdims=True)) / norm[live, None]
    return gradient


def central_difference(f, x, direction, step=1e-4):
    """Central difference of f at x along a direction; its error is of fourth order in the step."""
    near = f(x + step * direction) - f(x - step * direction)
    far = f(x + 2 * step * direction) - f(x - 2 * step * direction)
    return (8 * near - far) / (12 * step)


def gradient_and_hvp(f):
    """Compiled (x, v) -> the gradient of f at x, and its derivative along v, forward over reverse."""
    return jax.jit(lambda x, v: jax.jvp(jax.grad(f), (x,), (v,)))
