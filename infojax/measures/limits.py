"""Limits at collapse for what was measured: its class counts, its mean energy, features raw and centred."""

from functools import lru_cache

import jax
import numpy as np

from infojax.measures import head_interplay, theory


def limits_at_collapse(counts, mean_energy):
    """`nc_limits` of raw features with these counts and mean energy, and the limits of centred features.

    Subtracting the sample mean bends a simplex whose corners have unequal weights: the limits of centred features are
    not those of mean energy 0 then. Less mean energy than unequal counts alone give a simplex is no collapsed energy:
    the limits are those of the simplex.

    Args:
      counts: (C,) samples of each class, of at least two classes.
      mean_energy: measured, of the raw features.
    Returns:
      Two `Limits`.
    """
    counts = tuple(np.asarray(counts).tolist())
    try:
        raw = theory.nc_limits(len(counts), counts=counts, mean_energy=mean_energy)
    except ValueError:
        raw = theory.nc_limits(len(counts), counts=counts)
    return raw, _centered(counts)


@lru_cache
def _centered(counts):
    corners, labels = theory.etf(len(counts)), np.arange(len(counts))
    with jax.enable_x64(True):
        found = head_interplay.interplay(corners, labels, corners, weights=np.asarray(counts, np.float64), center=True)
    return theory.Limits(*(float(getattr(found, name)) for name in theory.Limits._fields))
