"""Joint entropy, MI, MIR, HDR and the interplay of features and a head: published numbers, dense matrices, theorems."""

import math
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    central_difference,
    cosine_gram,
    dense_interplay,
    features,
    gram_entropy,
    grid_rows,
    half,
    pair_values,
    rotation,
    shifted_simplex,
    simplex,
    simplex_gram,
    unit,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import mutual_info_score

import infojax as ij
from infojax.measures.arrays import not_negative

# Labels of no class are among the inputs; test_arguments.py has their warning.
pytestmark = pytest.mark.filterwarnings("ignore:.* labels are .* or more:UserWarning")

FEATURES = features()
FIELDS = ij.Interplay._fields
ENTROPIES = FIELDS[:4]

ROWS, OTHER_ROWS = grid_rows(8, 5), grid_rows(8, 3)
WEIGHTS = arrays(float, 8, elements=st.sampled_from([0.0, 0.0, 0.25, 1.0, 1.0, 3.0]))


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def binary_entropy(x):
    return -x * math.log(x) - (1 - x) * math.log1p(-x)


def pair_of(z1, z2, **kwargs):
    """H1, H2, H12, MI, MIR, HDR through the public functions of features."""
    h1, h2 = (ij.matrix_entropy(z, **kwargs) for z in (z1, z2))
    rest = (f(z1, z2, **kwargs) for f in (ij.joint_entropy, ij.mutual_information, ij.mir, ij.hdr))
    return [float(x) for x in (h1, h2, *rest)]


def pair_from_gram(k1, k2, **kwargs):
    """The same through the twins that take Gram matrices."""
    h1, h2 = (ij.matrix_entropy_from_gram(k, **kwargs) for k in (k1, k2))
    twins = (ij.joint_entropy_from_gram, ij.mutual_information_from_gram, ij.mir_from_gram, ij.hdr_from_gram)
    return [float(x) for x in (h1, h2, *(f(k1, k2, **kwargs) for f in twins))]


def assert_close(got, expected, atol=1e-10, **kwargs):
    np.testing.assert_allclose([float(x) for x in got], [float(x) for x in expected], rtol=0, atol=atol, **kwargs)


# --- published numbers -----------------------------------------------------------------------------------------

# C: H(K), H(K o K), MI, MIR, I_2 of the simplex ETF, all digits of the published table.
SIMPLEX = {
    3: (0.693147180560, 1.039720770840, 0.346573590280, 0.500000000000, 0.405465108108),
    4: (1.098612288668, 1.368922360740, 0.828302216596, 0.753953169048, 0.847297860387),
    5: (1.386294361120, 1.602055915459, 1.170532806781, 0.844360937770, 1.178654996342),
    6: (1.609437912434, 1.787952753485, 1.430923071383, 0.889082492917, 1.435084525289),
    10: (2.197224577336, 2.301920609031, 2.092528545642, 0.952350782540, 2.093234863812),
    20: (2.944438979166, 2.995660557212, 2.893217401121, 0.982603960073, 2.893291467999),
    100: (4.595119850135, 4.605169672392, 4.585070027877, 0.997812935770, 4.585070544891),
    113: (4.718498871295, 4.727387463867, 4.709610278723, 0.998116224500, 4.709610635658),
}


@pytest.mark.parametrize("num_classes", SIMPLEX)
def test_simplex(num_classes):
    h, joint, mi, mir, i2 = SIMPLEX[num_classes]
    expected = (h, h, joint, mi, mir, 0)
    # The smaller ones among zero rows, so that they share their compilation.
    size = 20 if num_classes <= 20 else 113
    padding = size - num_classes
    w = np.pad(simplex(num_classes), ((0, padding), (0, padding)))
    k, weights = np.pad(simplex_gram(num_classes), (0, padding)), np.arange(size) < num_classes
    assert_close(ij.interplay(w, np.arange(size), w)[:6], expected, 1e-9)
    assert_close(pair_from_gram(k, k), expected, 1e-9)
    assert_close(pair_from_gram(k + 1 - np.outer(weights, weights), k, weights=weights), expected, 1e-9)
    assert float(ij.mutual_information_from_gram(k, k, alpha=2)) == pytest.approx(i2, abs=1e-9)
    if size == 20:
        assert_close(pair_of(w, w), expected, 1e-9)
        assert float(ij.mutual_information(w, w, alpha=2)) == pytest.approx(i2, abs=1e-9)


def test_simplex_of_samples_of_any_number_length_and_basis():
    labels = np.repeat(np.arange(10), 3)
    head = simplex(10)
    z = (head @ rotation(9))[labels] * np.linspace(0.1, 9, 30)[:, None]
    h, joint, mi, mir, _ = SIMPLEX[10]
    for route in (None, "gram", "classes"):
        got = ij.interplay(z, labels, head, route=route)
        assert_close(got[:6], (h, h, joint, mi, mir, 0), 1e-9)
        assert (int(got.num_samples), int(got.num_classes_present)) == (30, 10)


