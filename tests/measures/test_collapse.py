"""Collapse statistics against NumPy, scikit-learn and exact simplex ETFs; and one table that holds every measure of
classes to what all of them promise."""

import functools
import inspect
import types
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import davies_bouldin_score
from sklearn.neighbors import NearestCentroid

import infojax.measures
from infojax.measures import collapse, moments, one_pass, passes, separation, simplex, variability
from infojax.measures.collapse import collapse_from_passes, neural_collapse
from infojax.measures.moments import ClassStats, class_stats
from infojax.measures.one_pass import nc1_one_pass
from infojax.measures.passes import SecondPass, nc4, second_pass
from infojax.measures.separation import cdnv, cdnv_from_stats, davies_bouldin, davies_bouldin_from_sums
from infojax.measures.simplex import nc2, nc2_from_means, nc2_from_stats, nc3, nc3_from_stats
from infojax.measures.variability import (
    NC1_CONVENTIONS,
    between_inverse,
    equi_separation,
    nc1,
    nc1_from_energy,
    nc1_from_stats,
    within_energy,
)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


# Data: 60 samples of six classes in eight dimensions, a head and a bias


def sample(counts, dim=8, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    means, common = rng.normal(size=(len(counts), dim)), 2 * rng.normal(size=dim)
    z = common + means[labels] + 0.7 * rng.normal(size=(len(labels), dim))
    head = means - means.mean(0) + 0.5 * rng.normal(size=means.shape)
    return z, labels, head, rng.normal(size=len(counts))


DATA = {
    "balanced": sample((10,) * 6),
    "imbalanced": sample((24, 15, 9, 6, 4, 2)),
    "classes missing": sample((30, 0, 16, 0, 10, 4)),
    "fewer dimensions than classes": sample((24, 15, 9, 6, 4, 2), dim=3),
}


def turned_simplex(num_classes, dim=None, seed=0):
    """C unit vectors with cosine -1 / (C - 1), (C, dim), turned at random."""
    rows = np.eye(num_classes) - 1 / num_classes
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    dim = num_classes if dim is None else dim
    turned, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))
    coordinates = np.linalg.svd(rows)[2][: num_classes - 1]  # the subspace the simplex spans
    return rows @ coordinates.T @ turned[: num_classes - 1]


all_of = jax.jit(neural_collapse)
from_means = jax.jit(nc2_from_means)


# NumPy, class by class; classes without samples are left out


def class_rows(z, labels):
    return {c: z[labels == c] for c in np.unique(labels)}


def centred_means(z, labels):
    means = np.stack([rows.mean(0) for rows in class_rows(z, labels).values()])
    return means - means.mean(0)


def equinorm(m):
    norms = np.linalg.norm(m, axis=1)
    return norms.std(ddof=1) / norms.mean()


def equiangularity(m):
    total, c = 0, len(m)
    for i in range(c):
        for j in range(c):
            if i != j:
                cosine = m[i] @ m[j] / np.linalg.norm(m[i]) / np.linalg.norm(m[j])
                total += abs(cosine + 1 / (c - 1))
    return total / (c * (c - 1))


def distance_to_etf(a):
    c = len(a)
    etf = (np.eye(c) - np.ones((c, c)) / c) / np.sqrt(c - 1)
    return np.linalg.norm(a / np.linalg.norm(a) - etf)


def self_duality(m, w):
    return np.linalg.norm(w / np.linalg.norm(w) - m / np.linalg.norm(m)) ** 2


def disagreement(z, labels, head, bias):
    centroids = NearestCentroid().fit(z, labels)
    return np.mean(np.argmax(z @ head.T + bias, axis=1) != centroids.predict(z))


def class_distance_normalised_variance(z, labels):
    rows, pairs = class_rows(z, labels), []
    for i, a in rows.items():
        for j, b in rows.items():
            if i != j:
                spread = ((a - a.mean(0)) ** 2).sum(1).mean() + ((b - b.mean(0)) ** 2).sum(1).mean()
                pairs.append(spread / (2 * np.sum((a.mean(0) - b.mean(0)) ** 2)))
    return np.mean(pairs)


@pytest.mark.parametrize("data", DATA)
def test_all_statistics_are_their_definition(x64, data):
    z, labels, head, bias = DATA[data]
    result = all_of(z, labels, head, bias)
    m = centred_means(z, labels)
    w = head[np.unique(labels)]
    expected = dict(
        nc2_equinorm=equinorm(m),
        nc2_equiangularity=equiangularity(m),
        nc2_etf_distance=distance_to_etf(m @ m.T),
        nc2_equinorm_head=equinorm(w),
        nc2_equiangularity_head=equiangularity(w),
        nc2_etf_distance_head=distance_to_etf(w @ w.T),
        nc3=self_duality(m, w),
        nc3_etf=distance_to_etf(w @ m.T),
        nc4=disagreement(z, labels, head, bias),
        cdnv=class_distance_normalised_variance(z, labels),
        davies_bouldin=davies_bouldin_score(z, labels),
    )
    assert set(expected) == set(result._fields) - {"nc1", "per_class"}  # nc1: test_variability.py
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(result, name), value, rtol=1e-10, err_msg=name)
    assert 0.05 < expected["nc4"] < 0.95


