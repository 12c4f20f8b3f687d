"""Closed forms against published numbers, spectra of sampled features, mpmath and simulation."""

import math

import mpmath
import numpy as np
import pytest

from infojax.measures.theory import (
    Limits,
    etf,
    mutual_information_etf,
    nc_limits,
    random_head_entropy,
)

# C: H = log(C-1), H(K o K), MI, MIR, I_2 of a simplex ETF, from a separate float64 computation of
# the spectra. Never to be updated: these are values of formulas, not of this code.
ETF_TABLE = {
    3: (0.693147180560, 1.039720770840, 0.346573590280, 0.500000000000, 0.405465108108),
    4: (1.098612288668, 1.368922360740, 0.828302216596, 0.753953169048, 0.847297860387),
    5: (1.386294361120, 1.602055915459, 1.170532806781, 0.844360937770, 1.178654996342),
    6: (1.609437912434, 1.787952753485, 1.430923071383, 0.889082492917, 1.435084525289),
    10: (2.197224577336, 2.301920609031, 2.092528545642, 0.952350782540, 2.093234863812),
    20: (2.944438979166, 2.995660557212, 2.893217401121, 0.982603960073, 2.893291467999),
    100: (4.595119850135, 4.605169672392, 4.585070027877, 0.997812935770, 4.585070544891),
    113: (4.718498871295, 4.727387463867, 4.709610278723, 0.998116224500, 4.709610635658),
    1000: (6.906754779, 6.907755278, 6.905754279, 0.999855142, math.nan),
}

# (C, s): H(f), MIR, HDR with a common mean of energy s; as printed, to the digits printed.
SHIFTED_TABLE = {
    (10, 0.0): (2.1972, 0.95235, 0.0),
    (10, 0.01): (2.2313, 0.96778, 0.0153),
    (10, 0.1): (2.3026, 1.0000, 0.0458),
    (10, 0.5): (1.7918, 0.94838, 0.1845),
    (10, 0.9): (0.5448, 0.93276, 0.7520),
    (10, 0.99): (0.0780, 0.9201, 0.9645),
    (100, 0.01): (4.6052, 1.0000, 0.0022),
    (100, 0.5): (2.9907, 0.99715, 0.3492),
}


def long_tail(num_classes, ratio, total=2000):
    """Class sizes that fall geometrically from the first class to the last, ratio to one."""
    sizes = float(ratio) ** (-np.arange(num_classes) / (num_classes - 1))
    return np.rint(total * sizes / sizes.sum()).astype(int)


def entropy(gram):
    """Matrix entropy by brute force: a dense n x n eigenproblem."""
    p = np.linalg.eigvalsh(gram / len(gram))
    p = p[p > 1e-13]
    return -(p * np.log(p)).sum()


def unit_rows(z):
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def sampled_limits(num_classes, counts, share):
    """The six values from n samples: features sqrt(t) u + sqrt(1 - t) e_c against their head rows.

    Also returns the mean energy of those features, which is what `nc_limits` is given.
    """
    labels = np.repeat(np.arange(num_classes), counts)
    rng = np.random.default_rng(0)
    frame = np.linalg.qr(rng.standard_normal((num_classes + 4, num_classes + 1)))[0].T
    # a simplex that is built in another way than the one under test
    centred = np.eye(num_classes) - 1 / num_classes
    vertices = unit_rows(centred) @ frame[:-1] if num_classes > 1 else frame[:1]
    features = math.sqrt(share) * frame[-1] + math.sqrt(1 - share) * vertices
    # lengths are arbitrary: a Gram is made of unit rows
    z = unit_rows(features[labels] * rng.uniform(0.5, 2, (len(labels), 1)))
    v = vertices[labels]
    h1, h2, joint = entropy(z @ z.T), entropy(v @ v.T), entropy((z @ z.T) * (v @ v.T))
    information = h1 + h2 - joint
    low, high = sorted((h1, h2))
    limits = Limits(
        h1,
        h2,
        joint,
        information,
        information / low if low > 1e-9 else math.nan,
        (high - low) / high if high > 1e-9 else math.nan,
    )
    return limits, float((z.mean(0) ** 2).sum())