@pytest.mark.parametrize("num_classes", [10, 100])
@pytest.mark.parametrize("s", [0, 0.01, None, 0.5, 0.9, 0.99])
def test_shifted_simplex(num_classes, s):
    s = 1 / num_classes if s is None else s
    per_class = 2 if num_classes == 10 else 1
    labels = np.repeat(np.arange(num_classes), per_class)
    z, head = shifted_simplex(num_classes, s)[labels], np.pad(simplex(num_classes), ((0, 0), (0, 1)))
    flat, share = math.log(num_classes - 1), (1 - s) / (num_classes - 1)
    h1 = (binary_entropy(s) if s else 0) + (1 - s) * flat
    joint = binary_entropy(share) + (1 - share) * flat
    mi = h1 + flat - joint
    expected = (h1, flat, joint, mi, mi / min(h1, flat), abs(h1 - flat) / max(h1, flat), s)
    got = ij.interplay(z, labels, head)
    assert_close(got[:7], expected)
    assert (int(got.num_samples), int(got.num_classes_present)) == (len(labels), num_classes)
    if s == 1 / num_classes:  # the extreme legal case of one-hot class features
        assert_close((h1, mi / flat), (math.log(num_classes), 1))
    centred = ij.interplay(z, labels, head, center=True)
    assert_close(centred[:7], (flat, flat, *SIMPLEX[num_classes][1:4], 0, 0), 1e-9)
    assert_close(ij.interplay(z, labels, head, route="gram")[:7], expected)


@pytest.mark.parametrize(("ratio", "h", "mir"), [(10, 1.98944, 0.95947), (100, 1.59617, 0.97163)])
def test_long_tail_at_collapse(ratio, h, mir):
    sizes = float(ratio) ** (-np.arange(10) / 9)
    weights = np.rint(2000 * sizes / sizes.sum())
    got = ij.interplay(simplex(10), np.arange(10), simplex(10), weights=weights)
    assert_close((got.entropy_features, got.mir, got.hdr), (h, mir, 0), 5.1e-6)
    assert int(got.num_samples) == 10


def test_mutual_information_of_order_two_can_be_negative():
    x, y = (np.equal.outer(a, a).astype(float) for a in ([0, 1, 1, 1], [1, 0, 1, 1]))
    assert float(ij.mutual_information_from_gram(x, y, alpha=2)) == pytest.approx(-0.040821994520, abs=1e-12)
    assert float(ij.mutual_information_from_gram(x, y)) == pytest.approx(0.084949518398, abs=1e-12)
    z1 = np.array([[1, -1], [0, 1], [0, -1], [1, 1], [0, -1]])
    z2 = np.array([[1, -1], [1, -1], [1, 0], [-1, 1], [0, 1]])
    for information, arguments in (
        (ij.mutual_information, (z1, z2)),
        (ij.mutual_information_from_gram, (cosine_gram(z1), cosine_gram(z2))),
    ):
        # ||K1||^2 = ||K2||^2 = 17, ||K1 o K2||^2 = 11: -0.049656
        assert float(information(*arguments, alpha=2)) == pytest.approx(math.log(25 * 11 / 17**2), abs=1e-13)
        assert float(information(*arguments)) == pytest.approx(0.0505343, abs=5e-8)


# --- properties ------------------------------------------------------------------------------------------------


@given(ROWS, OTHER_ROWS, WEIGHTS, st.sampled_from([1.0, 2.0, 3.0]), st.booleans())
def test_pair_measures_are_those_of_the_dense_matrices(z1, z2, weights, alpha, center):
    kwargs = dict(alpha=alpha, center=center, weights=weights)
    # 8 rows against 5 x 3 columns: the N x N matrix; against 2 x 1: the Kronecker side.
    padding = (weights == 0)[:, None]
    for a, b in ((z1, z2), (z1[:, :2], z2[:, :1])):
        got = [
            float(f(np.where(padding, np.nan, a), np.where(padding, 1e300, b), **kwargs))
            for f in (ij.joint_entropy, ij.mutual_information, ij.mir, ij.hdr)
        ]
        kept = weights > 0
        a, b, w = a[kept], b[kept], weights[kept]
        if center and kept.any():
            a, b = (x - w @ x / w.sum() for x in (a, b))
        live = np.all([np.linalg.norm(x, axis=1) > 1e-12 for x in (a, b)], axis=0)
        if not live.any():
            np.testing.assert_array_equal(got, [0, 0, math.nan, math.nan])
            continue
        root = np.sqrt(w[live] / w[live].sum())
        k1, k2 = cosine_gram(a[live]), cosine_gram(b[live])
        h1, h2, h12 = (gram_entropy(root[:, None] * k * root, alpha) for k in (k1, k2, k1 * k2))
        low, high = sorted((h1, h2))
        expected = (h12, h1 + h2 - h12, (h1 + h2 - h12) / low if low > 1e-9 else math.nan)
        assert_close(got[:3], expected, 1e-10)
        assert_close(got[3:], [(high - low) / high if high > 1e-9 else math.nan], 1e-10)


@given(ROWS, OTHER_ROWS, WEIGHTS)
def test_joint_entropy_is_between_the_larger_and_the_sum(z1, z2, weights):
    live = z1.any(axis=1) & z2.any(axis=1)
    weights = np.where(live, weights, 0)
    h1, h2, joint, mi, mir, hdr = pair_of(z1, z2, weights=weights)
    assert max(h1, h2) - 1e-12 <= joint <= h1 + h2 + 1e-12
    assert mi == pytest.approx(h1 + h2 - joint, abs=1e-14)
    assert math.isnan(mir) == (min(h1, h2) == 0) and math.isnan(hdr) == (max(h1, h2) == 0)
    if min(h1, h2) > 1e-6:
        assert -1e-8 <= mir <= 1 + 1e-8
    if max(h1, h2) > 0:
        assert 0 <= hdr <= 1


