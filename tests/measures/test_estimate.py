"""Estimates of entropies: operators against dense matrices, quadrature bounds, calibrated intervals, stated routes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import infojax as ij
from infojax.measures import class_blocks, estimate, spectra
from infojax.measures.interval import ratio
from infojax.measures.operators import HeadRows, Matrix, Pairs
from infojax.measures.quadrature import entropy_terms, rules, t_quantile, trace_of
from infojax.measures.trace import on_one_device


def entropy(w):
    return float(np.sum(entropy_terms(w / w.sum())))


def samples(n, classes, dim, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(classes, dim))
    y = rng.integers(0, classes, n)
    z = np.maximum(means[y] + noise * rng.normal(size=(n, dim)) * np.arange(1, dim + 1) ** -0.5 + 0.3, 0)
    return np.float32(z), y, np.float32(means + 0.3 * rng.normal(size=means.shape))


def dense_joint(z, y, head):
    u, w = (np.float64(x) / np.linalg.norm(np.float64(x), axis=1, keepdims=True) for x in (z, head))
    return (u @ u.T) * (w @ w.T)[np.ix_(y, y)] / len(z)


@pytest.mark.parametrize("classes, shape", [(3, None), (7, (13, 5)), (40, None)])
def test_operators_multiply_as_their_dense_matrices(classes, shape, monkeypatch):
    """Also in several groups of columns, and with more classes than twice the columns of the head."""
    z, y, head = samples(50, classes, 6)
    z += np.float32(0.1)  # no zero rows
    rows, unit_head = (spectra.unit_rows(jnp.asarray(x))[0] for x in (z, head))
    if shape is not None:
        assert shape[0] == np.sum(-(-np.bincount(y, minlength=classes) // shape[1]))
    op = HeadRows.pack(rows / 50**0.5, jnp.asarray(y), unit_head, jnp.arange(50), shape)
    order = np.asarray(op.ids)
    assert sorted(order[order >= 0]) == list(range(50))
    x = np.float32(np.random.default_rng(1).normal(size=(50, 5)))
    packed = np.where(order[:, None] >= 0, x[order], 0)
    expected = dense_joint(z, y, head) @ x
    for table in (2**26, 2 * classes * 6):
        monkeypatch.setattr("infojax.measures.operators.TABLE", table)
        found = np.zeros_like(x)
        found[order[order >= 0]] = np.asarray(op.apply(jnp.asarray(packed)))[order >= 0]
        np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(op.squared_norm(), np.sum(dense_joint(z, y, head) ** 2), rtol=1e-5)


def test_pairs_and_stored_matrices_multiply_as_the_dense_one():
    rng = np.random.default_rng(0)
    a, v, x = (np.float32(rng.normal(size=(30, d))) for d in (4, 7, 3))
    dense = (a @ a.T) * (v @ v.T)
    for op in (Pairs(jnp.asarray(a), jnp.asarray(v), jnp.arange(30)), Matrix(jnp.asarray(dense), jnp.arange(30))):
        np.testing.assert_allclose(op.apply(jnp.asarray(x)), dense @ x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_gauss_is_above_and_radau_below(steps):
    """For one vector, against the integral itself: both converge, and are exact with as many steps as eigenvalues."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        w = rng.exponential(size=6) ** 2
        z = rng.normal(size=6)
        z /= np.linalg.norm(z)
        truth = np.sum(z**2 * entropy_terms(w))
        alpha, beta = lanczos(w, z, steps)
        found = rules(alpha, beta)
        assert found.radau[0] <= truth + 1e-9 and truth <= found.gauss[0] + 1e-9
        assert found.first[0] == pytest.approx(np.sum(z**2 * w))
        assert found.second[0] == pytest.approx(np.sum(z**2 * w**2))
        if steps == 6:
            assert found.gauss[0] == pytest.approx(truth, abs=1e-9) == found.radau[0]


