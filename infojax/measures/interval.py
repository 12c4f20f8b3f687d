"""An estimated number with bounds and a standard error, and sums and quotients of such numbers."""

from typing import NamedTuple

import numpy as np

from infojax.measures.arrays import ArrayLike


class Estimate(NamedTuple):
    """A number that was estimated or computed exactly, as floats and ints; in nats if it is an entropy.

    Attributes:
      value: the midpoint of the quadrature bounds.
      lower, upper: the true value lies between them with at least the stated confidence; on an exact route they only
        cover rounding (`computed`).
      standard_error: of value, due to the random vectors only.
      met: whether upper - lower <= 2 tolerance.
      route: "gram" or "classes" (exact), "estimate".
      products: number of columns multiplied by the matrix. steps: Lanczos steps. vectors: random vectors.
      deflated: number of eigenvalues treated exactly.
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


def certain(value: float, route: str = "gram") -> Estimate:
    """A value known exactly."""
    return Estimate(value, value, value, met=bool(np.isfinite(value)), route=route)


def computed(
    value: float, spectrum: ArrayLike, samples: float, route: str = "gram", side: int | None = None
) -> Estimate:
    """An entropy -sum l log l, nats, computed from the eigenvalues of a density, with bounds on its rounding error.

    With a matrix E between the density and the computed one, the eigenvalues move by no more than ||E||_F together
    (Hoffman and Wielandt), and the entropy to first order by ||E||_F (sum (1 + log l)^2)^(1/2). E is the rounding of a
    sum over samples, modelled as random and in blocks of 64 as BLAS and XLA add, (8 + sqrt(n) / 8) eps / 2 of the
    trace, and that of the solver, 2 sqrt(k) eps ||l||. Eigenvalues that were set to zero as noise hold the part that
    the trace lacks to one, itself known up to the first of these errors: the entropy lacks at most that mass times the
    log of their number divided by it.

    Args:
      value: as computed.
      spectrum: (k,) with noise set to zero.
      samples: n, in the sums that made the density.
      side: number of eigenvalues without rounding; k by default.
    """
    w = np.asarray(spectrum)
    eps, size, w = float(np.finfo(w.dtype).eps), int(max(len(w), side or 0)), np.sort(w[w > 0]).astype(np.float64)
    if not np.isfinite(value) or not len(w):
        return certain(value, route)
    summed = eps * (8 + np.sqrt(samples) / 8) / 2
    noise = (summed + 2 * eps * np.sqrt(size) * np.linalg.norm(w)) * (1 + (route == "classes"))
    moved = noise * np.linalg.norm(1 + np.log(np.maximum(w, noise))) + eps * (1 + value) * np.sqrt(size)
    lost = max(1 - w.sum(), 0.0) + summed + np.sqrt(len(w)) * noise
    missing = lost * max(np.log((size - len(w)) / lost), 1.0) if size > len(w) else 0.0
    missing += max(size, 32 * np.sqrt(samples)) * eps if value == 0 else 0.0  # smaller entropies count as zero
    return Estimate(value, max(float(value - moved), 0.0), float(value + moved + missing), route=route)


def total_of(*terms: tuple[int, Estimate]) -> Estimate:
    """The sum of (sign, `Estimate`) terms, estimated if any term is; the cost is that of the last estimated one."""
    guessed = [e for _, e in terms if e.route == "estimate"]
    return (guessed or [terms[-1][1]])[-1]._replace(
        value=sum(sign * e.value for sign, e in terms),
        lower=sum(e.lower if sign > 0 else -e.upper for sign, e in terms),
        upper=sum(e.upper if sign > 0 else -e.lower for sign, e in terms),
        standard_error=float(np.sqrt(sum(e.standard_error**2 for _, e in terms))),
        met=all(e.met for _, e in terms),
    )


def ratio(above: Estimate, below: Estimate) -> Estimate:
    """The quotient of two estimates, the second of a non-negative quantity; nan if that is zero or nan."""
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
