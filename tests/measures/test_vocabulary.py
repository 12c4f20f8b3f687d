"""Vocabularies in tiles: against the functions of few classes, loops, and the numbers of rhubarbwu's package."""

import math
import os

import jax
import numpy as np
import pytest

import infojax as ij

RNG = np.random.default_rng(0)
C, D, N = 23, 6, 400
HEAD, BIAS = RNG.normal(size=(C, D)).astype(np.float32), RNG.normal(size=C).astype(np.float32)
MEANS = HEAD + 0.5 * RNG.normal(size=(C, D))
LABELS = np.concatenate([np.arange(C - 2), RNG.integers(0, C - 3, N - C + 2)])  # the last two have none, one has one
Z = (MEANS[LABELS] + 0.7 * RNG.normal(size=(N, D)) + 5).astype(np.float32)
KEPT = np.bincount(LABELS, minlength=C) >= 2


@pytest.fixture(scope="module")
def stats():
    found = ij.vocabulary_stats(C, D)
    for start in range(0, N, 150):
        found = ij.update_vocabulary(found, Z[start : start + 150], LABELS[start : start + 150])
    return found


def test_streamed_moments_are_those_of_all_samples(stats, tmp_path):
    expected = ij.class_stats(Z, LABELS, C)
    np.testing.assert_array_equal(stats.counts, np.bincount(LABELS, minlength=C))
    np.testing.assert_allclose(stats.mean, expected.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stats.squares, expected.squares, rtol=1e-4, atol=1e-5)
    # stop, save, load, go on; in place, with tokens that do not count
    half = ij.update_vocabulary(ij.vocabulary_stats(C, D), Z[:130], LABELS[:130])
    np.savez(tmp_path / "half.npz", **half._asdict())
    half = ij.VocabularyStats(**np.load(tmp_path / "half.npz"))
    step = jax.jit(ij.update_vocabulary, donate_argnums=0)
    where = np.arange(N) < N - 7
    padded = np.where(where[:, None], Z, np.nan)
    resumed = step(
        jax.tree.map(jax.numpy.asarray, half), padded[130:], np.where(where, LABELS, 10**6)[130:], where[130:]
    )
    resumed = ij.update_vocabulary(resumed, Z[-7:], LABELS[-7:])
    for a, b in zip(resumed, stats, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_statistics_in_a_folder_are_those_in_memory(stats, tmp_path):
    where = np.arange(N) % 9 > 0
    expected = ij.update_vocabulary(ij.vocabulary_stats(C, D), Z, LABELS, where)
    labels = np.where(np.arange(N) == 1, -1, LABELS)  # and one that is of no class
    expected = ij.update_vocabulary(expected, Z[:150], labels[:150])
    for batch in (slice(0, 150), slice(150, N)):  # opened again each time, as after a restart
        found = ij.vocabulary_stats(C, D, tmp_path / "stats")
        assert ij.update_vocabulary(found, Z[batch], LABELS[batch], where[batch]).mean is found.mean
    ij.update_vocabulary(found, Z[:150], labels[:150])
    del found
    found = ij.vocabulary_stats(C, D, tmp_path / "stats")
    np.testing.assert_array_equal(found.counts, expected.counts)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.squares, expected.squares, rtol=1e-4, atol=1e-5)
    assert ij.vocabulary_collapse(found, HEAD).nc3_etf == pytest.approx(
        ij.vocabulary_collapse(expected, HEAD).nc3_etf, rel=1e-5
    )
    with pytest.warns(UserWarning, match="2 of 3 labels are 23 or more"):
        nothing = ij.update_vocabulary(found, Z[:3], [-1, C, C])
    np.testing.assert_array_equal(nothing.counts, expected.counts)
    with pytest.raises(ValueError, match=rf"mean.npy holds \({C}, {D}\) of float32; expected \({C}, 9\)"):
        ij.vocabulary_stats(C, 9, tmp_path / "stats")
    with pytest.raises(ValueError, match="is a file, expected a folder"):
        ij.vocabulary_stats(C, D, tmp_path / "stats" / "mean.npy")
    os.remove(tmp_path / "stats" / "mean.npy")
    with pytest.raises(ValueError, match="holds counts.npy but no mean.npy: bring it back, or delete the others"):
        ij.vocabulary_stats(C, D, tmp_path / "stats")


