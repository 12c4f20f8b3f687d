"""Compiled for TPU pods, without a TPU: it traces, what moves between chips and how much, and the memory of a chip.

libtpu compiles ahead of time on any machine (extra `tpu`). Sizes are small, and eigenproblems at most 256 (above that
JAX's solver for TPU takes half a minute to compile). Time on a chip cannot be seen here.
"""

import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from infojax import parallel
from infojax.bench.collectives import bytes_moved, collectives
from infojax.bench.pods import abstract, estimator_stages, topology_mesh, training_step
from infojax.measures.spectra import eigenvalues

pytest.importorskip("libtpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

C, D, N = 8, 32, 8192
F32, I32 = jnp.float32, jnp.int32


@pytest.fixture(scope="module")
def pod():
    """Eight chips."""
    return topology_mesh("v5e:2x4")


@pytest.fixture(scope="module")
def big_pod():
    """256 chips."""
    return topology_mesh("v5e:16x16")


def compiled(f, mesh, *arguments):
    return jax.jit(f).lower(*(abstract(mesh, *argument) for argument in arguments)).compile()


Z, Y, HEAD = ((N, D), F32, P("data")), ((N,), I32, P("data")), ((C, D), F32, P())
# name -> (function of mesh, z, y, head), kinds of collectives, most floats they may move.
MEASURES = {
    "class_stats": (lambda m, z, y, w: parallel.class_stats(z, y, C, mesh=m), {"all-reduce"}, 2 * C * (D + 2)),
    "within": (
        lambda m, z, y, w: parallel.class_stats(z, y, C, scatter="within", mesh=m),
        {"all-reduce"},
        C * (D + 2) + D * D,
    ),
    "class": (
        lambda m, z, y, w: parallel.class_stats(z, y, C, scatter="class", mesh=m),
        {"all-reduce"},
        C * (D + 2) + C * D * D,
    ),
    "matrix_entropy": (lambda m, z, y, w: parallel.matrix_entropy(z, mesh=m), {"all-reduce"}, D * D + D + 8),
    "coding_rate": (lambda m, z, y, w: parallel.coding_rate(z, mesh=m), {"all-reduce"}, D * D + 8),
    "neural_collapse": (lambda m, z, y, w: parallel.neural_collapse(z, y, w, mesh=m), {"all-reduce"}, 2 * C * (D + 5)),
    # The second moments of the classes go to their devices in parts; their factors are gathered.
    "interplay": (
        lambda m, z, y, w: parallel.interplay(z, y, w, mesh=m),
        {"all-reduce", "all-gather", "reduce-scatter"},
        C * D * D + C * D * D // 8 + 2 * D * D,
    ),
}


@pytest.mark.parametrize("name", MEASURES)
def test_measures_move_moments_never_samples(name, pod):
    measure, kinds, most = MEASURES[name]
    found = bytes_moved(compiled(partial(measure, pod), pod, Z, Y, HEAD))
    assert set(found) == kinds and sum(found.values()) <= 4 * most, found


@pytest.mark.parametrize("name", ["class_stats", "matrix_entropy"])
def test_headline_measures_of_imagenet_on_256_chips(name, big_pod):
    """1.28M samples, 1000 classes of 2048 features; of 256 features where a matrix is decomposed."""
    n, classes, dim = 1_281_024, 1000, 256 if name == "matrix_entropy" else 2048
    f = {
        "class_stats": lambda z, y: parallel.class_stats(z, y, classes, mesh=big_pod),
        "matrix_entropy": lambda z, y: parallel.matrix_entropy(z, mesh=big_pod),
    }[name]
    program = compiled(f, big_pod, ((n, dim), F32, P("data")), ((n,), I32, P("data")))
    found = bytes_moved(program)
    assert set(found) == {"all-reduce"}
    assert sum(found.values()) <= 4 * {"matrix_entropy": 2 * dim * dim, "class_stats": 2 * classes * (dim + 2)}[name]
    memory = program.memory_analysis()
    assert memory.temp_size_in_bytes + memory.argument_size_in_bytes < 1 << 30  # of 16 GiB


def test_matrices_are_decomposed_where_they_lie(pod):
    program = compiled(parallel.map_matrices(eigenvalues, pod), pod, ((16, 128, 128), F32, P("data")))
    assert not collectives(program)
    assert "f32[16,128,128]" not in program.as_text() and "f32[2,128,128]" in program.as_text()


def test_large_matrices_of_a_batch_trace(pod):
    """Above 256 JAX's solver for TPU is another one, which does not trace in a default shard_map."""
    k = abstract(pod, (16, 512, 512), F32, P("data"))
    text = jax.jit(parallel.map_matrices(eigenvalues, pod)).lower(k).as_text()
    assert "all_gather" not in text and "2x512x512" in text


def test_one_large_matrix_is_never_whole_on_a_chip(pod):
    n = 1024  # blocks of 128 columns a chip
    program = compiled(partial(parallel.eigenvalues, mesh=pod), pod, ((n, n), F32, P(None, "data")))
    assert max(c.bytes for c in collectives(program)) <= 4 * n * n // 8
    memory = program.memory_analysis()
    assert memory.temp_size_in_bytes + memory.argument_size_in_bytes < 4 * n * n  # less than one whole matrix


def test_stages_of_the_estimators(pod):
    """A product moves one D-vector a class and column, whatever N; orthogonalisation a few columns more."""
    classes, dim, columns, basis = 16, 64, 32, 128
    moved = {}
    for n in (4096, 16384):
        for name, program in estimator_stages(pod, n, classes, dim, columns, basis):
            found = bytes_moved(program)
            assert set(found) <= {"all-reduce", "all-gather", "reduce-scatter"}, (name, found)
            assert moved.setdefault(name, found) == found, name
    # Each chip gets the second moments of its two classes.
    assert moved["compress"] == {"reduce-scatter": 4 * 2 * dim * dim}
    assert moved["advance"] == {
        "reduce-scatter": 4 * classes * dim * columns // 8,
        "all-gather": 4 * classes * dim * columns,
        "all-reduce": 4 * (basis + 2) * columns,
    }


def test_training_step(pod):
    """Data-parallel: gradients and batch statistics are reduced; images stay where they are, and solvers whole."""
    program, parameters = training_step(pod, batch=64)
    found = bytes_moved(program)
    assert set(found) == {"all-reduce", "all-gather"}, found
    # The information term of the batch needs every pair of its samples: embeddings and labels are gathered, no images.
    assert found["all-gather"] <= 4 * 64 * (128 + 8), found
    # Nearly all gradients; a few of the head's, which the gathered embeddings give, every chip has whole already.
    assert 3.9 * parameters <= found["all-reduce"] <= 5 * parameters, found


def test_a_mesh_of_chips_has_automatic_axes(pod):
    assert isinstance(pod, Mesh) and set(pod.axis_types) == {AxisType.Auto} and pod.size == 8
    assert isinstance(NamedSharding(pod, P("data")), NamedSharding) and np.array(pod.devices).shape == (8,)
