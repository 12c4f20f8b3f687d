"""Class moments against NumPy loops, and that it does not matter how the samples were split before merging."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infojax.measures.class_blocks import class_second_moments
from infojax.measures.moments import SCATTERS, ClassStats, class_stats
from infojax.measures.variability import within_energy


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def by_hand(z, labels, num_classes, weights=None):
    """(count, mean, squares, scatter of each class): one sample after another, float64, the definitions."""
    z = np.asarray(z, np.float64)
    weights = np.ones(len(z)) if weights is None else np.asarray(weights, np.float64)
    dim = z.shape[1]
    count, mean = np.zeros(num_classes), np.zeros((num_classes, dim))
    squares, scatter = np.zeros(num_classes), np.zeros((num_classes, dim, dim))
    for c in range(num_classes):
        members = [i for i in range(len(z)) if labels[i] == c and weights[i] > 0]
        count[c] = sum(weights[i] for i in members)
        if members:
            mean[c] = sum(weights[i] * z[i] for i in members) / count[c]
        for i in members:
            squares[c] += weights[i] * np.sum((z[i] - mean[c]) ** 2)
            scatter[c] += weights[i] * np.outer(z[i] - mean[c], z[i] - mean[c])
    return count, mean, squares, scatter


def assert_stats(actual, expected, rtol=1e-12, atol=1e-12):
    """`actual` are ClassStats, `expected` too or what `by_hand` returns."""
    if isinstance(expected, ClassStats):
        scatter = expected.scatter
        count, mean, squares = expected.count, expected.mean, expected.squares
    else:
        count, mean, squares, scatter = expected
        scatter = {None: None, "within": scatter.sum(0), "class": scatter}[actual.kind]
    close = partial(np.testing.assert_allclose, rtol=rtol, atol=atol)
    close(actual.count, count)
    close(actual.mean, mean)
    close(actual.squares, squares)
    assert (actual.scatter is None) == (scatter is None)
    if scatter is not None:
        close(actual.scatter, scatter)


@partial(jax.jit, static_argnames=("num_classes", "scatter"))
def stats_of(z, labels, weights=None, num_classes=4, scatter="class"):
    return class_stats(z, labels, num_classes, weights=weights, scatter=scatter)


def make_cases():
    """name -> (features, labels, C, weights); the shapes are few because each one compiles."""
    rng = np.random.default_rng(7)

    def normal(n, d):
        return rng.normal(size=(n, d)) * 2 + 3  # a mean that is not zero

    ones, weights = np.ones(24), rng.uniform(0.1, 3, 24)
    holes = rng.integers(0, 2, 24).astype(float)
    padded = normal(24, 3)
    padded[holes == 0] = np.nan
    padded[np.flatnonzero(holes == 0)[0]] = np.inf
    return {
        "balanced": (normal(24, 3), np.arange(24) % 4, 4, None),
        "imbalanced": (normal(24, 3), np.repeat(np.arange(4), (16, 5, 2, 1)), 4, ones),
        "classes missing": (normal(24, 3), rng.choice([1, 3], 24), 4, ones),
        "labels out of range": (normal(24, 3), rng.integers(-3, 7, 24), 4, ones),
        "weighted": (normal(24, 3), rng.integers(0, 4, 24), 4, weights),
        "nan where the weight is zero": (padded, rng.integers(0, 4, 24), 4, holes),
        "all weights zero": (normal(24, 3), np.arange(24) % 4, 4, 0 * ones),
        "one class": (normal(24, 3), np.zeros(24, int), 1, weights),
        "one dimension": (normal(24, 1), rng.integers(0, 4, 24), 4, weights),
        "fewer samples than classes": (normal(3, 2), np.array([5, 0, 5]), 7, None),
        "no sample": (np.zeros((0, 3)), np.zeros(0, int), 4, None),
    }


CASES = make_cases()


@pytest.mark.parametrize("case", CASES)
def test_moments_are_their_definition(x64, case):
    z, labels, num_classes, weights = CASES[case]
    stats = stats_of(z, labels, weights, num_classes)
    assert stats.kind == "class" and stats.num_classes == num_classes
    assert {leaf.dtype for leaf in jax.tree.leaves(stats)} == {np.dtype("float64")}
    assert_stats(stats, by_hand(z, labels, num_classes, weights))


@pytest.mark.parametrize("case", ["weighted", "labels out of range", "nan where the weight is zero"])
def test_scatters_agree_with_each_other(x64, case):
    z, labels, num_classes, weights = CASES[case]
    kinds = [stats_of(z, labels, weights, num_classes, kind) for kind in SCATTERS]
    none, within, each = (jax.tree.map(np.asarray, stats) for stats in kinds)
    assert (none.kind, within.kind, each.kind) == SCATTERS == (None, "within", "class")
    assert_stats(none, by_hand(z, labels, num_classes, weights))
    assert_stats(within, by_hand(z, labels, num_classes, weights))
    np.testing.assert_allclose(np.sum(each.scatter, 0), within.scatter, rtol=1e-13)
    np.testing.assert_allclose(np.trace(each.scatter, axis1=1, axis2=2), each.squares, rtol=1e-13)


def test_labels_may_be_any_integers():
    labels = np.arange(24) % 4
    expected = class_stats(CASES["balanced"][0], labels, 4)
    for dtype in (np.int8, np.uint8, np.uint32, list):
        given_labels = labels.tolist() if dtype is list else labels.astype(dtype)
        np.testing.assert_array_equal(class_stats(CASES["balanced"][0], given_labels, 4).mean, expected.mean)
    two = class_stats(CASES["balanced"][0], labels > 1)
    np.testing.assert_array_equal(two.mean, class_stats(CASES["balanced"][0], (labels > 1).astype(int)).mean)


@pytest.mark.parametrize("dtype, num_classes", [("uint8", 256), ("uint8", 300), ("int8", 200)])
def test_more_classes_than_the_type_of_the_labels_can_count(dtype, num_classes):
    # 256 as a uint8 is 0: every label would be "out of range", without a word
    labels = np.arange(120).astype(dtype)
    stats = class_stats(np.ones((120, 1)), labels, num_classes)
    np.testing.assert_array_equal(stats.count, np.arange(num_classes) < 120)


def test_classes_are_counted_from_concrete_labels():
    z = np.ones((4, 2))
    assert class_stats(z, [0, 2, 2, 1]).num_classes == 3
    with pytest.warns(UserWarning, match="1 of 4 labels are 5 or more"):
        assert class_stats(z, np.array([0, 2, -1, 9]), 5).num_classes == 5
    assert class_stats(z[:0], np.zeros(0, int)).num_classes == 1


def test_no_label_known_is_no_sample():
    stats = class_stats(np.ones((4, 2)), np.full(4, -1))
    assert float(stats.count.sum()) == 0


def test_weights_may_be_booleans_or_counts(x64):
    z, labels, num_classes, _ = CASES["balanced"]
    keep, times = np.arange(24) % 3 > 0, np.arange(24) % 3
    assert_stats(stats_of(z, labels, keep), by_hand(z[keep], labels[keep], num_classes))
    assert_stats(
        stats_of(z, labels, times),
        by_hand(np.repeat(z, times, 0), np.repeat(labels, times), num_classes),
    )


merged = jax.jit(ClassStats.merge)


def test_float32_moments_of_a_class_far_from_the_origin():
    # E z^2 - mean^2 has no digit left here: z^2 is 1e8 times larger than the squared distances
    rng = np.random.default_rng(0)
    z = (1e4 + rng.normal(size=(240, 4))).astype(np.float32)
    labels = np.arange(240) % 4
    expected = by_hand(z, labels, 4)
    streamed = ClassStats.init(4, 4, scatter="class")
    for start in range(0, 240, 60):
        streamed = merged(streamed, stats_of(z[start : start + 60], labels[start : start + 60]))
    # Neighbouring floats are 1e-3 apart at 1e4. Within a batch that only moves the centre (an error
    # of second order); the differences of the batches' means, about .3, are known to 1e-3.
    for stats, tolerance in ((stats_of(z, labels), 1e-5), (streamed, 3e-4)):
        np.testing.assert_allclose(stats.mean, expected[1], rtol=1e-7)
        np.testing.assert_allclose(stats.squares, expected[2], rtol=tolerance)
        np.testing.assert_allclose(stats.scatter, expected[3], rtol=tolerance, atol=60 * tolerance)


def test_float32_moments_of_a_large_collapsed_class():
    # The sum of 50,000 numbers near 1e3 is off by more than their spread is wide.
    rng = np.random.default_rng(0)
    z, labels = (1e3 + 1e-2 * rng.normal(size=(50_000, 2))).astype(np.float32), np.zeros(50_000, int)
    _, mean, squares, scatter = by_hand(z, labels, 1)
    whole = jax.jit(partial(class_stats, num_classes=1, scatter="within"))
    for stats in (class_stats(z, labels, 1, scatter="within"), whole(z, labels)):  # in blocks, and whole
        np.testing.assert_allclose(stats.mean, mean, rtol=1e-7)
        np.testing.assert_allclose(stats.squares, squares, rtol=1e-4)
        np.testing.assert_allclose(stats.scatter, scatter[0], rtol=0, atol=1e-4 * squares[0])


def test_float32_sums_keep_small_numbers_next_to_large_ones():
    # From 2^24 on a float32 total takes no more ones.
    weights = np.ones(40_000, np.float32)
    weights[0] = 2**24
    z, labels = np.ones((40_000, 1), np.float32), np.zeros(40_000, int)
    whole = jax.jit(partial(class_stats, num_classes=1))
    for stats in (class_stats(z, labels, 1, weights=weights), whole(z, labels, weights=weights)):
        np.testing.assert_allclose(stats.count, 2**24 + 39_999, rtol=3e-4)
        far = ClassStats(stats.count, jnp.zeros((1, 1)), stats.squares)
        for energy in (within_energy, jax.jit(within_energy)):
            np.testing.assert_allclose(energy(jnp.ones((1, 1)), far, z, labels, weights), 2**24 + 39_999, rtol=3e-4)


# Merging. Shapes stay fixed and weights say which samples a chunk holds, so that nothing compiles
# again; sizes of chunks are varied below.

SAMPLES, CLASSES, DIM = 20, 4, 3
POINTS = np.random.default_rng(3).normal(size=(SAMPLES, DIM)) * 2 + 5
split_in = partial(st.lists, min_size=SAMPLES, max_size=SAMPLES)
labellings = split_in(st.integers(-1, CLASSES))


@given(labellings, split_in(st.integers(0, 2)), st.permutations([0, 1, 2]))
def test_merge_is_associative_and_commutative(labels, chunks, order):
    labels, chunks = np.array(labels), np.array(chunks)
    with jax.enable_x64(True):
        whole = by_hand(POINTS, labels, CLASSES)
        parts = [stats_of(POINTS, labels, (chunks == k).astype(float)) for k in range(3)]
        a, b, c = (parts[k] for k in order)
        for stats in (merged(merged(a, b), c), merged(a, merged(b, c)), merged(c, merged(b, a))):
            assert_stats(stats, whole)


@given(labellings)
def test_no_samples_are_the_identity_of_merge(labels):
    with jax.enable_x64(True):
        some = stats_of(POINTS, np.array(labels), np.ones(SAMPLES))
        none = ClassStats.init(CLASSES, DIM, scatter="class", dtype=jnp.float64)
        for stats in (merged(some, none), merged(none, some)):
            for actual, expected in zip(jax.tree.leaves(stats), jax.tree.leaves(some), strict=True):
                np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("size, scatter", [(1, "within"), (7, "class"), (50, None)])
def test_size_of_chunks_is_immaterial(x64, size, scatter):
    labels = np.sort(np.arange(SAMPLES) % 5) - 1  # sorted: most chunks lack most classes
    weights = 0.5 + np.arange(SAMPLES) / 10
    stats = ClassStats.init(CLASSES, DIM, scatter=scatter)
    for start in range(0, SAMPLES, size):
        chunk = slice(start, start + size)
        stats = stats.update(POINTS[chunk], labels[chunk], weights[chunk])
    assert_stats(stats, by_hand(POINTS, labels, CLASSES, weights))


def test_updates_can_be_scanned():
    blocks = POINTS.reshape(4, 5, DIM).astype(np.float32)
    labels = (np.arange(SAMPLES) % CLASSES).reshape(4, 5)

    @jax.jit
    def stream(blocks, labels):
        init = ClassStats.init(CLASSES, DIM, scatter="within")
        return jax.lax.scan(lambda s, batch: (s.update(*batch), None), init, (blocks, labels))[0]

    expected = by_hand(blocks.reshape(SAMPLES, DIM), labels.ravel(), CLASSES)
    assert_stats(stream(blocks, labels), expected, rtol=1e-5, atol=1e-5)


def test_gradient_through_a_merge(x64):
    labels = np.repeat(np.arange(CLASSES), (2, 3, 5, 10))
    first = np.arange(SAMPLES) < 9  # class 3 is in the second chunk only, 0 and 1 in the first only
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: ClassStats.init(CLASSES, DIM, scatter="class"))
    cotangent = jax.tree.map(lambda s: rng.normal(size=s.shape), shapes)

    def inner(stats):
        pairs = zip(jax.tree.leaves(stats), jax.tree.leaves(cotangent), strict=True)
        return sum(jnp.sum(a * b) for a, b in pairs)

    def in_two(z):
        parts = [stats_of(z, labels, weights.astype(float)) for weights in (first, ~first)]
        return inner(parts[0].merge(parts[1]))

    whole = jax.jit(jax.value_and_grad(lambda z: inner(stats_of(z, labels))))(POINTS)
    split = jax.jit(jax.value_and_grad(in_two))(POINTS)
    np.testing.assert_allclose(split[0], whole[0], rtol=1e-12)
    np.testing.assert_allclose(split[1], whole[1], rtol=1e-10, atol=1e-10)
    assert np.abs(whole[1]).max(axis=1).min() > 1e-3  # it does depend on every sample


@pytest.mark.parametrize("scatter", SCATTERS)
def test_reduce_over_a_mapped_axis(x64, scatter):
    labels = np.repeat(np.arange(CLASSES), (2, 3, 5, 10))

    @jax.jit
    @partial(jax.vmap, axis_name="rows")
    def reduced(z, y):
        return class_stats(z, y, CLASSES, scatter=scatter).reduce("rows")

    in_order = np.arange(SAMPLES).reshape(4, 5)  # each row of the axis lacks two or three classes
    round_robin = np.arange(SAMPLES).reshape(5, 4).T
    for deal in (in_order, round_robin):
        stats = jax.tree.map(np.asarray, reduced(POINTS[deal], labels[deal]))
        for row in range(4):
            assert_stats(jax.tree.map(lambda x: x[row], stats), by_hand(POINTS, labels, CLASSES))  # noqa: B023


# Second moments of the classes


second_moments = jax.jit(class_second_moments, static_argnums=2)


@pytest.mark.parametrize("n, num_classes, dim", [(0, 3, 2), (1, 1, 1), (5, 8, 3), (37, 4, 1), (40, 2, 30), (60, 9, 4)])
def test_class_second_moments_are_a_one_hot_einsum(x64, n, num_classes, dim):
    rng = np.random.default_rng(n)
    rows, anyhow = rng.normal(size=(n, dim)), rng.integers(0, num_classes, n)
    mostly_first = np.where(rng.random(n) < 0.8, 0, anyhow)
    for labels in (anyhow, mostly_first, np.zeros(n, int), np.full(n, num_classes - 1)):
        one_hot = np.eye(num_classes)[labels]
        moments = second_moments(rows, labels, num_classes)
        assert moments.shape == (num_classes, dim, dim)
        np.testing.assert_allclose(moments, np.einsum("nc,nd,ne->cde", one_hot, rows, rows), atol=1e-12)


@given(st.lists(st.integers(0, 5), min_size=23, max_size=23))
def test_class_second_moments_of_any_labelling(labels):
    with jax.enable_x64(True):
        rows = np.random.default_rng(0).normal(size=(23, 3))
        one_hot = np.eye(6)[np.array(labels)]
        np.testing.assert_allclose(
            second_moments(rows, np.array(labels), 6),
            np.einsum("nc,nd,ne->cde", one_hot, rows, rows),
            atol=1e-12,
        )


def test_class_second_moments_cost_no_more_than_one_pooled_product():
    n, num_classes, dim = 1024, 64, 16
    shapes = jax.ShapeDtypeStruct((n, dim), jnp.float32), jax.ShapeDtypeStruct((n,), jnp.int32)
    flops = second_moments.lower(*shapes, num_classes).cost_analysis()["flops"]
    pooled = 2 * n * dim * dim
    assert flops < 3 * pooled  # a one-hot product needs 64 of them


# Blocks of rows


def test_rows_beyond_one_block(x64):
    n = 4096 + 300
    rng = np.random.default_rng(5)
    z, labels, weights = rng.normal(size=(n, 2)), rng.integers(-1, 3, n), rng.uniform(0, 2, n)
    root = np.array([[2.0, 0.5], [0.5, 1.0]])
    inverse = root @ root.T
    stats = class_stats(z, labels, 3, weights=weights)

    def energy(z):
        return within_energy(root, stats, z, labels, weights)

    mean = np.asarray(stats.mean)
    known = labels >= 0
    d = z[known] - mean[labels[known]]
    each = weights[known] * np.einsum("ni,ij,nj->n", d, inverse, d)
    expected = np.bincount(labels[known], each, minlength=3)
    gradient = np.zeros_like(z)
    gradient[known] = 2 * weights[known, None] * d @ inverse
    value, pull = jax.vjp(jax.jit(energy), z)
    np.testing.assert_allclose(energy(z), expected, rtol=1e-12)  # eager and compiled differ in how
    np.testing.assert_allclose(value, expected, rtol=1e-12)  # they walk through the blocks
    np.testing.assert_allclose(pull(jnp.ones(3))[0], gradient, atol=1e-12)


# Errors


def test_errors_name_the_argument_and_what_was_expected():
    z, labels = np.ones((6, 2)), np.arange(6) % 3
    stats = class_stats(z, labels)
    cases = [
        (lambda: class_stats(z, labels[:5]), r"labels must have shape \(6,\).*got \(5,\)"),
        (lambda: class_stats(z, labels[:, None]), r"labels must have shape \(6,\).*got \(6, 1\)"),
        (lambda: class_stats(z, labels.astype(float)), "labels must be integers; got float"),
        (lambda: class_stats(z[0], labels), r"features must be \(N, D\).*got shape \(2,\)"),
        (lambda: class_stats(z, labels, weights=np.ones(5)), r"weights must have shape \(6,\).*got \(5,\)"),
        (lambda: class_stats(z, labels, weights=np.ones((6, 1))), r"weights must have shape \(6,\)"),
        (lambda: class_stats(z, labels, scatter="total"), "scatter must be one of .*within.*got 'total'"),
        (lambda: ClassStats.init(3, 2, scatter="total"), "scatter must be one of .*within.*got 'total'"),
        (lambda: jax.jit(class_stats)(z, labels), "num_classes must be given inside jit"),
        (lambda: jax.vmap(class_stats)(z[None], labels[None]), "num_classes must be given inside jit"),
        (lambda: ClassStats.init(3, 4).update(z, labels), "features have 2 columns, the statistics 4"),
        (lambda: stats.update(z, labels[:5]), r"labels must have shape \(6,\)"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="real array, got complex"):
        class_stats(z * 1j, labels)


def test_different_kinds_do_not_merge():
    z, labels = np.ones((6, 2)), np.arange(6) % 3
    kinds = {kind: class_stats(z, labels, scatter=kind) for kind in SCATTERS}
    for a in SCATTERS:
        for b in SCATTERS:
            if a != b:
                with pytest.raises(ValueError, match=f"cannot merge .*{a!r}.*{b!r}"):
                    kinds[a].merge(kinds[b])
    for other in (class_stats(z, labels, 4), class_stats(z[:, :1], labels)):
        with pytest.raises(ValueError, match="cannot merge statistics of shape"):
            kinds[None].merge(other)


@pytest.mark.parametrize("far, weight", [(30.0, 1.0), (1e4, 1.0), (1e3, 1e-6)])
def test_a_first_sample_far_from_its_class(far, weight):
    """Sums are taken about it first: the spread of the class must not be lost in float32."""
    rng = np.random.default_rng(0)
    labels = np.arange(6000) % 3
    z = rng.normal(size=(6000, 5)).astype(np.float32)
    w = np.ones(6000, np.float32)
    z[:3] += np.float32(far)
    w[:3] = weight
    found = class_stats(z, labels, 3, weights=w)
    with jax.enable_x64(True):
        expected = class_stats(z.astype(np.float64), labels, 3, weights=w.astype(np.float64))
    np.testing.assert_allclose(found.squares, expected.squares, rtol=5e-6)
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-6 * max(far / 1e3, 1))


def test_second_derivatives_at_exact_collapse():
    """d^2 / dz^2 of the squares of n equal rows is 2 (I - 1 1^T / n)."""
    z = jnp.ones((3, 1)) * 2.5
    hessian = jax.hessian(lambda z: class_stats(z, jnp.zeros(3, int), 1).squares[0])(z).reshape(3, 3)
    np.testing.assert_allclose(hessian, 2 * (np.eye(3) - 1 / 3), atol=1e-6)
