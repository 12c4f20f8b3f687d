"""The primitives every measure stands on: unit rows, the smaller-side spectrum, tr f(K) with a stable derivative.

All of them work in float32 or better, whatever dtype comes in, with matrix products at `precision="highest"`
(the default on TPU and recent GPUs rounds inputs to bfloat16 or TF32).

An eigenvalue below `max(4, sqrt(n)) * eps * largest` is indistinguishable from zero in floating point; it is set to
exactly zero, and every spectral function here maps zero to zero with derivative zero. So a rank-deficient matrix is
treated as living on its support, where the derivatives are finite and, for perturbations that keep the rank
(features that make a Gram matrix do), exact.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class SpectralFunction(NamedTuple):
    """A scalar function g on (0, inf) that acts on eigenvalues; g(0) is taken as 0.

    `value(x)` is g(x); `divided(a, b)` is the divided difference (g(a) - g(b)) / (a - b), equal to g'(a) at
    a = b, written so that it does not cancel when a is close to b.
    """

    value: Callable
    divided: Callable


def as_float(x):
    """x as a jax array of its own float type, at least float32; integers and booleans become the default float."""
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(f"expected a real array, got {x.dtype}")
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32) if floating else jnp.result_type(float))


def as_rows(z, name="features"):
    """z as a float (N, D) array; raises ValueError for any other rank."""
    z = as_float(z)
    if z.ndim != 2:
        what = "(C, D), one row a class" if name == "head" else "(N, D), one row a sample"
        raise ValueError(f"{name} must be {what}; got shape {z.shape}")
    return z


def as_labels(labels, n):
    """labels as an (n,) integer array of at least 32 bits, which counts any number of classes; booleans are 0 and 1."""
    labels = jnp.asarray(labels)
    labels = labels.astype(jnp.int32) if labels.dtype == bool else labels
    if labels.shape != (n,):
        raise ValueError(f"labels must have shape ({n},), one a row of the features; got {labels.shape}")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels must be integers; got {labels.dtype}")
    return labels.astype(jnp.promote_types(labels.dtype, jnp.int32))


def as_square(k, name="gram"):
    """k as a float (n, n) array; raises ValueError for any other shape."""
    k = as_float(k)
    if k.ndim != 2 or k.shape[0] != k.shape[1]:
        raise ValueError(f"{name} must be a square matrix; got shape {k.shape}")
    return k


def sample_weights(weights, n, dtype):
    """Non-negative weights (N,) as floats; ones for None."""
    if weights is None:
        return jnp.ones(n, dtype)
    weights = jnp.asarray(weights).astype(dtype)
    if weights.shape != (n,):
        raise ValueError(f"weights must have shape ({n},), one a sample; got {weights.shape}")
    return weights


def on_host(*arrays):
    """True where all arrays hold concrete values in this process's CPU memory: host LAPACK and BLAS may be used."""
    return all(
        isinstance(a, np.ndarray)
        or (
            isinstance(a, jax.Array)
            and not isinstance(a, jax.core.Tracer)
            and a.is_fully_addressable
            and all(d.platform == "cpu" for d in a.devices())
        )
        for a in arrays
    )


def matmul(a, b):
    """a @ b in full precision. Concrete CPU arrays go through NumPy's BLAS, about 1.7 times faster than XLA's there."""
    if on_host(a, b):
        with np.errstate(all="ignore"):  # infinite input gives nan, as in jax, without a warning
            return jnp.asarray(np.matmul(np.asarray(a), np.asarray(b)))
    return jnp.matmul(a, b, precision="highest")


def safe_sqrt(x):
    """sqrt(x) for x > 0, 0 for x <= 0 with derivative 0 there (plain sqrt has an infinite one at 0), nan for nan."""
    zero = x <= 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))


def safe_divide(a, b, otherwise=0.0):
    """a / b for b > 0, `otherwise` for b <= 0 with derivative 0 there, nan for nan."""
    zero = b <= 0
    return jnp.where(zero, otherwise, a / jnp.where(zero, 1, b))


@jax.jit
def unit_rows(z, floor=0.0):
    """L2-normalised rows, and which rows have a direction at all.

    u_i = z_i / ||z_i||, invariant to the scale of each row. A row whose largest entry is at most `floor` or tiny / eps
    (1e-31 in float32, 1e-292 in float64) has no direction: it comes back as zeros, with zero gradient.
    Entries above 2^126 (8.5e37) in float32 give nan: their reciprocals are no normal floats.

    Args:
      z: (N, D) features, float32 or float64.
      floor: scalar or (N, 1); what counts as zero, for instance the rounding error of a subtraction.
    Returns:
      (N, D) unit or zero rows, and (N,) booleans that are True for unit rows.
    """
    info = jnp.finfo(z.dtype)
    # Scaling by the largest entry first keeps the squares from under- and overflowing. The map is
    # homogeneous of degree 0 in z, so the scale may be held constant when differentiating.
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(z), axis=1, keepdims=True, initial=0))
    live = ~(scale <= jnp.maximum(floor, info.tiny / info.eps))
    y = z / jnp.where(live, scale, 1)
    norm = safe_sqrt(jnp.sum(y * y, axis=1, keepdims=True))
    # Not a > test: a row holding nan stays nan instead of silently counting as zero.
    return jnp.where(live, y / jnp.where(live, norm, 1), 0), live[:, 0]


