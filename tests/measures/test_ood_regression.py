"""NC5, NECO and NCI, NRC1 to NRC3: against scikit-learn, loops, and the formulas of the public codes."""

import jax
import numpy as np
import pytest
from scipy.linalg import sqrtm
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

import infojax as ij

RNG = np.random.default_rng(0)
C, D = 3, 7
LABELS = np.arange(30) % C
CENTERS = RNG.normal(size=(C, D))
TRAIN = (3 * CENTERS[LABELS] + RNG.normal(size=(30, D)) + 1).astype(np.float32)
TEST = RNG.normal(size=(9, D)).astype(np.float32)
HEAD, BIAS = RNG.normal(size=(C, D)).astype(np.float32), RNG.normal(size=C).astype(np.float32)
MASK = (np.arange(30) % 5 != 1).astype(np.float32)


def unit(z):
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def test_nc5_is_the_mean_cosine_with_the_other_data():
    means = np.stack([TRAIN[LABELS == c].mean(0) for c in range(C)])
    expected = np.mean(np.abs(unit(means) @ unit(TEST.mean(0))))  # rhubarbwu's orthogonality_deviation
    assert float(ij.nc5(TRAIN, LABELS, TEST)) == pytest.approx(expected, rel=1e-5)
    assert float(ij.nc5(TRAIN * 1e20, LABELS, TEST * 1e-20, 5)) == pytest.approx(expected, rel=1e-5)
    kept = MASK > 0
    masked = ij.nc5(np.where(kept[:, None], TRAIN, np.nan), LABELS, TEST, weights=MASK)
    assert float(masked) == pytest.approx(float(ij.nc5(TRAIN[kept], LABELS[kept], TEST)), rel=1e-5)
    assert float(ij.nc5(TRAIN, LABELS, 0 * TEST)) == 0 and np.isnan(ij.nc5(TRAIN, LABELS - 9, TEST, C))
    assert float(ij.nc5(np.eye(4)[:2], [0, 1], np.eye(4)[2:])) == 0  # collapsed: orthogonal


@pytest.mark.parametrize("dim", [1, 3, D])
def test_neco_is_the_share_of_the_norm_in_the_principal_space(dim):
    basis = PCA(dim).fit(TRAIN).components_
    expected = np.linalg.norm(TEST @ basis.T, axis=1) / np.linalg.norm(TEST, axis=1)
    np.testing.assert_allclose(ij.neco(TEST, TRAIN, dim), expected, rtol=1e-4)
    scaler = StandardScaler().fit(TRAIN)
    train, test = scaler.transform(TRAIN), scaler.transform(TEST)
    expected = np.linalg.norm(PCA(dim).fit(train).transform(test), axis=1) / np.linalg.norm(test, axis=1)
    logit = np.arange(1, 10.0)
    found = ij.neco(TEST, TRAIN, dim, standardize=True, max_logit=logit)
    np.testing.assert_allclose(found, expected * logit, rtol=1e-4)
    few = TRAIN[:4]  # fewer samples than columns
    basis = PCA(min(dim, 3)).fit(few).components_
    expected = np.linalg.norm(TEST @ basis.T, axis=1) / np.linalg.norm(TEST, axis=1)
    np.testing.assert_allclose(jax.jit(ij.neco, static_argnums=2)(TEST, few, dim), expected, rtol=1e-4)


def test_neco_of_masks_scales_and_zero_rows():
    kept = MASK > 0
    masked = ij.neco(TEST, np.where(kept[:, None], TRAIN, np.nan), 2, weights=MASK)
    np.testing.assert_allclose(masked, ij.neco(TEST, TRAIN[kept], 2), rtol=1e-4)
    np.testing.assert_allclose(ij.neco(TEST * 1e-20, TRAIN * 1e-20, 2), ij.neco(TEST, TRAIN, 2), rtol=1e-5)
    assert float(ij.neco(np.zeros((1, D)), TRAIN, 2)[0]) == 0
    assert not np.any(ij.neco(TEST, 0 * TRAIN, 2))


def test_nci_agrees_with_openood():
    mean = TRAIN.mean(0)
    chosen = np.argmax(TEST @ HEAD.T + BIAS, axis=1)
    expected = (HEAD[chosen] * (TEST - mean)).sum(1) / np.linalg.norm(TEST - mean, axis=1)
    for alpha in (0.0, 0.01):
        found = ij.nci(TEST, mean, HEAD, BIAS, alpha=alpha)
        np.testing.assert_allclose(found, expected + alpha * np.abs(TEST).sum(1), rtol=1e-4)
    assert float(ij.nci(mean[None], mean, HEAD)[0]) == 0


# Regression


N, T = 40, 3
Y = RNG.normal(size=(N, T)) @ np.array([[1, 0.5, 0], [0, 0.8, 0.2], [0, 0, 0.6]])
FEATURES = Y @ RNG.normal(size=(T, D)) + 0.2 * RNG.normal(size=(N, D)) + 0.5
WEIGHTS = RNG.normal(size=(T, D))


def outside(basis):
    u = unit(FEATURES)
    return np.mean(np.sum((u - u @ basis.T @ basis) ** 2, axis=1))


