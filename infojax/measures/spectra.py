"""The primitives behind every measure: unit rows, the smaller-side spectrum, tr f(K) with a stable derivative.

An eigenvalue below `max(4, sqrt(n)) * eps * largest` is indistinguishable from zero in floating point; it is set to
exactly zero, and every spectral function maps zero to zero with derivative zero. So a rank-deficient matrix is treated
as living on its support, where the derivatives are finite and, for perturbations that keep the rank (as those of
features that form a Gram matrix do), exact.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from infojax.measures import host
from infojax.measures.arrays import (
    AnyArray,
    ArrayLike,
    as_float,
    as_rows,
    host_view,
    matmul,
    on_host,
    power_of_two,
    product,
    safe_divide,
    safe_sqrt,
    sample_weights,
    total,
)
from infojax.measures.scalars import flag

A = TypeVar("A", jax.Array, np.ndarray)

NEGATIVE = 1e-2  # relative to the largest eigenvalue: values below minus this are never rounding errors


class SpectralFunction(NamedTuple):
    """A scalar function g on (0, inf) that acts on eigenvalues; g(0) is taken as 0.

    `value(x)` is g(x); `divided(a, b)` is the divided difference (g(a) - g(b)) / (a - b), equal to g'(a) at
    a = b, written so that it does not cancel when a is close to b.
    """

    value: Callable
    divided: Callable


def unit_rows(z: ArrayLike, floor: ArrayLike = 0.0) -> tuple[jax.Array, jax.Array]:
    """L2-normalised rows, and which rows have a direction at all.

    u_i = z_i / ||z_i||, invariant to the scale of each row. A row whose largest entry is at most `floor` or tiny / eps
    (1e-31 in float32, 1e-292 in float64, below which smaller entries lose digits) has no direction: it becomes zero,
    with zero gradient.

    Args:
      z: (N, D) features; computed in float32 or better.
      floor: scalar or (N, 1), up to which entries count as zero, for instance the rounding error of a subtraction.
    Returns:
      (N, D) unit or zero rows, and (N,) booleans that are True for unit rows.
    """
    z, floor = as_rows(z), as_float(floor, "floor")
    if floor.shape not in ((), (len(z), 1)):
        raise ValueError(f"floor must be a number or ({len(z)}, 1), one per row; got shape {floor.shape}")
    if on_host(floor) and not np.all(np.asarray(floor) >= 0):
        raise ValueError("floor must not be negative or nan")
    return _unit_rows(z, floor)


@jax.jit
def _unit_rows(z, floor):
    info = jnp.finfo(z.dtype)
    # A power of two near the largest entry keeps the squares from under- and overflowing. The map is homogeneous of
    # degree 0 in z, so the scale may be held constant when differentiating. Rows with inf become nan.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(z), axis=1, keepdims=True, initial=0))
    live = ~(largest <= jnp.maximum(floor, info.tiny / info.eps))
    y = z / jnp.where(jnp.isfinite(largest), power_of_two(largest), largest)
    norm = safe_sqrt(jnp.sum(y * y, axis=1, keepdims=True))
    # Not a > test: a row containing nan stays nan instead of silently counting as zero.
    return jnp.where(live, y / jnp.where(live, norm, 1), 0), live[:, 0]


def directions(
    z: jax.Array, weights: ArrayLike | None = None, center: bool = False, axis: str | None = None
) -> tuple[jax.Array, jax.Array]:
    """Unit rows of z and the probability of each sample: the ingredients of the density sum_i p_i u_i u_i^T.

    Args:
      z: (N, D) float features.
      weights: (N,) non-negative or None. Rows of weight zero may hold anything, nan included.
      center: subtract the weighted mean of z before normalising.
      axis: the mapped axis over which the samples are split, or None.
    Returns:
      u (N, D), p (N,). Rows without a direction have p = 0; p sums to 1, or to 0 if no sample is left.
    """
    return _directions(z, sample_weights(weights, z.shape[0], z.dtype), flag(center, "center"), axis)


@partial(jax.jit, static_argnames="axis")
def _directions(z, w, center, axis):
    z = jnp.where(w[:, None] <= 0, 0, z)

    def mean_and_rounding(z):
        # A row equal to the mean must become zero, not the unit vector of a rounding error.
        largest = jnp.max(jnp.abs(jax.lax.stop_gradient(z)), initial=0)
        largest = largest if axis is None else jax.lax.pmax(largest, axis)
        s = power_of_two(largest)
        mean = safe_divide(total(matmul(w[None], z / s), axis), total(jnp.sum(w), axis))
        return s, mean, 16 * jnp.finfo(z.dtype).eps * (largest / s)

    def neither(z):
        zero = jnp.zeros((), z.dtype)
        return zero + 1, jnp.zeros((1, z.shape[1]), z.dtype), zero

    # `center` is traced, so that both choices share one compiled program.
    s, mean, floor = jax.lax.cond(center, mean_and_rounding, neither, z)
    u, live = unit_rows(z / s - mean, floor)
    mass = jnp.where(live, w, 0)
    return u, safe_divide(mass, total(jnp.sum(mass), axis))


def smaller_gram(a: jax.Array) -> jax.Array:
    """A^T A or A A^T for A (n, m), whichever is smaller: both have the same non-zero spectrum."""
    n, m = a.shape
    if n == 0 or m == 0:
        return jnp.zeros((1, 1), a.dtype)
    return column_gram(a if n >= m else host_view(a).T)


def column_gram(a: AnyArray) -> jax.Array:
    """A^T A (m, m) for A (n, m)."""
    a = host_view(a)
    return matmul(a.T, a)


def support(w: A) -> A:
    """Eigenvalues (..., n), those below max(4, sqrt(n)) * eps * largest, a solver's error, set to exactly zero."""
    xp = np if isinstance(w, np.ndarray) else jnp
    noise = max(4, w.shape[-1] ** 0.5) * xp.finfo(w.dtype).eps * xp.max(w, axis=-1, keepdims=True, initial=0)
    return xp.where(w <= noise, xp.zeros_like(w), w)


