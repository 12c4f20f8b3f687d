"""What every measure promises of scale, shift and degenerate input: one table, a few programs for each type and shape.

A scale-free measure is so at every scale that its type represents, in value and gradient: a power of two changes no
digit of either. A measure that is undefined is nan, and its gradient, once the nan is masked, is zero.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import silhouette_score

import infojax as ij
from infojax.measures.arrays import power_of_two
from infojax.measures.separation import silhouette

N, DIM, CLASSES = 24, 6, 4
LABELS = np.arange(N) % CLASSES


def of_features(x):
    orders = {f"matrix_entropy {a}": ij.matrix_entropy(x.z, alpha=a, weights=x.w) for a in (0.5, 1, 2)}
    forms = {f"coding_rate {f}": ij.coding_rate(x.z, 0.7, form=f, weights=x.w) for f in ("code", "paper", "mcr2")}
    whole = {f.__name__: f(x.z) for f in (ij.effective_rank, ij.rankme, ij.stable_rank)}
    centred = {"matrix_entropy centred": ij.matrix_entropy(x.z, center=True, weights=x.w)}
    return orders | forms | whole | centred | {"gram": jnp.sum(ij.gram(x.z)[0] ** 3)}


def of_pair(x):
    pair = (ij.joint_entropy, ij.mutual_information, ij.mir, ij.hdr)
    plain = {f.__name__: f(x.z, x.head[x.labels], weights=x.w) for f in pair}
    return plain | {"mir centred": ij.mir(x.z, x.head[x.labels], center=True, weights=x.w)}


def of_head(x):
    routes = {"gram": dict(route="gram"), "centred": dict(route="classes", center=True)}
    found = {key: ij.interplay(x.z, x.labels, x.head, weights=x.w, **route) for key, route in routes.items()}
    names = ("entropy_features", "entropy_head", "joint_entropy", "mutual_information", "mir", "hdr", "mean_energy")
    return {f"interplay {name} {key}": getattr(f, name) for key, f in found.items() for name in names}


def of_gram(x):
    orders = {f"matrix_entropy_from_gram {a}": ij.matrix_entropy_from_gram(x.k1, alpha=a) for a in (0.5, 1, 2)}
    twins = (ij.joint_entropy_from_gram, ij.mutual_information_from_gram, ij.mir_from_gram, ij.hdr_from_gram)
    pair = {f.__name__: f(x.k1, x.k2, weights=x.w) for f in twins}
    divergences = {f.__name__: f(x.k1, x.k2) for f in (ij.matrix_jsd, ij.spectrum_jsd, ij.eigenspace_jsd)}
    return orders | pair | divergences | {"effective_rank_from_gram": ij.effective_rank_from_gram(x.k1)}


def of_classes(x):
    samples = (x.z, x.labels, x.num_classes)
    nc1 = {f"nc1 {rule}": ij.nc1(*samples, convention=rule, weights=x.w) for rule in ij.NC1_CONVENTIONS}
    depth = jnp.stack([jnp.sum(jnp.abs(x.z[:, i])) for i in range(4)])
    n2 = ij.nc2(*samples, weights=x.w)
    rows = ij.nc2_from_means(x.head)
    singles = {
        "nc3 papyan": ij.nc3(x.z, x.labels, x.head, weights=x.w),
        "nc3 etf": ij.nc3(x.z, x.labels, x.head, convention="etf", weights=x.w),
        "nc4": ij.nc4(x.z, x.labels, x.head, x.bias, weights=x.w),
        "nc4 without bias": ij.nc4(x.z, x.labels, x.head, weights=x.w),
        "cdnv": ij.cdnv(*samples, weights=x.w),
        "davies_bouldin": ij.davies_bouldin(*samples, weights=x.w),
        "equi_separation": ij.equi_separation(jnp.array([8, 3, 2, 1], x.z.dtype), depth),
    }
    return (
        nc1
        | {f"nc2 {key}": getattr(n2, key) for key in ("equinorm", "equiangularity", "etf_distance")}
        | {f"nc2_from_means {key}": getattr(rows, key) for key in ("equinorm", "equiangularity", "etf_distance")}
        | singles
    )


def of_passes(x):
    samples, c = (x.z, x.labels, x.num_classes), x.num_classes
    stats = ij.class_stats(*samples, weights=x.w)
    streamed = {
        "nc1_from_energy": ij.nc1_from_energy(
            ij.within_energy(ij.between_inverse(stats), stats, x.z, x.labels, x.w), stats
        )[0],
        "nc2_from_stats": ij.nc2_from_stats(stats).etf_distance,
        "nc3_from_stats": ij.nc3_from_stats(stats, x.head),
        "second_pass nc4": jnp.sum(ij.second_pass(stats, x.z, x.labels, x.head, weights=x.w).disagreement),
    }
    whole = ij.neural_collapse(x.z, x.labels, x.head, x.bias, weights=x.w)._asdict()
    per_class = {
        f"neural_collapse {key} {i}": value[i]
        for key, value in whole.pop("per_class")._asdict().items()
        if key not in ("nc2_norm", "count")
        for i in range(c)
    }
    return streamed | {f"neural_collapse {key}": value for key, value in whole.items()} | per_class


def of_spectrum(x):
    found = ij.spectral_ranks(x.z, center=True, weights=x.w)._asdict()
    s = ij.singular_values(x.z, center=True, weights=x.w)
    fit = ij.alpha_req_from_spectrum(s, fit_range=(1, 5))
    return {f"spectral {key}": value for key, value in found.items() if key != "alpha_req"} | {
        "alpha_req": fit.alpha,
        "alpha_req r2": fit.r2,
    }


def of_views(x):
    other, points = x.z[::-1], jnp.concatenate([x.z, x.z[:2]])  # a sample at least twice: three tokens of one
    return {
        "uniformity": ij.uniformity(x.z, weights=x.w),
        "alignment": ij.alignment(x.z, other, weights=x.w),
        "infonce_bound": ij.infonce_bound(x.z, other, weights=x.w),
        "linear_cka": ij.linear_cka(x.z, other, weights=x.w),
        "linear_cka debiased": ij.linear_cka(x.z, other, debiased=True, weights=x.w),
        "curvature": ij.curvature(points),
        "dormant_ratio": ij.dormant_ratio(x.z, weights=x.w),
        "feature_std": ij.feature_std(x.z, weights=x.w),
        "nc5": ij.nc5(x.z, x.labels, other[:3], x.num_classes, weights=x.w),
    }


FAMILIES = (of_features, of_pair, of_head, of_gram, of_classes, of_passes, of_spectrum, of_views)


class Arguments:
    def __init__(self, labels, num_classes, z, w, head, bias, k1, k2):
        self.labels, self.num_classes, self.z, self.w, self.head, self.bias = labels, num_classes, z, w, head, bias
        self.k1, self.k2 = k1, k2


@functools.partial(jax.jit, static_argnums=(0, 2))
def program(family, labels, num_classes, *arrays):
    """Values and gradients of one family; one program of all measures takes XLA three times as long, and 6 GB."""

    def masked(*arrays):
        found = family(Arguments(labels, num_classes, *arrays))
        values = jnp.stack([found[name] for name in sorted(found)])
        return jnp.where(jnp.isnan(values), 0, values), found

    values, pull, found = jax.vjp(masked, *arrays, has_aux=True)
    return found, jax.vmap(pull)(jnp.eye(len(values), dtype=values.dtype))


def value_and_gradients(labels, num_classes, *arrays):
    """name -> value; name -> its gradient in each array, nan masked."""
    values, slopes = {}, {}
    for family in FAMILIES:
        found, gradients = jax.device_get(program(family, labels, num_classes, *arrays))
        values |= found
        slopes |= {name: [g[i] for g in gradients] for i, name in enumerate(sorted(found))}
    return values, slopes


def example(precision, n=N, num_classes=CLASSES, seed=0):
    """z, weights, head, bias and two Gram matrices, on a grid, so that no entry is tiny."""
    rng = np.random.default_rng(seed)
    z = np.arange(num_classes)[np.arange(n) % num_classes, None] * [1, -1, 0.5, 0.25, 0, 2] + rng.normal(size=(n, DIM))
    head, bias = rng.normal(size=(num_classes, DIM)), rng.normal(size=num_classes)
    grams = [a @ a.T for a in rng.normal(size=(2, n, n + 2))]
    rounded = [np.round(x * 64) / 64 for x in (z, rng.uniform(0.5, 2, n), head, bias)]
    return [np.asarray(x, precision) for x in (*rounded, *grams)]


EXPONENT = {"float32": 100, "float64": 500}  # 2^100 = 1.3e30, 2^500 = 3.3e150
SCALES = {  # of the features, of the head, of the first Gram matrix
    "large features": (1, 0, 1),
    "small features": (-1, 0, -1),
    "large head": (0, 1, 0),
    "small head": (0, -1, 0),
    "large features, small head": (1, -1, 0),
}


@functools.cache
def at_scale_one(precision):
    return value_and_gradients(LABELS, CLASSES, *example(precision))


@pytest.fixture(params=EXPONENT)
def precision(request):
    with jax.enable_x64(request.param == "float64"):
        yield request.param


def same_gradient(small, slope, s):
    """Whether small * s = slope, up to last digits and to terms of `small` below the smallest normal number."""
    info = np.finfo(slope.dtype)
    atol = 4 * info.eps * np.max(np.abs(slope)) + 4 * float(info.tiny) * float(s)
    return np.allclose(np.asarray(small) * s, slope, rtol=0, atol=atol)


@pytest.mark.parametrize("which", SCALES)
def test_scale_changes_no_digit(precision, which):
    expected, slopes = at_scale_one(precision)
    features, head, gram = (2.0 ** (EXPONENT[precision] * e) for e in SCALES[which])
    factors = np.asarray([features, 1, head, features * head, gram, 1 / gram], precision)
    values, gradients = value_and_gradients(
        LABELS, CLASSES, *(x * s for x, s in zip(example(precision), factors, strict=True))
    )
    assert all(np.isfinite(value) for value in expected.values())
    assert all(np.isfinite(slope).all() for row in slopes.values() for slope in row)
    assert [name for name in values if values[name] != expected[name]] == []
    wrong = [name for name in values if not all(map(same_gradient, gradients[name], slopes[name], factors))]
    assert wrong == []


# Degenerate input


def degenerate():
    """Name -> labels, number of classes, arrays; few shapes."""
    z, w, head, bias, k1, k2 = example("float32")
    one = example("float32", n=1)
    labels, same = LABELS, np.round(np.tile(z[::4], (4, 1)).reshape(4, 6, DIM).swapaxes(0, 1).reshape(N, DIM))
    return {
        "one class": (labels * 0, CLASSES, z, w, head, bias, k1, k2),
        "no label in range": (labels - 9, CLASSES, z, w, head, bias, k1, k2),
        "weights zero": (labels, CLASSES, z, 0 * w, head, bias, k1, k2),
        "head zero": (labels, CLASSES, z, w, 0 * head, 0 * bias, k1, k2),
        "features zero": (labels, CLASSES, 0 * z, w, head, bias, 0 * k1, k2),
        "rows equal": (labels, CLASSES, 0 * z + z[:1], w, 0 * head + head[:1], bias, 0 * k1 + 1, k2),
        "class means equal": (labels, CLASSES, same, 0 * w + 1, head, bias, k1, k1),
        "collapsed": (labels, CLASSES, z[:CLASSES][labels], w, head, bias, k1, k2),
        "two classes collapsed": (labels % 2, CLASSES, z[:2][labels % 2], w, head, bias, k1, k2),
        "one sample": (labels[:1], CLASSES, *one),
    }


@pytest.mark.parametrize("name", degenerate())
def test_where_the_value_is_nan_its_masked_gradient_is_zero(name):
    values, gradients = value_and_gradients(*degenerate()[name])
    bad = [key for key, row in gradients.items() if not all(np.isfinite(g).all() for g in row)]
    assert bad == []
    undefined = [key for key, value in values.items() if np.isnan(value)]
    assert undefined or name in ("collapsed",)
    assert [key for key in undefined if any(np.any(g) for g in gradients[key])] == []


# Silhouette and the whole report


def silhouette_from_differences(z, labels):
    d = cdist(z, z)
    table = np.stack([d[:, labels == c].sum(axis=1) for c in np.unique(labels)], axis=1)
    counts = np.bincount(labels)
    mine = np.eye(len(counts), dtype=bool)[labels]
    own = table[mine] / (counts[labels] - 1)
    other = np.min(np.where(mine, np.inf, table / counts), axis=1)
    return np.mean((other - own) / np.maximum(own, other))


def clusters(n=90, dim=5):
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    return rng.normal(size=(3, dim))[labels] + rng.normal(size=(n, dim)), labels


@pytest.mark.parametrize("scale", [1, 1e-150, 1e150])
@pytest.mark.parametrize("shift", [0, 1e9])
def test_silhouette_is_that_of_differences(shift, scale):
    z, labels = clusters()
    z = (z + shift) * scale
    exact = silhouette_from_differences((z - z[:1]) / scale, labels)  # differences of neighbours are exact
    # A product with the scale, and the mean of a class, are rounded to eps of the shift; distances are of order one.
    assert silhouette(z, labels) == pytest.approx(exact, abs=1e-12 + 8 * np.finfo(float).eps * shift)


def test_silhouette_of_classes_far_from_each_other():
    z, labels = clusters()
    z = z + np.array([0, 0, 1e9])[labels][:, None]  # their mean is far from all of them
    assert silhouette(z, labels) == pytest.approx(silhouette_from_differences(z, labels), abs=1e-6)


def test_silhouette_agrees_with_scikit_learn():
    z, labels = clusters()
    for y in (labels, np.where(np.arange(90) == 4, 3, labels), np.arange(90) // 2):
        assert silhouette(z, y, block=17) == pytest.approx(silhouette_score(z, y), abs=1e-13)
    assert silhouette(0 * z, labels) == 0
    assert np.isnan(silhouette(z, 0 * labels)) and np.isnan(silhouette(z, np.arange(90)))


@pytest.mark.parametrize("scale", [2.0**-500, 2.0**500])
def test_a_report_does_not_depend_on_scale(scale):
    z, labels = clusters()
    rng = np.random.default_rng(1)
    head, bias = rng.normal(size=(3, 5)), rng.normal(size=3)
    expected, found = ij.analyze(z, labels, head, bias), ij.analyze(z * scale, labels, head, bias * scale)
    assert found.measures == expected.measures
    norms = expected.per_class["nc2_norm"]
    np.testing.assert_array_equal(found.per_class["nc2_norm"], norms * scale)


def test_powers_of_two():
    x = np.array([1, 3.4e38, 1.2e-38, 0, np.inf, np.nan, 5], np.float32)
    assert [float(power_of_two(v)) for v in x] == [1, 2.0**126, 2.0**-126, 1, 1, 1, 4]


# The shift


CENTRED = ("nc1", "nc2", "nc3", "cdnv", "davies_bouldin", "matrix_entropy centred", "mir centred", "neural_collapse")


def test_a_shift_costs_no_more_digits_than_the_features_lose():
    with jax.enable_x64(True):
        z, w, head, bias, *grams = example("float64")
        expected, _ = at_scale_one("float64")
        values, gradients = value_and_gradients(LABELS, CLASSES, z + 2.0**30, w, head, bias, *grams)
        shifted = [
            name
            for name in values
            if (name.startswith(CENTRED) or name.endswith(" centred")) and "head" not in name and "nc4" not in name
        ]
        assert len(shifted) > 30
        for name in shifted:
            # A class mean is rounded to 2^-24, the distances are of order one, and no measure squares an error.
            np.testing.assert_allclose(values[name], expected[name], rtol=0, atol=2.0**-16, err_msg=name)
            assert all(np.isfinite(g).all() for g in gradients[name]), name


@pytest.mark.parametrize("scale", [2.0**-40, 2.0**40])
def test_moments_whose_squares_are_representable_do_not_depend_on_scale(scale):
    """Squares and scatter have the unit of the squared features: at 1e-12 and 1e12 they still fit in float32."""
    z, w, *_ = example("float32")

    @jax.jit
    def values(z):
        stats = ij.class_stats(z, LABELS, CLASSES, weights=w, scatter="class")
        sums = ij.second_pass(stats, z, LABELS, weights=w)
        weighed = jnp.where(LABELS[:, None] == jnp.arange(CLASSES)[None, :], w[:, None], 0)
        raw = [weighed.sum(0), *(jnp.matmul(a.T, z, precision="highest") for a in (weighed, w[:, None] * z))]
        return [
            *(ij.nc1_from_stats(stats, convention=c) for c in ij.NC1_CONVENTIONS),
            ij.cdnv_from_stats(stats)[0],
            ij.davies_bouldin_from_sums(stats, sums.distance),
            ij.nc1_one_pass(*raw).value,
        ]

    np.testing.assert_array_equal(values(z * np.float32(scale)), values(z))