@pytest.mark.parametrize("num_classes", ETF_TABLE)
def test_balanced_limits_are_the_published_values(num_classes):
    h, joint, mi, mir, i2 = ETF_TABLE[num_classes]
    tolerance = 1e-9 if num_classes < 1000 else 1e-9 / 2
    limits = nc_limits(num_classes)
    np.testing.assert_allclose(limits, (h, h, joint, mi, mir, 0.0), rtol=0, atol=tolerance)
    assert mutual_information_etf(num_classes) == pytest.approx(limits.mutual_information, abs=1e-13)
    if not math.isnan(i2):
        assert mutual_information_etf(num_classes, alpha=2) == pytest.approx(i2, abs=1e-9)


@pytest.mark.parametrize("num_classes", [*range(3, 30), 100, 1000, 21843])
def test_balanced_limits_are_the_closed_forms_to_rounding(num_classes):
    with mpmath.workdps(40):
        c = mpmath.mpf(num_classes)
        mi = mpmath.log(c - 1) / (c - 1) + (c - 2) / (c - 1) * mpmath.log(c - 2)
        i2 = 2 * mpmath.log(c) - mpmath.log((c + c / (c - 1)) ** 2 / (c + c / (c - 1) ** 3))
        expected = [float(x) for x in (mpmath.log(c - 1), mi, mi / mpmath.log(c - 1), i2)]
    limits = nc_limits(num_classes)
    got = (
        limits.entropy_features,
        limits.mutual_information,
        limits.mir,
        mutual_information_etf(num_classes, alpha=2),
    )
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    assert limits.hdr == 0


@pytest.mark.parametrize(("num_classes", "s"), SHIFTED_TABLE)
def test_shifted_limits_are_the_published_values(num_classes, s):
    h, mir, hdr = SHIFTED_TABLE[num_classes, s]
    limits = nc_limits(num_classes, mean_energy=s)
    assert limits.entropy_features == pytest.approx(h, abs=5.1e-5)
    assert limits.mir == pytest.approx(mir, abs=5.1e-5)
    assert limits.hdr == pytest.approx(hdr, abs=5.1e-5)
    assert limits.entropy_head == pytest.approx(math.log(num_classes - 1), abs=1e-13)


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100])
@pytest.mark.parametrize("s", [1e-9, 0.01, 0.3, 0.99])
def test_shifted_limits_are_the_closed_forms(num_classes, s):
    def binary(x):
        return -x * math.log(x) - (1 - x) * math.log1p(-x)

    flat, r = math.log(num_classes - 1), (1 - s) / (num_classes - 1)
    limits = nc_limits(num_classes, mean_energy=s)
    assert limits.entropy_features == pytest.approx(binary(s) + (1 - s) * flat, abs=1e-13)
    assert limits.joint_entropy == pytest.approx(binary(r) + (1 - r) * flat, abs=1e-13)


def test_long_tails_are_the_published_values():
    for ratio, h, mir in ((10, 1.98944, 0.95947), (100, 1.59617, 0.97163)):
        limits = nc_limits(10, counts=long_tail(10, ratio))
        assert limits.entropy_features == pytest.approx(h, abs=5.1e-6)
        assert limits.mir == pytest.approx(mir, abs=5.1e-6)
        assert limits.hdr == 0


COUNTS = {
    "balanced": [6, 6, 6, 6, 6],
    "unequal": [20, 9, 4, 2, 1],
    "missing": [7, 0, 3, 0, 11],
    "missing and equal": [8, 0, 8, 8, 0],
    "one class": [0, 0, 12, 0, 0],
    "two classes": [9, 9],
    "two unequal classes": [3, 13],
    "a single class": [5],
    "long tail": long_tail(10, 100, 180).tolist(),
}


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.1, 0.5, 0.93, 1.0])
@pytest.mark.parametrize("name", COUNTS)
def test_limits_are_what_samples_give(name, share):
    counts = COUNTS[name]
    expected, mean_energy = sampled_limits(len(counts), counts, share)
    given = 0.0 if share == 0 else min(mean_energy, 1.0)
    limits = nc_limits(len(counts), counts=counts, mean_energy=given)
    np.testing.assert_allclose(limits, expected, rtol=0, atol=1e-7)
    assert all(type(value) is float for value in limits)