def lanczos(w, z, steps):
    """(alpha, beta) (steps, 1) of diag(w), with full orthogonalisation."""
    basis, alpha, beta = [z], [], []
    for _ in range(steps):
        x = w * basis[-1]
        alpha.append(x @ basis[-1])
        for _ in range(2):
            x = x - np.array(basis).T @ (np.array(basis) @ x)
        beta.append(np.linalg.norm(x) if len(basis) < len(w) else 0.0)
        basis.append(x / max(beta[-1], 1e-300))
    return np.array(alpha)[:, None], np.array(beta)[:, None]


def test_a_stated_error_covers_the_rounding_of_the_traces():
    """A trace that is off moves the estimate by the slope of the regression: the margin says so."""
    rng = np.random.default_rng(0)
    w = np.sort(rng.uniform(0.5, 1.5, 40)) / 40
    z = rng.normal(size=(24, 40))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    found = rules(*(np.concatenate(x, axis=1) for x in zip(*(lanczos(w, v, 8) for v in z), strict=True)))
    errors = np.array([1e-3, 0.0])
    exact = trace_of(found, 40, np.array([np.sum(w), np.sum(w**2)]), errors)
    moved = trace_of(found, 40, np.array([np.sum(w) + 1e-3, np.sum(w**2)]), errors)
    assert abs(moved.lower - exact.lower) == pytest.approx(exact.rounding, rel=1e-6) and exact.rounding > 1e-3


def test_quantiles_of_student():
    from scipy.stats import t

    for freedom in (8, 13, 30):
        for confidence in (0.8, 0.95, 0.99):
            assert t_quantile(confidence, freedom) == pytest.approx(t.ppf((1 + confidence) / 2, freedom), rel=3e-3)


SIDE = 640
SPECTRA = {
    "power law": np.arange(1, SIDE + 1) ** -1.0,
    "chi-square": np.random.default_rng(0).chisquare(8, SIDE),
    "spiked": np.r_[np.full(10, 300.0), np.random.default_rng(1).uniform(0.5, 1.5, SIDE - 10)],
    "near collapse": np.r_[np.random.default_rng(2).uniform(0.8, 1.2, 99), np.full(SIDE - 99, 1e-4)],
    "low rank": np.r_[np.random.default_rng(3).uniform(0.1, 1, 200), np.zeros(SIDE - 200)],
    "one direction": np.r_[1.0, np.full(SIDE - 1, 1e-3)],
    "log-uniform": 10 ** np.random.default_rng(4).uniform(-6, 0, SIDE),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_the_truth_lies_in_the_interval_as_often_as_stated(name):
    """90% intervals of 40 seeds: at most 10 misses (a binomial variable passes 10 once in 700 times)."""
    w = SPECTRA[name] / SPECTRA[name].sum()
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(SIDE, SIDE)))[0]
    k, truth = np.float32((q * w) @ q.T), entropy(w)
    found = [
        ij.estimate_matrix_entropy_from_gram(k, tolerance=3e-3, confidence=0.9, seed=seed, vectors=64)
        for seed in range(40)
    ]
    misses = sum(not e.lower <= truth <= e.upper for e in found)
    assert misses <= 10, (misses, truth, found[0])
    for e in found:
        assert e.met == (e.upper - e.lower <= 6e-3) and e.lower <= e.value <= e.upper
        assert e.upper - e.lower < 3e-2  # an interval that says nothing would always be right
    if name == "chi-square":  # where the random vectors, not the quadrature or rounding, decide
        z = np.array([(e.value - truth) / e.standard_error for e in found])
        assert 0.6 < np.sqrt(np.mean(z**2)) < 1.5


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("n, classes, dim", [(2500, 4, 96), (1100, 40, 48)], ids=["compressed", "packed"])
def test_interplay_is_within_its_bounds(n, classes, dim, center):
    z, y, head = samples(n, classes, dim)
    weights = np.float32(np.random.default_rng(5).uniform(size=n) > 0.2)
    y[:7] = -1
    expected = ij.interplay(z, y, head, weights=weights, center=center)
    found = ij.estimate_interplay(z, y, head, weights=weights, center=center, exact_side=200)
    assert found.joint_entropy.route == "estimate" and found.entropy_features.route == "gram"
    for name in ("joint_entropy", "mutual_information", "mir"):
        e, truth = getattr(found, name), float(getattr(expected, name))
        assert e.lower - 1e-5 <= truth <= e.upper + 1e-5 and e.upper - e.lower < 0.02, name
    for name in ("entropy_features", "entropy_head", "hdr"):
        assert getattr(found, name).value == pytest.approx(float(getattr(expected, name)), abs=1e-5)
    np.testing.assert_allclose(found.values[-3:], expected[-3:], rtol=1e-5)
    assert float(found.values.mir) == pytest.approx(found.mir.value)