def test_files_count_more_tokens_than_float32_and_int32_hold(tmp_path):
    found, many = ij.vocabulary_stats(2, 2, tmp_path), 2**33
    found.counts[:], found.squares[:] = many, float(many)
    z = np.array([[1, 0], [-1, 0]], np.float32)
    ij.update_vocabulary(found, z, [1, 1])
    assert found.counts.tolist() == [many, many + 2] and found.squares.tolist() == [many, many + 2]
    # a copy on write is no file to update
    ij.vocabulary_stats(2, 2, tmp_path / "new")
    copies = ij.VocabularyStats(*(np.load(tmp_path / "new" / f"{name}.npy", mmap_mode="c") for name in found._fields))
    updated = ij.update_vocabulary(copies, z, [1, 1])
    assert updated.mean is not copies.mean and np.asarray(updated.counts).tolist() == [0, 2]
    with pytest.raises(ValueError, match="stats.counts reach 8,589,934,594, more than int32 holds in memory"):
        ij.update_vocabulary(found._replace(counts=np.array(found.counts)), z, [1, 1])


def test_a_simplex_has_no_distance_to_the_simplex():
    means = np.eye(4, 9) - 0.25 * np.eye(4, 9).sum(0)
    stats = ij.VocabularyStats(np.full(4, 5), (3 * means + 1).astype(np.float32), np.zeros(4, np.float32))
    found = ij.vocabulary_collapse(stats, (2 * means).astype(np.float32))
    assert max(found.etf_distance, found.nc3_etf, found.nc3, found.equiangularity) < 1e-6


def test_variances_far_from_the_origin_keep_their_digits():
    z = (1e4 + 1e-2 * np.sin(np.arange(60.0))[:, None] * [1, 2]).astype(np.float32)
    labels, found = np.arange(60) % 2, ij.vocabulary_stats(2, 2)
    for start in range(0, 60, 20):
        found = ij.update_vocabulary(found, z[start : start + 20], labels[start : start + 20])
    exact = [((z[labels == c] - z[labels == c].mean(0, dtype=np.float64)) ** 2).sum() for c in range(2)]
    np.testing.assert_allclose(found.squares, exact, rtol=2e-2)


def in_loops(means, variances, head, exponent=1):
    """Each statistic as a loop over pairs, in float64."""
    m = np.float64(means) - np.float64(means).mean(0)
    c, u = len(m), m / np.linalg.norm(m, axis=1, keepdims=True)
    pairs = [(i, j) for i in range(c) for j in range(i)]
    cosines = np.array([u[i] @ u[j] for i, j in pairs])
    apart = np.array([np.linalg.norm(u[i] - u[j]) for i, j in pairs])
    inner = np.array([m[i] @ m[j] for i, j in pairs])
    spread = [(variances[i] + variances[j]) / (2 * np.sum((means[i] - means[j]) ** 2) ** exponent) for i, j in pairs]
    simplex = (np.eye(c) - 1 / c) / math.sqrt(c - 1)
    norms, dots = np.linalg.norm(m, axis=1), (head * m).sum(1)
    return {
        "cdnv": np.mean(spread), "equiangularity": np.mean(np.abs(cosines + 1 / (c - 1))),
        "equinorm": norms.std(ddof=1) / norms.mean(), "log_norm_mean": np.log(norms).mean(),
        "log_norm_std": np.log(norms).std(ddof=1), "interference_mean": inner.mean(), "interference_std": inner.std(),
        "gnc2_mean": np.log(1 / apart).mean(), "gnc2_std": np.log(1 / apart).std(), "distance_mean": apart.mean(),
        "distance_std": apart.std(), "etf_distance": np.linalg.norm(m @ m.T / np.linalg.norm(m @ m.T) - simplex),
        "nc3": np.sum((head / np.linalg.norm(head) - m / np.linalg.norm(m)) ** 2),
        "nc3_etf": np.linalg.norm(head @ m.T / np.linalg.norm(head @ m.T) - simplex), "unc3_mean": dots.mean(),
        "unc3_std": dots.std(ddof=1), "unc3_cos_mean": (dots / norms / np.linalg.norm(head, axis=1)).mean(),
        "unc3_cos_std": (dots / norms / np.linalg.norm(head, axis=1)).std(ddof=1),
    }  # fmt: skip


@pytest.mark.parametrize("tile", [4, 7, 64])
def test_tiles_are_the_loops_over_pairs(stats, tile):
    seen = []
    found = ij.vocabulary_collapse(stats, HEAD, tile=tile, progress=lambda *x: seen.append(x))
    variances = np.asarray(stats.squares)[KEPT] / np.asarray(stats.counts)[KEPT]
    expected = in_loops(np.asarray(stats.mean, np.float64)[KEPT], variances, HEAD[KEPT].astype(np.float64))
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=2e-4, abs=2e-6), name
    assert (found.num_classes, found.left_out, found.coincident) == (KEPT.sum(), C - KEPT.sum(), 0)
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))
    double = in_loops(np.asarray(stats.mean, np.float64)[KEPT], variances, HEAD[KEPT].astype(np.float64), 2)["cdnv"]
    assert ij.vocabulary_collapse(stats, tile=tile, distance_exponent=2).cdnv == pytest.approx(double, rel=2e-4)
    alone = ij.vocabulary_collapse(stats)
    assert alone.nc3 is None and alone.unc3_std is None