def test_only_the_ratios_of_counts_matter():
    assert nc_limits(3, counts=[1, 1, 1]) == nc_limits(3) == nc_limits(3, counts=np.full(3, 0.1))
    whole, scaled = nc_limits(3, counts=[6, 3, 1]), nc_limits(3, counts=[0.6, 0.3, 0.1])
    np.testing.assert_allclose(whole, scaled, rtol=0, atol=1e-14)


def test_ratios_of_zero_by_zero_are_nan():
    two, one = nc_limits(2), nc_limits(1)
    assert two[:4] == one[:4] == (0.0, 0.0, 0.0, 0.0)
    assert all(math.isnan(x) for x in (two.mir, two.hdr, one.mir, one.hdr))
    for degenerate in (nc_limits(2, counts=[1, 3]), nc_limits(4, counts=[0, 1, 0, 0])):
        assert degenerate[:4] == (0.0, 0.0, 0.0, 0.0)
        assert math.isnan(degenerate.mir) and math.isnan(degenerate.hdr)
    for collapsed in (nc_limits(7, mean_energy=1), nc_limits(2, mean_energy=0.3)):
        assert min(collapsed.entropy_features, collapsed.entropy_head) == 0
        assert math.isnan(collapsed.mir) and collapsed.hdr == 1