def eigenvalues(k: jax.Array) -> jax.Array:
    """Ascending eigenvalues (n,) of a symmetric positive semi-definite matrix (n, n), noise set to zero (`support`).

    Concrete CPU arrays go to NumPy, which does not compute eigenvectors (XLA's CPU solver always does) and shares the
    threads of `matmul`; in float64, whatever their dtype.

    Raises:
      ValueError: a concrete matrix has an eigenvalue below -`NEGATIVE` times the largest.
    """
    if on_host(k) and k.ndim == 2:
        w = host.eigenvalues(np.asarray(k))
        if len(w) and w[0] < -NEGATIVE * max(w[-1], 0):
            raise ValueError(
                f"a matrix must be positive semi-definite, as Gram matrices are; its eigenvalues go from {w[0]:.6g} "
                f"to {w[-1]:.6g}"
            )
        return jax.device_put(support(w))  # jnp.asarray would compile a program for each shape
    return support(jnp.linalg.eigvalsh(k))


def after(k: jax.Array, *results: jax.Array) -> jax.Array:
    """k (any shape), which a compiled program only computes once `results` are known: one decomposition at a time.

    A LAPACK call of jaxlib 0.10 on CPU waits, on a thread of XLA's pool, for tasks that it gave to the same pool. As
    many concurrent independent calls as there are threads (two in a program on two cores) deadlock. The dependence must
    survive the compiler, which drops optimisation barriers: a result is never infinite, but the compiler cannot know.
    """
    for result in results:
        if isinstance(result, jax.core.Tracer):
            infinite = jnp.sum(jax.lax.stop_gradient(result)) == jnp.inf
            k = jnp.where(infinite, jnp.nan, k)
    return k


def in_turn(f: Callable[[jax.Array], Any], *matrices: jax.Array) -> tuple[Any, ...]:
    """(f of each matrix), in a compiled program one `after` the other."""
    found: list[Any] = []
    for k in matrices:
        found.append(f(after(k, *found[-1:])))
    return tuple(found)


def _on_support(g, w):
    """g(w) where w > 0, else 0; nan eigenvalues stay nan."""
    return jnp.where(w == 0, 0, g(jnp.where(w == 0, 1, w)))


@partial(jax.jit, static_argnums=0)
def spectral_sum(f: Callable[[jax.Array], jax.Array], w: jax.Array) -> jax.Array:
    """sum_i f(w_i) over the eigenvalues w (n,) that are not zero; 0-d. f: elementwise, hashable, created once."""
    return jnp.sum(_on_support(f, w))


def eigh(k: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Ascending eigenvalues (n,) of k (n, n), noise set to zero (`support`), and the eigenvectors as columns (n, n)."""
    w, v = jnp.linalg.eigh(k)
    return support(w), v


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def matrix_function(g: SpectralFunction, k: jax.Array) -> jax.Array:
    """g(K) = V g(L) V^T (n, n) for symmetric positive semi-definite K = V L V^T (n, n).

    The derivative is Daleckii and Krein's, V (g[l_i, l_j] o V^T dK V) V^T with divided differences g[., .]:
    finite and correct at repeated eigenvalues, where differentiating eigenvectors divides by zero.
    """
    w, v = eigh(k)
    return product(v * _on_support(g.value, w)[None, :], v.T)


@matrix_function.defjvp
def _matrix_function_jvp(g, primals, tangents):
    (k,), (dk,) = primals, tangents
    w, v = eigh(k)
    gw = _on_support(g.value, w)
    a, b = jnp.broadcast_arrays(w[:, None], w[None, :])
    both, either = (a > 0) & (b > 0), jnp.maximum(a, b)
    divided = g.divided(jnp.where(both, a, 1), jnp.where(both, b, 1))
    # One of the two is zero: (g(a) - g(0)) / (a - 0), with the convention g(0) = 0.
    mixed = safe_divide(gw[:, None] + gw[None, :], either)
    inner = jnp.where(both, divided, mixed) * product(v.T, dk, v)
    return product(v * gw[None, :], v.T), product(v, inner, v.T)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def trace_function(f: Callable, slope: SpectralFunction, k: jax.Array) -> jax.Array:
    """tr f(K) = sum_i f(l_i) over the non-zero eigenvalues l_i of K; `slope` is f'.

    First derivative <f'(K), dK>, second by Daleckii-Krein (`matrix_function`): both are correct at every positive
    definite K, including repeated eigenvalues, and on the support of a singular one. Third derivatives use JAX's rule
    for eigenvectors, which needs distinct eigenvalues.

    Args:
      f: function on (0, inf), applied elementwise; hashable and created once, not a new lambda at each call.
      slope: its derivative.
      k: (n, n) symmetric positive semi-definite.
    Returns:
      0-d array.
    """
    return spectral_sum(f, eigenvalues(k))


@trace_function.defjvp
def _trace_function_jvp(f, slope, primals, tangents):
    (k,), (dk,) = primals, tangents
    return trace_function(f, slope, k), jnp.sum(matrix_function(slope, k) * dk)


def logdet(k: jax.Array) -> jax.Array:
    """log det K (0-d) of a positive definite K (n, n) through Cholesky; nan if K is not positive definite."""
    return 2 * jnp.sum(jnp.log(jnp.diagonal(jnp.linalg.cholesky(k))))
