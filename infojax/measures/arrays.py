"""What every measure does to its arguments: checks and types, products in full precision, roots and quotients at zero,
and a scale at which squares neither overflow nor underflow.

Everything is computed in float32 or better, whatever dtype comes in, with matrix products at `precision="highest"` (the
default on TPU and recent GPUs rounds inputs to bfloat16 or TF32).
"""

import numbers
import operator

import jax
import jax.numpy as jnp
import numpy as np


def as_array(x, name):
    """x as an array that JAX takes: NumPy arrays of numbers in native byte order, lists, and what has __array__ or
    __dlpack__ (torch tensors); JAX arrays as they are.

    Raises:
      ValueError: no array of numbers, or masked values, of which JAX knows nothing.
    """
    if isinstance(x, jax.Array):  # tracers, too
        return x
    if isinstance(x, np.ma.MaskedArray):
        if masked := int(np.ma.count_masked(x)):
            raise ValueError(
                f"{name} is a masked array with {masked} masked values: leave those rows out, or give them weight zero"
            )
        x = x.data
    if hasattr(x, "detach"):
        x = x.detach().cpu()
    try:
        array = np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:
        if not hasattr(x, "__dlpack__"):
            raise ValueError(
                f"{name} must be an array of numbers; got {_kind(x)} of rows of unequal lengths"
            ) from error
        return jax.dlpack.from_dlpack(x)
    if array.dtype == object and array.size:
        array = _numbers_of_objects(array, name, x)
    if array.dtype.kind not in "biufc" and not jnp.issubdtype(array.dtype, np.number):  # jax's knows bfloat16
        raise ValueError(f"{name} must be an array of numbers; got {_kind(x)} of {array.dtype}")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _numbers_of_objects(array, name, x):
    """An object array whose entries are all numbers as one of these."""
    kinds = {type(entry) for entry in array.flat}
    if not all(issubclass(kind, numbers.Real | np.bool_) for kind in kinds):
        named = ", ".join(sorted(kind.__name__ for kind in kinds)[:3])
        raise ValueError(f"{name} must be an array of numbers; got {_kind(x)} with entries of type {named}")
    return array.astype(np.int64 if all(issubclass(kind, numbers.Integral) for kind in kinds) else np.float64)


def _kind(x):
    return f"a {type(x).__name__}" if type(x).__module__ == "builtins" else f"an array ({type(x).__name__})"


def as_float(x, name="array"):
    """x as a jax array of its own float type, at least float32; integers and booleans become the default float."""
    x = jnp.asarray(as_array(x, name))
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(f"{name} must be a real array, got {x.dtype}: pass its real and imaginary parts as columns")
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32) if floating else jnp.result_type(float))


def as_rows(z, name="features"):
    """z as a float (N, D) array; raises ValueError for any other rank."""
    z = as_float(z, name)
    if z.ndim != 2:
        what = "(C, D), one row per class" if name == "head" else "(N, D), one row per sample"
        raise ValueError(f"{name} must be {what}; got shape {z.shape}")
    return z


def as_labels(labels, n=None):
    """labels as an (n,) integer array of at least 32 bits, which counts any number of classes; booleans are 0 and 1.

    Any length, and any shape, for n None.
    """
    if not isinstance(labels, jax.Array):
        kind = np.asarray(labels, dtype=object if isinstance(labels, list | tuple) else None)
        if kind.dtype.kind in "US" or (kind.dtype == object and any(isinstance(entry, str) for entry in kind.flat)):
            raise ValueError("labels are strings; pass numpy.unique(labels, return_inverse=True)[1]")
    labels = jnp.asarray(as_array(labels, "labels"))
    labels = labels.astype(jnp.int32) if labels.dtype == bool else labels
    if n is not None and labels.shape != (n,):
        fix = {(n, 1): ": pass labels[:, 0]"}.get(labels.shape, "")
        fix = ": pass labels.argmax(1) if they are one-hot" if labels.ndim == 2 and not fix else fix
        raise ValueError(f"labels must have shape ({n},), one per row of the features; got {labels.shape}{fix}")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels must be integers; got {labels.dtype}: pass labels.astype(int) if they are whole")
    return labels.astype(jnp.promote_types(labels.dtype, jnp.int32))


def as_square(k, name="gram"):
    """k as a float (n, n) array; raises ValueError for any other shape."""
    k = as_float(k, name)
    if k.ndim != 2 or k.shape[0] != k.shape[1]:
        raise ValueError(f"{name} must be a square matrix; got shape {k.shape}")
    return k


def whole_number(value, name, least):
    """A static whole number of at least `least`, as an int."""
    try:
        number = operator.index(value)
    except TypeError:
        shape = getattr(value, "shape", None)
        got = f"an array of shape {shape}" if shape else repr(value)
        raise ValueError(f"{name} must be a whole number; got {got}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}; got {number}")
    return number


def positive(value, name):
    """A number above zero, if it is concrete; a traced one passes."""
    if isinstance(value, jax.core.Tracer):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a positive number; got {value!r}") from None
    if not 0 < number < np.inf:
        raise ValueError(f"{name} must be a positive number; got {number}")
    return value


def sample_weights(weights, n, dtype):
    """Non-negative weights (N,) as floats; ones for None.

    A weight of zero selects nothing: the derivative of every measure with respect to it is zero, on any number of
    devices, and not the one-sided derivative, which would need the row; rows of weight zero may hold anything.
    """
    if weights is None:
        return jnp.ones(n, dtype)
    weights = as_float(weights, "weights").astype(dtype)
    if weights.shape != (n,):
        raise ValueError(f"weights must have shape ({n},), one per sample; got {weights.shape}")
    if on_host(weights) and (negative := np.asarray(weights) < 0).any():
        at = int(np.argmax(negative))
        raise ValueError(f"weights must be non-negative; that of row {at} is {weights[at]}")
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


def not_negative(value, noise=np.inf):
    """Rounding errors below zero are taken off; the derivatives are those of the value itself.

    Values below -noise are no rounding errors, and stay.
    """
    return value + jax.lax.stop_gradient(jnp.where(value >= -noise, jnp.maximum(-value, 0), 0))


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
