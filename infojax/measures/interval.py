"""An estimated number with bounds and an error, and what sums and quotients of such numbers are."""

from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A number that was estimated, or computed exactly; floats and ints, nats where it is an entropy.

    Attributes:
      value: the middle of the bounds of the quadrature.
      lower, upper: the truth lies between them with at least the stated confidence (equal if exact).
      standard_error: of value, from the random vectors alone.
      met: whether upper - lower <= 2 tolerance.
      route: "gram" or "classes" (exact), "estimate".
      products: columns that were multiplied with the matrix. steps: of Lanczos. vectors: random ones.
      deflated: eigenvalues taken exactly.
    """

    value: float
    lower: float
    upper: float
    standard_error: float = 0.0
    met: bool = True
    route: str = "estimate"
    products: int = 0
    steps: int = 0
    vectors: int = 0
    deflated: int = 0


def certain(value, route="gram"):
    """A value that was computed."""
    return Estimate(value, value, value, met=bool(np.isfinite(value)), route=route)


def total_of(*terms):
    """The sum of (sign, `Estimate`), estimated if one of them is; the cost is that of the last estimated one."""
    guessed = [e for _, e in terms if e.route == "estimate"]
    return (guessed or [terms[-1][1]])[-1]._replace(
        value=sum(sign * e.value for sign, e in terms),
        lower=sum(e.lower if sign > 0 else -e.upper for sign, e in terms),
        upper=sum(e.upper if sign > 0 else -e.lower for sign, e in terms),
        standard_error=float(np.sqrt(sum(e.standard_error**2 for _, e in terms))),
        met=all(e.met for _, e in terms),
    )


def ratio(above, below):
    """The quotient of two estimates, the second of something that is not negative; nan where it is zero or nan."""
    if not below.value > 0:
        return above._replace(value=np.nan, lower=np.nan, upper=np.nan, standard_error=np.nan)
    low = max(below.lower, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        quotients = np.array([[above.lower], [above.upper]]) / np.array([[low, below.upper]])
    quotients = np.where(np.isnan(quotients), 0, quotients)
    return above._replace(
        value=above.value / below.value, lower=float(quotients.min()), upper=float(quotients.max()),
        standard_error=above.standard_error / below.value,
    )  # fmt: skip
