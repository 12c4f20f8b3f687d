"""Limits are what features at exact collapse have; bounds are reached by no features, and approached by some."""

import math

import numpy as np
import pytest

import infojax as ij
from infojax.measures.limits import geometry_at_collapse, limits_at_collapse

COUNTS = {
    "equal": [6, 6, 6, 6, 6],
    "unequal": [20, 10, 6, 4, 4],
    "a class missing": [6, 6, 6, 6, 0],
    "two missing, unequal": [9, 0, 3, 2, 0],
    "fewer samples than classes": [1, 1, 1, 0, 0],
}


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize(("dim", "shift"), [(4, 0.0), (5, 0.0), (5, 0.3), (9, 0.3)])
def test_collapsed_features_are_at_their_limits(counts, dim, shift):
    """C = 5 classes in D = C - 1, C and more dimensions, with a common mean where there is room for one."""
    corners = ij.etf(5, dim)
    y = np.repeat(np.arange(5), counts)
    z = math.sqrt(1 - shift) * corners[y]
    if shift:
        z[:, -1] += math.sqrt(shift)
    found = ij.analyze(z, y, corners)
    assert {"nc1", "nc2_etf_distance_head", "nc3", "entropy_head_weights", "mir", "entropy_features_centered"} <= (
        found.limits.keys() | found.reasons.keys()
    )
    for key, limit in found.limits.items():
        if np.isfinite(found.measures[key]):
            assert found.measures[key] == pytest.approx(limit, abs=2e-7), key


def test_no_room_for_a_common_mean():
    """In C - 1 dimensions the limits are those of the simplex, whatever the mean energy during training."""
    with pytest.raises(ValueError, match="in 4 dimensions a simplex of 5 classes leaves no room"):
        ij.nc_limits(5, mean_energy=0.2, dim=4)
    assert limits_at_collapse([6] * 5, 0.2, 4)[0] == ij.nc_limits(5)
    assert limits_at_collapse([6] * 5, 0.2, 5)[0] == ij.nc_limits(5, mean_energy=0.2)
    assert all(math.isnan(x) for x in (*ij.nc_limits(6, dim=4), *limits_at_collapse([6] * 6, 0.0, 4)[0]))


def tight_frame(classes, dim):
    """(C, D) rows of equal length with W^T W = C / D I and zero sum: cosines and sines of the roots of unity."""
    angles = 2 * np.pi * np.outer(np.arange(classes), np.arange(1, dim // 2 + 1)) / classes
    return np.hstack([np.cos(angles), np.sin(angles)]) * math.sqrt(2 / dim)


@pytest.mark.parametrize(("classes", "dim"), [(12, 4), (30, 10), (7, 2)])
def test_bounds_where_there_is_no_simplex(classes, dim):
    """A tight frame attains them; other features do not reach them; nothing else is shown as a limit."""
    frame, y = tight_frame(classes, dim), np.repeat(np.arange(classes), 20)
    found = ij.analyze(frame[y], y, frame)
    attained = (
        "entropy_features", "entropy_features_centered", "effective_rank_from_gram", "entropy_head_weights",
        "entropy_head", "nc2_etf_distance", "nc2_etf_distance_head", "nc3_etf", "nc1", "nc2_equinorm", "nc3", "nc4",
        "cdnv", "davies_bouldin", "silhouette", "nc2_equinorm_head",
    )  # fmt: skip
    for key in attained:
        assert found.measures[key] == pytest.approx(found.limits[key], abs=1e-6), key
    assert found.limits.keys() == set(attained) | {key for key in found.measures if key.startswith("nc1_")}
    (warning,) = (line for line in found.warnings if line.startswith("C > D + 1"))
    assert f"a simplex of {classes} classes needs {classes - 1} dimensions" in warning and "nc2_etf_distance" in warning
    rng = np.random.default_rng(0)
    for _ in range(20):
        w = rng.normal(size=(classes, dim))
        distance = float(ij.nc2_from_means(w - w.mean(0)).etf_distance)
        assert distance > geometry_at_collapse(classes, classes, dim)[0]["nc2_etf_distance"] - 1e-6
        assert float(ij.matrix_entropy(w)) < math.log(dim)


# Reasons

COINCIDE = np.array([[0, 0], [1, 1]] * 5 + [[0, 1], [1, 0]] * 5 + [[5, 5], [6, 6]] * 5, float)
THREE = np.repeat([0, 1, 2], 10)
POINTS = np.repeat([[1.0, 2.0], [1.0, 2.0], [3.0, 1.0]], 10, axis=0)
REASONS = {
    "two means coincide, with spread": (
        COINCIDE,
        THREE,
        None,
        "cdnv",
        "inf: classes 0 and 1 have the same mean and spread",
    ),
    "the same of Davies-Bouldin": (
        COINCIDE,
        THREE,
        None,
        "davies_bouldin",
        "inf: classes 0 and 1 have the same mean and",
    ),
    "two means coincide, without": (
        POINTS,
        THREE,
        None,
        "cdnv",
        "0/0: classes 0 and 1 have the same mean and no spread",
    ),
    "all means coincide": (
        COINCIDE[:20],
        THREE[:20],
        None,
        "nc1",
        "0/0: class means coincide, there is no variance between",
    ),
    "one class": (COINCIDE, np.zeros(30, int), None, "nc1", "fewer than two classes have samples"),
    "one sample per class": (
        np.eye(3),
        np.arange(3),
        None,
        "silhouette",
        "needs at least two classes and a class with two",
    ),
    "no head": (COINCIDE, THREE, np.zeros((3, 2)), "nc3", "0/0: the head or all centred class means are zero"),
    "opposite head rows": (COINCIDE[:20], THREE[:20], np.array([[1, 0], [-1, 0.0]]), "mir", "0/0: an entropy is zero"),
}


@pytest.mark.parametrize("case", REASONS)
def test_reasons_are_true(case):
    z, y, head, key, reason = REASONS[case]
    found = ij.analyze(z, y, head)
    assert not np.isfinite(found.measures[key]) and found.reasons[key].startswith(reason)
    assert np.isinf(found.measures[key]) == reason.startswith("inf")


def test_davies_bouldin_agrees_with_scikit_learn_where_no_means_coincide():
    metrics = pytest.importorskip("sklearn.metrics")
    found = ij.analyze(COINCIDE[10:], THREE[10:] - 1)
    assert found.measures["davies_bouldin"] == pytest.approx(metrics.davies_bouldin_score(COINCIDE[10:], THREE[10:]))
    assert "scikit-learn's where no means coincide" in found.conventions["davies_bouldin"]