def test_tiles_agree_with_the_functions_for_few_classes(stats):
    kept = np.flatnonzero(KEPT)
    rows = np.isin(LABELS, kept)
    z, labels = Z[rows], np.searchsorted(kept, LABELS[rows])
    found, few = ij.vocabulary_collapse(stats, HEAD), ij.neural_collapse(z, labels, HEAD[kept], BIAS[kept])
    for name, other in {
        "cdnv": "cdnv", "equinorm": "nc2_equinorm", "equiangularity": "nc2_equiangularity",
        "etf_distance": "nc2_etf_distance", "nc3": "nc3", "nc3_etf": "nc3_etf",
    }.items():  # fmt: skip
        assert getattr(found, name) == pytest.approx(float(getattr(few, other)), rel=2e-3), name
    differ, count = 0, 0
    for start in range(0, N, 90):
        batch = slice(start, start + 90)
        a, b = ij.vocabulary_disagreement(stats, Z[batch], LABELS[batch], HEAD, BIAS, tile=5)
        differ, count = differ + a, count + b
    np.testing.assert_array_equal(count, np.where(KEPT, np.bincount(LABELS, minlength=C), 0))
    assert differ.sum() / count.sum() == pytest.approx(float(few.nc4), abs=1e-6)


def test_memory_mapped_statistics(stats, tmp_path):
    for name, value in stats._asdict().items():
        np.save(tmp_path / f"{name}.npy", value)
    mapped = ij.VocabularyStats(*(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in stats._fields))
    assert ij.vocabulary_collapse(mapped, HEAD, tile=8) == pytest.approx(
        ij.vocabulary_collapse(stats, HEAD, tile=8), rel=1e-5
    )


# Printed by rhubarbwu/neural-collapse c05a0b8 (torch 2.13, CPU, float32) for the statistics of `published`.
RHUBARBWU = {
    "nc1_cdnv": 0.13673441112041473,
    "nc2_etf_err": 0.9149592518806458,
    "nc2g_dist": 0.10486043989658356,
    "nc2g_log": 0.09000459313392639,
    "nc3_dual_err": 0.9433299899101257,
    "nc3u_uni_dual": 9.065625190734863,
    "cdnv_dist_exp_2": 0.05521136149764061,
    "nc4_agree": 0.5600000023841858,
}


def published():
    """Three passes over seeded tokens, class 5 with a single one."""
    rng = np.random.default_rng(7)
    head = rng.normal(size=(12, 5)).astype(np.float32)
    labels = np.concatenate([np.arange(12), rng.choice([c for c in range(12) if c != 5], 188)])
    z = (head[labels] * 1.5 + 0.6 * rng.normal(size=(200, 5)) + 1).astype(np.float32)
    return z, labels, head


def test_numbers_agree_with_rhubarbwus_package():
    z, labels, head = published()
    stats = ij.update_vocabulary(ij.vocabulary_stats(12, 5), z, labels)
    found = ij.rhubarbwu_metrics(ij.vocabulary_collapse(stats, head, min_count=1, tile=5))
    squared = ij.vocabulary_collapse(stats, head, min_count=1, distance_exponent=2)
    differ, count = ij.vocabulary_disagreement(stats, z, labels, head, min_count=1)
    values = found | {"cdnv_dist_exp_2": squared.cdnv, "nc4_agree": 1 - differ.sum() / count.sum()}
    assert values == pytest.approx(RHUBARBWU, rel=2e-5)


@pytest.mark.parametrize("scale", [2.0**-70, 2.0**70])
def test_every_scale_of_the_means_has_the_same_digits(stats, scale):
    mean, squares = np.asarray(stats.mean), np.asarray(stats.squares, np.float64)
    scaled = stats._replace(mean=np.float32(scale) * mean, squares=squares * scale**2)
    expected, found = (ij.vocabulary_collapse(s, HEAD, distance_exponent=2)._asdict() for s in (stats, scaled))
    powers = {"cdnv": -2, "interference_mean": 2, "interference_std": 2, "unc3_mean": 1, "unc3_std": 1}
    for name, value in expected.items():
        value = value + math.log(scale) if name == "log_norm_mean" else value * scale ** powers.get(name, 0)
        assert found[name] == pytest.approx(value, rel=1e-6), name
    far = [ij.vocabulary_disagreement(s, f * Z, LABELS, HEAD / f)[0] for s, f in ((stats, 1), (scaled, scale))]
    np.testing.assert_array_equal(*far)