@given(ROWS, OTHER_ROWS, st.sampled_from([0.5, 2.0, 3.0]))
def test_joint_entropy_of_other_orders_is_at_least_the_larger(z1, z2, alpha):
    k1, k2 = ij.gram(z1 + 0.1), ij.gram(z2 + 0.1)  # no zero rows
    h1, h2, joint, mi, *_ = pair_from_gram(k1, k2, alpha=alpha)
    tolerance = 1e-10 if alpha > 1 else 1e-6
    assert joint >= max(h1, h2) - tolerance
    assert mi <= min(h1, h2) + tolerance
    if alpha == 2:
        purity = [np.sum(np.square(k)) for k in (k1, k2, k1 * k2)]
        n = np.trace(k1)
        expected = 2 * math.log(n) - math.log(purity[0] * purity[1] / purity[2])
        assert mi == pytest.approx(expected, abs=1e-9)


@given(ROWS, st.sampled_from([0.1, 1.0, 10.0]))
def test_spectral_contrastive_loss_bounds_the_information(z, weight):
    # Tan et al., Theorems 4.3 and 4.4, with sums instead of means.
    z1 = unit(z + 0.1)
    z2 = unit(z1 + 0.05 * np.roll(z1, 1, axis=0))
    across = (z1 @ z2.T) ** 2
    loss = ((z1 - z2) ** 2).sum() + weight * (across.sum() - np.trace(across))
    slack = math.log1p((2 + 2 / (8 * weight)) * loss)
    information = float(ij.mutual_information(z1, z2, alpha=2))
    assert math.log(8) - 2 * slack - 1e-12 <= information <= math.log(8) + 1e-12
    assert float(ij.joint_entropy(z1, z2, alpha=2)) >= math.log(8) - slack - 1e-12


def test_independent_and_determined_pairs():
    k = cosine_gram(FEATURES["N > D"])
    h = gram_entropy(k)
    ones, eye = np.ones((8, 8)), np.eye(8)
    assert_close(pair_from_gram(k, ones), (h, 0, h, 0, math.nan, 1), 1e-13)  # nothing to share
    assert_close(pair_from_gram(k, eye), (h, math.log(8), math.log(8), h, 1, 1 - h / math.log(8)), 1e-13)
    three, four = np.kron(np.eye(3), np.ones((4, 4))), np.kron(np.ones((3, 3)), np.eye(4))
    assert_close(pair_from_gram(three, four)[2:5], (math.log(12), 0, 0), 1e-13)
    z, frame = FEATURES["N > D"], np.eye(8)
    assert_close(pair_of(z, frame), (h, math.log(8), math.log(8), h, 1, 1 - h / math.log(8)), 1e-13)
    assert_close(pair_of(frame, frame), (*3 * [math.log(8)], math.log(8), 1, 0), 1e-13)  # T10


@given(*2 * [arrays(int, 8, elements=st.integers(0, 4))])
def test_hard_labels_give_shannon_information(x, y):
    expected = mutual_info_score(x, y)
    one_hot = np.eye(5)
    assert float(ij.mutual_information(one_hot[x], one_hot[y])) == pytest.approx(expected, abs=1e-12)
    k1, k2 = (np.equal.outer(a, a).astype(float) for a in (x, y))
    assert float(ij.mutual_information_from_gram(k1, k2)) == pytest.approx(expected, abs=1e-12)
    got = ij.interplay(one_hot[x], y, one_hot)
    assert float(got.mutual_information) == pytest.approx(expected, abs=1e-12)
    assert int(got.num_classes_present) == len(set(y.tolist()))


@given(ROWS, OTHER_ROWS, WEIGHTS, st.integers(0, 99))
def test_invariances_of_mutual_information(z1, z2, weights, seed):
    rng = np.random.default_rng(seed)
    information = ij.mutual_information
    expected = pytest.approx(float(information(z1, z2, weights=weights)), abs=1e-11)
    order = rng.permutation(8)
    assert float(information(z1[order], z2[order], weights=weights[order])) == expected
    scales = rng.choice([-1, 1], (8, 1)) * 10 ** rng.uniform(-6, 6, (8, 1))
    assert float(information(z1 * scales, z2 @ rotation(3, seed), weights=weights)) == expected


def test_permuting_one_side_or_centring_changes_the_information():
    z1, z2 = FEATURES["N > D"], FEATURES["N > D"] + 0.3 * FEATURES["N < D"][:, :5]
    information = float(ij.mutual_information(z1, z2))
    assert abs(float(ij.mutual_information(z1[::-1], z2)) - information) > 1e-2
    assert abs(float(ij.mutual_information(z1, z2, center=True)) - information) > 1e-3


@given(ROWS, OTHER_ROWS, WEIGHTS, st.sampled_from([1.0, 2.0]))
def test_twins_agree(z1, z2, weights, alpha):
    # Zero rows included: a sample without a direction in one set is left out of all entropies, so that MI >= 0.
    k1, k2 = ij.gram(z1), ij.gram(z2)
    for f, twin in (
        (ij.joint_entropy, ij.joint_entropy_from_gram),
        (ij.mutual_information, ij.mutual_information_from_gram),
    ):
        expected = float(f(z1, z2, alpha=alpha, weights=weights))
        assert float(twin(k1, k2, alpha=alpha, weights=weights)) == pytest.approx(expected, abs=1e-11)