@pytest.mark.parametrize("data", DATA)
def test_values_of_each_class_aggregate(x64, data):
    z, labels, head, bias = DATA[data]
    result = all_of(z, labels, head, bias)
    each = result.per_class
    count = np.bincount(labels, minlength=6)
    np.testing.assert_array_equal(each.count, count)
    for name, value in each._asdict().items():
        if name != "count":
            np.testing.assert_array_equal(np.isnan(value), count == 0, err_msg=name)
    each = each._replace(**{name: np.asarray(value)[count > 0] for name, value in each._asdict().items()})
    share = each.count / count.sum()
    close = partial(np.testing.assert_allclose, rtol=1e-12)
    close(np.sum(share * each.nc1), result.nc1)
    close(np.std(each.nc2_norm, ddof=1) / np.mean(each.nc2_norm), result.nc2_equinorm)
    close(np.mean(each.nc2_angle), result.nc2_equiangularity)
    close(np.sum(each.nc3), result.nc3)
    close(np.sum(share * each.nc4), result.nc4)
    close(np.mean(each.cdnv), result.cdnv)
    close(each.nc2_norm, np.linalg.norm(centred_means(z, labels), axis=1))


def test_neural_collapse_is_the_single_functions(x64):
    z, labels, head, bias = DATA["imbalanced"]
    weights = np.random.default_rng(0).uniform(0, 2, 60)

    @jax.jit
    def both(z, labels, head, bias, weights):
        whole = neural_collapse(z, labels, head, bias, weights=weights)
        kwargs = dict(weights=weights)
        means, own = nc2(z, labels, 6, **kwargs), nc2_from_means(head)
        single = dict(
            nc1=nc1(z, labels, 6, **kwargs),
            nc2_equinorm=means.equinorm,
            nc2_equiangularity=means.equiangularity,
            nc2_etf_distance=means.etf_distance,
            nc2_equinorm_head=own.equinorm,
            nc2_equiangularity_head=own.equiangularity,
            nc2_etf_distance_head=own.etf_distance,
            nc3=nc3(z, labels, head, **kwargs),
            nc3_etf=nc3(z, labels, head, convention="etf", **kwargs),
            nc4=nc4(z, labels, head, bias, **kwargs),
            cdnv=cdnv(z, labels, 6, **kwargs),
            davies_bouldin=davies_bouldin(z, labels, 6, **kwargs),
        )
        headless = neural_collapse(z, labels, num_classes=6, weights=weights)
        conventions = {
            c: (
                neural_collapse(z, labels, head, convention=c, weights=weights).nc1,
                nc1(z, labels, 6, convention=c, weights=weights),
            )
            for c in NC1_CONVENTIONS
        }
        return whole, single, headless, conventions

    whole, single, headless, conventions = both(z, labels, head, bias, weights)
    assert set(single) == set(whole._fields) - {"per_class"}
    for name, value in single.items():
        np.testing.assert_allclose(getattr(whole, name), value, rtol=1e-12, err_msg=name)
    for name, (a, b) in conventions.items():
        np.testing.assert_allclose(a, b, rtol=1e-12, err_msg=name)
    of_the_head = OF_THE_HEAD | {"nc3", "nc3_etf", "nc4"}
    for name in set(whole._fields) - {"per_class"}:
        if name in of_the_head:
            assert getattr(headless, name) is None, name
        else:
            np.testing.assert_allclose(getattr(headless, name), getattr(whole, name), rtol=1e-12)
    assert headless.per_class.nc3 is None and headless.per_class.nc4 is None


def test_second_pass_streams(x64):
    z, labels, head, bias = DATA["imbalanced"]

    @jax.jit
    def streamed(z, labels, weights):
        stats = ClassStats.init(6, 8)
        batches = list(zip(z, labels, weights, strict=True))
        for batch in batches:
            stats = stats.update(*batch)
        inverse = between_inverse(stats)
        parts = [second_pass(stats, a, y, head, bias, inverse=inverse, weights=w) for a, y, w in batches]
        sums = SecondPass(*(sum(fields) for fields in zip(*parts, strict=True)))
        return collapse_from_passes(stats, sums, head)

    # three blocks of 23, the last one padded with rows that must not count
    padded = np.concatenate([z, np.full((9, 8), np.nan)]).reshape(3, 23, 8)
    owners = np.concatenate([labels, np.arange(9) % 6]).reshape(3, 23)
    weights = (np.arange(69) < 60).astype(float).reshape(3, 23)
    actual, expected = streamed(padded, owners, weights), all_of(z, labels, head, bias)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11)