@jax.jit
def directions(z, weights=None, center=False):
    """Unit rows of z and the probability of each sample: the ingredients of the density sum_i p_i u_i u_i^T.

    Args:
      z: (N, D) float features.
      weights: (N,) non-negative or None. Rows of weight zero may hold anything, nan included.
      center: subtract the weighted mean of z before normalising.
    Returns:
      u (N, D), p (N,). Rows without a direction have p = 0; p sums to 1, or to 0 if no sample is left.
    """
    w = sample_weights(weights, z.shape[0], z.dtype)
    z = jnp.where(w[:, None] <= 0, 0, z)

    def mean_and_rounding(z):
        # A row equal to the mean must become zero, not the unit vector of a rounding error.
        rounding = 16 * jnp.finfo(z.dtype).eps * jnp.max(jnp.abs(jax.lax.stop_gradient(z)), initial=0)
        return safe_divide(matmul(w[None], z), jnp.sum(w)), rounding

    def neither(z):
        return jnp.zeros((1, z.shape[1]), z.dtype), jnp.zeros((), z.dtype)

    # `center` is traced, so that both choices share one compilation.
    mean, floor = jax.lax.cond(center, mean_and_rounding, neither, z)
    u, live = unit_rows(z - mean, floor)
    mass = jnp.where(live, w, 0)
    return u, safe_divide(mass, jnp.sum(mass))


def smaller_gram(a):
    """A^T A or A A^T for A (n, m), whichever is smaller: both have the same non-zero spectrum."""
    n, m = a.shape
    if n == 0 or m == 0:
        return jnp.zeros((1, 1), a.dtype)
    return column_gram(a if n >= m else _host_view(a).T)


def column_gram(a):
    """A^T A."""
    a = _host_view(a)
    return matmul(a.T, a)


def _host_view(a):
    """a as a NumPy view where it can be: its transpose is free, and BLAS computes half of A^T A only."""
    return np.asarray(a) if on_host(a) else a


def support(w):
    """Eigenvalues with those below max(4, sqrt(n)) * eps * largest, a solver's error, set to exactly zero."""
    xp = np if isinstance(w, np.ndarray) else jnp
    noise = max(4, w.shape[-1] ** 0.5) * xp.finfo(w.dtype).eps * xp.max(w, axis=-1, keepdims=True, initial=0)
    return xp.where(w <= noise, xp.zeros_like(w), w)


def eigenvalues(k):
    """Ascending eigenvalues of a symmetric positive semi-definite matrix, noise set to zero (`support`).

    Concrete CPU arrays go to NumPy, which needs no eigenvectors (XLA's CPU solver always computes them) and shares the
    threads of `matmul`; in float64, whatever their type.
    """
    if on_host(k) and k.ndim == 2:
        k = np.asarray(k)
        if not np.isfinite(k).all():
            return jnp.full(k.shape[:1], jnp.nan, k.dtype)
        return jnp.asarray(support(np.linalg.eigvalsh(k)))
    return support(jnp.linalg.eigvalsh(k))


def _on_support(g, w):
    """g(w) where w > 0, else 0; nan eigenvalues stay nan."""
    return jnp.where(w == 0, 0, g(jnp.where(w == 0, 1, w)))


@partial(jax.jit, static_argnums=0)
def _spectral_sum(f, w):
    return jnp.sum(_on_support(f, w))


def _eigh(k):
    w, v = jnp.linalg.eigh(k)
    return support(w), v


def _product(*factors):
    return jnp.linalg.multi_dot(factors, precision="highest")


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def matrix_function(g: SpectralFunction, k):
    """g(K) = V g(L) V^T for symmetric positive semi-definite K = V L V^T.

    The derivative is Daleckii and Krein's, V (g[l_i, l_j] o V^T dK V) V^T with divided differences g[., .]:
    finite and right at repeated eigenvalues, where differentiating eigenvectors divides by zero.
    """
    w, v = _eigh(k)
    return _product(v * _on_support(g.value, w)[None, :], v.T)


@matrix_function.defjvp
def _matrix_function_jvp(g, primals, tangents):
    (k,), (dk,) = primals, tangents
    w, v = _eigh(k)
    gw = _on_support(g.value, w)
    a, b = jnp.broadcast_arrays(w[:, None], w[None, :])
    both, either = (a > 0) & (b > 0), jnp.maximum(a, b)
    divided = g.divided(jnp.where(both, a, 1), jnp.where(both, b, 1))
    # One of the two is zero: (g(a) - g(0)) / (a - 0), the convention g(0) = 0 carried through.
    mixed = safe_divide(gw[:, None] + gw[None, :], either)
    inner = jnp.where(both, divided, mixed) * _product(v.T, dk, v)
    return _product(v * gw[None, :], v.T), _product(v, inner, v.T)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def trace_function(f: Callable, slope: SpectralFunction, k):
    """tr f(K) = sum_i f(l_i) over the non-zero eigenvalues l_i of K; `slope` is f'.

    First derivative <f'(K), dK>, second by Daleckii-Krein (`matrix_function`): both are right at every positive
    definite K, repeated eigenvalues included, and on the support of a singular one. Third derivatives go
    through JAX's own rule for eigenvectors, which needs distinct eigenvalues.

    Args:
      f: function on (0, inf), applied elementwise; hashable and made once, not a new lambda at each call.
      slope: its derivative.
      k: (n, n) symmetric positive semi-definite.
    Returns:
      0-d array.
    """
    return _spectral_sum(f, eigenvalues(k))