def test_a_sample_without_a_direction_in_one_set_counts_in_neither():
    z1 = np.array([[1.0, 0], [1, 0], [0, 0]])
    z2 = np.array([[1.0, 0], [0, 1], [0, 1]])
    expected = (0, math.log(2), math.log(2), 0, math.nan, 1)  # of the first two samples
    assert_close([0, math.log(2), *pair_of(z1, z2)[2:]], expected, 1e-14)
    k1, k2 = ij.gram(z1), ij.gram(z2)
    assert_close([0, math.log(2), *pair_from_gram(k1, k2)[2:]], expected, 1e-14)


# --- degenerate pairs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("double", [False, True])
def test_collapse_of_many_samples_is_zero_by_zero_and_no_rounding_error(double):
    # The sum of N probabilities is 1 to a few eps only; divided by that, MIR was 70 instead of nan.
    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        for seed in range(12):
            rng = np.random.default_rng(seed)
            labels, weights = rng.integers(0, 2, 1000), rng.uniform(0.1, 3, 1000).astype(dtype)
            v = rng.standard_normal((1, 3)) * np.where(labels, 1, -1)[:, None]
            z, head = (v * rng.uniform(0.5, 2, (1000, 1))).astype(dtype), np.array([[-1, 2, 0], [1, -2, 0]], dtype)
            assert float(ij.matrix_entropy(z)) == float(ij.matrix_entropy(z, weights=weights)) == 0
            got = ij.interplay(z, labels, head, weights=weights)
            assert_close(got[:6], (0, 0, 0, 0, math.nan, math.nan), 0, err_msg=f"seed {seed}")
            stats = ij.ClassStats.init(2, 3, scatter="class", dtype=dtype)
            for rows in np.split(np.arange(1000), 10):
                stats = stats.update(ij.unit_rows(z[rows])[0], labels[rows], weights[rows])
            got = ij.interplay_from_stats(stats, head)
            assert_close(got[:6], (0, 0, 0, 0, math.nan, math.nan), 0, err_msg=f"streamed, seed {seed}")


def test_ratios_of_zero_by_zero_are_nan_with_gradient_zero():
    z1, z2 = FEATURES["all equal"], FEATURES["rank one"]
    assert_close(pair_of(z1, z2), (0, 0, 0, 0, math.nan, math.nan), 0)
    assert_close(pair_of(z1, FEATURES["N > D"])[3:], (0, math.nan, 1), 1e-14)

    def everything(z1, z2):
        return jnp.stack([f(z1, z2) for f in (ij.mir, ij.hdr, ij.mutual_information, ij.joint_entropy)])

    gradients = jax.jit(jax.jacrev(everything, argnums=(0, 1)))(z1, z2)
    np.testing.assert_allclose(gradients, 0, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", [name for name, z in FEATURES.items() if z.shape == (8, 5)])
def test_gradients_of_pairs_are_finite_and_right(name):
    z1, z2 = FEATURES[name], FEATURES["N > D"][:, :3]
    gradients = PAIR_GRADIENT(z1, z2)
    assert all(np.isfinite(g).all() for g in gradients)
    live = z1.any(axis=1)
    assert not np.any(gradients[0][~live]) and not np.any(gradients[1][~live])
    if name in ("N > D", "zero rows"):
        v1, v2 = np.random.default_rng(0).standard_normal((2, 8, 5))
        v2 = v2[:, :3]

        def information(t):
            k1, k2 = cosine_gram((z1 + t * v1)[live]), cosine_gram((z2 + t * v2)[live])
            return pair_values(k1, k2).mutual_information

        numerical = central_difference(information, 0.0, 1.0, 1e-4)
        along = (gradients[0] * np.where(live[:, None], v1, 0)).sum() + (gradients[1] * v2).sum()
        assert float(along) == pytest.approx(numerical, rel=1e-6, abs=1e-9)


PAIR_GRADIENT = jax.jit(jax.grad(ij.mutual_information, argnums=(0, 1)))


def test_the_simplex_is_a_stationary_point_of_the_information_and_no_maximum():
    # Ascent from it ends at an orthogonal frame, where the information is log C: NC2 and MI pull apart.
    gradient = jax.jit(jax.value_and_grad(lambda z: ij.mutual_information(z, z)))
    at_simplex, slope = gradient(shifted_simplex(6, 0))
    np.testing.assert_allclose(slope, 0, rtol=0, atol=1e-13)
    values = [float(gradient(shifted_simplex(6, s))[0]) for s in (0.01, 0.05, 1 / 6)]
    assert all(a < b for a, b in pairwise([float(at_simplex), *values]))
    assert values[-1] == pytest.approx(math.log(6), abs=1e-13)
    np.testing.assert_allclose(gradient(shifted_simplex(6, 1 / 6))[1], 0, rtol=0, atol=1e-13)


# --- head rows -------------------------------------------------------------------------------------------------


def test_head_rows():
    head = np.arange(6.0).reshape(3, 2)
    got = ij.head_rows(head, [2, 0, -1, 3, 1, 99])
    np.testing.assert_array_equal(got, [[4, 5], [0, 1], [0, 0], [0, 0], [2, 3], [0, 0]])
    gradient = jax.grad(lambda head: jnp.sum(ij.head_rows(head, jnp.array([2, 2, -1, 3, 1]))))(head)
    np.testing.assert_array_equal(gradient, [[0, 0], [1, 1], [2, 2]])
    with pytest.raises(ValueError, match=r"head must be \(C, D\), one row per class; got shape \(3,\)"):
        ij.head_rows(np.ones(3), [0])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64])
