"""Self-supervised losses against float64 NumPy computations, their identities and bounds, and their methods."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import infojax as ij
from infojax.objectives import Batch, Context, Facts, Optimizer, Seeds, init_state, with_settings
from infojax.objectives.selfsup import (
    METHODS,
    barlow_twins,
    byol,
    masked_error,
    nt_xent,
    patchify,
    spectral_contrastive,
    total_coding_rate,
    uniformity,
    vicreg,
)
from infojax.objectives.selfsup.byol import momentum
from infojax.objectives.selfsup.mae import normalised
from infojax.train.networks import as_net
from infojax.train.step import make_step

B, D = 6, 4
RNG = np.random.default_rng(0)
Z1 = RNG.normal(size=(B, D))
Z2 = Z1 + 0.7 * RNG.normal(size=(B, D))


# NumPy


def unit(z):
    return z / np.sqrt((z**2).sum(1, keepdims=True))


def spectral(a, b, strength=0.3):
    u, v, value = unit(a), unit(b), 0.0
    for i in range(len(a)):
        for j in range(len(a)):
            value += ((u[i] - v[i]) ** 2).sum() if i == j else strength * (u[i] @ v[j]) ** 2
    return value


def haochen(a, b, mu=2.0):
    def clip(z):
        return np.stack([row * np.sqrt(mu) / max(np.linalg.norm(row), np.sqrt(mu)) for row in z])

    a, b, n = clip(a), clip(b), len(a)
    apart = sum((a[i] @ b[j]) ** 2 for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return (-2 * np.mean([x @ y for x, y in zip(a, b, strict=True)]) + apart) / mu


def barlow(a, b, strength=0.02):
    a, b = ((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) for z in (a, b))
    c = sum(np.outer(x, y) for x, y in zip(a, b, strict=True)) / len(a)
    return sum((1 - c[i, i]) ** 2 if i == j else strength * c[i, j] ** 2 for i in range(D) for j in range(D))


def simclr(a, b, t=0.3):
    u, n, value = unit(np.concatenate([a, b])), len(a), 0.0
    for i in range(2 * n):
        others = [np.exp(u[i] @ u[k] / t) for k in range(2 * n) if k != i]
        value -= np.log(np.exp(u[i] @ u[(i + n) % (2 * n)] / t) / np.sum(others)) / (2 * n)
    return value


def bardes(a, b, share=1.0, weights=(25, 25, 1)):
    value = weights[0] * ((a - b) ** 2).mean()
    for z in (a, b):
        cov = np.cov(z.T)
        value += weights[1] * share * np.maximum(0, 1 - np.sqrt(np.diag(cov) + 1e-4)).mean()
        value += weights[2] * (cov**2 - np.diag(np.diag(cov) ** 2)).sum() / D
    return value


def rate(a, mu=1.5, center=False):
    u = unit(a)
    u = u - u.mean(0) if center else u
    return np.linalg.slogdet(np.eye(D) + mu / D * u.T @ u)[1]


ORACLES = {
    "spectral": (functools.partial(spectral_contrastive, strength=0.3), spectral),
    "haochen": (functools.partial(spectral_contrastive, form="haochen", radius=2.0), haochen),
    "barlow": (functools.partial(barlow_twins, strength=0.02), barlow),
    "simclr": (functools.partial(nt_xent, temperature=0.3), simclr),
    "simclr, cold": (functools.partial(nt_xent, temperature=0.02), functools.partial(simclr, t=0.02)),
    "vicreg": (vicreg, bardes),
    "vicreg, code": (functools.partial(vicreg, form="code"), functools.partial(bardes, share=0.5)),
    "byol": (byol, lambda a, b: np.mean(2 - 2 * (unit(a) * unit(b)).sum(1))),
    "uniformity": (lambda a, b: uniformity(a), lambda a, b: ((unit(a) @ unit(a).T) ** 2).mean()),
    "rate": (lambda a, b: total_coding_rate(a, 1.5), lambda a, b: rate(a)),
    "rate, centred": (lambda a, b: total_coding_rate(a, 1.5, center=True), lambda a, b: rate(a, center=True)),
}


def slope(f, x, step=1e-6):
    found = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        ends = [np.array(x), np.array(x)]
        ends[0][place] += step
        ends[1][place] -= step
        found[place] = (f(ends[0]) - f(ends[1])) / (2 * step)
    return found


@pytest.mark.parametrize("name", ORACLES)
def test_losses_and_gradients(name):
    """0.4 Z: a part of the vectors is shorter than HaoChen's radius, a part of the deviations smaller than VICReg's."""
    ours, theirs = ORACLES[name]
    a, b = 0.9 * Z1, 0.9 * Z2
    with jax.enable_x64(True):
        value, (da, db) = jax.value_and_grad(ours, (0, 1))(jnp.asarray(a), jnp.asarray(b))
    assert float(value) == pytest.approx(theirs(a, b), rel=1e-9)
    np.testing.assert_allclose(da, slope(lambda x: theirs(x, b), a), rtol=0, atol=1e-6)
    expected = np.zeros_like(b) if name == "byol" else slope(lambda x: theirs(a, x), b)
    np.testing.assert_allclose(db, expected, rtol=0, atol=1e-6)


SETTINGS = [  # a method, settings that are no defaults, the value of the oracle with these
    ("spectral", dict(form="paper", strength=0.3), spectral(Z1, Z2)),
    ("spectral", dict(form="haochen", radius=2.0), haochen(Z1, Z2)),
    ("barlow", dict(strength=0.02, scale=0.1), 0.1 * barlow(Z1, Z2)),
    ("simclr", dict(temperature=0.3, scale=2.0), 2 * simclr(Z1, Z2)),
    (
        "vicreg",
        dict(invariance=2.0, variance=3.0, covariance=5.0, scale=0.1, form="code"),
        0.1 * bardes(Z1, Z2, 0.5, (2, 3, 5)),
    ),
    ("mmae", dict(strength=2.0, mu=1.5, center=True, form="code"), -2 * rate(Z1, center=True)),
    ("mmae", dict(strength=2.0, mu=1.5, form="mcr2"), -rate(Z1, 1.5 * D**2 / B)),  # (1/2) log det(I + mu D / B G)
]


@pytest.mark.parametrize(("name", "settings", "expected"), SETTINGS)
def test_the_settings_of_a_method_are_those_of_its_loss(name, settings, expected):
    method = with_settings(METHODS[name], settings)
    with jax.enable_x64(True):
        one, two = jnp.asarray(Z1), jnp.asarray(Z2)
        ctx = Context({}, {}, Facts(3, 10))
        found = method.regulariser(one, ctx)[0] if name == "mmae" else method.compared(one, two)
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_nt_xent_is_optaxs():
    both = jnp.asarray(np.concatenate([Z1, Z2]), jnp.float32)
    for t in (0.5, 0.05, 0.005):
        theirs = optax.losses.ntxent(both, jnp.tile(jnp.arange(B), 2), t)
        assert float(nt_xent(both[:B], both[B:], t)) == pytest.approx(float(theirs), rel=2e-5)
        assert np.isfinite(jax.grad(nt_xent)(both[:B], both[B:], t)).all()


def test_the_two_forms_of_the_spectral_loss():
    with jax.enable_x64(True):
        u, v = jnp.asarray(unit(Z1)), jnp.asarray(unit(Z2))
        paper = spectral_contrastive(u, v, strength=1 / (B - 1))
        assert float(paper) == pytest.approx(B * (float(spectral_contrastive(u, v, form="haochen")) + 2), rel=1e-12)


REFUSED = {
    "spectral": lambda a: spectral_contrastive(a, a, form="mean"), "vicreg": lambda a: vicreg(a, a, form="x"),
    "barlow": lambda a: barlow_twins(a, a[:2]), "rate": lambda a: total_coding_rate(a, form="x"),
}  # fmt: skip


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_what_is_refused(call):
    with pytest.raises(ValueError, match="form must be one of|must be views of the same samples"):
        call(jnp.asarray(Z1, jnp.float32))


def test_bfloat16_is_computed_in_float32():
    """I + kG rounded to bfloat16 would lose 7 %; the inputs' own rounding is all that is lost."""
    z = jnp.asarray(RNG.normal(size=(64, 32)), jnp.bfloat16)
    exact = z.astype(jnp.float32)
    w = exact[::-1]
    for loss in (
        lambda a, b: total_coding_rate(a, 0.5), lambda a, b: uniformity(a), nt_xent, barlow_twins, vicreg,
        spectral_contrastive, byol,
    ):  # fmt: skip
        found = loss(z, w.astype(jnp.bfloat16))
        assert found.dtype == jnp.float32
        assert float(found) == pytest.approx(float(loss(exact, w)), rel=1e-6)