def test_small_problems_are_exact_and_say_so():
    z, y, head = samples(300, 4, 16)
    found, expected = ij.estimate_interplay(z, y, head), ij.interplay(z, y, head)
    np.testing.assert_allclose(found.values, expected, rtol=1e-6)
    assert found.mir.route == "classes" and found.mir.lower < found.mir.value < found.mir.upper
    assert ij.estimate_interplay(z[:30], y[:30], head).mir.route == "gram"
    assert ij.estimate_joint_entropy(z, z).value == pytest.approx(float(ij.joint_entropy(z, z)), rel=1e-6)


def test_streamed_moments_give_the_same_as_the_samples():
    z, y, head = samples(2000, 5, 64)
    stats = ij.class_stats(ij.unit_rows(jnp.asarray(z))[0], y, 5, scatter="class")
    found = ij.estimate_interplay_from_stats(stats, head, exact_side=100)
    expected = ij.interplay(z, y, head)
    assert found.joint_entropy.route == "estimate"
    assert found.joint_entropy.lower <= float(expected.joint_entropy) <= found.joint_entropy.upper
    exact = ij.estimate_interplay_from_stats(stats, head)
    assert exact.mir.route == "classes" and exact.mir.value == pytest.approx(float(expected.mir), rel=1e-4)
    with pytest.raises(ValueError, match="scatter='class'"):
        ij.estimate_interplay_from_stats(ij.class_stats(z, y, 5), head)


def test_a_head_over_a_vocabulary():
    """Most classes have no sample; nothing of size C x C is made."""
    rng = np.random.default_rng(0)
    z, head = np.float32(rng.normal(size=(700, 24))), np.float32(rng.normal(size=(30_000, 24)))
    y = rng.integers(0, 30_000, 700)
    expected = ij.interplay(z, y, head)
    found = ij.estimate_interplay(z, y, head, exact_side=100)
    assert found.joint_entropy.lower - 1e-5 <= float(expected.joint_entropy) <= found.joint_entropy.upper + 1e-5
    assert found.num_classes_present == len(np.unique(y))


@pytest.mark.parametrize("stored", [0, 2**27])
def test_two_feature_sets(stored, monkeypatch):
    monkeypatch.setattr(estimate, "STORED", stored)
    rng = np.random.default_rng(0)
    z1 = np.float32(rng.normal(size=(800, 30)) * np.arange(1, 31) ** -1.0)
    z2 = np.float32(z1[:, :20] + 0.3 * rng.normal(size=(800, 20)))
    expected = float(ij.joint_entropy(z1, z2))
    found = ij.estimate_joint_entropy(z1, z2, exact_side=300)
    assert found.route == "estimate" and found.lower <= expected <= found.upper and found.upper - found.lower < 0.02