def test_labels_of_every_integer_type_index_a_head_of_any_size(dtype):
    z, labels = FEATURES["N > D"], np.array([0, 1, 2, 0, 1, 2, 0, 1], dtype)
    head = np.random.default_rng(0).standard_normal((300, 5))  # 300 does not fit into 8 bits
    np.testing.assert_array_equal(ij.head_rows(head, labels), head[labels])
    assert_close(ij.interplay(z, labels, head), dense_interplay(z, labels, head), 1e-11)


# --- interplay against the dense matrices ----------------------------------------------------------------------

# Shapes (N, D, C): fewer samples than dimensions; more, but N <= C D; more than C D. The first two take the
# Gram route under jit, the last the class route.
SHAPES = {"N < D": (8, 11, 4), "N > D": (8, 5, 4), "N > C D": (40, 3, 4)}
ROUTES = (None, "gram", "classes")


def sample(shape, name):
    """Features, labels, head and weights of one case."""
    n, dim, num_classes = SHAPES[shape]
    rng = np.random.default_rng(5)
    labels = np.arange(n) % num_classes
    z = rng.standard_normal((n, dim)) + 2 * rng.standard_normal((num_classes, dim))[labels]
    head, weights = rng.standard_normal((num_classes, dim)), np.ones(n)
    match name:
        case "balanced":
            pass
        case "imbalanced":
            labels = np.repeat(np.arange(num_classes), [n - 4, 2, 1, 1])
        case "missing classes":
            labels = np.where(labels % 2, 3, 0)
        case "labels out of range":
            labels = rng.permutation(np.concatenate([labels[:-4], [-1, num_classes, 99, -7]]))
        case "weights":
            weights = rng.choice([0, 0.2, 1, 5.5], n)
        case "padding":
            weights = rng.integers(0, 2, n).astype(float)
            z[weights == 0] = np.nan
        case "zero rows":
            z[[0, 3, 7]] = 0
        case "zero head rows":
            head[1] = 0
        case "everything":
            labels = rng.permutation(np.concatenate([labels[:-2], [-1, num_classes]]))
            weights = rng.choice([0, 0.2, 1, 5.5], n)
            z[4:6] = 0
            head[2] = 0
        case "one sample":
            weights = np.eye(n)[2]
        case "no sample":
            weights = np.zeros(n)
        case "no known label":
            labels = labels + num_classes
        case "one class":
            labels = np.ones(n, int)
        case "collapsed":
            z = np.eye(num_classes, dim)[labels] + 0.5
        case "all equal":
            z = np.ones((n, dim))
        case "all zero":
            z = np.zeros((n, dim))
        case "head of rank one":
            head = np.outer([1, -2, 0.5, 3], head[0])
        case "two classes at collapse":  # MIR is 0 / 0
            labels = labels % 2
            z, head = np.outer(1.0 - 2 * labels, z[0]), np.outer([1, -1, 1, 1], head[0])
    return z, labels, head, weights


CASES = (
    "balanced",
    "imbalanced",
    "missing classes",
    "labels out of range",
    "weights",
    "padding",
    "zero rows",
    "zero head rows",
    "everything",
    "one sample",
    "no sample",
    "no known label",
    "one class",
    "collapsed",
    "all equal",
    "all zero",
    "head of rank one",
    "two classes at collapse",
)


@partial(jax.jit, static_argnames="route")
def compiled(z, labels, head, weights, center, route):
    return ij.interplay(z, labels, head, weights=weights, center=center, route=route)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", CASES)
def test_interplay_is_that_of_the_dense_matrices_by_every_route(shape, case):
    z, labels, head, weights = sample(shape, case)
    for center in (False, True):
        expected = dense_interplay(z, labels, head, weights, center)
        for route in ROUTES:
            eager = ij.interplay(z, labels, head, weights=weights, center=center, route=route)
            assert_close(eager, expected, err_msg=f"eager {route} {center}")
            if route or shape == "N > D":  # None is one of the others, `test_interplay_without_weights`
                got = compiled(z, labels, head, weights, center, route)
                assert_close(got, expected, err_msg=f"jit {route} {center}")


@pytest.mark.parametrize("shape", SHAPES)
def test_interplay_without_weights_is_that_with_ones(shape):
    z, labels, head, _ = sample(shape, "imbalanced")
    expected = dense_interplay(z, labels, head)
    for route in ROUTES:
        assert_close(ij.interplay(z, labels, head, route=route), expected)
    assert_close(jax.jit(ij.interplay)(z, labels, head), expected)


def test_interplay_is_the_measures_of_features_and_head_rows():
    z, labels, head, weights = sample("N > D", "everything")
    v = ij.head_rows(head, labels)
    got = ij.interplay(z, labels, head, weights=weights)
    kept = (weights > 0) & z.any(axis=1) & np.asarray(v).any(axis=1)
    expected = pair_of(z, v, weights=np.where(kept, weights, 0))
    assert_close(got[:6], expected, 1e-12)
    assert_close(got[2:6], pair_of(z, v, weights=weights)[2:], 1e-12)
    assert int(got.num_samples) == kept.sum()