# Identities and bounds


def around(c, n, dim, seed=0):
    """Unit rows whose squared component along a common direction is about c."""
    rng = np.random.default_rng(seed)
    return unit(np.sqrt(1 - c) * unit(rng.normal(size=(n, dim))) + np.sqrt(c) * np.eye(dim)[:1])


def second_order(u, mu):
    k, n = mu / u.shape[1], len(u)
    return -k * n + (k * n) ** 2 / 2 * ((u.T @ u) ** 2).sum() / n**2


@pytest.mark.parametrize(("c", "mu"), [(0.0, 1.0), (0.9, 1.0), (0.9, 3.0)])
def test_m_mae_is_u_mae_to_second_order_where_features_are_spread(c, mu):
    """-log det(I + kG) = -kB + (kB)^2 / 2 uniformity - ...: near isotropy; not around a common direction."""
    n, dim = 64, 96
    with jax.enable_x64(True):
        u = jnp.asarray(around(c, n, dim))
        found, ours = jax.value_and_grad(lambda z: -total_coding_rate(z, mu))(u)
        theirs = jax.grad(uniformity)(u)
        cosine = float(jnp.sum(ours * theirs) / jnp.linalg.norm(ours) / jnp.linalg.norm(theirs))
        error = abs(float(found) / second_order(np.asarray(u), mu) - 1)
    if c == 0:
        assert error < 1e-3 and cosine > 0.999
    else:  # the series is poor, and diverges where the largest eigenvalue of G exceeds D / mu
        assert error > 0.05


