"""CKA, InfoNCE, DiME, alignment, uniformity and curvature against loops in float64 and the formulas of public codes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import infojax as ij

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(14, 5)) + 3).astype(np.float32)
Y = (X[:, :3] @ RNG.normal(size=(3, 6)) + RNG.normal(size=(14, 6))).astype(np.float32)
WIDE = RNG.normal(size=(14, 40)).astype(np.float32)
MASK = (np.arange(14) % 4 != 2).astype(np.float32)
KEPT = MASK > 0


def hsic_1(k, m):
    """The U-statistic as a sum over quadruples would be: Song et al.'s formula on matrices without diagonals."""
    n, one = len(k), np.ones(len(k))
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    return np.trace(k @ m) + one @ k @ one * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * one @ k @ m @ one


def cka(x, y, debiased):
    x, y = (np.asarray(z, np.float64) - (0 if debiased else np.float64(z).mean(0)) for z in (x, y))

    def hsic(a, b):
        return hsic_1(a @ a.T, b @ b.T) if debiased else np.sum((a.T @ b) ** 2)

    return hsic(x, y) / math.sqrt(hsic(x, x) * hsic(y, y))


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize(("x", "y"), [(X, Y), (X, WIDE), (WIDE, WIDE[:, 3:] + 1)], ids=["tall", "mixed", "wide"])
def test_cka_is_its_definition(x, y, debiased):
    expected = cka(x, y, debiased)
    assert float(ij.linear_cka(x, y, debiased=debiased)) == pytest.approx(expected, abs=2e-5)
    subset = cka(x[KEPT], y[KEPT], debiased)
    compiled = jax.jit(lambda x, y, w: ij.linear_cka(x, y, debiased=debiased, weights=w))
    assert float(compiled(np.where(KEPT[:, None], x, np.nan), y, MASK)) == pytest.approx(subset, abs=2e-5)
    moments = ij.cka_moments(x[:5], y[:5])
    rest = ij.cka_moments(x[5:], y[5:], centers=moments.centers)
    streamed = ij.linear_cka_from_moments(ij.add_cka_moments(moments, rest), debiased=debiased)
    assert float(streamed) == pytest.approx(expected, abs=2e-5)


def test_cka_is_invariant_to_shift_scale_and_rotation_and_one_with_itself():
    turn = np.linalg.qr(RNG.normal(size=(5, 5)))[0].astype(np.float32)
    for debiased in (False, True):
        base = float(ij.linear_cka(X, Y, debiased=debiased))
        for x in (X @ turn, X + 100, X * np.float32(1e-30), X * np.float32(1e30)):
            assert float(ij.linear_cka(x, Y, debiased=debiased)) == pytest.approx(base, abs=1e-3)
        assert float(ij.linear_cka(X, X, debiased=debiased)) == pytest.approx(1, abs=1e-5)


def test_debiased_cka_of_independent_features_is_zero_on_average():
    draws = np.random.default_rng(1).normal(size=(200, 2, 16, 30)).astype(np.float32)
    plain, debiased = (
        jax.jit(jax.vmap(lambda z, d=d: ij.linear_cka(z[0], z[1], debiased=d)))(draws) for d in (False, True)
    )
    assert np.mean(plain) > 0.6 and abs(np.mean(debiased)) < 3 * np.std(debiased) / math.sqrt(200) + 1e-3


def test_map_of_layers():
    found = ij.linear_cka_map([X, Y, WIDE], debiased=True)
    for i, x in enumerate((X, Y, WIDE)):
        for j, y in enumerate((X, Y, WIDE)):
            assert float(found[i, j]) == pytest.approx(cka(x, y, True), abs=2e-5)
    assert ij.linear_cka_map([X], [Y, WIDE]).shape == (1, 2)


def test_cka_without_variance_or_with_three_samples_is_nan():
    for x in (np.full((14, 5), 5.3, np.float32), np.zeros((14, 5), np.float32)):
        assert np.isnan(ij.linear_cka(x, Y)) and np.isnan(ij.linear_cka(Y, x, debiased=True))
        assert np.isnan(ij.linear_cka_from_moments(ij.cka_moments(x, Y)))
    assert np.isnan(ij.linear_cka(X[:3], Y[:3], debiased=True))
    gradient = jax.grad(lambda x: jnp.nan_to_num(ij.linear_cka(x, Y)))(jnp.ones((14, 5)))
    assert not np.any(gradient)


def test_moments_about_other_centers_do_not_add():
    with pytest.raises(ValueError, match="moments about different centers do not add"):
        ij.add_cka_moments(ij.cka_moments(X[:5], Y[:5]), ij.cka_moments(X[5:], Y[5:]))


# Views


VIEW = (X + 0.3 * RNG.normal(size=X.shape)).astype(np.float32)


def unit(z):
    z = np.asarray(z, np.float64)
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def infonce_by_hand(u, v, t):
    n = len(u)
    return np.mean([u[i] @ v[i] / t - math.log(sum(math.exp(u[i] @ v[j] / t) for j in range(n)) / n) for i in range(n)])


