"""Limits at collapse for the measured features: their class counts, mean energy and dimensions, raw and centred."""

import math
from functools import lru_cache

import jax
import numpy as np

from infojax.measures import head_interplay, theory
from infojax.measures.arrays import ArrayLike


def has_simplex(num_classes: int, dim: int | None) -> bool:
    """Whether C unit vectors with all cosines -1/(C-1) fit into D dimensions: D >= C - 1."""
    return dim is None or dim >= num_classes - 1


def limits_at_collapse(
    counts: ArrayLike, mean_energy: float, dim: int | None = None
) -> tuple[theory.Limits, theory.Limits]:
    """`nc_limits` of raw features with these counts and mean energy, and the limits of centred features.

    Subtracting the sample mean distorts a simplex whose vertices have unequal weights: the limits of centred features
    are then not those of mean energy 0. The mean energy of collapsed features is at least that of a simplex with these
    counts, and in D = C - 1 dimensions a simplex leaves no room for a common mean: the limits are then those of the
    simplex.

    Args:
      counts: (C,) samples of each class, of at least two classes.
      mean_energy: measured, of the raw features.
      dim: D of the features; None means large enough.
    Returns:
      Two `Limits`; all nan where D < C - 1, since there is no simplex.
    """
    counts = tuple(np.asarray(counts).tolist())
    if not has_simplex(len(counts), dim):
        none = theory.Limits(*[math.nan] * len(theory.Limits._fields))
        return none, none
    try:
        raw = theory.nc_limits(len(counts), counts=counts, mean_energy=mean_energy, dim=dim)
    except ValueError:
        raw = theory.nc_limits(len(counts), counts=counts)
    return raw, _centered(counts)


@lru_cache
def _centered(counts):
    corners, labels = theory.etf(len(counts)), np.arange(len(counts))
    with jax.enable_x64(True):
        found = head_interplay.interplay(corners, labels, corners, weights=np.asarray(counts, np.float64), center=True)
    return theory.Limits(*(float(getattr(found, name)) for name in theory.Limits._fields))


def geometry_at_collapse(num_classes: int, present: int, dim: int) -> tuple[dict[str, float], set[str]]:
    """Limits of NC2 and NC3 where P of the C classes have samples, and of the entropy of the head's rows.

    Class means at P vertices of a simplex, minus their mean, form a simplex of P classes: NC2 is 0. The head's rows
    of these classes keep the cosine -b, b = 1 / (C - 1), of C classes, so that with K = (1 + b) I - b J (P x P):
    equiangularity 1 / (P - 1) - b, ETF distance^2 2 - 2 sqrt(P - 1) (1 + b) / ||K||_F, and NC3 of the class means
    M = (I - J / P) W is 2 - 2 sqrt((P - 1)(1 + b) / P).

    With D < C - 1 there is no simplex. Features still collapse onto their class means, which are then optimal when
    spread evenly over the sphere (softmax codes); their angles have no closed form, and only bounds are known:
    the entropy of C unit rows is at most log D, that of a tight frame; and a Gram matrix of rank D is at least
    sqrt(2 - 2 sqrt(D / (C - 1))) from the simplex, which a centred tight frame attains.

    Args:
      num_classes: C >= 2; present: P >= 2 of them; dim: D.
    Returns:
      name -> limit, as in `analyze`; and the names of those that are bounds.
    References:
      Jiang, Zhou, Wang, Qu, Mixon, You, Zhu 2023, "Generalized Neural Collapse for a Large Number of Classes".
      Benedetto and Fickus 2003 for tight frames of unit rows, which exist for all C >= D.
    """
    limits, bounds = {"nc2_equinorm": 0.0, "nc2_equinorm_head": 0.0}, set()
    if has_simplex(present, dim):
        limits |= {"nc2_equiangularity": 0.0, "nc2_etf_distance": 0.0}
    else:
        limits["nc2_etf_distance"] = limits["nc3_etf"] = _least_etf_distance(present, dim)
        bounds |= {"nc2_etf_distance", "nc3_etf"}
    if has_simplex(num_classes, dim):
        b = 1 / (num_classes - 1)
        norm = math.hypot(math.sqrt(present - 1) * (1 + b), 1 + b - b * present)
        inner = math.sqrt(present - 1) * (1 + b)
        limits |= {
            "nc2_equiangularity_head": _zero(1 / (present - 1) - b),
            "nc2_etf_distance_head": math.sqrt(_zero(2 - 2 * inner / norm)),
            "nc3": _zero(2 - 2 * math.sqrt((present - 1) * (1 + b) / present)),
            "nc3_etf": 0.0,
            "entropy_head_weights": math.log(num_classes - 1),
        }
    else:
        if present == num_classes:
            limits["nc3"] = 0.0  # class means and head rows may coincide whatever their angles
            limits["nc2_etf_distance_head"] = _least_etf_distance(present, dim)
            bounds.add("nc2_etf_distance_head")
        limits["entropy_head_weights"] = math.log(dim)
        bounds.add("entropy_head_weights")
    return limits, bounds


def _least_etf_distance(classes, dim):
    return math.sqrt(2 - 2 * math.sqrt(dim / (classes - 1)))


def _zero(x, noise=1e-12):
    """x, set to zero where it is only the rounding error of a zero difference."""
    return 0.0 if abs(x) < noise else x