def test_range_of_the_coding_rate_and_its_forms():
    n, dim, mu = 12, 5, 1.3
    with jax.enable_x64(True):
        collapsed, z = jnp.ones((n, dim)), jnp.asarray(RNG.normal(size=(n, dim)))
        spread = jnp.asarray(np.tile(np.eye(dim), (3, 1)))
        assert float(total_coding_rate(collapsed, mu)) == pytest.approx(np.log1p(mu * n / dim), rel=1e-12)
        assert float(total_coding_rate(collapsed, mu, center=True)) == pytest.approx(0, abs=1e-12)
        most = dim * np.log1p(mu * 15 / dim**2)
        assert float(total_coding_rate(spread, mu)) == pytest.approx(most, rel=1e-12)
        code, paper = total_coding_rate(z, mu), total_coding_rate(z, dim / mu, form="paper")
        assert float(paper - dim * np.log(dim / mu)) == pytest.approx(float(code), rel=1e-12)
        mcr2 = total_coding_rate(z, mu * n / dim**2, form="mcr2")
        assert float(2 * mcr2) == pytest.approx(float(code), rel=1e-12)
        assert float(total_coding_rate(z, mu)) == pytest.approx(float(ij.coding_rate(z, mu)), rel=1e-12)


@functools.cache
def information(alpha, joint):
    f = ij.joint_entropy if joint else ij.mutual_information
    return jax.jit(functools.partial(f, alpha=alpha))


def near_pairs(count):
    """Pairs of views from close to orthogonal and equal, where the bounds say something, to unrelated ones."""
    rng = np.random.default_rng(5)
    for i in range(count):
        noise = 10.0 ** rng.uniform(-3, 0.5)
        basis = np.linalg.qr(rng.normal(size=(8, 8)))[0]
        yield basis[:5] + noise * rng.normal(size=(5, 8)), basis[:5] + noise * rng.normal(size=(5, 8)), 10.0 ** -(i % 3)


