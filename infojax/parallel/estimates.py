"""The estimators of `infojax.measures.estimate` for samples split over devices."""

from functools import cache, partial
from typing import Any

import jax
from jax.sharding import Mesh

from infojax.measures import arrays, estimate
from infojax.measures.arrays import ArrayLike
from infojax.measures.estimate import InterplayEstimate
from infojax.measures.interval import Estimate
from infojax.measures.moments import ClassStats
from infojax.measures.operators import ROWS, with_placement
from infojax.measures.trace import OPERATOR, Compiled, on_one_device
from infojax.parallel.mesh import AXIS, SPLIT, WHOLE, padded_rows
from infojax.parallel.samples import interplay_and_spectra


@cache
def on_devices(mesh: Mesh | None) -> Compiled:
    """A function that compiles a `Stage` of the estimators for a mesh, or for one device without a mesh."""
    if mesh is None:
        return on_one_device

    @cache
    def compiled(stage):
        @jax.jit
        def run(*arguments):
            in_specs = tuple(map(_spec, stage.arguments, arguments))
            made = stage.makes and {k: _spec(v) for k, v in stage.makes.placement.items()}
            out_specs = stage.makes(**made) if made else jax.tree.map(_spec, stage.result)
            on_mesh = jax.shard_map(
                stage.on(AXIS), mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=stage.checked
            )
            return on_mesh(*arguments)

        return run

    return compiled


def _spec(placement, argument=None):
    if placement == OPERATOR:
        return with_placement(argument, SPLIT, WHOLE)
    if isinstance(placement, tuple):
        return jax.tree.map(_spec, placement)
    return SPLIT if placement == ROWS else WHOLE


def _padded(mesh, *arrays_and_fill):
    return [x if mesh is None or x is None else padded_rows(x, mesh, fill) for x, fill in arrays_and_fill]


def estimate_interplay(
    z: ArrayLike,
    labels: ArrayLike,
    head: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    center: bool = False,
    mesh: Mesh | None = None,
    **effort: Any,
) -> InterplayEstimate:
    """`infojax.estimate_interplay` of samples split over devices: products move 2 C D numbers per column."""
    z = arrays.as_rows(z)
    weights = arrays.sample_weights(weights, len(z), z.dtype)
    z, labels, weights = _padded(mesh, (z, 0), (arrays.as_labels(labels, len(z)), -1), (weights, 0))
    return estimate.estimate_interplay(
        z, labels, head, weights=weights, center=center, compiled=on_devices(mesh),
        exact=partial(interplay_and_spectra, mesh=mesh), **effort,
    )  # fmt: skip


def estimate_interplay_from_stats(
    stats: ClassStats, head: ArrayLike, *, mesh: Mesh | None = None, **effort: Any
) -> InterplayEstimate:
    """`infojax.estimate_interplay_from_stats`, the factors (C, D) of each class's moments split over devices."""
    return estimate.estimate_interplay_from_stats(stats, head, compiled=on_devices(mesh), **effort)


def estimate_joint_entropy(
    z1: ArrayLike,
    z2: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    center: bool = False,
    mesh: Mesh | None = None,
    **effort: Any,
) -> Estimate:
    """`infojax.estimate_joint_entropy` of samples split over devices: products move D1 D2 numbers per column."""
    z1, z2 = arrays.as_rows(z1, "z1"), arrays.as_rows(z2, "z2")
    weights = arrays.sample_weights(weights, len(z1), z1.dtype)
    z1, z2, weights = _padded(mesh, (z1, 0), (z2, 0), (weights, 0))
    return estimate.estimate_joint_entropy(z1, z2, weights=weights, center=center, compiled=on_devices(mesh), **effort)


def estimate_matrix_entropy(
    z: ArrayLike, *, weights: ArrayLike | None = None, center: bool = False, mesh: Mesh | None = None, **effort: Any
) -> Estimate:
    """`infojax.estimate_matrix_entropy` of samples split over devices: products move D numbers per column."""
    z = arrays.as_rows(z)
    weights = arrays.sample_weights(weights, len(z), z.dtype)
    z, weights = _padded(mesh, (z, 0), (weights, 0))
    return estimate.estimate_matrix_entropy(z, weights=weights, center=center, compiled=on_devices(mesh), **effort)