# At collapse


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100])
def test_nc2_vanishes_at_a_simplex_etf(x64, num_classes):
    etf = turned_simplex(num_classes)
    cosines = etf @ etf.T
    np.testing.assert_allclose(cosines[~np.eye(num_classes, dtype=bool)], -1 / (num_classes - 1), atol=1e-12)
    result = from_means(3 * etf)
    np.testing.assert_allclose(result[:3], 0, atol=1e-12)
    np.testing.assert_allclose(result.norms, 3, rtol=1e-12)
    np.testing.assert_allclose(result.angles, 0, atol=1e-12)


@pytest.mark.parametrize("dim", [5, 8])  # exactly what six classes span, and more
@pytest.mark.parametrize("counts", [(10,) * 6, (24, 15, 9, 6, 4, 2)])
def test_everything_vanishes_at_neural_collapse(x64, dim, counts):
    # class counts do not matter: NC2 to NC4 know class means only
    labels, etf = np.repeat(np.arange(6), counts), turned_simplex(6, 8)
    if dim == 5:
        etf = np.concatenate([turned_simplex(6, 5), np.zeros((6, 3))], axis=1)
    result = all_of((5 + 2 * etf)[labels], labels, 0.3 * etf, -0.3 * 5 * etf.sum(1))
    for name, value in result._asdict().items():
        if name != "per_class":
            np.testing.assert_allclose(value, 0, atol=1e-12, err_msg=name)
    for name in ("nc1", "nc2_angle", "nc3", "nc4", "cdnv"):
        np.testing.assert_allclose(getattr(result.per_class, name), 0, atol=1e-12, err_msg=name)


def test_orthogonal_head_rows_are_not_a_simplex(x64):
    # the maximiser of mutual information: equal norms, cosine 0 instead of -1 / (C - 1)
    result = from_means(np.eye(10)[:, ::-1] * 2)
    np.testing.assert_allclose(result.equinorm, 0, atol=1e-15)
    np.testing.assert_allclose(result.equiangularity, 1 / 9, rtol=1e-13)
    # the cosine of I and I - J / C as vectors is sqrt((C - 1) / C)
    np.testing.assert_allclose(result.etf_distance, np.sqrt(2 - 2 * np.sqrt(0.9)), rtol=1e-13)


def test_spread_of_the_norms_divides_by_one_less_than_the_classes(x64):
    # Papyan's numpy.std has ddof=1: lengths 1 and 3 have mean 2 and deviation sqrt(2), not 1
    means = np.zeros((10, 10))
    means[[0, 1], [0, 0]] = 1, -3
    result = from_means(means, np.arange(10) < 2)
    np.testing.assert_allclose(result.equinorm, np.sqrt(2) / 2, rtol=1e-14)
    np.testing.assert_allclose(result.equiangularity, 0, atol=1e-15)


def test_duality_depends_on_sign_but_not_on_scale(x64):
    z, labels, *_ = DATA["balanced"]
    dual = centred_means(z, labels)
    for factor, papyan in ((0.01, 0), (100, 0), (-1, 4)):
        result = all_of(z, labels, factor * dual, np.zeros(6))
        np.testing.assert_allclose(result.nc3, papyan, atol=1e-12)
    swapped = all_of(z, labels, dual[::-1].copy(), np.zeros(6))
    assert swapped.nc3 > 1 and swapped.nc3_etf > 0.5


# NC4


def nearest_class_shares(z, labels):
    """(C, C) share of the samples of class c that NC4's own nearest centre puts into class k, with heads that
    always answer k."""
    shares = []
    for k in range(6):
        answer = all_of(z, labels, np.zeros((6, z.shape[1]), z.dtype), (np.arange(6) == k).astype(z.dtype))
        shares.append(1 - np.asarray(answer.per_class.nc4))
    return np.stack(shares, axis=1)


@pytest.mark.parametrize("data", ["imbalanced", "classes missing"])
def test_nearest_class_centre_agrees_with_scikit_learn(x64, data):
    z, labels, *_ = DATA[data]
    predicted = NearestCentroid().fit(z, labels).predict(z)
    shares = nearest_class_shares(z, labels)
    for c in np.unique(labels):
        expected = np.bincount(predicted[labels == c], minlength=6) / np.sum(labels == c)
        np.testing.assert_allclose(shares[c], expected, atol=1e-14)
    assert np.isnan(shares[np.bincount(labels, minlength=6) == 0]).all()