def test_the_spectral_loss_bounds_information_and_joint_entropy():
    """log B >= I_2 >= log B - 2 log(1 + (2 + 2 / (B lambda)) L), and H_2 with one log (Theorems 4.3 and 4.4)."""
    told = 0
    with jax.enable_x64(True):
        for a, b, strength in near_pairs(60):
            loss = float(spectral_contrastive(jnp.asarray(a), jnp.asarray(b), strength=strength))
            lost = np.log1p((2 + 2 / (5 * strength)) * loss)
            mutual, joint = (float(information(2, which)(jnp.asarray(a), jnp.asarray(b))) for which in (False, True))
            assert np.log(5) + 1e-9 >= mutual >= np.log(5) - 2 * lost - 1e-9
            assert np.log(5) + 1e-9 >= joint >= np.log(5) - lost - 1e-9
            told += lost < np.log(5) / 2
    assert told > 10  # a bound below 0 says nothing


def test_the_barlow_loss_bounds_information_of_the_features():
    """Features as rows of unit norm: I_2 >= log d - 2 log(1 + 2 L / (d lambda) + 4 sqrt(d L))."""
    rng, told = np.random.default_rng(1), 0
    with jax.enable_x64(True):
        for i in range(40):
            basis = np.linalg.qr(np.concatenate([np.ones((9, 1)), rng.normal(size=(9, 4))], 1))[0][:, 1:]
            noise = 10.0 ** rng.uniform(-4, 0)
            a, b = (basis + noise * rng.normal(size=(9, 4)) for _ in range(2))
            a, b = ((z - z.mean(0)) / np.linalg.norm(z - z.mean(0), axis=0) for z in (a, b))
            c, strength = a.T @ b, (0.0051, 0.3)[i % 2]
            loss = ((1 - np.diag(c)) ** 2).sum() + strength * ((c**2).sum() - (np.diag(c) ** 2).sum())
            # the eps of 1e-5 in the standardisation is negligible next to variances of one
            rows = 1e4 * a, 1e4 * b
            assert float(barlow_twins(*map(jnp.asarray, rows), strength)) == pytest.approx(loss, rel=1e-6, abs=1e-9)
            bound = np.log(4) - 2 * np.log(1 + 2 * loss / (4 * strength) + 4 * np.sqrt(4 * loss))
            found = float(information(2, False)(jnp.asarray(a.T), jnp.asarray(b.T)))
            assert np.log(4) + 1e-9 >= found >= bound - 1e-9
            told += bound > 0
    assert told > 10


def test_information_of_order_two_may_be_negative():
    r = np.sqrt(2)
    a = np.array([(1 / r, -1 / r), (0, 1), (0, -1), (1 / r, 1 / r), (0, -1)])
    b = np.array([(1 / r, -1 / r), (1 / r, -1 / r), (1, 0), (-1 / r, 1 / r), (0, 1)])
    k1, k2 = a @ a.T, b @ b.T
    expected = 2 * np.log(5) - np.log((k1**2).sum() * (k2**2).sum() / ((k1 * k2) ** 2).sum())  # Proposition 4.1
    with jax.enable_x64(True):
        assert float(information(2, False)(a, b)) == pytest.approx(expected, abs=1e-12) and expected < -0.049
        assert float(information(1, False)(a, b)) == pytest.approx(0.0505343, abs=1e-7)


def test_no_loss_is_all_information():
    """Orthonormal equal views: L = 0, and MI and joint entropy of every order are log B."""
    z = jnp.asarray(np.eye(5, 8), jnp.float32)
    assert float(spectral_contrastive(z, z)) == 0
    for alpha in (1, 2):
        for joint in (False, True):
            assert float(information(alpha, joint)(z, z)) == pytest.approx(np.log(5), rel=1e-5)


# Masked autoencoders


