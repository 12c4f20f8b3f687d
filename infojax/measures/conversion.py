"""Conversion to arrays of numbers: from JAX, NumPy, lists, torch tensors and other objects, with one-line errors."""

import numbers
from collections.abc import Iterator, Mapping, Set
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike


def as_array(x: Any, name: str) -> jax.Array | np.ndarray:
    """x as an array that JAX accepts, of any shape.

    NumPy arrays get native byte order; lists and objects with __array__ or __dlpack__ (torch tensors) are converted;
    JAX arrays are returned unchanged.

    Raises:
      ValueError: x is not an array of numbers, or has masked values, which JAX does not support.
    """
    expected = f"{name} must be an array of numbers; got"
    if isinstance(x, jax.Array):  # including tracers
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            raise ValueError(f"{expected} random keys")
        if not isinstance(x, jax.core.Tracer) and x.is_deleted():
            raise ValueError(f"{expected} a deleted one, as happens to arguments that a compiled function donates")
        return x
    try:
        refuse_masked(x, name)
    except RecursionError:
        raise ValueError(f"{expected} a list that holds itself") from None
    if isinstance(x, np.ma.MaskedArray):
        x = x.data
    if hasattr(x, "detach"):
        try:
            x = x.detach().cpu()
        except (NotImplementedError, RuntimeError) as error:  # on the device "meta"
            raise ValueError(f"{expected} {described(x)} without values: {str(error).splitlines()[0]}") from error
    if x is None or isinstance(x, str | bytes | Mapping | Set | Iterator):
        raise ValueError(f"{expected} {described(x)}")
    try:
        array = np.asarray(x)
    except Exception as error:  # whatever its __array__ may raise
        if not hasattr(x, "__dlpack__"):
            rows = isinstance(x, list | tuple) and not isinstance(error, RecursionError)
            why = " of rows of unequal lengths" if rows else f", which NumPy does not take: {error}"
            raise ValueError(f"{expected} {described(x)}{why}") from error
        try:
            return jax.dlpack.from_dlpack(x)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{expected} {described(x)} that is not dense: pass .to_dense()") from error
    if array.dtype == object and array.size:
        array = _numbers_of_objects(array, name, x)
    # jax's issubdtype knows bfloat16; numpy treats time differences as numbers.
    if array.dtype.kind not in "biufc" and (array.dtype.kind == "m" or not jnp.issubdtype(array.dtype, np.number)):
        raise ValueError(f"{expected} {described(x)} with entries of type {array.dtype}")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = rounded(array, np.float64, name)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def rounded(x: np.ndarray, dtype: DTypeLike, name: str) -> np.ndarray:
    """x (any shape) cast to a float dtype that can hold its largest entries; much smaller ones may become zero.

    Raises:
      ValueError: an entry overflows, or all entries are so small that no digits are left.
    """
    with np.errstate(all="ignore"):
        y = x.astype(dtype, copy=False)
    if x.dtype.kind != "f" or x.dtype.itemsize <= y.dtype.itemsize:
        return y
    info = np.finfo(y.dtype)
    least = info.tiny / info.eps
    largest = max(np.fmax.reduce(y, axis=None, initial=0), -np.fmin.reduce(y, axis=None, initial=0))
    if least <= largest < np.inf:
        return y
    lost = np.isfinite(x) & (np.isinf(y) if largest == np.inf else (x != 0) & (x.ndim > 0))
    if np.any(lost):
        found = np.format_float_scientific(np.max(np.abs(x), where=np.isfinite(x), initial=0), precision=3)
        double = ", or compute in float64: jax.config.update('jax_enable_x64', True)" if y.dtype == np.float32 else ""
        raise ValueError(
            f"{name}: the largest entry is {found}, and {y.dtype} holds {least:.0e} to {info.max:.0e}: divide by a "
            f"power of two{double}"
        )
    return y


def refuse_masked(x: Any, name: str) -> None:
    """Raises ValueError for a masked array with masked values, alone or inside a list."""
    if masked := _count_masked(x):
        raise ValueError(
            f"{name} is a masked array with {masked} masked value{'s' * (masked > 1)}: leave those rows out, or fill "
            "them in with .filled(value)"
        )


def _count_masked(x):
    if isinstance(x, np.ma.MaskedArray):
        return int(np.ma.count_masked(x))
    return sum(map(_count_masked, x)) if isinstance(x, list | tuple) else 0


def holds_strings(x: Any) -> bool:
    """Whether any entry of an array or list is a string."""
    if x is None or isinstance(x, jax.Array | str | bytes | Mapping | Set | Iterator) or hasattr(x, "detach"):
        return False
    array = np.asarray(x, dtype=object if isinstance(x, list | tuple) else None)
    if array.dtype != object:
        return array.dtype.kind in "UST"
    return any(isinstance(entry, str | bytes) for entry in array.flat)


def is_missing(entry: Any) -> bool:
    """Whether an entry stands for a missing value: None, nan, or the pandas equivalents."""
    nan = isinstance(entry, float) and entry != entry
    return nan or entry is None or type(entry).__name__ in ("NAType", "NaTType")


def _numbers_of_objects(array, name, x):
    """An object array of numbers as a numeric array of the same shape; raises ValueError for other entries."""
    kinds = {type(entry) for entry in array.flat}
    if all(issubclass(kind, numbers.Real | np.bool_) for kind in kinds):
        return array.astype(np.int64 if all(issubclass(kind, numbers.Integral) for kind in kinds) else np.float64)
    missing = sum(map(is_missing, array.flat))
    if missing and all(is_missing(entry) or isinstance(entry, numbers.Real) for entry in array.flat):
        raise ValueError(
            f"{name} has {missing} missing value{'s' * (missing > 1)} (None or NA): leave those rows out, or fill them"
        )
    named = f" with entries of type {', '.join(sorted(kind.__name__ for kind in kinds)[:3])}" if array.ndim else ""
    fix = ": pass .toarray()" if hasattr(x, "toarray") else ""
    fix = ": pass .select_dtypes('number') of it" if hasattr(x, "select_dtypes") else fix
    raise ValueError(f"{name} must be an array of numbers; got {described(x)}{named}{fix}")


def described(x: Any) -> str:
    """A short description of x for error messages."""
    if isinstance(x, jax.core.Tracer):
        return "a traced value"
    if x is None or isinstance(x, str | bytes | numbers.Number | np.generic):
        return repr(x)[:60]
    try:
        shape = getattr(x, "shape", None)
    except RuntimeError:  # nested tensors
        shape = None
    return f"an array of shape {shape}" if isinstance(x, np.ndarray | jax.Array) and shape else f"a {type(x).__name__}"