def test_absent_classes_are_never_the_nearest(x64):
    # an absent class's mean is stored as zeros, and zero lies nearer to these samples than most
    rng = np.random.default_rng(0)
    labels = np.repeat([1, 4], 30)
    z = (
        0.01 * rng.normal(size=(60, 8))
        + np.where(labels == 1, 1, -1)[:, None] * rng.permutation(np.arange(60))[:, None]
    )
    shares = nearest_class_shares(z, labels)
    np.testing.assert_array_equal(shares[[1, 4]][:, [0, 2, 3, 5]], 0)
    np.testing.assert_allclose(shares[[1, 4]].sum(1), 1)


def test_a_head_may_answer_with_an_absent_class(x64):
    z, labels, *_ = DATA["classes missing"]
    result = all_of(z, labels, np.zeros((6, 8)), (np.arange(6) == 3).astype(float))  # always class 3
    assert float(result.nc4) == 1


def test_bias_counts(x64):
    labels, etf = np.repeat(np.arange(6), 10), turned_simplex(6, 8)
    z, head = (4 * etf)[labels], etf
    assert float(all_of(z, labels, head, np.zeros(6)).nc4) == 0
    # now the head answers 0 unless another class leads by more than 10: never
    always_first = 10.0 * (np.arange(6) == 0)
    assert float(all_of(z, labels, head, always_first).nc4) == pytest.approx(5 / 6, abs=1e-15)
    # and only with it the head of shifted features is the nearest class centre
    shift = 10 * etf[0]
    undone = -head @ shift
    assert float(all_of(z + shift, labels, head, undone).nc4) == 0
    assert float(all_of(z + shift, labels, head, np.zeros(6)).nc4) == pytest.approx(5 / 6, abs=1e-15)
    assert float(jax.jit(nc4)(z + shift, labels, head)) == pytest.approx(5 / 6, abs=1e-15)


def test_nearest_class_centre_in_float32_far_from_the_origin():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 6
    z = (100 + rng.normal(size=(6, 8))[labels] + 0.3 * rng.normal(size=(60, 8))).astype(np.float32)
    predicted = NearestCentroid().fit(z.astype(np.float64), labels).predict(z.astype(np.float64))
    head = 10 * np.eye(6, 8, dtype=np.float32)
    expected = np.mean(np.argmax(z.astype(np.float64) @ head.T, axis=1) != predicted)
    assert float(all_of(z, labels, head, np.zeros(6, np.float32)).nc4) == pytest.approx(expected, abs=1e-6)


# Degenerate input


def scalars(result):
    return {name: float(value) for name, value in result._asdict().items() if name != "per_class"}


OF_THE_HEAD = {"nc2_equinorm_head", "nc2_equiangularity_head", "nc2_etf_distance_head"}


def test_class_means_that_coincide_with_spread_around_them(x64):
    z, labels, head, bias = DATA["balanced"]
    z = z.copy()
    z[labels == 1] = z[labels == 0]
    result = scalars(all_of(z, labels, head, bias))
    assert {name for name, value in result.items() if value == np.inf} == {"cdnv", "davies_bouldin"}
    assert sum(np.isfinite(list(result.values()))) == len(result) - 2


@pytest.mark.parametrize("value", [0.0, 0.1, 0.25, 3.0])
def test_class_means_that_coincide_without_spread(x64, value):
    z, labels, head, bias = DATA["balanced"]
    z = z.copy()
    z[(labels == 0) | (labels == 1)] = value  # two classes in one point: 0 / 0 for this pair
    result = scalars(all_of(z, labels, head, bias))
    assert {name for name, value in result.items() if np.isnan(value)} == {"cdnv", "davies_bouldin"}
    z[:] = value  # all classes in one point
    result = all_of(z, labels, head, bias)
    defined = {name for name, value in scalars(result).items() if not np.isnan(value)}
    assert defined == OF_THE_HEAD | {"nc4"}


def test_values_of_each_class_are_undefined_where_their_aggregate_is(x64):
    z, labels, head, bias = DATA["balanced"]
    each = all_of(np.full_like(z, 0.5), labels, head, bias).per_class
    np.testing.assert_array_equal(each.nc2_norm, 0)
    for name in ("nc1", "nc2_angle", "nc3", "cdnv"):
        assert np.isnan(getattr(each, name)).all(), name


@pytest.mark.parametrize("present", [0, 1])
def test_fewer_than_two_classes(x64, present):
    z, labels, head, bias = DATA["balanced"]
    labels = np.full(60, 2 if present else -1)
    result = scalars(all_of(z, labels, head, bias))
    defined = {"nc4"} if present else set()
    assert {name for name, value in result.items() if not np.isnan(value)} == defined


def test_a_head_of_zeros(x64):
    z, labels, head, bias = DATA["balanced"]
    result = scalars(all_of(z, labels, 0 * head, bias))
    undefined = {name for name, value in result.items() if np.isnan(value)}
    assert undefined == OF_THE_HEAD | {"nc3", "nc3_etf"}