def test_orthonormal_heads_give_the_entropy_of_a_mixture():
    # <w_c, w_c'> = 0: H(f, V) = H(p) + sum_c p_c H(f | c).
    z, labels, _, weights = sample("N > C D", "weights")
    z, head = np.pad(z, ((0, 0), (0, 3))), rotation(6)[:4]  # columns of zeros: as many directions as classes
    got = ij.interplay(z, labels, head, weights=weights)
    p = np.bincount(labels, weights) / weights.sum()
    within = [gram_entropy((unit(z).T * (weights * (labels == c))) @ unit(z)) for c in range(4)]
    assert float(got.joint_entropy) == pytest.approx(-(p @ np.log(p)) + p @ within, abs=1e-12)
    assert float(got.entropy_head) == pytest.approx(-(p @ np.log(p)), abs=1e-12)


def test_a_head_of_one_class():
    z = FEATURES["N > D"]
    h = gram_entropy(cosine_gram(z))
    for route in ROUTES:
        got = ij.interplay(z, np.zeros(8, int), np.ones((1, 5)), route=route)
        assert_close(got[:6], (h, 0, h, 0, math.nan, 1), 1e-13)
        assert int(got.num_classes_present) == 1


@pytest.mark.parametrize("rows", [0, 1])
def test_none_or_one_sample(rows):
    z, labels, head = FEATURES["N > D"][:rows], np.zeros(rows, int), FEATURES["N > D"][:3]
    expected = (0, 0, 0, 0, math.nan, math.nan, rows, rows, rows)
    for route in ROUTES:
        assert_close(ij.interplay(z, labels, head, route=route), expected, 1e-15)
    assert_close(jax.jit(ij.interplay)(z, labels, head), expected, 1e-15)


def test_fields_count_what_they_say():
    z, labels, head, weights = sample("N > D", "everything")
    got = ij.interplay(z, labels, head, weights=weights)
    live = (weights > 0) & z.any(axis=1) & np.isin(labels, [0, 1, 3])
    assert int(got.num_samples) == live.sum() and int(got.num_classes_present) == len(set(labels[live]))
    p = weights[live] / weights[live].sum()
    assert float(got.mean_energy) == pytest.approx(np.sum((p @ unit(z[live])) ** 2), abs=1e-14)
    assert all(jnp.shape(x) == () for x in got)


def test_mir_falls_with_the_number_of_samples():
    # Why n is stored with every value: the same distribution, more draws.
    rng = np.random.default_rng(0)
    means, head = rng.standard_normal((2, 10, 16))
    labels = np.arange(320) % 10
    z = means[labels] + 2 * rng.standard_normal((320, 16))
    values = [float(ij.interplay(z, labels, head, weights=np.arange(320) < n).mir) for n in (20, 80, 320)]
    assert all(a > b + 0.02 for a, b in pairwise(values))


# --- derivatives of interplay ----------------------------------------------------------------------------------

MIX = np.array([0.3, -1.1, 0.7, 0.9, 0.4, -0.6, 0.5])  # of the fields that have derivatives


@partial(jax.jit, static_argnames="route")
def derivatives(z, labels, head, weights, dz, dhead, route):
    """Gradient of a mixture of all fields in features and head, and its derivative along a direction."""

    def mixture(z, head):
        got = ij.interplay(z, labels, head, weights=weights, route=route)
        return sum(c * x for c, x in zip(MIX, got[:7], strict=True))

    return jax.jvp(jax.grad(mixture, argnums=(0, 1)), (z, head), (dz, dhead))


def dense_mixture(z, labels, head, weights):
    return float(MIX @ np.array(dense_interplay(z, labels, head, weights)[:7], float))


@pytest.mark.parametrize("case", ["balanced", "imbalanced", "missing classes", "everything"])
def test_derivatives_agree_between_routes_and_with_differences(case):
    # Classes with few samples or none have second moments with a null space: eigenvalues that repeat.
    z, labels, head, weights = sample("N > C D", case)
    rng = np.random.default_rng(0)
    dz = np.where(z.any(axis=1, keepdims=True), rng.standard_normal(z.shape), 0)
    dhead = np.where(head.any(axis=1, keepdims=True), rng.standard_normal(head.shape), 0)

    def along(t, route):
        moved = derivatives(z + t * dz, labels, head + t * dhead, weights, dz, dhead, route)
        return jax.tree.map(np.asarray, moved)

    (gz, gh), second = along(0.0, "gram")
    numerical = central_difference(
        lambda t: dense_mixture(z + t * dz, labels, head + t * dhead, weights), 0.0, 1.0, 1e-4
    )
    assert float((gz * dz).sum() + (gh * dhead).sum()) == pytest.approx(numerical, abs=1e-8)
    for i in range(2):
        slope = lambda t, i=i: along(t, "gram")[0][i]  # noqa: E731
        np.testing.assert_allclose(second[i], central_difference(slope, 0.0, 1.0, 1e-4), rtol=0, atol=1e-6)
    first_by_classes, second_by_classes = along(0.0, "classes")
    for i, expected in enumerate((gz, gh)):
        np.testing.assert_allclose(first_by_classes[i], expected, rtol=0, atol=1e-10)
        np.testing.assert_allclose(second_by_classes[i], second[i], rtol=0, atol=1e-9)
    counted = (weights > 0) & np.isin(labels, np.flatnonzero(head.any(axis=1)))
    assert not np.any(gz[~counted])


