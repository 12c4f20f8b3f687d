"""What all measures do with their arguments: checks and dtypes, full-precision products, safe roots and quotients, and
scaling so that squares neither overflow nor underflow.

Everything is computed in float32 or better, whatever the input dtype, with matrix products at `precision="highest"`
(the default on TPU and recent GPUs rounds inputs to bfloat16 or TF32).
"""

import warnings
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike as JaxArrayLike
from jax.typing import DTypeLike
from numpy.typing import ArrayLike as NumpyArrayLike

from infojax.measures.conversion import as_array, holds_strings, refuse_masked, rounded

# Accepted by `as_array`: JAX and NumPy arrays, numbers, nested lists, and objects with __array__ such as torch tensors.
ArrayLike: TypeAlias = JaxArrayLike | NumpyArrayLike
# The type inside measures, where NumPy computes on concrete arrays: the result of every measure is a jax.Array.
AnyArray: TypeAlias = jax.Array | np.ndarray

INT_MAX = np.iinfo(np.int32).max
ASYMMETRY = 1e-3  # tolerance relative to the largest entry: a Gram matrix may come from half precision
SINGLE_LOGIT = (
    "head has one row, the labels two classes; for two classes with one logit pass the head [-w/2, w/2] and the bias "
    "[-b/2, b/2]"
)


def as_float(x: ArrayLike, name: str = "array") -> jax.Array:
    """x as a JAX array of the same shape in its own float dtype, at least float32.

    Integers and booleans get the default float dtype. float64 becomes float32 without x64.

    Raises:
      TypeError: complex numbers.
      ValueError: no array of numbers, masked values, or numbers that the dtype cannot hold.
    """
    return jnp.asarray(_as_float(as_array(x, name), name))


def _as_float(x, name):
    """`as_float`, except that NumPy arrays stay in NumPy."""
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(f"{name} must be a real array, got {x.dtype}: pass its real and imaginary parts as columns")
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    if not isinstance(x, np.ndarray):
        small = x.dtype.itemsize < 4  # JAX does not promote 8-bit floats
        return x.astype((jnp.float32 if small else x.dtype) if floating else jnp.result_type(float))
    # Before JAX takes the array: without x64 it truncates the upper bits of integers and rounds 1e-60 to zero.
    default = not floating or x.dtype.itemsize > 4
    return rounded(x, jnp.result_type(float) if default else np.float32, name)


def as_host_rows(z: ArrayLike, name: str = "features") -> AnyArray:
    """`as_rows` (N, D), kept in NumPy, uncopied, where the whole computation may stay there: see `stays_on_host`."""
    z = as_array(z, name)
    if not stays_on_host(z):
        return as_rows(z, name)
    return _rows(_as_float(np.asarray(z), name), name)


def as_rows(z: ArrayLike, name: str = "features") -> jax.Array:
    """z as a float (N, D) array, see `as_float`; warns of concrete float32 rows too small to keep their digits.

    Raises:
      ValueError: z does not have two dimensions.
    """
    return _rows(as_float(z, name), name)


def _rows(z, name):
    if z.ndim != 2:
        what = "(C, D), one row per class" if name == "head" else "(N, D), one row per sample"
        raise ValueError(f"{name} must be {what}; got shape {z.shape}")
    if on_host(z) and z.dtype == np.float32:
        _warn_of_lost_digits(np.asarray(z), name)
    return z


def _warn_of_lost_digits(z, name):
    """Warns if float32 rows have all entries below 1e-31, which count as zero rows; checks only the first 64 rows."""
    least = np.finfo(z.dtype).tiny / np.finfo(z.dtype).eps
    largest = np.max(np.abs(z[:64]), axis=1, initial=0)
    if np.any((largest > 0) & (largest < least)):
        warnings.warn(
            f"{name}: there are rows with all entries below {least:.0e}, where float32 loses digits; they count as "
            "zeros. Multiply by a power of two",
            RuntimeWarning,
            stacklevel=3,
        )