def test_classes_close_to_each_other_are_not_the_same_class():
    # 3e-4 apart where the others are 1 apart: float32 resolves that to three digits
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 6
    means = turned_simplex(6, 8)
    means[1] = means[0] + 3e-4 * turned_simplex(6, 8, seed=1)[0]
    noise = rng.normal(size=(60, 8))
    for c in range(6):
        noise[labels == c] -= noise[labels == c].mean(0)
    z = (means[labels] + 1e-4 * noise).astype(np.float32)
    both = jax.jit(lambda z: (cdnv(z, labels, 6), davies_bouldin(z, labels, 6)))
    exact = z.astype(np.float64)
    np.testing.assert_allclose(
        both(z),
        [class_distance_normalised_variance(exact, labels), davies_bouldin_score(exact, labels)],
        rtol=5e-3,
    )


@pytest.mark.parametrize("shift", [0.7, 3.3])
def test_a_class_mean_in_the_centre_has_no_direction(x64, shift):
    # its centred mean is zero or a rounding error, depending on where the origin lies
    _, labels, head, bias = DATA["balanced"]
    a, b = np.random.default_rng(0).normal(size=(2, 8))
    means = np.stack([a, -a, b, -b, 0 * a, 0 * a])
    here, there = (all_of(m[labels], labels, head, bias) for m in (means, means + shift))
    np.testing.assert_allclose(there.nc2_equiangularity, here.nc2_equiangularity, rtol=1e-10)
    np.testing.assert_allclose(there.per_class.nc2_angle, here.per_class.nc2_angle, rtol=1e-10)


@pytest.mark.parametrize("what", ["features", "head", "bias"])
def test_nan_is_not_hidden(x64, what):
    z, labels, head, bias = (x.copy() for x in DATA["balanced"])
    {"features": z, "head": head, "bias": bias}[what].flat[13 if what != "bias" else 2] = np.nan
    result = scalars(all_of(z, labels, head, bias))
    expected = {
        "features": set(result) - OF_THE_HEAD,
        "head": OF_THE_HEAD | {"nc3", "nc3_etf", "nc4"},
        "bias": {"nc4"},
    }[what]
    assert {name for name, value in result.items() if np.isnan(value)} == expected
    if what == "features":  # every class is centred on the mean of the class means
        assert np.isnan(all_of(z, labels, head, bias).per_class.nc2_norm).all()


# The table: every function of class moments, variability and collapse that infojax.measures exports.
# Class 4 of 5 has no samples.

CLASSES, DIM = 5, 6


class Input:
    """Features, labels, weights, head, bias; and what several rows of the table start from, computed once."""

    def __init__(self, z, labels, weights, head, bias):
        self.z, self.labels, self.weights, self.head, self.bias = z, labels, weights, head, bias
        self.samples = z, labels, CLASSES

    @functools.cached_property
    def stats(self):
        return class_stats(*self.samples, weights=self.weights, scatter="class")

    @functools.cached_property
    def inverse(self):
        return between_inverse(self.stats)

    @functools.cached_property
    def energy(self):
        return within_energy(self.inverse, self.stats, self.z, self.labels, self.weights)

    @functools.cached_property
    def sums(self):
        kwargs = dict(inverse=self.inverse, weights=self.weights)
        return second_pass(self.stats, self.z, self.labels, self.head, self.bias, **kwargs)

    @property
    def halves(self):
        middle = len(self.z) // 2
        parts = slice(0, middle), slice(middle, None)
        return [[x[part] for x in (self.z, self.labels, self.weights)] for part in parts]

    def updated(self):
        first, second = self.halves
        return ClassStats.init(CLASSES, DIM, scatter="class").update(*first).update(*second)

    def merged(self):
        first, second = (
            class_stats(z, labels, CLASSES, weights=weights, scatter="class") for z, labels, weights in self.halves
        )
        return first.merge(second)


@jax.jit
def raw_moments(z, labels, weights):
    """Counts, sums and second moments, as a streaming program would keep them."""
    rows = jnp.where(weights[:, None] > 0, z, 0)
    rows = rows.astype(jnp.promote_types(rows.dtype, jnp.float32))
    weighed = (labels[:, None] == jnp.arange(CLASSES)[None]) * jnp.asarray(weights, rows.dtype)[:, None]
    product = partial(jnp.matmul, precision="highest")
    return weighed.sum(0), product(weighed.T, rows), product(rows.T * weighed.sum(1)[None], rows)