def test_nrc1_and_nrc2_are_what_lies_outside_of_the_subspaces():
    assert float(ij.nrc1(FEATURES, T)) == pytest.approx(outside(PCA(T).fit(FEATURES).components_), rel=1e-3)
    plain = np.linalg.svd(FEATURES, full_matrices=False)[2][:T]
    assert float(ij.nrc1(FEATURES, T, convention="nc_toolbox")) == pytest.approx(outside(plain), rel=1e-3)
    span = np.linalg.svd(WEIGHTS, full_matrices=False)[2]
    assert float(ij.nrc2(FEATURES, WEIGHTS)) == pytest.approx(outside(span), rel=1e-4)
    collapsed = Y @ WEIGHTS
    assert float(ij.nrc2(collapsed, WEIGHTS)) == pytest.approx(0, abs=1e-5)
    assert float(ij.nrc1(collapsed - collapsed.mean(0), T)) == pytest.approx(0, abs=1e-5)
    mask = (np.arange(N) % 3 > 0).astype(np.float32)
    masked = ij.nrc1(np.where(mask[:, None] > 0, FEATURES, np.nan), T, weights=mask)
    assert float(masked) == pytest.approx(float(ij.nrc1(FEATURES[mask > 0], T)), rel=1e-4)
    assert np.isnan(ij.nrc2(0 * FEATURES, WEIGHTS))


def distance(root, gamma, head=WEIGHTS):
    a = head @ head.T
    b = root - np.sqrt(gamma) * np.eye(T)
    return np.sum((a / np.linalg.norm(a) - b / np.linalg.norm(b)) ** 2)


def test_nrc3_is_the_smallest_distance_over_gamma():
    for seed in range(4):
        head = np.random.default_rng(seed).normal(size=(T, D))
        covariance = np.cov(Y.T, bias=True)
        root, least = np.real(sqrtm(covariance)), np.linalg.eigvalsh(covariance)[0]
        for gamma in (0.0, 0.01, 0.5 * least):
            assert float(ij.nrc3(head, Y, gamma=gamma)) == pytest.approx(distance(root, gamma, head), rel=1e-3)
        grid = min(distance(root, gamma, head) for gamma in np.linspace(0, least, 2001))
        assert float(ij.nrc3(head, Y)) == pytest.approx(grid, rel=1e-3)


def test_nrc3_vanishes_at_collapse():
    """W W^T proportional to S^(1/2) - gamma^(1/2) I, the optimum of the unconstrained features model."""
    covariance = np.cov(Y.T, bias=True)
    root, least = np.real(sqrtm(covariance)), np.linalg.eigvalsh(covariance)[0]
    head = np.real(sqrtm(root - np.sqrt(0.3 * least) * np.eye(T))) @ np.linalg.qr(RNG.normal(size=(D, T)))[0].T
    assert float(ij.nrc3(head, Y)) == pytest.approx(0, abs=1e-5)
    assert float(ij.nrc3(head, Y * 1e6)) == pytest.approx(0, abs=1e-5)
    assert np.isnan(ij.nrc3(0 * head, Y))


def test_without_other_data_or_a_spread_there_is_no_direction():
    assert np.isnan(ij.nc5(TRAIN, LABELS, TEST[:0])) and np.isnan(ij.nc5(TRAIN, LABELS, TEST, ood_weights=np.zeros(9)))
    for value in (1.0, 0.1, -3e5):  # the mean of equal numbers is not always that number
        constant = np.full(TRAIN.shape, value, np.float32)
        np.testing.assert_array_equal(ij.neco(TEST, constant, 2, standardize=True), 0)
        np.testing.assert_array_equal(ij.neco(TEST, constant, 2), 0)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ij.nc5(TRAIN, LABELS, TEST[:, :3]), "ood has 3 columns, features 7"),
        (lambda: ij.nc5(TRAIN, LABELS, TEST, ood_weights=np.ones(3)), "ood_weights must have shape"),
        (lambda: ij.neco(TEST[:, :3], TRAIN, 2), "features have 3 columns, train 7"),
        (lambda: ij.neco(TEST, TRAIN, 8), "dim must be at most 7"),
        (lambda: ij.neco(TEST, TRAIN, 2, max_logit=np.ones(3)), r"max_logit must be \(9,\)"),
        (lambda: ij.nci(TEST, TRAIN.mean(0)[:3], HEAD), r"head must be \(C, 7\) and train_mean \(7,\)"),
        (lambda: ij.nrc1(FEATURES, 8), "num_targets must be at most 7"),
        (lambda: ij.nrc1(FEATURES, 2, convention="x"), "convention must be one of paper, nc_toolbox"),
        (lambda: ij.nrc2(FEATURES, WEIGHTS[:, :2]), r"head must be \(n, 7\)"),
        (lambda: ij.nrc3(WEIGHTS, Y[:, :2]), r"targets must be \(N, 3\)"),
        (lambda: ij.nrc3(WEIGHTS, Y, gamma=-1.0), "gamma must be a number of at least 0"),
    ],
)
def test_bad_requests(call, says):
    with pytest.raises(ValueError, match=says):
        call()
