"""Square roots and inverses of matrices, with derivatives that never go through eigen- or singular vectors.

So they are correct at repeated eigenvalues and on the support of singular matrices, to every order, in forward and
reverse mode.
"""

import jax
import jax.numpy as jnp
import numpy as np

from infojax.measures import cores
from infojax.measures.arrays import ArrayLike, matmul, product, safe_divide, safe_sqrt
from infojax.measures.spectra import eigh


@jax.custom_jvp
def psd_sqrt(k: jax.Array) -> jax.Array:
    """The symmetric square root S (n, n) of a positive semi-definite K = S S (n, n).

    dS solves S dS + dS S = dK on the support of S (`lyapunov`): derivatives of every order, forward and reverse, are
    right at repeated eigenvalues.
    """
    w, v = eigh(k)
    return product(v * safe_sqrt(w)[None, :], v.T)


@psd_sqrt.defjvp
def _psd_sqrt_jvp(primals, tangents):
    (k,), (dk,) = primals, tangents
    s = psd_sqrt(k)
    return s, lyapunov(s, dk)


def lyapunov(s: jax.Array, c: jax.Array) -> jax.Array:
    """X (n, n) with S X + X S = C, for positive semi-definite S and symmetric C (n, n); zero on the null space of S.

    Differentiated as the linear solve that it is, dX = lyapunov(S, dC - dS X - X dS), never through eigenvectors.
    """
    w, v = jax.lax.stop_gradient(eigh(jax.lax.stop_gradient(s)))

    def solve(_, c):
        return product(v, safe_divide(product(v.T, c, v), w[:, None] + w[None, :]), v.T)

    return jax.lax.custom_linear_solve(lambda x: product(s, x) + product(x, s), c, solve, symmetric=True)


@jax.custom_jvp
def pseudo_inverse(a: jax.Array, rtol: ArrayLike) -> jax.Array:
    """Moore-Penrose inverse A^+ (m, n) of A (n, m); singular values up to rtol times the largest count as zero.

    The derivative is Golub and Pereyra's, for perturbations that keep the rank. It does not use singular vectors, so it
    is correct at repeated singular values.
    """
    u, _, inverse, vt = _cut_svd(a, rtol)
    return matmul(vt.T * inverse[None, :], u.T)


@pseudo_inverse.defjvp
def _pseudo_inverse_jvp(primals, tangents):
    (a, rtol), (da, _) = primals, tangents
    p = pseudo_inverse(a, rtol)
    return p, _pseudo_inverse_tangent(a, p, da)


def _pseudo_inverse_tangent(a, p, da):
    outside_range = da.T - product(da.T, a, p)  # dA^T (I - A P)
    outside_rows = da.T - product(p, a, da.T)  # (I - P A) dA^T
    return product(p, p.T, outside_range) + product(outside_rows, p.T, p) - product(p, da, p)


def _cut_svd(a, rtol):
    """U, singular values with those up to rtol times the largest set to zero, their pseudo-inverses, V^T."""
    u, s, vt = jnp.linalg.svd(a, full_matrices=False)
    keep = s > rtol * jnp.max(s, initial=0)
    return u, jnp.where(keep, s, 0), jnp.where(keep, 1 / jnp.where(keep, s, 1), 0), vt


@jax.custom_jvp
def polar_factor(a: jax.Array, rtol: ArrayLike) -> jax.Array:
    """(A^T A)^(1/2) = V S V^T (m, m) of A = U S V^T (n, m), from A itself, as A^T A has lost half of the digits.

    Singular values up to rtol times the largest are treated as zero. Derivatives as those of `psd_sqrt`.
    """
    _, s, _, vt = _cut_svd(a, rtol)
    return product(vt.T * s[None, :], vt)


@polar_factor.defjvp
def _polar_factor_jvp(primals, tangents):
    (a, rtol), (da, _) = primals, tangents
    h, c = polar_factor(a, rtol), product(da.T, a)
    return h, lyapunov(h, c + c.T)


@jax.custom_jvp
def inverse_root(a: jax.Array, rtol: ArrayLike) -> jax.Array:
    """(A^T A)^(+1/2) = V S^+ V^T (m, m) of A = U S V^T (n, m): the pseudo-inverse of `polar_factor(a, rtol)`.

    Singular values below rtol of the largest count as zero.
    """
    _, _, inverse, vt = _cut_svd(a, rtol)
    return product(vt.T * inverse[None, :], vt)


@inverse_root.defjvp
def _inverse_root_jvp(primals, tangents):
    (a, rtol), (da, _) = primals, tangents
    t = inverse_root(a, rtol)
    h, dh = jax.jvp(lambda a: polar_factor(a, rtol), (a,), (da,))
    return t, _pseudo_inverse_tangent(h, t, dh)


def host_inverse(a: np.ndarray, rtol: np.ndarray) -> np.ndarray:
    """T (m, min(n, m)) with T T^T = (A^T A)^+, in NumPy, with the cut-off of `pseudo_inverse` and `inverse_root`.

    R^-1 of A = Q R (n >= m), triangular and without an SVD, if ||R^-1|| shows that no singular value is cut off.
    """
    if not np.isfinite(a).all():
        return np.full((a.shape[1], min(a.shape)), np.nan, a.dtype)
    with cores.one_thread(), np.errstate(all="ignore"):
        if len(a) >= a.shape[1] > 0:
            r = np.linalg.qr(a, mode="r")
            if np.abs(np.diagonal(r)).min() > rtol * np.linalg.norm(r):
                inverse = np.triu(np.linalg.inv(r))
                if np.linalg.norm(inverse) * rtol * np.linalg.norm(r) < 1:
                    return inverse
        u, s, vt = np.linalg.svd(a, full_matrices=False)
        keep = s > rtol * s.max(initial=0)
        inverse = np.where(keep, 1 / np.where(keep, s, 1), 0)
        return (vt.T * inverse) @ (u.T if len(a) < a.shape[1] else vt)