TABLE = {
    "class_stats": lambda x: x.stats,
    "ClassStats.update": Input.updated,
    "ClassStats.merge": Input.merged,
    "between_inverse": lambda x: x.inverse,
    "within_energy": lambda x: x.energy,
    "nc1_from_energy": lambda x: nc1_from_energy(x.energy, x.stats),
    **{
        f"nc1 {name}": lambda x, name=name: nc1(*x.samples, convention=name, weights=x.weights)
        for name in NC1_CONVENTIONS
    },
    "nc1_from_stats": lambda x: nc1_from_stats(x.stats),
    "nc1_one_pass": lambda x: nc1_one_pass(*raw_moments(x.z, x.labels, x.weights)).value,
    "equi_separation": lambda x: equi_separation(x.energy[:4]),  # four numbers will do as layers
    "nc2_from_means": lambda x: nc2_from_means(x.head),
    "nc2_from_stats": lambda x: nc2_from_stats(x.stats),
    "nc2": lambda x: nc2(*x.samples, weights=x.weights),
    "nc3_from_stats": lambda x: nc3_from_stats(x.stats, x.head),
    "nc3": lambda x: nc3(x.z, x.labels, x.head, weights=x.weights),
    "nc3 etf": lambda x: nc3(x.z, x.labels, x.head, convention="etf", weights=x.weights),
    "nc4": lambda x: nc4(x.z, x.labels, x.head, x.bias, weights=x.weights),
    "cdnv_from_stats": lambda x: cdnv_from_stats(x.stats),
    "cdnv": lambda x: cdnv(*x.samples, weights=x.weights),
    "davies_bouldin_from_sums": lambda x: davies_bouldin_from_sums(x.stats, x.sums.distance),
    "davies_bouldin": lambda x: davies_bouldin(*x.samples, weights=x.weights),
    "second_pass": lambda x: x.sums,
    "collapse_from_passes": lambda x: collapse_from_passes(x.stats, x.sums, x.head),
    "neural_collapse": lambda x: neural_collapse(x.z, x.labels, x.head, x.bias, weights=x.weights),
}
CONSTANT = {"nc4"}  # piecewise
TAKES_FLOATS = ("nc1_one_pass",)  # works in the type of the sums it is given


def everything(*args):
    given = Input(*args)
    return {name: function(given) for name, function in TABLE.items()}


