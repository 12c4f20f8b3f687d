"""Usable information: labels for decoders, and the value of V-information from their loss.

The decodable information bottleneck asks how well a decoder can tell the samples of a class apart.
Its labels are the digits, in base C, of a sample's index within its class.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from infojax.measures import arrays, scalars
from infojax.measures.arrays import ArrayLike

_ORDERS = ("most_significant_first", "least_significant_first")


def relabel(
    labels: ArrayLike, num_classes: int, *, num_digits: int | None = None, order: str = "most_significant_first"
) -> jax.Array:
    r"""Digits, in base C, of the index of each sample within its class.

        i_n = #{m < n : y_m = y_n} = sum_k d_nk C^k,   k = 0 .. N_D - 1,
        N_D = smallest N >= 1 with C^N >= max_c n_c.

    Samples of a class keep their order in the data set, and no two of them have the same digits. The arithmetic uses
    integers, so exact powers (n_c = 125, C = 5: three digits) get no more digits than they need.

    Args:
      labels: (N,) integers. Samples whose label is outside [0, C) get the digits -1.
      num_classes: C >= 2, static.
      num_digits: N_D, static. None derives it from the labels, which must then be concrete: inside `jax.jit` and
        `jax.vmap` it must be given (see `num_digits(max_count, num_classes)` of this module).
      order: "most_significant_first" or "least_significant_first" (as printed in the thesis); the order of the
        columns, which changes no average over digits.

    Returns:
      (N, N_D) int32 array, digits in [0, C) or -1.

    Raises:
      ValueError: C < 2, labels that are not a vector of integers, an unknown order, traced labels
        without `num_digits`, or, for concrete labels, fewer digits than the largest class needs.
        Traced labels cannot be checked: the most significant digits are then dropped.

    References:
      Dubois et al., Learning Optimal Representations with the Decodable Information Bottleneck,
      Algorithm 1; Cheong, Explaining Deep Neural Networks using Information Theory and Geometry,
      Algorithm 2.

    >>> relabel([0, 0, 0, 1, 1], num_classes=2).tolist()
    [[0, 0], [0, 1], [1, 0], [0, 0], [0, 1]]
    """
    num_classes = _base(num_classes)
    if order not in _ORDERS:
        raise ValueError(f"order is {order!r}, but must be one of {', '.join(map(repr, _ORDERS))}")
    labels = arrays.as_labels(labels)
    if labels.ndim != 1:
        raise ValueError(f"labels must be a vector of integers; got shape {labels.shape}")
    valid = (labels >= 0) & (labels < num_classes)
    width = _width(labels, valid, num_classes, num_digits)

    digits = _digits(labels, num_classes, width)
    if order == "most_significant_first":
        digits = digits[:, ::-1]
    return jnp.where(valid[:, None], digits, -1)


def num_digits(max_count: int, num_classes: int) -> int:
    """Digits that distinguish `max_count` samples: smallest N >= 1 with num_classes^N >= max_count.

    Integer arithmetic: ceil(math.log(n, C)) is wrong for 39 of the 944 powers C^k <= 1e9 with C
    <= 200, 5^3 among them.

    Args:
      max_count: samples in the largest class, a Python or NumPy integer >= 0.
      num_classes: C >= 2.

    Returns:
      Python int.

    Raises:
      ValueError: C < 2 or a negative count.

    References:
      Cheong, Explaining Deep Neural Networks using Information Theory and Geometry, Algorithm 2,
      N_D.

    >>> num_digits(125, 5), num_digits(126, 5)
    (3, 4)
    """
    num_classes, max_count = _base(num_classes), scalars.whole_number(max_count, "max_count")
    if max_count < 0:
        raise ValueError(f"max_count is {max_count}, but must not be negative")
    digits, power = 1, num_classes
    while power < max_count:
        digits, power = digits + 1, power * num_classes
    return digits


def v_information(cross_entropy: ArrayLike, num_classes: int, *, base: float = 2) -> jax.Array:
    r"""Usable (V-) information about C equally frequent labels, from a decoder's loss.

        I_V(h -> y) = H(y) - H_V(y | h) = log_b C - CE / ln b

    The value is at most log_b C, which a perfect decoder reaches. It is not clipped: a decoder worse than chance gives
    a negative number, which shows that it did not converge. Works under jit, vmap and grad.

    Args:
      cross_entropy: mean cross entropy of the decoder in nats, any shape.
      num_classes: C >= 2, static.
      base: base of the logarithm of the result: 2 for bits, math.e for nats.

    Returns:
      Array of the shape of `cross_entropy`, float32 or better, in units of log base `base`.

    Raises:
      ValueError: C < 2, a base that is not a finite number above 1, or a cross entropy below zero beyond rounding.

    References:
      Xu et al., A Theory of Usable Information Under Computational Constraints, definition 2;
      Cheong, Explaining Deep Neural Networks using Information Theory and Geometry, section 2.2.

    >>> float(v_information(0.0, 8))
    3.0
    """
    num_classes = scalars.whole_number(num_classes, "num_classes", 2)
    scalars.number(base, "base", "a finite number above 1", lambda x: 1 < x < math.inf)
    cross_entropy = arrays.as_float(cross_entropy, "cross_entropy")
    arrays.check_not_negative(cross_entropy, "cross_entropy", rounding=1e-3)
    return (math.log(num_classes) - cross_entropy) / math.log(base)


def _base(num_classes):
    return scalars.whole_number(num_classes, "num_classes", 2, arrays.INT_MAX)  # digits need a base of at least 2


def _width(labels, valid, num_classes, given):
    """The number of digits: as given, checked against concrete labels, or as many as the labels need."""
    if isinstance(labels, jax.core.Tracer):
        if given is None:
            raise ValueError(
                "num_digits must be given where labels are traced (jit, vmap): it fixes the shape "
                "of the result (infojax.measures.usable.num_digits finds it from the largest count)"
            )
        needed = 1
    else:
        concrete = np.asarray(labels)[np.asarray(valid)]
        needed = num_digits(int(np.bincount(concrete).max()) if concrete.size else 0, num_classes)
    if given is None:
        return needed
    given = scalars.whole_number(given, "num_digits", most=64)  # a 32-bit index has no further non-zero digits
    if given < needed:
        raise ValueError(f"num_digits is {given}, but these labels need at least {needed}")
    return given


@partial(jax.jit, static_argnames="width")
def _digits(labels, num_classes, width):
    """(N, width) digits of the index within the class, least significant first."""
    # The number of earlier samples with the same label: after a stable sort, the distance to the start of the run of
    # equal labels. O(N log N), where comparing with every class would be O(N C).
    position = jnp.arange(labels.size, dtype=jnp.int32)
    order = jnp.argsort(labels, stable=True)
    runs = labels[order]
    is_start = jnp.concatenate([jnp.ones_like(runs[:1], bool), runs[1:] != runs[:-1]])
    start = lax.cummax(jnp.where(is_start, position, 0))
    index = jnp.zeros_like(position).at[order].set(position - start, unique_indices=True)
    digits = []
    for _ in range(width):  # not index // C^k, whose power overflows
        digits.append(index % num_classes)
        index = index // num_classes
    return jnp.stack(digits, axis=-1)