@trace_function.defjvp
def _trace_function_jvp(f, slope, primals, tangents):
    (k,), (dk,) = primals, tangents
    return trace_function(f, slope, k), jnp.sum(matrix_function(slope, k) * dk)


@jax.custom_jvp
def psd_sqrt(k):
    """The symmetric square root S of a positive semi-definite K = S S.

    dS solves S dS + dS S = dK on the support of S (`lyapunov`): derivatives of every order, forward and reverse, are
    right at repeated eigenvalues.
    """
    w, v = _eigh(k)
    return _product(v * safe_sqrt(w)[None, :], v.T)


@psd_sqrt.defjvp
def _psd_sqrt_jvp(primals, tangents):
    (k,), (dk,) = primals, tangents
    s = psd_sqrt(k)
    return s, lyapunov(s, dk)


def lyapunov(s, c):
    """X with S X + X S = C, for positive semi-definite S; zero on the null space of S.

    Differentiated as the linear solve that it is, dX = lyapunov(S, dC - dS X - X dS), never through eigenvectors.
    """
    w, v = jax.lax.stop_gradient(_eigh(jax.lax.stop_gradient(s)))

    def solve(_, c):
        return _product(v, safe_divide(_product(v.T, c, v), w[:, None] + w[None, :]), v.T)

    return jax.lax.custom_linear_solve(lambda x: _product(s, x) + _product(x, s), c, solve, symmetric=True)


@jax.custom_jvp
def pseudo_inverse(a, rtol):
    """Moore-Penrose inverse of A (n, m), singular values up to rtol times the largest counted as zero.

    The derivative is Golub and Pereyra's, for perturbations that keep the rank: free of singular vectors, so right
    at repeated singular values.
    """
    u, _, inverse, vt = _cut_svd(a, rtol)
    return matmul(vt.T * inverse[None, :], u.T)


@pseudo_inverse.defjvp
def _pseudo_inverse_jvp(primals, tangents):
    (a, rtol), (da, _) = primals, tangents
    p = pseudo_inverse(a, rtol)
    return p, _pseudo_inverse_tangent(a, p, da)


def _pseudo_inverse_tangent(a, p, da):
    outside_range = da.T - _product(da.T, a, p)  # dA^T (I - A P)
    outside_rows = da.T - _product(p, a, da.T)  # (I - P A) dA^T
    return _product(p, p.T, outside_range) + _product(outside_rows, p.T, p) - _product(p, da, p)


def _cut_svd(a, rtol):
    """U, singular values with those up to rtol times the largest set to zero, their pseudo-inverses, V^T."""
    u, s, vt = jnp.linalg.svd(a, full_matrices=False)
    keep = s > rtol * jnp.max(s, initial=0)
    return u, jnp.where(keep, s, 0), jnp.where(keep, 1 / jnp.where(keep, s, 1), 0), vt


@jax.custom_jvp
def polar_factor(a, rtol):
    """(A^T A)^(1/2) = V S V^T of A = U S V^T (n, m), from A itself: A^T A has lost half of the digits.

    Singular values up to rtol times the largest count as zero. Derivatives as those of `psd_sqrt`.
    """
    _, s, _, vt = _cut_svd(a, rtol)
    return _product(vt.T * s[None, :], vt)


@polar_factor.defjvp
def _polar_factor_jvp(primals, tangents):
    (a, rtol), (da, _) = primals, tangents
    h, c = polar_factor(a, rtol), _product(da.T, a)
    return h, lyapunov(h, c + c.T)


@jax.custom_jvp
def inverse_root(a, rtol):
    """(A^T A)^(+1/2) = V S^+ V^T (m, m), the pseudo-inverse of `polar_factor(a, rtol)`."""
    _, _, inverse, vt = _cut_svd(a, rtol)
    return _product(vt.T * inverse[None, :], vt)


@inverse_root.defjvp
def _inverse_root_jvp(primals, tangents):
    (a, rtol), (da, _) = primals, tangents
    t = inverse_root(a, rtol)
    h, dh = jax.jvp(lambda a: polar_factor(a, rtol), (a,), (da,))
    return t, _pseudo_inverse_tangent(h, t, dh)


def logdet(k):
    """log det K of a positive definite K through Cholesky; nan if K is not positive definite."""
    return 2 * jnp.sum(jnp.log(jnp.diagonal(jnp.linalg.cholesky(k))))
