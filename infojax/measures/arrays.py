"""What every measure does to its arguments: checks and types, products in full precision, roots and quotients at zero,
and a scale at which squares neither overflow nor underflow.

Everything is computed in float32 or better, whatever dtype comes in, with matrix products at `precision="highest"` (the
default on TPU and recent GPUs rounds inputs to bfloat16 or TF32).
"""

import jax
import jax.numpy as jnp
import numpy as np


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
    """Non-negative weights (N,) as floats; ones for None.

    A weight of zero selects nothing: the derivative of every measure with respect to it is zero, on any number of
    devices, and not the one-sided derivative, which would need the row; rows of weight zero may hold anything.
    """
    if weights is None:
        return jnp.ones(n, dtype)
    weights = jnp.asarray(weights).astype(dtype)
    if weights.shape != (n,):
        raise ValueError(f"weights must have shape ({n},), one per sample; got {weights.shape}")
    return jnp.where(weights == 0, 0, weights)


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


def total(x, axis=None):
    """Sum over the devices of a mapped axis, where samples are split over them; x itself without one."""
    return x if axis is None else jax.lax.psum(x, axis)


def safe_sqrt(x):
    """sqrt(x) for x > 0, 0 for x <= 0 with derivative 0 there (plain sqrt has an infinite one at 0), nan for nan."""
    zero = x <= 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))


def safe_divide(a, b, otherwise=0.0):
    """a / b for b > 0, `otherwise` for b <= 0 with derivative 0 there, nan for nan."""
    zero = b <= 0
    return jnp.where(zero, otherwise, a / jnp.where(zero, 1, b))


def host_view(a):
    """a as a NumPy view where it can be: its transpose is free, and BLAS computes half of A^T A only."""
    return np.asarray(a) if on_host(a) else a


def product(*factors):
    """Product of several matrices, in the cheapest order."""
    return jnp.linalg.multi_dot(factors, precision="highest")


@jax.jit
def power_of_two(largest):
    """The power of two nearest to a positive number, in float32 within 2^-126 and 2^126; 1 for 0, inf and nan.

    Dividing by it rounds nothing. It is constant under differentiation.
    """
    info = jnp.finfo(largest.dtype)
    largest = jax.lax.stop_gradient(largest)
    largest = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    # Within these bounds its reciprocal is a normal number too.
    bounded = jnp.clip(largest, info.tiny, 1 / info.tiny)
    return jax.lax.reduce_precision(bounded, exponent_bits=info.nexp, mantissa_bits=0)


@jax.jit
def normalised(x):
    """x / s and s, the power of two nearest to the largest absolute value in x."""
    s = power_of_two(jnp.max(jnp.abs(jax.lax.stop_gradient(x)), initial=0))
    return x / s, s