def test_a_mean_at_the_centre_is_not_the_direction_of_another():
    means = np.array([[1e-7, 3e-7], [1, 0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]], np.float32)
    stats = ij.VocabularyStats(np.full(4, 5), means, np.full(4, 5.0, np.float32))
    expected = in_loops(means, np.ones(4), means)
    found = ij.vocabulary_collapse(stats)
    for name in ("gnc2_mean", "gnc2_std", "distance_mean", "distance_std"):
        assert getattr(found, name) == pytest.approx(expected[name], rel=1e-4), name


@pytest.mark.parametrize("holder", ["z", "mean", "head", "bias"])
def test_no_choice_is_made_between_nans(stats, holder):
    given = {"z": Z, "mean": np.asarray(stats.mean), "head": HEAD, "bias": BIAS}
    given[holder] = np.array(given[holder])
    given[holder][3] = np.nan
    with pytest.raises(ValueError, match="nan"):
        ij.vocabulary_disagreement(stats._replace(mean=given["mean"]), given["z"], LABELS, given["head"], given["bias"])
    if holder == "z":
        differ, count = ij.vocabulary_disagreement(stats, given["z"], LABELS, HEAD, BIAS, where=np.arange(N) != 3)
        assert count.sum() == KEPT[LABELS].sum() - 1
        with pytest.raises(ValueError, match=r"where must be \(400,\) booleans"):
            ij.vocabulary_disagreement(stats, Z, LABELS, HEAD, BIAS, where=np.full(N, 0.5))


def test_degenerate_vocabularies():
    one = ij.update_vocabulary(ij.vocabulary_stats(3, 2), np.ones((2, 2)), [1, 1])
    found = ij.vocabulary_collapse(one, np.ones((3, 2)))
    assert (found.num_classes, found.left_out) == (1, 2)
    assert all(math.isnan(value) for value in found[3:])
    rows = np.array([[0, 0], [0, 2], [0, 0], [0, 2], [5, 5], [6, 5], [9, -4], [9, -3]], np.float32)
    same = ij.update_vocabulary(ij.vocabulary_stats(4, 2), rows, [0, 0, 1, 1, 2, 2, 3, 3])
    found = ij.vocabulary_collapse(same, tile=1)
    assert found.coincident == 1 and math.isinf(found.cdnv) and math.isinf(found.gnc2_mean)
    none = ij.vocabulary_collapse(ij.vocabulary_stats(3, 2))
    assert none.num_classes == 0 and none.left_out == 3 and math.isnan(none.equinorm)


def test_near_means_keep_their_digits():
    means = (np.array([[1000.0, 0], [1000.001, 0], [-500, 800], [-500, -800]])).astype(np.float32)
    stats = ij.VocabularyStats(np.full(4, 5), means, np.full(4, 5.0, np.float32))
    pairs = [(i, j) for i in range(4) for j in range(i)]
    exact = np.mean([1 / np.sum((np.float64(means[i]) - means[j]) ** 2) for i, j in pairs])
    assert ij.vocabulary_collapse(stats).cdnv == pytest.approx(exact, rel=1e-2)


@pytest.mark.parametrize(
    ("call", "says", "error"),
    [
        (lambda s: ij.update_vocabulary(s, Z[:, :2], LABELS), "features have 2 columns, the statistics 6", ValueError),
        (lambda s: ij.update_vocabulary(s, Z, LABELS, np.full(N, 0.5)), r"where must be \(400,\) booleans", ValueError),
        (lambda s: ij.update_vocabulary(Z, Z, LABELS), "stats must be VocabularyStats", TypeError),
        (lambda s: ij.vocabulary_collapse(s, HEAD[:4]), r"head must be \(C, D\) = \(23, 6\)", ValueError),
        (lambda s: ij.vocabulary_collapse(s, min_count=0), "min_count must be at least 1", ValueError),
        (lambda s: ij.vocabulary_collapse(s, distance_exponent=0), "distance_exponent must be a positive", ValueError),
        (
            lambda s: ij.vocabulary_collapse(s._replace(squares=-np.ones(23))),
            "stats.squares must not be neg",
            ValueError,
        ),
        (
            lambda s: ij.vocabulary_collapse(s._replace(counts=-np.ones(23, int))),
            "stats.counts must not be",
            ValueError,
        ),
        (lambda s: jax.jit(lambda s: ij.vocabulary_collapse(s).cdnv)(s), "outside jit, grad and vmap", ValueError),
        (lambda s: ij.vocabulary_stats(10**9, 10**4), "GiB of memory", ValueError),
        (lambda s: ij.rhubarbwu_metrics(3), "found must be a VocabularyCollapse", TypeError),
    ],
)
def test_bad_requests(stats, call, says, error):
    with pytest.raises(error, match=says):
        call(stats)