@pytest.mark.parametrize("case", ["collapsed", "all equal", "all zero", "no sample", "one class", "padding"])
def test_gradients_at_degenerate_samples_are_finite_and_agree_between_routes(case):
    z, labels, head, weights = sample("N > C D", case)
    by_gram, by_classes = (
        derivatives(z, labels, head, weights, np.zeros_like(z), np.zeros_like(head), r)[0] for r in ("gram", "classes")
    )
    for a, b in zip(by_gram, by_classes, strict=True):
        assert np.isfinite(a).all() and np.isfinite(b).all()
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-9)
    if case == "padding":
        counted = weights > 0
        assert not np.any(by_gram[0][~counted]) and not np.any(by_classes[0][~counted])


def test_gradient_of_a_masked_sample_is_that_of_the_subset():
    z, labels, head, _ = sample("N > D", "labels out of range")
    mask = (np.arange(8) % 3 > 0).astype(float)
    counted = (mask > 0) & (labels >= 0) & (labels < 4)
    gradient = jax.jit(jax.grad(lambda z, y, w: ij.interplay(z, y, head, weights=w).mir))
    masked = np.asarray(gradient(np.where(counted[:, None], z, np.nan), labels, mask))
    assert (masked[~counted] == 0).all()
    subset = gradient(z[counted], labels[counted], np.ones(counted.sum()))
    np.testing.assert_allclose(masked[counted], subset, rtol=0, atol=1e-14)


@pytest.mark.parametrize("route", ["gram", "classes"])
def test_vmap_over_heads(route):
    z, labels, head, weights = sample("N > C D", "everything")
    heads = np.stack([head, 2 * head[::-1], head + 1])
    batched = jax.jit(jax.vmap(lambda head: ij.interplay(z, labels, head, weights=weights, route=route)))(heads)
    for i, one in enumerate(heads):
        assert_close([x[i] for x in batched], dense_interplay(z, labels, one, weights))


# --- streams ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["imbalanced", "everything", "missing classes", "no sample", "collapsed", "padding"])
def test_interplay_from_streamed_moments(case):
    z, labels, head, weights = sample("N > C D", case)
    expected = dense_interplay(z, labels, head, weights)
    parts = []
    for start in (0, 20):
        stats = ij.ClassStats.init(4, 3, scatter="class", dtype=jnp.float64)
        for i in (start, start + 10):
            rows = slice(i, i + 10)
            stats = stats.update(ij.unit_rows(z[rows])[0], labels[rows], weights[rows])
        parts.append(stats)
    stats = parts[1].merge(parts[0])
    for got in (ij.interplay_from_stats(stats, head), jax.jit(ij.interplay_from_stats)(stats, head)):
        assert_close(got[:7], expected[:7], 1e-10)
        known = np.isin(labels, np.flatnonzero(head.any(axis=1))) & (weights > 0)
        known[known] = z[known].any(axis=1)
        assert float(got.num_samples) == pytest.approx(weights[known].sum(), abs=1e-12)
        assert int(got.num_classes_present) == expected[8]


def test_interplay_from_stats_needs_the_scatter_of_each_class():
    z, labels, head, _ = sample("N > C D", "balanced")
    for scatter in (None, "within"):
        with pytest.raises(ValueError, match="scatter of each class"):
            ij.interplay_from_stats(ij.class_stats(z, labels, 4, scatter=scatter), head)


# --- dtypes, scales, nan ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["gram", "classes"])
def test_interplay_of_low_precision_input(route):
    rng = np.random.default_rng(0)
    z, labels, head = rng.integers(-4, 5, (40, 3)), np.arange(40) % 4, rng.integers(-4, 5, (4, 3))
    expected = dense_interplay(z, labels, head)
    f = partial(ij.interplay, route=route)
    assert f(z, labels, head).mir.dtype == jnp.float64
    with jax.enable_x64(False):
        for dtype in (jnp.float32, jnp.bfloat16, half(), jnp.int8):
            got = f(jnp.asarray(z, dtype), jnp.asarray(labels), jnp.asarray(head, dtype))
            assert {x.dtype for x in got[:7]} == {jnp.dtype(jnp.float32)}
            assert_close(got, expected, 5e-6)
        got = jax.jit(f)(jnp.asarray(z, jnp.bfloat16), jnp.asarray(labels), jnp.asarray(head, half()))
        assert_close(got, expected, 5e-6)


def test_pairs_of_low_precision_input():
    rng = np.random.default_rng(0)
    z1, z2 = rng.integers(-4, 5, (8, 5)), rng.integers(-4, 5, (8, 3))
    expected = pair_values(cosine_gram(z1), cosine_gram(z2))
    with jax.enable_x64(False):
        for d1, d2 in ((jnp.float32, jnp.float32), (jnp.bfloat16, half()), (jnp.int8, jnp.bfloat16)):
            got = pair_of(jnp.asarray(z1, d1), jnp.asarray(z2, d2))
            assert_close(got, expected, 3e-6)


