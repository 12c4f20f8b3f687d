"""infojax.parallel: measures, matrices and estimates over a mesh equal those of one device, in value and gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import infojax as ij
from infojax import parallel
from infojax.bench.collectives import bytes_moved, collectives
from infojax.measures import arrays
from infojax.objectives.crossmodal import cross_modal_alignment
from infojax.objectives.regularizers import information_term

DEVICES = (1, 2, 4, 8)
N, C, D = 203, 5, 12  # divided by none of 2, 4, 8


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(N) % C)
    means = rng.normal(size=(C, D))
    z = np.float32(means[labels] + 0.5 * rng.normal(size=(N, D)) + 0.4)
    head = np.float32(means + 0.3 * rng.normal(size=(C, D)))
    weights = np.float32(rng.uniform(size=N) * (rng.uniform(size=N) > 0.2))
    return z, labels, head, weights


def assert_equal(found, expected, rtol=2e-5, atol=2e-5):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


FEW = 41  # fewer rows than C D: the Gram route
MEASURES = {
    "class_stats": lambda m, z, y, w, s, **k: m.class_stats(z, y, C, weights=s, scatter="class", **k),
    "within": lambda m, z, y, w, s, **k: m.class_stats(z, y, C, weights=s, scatter="within", **k),
    "matrix_entropy": lambda m, z, y, w, s, **k: m.matrix_entropy(z, weights=s, **k),
    "centered": lambda m, z, y, w, s, **k: m.matrix_entropy(z, center=True, **k),
    "fewer rows than columns": lambda m, z, y, w, s, **k: m.matrix_entropy(z[: D - 3], **k),
    "coding_rate": lambda m, z, y, w, s, **k: m.coding_rate(z, weights=s, **k),
    "mcr2": lambda m, z, y, w, s, **k: m.coding_rate(z, 2.0, form="mcr2", weights=s, **k),
    "neural_collapse": lambda m, z, y, w, s, **k: m.neural_collapse(z, y, w, weights=s, **k),
    "interplay": lambda m, z, y, w, s, **k: m.interplay(z, y, w, weights=s, **k),
    "interplay, centered": lambda m, z, y, w, s, **k: m.interplay(z, y, w, center=True, **k),
    "interplay, few": lambda m, z, y, w, s, **k: m.interplay(z[:FEW], y[:FEW], w, **k),
}


@pytest.mark.parametrize("devices", (1, 8))
@pytest.mark.parametrize("name", MEASURES)
def test_measures_equal_those_of_one_device(data, name, devices):
    measure, (z, y, w, s) = MEASURES[name], data
    mesh = parallel.make_mesh(devices)
    assert_equal(measure(parallel, z, y, w, s, mesh=mesh), measure(ij, z, y, w, s))


def test_what_a_compiled_program_would_take_in_silence_is_refused(data):
    """Labels of 64 bits, values that float32 loses, a head of another width, more devices than there are."""
    z, y, w, _ = data
    mesh, far = parallel.make_mesh(2), y.astype(np.int64)
    far[:3] = 2**32  # no class; its lower half is class 0
    found = parallel.class_stats(z, far, C, mesh=mesh)
    np.testing.assert_array_equal(found.count, np.bincount(y[3:], minlength=C))
    with pytest.raises(ValueError, match="features: the largest entry is .*e-60, and float32 holds"):
        parallel.matrix_entropy(z * np.float64(1e-60), mesh=mesh)
    with pytest.raises(ValueError, match="labels are strings"):
        parallel.class_stats(z, y.astype(str), C, mesh=mesh)
    with pytest.raises(ValueError, match=r"got shape \(12, 5\): pass head.T"):
        parallel.interplay(z, y, w.T, mesh=mesh)
    for count in (0, 9, -1):
        with pytest.raises(ValueError, match=f"num_devices must be from 1 to 8, the devices there are; got {count}"):
            parallel.make_mesh(count)


@pytest.mark.parametrize("devices", (4,))
@pytest.mark.parametrize("name", ["matrix_entropy", "centered", "coding_rate", "mcr2", "neural_collapse", "interplay"])
def test_gradients_equal_those_of_one_device(data, name, devices):
    measure, (z, y, w, s) = MEASURES[name], data
    mesh = parallel.make_mesh(devices)
    rng = np.random.default_rng(1)

    def scalar(module, z, w, **k):
        leaves = [x for x in jax.tree.leaves(measure(module, z, y, w, s, **k)) if jnp.issubdtype(x.dtype, jnp.floating)]
        return sum(jnp.vdot(x, c) for x, c in zip(leaves, mixtures, strict=False))

    mixtures = [rng.normal() for _ in range(50)] if name != "neural_collapse" else [1.0, 0.3, 0.1]
    found = jax.grad(partial(scalar, parallel, mesh=mesh), (0, 1))(z, w)
    assert_equal(found, jax.grad(partial(scalar, ij), (0, 1))(z, w), rtol=1e-3, atol=3e-5)


def test_a_dropped_sum_over_devices_is_seen(data, monkeypatch):
    """A result that differs between devices is refused where it is declared replicated."""
    z, y, w, s = data
    mesh = parallel.make_mesh(4)
    monkeypatch.setattr(arrays, "total", lambda x, axis=None: x)
    with pytest.raises(ValueError, match="replicat"):
        parallel.coding_rate.__wrapped__(z, weights=s, mesh=mesh)


def barlow(z1, z2):
    """Cross-correlation of features standardised over the batch, its distance to the identity."""
    a, b = ((z - z.mean(0, keepdims=True)) / z.std(0, keepdims=True) for z in (z1, z2))
    return jnp.sum((a.T @ b / len(z1) - jnp.eye(z1.shape[1])) ** 2)


def nt_xent(z1, z2, temperature=0.5):
    """Each row against all others of both views."""
    u = ij.unit_rows(jnp.concatenate([z1, z2]))[0]
    logits = jnp.where(jnp.eye(len(u), dtype=bool), -jnp.inf, u @ u.T / temperature)
    n = len(z1)
    positive = jnp.concatenate([jnp.arange(n) + n, jnp.arange(n)])
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - logits[jnp.arange(2 * n), positive])


LOSSES = {
    "MI": lambda p, x, y: information_term("mi", x @ p, y, HEAD)[0],
    "HD": lambda p, x, y: information_term("hd", x @ p, y, HEAD)[0],
    "MI, compressed": lambda p, x, y: ij.interplay(x @ p, y, HEAD, route="classes").mutual_information,
    "coding rate": lambda p, x, y: ij.coding_rate(x @ p),
    "Barlow": lambda p, x, y: barlow(x @ p, jnp.tanh(x @ p)),
    "NT-Xent": lambda p, x, y: nt_xent(x @ p, jnp.tanh(x @ p)),
}
HEAD = np.float32(np.random.default_rng(2).normal(size=(C, D)))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_those_of_the_global_batch(name):
    """A loss of a batch that is split over devices, as the training step computes it: of the whole batch."""
    rng = np.random.default_rng(3)
    x, p = np.float32(rng.normal(size=(64, 20))), np.float32(rng.normal(size=(20, D)))
    y = rng.integers(0, C, 64)
    loss = jax.jit(jax.value_and_grad(LOSSES[name]))
    expected = loss(p, x, y)
    for devices in DEVICES:
        mesh = parallel.make_mesh(devices)
        found = loss(parallel.replicated(p, mesh), *parallel.shard_rows((x, y), mesh))
        assert_equal(found, expected, rtol=2e-4, atol=2e-5)
    # What each device would see by itself is another number: the test can tell.
    own = np.mean([loss(p, x[i : i + 16], y[i : i + 16])[0] for i in range(0, 64, 16)])
    assert abs(own - expected[0]) > 1e-2 * abs(expected[0])


@pytest.mark.parametrize("count", [8, 13])
def test_matrices_are_decomposed_where_they_lie(count):
    mesh = parallel.make_mesh(8)
    a = np.random.default_rng(0).normal(size=(count, 20, 9)).astype(np.float32)
    k = np.einsum("cnd,cne->cde", a, a)
    mapped = parallel.map_matrices(ij.matrix_entropy_from_gram, mesh)
    expected = jax.vmap(ij.matrix_entropy_from_gram)(k)
    assert_equal(mapped(k), expected)
    gradient = jax.grad(lambda k: jnp.sum(mapped(k) ** 2))(k)
    assert_equal(gradient, jax.grad(lambda k: jnp.sum(jax.vmap(ij.matrix_entropy_from_gram)(k) ** 2))(k), atol=1e-6)
    if count == 8:
        rows = jax.ShapeDtypeStruct(k.shape, k.dtype, sharding=NamedSharding(mesh, P("data")))
        compiled = jax.jit(mapped).lower(rows).compile()
        assert not collectives(compiled)
        # One matrix a device, of the eight.
        assert "f32[1,9,9]" in compiled.as_text() and "f32[8,9,9]" not in compiled.as_text()


@pytest.mark.parametrize("count", ["once", "per_image"])
def test_cross_modal_alignment_over_devices(count):
    """Three groups on two devices: the loss and its gradients are those of one."""
    rng, mesh = np.random.default_rng(0), parallel.make_mesh(2)
    x, texts, y = rng.normal(size=(8, 5)), rng.normal(size=(8, 5)), jnp.arange(8) % 3

    def loss(features, map_matrices):
        return cross_modal_alignment(*features, y, num_classes=3, count=count, map_matrices=map_matrices)

    value = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    features = np.float32(x), np.float32(texts)
    mapped = partial(parallel.map_matrices, mesh=mesh)
    for placed in (parallel.shard_rows(features, mesh), parallel.replicated(features, mesh)):
        assert_equal(value(placed, mapped), value(features, jax.vmap))


@pytest.mark.parametrize("devices", (1, 3, 8))
@pytest.mark.parametrize("kind", ["full", "low rank", "spiked", "identity", "zero"])
def test_spectrum_of_one_large_matrix(devices, kind):
    n = 70
    a = np.random.default_rng(0).normal(size=(n, 20 if kind == "low rank" else n + 10))
    a[:, 0] *= 100 if kind == "spiked" else 1
    k = {"identity": np.eye(n), "zero": np.zeros((n, n))}.get(kind, a @ a.T).astype(np.float32)
    found = np.asarray(parallel.eigenvalues(k, parallel.make_mesh(devices)))
    expected = np.linalg.eigvalsh(np.float64(k))
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(expected[-1], 1e-30))


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_spectrum_of_any_scale(scale):
    a = np.random.default_rng(0).normal(size=(40, 60))
    k = np.float32(a @ a.T * scale)
    found = np.asarray(parallel.eigenvalues(k, parallel.make_mesh(4)))
    np.testing.assert_allclose(found, np.linalg.eigvalsh(np.float64(k)), atol=1e-5 * scale * 200)


def test_the_classes_are_those_of_the_labels(data):
    z, y, _, _ = data
    mesh = parallel.make_mesh(2)
    assert_equal(parallel.neural_collapse(z, y, mesh=mesh), ij.neural_collapse(z, y))
    assert_equal(parallel.class_stats(z, labels=y, mesh=mesh), parallel.class_stats(z, y))


def test_the_large_matrix_is_never_whole_on_a_device():
    mesh, n = parallel.make_mesh(8), 256
    k = jax.ShapeDtypeStruct((n, n), jnp.float32, sharding=NamedSharding(mesh, P(None, "data")))
    compiled = jax.jit(partial(parallel.eigenvalues, mesh=mesh)).lower(k).compile()
    assert max(c.bytes for c in collectives(compiled)) <= 4 * n * n // 8  # rotations of a round
    assert f"f32[{n},{n}]" not in compiled.as_text()


def compiled_for(f, devices, n, *whole):
    mesh = parallel.make_mesh(devices)
    rows = NamedSharding(mesh, P("data"))
    z = jax.ShapeDtypeStruct((n, D), jnp.float32, sharding=rows)
    y = jax.ShapeDtypeStruct((n,), jnp.int32, sharding=rows)
    return jax.jit(partial(f, mesh=mesh)).lower(z, y, *whole).compile()


@pytest.mark.parametrize(
    "name", ["class_stats", "within", "matrix_entropy", "coding_rate", "neural_collapse", "interplay"]
)
def test_what_moves_does_not_grow_with_the_samples(name):
    measure = MEASURES[name]

    def f(z, y, mesh):
        return measure(parallel, z, y, HEAD, None, mesh=mesh)

    small, large = (bytes_moved(compiled_for(f, 8, n)) for n in (1024, 8192))
    assert small == large and sum(small.values()) > 0
    assert sum(small.values()) <= 4 * 4 * (C + 3) * D * (D + 1)


def test_estimates_do_not_depend_on_the_devices():
    rng = np.random.default_rng(0)
    n, classes, dim = 1603, 20, 48
    y = np.arange(n) % classes
    means = rng.normal(size=(classes, dim))
    z, head = np.float32(means[y] + rng.normal(size=(n, dim))), np.float32(means)
    v = np.float32(rng.normal(size=(n, 30)))
    one = ij.estimate_interplay(z, y, head, exact_side=100)
    packed = ij.estimate_interplay(z[:900], y[:900], head, exact_side=100)
    pairs = ij.estimate_joint_entropy(z, v, exact_side=100, vectors=32)
    assert one.joint_entropy.route == packed.joint_entropy.route == pairs.route == "estimate"
    mesh = parallel.make_mesh(8)
    for found, expected in (
        (parallel.estimate_interplay(z, y, head, exact_side=100, mesh=mesh), one),
        (parallel.estimate_interplay(z[:900], y[:900], head, exact_side=100, mesh=mesh), packed),
    ):
        assert_equal(found.values, expected.values, rtol=3e-5)
        assert found.joint_entropy.products == expected.joint_entropy.products
    found = parallel.estimate_joint_entropy(z, v, exact_side=100, vectors=32, mesh=mesh)
    # One device stores the matrix, several multiply with its factors: same vectors, other rounding.
    assert found.value == pytest.approx(pairs.value, abs=3 * pairs.standard_error + 1e-4)