@pytest.mark.parametrize("ddof", [0, 1])
def test_patches_and_their_normalisation(ddof):
    images = RNG.normal(size=(2, 6, 4, 3))
    with jax.enable_x64(True):
        found, flat = patchify(jnp.asarray(images), 2), normalised(patchify(jnp.asarray(images), 2), ddof)
    assert found.shape == (2, 6, 12)
    for i, (row, column) in enumerate((r, c) for r in range(3) for c in range(2)):
        tile = images[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(2, -1)
        np.testing.assert_array_equal(found[:, i], tile)
        scaled = (tile - tile.mean(1, keepdims=True)) / np.sqrt(tile.var(1, ddof=ddof, keepdims=True) + 1e-6)
        np.testing.assert_allclose(flat[:, i], scaled, rtol=1e-12)
    with pytest.raises(ValueError, match="do not tile"):
        patchify(jnp.asarray(images, jnp.float32), 5)


def test_masked_error():
    prediction, target = RNG.normal(size=(2, 2, 3, 4))
    mask = np.array([[1, 0, 1], [0, 0, 1.0]])
    errors = [((prediction[i, j] - target[i, j]) ** 2).mean() for i, j in ((0, 0), (0, 2), (1, 2))]
    with jax.enable_x64(True):
        assert float(masked_error(jnp.asarray(prediction), jnp.asarray(target), jnp.asarray(mask))) == pytest.approx(
            np.mean(errors), rel=1e-12
        )


def test_momentum_goes_from_its_base_to_one():
    tau = [float(momentum(0.9, k, 10)) for k in (0, 5, 10)]
    assert tau == pytest.approx([0.9, 0.95, 1.0])


# Methods


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x, train, start=None, stop=None):
        from infojax.models import Output

        x = nn.Dense(6, name="first")(x.reshape(len(x), -1))
        return Output(None, nn.tanh(nn.BatchNorm(not train, momentum=0.9, name="bn")(x)), {"first": x})


class Head(nn.Module):
    width: int
    norm: bool = True

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(not train, momentum=0.9)(nn.Dense(5)(x)) if self.norm else x
        return nn.Dense(self.width)(x)


class SmallMAE(nn.Module):
    """A stand-in for `infojax.models.MAE`: 4 patches of 2 x 2, one of them kept."""

    @nn.compact
    def __call__(self, x, noise=None, train=False, start=None, stop=None):
        from infojax.models import Output

        tokens = nn.Dense(6, name="embed")(patchify(x, 2))
        if noise is None:
            return Output(None, jnp.mean(tokens, 1), {})
        restore = jnp.argsort(jnp.argsort(noise, axis=1), axis=1)
        visible = restore < 1
        token = jnp.sum(jnp.where(visible[..., None], tokens, 0), axis=1)
        prediction = nn.Dense(4 * x.shape[-1], name="decode")(jnp.tile(token[:, None], (1, 4, 1)))
        return Masked(prediction, 1.0 - visible, jnp.stack([token, token], 1), restore, token)


class Masked(tuple):
    """The fields of `infojax.models.MAEOutput`."""

    prediction, mask, latent, restore, token = (property(lambda self, i=i: self[i]) for i in range(5))

    def __new__(cls, *fields):
        return super().__new__(cls, fields)


N, SIZE, CLASSES = 64, 4, 3
PICTURES = RNG.normal(size=(N, SIZE, SIZE, 1)).astype(np.float32) + np.arange(N)[:, None, None, None] % 3
CONSTANTS = {"data": {"train": {"x": jnp.asarray(PICTURES), "labels": jnp.asarray(np.arange(N) % CLASSES)}}}
TRANSFORMS = {
    "view1": lambda key, x: x + 0.3 * jax.random.normal(key, x.shape),
    "view2": lambda key, x: 0.8 * x + 0.3 * jax.random.normal(key, x.shape),
}
LIKE = jax.ShapeDtypeStruct((2, SIZE, SIZE, 1), jnp.float32)
WIDE, THREE = (jax.ShapeDtypeStruct((2, width), jnp.float32) for width in (6, 3))
NETS = {
    "net": as_net(Encoder(), LIKE), "projector": as_net(Head(3), WIDE), "online": as_net(Head(CLASSES, False), WIDE),
}  # fmt: skip
MASKED = {"net": as_net(SmallMAE(), LIKE, jax.ShapeDtypeStruct((2, 4), jnp.float32)), "online": NETS["online"]}
PREDICTOR = as_net(Head(3), THREE)