def test_mean_energy_is_in_its_interval():
    counts = [3, 1, 1]
    q = (3 * (9 + 1 + 1) / 25 - 1) / 2  # 0.16
    least = nc_limits(3, counts=counts, mean_energy=q)
    np.testing.assert_allclose(least, nc_limits(3, counts=counts), rtol=0, atol=1e-12)
    np.testing.assert_allclose(  # rounding of a float32 measurement is forgiven
        nc_limits(3, counts=counts, mean_energy=q - 1e-7), least, rtol=0, atol=1e-12
    )
    assert nc_limits(3, mean_energy=1 + 1e-7) == nc_limits(3, mean_energy=1)
    for wrong in (0.1, q - 1e-5, 1.01, -0.2, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"mean_energy is .* \[0\.16, 1\]"):
            nc_limits(3, counts=counts, mean_energy=wrong)
    with pytest.raises(ValueError, match=r"\[1, 1\]"):
        nc_limits(3, counts=[0, 4, 0], mean_energy=0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(num_classes=0), "num_classes must be at least 1; got 0"),
        (dict(num_classes=3, counts=[1, 2]), r"shape \(2,\)"),
        (dict(num_classes=2, counts=[1, -1]), "non-negative"),
        (dict(num_classes=2, counts=[0, 0]), "positive sum"),
        (dict(num_classes=2, counts=[1, math.nan]), "finite"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        nc_limits(**arguments)


def test_theorems_hold_with_their_conditions_only():
    v = np.array([1.0, 2.0, -1.0])
    collinear = unit_rows(np.stack([v, -v, 2 * v]))
    assert entropy(collinear @ collinear.T) == pytest.approx(0, abs=1e-12)  # and not equal
    assert nc_limits(10, mean_energy=0.1).entropy_features == pytest.approx(math.log(10))
    assert nc_limits(10, mean_energy=0.1).mir == pytest.approx(1, abs=1e-12)
    one_hot = unit_rows(np.eye(10))  # a collapsed network with mean energy 1/C
    assert entropy(one_hot @ one_hot.T) == pytest.approx(math.log(10))


@pytest.mark.parametrize(("num_classes", "dim"), [(1, 1), (2, 1), (2, 5), (7, 6), (10, 10), (5, 64)])
def test_etf(num_classes, dim):
    rows = etf(num_classes, dim)
    assert rows.shape == (num_classes, dim) and rows.dtype == np.float64
    expected = np.eye(1)
    if num_classes > 1:
        expected = num_classes / (num_classes - 1) * np.eye(num_classes) - 1 / (num_classes - 1)
        np.testing.assert_allclose(rows.sum(0), 0, atol=1e-14)
    np.testing.assert_allclose(rows @ rows.T, expected, rtol=0, atol=1e-14)


def test_etf_needs_room():
    assert etf(5).shape == (5, 4) and etf(1).shape == (1, 1)
    with pytest.raises(ValueError, match="dim is 3, .* 5 classes needs dim >= 4"):
        etf(5, 3)
    with pytest.raises(ValueError, match="num_classes must be at least 1; got 0"):
        etf(0)


@pytest.mark.parametrize("alpha", [0, 0.5, 1.0, 1.01, 2.0, 5.0, math.inf])
@pytest.mark.parametrize("num_classes", [1, 2, 3, 10])
def test_renyi_information_is_that_of_the_dense_matrix(num_classes, alpha):
    def renyi(gram):
        p = np.linalg.eigvalsh(gram / len(gram))
        p = p[p > 1e-13]
        if alpha == 1:
            return -(p * np.log(p)).sum()
        if alpha == math.inf:
            return -math.log(p.max())
        return math.log((p**alpha).sum()) / (1 - alpha)

    gram = etf(num_classes) @ etf(num_classes).T
    expected = 2 * renyi(gram) - renyi(gram * gram)
    assert mutual_information_etf(num_classes, alpha=alpha) == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("alpha", [-1, -math.inf, math.nan, "x", None])
def test_renyi_order_is_not_negative(alpha):
    with pytest.raises(ValueError, match="alpha"):
        mutual_information_etf(3, alpha=alpha)


def simulated_head(num_classes, dim, repeats):
    """Mean entropy of Gaussian heads and its standard error.

    tr K^2 has the exact mean C + C (C-1) / D and moves with the entropy, so regressing on it takes
    most of the noise away.
    """
    rng = np.random.default_rng(7)
    values, squares = [], []
    for _ in range(repeats):
        w = unit_rows(rng.standard_normal((num_classes, dim)))
        p = np.linalg.eigvalsh(w @ w.T if num_classes <= dim else w.T @ w) / num_classes
        p = p[p > 1e-14]
        values.append(-(p * np.log(p)).sum())
        squares.append((p**2).sum())
    values, squares = np.array(values), np.array(squares)
    squares -= (1 + (num_classes - 1) / dim) / num_classes
    slope = np.cov(values, squares)[0, 1] / squares.var(ddof=1)
    rest = values - slope * squares
    return rest.mean(), rest.std(ddof=1) / math.sqrt(repeats)


@pytest.mark.parametrize(
    ("num_classes", "dim", "repeats", "error"),
    [
        (10, 128, 1000, 1e-4),
        (100, 128, 200, 1e-4),
        (113, 128, 150, 1e-4),
        (100, 512, 50, 1e-4),
        (100, 10, 1000, 1e-4),
        (100, 100, 200, 1e-4),
        (50, 50, 500, 1e-4),
        (10, 10, 2000, 3e-3),
        (5, 3, 2000, 1.5e-2),
        (2, 2, 2000, 6e-2),
    ],
)
def test_random_head_entropy_has_the_stated_error(num_classes, dim, repeats, error):
    mean, standard_error = simulated_head(num_classes, dim, repeats)
    assert abs(random_head_entropy(num_classes, dim) - mean) < error + 4 * standard_error
    # and the test is sharp enough to refuse the leading term on its own
    leading = (
        math.log(num_classes) - num_classes / (2 * dim)
        if num_classes <= dim
        else math.log(dim) - dim / (2 * num_classes)
    )
    assert abs(leading - mean) > error + 4 * standard_error


def test_random_head_entropy_at_its_edges():
    assert random_head_entropy(1, 8) == random_head_entropy(8, 1) == 0
    assert random_head_entropy(10, 10**7) == pytest.approx(math.log(10), abs=1e-5)
    assert random_head_entropy(64, 64) == pytest.approx(  # the two branches meet
        math.log(64) - 0.5 - (2 * math.log(2) - 5 / 3) / 64, abs=1e-12
    )
    with pytest.raises(ValueError, match="dim must be at least 1; got 0"):
        random_head_entropy(10, 0)