def test_infonce_bound_is_log_n_minus_the_cross_entropy():
    u, v = unit(X - X.mean(0)), unit(VIEW - VIEW.mean(0))
    one, other = infonce_by_hand(u, v, 0.1), infonce_by_hand(v, u, 0.1)
    assert float(ij.infonce_bound(u, v)) == pytest.approx(one, rel=1e-4)
    assert float(ij.infonce_bound(3 * u, v, symmetric=True)) == pytest.approx((one + other) / 2, rel=1e-4)
    assert float(ij.infonce_bound(u, v, weights=MASK)) == pytest.approx(
        infonce_by_hand(u[KEPT], v[KEPT], 0.1), rel=1e-4
    )
    # every row its own direction: the bound is reached, log N; one direction for all: nothing is known
    assert float(ij.infonce_bound(np.eye(8), np.eye(8), temperature=0.01)) == pytest.approx(math.log(8), rel=1e-5)
    assert float(ij.infonce_bound(np.ones((8, 3)), np.ones((8, 3)))) == pytest.approx(0, abs=1e-6)
    assert np.isnan(ij.infonce_bound(X[:0], X[:0]))


@pytest.mark.parametrize("temperature", [1e-6, 1e-30])
def test_infonce_at_a_low_temperature_is_log_n(temperature):
    """log N must not be lost next to similarities of 1 / temperature."""
    z = np.eye(8, dtype=np.float32)[:5] + 0.1
    for symmetric in (False, True):
        found = ij.infonce_bound(z, z, temperature=temperature, symmetric=symmetric)
        assert float(found) == pytest.approx(np.log(5), rel=1e-6)


def test_infonce_of_information_flow():
    """Rows as they are: 1 - loss / log N of the later code, and the NT-Xent loss of the first."""
    a, b = 0.3 * unit(X - X.mean(0)), 0.3 * unit(VIEW - VIEW.mean(0))
    logits = a @ b.T / 0.1
    loss = np.mean([np.log(np.exp(row).sum()) - row[i] for i, row in enumerate(logits)])
    found = ij.infonce_bound(a, b, convention="information_flow")
    assert float(found) == pytest.approx(1 - loss / math.log(14), rel=1e-4)
    z = np.r_[a, b]
    similar = np.exp(z @ z.T / 0.1)
    losses = []
    for i in range(28):
        positive = similar[i, (i + 14) % 28]
        negative = sum(similar[i, j] for j in range(28) if j % 14 != i % 14)
        losses.append(-math.log(positive / (positive + negative)))
    found = ij.infonce_bound(a, b, convention="information_flow_2024")
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-4)
    masked = ij.infonce_bound(a, b, convention="information_flow_2024", weights=MASK)
    part = ij.infonce_bound(a[KEPT], b[KEPT], convention="information_flow_2024")
    assert float(masked) == pytest.approx(float(part), rel=1e-4)


def entropy_of(k, alpha=1):
    w = np.linalg.eigvalsh(k / np.trace(k))
    w = w[w > 1e-12]
    return -(w * np.log(w)).sum() if alpha == 1 else math.log((w**alpha).sum()) / (1 - alpha)


def test_dime_is_the_difference_of_joint_entropies():
    k1, k2 = (unit(z) @ unit(z).T for z in (X, VIEW))
    joint = entropy_of(k1 * k2)
    orders = [RNG.permutation(14) for _ in range(400)]
    shuffled = [entropy_of(k1 * k2[np.ix_(p, p)]) for p in orders]
    found = float(ij.dime(X, VIEW, permutations=20))
    assert found == pytest.approx(np.mean(shuffled) - joint, abs=5 * np.std(shuffled) / math.sqrt(20))
    assert found > 0 and float(ij.dime(X, np.tile(X[:1], (14, 1)))) == pytest.approx(0, abs=1e-5)
    assert float(jax.jit(lambda a, b: ij.dime(a, b, permutations=3))(X, VIEW)) == pytest.approx(
        float(ij.dime(X, VIEW, permutations=3)), abs=1e-5
    )
    assert float(ij.dime(X[:1], VIEW[:1])) == 0


def test_dime_of_columns_is_what_the_released_code_computes():
    """More samples than columns: products Z^T Z, whose permuted entries are columns (exact over all 2! orders)."""
    a, b = X[:, :2].astype(np.float64), VIEW[:, :2].astype(np.float64)
    k1, k2 = a.T @ a, b.T @ b
    for alpha in (1, 2):
        h = entropy_of if alpha == 1 else lambda k, _: -math.log((k**2).sum() / len(k) ** 2)
        gap = h(k1 * k2[::-1, ::-1], alpha) - h(k1 * k2, alpha)
        found = float(ij.dime(a, b, permutations=8, convention="information_flow", alpha=alpha)) / gap
        assert found * 8 == pytest.approx(round(found * 8), abs=1e-3) and 0 < found < 1