def trained(name):
    method = with_settings(METHODS[name], {"batch_size": 16} | ({"patch": 2} if "mae" in name else {}))
    if name == "byol":
        method = with_settings(method, {"target_steps": 10, "target_decay": 0.8})
    nets = MASKED if "mae" in name else NETS | ({"predictor": PREDICTOR} if name == "byol" else {})
    return method, Context(nets, {"main": Optimizer(optax.sgd(0.05))}, Facts(CLASSES, 10))


@functools.cache
def alone(name):
    method, ctx = trained(name)
    step, states = jax.jit(make_step(ctx, TRANSFORMS)), [init_state(method, Seeds(), ctx)]
    for _ in range(2):
        state, metrics = step(method, states[-1], CONSTANTS, Seeds())
        states.append(state)
    return states, metrics


ALL = [name for name in METHODS if "released" not in name]


@pytest.mark.parametrize("name", ALL)
def test_every_net_of_a_method_learns(name):
    """No loss is dead: each net's kernels move, and the loss of the method is no constant."""
    (before, after, _), metrics = alone(name)
    for net in before.params:
        moved = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), before.params[net], after.params[net])
        assert max(jax.tree.leaves(moved)) > 1e-6, net
    assert np.isfinite(float(metrics["loss"])) and {"accuracy_online", "loss_online"} <= metrics.keys()