def test_a_tolerance_out_of_reach_is_reported_as_missed():
    z, y, head = samples(900, 30, 40)
    found = ij.estimate_interplay(z, y, head, exact_side=100, tolerance=1e-7, vectors=16)
    assert not found.joint_entropy.met and not found.mir.met and found.joint_entropy.vectors == 16
    coarse = ij.estimate_interplay(z, y, head, exact_side=100, tolerance=0.05)
    assert coarse.mir.met and coarse.mir.products < found.mir.products


def test_degenerate_matrices():
    """Rank one, all equal, and empty: no division by zero, bounds around the truth."""
    n = 600
    one = np.ones((n, n), np.float32)
    for k, truth in (
        (one, 0.0),
        (np.eye(n, dtype=np.float32), np.log(n)),
        (np.diag(np.r_[np.ones(3), np.zeros(n - 3)]), np.log(3)),
    ):
        found = ij.estimate_matrix_entropy_from_gram(np.float32(k))
        assert found.lower - 1e-6 <= truth <= found.upper + 1e-6 and found.met, (found, truth)
    assert ij.estimate_matrix_entropy_from_gram(np.zeros((n, n), np.float32)).value == 0


def test_blocks_of_given_shape_hold_all_rows():
    labels = jnp.asarray([2, 0, 0, 2, 2, 1, 0, 0])
    rows = jnp.arange(1.0, 9.0)[:, None] * jnp.ones((1, 3))
    packed, owner, _, valid = class_blocks.packed_by_class(rows, labels, 3, (5, 2))
    assert packed.shape == (5, 2, 3) and int(valid.sum()) == 8
    for c in range(3):
        found = sorted(np.asarray(packed[owner == c][..., 0]).ravel())
        np.testing.assert_array_equal([x for x in found if x], sorted(np.asarray(rows[labels == c, 0])))


def test_one_compilation_serves_all_seeds():
    k, compiled = np.eye(600, dtype=np.float32) + 0.1, []
    ij.estimate_matrix_entropy_from_gram(k, seed=0)
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name))
    ij.estimate_matrix_entropy_from_gram(k, seed=1)
    assert not [name for name in compiled if "compile" in name]


def test_the_tail_of_a_vocabulary_is_not_padded():
    """One class with a third of the samples, hundreds with one: memory stays that of the rows."""
    rng = np.random.default_rng(0)
    z, head = np.float32(rng.normal(size=(900, 16))), np.float32(rng.normal(size=(5000, 16)))
    y = np.where(np.arange(900) < 300, 0, rng.integers(1, 5000, 900))
    sizes = []

    def compiled(stage):
        def run(*arguments):
            found = on_one_device(stage)(*arguments)
            sizes.extend([found.rows.size] if isinstance(found, HeadRows) else [])
            return found

        return run

    found = ij.estimate_interplay(z, y, head, exact_side=100, compiled=compiled)
    assert max(sizes) <= (2 * 900 + len(np.unique(y))) * 16
    assert found.joint_entropy.lower - 1e-5 <= float(ij.interplay(z, y, head).joint_entropy)


def test_large_eigenvectors_that_have_not_converged_are_allowed_for(monkeypatch):
    """Deflated as if converged, they leave two matrices of larger entropy: the lower bound allows for it."""
    monkeypatch.setattr("infojax.measures.trace.CONVERGED", 0.15)
    w = np.arange(1, SIDE + 1) ** -0.7
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(SIDE, SIDE)))[0]
    truth = entropy(w)
    found = [
        ij.estimate_matrix_entropy_from_gram(np.float32((q * w) @ q.T), tolerance=1e-3, seed=seed) for seed in range(5)
    ]
    assert np.mean([e.value - truth for e in found]) > 2e-4  # there is something to allow for
    assert all(e.lower <= truth for e in found)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_gives_nan(bad):
    z, y, head = samples(900, 30, 40)
    z[5, 3] = bad
    for side in (100, 4096):
        found = ij.estimate_interplay(z, y, head, exact_side=side)
        assert np.isnan(found.mir.value) and not found.mir.met and np.isnan(found.joint_entropy.lower)
    k = np.eye(600, dtype=np.float32)
    k[2, 3] = k[3, 2] = bad
    assert np.isnan(ij.estimate_matrix_entropy_from_gram(k).value)


