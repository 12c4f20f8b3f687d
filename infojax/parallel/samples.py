"""Measures of samples split over devices: local sums, completed by a psum, then one small computation.

What moves between devices is O(C D) for class statistics, O(D^2) for second moments, O(C D^2 / devices) from each
device for class second moments: never the samples. The one exception is the Gram route, for fewer samples than columns
(or than C D): a Gram matrix needs every pair of rows, so the rows, then fewer than the moments, are gathered.
"""

from collections.abc import Callable
from functools import partial, wraps
from inspect import signature
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from infojax.measures import (
    arrays,
    class_blocks,
    coding,
    collapse,
    entropy,
    head_interplay,
    moments,
    passes,
    scale,
    spectra,
    variability,
)
from infojax.measures.arrays import ArrayLike
from infojax.measures.collapse import NeuralCollapse
from infojax.measures.conversion import described
from infojax.measures.head_interplay import Interplay
from infojax.measures.moments import ClassStats
from infojax.measures.stats_arguments import P, R
from infojax.parallel.matrices import map_matrices
from infojax.parallel.mesh import AXIS, SPLIT, WHOLE, padded_rows


def compiled_on_mesh(namesake: Callable[..., Any], *static: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compiles a function of arrays and a mesh; without a mesh it is its namesake in `infojax.measures`, uncompiled.

    The number of classes, if not given, is inferred from the labels, which a compiled program could not do.
    """

    def decorated(f):
        program, names = jax.jit(f, static_argnames=(*static, "mesh")), list(signature(f).parameters)

        @wraps(f)
        def run(z, *arguments, mesh=None, **options):
            if mesh is None:
                return namesake(z, *arguments, **options)
            if not isinstance(mesh, Mesh):
                raise ValueError(f"mesh must be a Mesh, as make_mesh() gives it, or None; got {described(mesh)}")
            if "num_classes" in static and len(arguments) < 2 and options.get("head") is None:
                labels = arguments[0] if arguments else options["labels"]
                options["num_classes"] = moments.infer_num_classes(labels, options.get("num_classes"))
            given = dict(zip(names, (z, *arguments), strict=False)) | options
            return program(**{name: _checked(name, value) for name, value in given.items()}, mesh=mesh)

        return run

    return decorated


def _checked(name, value):
    """Checks an argument that jit would mangle: integers cut to 32 bits, 1e-60 as zero, strings with its own error."""
    if value is None or isinstance(value, jax.Array) or name not in ("z", "labels", "head", "bias", "weights"):
        return value
    if name == "labels":
        return arrays.as_labels(value)
    return arrays.as_rows(value) if name == "z" else arrays.as_float(value, name)


def over_samples(
    f: Callable[..., Any],
    mesh: Mesh | None,
    z: ArrayLike,
    labels: ArrayLike | None,
    weights: ArrayLike | None,
    *whole: Any,
    out_specs: Any = WHOLE,
) -> Any:
    """f(z, labels, weights, *whole) on each device's rows, under the mapped axis `AXIS`.

    Args:
      f: of the device's z (n, D), labels (n,) and weights (n,), and of `whole`, which every device has.
      z: (N, D); labels, weights: (N,), or None for zeros and for ones.
      out_specs: how the results are split; by default all devices return the same.
    Returns:
      What f returns. Where N is not divisible by the devices, rows are added with label -1 and weight zero.
    """
    assert mesh is not None  # without one the namesake is called
    z = arrays.as_rows(z)
    labels = arrays.as_labels(jnp.zeros(len(z), jnp.int32) if labels is None else labels, len(z))
    rows = (z, labels, arrays.sample_weights(weights, len(z), z.dtype))
    rows = [padded_rows(x, mesh, value) for x, value in zip(rows, (0, -1, 0), strict=True)]
    in_specs = (SPLIT,) * 3 + (WHOLE,) * len(whole)
    return jax.shard_map(f, mesh=mesh, in_specs=in_specs, out_specs=out_specs)(*rows, *whole)


@compiled_on_mesh(moments.class_stats, "num_classes", "scatter")
def class_stats(
    z: ArrayLike,
    labels: ArrayLike,
    num_classes: int | None = None,
    *,
    weights: ArrayLike | None = None,
    scatter: str | None = None,
    mesh: Mesh | None = None,
) -> ClassStats:
    """`infojax.class_stats` of samples (N, D) split over devices; N need not be divisible.

    Two all-reduces of O(C D), and one of the scatter if requested. Merge the results of several batches.
    """

    def local(z, labels, weights):
        return moments.class_stats(z, labels, num_classes, weights=weights, scatter=scatter).reduce(AXIS)

    return over_samples(local, mesh, z, labels, weights)


@partial(jax.jit, static_argnames=("center", "mesh"))
def second_moment(
    z: ArrayLike, *, weights: ArrayLike | None = None, center: bool = False, mesh: Mesh | None = None
) -> jax.Array:
    """sum_i p_i u_i u_i^T (D, D) of the unit rows: the density whose entropy is `matrix_entropy`; trace one.

    One all-reduce of D^2 numbers, and one of D for the mean if `center`.
    """

    def local(z, _, weights, axis=AXIS):
        u, p = spectra.directions(z, weights, center, axis)
        rows = entropy.weighted(u, p)
        return arrays.total(arrays.matmul(rows.T, rows), axis)

    if mesh is None:
        z = arrays.as_rows(z)
        return local(z, None, weights, None)
    return over_samples(local, mesh, z, None, weights)


def _density(z, weights, center, mesh):
    """The smaller density: the second moment, or the Gram matrix of the gathered rows where N < D."""
    z = arrays.as_rows(z)
    if z.shape[0] >= z.shape[1]:
        return second_moment(z, weights=weights, center=center, mesh=mesh)
    return entropy.density_of_features(z, weights, center)


@compiled_on_mesh(entropy.matrix_entropy, "alpha", "center")
def matrix_entropy(
    z: ArrayLike,
    *,
    alpha: float = 1.0,
    center: bool = False,
    weights: ArrayLike | None = None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """`infojax.matrix_entropy` (0-d) of samples (N, D) split over devices.

    One all-reduce of D^2 numbers; where N < D the rows are gathered instead.
    """
    z = arrays.as_rows(z)
    return entropy.entropy_of_density(_density(z, weights, center, mesh), alpha, len(z))


@compiled_on_mesh(coding.coding_rate, "form")
def coding_rate(
    z: ArrayLike,
    mu: float | jax.Array = 1.0,
    *,
    form: str = "code",
    weights: ArrayLike | None = None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """`infojax.coding_rate` (0-d) of samples (N, D) split over devices: that of the global batch.

    One all-reduce of D^2 numbers; where N < D the rows are gathered instead.
    """
    z = arrays.as_rows(z)
    if z.shape[0] < z.shape[1]:
        return coding.coding_rate(z, mu, form=form, weights=weights)

    def local(z, _, weights):
        u, live = spectra.unit_rows(jnp.where(weights[:, None] <= 0, 0, z))
        rows = entropy.weighted(u, weights)
        mass = jnp.sum(jnp.where(live, weights, 0))
        return arrays.total((arrays.matmul(rows.T, rows), mass), AXIS)

    small, mass = over_samples(local, mesh, z, None, weights)
    return coding.coding_rate_of_moment(small, mass, z.shape[1], mu, form)


@compiled_on_mesh(collapse.neural_collapse, "num_classes", "convention")
def neural_collapse(
    z: ArrayLike,
    labels: ArrayLike,
    head: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    num_classes: int | None = None,
    convention: str = "thesis",
    weights: ArrayLike | None = None,
    mesh: Mesh | None = None,
) -> NeuralCollapse:
    """`infojax.neural_collapse` of samples split over devices: two passes, O(C D) moved in each."""
    num_classes = num_classes if head is None else len(head)  # type: ignore[arg-type]  # jit has made it an array
    z, labels, weights = moments.checked_samples(z, labels, weights)
    z, s = scale.divided_samples(z, labels, weights, num_classes)
    stats = class_stats(z, labels, num_classes, weights=weights, mesh=mesh)
    quotient = variability.nc1_convention(convention).quotient
    inverse = None if quotient else variability.between_inverse(stats, convention=convention)

    def local(z, labels, weights, stats, head, bias, inverse):
        sums = passes.second_pass(stats, z, labels, head, bias, inverse=inverse, weights=weights)
        return arrays.total(sums, AXIS)

    classifier = passes.same_classifier(head, bias, s)
    sums = over_samples(local, mesh, z, labels, weights, stats, *classifier, inverse)
    return collapse.with_unit(collapse.collapse_from_passes(stats, sums, head, convention=convention), s)


@compiled_on_mesh(head_interplay.interplay, "center")
def interplay(
    z: ArrayLike,
    labels: ArrayLike,
    head: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    center: bool = False,
    mesh: Mesh | None = None,
) -> Interplay:
    """`infojax.interplay` of samples split over devices, exact.

    With N > C min(N, D) samples the second moments of the classes are reduced, each device getting those of its share
    of classes (a reduce-scatter of C D^2 numbers), and decomposed where they lie; then the factors, C D rows, are
    gathered for the one joint spectrum. Where that is too large, use `estimate_interplay`.
    """
    return head_interplay.assemble(*_ingredients(z, labels, head, weights, center, mesh))


@compiled_on_mesh(head_interplay.interplay_and_spectra, "center")
def interplay_and_spectra(
    z: ArrayLike,
    labels: ArrayLike,
    head: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    center: bool = False,
    mesh: Mesh | None = None,
) -> tuple[Interplay, tuple[jax.Array, ...]]:
    """`interplay`, and the ascending eigenvalues of its three densities: features, head, both."""
    return head_interplay.assemble_with_spectra(*_ingredients(z, labels, head, weights, center, mesh))


def _ingredients(z, labels, head, weights, center, mesh):
    """What `head_interplay.assemble` takes."""
    z = arrays.as_rows(z)
    head = arrays.as_head(head, z.shape[1])
    num_classes, dim = len(head), z.shape[1]
    if len(z) <= num_classes * min(len(z), dim):
        return head_interplay.ingredients(z, labels, head, weights, center)
    second, rho, unit_head, class_p, mean, count = class_moments(z, labels, head, weights, center, mesh)
    factors = map_matrices(head_interplay.factor, mesh)(second)
    # Gathered here: left to itself the compiler gathers what is computed from them, piece by piece.
    factors = jax.lax.with_sharding_constraint(factors, jax.NamedSharding(mesh, WHOLE))[:num_classes]
    owner = jnp.repeat(jnp.arange(num_classes), dim, total_repeat_length=num_classes * dim)
    rows = factors.reshape(num_classes * dim, dim)
    return rho, rows, owner, unit_head, class_p, mean, count, len(z)


def class_moments(
    z: ArrayLike, labels: ArrayLike, head: jax.Array, weights: ArrayLike | None, center: bool, mesh: Mesh
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """Second moments of each class's unit rows (C', D, D), C' a multiple of the devices over which they are split.

    Also their sum, unit head rows, class probabilities, mean direction and number of samples.
    """
    num_classes = len(head)
    padded = num_classes + -num_classes % mesh.size

    def local(z, labels, weights, head):
        u, p, labels, unit_head, class_p, mean = head_interplay.weighted_directions(
            z, labels, head, weights, center, AXIS
        )
        second = class_blocks.class_second_moments(entropy.weighted(u, p), labels, padded)
        second = jax.lax.psum_scatter(second, AXIS, scatter_dimension=0, tiled=True)
        whole, count = arrays.total((jnp.sum(second, axis=0), jnp.sum(p > 0)), AXIS)
        return second, whole, unit_head, class_p, mean, count

    out_specs = (SPLIT, *(WHOLE,) * 5)
    return over_samples(local, mesh, z, labels, weights, head, out_specs=out_specs)