compiled = jax.jit(everything)
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def table_data(n=24, seed=0):
    z, labels, head, bias = sample((n // 2, n // 4, n // 8, n - n // 2 - n // 4 - n // 8, 0), DIM, seed)
    return z, labels, np.ones(n), head, bias


def assert_trees_close(actual, expected, **tolerance):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


# Each is computed once for the whole table, which compiles in a fraction of the time of its rows.


@functools.cache
def reference():
    with jax.enable_x64(True):
        return compiled(*table_data())


@functools.cache
def eager():
    with jax.enable_x64(True):
        return everything(*table_data())


@functools.cache
def vmapped_and_looped():
    args = table_data(), table_data(seed=1)
    with jax.enable_x64(True):
        return jax.jit(jax.vmap(everything), compiler_options=QUICKLY)(
            *map(np.stack, zip(*args, strict=True))
        ), compiled(*args[1])


@functools.cache
def few():
    """Sixteen of the samples: as they are, as weights of zero for the others, with counts, and as repeated rows."""
    z, labels, weights, head, bias = table_data()
    keep = np.sort(np.random.default_rng(1).permutation(24)[:16])
    counts = np.array([1] * 10 + [2, 2, 3, 2, 3, 2])
    z_bad = np.where(np.isin(np.arange(24), keep)[:, None], z, np.nan)
    with jax.enable_x64(True):
        return dict(
            subset=compiled(z[keep], labels[keep], np.ones(16), head, bias),
            masked=compiled(z_bad, labels, np.isin(np.arange(24), keep).astype(float), head, bias),
            counts=compiled(z[keep], labels[keep], counts.astype(float), head, bias),
            repeats=compiled(np.repeat(z[keep], counts, 0), np.repeat(labels[keep], counts), weights, head, bias),
        )


def inner_products(outputs, masks, cotangents):
    """name -> <cotangent, finite outputs>."""
    leaves = {name: map(jax.tree.leaves, (outputs[name], masks[name], cotangents[name])) for name in TABLE}
    return jnp.stack(
        [sum(jnp.sum(jnp.where(m, x, 0) * c) for x, m, c in zip(*leaves[name], strict=True)) for name in TABLE]
    )


@partial(jax.jit, compiler_options=QUICKLY)
def forward_derivatives(variables, direction, labels, weights, masks, cotangents):
    def f(z, head, bias):
        return inner_products(everything(z, labels, weights, head, bias), masks, cotangents)

    return jax.jvp(f, variables, direction)


@partial(jax.jit, compiler_options=QUICKLY)
def gradients(variables, row, labels, weights, masks, cotangents):
    def f(z, head, bias):
        return inner_products(everything(z, labels, weights, head, bias), masks, cotangents)

    return jax.vjp(f, *variables)[1](row)


def differentiate(z, labels, head, bias, step=1e-6):
    """name -> derivatives along a direction of <cotangent, outputs>: forwards, backwards, numeric; and gradients."""
    rng = np.random.default_rng(2)
    weights, variables = np.ones(len(z)), (z, head, bias)
    with jax.enable_x64(True):
        outputs = compiled(z, labels, weights, head, bias)
        masks = jax.tree.map(np.isfinite, outputs)
        cotangents = jax.tree.map(lambda x: rng.normal(size=x.shape), outputs)
        direction = tuple(rng.normal(size=x.shape) for x in variables)
        fixed = labels, weights, masks, cotangents
        _, forward = forward_derivatives(variables, direction, *fixed)
        pulled = [gradients(variables, row, *fixed) for row in np.eye(len(TABLE))]

        def at(sign):
            a, h, b = (x + sign * step * d for x, d in zip(variables, direction, strict=True))
            return inner_products(compiled(a, labels, weights, h, b), masks, cotangents)

        numeric = np.asarray(at(1) - at(-1)) / (2 * step)
    backward = [sum(np.sum(np.asarray(g) * d) for g, d in zip(row, direction, strict=True)) for row in pulled]
    return {
        name: types.SimpleNamespace(forward=f, backward=b, numeric=n, gradients=list(map(np.asarray, g)))
        for name, f, b, n, g in zip(TABLE, np.asarray(forward), backward, numeric, pulled, strict=True)
    }


@functools.cache
def generic_derivatives():
    z, labels, _, head, bias = table_data()
    return differentiate(z, labels, head, bias)


@functools.cache
def collapsed_derivatives():
    labels = np.arange(24) % 4
    etf = np.zeros((CLASSES, DIM))
    etf[:4] = turned_simplex(4, DIM)
    return differentiate((1 + etf)[labels], labels, etf, np.zeros(CLASSES))


def test_the_table_is_complete():
    promised = set()
    for module in (moments, variability, one_pass, simplex, passes, separation, collapse):
        for name, item in vars(module).items():
            plain = inspect.unwrap(item) if callable(item) else item
            if getattr(plain, "__module__", "") != module.__name__ or name.startswith("_"):
                continue
            if inspect.isclass(item) and not issubclass(item, ClassStats):
                continue  # tuples of results
            if name in infojax.measures.__all__:
                promised.add(name)
    tested = {row.split()[0].split(".")[0] for row in TABLE}
    assert promised == tested
    assert len(promised) > 20


@pytest.mark.parametrize("name", TABLE)
def test_compiled_is_eager(name):
    assert_trees_close(reference()[name], eager()[name], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", TABLE)
def test_vmap_is_a_loop(name):
    batched, second = vmapped_and_looped()
    for row, expected in enumerate((reference(), second)):
        actual = jax.tree.map(lambda x: np.asarray(x)[row], batched[name])  # noqa: B023
        assert_trees_close(actual, expected[name], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", TABLE)
def test_weights_select(name):
    assert_trees_close(few()["masked"][name], few()["subset"][name], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", TABLE)
def test_weights_count(name):
    assert_trees_close(few()["counts"][name], few()["repeats"][name], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", TABLE)
def test_forward_backward_and_numeric_derivatives_agree(name):
    d = generic_derivatives()[name]
    largest = max(np.abs(g).max() for g in d.gradients)
    np.testing.assert_allclose(d.forward, d.backward, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(d.forward, d.numeric, rtol=1e-5, atol=1e-6 * max(largest, 1))
    assert (largest == 0) if name in CONSTANT else largest > 1e-3


@pytest.mark.parametrize("name", TABLE)
def test_derivatives_are_finite_at_exact_collapse(name):
    d = collapsed_derivatives()[name]
    assert all(np.isfinite(g).all() for g in d.gradients)
    np.testing.assert_allclose(d.forward, d.backward, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int32"])
def test_types_of_results(dtype):
    """Results have the features' type, at least float32; integers become the default float."""
    shapes = [x.shape for x in table_data()]
    with jax.enable_x64(True):
        wide = {"float64": "float64", "int32": "float64"}.get(dtype, "float32")
        kinds = (dtype, "int64", *[wide] * 3)
        args = [jax.ShapeDtypeStruct(shape, kind) for shape, kind in zip(shapes, kinds, strict=True)]
        outputs = jax.eval_shape(everything, *args)
        for name in TAKES_FLOATS:
            del outputs[name]
        wrong = {
            jax.tree_util.keystr(path): str(leaf.dtype)
            for path, leaf in jax.tree_util.tree_leaves_with_path(outputs)
            if leaf.dtype != wide
        }
    assert wrong == {}


def operations_on(types, jaxpr):
    """Names of the primitives with arrays of some dtypes among their inputs, nested calls included."""
    for equation in jaxpr.eqns:
        params = jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "eqns"))
        inner = [getattr(p, "jaxpr", p) for p in params if hasattr(p, "eqns")]
        for body in inner:
            yield from operations_on(types, body)
        if not inner and any(str(v.aval.dtype) in types for v in equation.invars if hasattr(v, "aval")):
            yield equation.primitive.name


@pytest.mark.parametrize("name", [name for name in TABLE if name not in TAKES_FLOATS])
def test_narrow_types_are_widened_before_anything_is_computed(name):
    z, labels, weights, head, bias = table_data()
    for dtype in (jnp.float16, jnp.bfloat16):
        args = [jnp.asarray(x, dtype) for x in (z, weights, head, bias)]
        row = jax.make_jaxpr(lambda *args: TABLE[name](Input(*args)))
        jaxpr = row(args[0], labels, *args[1:])
        operations = set(operations_on({"float16", "bfloat16"}, jaxpr.jaxpr))
        assert operations - {"slice"} == {"convert_element_type"}


@functools.cache
def in_float32():
    """The table in float32, and in float64 on the same numbers."""
    single = [x.astype(np.float32) if x.dtype == float else x for x in table_data()]
    with jax.enable_x64(True):
        exact = compiled(*(x.astype(float) if x.dtype == np.float32 else x for x in single))
    return compiled(*single), exact


@pytest.mark.parametrize("name", TABLE)
def test_float32_keeps_four_digits(name):
    single, exact = in_float32()
    assert_trees_close(single[name], exact[name], rtol=1e-4, atol=1e-5)


# Errors


def test_errors_name_the_argument_and_what_was_expected():
    z, labels, head = np.ones((6, 2)), np.arange(6) % 3, np.ones((3, 2))
    stats = class_stats(z, labels)
    cases = [
        (lambda: nc2(z, labels[:5]), r"labels must have shape \(6,\).*got \(5,\)"),
        (lambda: cdnv(z, labels.astype(float)), "labels must be integers; got float"),
        (lambda: jax.jit(cdnv)(z, labels), "num_classes must be given inside jit"),
        (lambda: jax.jit(davies_bouldin)(z, labels), "num_classes must be given inside jit"),
        (lambda: jax.jit(neural_collapse)(z, labels), "num_classes must be given inside jit"),
        (lambda: nc3(z, labels, np.ones((3, 4))), r"head must be \(C, D\) with D = 2.*shape \(3, 4\)"),
        (lambda: nc4(z, labels, np.ones((3, 4))), r"head must be \(C, D\) with D = 2.*shape \(3, 4\)"),
        (lambda: nc3_from_stats(stats, np.ones((4, 2))), r"head must have shape \(3, 2\); got \(4, 2\)"),
        (lambda: second_pass(stats, z, labels, np.ones((4, 2))), r"head must have shape \(3, 2\); got \(4, 2\)"),
        (lambda: neural_collapse(z, labels, np.ones((3, 4))), r"head must be \(C, D\) with D = 2.*shape \(3, 4\)"),
        (lambda: nc3(z, labels, head, convention="zhu"), "convention must be papyan or etf; got 'zhu'"),
        (lambda: neural_collapse(z, labels, convention="zhu"), "convention must be one of thesis, .*got 'zhu'"),
        (lambda: nc4(z, labels, head, np.ones(2)), r"bias must have shape \(3,\), one per row of the head; got \(2,\)"),
        (lambda: nc4(z, labels, head, np.ones((3, 1))), r"bias must have shape \(3,\), .*; got \(3, 1\)"),
        (lambda: neural_collapse(z, labels, head, 0.5), r"bias must have shape \(3,\), .*; got \(\)"),
        (lambda: nc2_from_means(np.ones(3)), r"means must be .*got shape \(3,\)"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


def test_eager_calls_with_infinite_features_give_nan_and_no_warning():
    z, labels, _, head, bias = (x.astype(np.float32) if x.dtype == float else x for x in table_data())
    z[3, 2] = np.inf
    result = neural_collapse(z, labels, head, bias)
    assert np.isnan([result.nc1, result.nc2_equinorm, result.nc3, result.cdnv]).all()


@pytest.mark.parametrize("function", [nc3, nc4, neural_collapse])
def test_the_error_for_a_head_of_the_wrong_rank_says_what_a_head_is(function):
    with pytest.raises(ValueError, match=r"head must be \(C, D\)"):
        function(np.ones((6, 2)), np.arange(6) % 3, np.ones(3))


def test_a_second_pass_over_other_features():
    stats = class_stats(np.ones((6, 2)), np.arange(6) % 3)
    with pytest.raises(ValueError, match="features"):
        second_pass(stats, np.ones((6, 4)), np.arange(6) % 3)
