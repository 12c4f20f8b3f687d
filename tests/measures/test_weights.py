"""Derivatives with respect to weights: zero where a weight is zero, those of finite differences elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import central_difference

import infojax as ij
from infojax import parallel
from infojax.parallel import make_mesh

N, D, C = 24, 4, 3
RNG = np.random.default_rng(0)
LABELS = (np.arange(N) % C).astype(np.int32)
Z = 3 * RNG.normal(size=(C, D))[LABELS] + RNG.normal(size=(N, D))
HEAD, OTHER = RNG.normal(size=(C, D)), RNG.normal(size=(N, 3))
GRAM, GRAM2 = (x @ x.T for x in (Z, OTHER))
WEIGHTS = RNG.uniform(0.5, 2.0, N)
ZERO = [5, 6]
WEIGHTS[ZERO] = 0


def numbers(tree):
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)])


def merged(z, w):
    """Two batches into statistics with the scatter of each class."""
    stats = ij.ClassStats.init(C, D, scatter="class", dtype=z.dtype)
    for part in (slice(0, 10), slice(10, N)):
        stats = stats.update(z[part], LABELS[part], w[part])
    return stats


MEASURES = {
    "matrix_entropy": lambda z, w: ij.matrix_entropy(z, weights=w),
    "matrix_entropy centred": lambda z, w: ij.matrix_entropy(z, weights=w, center=True),
    "matrix_entropy_from_gram": lambda z, w: ij.matrix_entropy_from_gram(GRAM, weights=w),
    "effective_rank_from_gram": lambda z, w: ij.effective_rank_from_gram(GRAM, weights=w),
    "coding_rate": lambda z, w: ij.coding_rate(z, weights=w),
    "mir": lambda z, w: ij.mir(z, OTHER, weights=w),
    "mir_from_gram": lambda z, w: ij.mir_from_gram(GRAM, GRAM2, weights=w),
    "interplay": lambda z, w: ij.interplay(z, LABELS, HEAD, weights=w),
    "class_stats": lambda z, w: ij.class_stats(z, LABELS, C, weights=w, scatter="within"),
    "ClassStats.update": merged,
    **{
        f"nc1 {name}": lambda z, w, name=name: ij.nc1(z, LABELS, C, weights=w, convention=name)
        for name in ij.NC1_CONVENTIONS
    },
    "nc2": lambda z, w: ij.nc2(z, LABELS, C, weights=w)[:3],
    "nc3": lambda z, w: ij.nc3(z, LABELS, HEAD, weights=w),
    "cdnv": lambda z, w: ij.cdnv(z, LABELS, C, weights=w),
    "davies_bouldin": lambda z, w: ij.davies_bouldin(z, LABELS, C, weights=w),
    "neural_collapse": lambda z, w: ij.neural_collapse(z, LABELS, HEAD, weights=w),
    "squared_error": lambda z, w: ij.squared_error(z, LABELS, HEAD, weights=w),
    "neural_collapse on a mesh": lambda z, w: parallel.neural_collapse(z, LABELS, HEAD, weights=w, mesh=make_mesh()),
    "class_stats on a mesh": lambda z, w: parallel.class_stats(z, LABELS, C, weights=w, mesh=make_mesh()),
    "covariance_rank": lambda z, w: ij.covariance_rank(z, weights=w),
    "curvature": lambda z, w: ij.curvature(z, weights=w),
    "infonce_bound": lambda z, w: ij.infonce_bound(z[:, :3], OTHER, weights=w),
    "linear_cka": lambda z, w: ij.linear_cka(z, OTHER, weights=w),
    "linear_cka debiased": lambda z, w: ij.linear_cka(z, OTHER, debiased=True, weights=w),
    "nc5": lambda z, w: ij.nc5(z, LABELS, z[:4], C, weights=w),
    "prompt_entropy": lambda z, w: ij.prompt_entropy(z[None], weights=w[None]).mean,
    "uniformity": lambda z, w: ij.uniformity(z, weights=w),
    "matrix_entropy on a mesh": lambda z, w: parallel.matrix_entropy(z, weights=w, mesh=make_mesh()),
}


@pytest.mark.parametrize("name", MEASURES)
def test_derivatives_with_respect_to_weights(name):
    """Rows of weight zero hold nan, which reaches nothing."""
    z = Z.copy()
    if "gram" not in name:
        z[ZERO] = np.nan
    tangent = np.where(WEIGHTS > 0, RNG.normal(size=N), 0)
    with jax.enable_x64(True):
        f = jax.jit(lambda w: numbers(MEASURES[name](jnp.asarray(z), w)))
        cotangent = np.random.default_rng(1).normal(size=len(f(WEIGHTS)))
        gradient = np.asarray(jax.jit(jax.grad(lambda w: f(w) @ cotangent))(jnp.asarray(WEIGHTS)))
        expected = central_difference(lambda t: float(f(WEIGHTS + t * tangent) @ cotangent), 0.0, 1.0, 1e-4)
    assert not np.any(gradient[ZERO])
    assert gradient @ tangent == pytest.approx(float(expected), rel=1e-6, abs=1e-8)