def test_alignment_and_uniformity():
    u, v = unit(X), unit(VIEW)
    expected = [np.linalg.norm(a - b) ** 2 for a, b in zip(u, v, strict=True)]
    assert float(ij.alignment(X, VIEW)) == pytest.approx(np.mean(expected), rel=1e-4)
    assert float(ij.alignment(X, VIEW, power=1)) == pytest.approx(np.mean(np.sqrt(expected)), rel=1e-4)
    masked = float(ij.alignment(X, np.where(KEPT[:, None], VIEW, np.nan), weights=MASK))
    assert masked == pytest.approx(np.mean(np.array(expected)[KEPT]), rel=1e-4)
    assert float(ij.alignment(X, 7 * X)) == pytest.approx(0, abs=1e-12) and np.isnan(ij.alignment(0 * X, X))

    def spread(rows, t):
        pairs = [math.exp(-t * np.sum((a - b) ** 2)) for i, a in enumerate(rows) for b in rows[i + 1 :]]
        return math.log(np.mean(pairs))

    for t in (2.0, 0.5):
        assert float(ij.uniformity(X, t=t)) == pytest.approx(spread(u, t), abs=1e-5)
    assert float(ij.uniformity(X, weights=MASK)) == pytest.approx(spread(u[KEPT], 2), abs=1e-5)
    many = RNG.normal(size=(700, 3)).astype(np.float32)  # more than one block of rows
    assert float(ij.uniformity(many)) == pytest.approx(spread(unit(many), 2), abs=1e-4)
    assert float(ij.uniformity(np.ones((5, 3)))) == pytest.approx(0, abs=1e-5) and np.isnan(ij.uniformity(X[:1]))
    assert float(ij.uniformity(np.array([[1.0, 0], [-1, 0]]))) == pytest.approx(-8, abs=1e-4)


def angles(steps, fold):
    found = []
    for a, b in zip(steps, steps[1:], strict=False):
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        found.append(math.acos(np.clip(abs(cosine) if fold else cosine, -1, 1)))
    return np.mean(found)


def test_curvature_in_its_three_conventions():
    z = np.cumsum(RNG.normal(size=(40, 6)), axis=0)
    steps = np.diff(z, axis=0)
    assert float(ij.curvature(z)) == pytest.approx(angles(steps, False), rel=1e-4)
    assert float(ij.curvature(z, convention="information_flow")) == pytest.approx(angles(steps, True), rel=1e-4)
    first = angles(list(unit(z - z.mean(0))), False)
    assert float(ij.curvature(z, convention="information_flow_2024")) == pytest.approx(first, rel=1e-4)
    mask = ((np.arange(40) >= 5) & (np.arange(40) < 30)).astype(np.float32)
    padded = np.where(mask[:, None] > 0, z, np.nan)
    for convention in ij.CURVATURE_CONVENTIONS:
        masked = ij.curvature(padded, convention=convention, weights=mask)
        assert float(masked) == pytest.approx(float(ij.curvature(z[5:30], convention=convention)), rel=1e-4)
    line, back = np.outer(np.arange(9.0), [1, 2]), np.outer(np.arange(9) % 2, [1.0, 2])
    assert float(ij.curvature(line)) == pytest.approx(0, abs=1e-5)
    assert float(ij.curvature(back)) == pytest.approx(math.pi, abs=1e-5)
    assert float(ij.curvature(back, convention="information_flow")) == pytest.approx(0, abs=1e-5)
    assert np.isnan(ij.curvature(z[:2])) and np.isnan(ij.curvature(np.ones((5, 3))))
    assert float(ij.curvature(np.ones((5, 3)), convention="information_flow")) == 0
    assert np.isfinite(jax.grad(ij.curvature)(jnp.asarray(line))).all()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ij.linear_cka(X, Y[:5]), "z1 has 14 rows, z2 has 5: both must hold the same samples"),
        (lambda: ij.linear_cka_map(X[0]), "layers must be a list of"),
        (lambda: ij.linear_cka_map([X, Y[:4]]), "layers must hold the same samples; they have 14, 4 rows"),
        (lambda: ij.linear_cka_map([X], [Y[:4]]), "layers have 14 rows, others 4"),
        (lambda: jax.jit(lambda d: ij.linear_cka(X, Y, debiased=d))(True), "debiased is traced"),
        (lambda: ij.alignment(X, Y), "z1 has 5 columns, z2 has 6"),
        (lambda: ij.infonce_bound(X, VIEW, convention="simclr"), "convention must be one of cpc, information_flow"),
        (lambda: ij.infonce_bound(X, VIEW, symmetric=True, convention="information_flow"), "symmetric needs"),
        (lambda: ij.infonce_bound(X, VIEW, temperature=0), "temperature must be a positive number"),
        (lambda: ij.dime(X, VIEW, permutations=0), "permutations must be at least 1"),
        (lambda: ij.curvature(X, convention="k"), "convention must be one of paper, information_flow"),
    ],
)
def test_bad_requests(call, says):
    with pytest.raises(ValueError, match=says):
        call()
