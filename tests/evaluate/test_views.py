"""Matrix information of two views against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infojax.evaluate import Sample, view_information, view_lidar
from infojax.models import Output
from infojax.objectives import Model, Net

RNG = np.random.default_rng(0)
N = 12
X = RNG.normal(size=(N, 5)).astype(np.float32)


def linear(params, model_state, x, train, stop=None):
    return Output(None, x @ params["a"], {"projection": x @ params["b"], "prediction": x @ params["b"] - 1}), {}


def entropy(k, alpha=1):
    w = np.linalg.eigvalsh(k / len(k))
    w = w[w > 1e-12]
    return -np.sum(w * np.log(w)) if alpha == 1 else -np.log(np.sum(w**2))


def cosines(z):
    u = z / np.linalg.norm(z, axis=1, keepdims=True)
    return u @ u.T


def test_rows_of_two_branches():
    """The prediction of one view by one set of weights, the projection of the other by another."""
    net = Net(None, linear)
    weights = [{name: jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32) for name in "ab"} for _ in range(2)]
    models = {name: Model(own, {}, net) for name, own in zip(("raw", "target"), weights, strict=True)}
    transforms = [lambda key, x: x + 0.1, lambda key, x: x * 2 - 0.2]
    sample = Sample("test", jnp.asarray(X), jnp.zeros(N, int))
    run = view_information(transforms, sample, (("raw", "prediction"), ("target", "projection")))
    found = dict(run(models))
    a, b = (np.asarray(own["b"], np.float64) for own in weights)
    z1, z2 = (X + 0.1) @ a - 1, (X * 2 - 0.2) @ b
    e1, e2 = (X + 0.1) @ np.asarray(weights[0]["a"]), (X * 2 - 0.2) @ np.asarray(weights[1]["a"])
    correlations = [np.corrcoef(z.T) for z in (z1, z2)]
    pairs = {"": (cosines(z1), cosines(z2)), "_embedding": (cosines(e1), cosines(e2)), "_features": correlations}
    for kind, (k1, k2) in pairs.items():
        for alpha, order in ((1, ""), (2, "_alpha_2")):
            joint = entropy(k1 * k2, alpha)
            assert found[f"view_joint_entropy{kind}{order}"] == pytest.approx(joint, abs=2e-5)
            mutual = entropy(k1, alpha) + entropy(k2, alpha) - joint
            assert found[f"view_mutual_information{kind}{order}"] == pytest.approx(mutual, abs=5e-5)
    k1, k2 = pairs[""]
    assert found["matrix_jsd"] == pytest.approx(entropy((k1 + k2) / 2) - (entropy(k1) + entropy(k2)) / 2, abs=5e-5)
    assert found["effective_rank_view2"] == pytest.approx(np.exp(entropy(k2)), rel=1e-4)
    assert found["limit_view_information"] == pytest.approx(np.log(N)) and found["view_samples"] == N
    assert dict(run(models)) == found  # the views are drawn once


def test_lidar_of_drawn_views():
    """Views of each sample along the second axis, the same at every call; the measure has its own tests."""
    net = Net(None, lambda params, model_state, x, train, stop=None: (Output(None, x, {}), {}))

    def transform(key, x):
        return x + 0.1 * jax.random.normal(key, x.shape)

    run = view_lidar(transform, Sample("test", jnp.asarray(X), jnp.zeros(N, int)), 3)
    found = dict(run({"raw": Model({}, {}, net)}))
    views = [X + 0.1 * np.asarray(jax.random.normal(jax.random.fold_in(jax.random.key(0), i), X.shape)) for i in
             range(3)]  # fmt: skip
    z = np.stack(views, 1).astype(np.float64)
    means = z.mean(1)
    within, between = (z - means[:, None]).reshape(-1, 5), means - means.mean(0)
    s_w, s_b = within.T @ within / len(within) + 1e-4 * np.eye(5), between.T @ between / N
    p = np.linalg.eigvals(np.linalg.solve(s_w, s_b)).real
    p = p / p.sum() + 1e-7
    assert found["lidar"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-4)
    assert (found["split"], found["lidar_views"], found["lidar_samples"]) == ("test", 3, N)
    assert dict(run({"raw": Model({}, {}, net)})) == found


def test_the_bound_is_the_highest_over_the_strength_of_the_loss():
    from infojax.evaluate.views import bounds

    u = np.linalg.qr(RNG.normal(size=(8, 8)))[0][:5]
    z1, z2 = u + 0.01 * RNG.normal(size=u.shape), u + 0.01 * RNG.normal(size=u.shape)
    found = dict(bounds(jnp.asarray(z1, jnp.float32), jnp.asarray(z2, jnp.float32)))
    one, two = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z1, z2))
    apart, c = ((one - two) ** 2).sum(), one @ two.T
    pairs = (c**2).sum() - (np.diag(c) ** 2).sum()
    best = max(np.log(5) - 2 * np.log1p((2 + 2 / (5 * s)) * (apart + s * pairs)) for s in np.geomspace(1e-3, 1e3, 4001))
    assert found["view_mutual_information_bound"] == pytest.approx(best, abs=1e-4)
    assert dict(bounds(jnp.asarray(z1, jnp.float32), jnp.asarray(-z2, jnp.float32))) == {}  # it says nothing


def test_what_is_not_finite_is_named():
    net = Net(None, lambda params, model_state, x, train, stop=None: (Output(None, x, {"projection": x / 0}), {}))
    run = view_information([lambda key, x: x] * 2, Sample("test", jnp.asarray(X), jnp.zeros(N, int)),
                           (("raw", "projection"),) * 2)  # fmt: skip
    found = dict(run({"raw": Model({}, {}, net)}))
    assert found == {"split": "test", "view_samples": N, "not_finite": "projection"}