def as_labels(labels: ArrayLike, n: int | None = None, name: str = "labels") -> jax.Array:
    """labels as an (n,) integer array of at least 32 bits, enough for any number of classes; booleans become 0 and 1.

    If n is None, any shape is accepted. Raises ValueError for other dtypes or shapes.
    """
    refuse_masked(labels, name)
    if holds_strings(labels):
        raise ValueError(f"{name} are strings; pass numpy.unique(labels, return_inverse=True)[1]")
    labels = as_array(labels, name)
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "iu" and np.iinfo(labels.dtype).max > INT_MAX:
        # JAX would truncate the upper bits, which turns 2^32 into zero.
        labels = np.clip(labels, max(-1, np.iinfo(labels.dtype).min), INT_MAX)
    labels = jnp.asarray(labels)
    labels = labels.astype(jnp.int32) if labels.dtype == bool or not labels.size else labels
    if n is not None and labels.shape != (n,):
        fix = f": pass {name}[:, 0]" if labels.shape == (n, 1) else ""
        fix = f": pass {name}.argmax(1) if they are one-hot" if labels.ndim == 2 and not fix else fix
        raise ValueError(f"{name} must have shape ({n},), one per row of the features; got {labels.shape}{fix}")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        missing = on_host(labels) and np.isnan(np.asarray(labels)).any()
        fix = (
            "leave rows without a label (nan) out, or give them -1" if missing else f"pass {name}.astype(int) if whole"
        )
        raise ValueError(f"{name} must be integers; got {labels.dtype}: {fix}")
    return labels.astype(jnp.int32 if labels.dtype.itemsize < 4 else jnp.promote_types(labels.dtype, jnp.int32))


def warn_of_unknown_classes(labels: ArrayLike, num_classes: int) -> None:
    """Warns of labels (any shape) of num_classes and more, which no measure counts; negative ones mark samples to leave
    out. Only concrete labels on the CPU are looked at.
    """
    labels = as_array(labels, "labels")
    if on_host(labels) and np.max(np.asarray(labels), initial=0) >= num_classes:
        above = int(np.sum(np.asarray(labels) >= num_classes))
        warnings.warn(
            f"{above} of {np.size(labels)} labels are {num_classes} or more, where there are {num_classes} classes "
            f"(0 to {num_classes - 1}): these samples are left out",
            stacklevel=3,
        )


def as_head(head: ArrayLike, dim: int | None = None, labels: ArrayLike | None = None) -> jax.Array:
    """head as a float (C, D) array, C >= 1, with D = dim columns unless dim is None; else ValueError."""
    head = as_rows(head, "head")
    if not len(head):
        raise ValueError(f"head must have one row per class; got shape {head.shape}")
    if dim not in (None, head.shape[1]):
        raise ValueError(
            f"head must be (C, D) with D = {dim}, the features' columns; got shape {head.shape}"
            f"{head_fix(head.shape, dim)}"
        )
    if len(head) == 1 and labels is not None and on_host(labels) and np.max(np.asarray(labels), initial=0) == 1:
        raise ValueError(SINGLE_LOGIT)
    if labels is not None:
        warn_of_unknown_classes(labels, len(head))
    return head


def head_fix(shape: tuple[int, ...], dim: int) -> str:
    """A suggestion for the error message about a head of this shape, for features of `dim` columns; may be empty."""
    if shape[1] == dim + 1:
        return ": if its last column is the bias, pass head[:, :-1] and bias=head[:, -1]"
    return ": pass head.T" if shape[0] == dim else ""


def as_bias(bias: ArrayLike | None, head: jax.Array | None) -> jax.Array | None:
    """bias as a float (C,) array for a head (C, D), or None.

    Raises:
      ValueError: another shape, or a bias without a head.
    """
    if bias is None:
        return None
    if head is None:
        raise ValueError("bias was given without a head; pass both or neither")
    bias = as_float(bias, "bias")
    if bias.shape != (len(head),):
        raise ValueError(f"bias must have shape ({len(head)},), one per row of the head; got {bias.shape}")
    return bias


def as_square(k: ArrayLike, name: str = "gram") -> jax.Array:
    """k as a float (n, n) array; concrete arrays are checked to be symmetric with a non-negative diagonal.

    Raises:
      ValueError: a check fails; rounding errors, even of half precision, do not count as asymmetry.
    """
    k = as_float(k, name)
    if k.ndim != 2 or k.shape[0] != k.shape[1]:
        raise ValueError(f"{name} must be a square matrix; got shape {k.shape}")
    if on_host(k) and k.size:
        found = np.asarray(k)
        with np.errstate(all="ignore"):
            wrong, noise = np.abs(found - found.T), ASYMMETRY * np.max(np.abs(found))
        if wrong.max() > noise:
            i, j = np.unravel_index(np.argmax(wrong), k.shape)
            raise ValueError(
                f"{name} must be symmetric; its entries ({i}, {j}) and ({j}, {i}) are {found[i, j]:.6g} and "
                f"{found[j, i]:.6g}"
            )
        if (least := np.diagonal(found).min()) < -noise:
            raise ValueError(f"{name} must be positive semi-definite; the least entry of its diagonal is {least:.6g}")
    return k


def check_not_negative(x: AnyArray, name: str, rounding: float = 0.0) -> None:
    """Raises ValueError, naming the least entry, if x of any shape is concrete and has an entry below -rounding."""
    if on_host(x) and (least := np.min(np.asarray(x), initial=0)) < -rounding:
        raise ValueError(f"{name} must not be negative; its least entry is {least:.6g}")