@pytest.mark.parametrize("route", ["gram", "classes"])
def test_the_scale_of_rows_does_not_matter_in_float32(route):
    z, labels, head, _ = sample("N > C D", "imbalanced")
    expected = dense_interplay(z, labels, head)
    f = jax.jit(partial(ij.interplay, route=route))
    with jax.enable_x64(False):
        for scale in (1e-30, 1e30):
            rows = jnp.asarray(z * np.where(np.arange(40) % 2, scale, 1)[:, None], jnp.float32)
            weights = jnp.asarray(head * np.array([1, scale, 1, scale])[:, None], jnp.float32)
            assert_close(f(rows, labels, weights), expected, 5e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("run", ["eager", "jit"])
def test_nan_in_a_counted_row_is_nan_in_every_number_of_the_features(shape, route, run):
    z, labels, head, weights = sample(shape, "labels out of range")
    z[0, 1] = np.nan
    labels[0] = 2
    f = compiled if run == "jit" else lambda *a: ij.interplay(*a[:3], weights=a[3], center=a[4], route=a[5])
    got = f(z, labels, head, weights, False, route)
    wrong = [name for name in ("entropy_features", "joint_entropy", *FIELDS[3:7]) if not np.isnan(getattr(got, name))]
    assert not wrong
    # But a row that does not count may hold anything: unknown label, weight zero, head row zero.
    for case in ("label", "weight", "head"):
        y, w, h = labels.copy(), weights.copy(), head.copy()
        if case == "label":
            y[0] = -1
        elif case == "weight":
            w[0] = 0
        else:
            h[2] = 0
        assert_close(f(z, y, h, w, False, route), dense_interplay(z, y, h, w), err_msg=case)


@pytest.mark.parametrize("compiled", [False, True])
def test_nan_in_a_pair_is_nan_in_its_numbers(compiled):
    measures = (ij.joint_entropy, ij.mutual_information, ij.mir, ij.hdr)
    twins = (ij.joint_entropy_from_gram, ij.mutual_information_from_gram, ij.mir_from_gram, ij.hdr_from_gram)

    def everything(z1, z2, k1, k2):
        of_features = {f.__name__: f(z1, z2) for f in measures}
        return of_features | {f.__name__: f(k1, k2) for f in twins}

    everything = jax.jit(everything) if compiled else everything
    z1, z2 = FEATURES["N > D"].copy(), FEATURES["power law"]
    z1[3, 2] = np.nan
    k1, k2 = ij.gram(z1), ij.gram(z2)
    for got in (everything(z1, z2, k1, k2), everything(z2, z1, k2, k1)):
        assert [name for name, value in got.items() if not np.isnan(value)] == []


# --- arguments -------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_named():
    z, labels, head = FEATURES["N > D"], np.arange(8) % 3, FEATURES["N > D"][:3]
    for f in (ij.joint_entropy, ij.mutual_information, ij.mir, ij.hdr):
        with pytest.raises(ValueError, match="z1 has 8 rows, z2 has 7: .*same samples"):
            f(z, z[:7])
        with pytest.raises(ValueError, match=r"z2 must be \(N, D\).*\(8,\)"):
            f(z, z[:, 0])
        with pytest.raises(ValueError, match="alpha must be a number from 0 to infinity; got -1"):
            f(z, z, alpha=-1)
        with pytest.raises(ValueError, match=r"weights must have shape \(8,\).*\(7,\)"):
            f(z, z, weights=np.ones(7))
    for f in (ij.joint_entropy_from_gram, ij.mutual_information_from_gram, ij.mir_from_gram, ij.hdr_from_gram):
        with pytest.raises(ValueError, match=r"k1 is \(3, 3\), k2 is \(4, 4\): .*same samples"):
            f(np.eye(3), np.eye(4))
        with pytest.raises(ValueError, match=r"k2 must be a square matrix; got shape \(3, 4\)"):
            f(np.eye(3), np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"labels must have shape \(8,\), one per row of the features; got \(7,\)"):
        ij.interplay(z, labels[:7], head)
    with pytest.raises(ValueError, match="route must be 'gram', 'classes' or None; got 'dense'"):
        ij.interplay(z, labels, head, route="dense")
    with pytest.raises(ValueError, match=r"head must be \(C, D\), one row per class; got shape \(5,\)"):
        ij.interplay(z, labels, head[0])
    with pytest.raises(ValueError, match=r"weights must have shape \(8,\)"):
        ij.interplay(z, labels, head, weights=np.ones((8, 1)))
    for f in (partial(ij.interplay, z), lambda y, h: ij.head_rows(h, y)):
        with pytest.raises(ValueError, match="labels must be integers; got float64"):
            f(labels.astype(float), head)


def test_rounding_does_not_make_mutual_information_negative():
    """A constant second set carries none; another order, and matrices without a unit diagonal, may be below zero."""
    rng = np.random.default_rng(0)
    labels = np.zeros(30, int)
    for _ in range(6):
        z = rng.standard_normal((30, 8)).astype(np.float32)
        constant = np.ones((30, 1), np.float32) * rng.standard_normal((1, 8)).astype(np.float32)
        assert 0 <= float(ij.mutual_information(z, constant)) < 1e-5
        assert 0 <= float(ij.mutual_information_from_gram(ij.gram(z), ij.gram(constant))) < 1e-5
        found = ij.interplay(z, labels, constant[:1])
        assert 0 <= float(found.mutual_information) < 1e-5
    diagonal = np.diag([1.0, 9.0]).astype(np.float32)
    assert float(ij.mutual_information_from_gram(np.ones((2, 2)), diagonal)) == pytest.approx(0, abs=1e-6)
    skewed = np.array([[1.0, 0.0], [0.0, 1e-3]], np.float32), np.array([[1.0, 0.0], [0.0, 1e3]], np.float32)
    assert float(ij.mutual_information_from_gram(*skewed)) < -0.5


def test_the_derivative_of_a_clamped_value_is_its_own():
    for value in (-1e-9, 0.0, 2.0):
        assert float(jax.grad(lambda x: not_negative(x) * 3)(value)) == 3