def test_no_sample_with_a_known_label():
    z, _, head = samples(30, 4, 6)
    for side in (0, 4096):
        found = ij.estimate_interplay(z, np.full(30, -1), head, exact_side=side)
        assert found.joint_entropy.value == 0 and np.isnan(found.mir.value) and found.num_samples == 0


def test_arithmetic_of_estimates():
    """Intervals combine by their extremes, errors by their squares; a result is estimated as soon as one term is."""
    guess = estimate.Estimate(2.0, 1.9, 2.1, standard_error=0.05, met=False)
    sure = estimate.Estimate(3.0, 3.0, 3.0, route="gram")
    found = estimate.assembled(guess, sure, sure._replace(value=4.0, lower=4.0, upper=4.0), 0.0, 1, 1)
    assert found.mutual_information[:4] == pytest.approx((1.0, 0.9, 1.1, 0.05))
    assert found.hdr.route == "estimate" and not found.hdr.met and found.hdr.standard_error == pytest.approx(0.05 / 3)
    assert found.hdr[1:3] == pytest.approx((0.3, 1.1 / 3)) and found.mir[1:3] == pytest.approx((0.9 / 2.1, 1.1 / 1.9))
    near_zero = guess._replace(value=0.01, lower=-0.01, upper=0.03)
    assert ratio(guess, near_zero).upper == np.inf
    assert np.isnan(ratio(guess, guess._replace(value=np.nan)).value)


@pytest.mark.parametrize("effort", [{"confidence": 1.0}, {"tolerance": float("nan")}, {"tolerance": 0}])
def test_bad_efforts_are_refused(effort):
    z, y, head = samples(30, 4, 6)
    with pytest.raises(
        ValueError, match="(confidence must be a number between 0 and 1|tolerance must be a positive number); got"
    ):
        ij.estimate_interplay(z, y, head, **effort)


# Rounding of what is computed


def features_of(n, dim, classes, spread):
    rng = np.random.default_rng(n + dim)
    y = (np.arange(n) % classes).astype(np.int32)
    decay = np.arange(1, dim + 1) ** -0.7
    z = rng.normal(size=(classes, dim))[y] + spread * decay * rng.normal(size=(n, dim))
    return z.astype(np.float32), y, rng.normal(size=(classes, dim)).astype(np.float32)


@pytest.mark.parametrize("spread", [1.0, 1e-3, 0.0])
@pytest.mark.parametrize(("n", "dim", "classes"), [(200, 16, 4), (501, 64, 10), (64, 300, 5), (3001, 40, 3)])
def test_bounds_of_exact_routes_hold_their_rounding(n, dim, classes, spread):
    """The true value, from the same arrays in float64, lies within bounds at most a few thousandths wide."""
    z, y, head = features_of(n, dim, classes, spread)
    found = ij.estimate_interplay(z, y, head)
    alone = ij.estimate_matrix_entropy(z)
    with jax.enable_x64(True):
        truth = ij.interplay(z.astype(np.float64), y, head.astype(np.float64))
        sharp = ij.estimate_interplay(z.astype(np.float64), y, head.astype(np.float64))
    for name in ("entropy_features", "entropy_head", "joint_entropy", "mutual_information", "mir", "hdr"):
        bounds, exact, double = getattr(found, name), float(getattr(truth, name)), getattr(sharp, name)
        assert bounds.lower <= exact <= bounds.upper and 0 < bounds.upper - bounds.lower < 8e-3, name
        assert double.lower <= exact <= double.upper and double.upper - double.lower < 1e-10, name
    assert alone.lower <= float(truth.entropy_features) <= alone.upper
