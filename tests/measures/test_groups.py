"""Entropies of prompts, of data sets, and Diff-eRank: loops in float64, and the formulas of the public codes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import t as student

import infojax as ij
from infojax.measures.student import student_quantile

RNG = np.random.default_rng(0)
LENGTHS, DIM = (9, 4, 6, 1), 5
ROWS = [RNG.normal(size=(n, DIM)) * [3, 1, 1, 0.3, 0.1] + 1 for n in LENGTHS]
FLAT, GROUPS = np.concatenate(ROWS).astype(np.float32), np.repeat([7, 2, 5, 3], LENGTHS)  # sorted order: 1, 3, 2, 0
SORTED = [ROWS[1], ROWS[3], ROWS[2], ROWS[0]]


def normalised(rows):
    rows = rows - rows.mean(0)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 1e-12)


def standard(rows, alpha=1):
    u = normalised(rows)
    w = np.linalg.eigvalsh(u @ u.T)
    w = w[w > 1e-12] / max(np.trace(u @ u.T), 1e-300)
    if not len(w):
        return 0.0
    return -(w * np.log(w)).sum() if alpha == 1 else math.log((w**alpha).sum()) / (1 - alpha)


def information_flow(u, alpha, first_release):
    """compute_entropy of metric_functions.py (703d566) and metric_utils.py (a6ad508), of normalised rows."""
    k = np.maximum(u.T @ u if len(u) > u.shape[1] else u @ u.T, 0)
    if not first_release:
        k = k / np.trace(k)
    if alpha == 2:
        return -math.log((k**2).sum() / len(k) ** 2)
    w = np.linalg.eigvalsh(k)
    w = w[w > 0] / w[w > 0].sum()
    return -(w * np.log(w)).sum() if alpha == 1 else math.log((w**alpha).sum()) / (1 - alpha)


def test_prompt_entropy_is_the_mean_over_groups():
    values = [standard(rows) for rows in SORTED]
    found = ij.prompt_entropy(FLAT, groups=GROUPS)
    np.testing.assert_allclose(found.values, values, atol=1e-5)
    margin = student.ppf(0.975, 3) * np.std(values, ddof=1) / 2
    summary = [np.mean(values), np.std(values, ddof=1), np.mean(values) - margin, np.mean(values) + margin, 4]
    np.testing.assert_allclose(found[:5], summary, rtol=1e-4, atol=1e-5)
    names = np.array(["g", "b", "e", "c"])[[0] * 9 + [1] * 4 + [2] * 6 + [3]]
    np.testing.assert_allclose(ij.prompt_entropy(FLAT, groups=names).values, found.values)
    padded, weights = ij.padded_groups(FLAT, groups=GROUPS)
    assert padded.shape == (4, 9, DIM)
    compiled = jax.jit(lambda z, w: ij.prompt_entropy(z, weights=w))(
        jnp.where(weights[..., None] > 0, padded, jnp.nan), weights
    )
    np.testing.assert_allclose(compiled.values, values, atol=1e-5)
    for alpha in (2, 0.5):
        both = [standard(rows, alpha) for rows in SORTED]
        np.testing.assert_allclose(ij.prompt_entropy(FLAT, groups=GROUPS, alpha=alpha).values, both, atol=1e-4)


def test_normalisations_leave_out_groups_without_one():
    values, sizes = np.array([standard(rows) for rows in SORTED]), np.array([4, 1, 6, 9])
    by = {
        "max": np.minimum(np.log(sizes), math.log(DIM)), "log_n": np.log(sizes), "log_d": np.full(4, math.log(DIM)),
        "log_n_log_d": np.log(sizes) * math.log(DIM), "raw": np.ones(4),
    }  # fmt: skip
    for name, divisor in by.items():
        found = ij.prompt_entropy(FLAT, groups=GROUPS, normalization=name)
        with np.errstate(all="ignore"):
            expected = np.where(divisor > 0, values / divisor, np.nan)
        np.testing.assert_allclose(found.values, expected, atol=1e-5)
        assert float(found.num_groups) == (divisor > 0).sum()
        assert float(found.mean) == pytest.approx(np.nanmean(expected), rel=1e-4)
    score = ij.prompt_entropy(FLAT, groups=GROUPS, convention="matrix_entropy")
    assert float(score.mean) == pytest.approx(np.mean(values / math.log(DIM)), rel=1e-4)


@pytest.mark.parametrize("alpha", [1, 2, 0.5])
@pytest.mark.parametrize("release", [False, True], ids=["later", "first"])
def test_information_flow_with_its_defects(alpha, release):
    name = "information_flow_2024" if release else "information_flow"
    groups = GROUPS[GROUPS != 3]  # a group of one row divides 0 by 0 there
    rows = [r for r in SORTED if len(r) > 1]
    expected = [information_flow(normalised(r), alpha, release) for r in rows]
    z = FLAT[GROUPS != 3]
    found = ij.prompt_entropy(z, groups=groups, alpha=alpha, convention=name)
    np.testing.assert_allclose(found.values, expected, atol=1e-4)
    compiled = jax.jit(lambda z, w: ij.prompt_entropy(z, weights=w, alpha=alpha, convention=name).values)
    np.testing.assert_allclose(compiled(*ij.padded_groups(z, groups=groups)), expected, atol=1e-4)
    right = ij.prompt_entropy(z, groups=groups, alpha=alpha)
    assert np.max(np.abs(found.values - right.values)) > 0.02
    means = np.stack([normalised(r).mean(0) for r in rows])
    whole = ij.dataset_entropy(z, groups=groups, alpha=alpha, convention=name)
    # Means of centred unit rows are short, and of float32: a relative error of 1e-3 in an entry of their Gram matrix.
    assert float(whole) == pytest.approx(information_flow(means, alpha, release), abs=5e-3)


def test_dataset_entropy_is_that_of_the_means():
    with jax.enable_x64(True):
        means = np.stack([normalised(r).mean(0) for r in SORTED])
        k = means @ means.T
        w = np.linalg.eigvalsh(k / np.trace(k))
        w = w[w > 1e-12]
        flat = np.concatenate(ROWS)
        assert float(ij.dataset_entropy(flat, groups=GROUPS)) == pytest.approx(-(w * np.log(w)).sum(), rel=1e-6)
        scaled = ij.dataset_entropy(flat, groups=GROUPS, normalization="max")
        assert float(scaled) == pytest.approx(-(w * np.log(w)).sum() / math.log(4), rel=1e-6)


def test_diff_erank():
    """exp(mean H) of a data set, exp H of a sentence; zero for one and the same network."""
    other = [3 * RNG.normal(size=(n, 8)) for n in LENGTHS]
    flat = np.concatenate(other)
    first, second = (np.array([standard(r) for r in rows]) for rows in (other, ROWS))
    found = ij.diff_erank(flat, FLAT, groups=GROUPS)
    assert float(found) == pytest.approx(math.exp(first.mean()) - math.exp(second.mean()), rel=1e-4)
    ranks = ij.diff_erank(flat, FLAT, groups=GROUPS, aggregate="rank")
    assert float(ranks) == pytest.approx(np.exp(first).mean() - np.exp(second).mean(), rel=1e-4)
    assert abs(float(found - ranks)) > 0.01
    sentence = ij.diff_erank(other[0], ROWS[0])
    assert float(sentence) == pytest.approx(math.exp(first[0]) - math.exp(second[0]), rel=1e-4)
    mask = (np.arange(9) < 6).astype(np.float32)
    part = math.exp(standard(other[0][:6])) - math.exp(standard(ROWS[0][:6]))
    assert float(ij.diff_erank(other[0], ROWS[0], weights=mask)) == pytest.approx(part, rel=1e-4)
    assert float(ij.diff_erank(FLAT, FLAT, groups=GROUPS)) == 0


# Printed by compute_entropy of OFSkean/information_flow and repitl (fd0da54) run on the features below.
def test_the_traps_of_the_public_codes():
    """The clamp moves H_1 up; the later alpha = 2 exceeds the largest possible entropy; the first one is negative."""
    rng = np.random.default_rng(2)
    few, many = rng.normal(size=(1, 16, 48)), rng.normal(size=(1, 96, 12)) * np.arange(1, 13.0) ** -1.5
    right, clamped = (ij.prompt_entropy(few, convention=c).mean for c in ("standard", "information_flow"))
    assert float(right) <= math.log(16) and abs(float(clamped) / float(right) - 1) > 0.01
    wrong = ij.prompt_entropy(few, convention="information_flow", alpha=2).mean
    assert float(wrong) > math.log(16) + 1
    assert float(ij.prompt_entropy(many, convention="information_flow_2024", alpha=2).mean) < 0


def test_gradients_and_empty_groups():
    z, w = ij.padded_groups(FLAT, groups=GROUPS)
    gradient = jax.jit(jax.grad(lambda z: ij.prompt_entropy(z, weights=w).mean))(z)
    assert np.isfinite(gradient).all() and not np.any(gradient[w == 0]) and np.any(gradient)
    empty = ij.prompt_entropy(z, weights=w * jnp.array([1, 0, 1, 1])[:, None])
    assert float(empty.num_groups) == 3 and np.isnan(empty.values[1])
    none = ij.prompt_entropy(z[:0])
    assert float(none.num_groups) == 0 and np.isnan(none.mean)
    alone = ij.prompt_entropy(z[:1])
    assert np.isfinite(alone.mean) and np.isnan(alone.std) and np.isnan(alone.lower)
    for scale in (1e-30, 1e30):
        scaled = ij.prompt_entropy(np.float32(FLAT * scale), groups=GROUPS).values
        np.testing.assert_allclose(scaled, ij.prompt_entropy(FLAT, groups=GROUPS).values, atol=1e-5)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_quantiles_of_students_t(confidence):
    for freedom in (1, 2, 3, 4, 5, 9, 30, 1000):
        expected = student.ppf((1 + confidence) / 2, freedom)
        assert float(student_quantile(confidence, jnp.float32(freedom))) == pytest.approx(expected, rel=2e-4), freedom
    assert np.isinf(student_quantile(confidence, jnp.float32(0)))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ij.prompt_entropy(FLAT), r"features must be \(P, T, D\).*or \(N, D\) with groups"),
        (lambda: ij.prompt_entropy(FLAT, groups=GROUPS[:-1]), r"groups must have shape \(20,\)"),
        (lambda: ij.prompt_entropy(FLAT[None], weights=np.ones(20)), r"weights must have shape \(1, 20\)"),
        (lambda: ij.prompt_entropy(FLAT[None], convention="skean"), "convention must be one of standard"),
        (lambda: ij.prompt_entropy(FLAT[None], normalization="n"), "normalization must be one of raw, max"),
        (lambda: ij.prompt_entropy(FLAT[None], confidence=1.5), "confidence must be a number between 0 and 1"),
        (lambda: ij.prompt_entropy(FLAT[None], alpha=0, convention="information_flow"), "alpha must be positive"),
        (lambda: ij.dataset_entropy(FLAT[None], convention="diff_erank"), "convention must be standard or an"),
        (lambda: ij.diff_erank(FLAT, FLAT[:5]), "untrained has .* samples, trained .*: pass features of the same"),
        (lambda: ij.diff_erank(FLAT, FLAT, aggregate="sum"), "aggregate must be entropy or rank"),
        (lambda: jax.jit(lambda z: ij.prompt_entropy(z, groups=GROUPS))(FLAT), "inside jit pass a padded"),
    ],
)
def test_bad_requests(call, says):
    with pytest.raises(ValueError, match=says):
        call()