@pytest.mark.parametrize("name", ["simclr", "mmae"])
def test_the_online_classifier_has_no_gradient_into_the_network(name):
    """Other labels change the classifier and nothing else."""
    method, ctx = trained(name)
    state, step = alone(name)[0][0], jax.jit(make_step(ctx, TRANSFORMS))
    other = {"data": {"train": CONSTANTS["data"]["train"] | {"labels": jnp.zeros(N, int)}}}
    after, _ = step(method, state, other, Seeds())
    first = alone(name)[0][1].params
    for net in set(after.params) - {"online"}:
        for a, b in zip(jax.tree.leaves(after.params[net]), jax.tree.leaves(first[net]), strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.allclose(*(jax.tree.leaves(p["online"])[1] for p in (after.params, first)))


@pytest.mark.parametrize("name", ["simclr", "vicreg", "mmae"])
def test_unknown_labels_train_nothing_online(name):
    method, ctx = trained(name)
    other = {"data": {"train": CONSTANTS["data"]["train"] | {"labels": jnp.full(N, -1)}}}
    after, metrics = jax.jit(make_step(ctx, TRANSFORMS))(method, alone(name)[0][0], other, Seeds())
    assert float(metrics["loss_online"]) == 0
    before = alone(name)[0][0].params["online"]
    for a, b in zip(jax.tree.leaves(after.params["online"]), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_target_of_byol_follows_and_has_its_own_statistics():
    method, ctx = trained("byol")
    first, second, third = alone("byol")[0]
    for k, (old, new) in enumerate(((first, second), (second, third))):
        tau = 1 - 0.2 * (np.cos(np.pi * k / 10) + 1) / 2
        for net in ("net", "projector"):
            mean, params = old.averages["target"][net], new.params[net]
            for a, b, c in zip(*map(jax.tree.leaves, (new.averages["target"][net], mean, params)), strict=True):
                np.testing.assert_allclose(a, tau * b + (1 - tau) * c, rtol=1e-5, atol=1e-6)
    own, online = second.model_state["target/net"], second.model_state["net"]
    assert all(np.any(a != b) for a, b in zip(jax.tree.leaves(third.model_state["target/net"]), jax.tree.leaves(own),
                                             strict=True))  # fmt: skip
    assert set(own) == set(online)
    seen = method.evaluated(third, {}, ctx)
    assert set(seen) == {"raw", "target"}
    outputs = {which: model(jnp.asarray(PICTURES)) for which, model in seen.items()}
    assert {"projection", "prediction"} <= outputs["raw"].features.keys()
    assert outputs["raw"].logits.shape == (N, CLASSES)
    assert not np.allclose(outputs["raw"].features["projection"], outputs["target"].features["projection"])


def test_no_gradient_reaches_the_target():
    """The gradient in the online parameters is that with the target's outputs as constants, by hand."""
    from infojax.train.draw import draw

    method, ctx = trained("byol")
    method = with_settings(method, {"target_steps": 0})
    state = alone("byol")[0][1]._replace(step=jnp.asarray(0))
    views = draw(CONSTANTS["data"], method.views, TRANSFORMS, Seeds(), 0)["train"].views

    def outputs(params, statistics, x, names):
        z = ctx.nets["net"].apply(params["net"], statistics[names[0]], x, train=True)[0].embedding
        return ctx.nets["projector"].apply(params["projector"], statistics[names[1]], z, train=True)[0]

    target = [outputs(state.averages["target"], state.model_state, views[v], ("target/net", "target/projector"))
              for v in ("view1", "view2")]  # fmt: skip

    def loss(params):
        value = 0.0
        for view, aim in zip(("view1", "view2"), target[::-1], strict=True):
            z = outputs(params, state.model_state, views[view], ("net", "projector"))
            q = ctx.nets["predictor"].apply(params["predictor"], state.model_state["predictor"], z, train=True)[0]
            value += jnp.mean(2 - 2 * optax.losses.cosine_similarity(q, aim))
        return value

    slopes = jax.jit(jax.grad(loss))({name: state.params[name] for name in ("net", "projector", "predictor")})
    after, _ = jax.jit(make_step(ctx, TRANSFORMS))(method, state, CONSTANTS, Seeds())
    for net, gradient in slopes.items():
        expected = jax.tree.map(lambda p, g: p - 0.05 * g, state.params[net], gradient)
        for a, b in zip(jax.tree.leaves(after.params[net]), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


REGULARISERS = {  # method -> metric, its value of unit tokens (16, 6), its sign in the loss
    "umae": ("token_uniformity", lambda u: ((u @ u.T) ** 2).mean(), 1),
    "mmae": ("coding_rate", lambda u: np.linalg.slogdet(np.eye(6) + u.T @ u / 6)[1], -1),
}


@pytest.mark.parametrize("name", REGULARISERS)
def test_recorded_masks_and_the_released_gradient(name):
    """The loss from its parts, and 1/8 of the regulariser's gradient with the released scale."""
    metric, regulariser, sign = REGULARISERS[name]
    method, ctx = trained(name)
    method = with_settings(method, {"strength": 2.0, "norm_ddof": 0})
    state = init_state(method, Seeds(), ctx)
    batch = {"train": Batch({"view1": jnp.asarray(PICTURES[:16])}, jnp.full(16, -1), jnp.arange(16))}
    noise = jnp.asarray(RNG.uniform(size=(16, 4)), jnp.float32)

    @jax.jit
    def run(method):
        after, metrics = method.update(state, {}, batch, jax.random.key(0), ctx, noise)
        return jax.tree.map(lambda a, b: (b - a) / 0.05, after.params["net"], state.params["net"]), metrics

    output = ctx.nets["net"].apply(state.params["net"], {}, batch["train"].views["view1"], noise, train=True)[0]
    tiles = np.asarray(patchify(jnp.asarray(PICTURES[:16]), 2))
    tiles = (tiles - tiles.mean(2, keepdims=True)) / np.sqrt(tiles.var(2, keepdims=True) + 1e-6)
    hidden = np.argsort(np.argsort(noise, 1), 1) >= 1
    pixels = ((np.asarray(output.prediction) - tiles) ** 2).mean(2)[hidden].mean()
    value = regulariser(unit(np.asarray(output.token, np.float64)))
    whole, metrics = run(method)
    assert float(metrics["loss_pixels"]) == pytest.approx(pixels, rel=1e-5)
    assert float(metrics[metric]) == pytest.approx(value, rel=1e-5)
    assert float(metrics["loss"]) == pytest.approx(pixels + 2 * sign * value, rel=1e-5)
    none, eighth = (
        run(with_settings(method, {"strength": 0.0}))[0],
        run(with_settings(method, {"gradient_scale": 1 / 8})),
    )
    assert float(eighth[1]["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-5)
    for a, b, c in zip(*map(jax.tree.leaves, (whole, none, eighth[0])), strict=True):
        np.testing.assert_allclose(c - b, (a - b) / 8, rtol=0, atol=2e-5)
    assert max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(*map(jax.tree.leaves, (whole, none)), strict=True)) > 1e-2


# Devices


def on_mesh(name, devices):
    method, ctx = trained(name)
    mesh = jax.make_mesh((devices,), ("data",), (AxisType.Auto,), devices=jax.devices()[:devices])
    rows, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec("data"), PartitionSpec()))
    ctx = ctx._replace(gather=lambda tree: jax.lax.with_sharding_constraint(tree, whole))
    sharded = {key: lambda k, x, f=f: jax.lax.with_sharding_constraint(f(k, x), rows) for key, f in TRANSFORMS.items()}
    state, step = jax.device_put(alone(name)[0][0], whole), jax.jit(make_step(ctx, sharded))
    for _ in range(2):
        state, _ = step(method, state, CONSTANTS, Seeds())
    return state


@pytest.mark.parametrize("name", ["barlow", "byol", "mmae"])
def test_one_device_and_eight(name):
    for a, b in zip(jax.tree.leaves(on_mesh(name, 8)), jax.tree.leaves(alone(name)[0][-1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=3e-5)


LOSSES = {
    "spectral": spectral_contrastive, "barlow": barlow_twins, "simclr": nt_xent, "vicreg": vicreg,
    "umae": lambda a, b: uniformity(a), "mmae": lambda a, b: total_coding_rate(a),
}  # fmt: skip


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_value_and_gradient_do_not_depend_on_the_devices(devices):
    """All losses in one program; a gather whose gradient comes back unsummed has 1 / W of it: see below."""
    a, b = (jnp.asarray(RNG.normal(size=(16, D)), jnp.float32) for _ in range(2))

    def all_of(a, b):
        return [jax.value_and_grad(loss)(a, b) for loss in LOSSES.values()]

    mesh = jax.make_mesh((devices,), ("data",), (AxisType.Auto,), devices=jax.devices()[:devices])
    rows = NamedSharding(mesh, PartitionSpec("data"))
    expected = jax.jit(all_of)(a, b)
    found = jax.jit(all_of)(*jax.device_put((a, b), rows))
    for name, one, other in zip(LOSSES, expected, found, strict=True):
        for x, y in zip(one, other, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_gather_of_the_released_code_has_a_fraction_of_the_gradient():
    """Own rows only through the gather, then the mean over W devices, as DDP does: 1 / W, which the test above sees."""
    z, spec = jnp.asarray(RNG.normal(size=(16, D)), jnp.float32), PartitionSpec("data")
    weights = jnp.asarray(RNG.normal(size=(D, D)), jnp.float32)
    mesh = jax.make_mesh((4,), ("data",), (AxisType.Auto,), devices=jax.devices()[:4])

    def released(w, rows):
        def loss(w):
            mine = rows @ w
            every = jax.lax.stop_gradient(jax.lax.all_gather(mine, "data", tiled=True))
            place = jax.lax.axis_index("data") * len(rows)
            return -total_coding_rate(jax.lax.dynamic_update_slice(every, mine, (place, 0)))

        return jax.lax.pmean(jax.grad(loss)(w), "data")

    split = jax.shard_map(
        released, mesh=mesh, in_specs=(PartitionSpec(), spec), out_specs=PartitionSpec(), check_vma=False
    )
    found = jax.jit(split)(weights, jax.device_put(z, NamedSharding(mesh, spec)))
    exact = jax.jit(jax.grad(lambda w: -total_coding_rate(z @ w)))(weights)
    np.testing.assert_allclose(found, exact / 4, rtol=1e-3, atol=1e-5)