def sample_weights(weights: ArrayLike | None, n: int, dtype: DTypeLike, name: str = "weights") -> jax.Array:
    """Non-negative weights (N,) as floats; ones for None.

    The derivative of every measure with respect to a zero weight is defined as zero, on any number of devices. (The
    one-sided derivative would need the row, but rows of weight zero may hold anything.)
    """
    if weights is None:
        return jnp.ones(n, dtype)
    weights = as_float(weights, name).astype(dtype)
    if weights.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one per sample; got {weights.shape}")
    if on_host(weights):
        found = np.asarray(weights)
        if (wrong := ~((found >= 0) & (found < np.inf))).any():
            at = int(np.argmax(wrong))
            raise ValueError(f"{name} must be non-negative and finite; row {at} has {found[at]}")
        return weights
    return jnp.where(weights == 0, 0, weights)


def on_host(*arrays: Any) -> bool:
    """Whether all arrays hold concrete values in this process's CPU memory, so that NumPy can compute on them."""
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


def stays_on_host(*arrays: Any) -> bool:
    """`on_host`, with JAX also computing on the CPU: the only place that decides whether NumPy does the work.

    NumPy is several times faster there than XLA, which copies NumPy's arrays and has slower matrix products and
    spectra.
    """
    device = getattr(jax.config, "jax_default_device")  # noqa: B009  # unknown to the type checker
    platform = jax.default_backend() if device is None else getattr(device, "platform", device)
    return platform == "cpu" and on_host(*arrays)


def matmul(a: AnyArray, b: AnyArray) -> jax.Array:
    """a @ b in full precision, of shapes (..., n, m) and (..., m, p).

    Concrete CPU arrays use NumPy's BLAS, which is about 1.7 times faster than XLA there.
    """
    if on_host(a, b):
        with np.errstate(all="ignore"):  # infinite input gives nan without a warning, as in jax
            return jax.device_put(np.matmul(np.asarray(a), np.asarray(b)))
    return jnp.matmul(a, b, precision="highest")


def total(x: Any, axis: str | None = None) -> Any:
    """x (any shape) summed over the devices of a mapped axis that splits the samples; x itself if axis is None."""
    return x if axis is None else jax.lax.psum(x, axis)


@jax.jit
def safe_sqrt(x: AnyArray) -> jax.Array:
    """sqrt(x) elementwise; 0 with derivative 0 for x <= 0, where that of sqrt is infinite or nan; nan for nan."""
    zero = x <= 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))


@jax.jit
def safe_divide(a: JaxArrayLike, b: AnyArray, otherwise: JaxArrayLike = 0.0) -> jax.Array:
    """a / b where b > 0; `otherwise` with derivative 0 where b <= 0; nan where b is nan. Elementwise; shapes
    broadcast."""
    zero = b <= 0
    return jnp.where(zero, otherwise, a / jnp.where(zero, 1, b))


@jax.jit
def not_negative(value: jax.Array, noise: float | jax.Array = np.inf) -> jax.Array:
    """The value (any shape) with negative rounding errors set to zero; its derivatives are unchanged.

    Values below -noise are not rounding errors and are kept.
    """
    return value + jax.lax.stop_gradient(jnp.where(value >= -noise, jnp.maximum(-value, 0), 0))


def host_view(a: AnyArray) -> AnyArray:
    """a as a NumPy view if it is concrete on the CPU, else a itself.

    NumPy transposes without a copy, and its BLAS computes only half of A^T A.
    """
    return np.asarray(a) if on_host(a) else a


def product(*factors: AnyArray) -> jax.Array:
    """Product of two or more matrices (n, m), (m, p), ... in full precision, in the order of fewest multiplications."""
    return jnp.linalg.multi_dot(factors, precision="highest")


@jax.jit
def power_of_two(largest: jax.Array) -> jax.Array:
    """The power of two nearest to a positive number, between 2^-126 and 2^126 in float32; 1 for 0, inf and nan.

    Dividing by it does not round. It is constant under differentiation.
    """
    info = jnp.finfo(largest.dtype)
    largest = jax.lax.stop_gradient(largest)
    largest = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    # Within these bounds its reciprocal is also a normal number.
    bounded = jnp.clip(largest, info.tiny, 1 / info.tiny)
    return jax.lax.reduce_precision(bounded, exponent_bits=info.nexp, mantissa_bits=0)


@jax.jit
def normalised(x: AnyArray) -> tuple[jax.Array, jax.Array]:
    """x / s, of the shape of x, and s (0-d), the power of two nearest to max |x|: see `power_of_two`."""
    s = power_of_two(jnp.max(jnp.abs(jax.lax.stop_gradient(x)), initial=0))
    return x / s, s
