"""Optimisers against their equations in NumPy, and against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from infojax.train import optim

STEPS, LR, DECAY = 6, 0.03, 0.1


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def problem():
    """A kernel, a bias, and the gradients of some steps."""
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}
    return params, [{k: rng.normal(size=v.shape) for k, v in params.items()} for _ in range(STEPS)]


def schedule(step):
    return LR / (1 + step)


def run(tx, params, gradients):
    params = jax.tree.map(jnp.asarray, params)
    state, step = tx.init(params), jax.jit(tx.update)
    for g in gradients:
        updates, state = step(g, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_everything_may_decay_after_a_warm_up():
    """AdamW of PyTorch with decay on biases too, under LambdaLR of min(step / 3, 1)."""
    torch = pytest.importorskip("torch")
    params, gradients = problem()
    found = run(optim.adamw(optim.warmup(LR, 3), b2=0.98, weight_decay=1.0, decayed=None), params, gradients)
    leaves = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in params.items()}
    tx = torch.optim.AdamW(leaves.values(), lr=LR, betas=(0.9, 0.98), weight_decay=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(tx, lambda step: min(step / 3, 1))
    for g in gradients:
        for name, leaf in leaves.items():
            leaf.grad = torch.tensor(g[name])
        tx.step()
        schedule.step()
    for name, leaf in leaves.items():
        np.testing.assert_allclose(found[name], leaf.detach().numpy(), rtol=1e-6)
        assert np.abs(found[name] - params[name]).max() > 1e-3
    assert optim.warmup(LR, 0) == LR


def by_hand(params, gradients, step):
    """step(k, name, p, g, buffer) -> (p, buffer), parameter by parameter."""
    result = {}
    for name, p in params.items():
        buffer = np.zeros_like(p)
        for k, g in enumerate(gradients):
            p, buffer = step(k, p, g[name], buffer)
        result[name] = p
    return result


def assert_close(actual, expected, rtol=1e-12):
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=rtol, err_msg=name)


def test_layer_decay():
    """0.5^(3 - l) for two blocks scales the whole update, weight decay included, which tokens and positions lack."""
    leaf = {"kernel": np.ones((2, 2)), "bias": np.ones(2)}
    first = {"token": np.ones((1, 1, 2)), "position": np.ones((1, 3, 2)), "patches": leaf}
    params = {
        "net": first | {"block1": {"qkv": leaf}, "block2": {"qkv": leaf}, "norm": {"scale": np.ones(2)}, "head": leaf}
    }
    gradients = [jax.tree.map(np.ones_like, params)] * 2
    settings = dict(weight_decay=0.3, decayed=optim.kernels)
    plain, scaled = (run(optim.adamw(0.1, layer_decay=x, **settings), params, gradients)["net"] for x in (1.0, 0.5))
    once = run(optim.adamw(0.1, **settings), params, gradients[:1])["net"]
    decayed = run(optim.adamw(0.1, layer_decay=0.5, **settings), params, gradients[:1])["net"]
    for name, scale in (
        ("token", 1 / 8),
        ("position", 1 / 8),
        ("patches", 1 / 8),
        ("block1", 1 / 4),
        ("block2", 1 / 2),
    ):
        for whole, part in zip(jax.tree.leaves(once[name]), jax.tree.leaves(decayed[name]), strict=True):
            np.testing.assert_allclose(part - 1, scale * (whole - 1), rtol=1e-6, err_msg=name)
    for name in ("norm", "head"):
        jax.tree.map(np.testing.assert_array_equal, scaled[name], plain[name])
    np.testing.assert_allclose(once["token"], 0.9, rtol=1e-6)
    np.testing.assert_allclose(once["head"]["kernel"], 0.9 - 0.03, rtol=1e-6)
    cnn = {"net": {"group1_block1": leaf, "head": leaf}}
    changes = [jax.tree.map(np.ones_like, cnn)]
    found = (run(optim.adamw(0.1, layer_decay=x), cnn, changes) for x in (1.0, 0.5))
    jax.tree.map(np.testing.assert_array_equal, *found)


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd(nesterov):
    def step(k, p, g, v):
        g = g + DECAY * p * (p.ndim > 1)
        v = 0.9 * v + g
        return p - schedule(k) * (g + 0.9 * v if nesterov else v), v

    tx = optim.sgd(schedule, nesterov=nesterov, weight_decay=DECAY)
    assert_close(run(tx, *problem()), by_hand(*problem(), step))


def test_lars_meets_the_current_learning_rate():
    def step(k, p, g, v):
        if p.ndim > 1:
            g = g + DECAY * p
            g = g * 1e-3 * np.linalg.norm(p) / np.linalg.norm(g)
        v = 0.9 * v + g
        return p - schedule(k) * v, v

    tx = optim.lars(schedule, weight_decay=DECAY)
    assert_close(run(tx, *problem()), by_hand(*problem(), step))


def test_lars_takes_the_gradient_of_a_zero_matrix_as_it_is():
    params, gradient = {"kernel": np.zeros((2, 2))}, {"kernel": np.ones((2, 2))}
    np.testing.assert_allclose(run(optim.lars(0.5), params, [gradient])["kernel"], -0.5)
    np.testing.assert_array_equal(run(optim.lars(0.5), gradient, [params])["kernel"], 1)


@pytest.mark.parametrize("rate", [1e-3, 10.0])
def test_larc_is_bounded_by_the_learning_rate(rate):
    """A matrix moves by trust |p| / (|g| + wd |p|), or by the learning rate where that is less."""

    def step(k, p, g, v):
        lr = rate / (1 + k)
        if p.ndim > 1:
            s = 0.02 * np.linalg.norm(p) / (np.linalg.norm(g) + DECAY * np.linalg.norm(p))
            assert (s < lr) == (rate > 1)
            g = min(s / lr, 1) * (g + DECAY * p)
        v = 0.9 * v + g
        return p - lr * v, v

    tx = optim.larc(lambda k: rate / (1 + k), momentum=0.9, weight_decay=DECAY)
    assert_close(run(tx, *problem()), by_hand(*problem(), step))
    params, gradient = {"kernel": np.zeros((2, 2))}, {"kernel": np.ones((2, 2))}
    for p, g in ((params, gradient), (gradient, params)):  # neither decay nor adaptation
        found = run(optim.larc(0.5, weight_decay=DECAY), p, [g])["kernel"]
        np.testing.assert_allclose(found, p["kernel"] - 0.5 * g["kernel"])


def test_adamw():
    def step(k, p, g, buffer):
        m, v = buffer if buffer.ndim > p.ndim else np.zeros((2, *p.shape))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        adapted = m / (1 - 0.9 ** (k + 1)) / (np.sqrt(v / (1 - 0.999 ** (k + 1))) + 1e-8)
        return p - schedule(k) * (adapted + DECAY * p * (p.ndim > 1)), np.stack([m, v])

    assert_close(run(optim.adamw(schedule, weight_decay=DECAY), *problem()), by_hand(*problem(), step))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_torch_does_the_same(kind):
    torch = pytest.importorskip("torch")
    params, gradients = problem()
    theirs = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in params.items()}
    groups = [dict(params=[theirs["kernel"]], weight_decay=DECAY), dict(params=[theirs["bias"]], weight_decay=0.0)]
    if kind == "sgd":
        optimiser = torch.optim.SGD(groups, lr=LR, momentum=0.9, nesterov=True)
        ours = optim.sgd(LR, weight_decay=DECAY)
    else:
        optimiser = torch.optim.AdamW(groups, lr=LR)
        ours = optim.adamw(LR, weight_decay=DECAY)
    for g in gradients:
        for name, p in theirs.items():
            p.grad = torch.tensor(g[name])
        optimiser.step()
    assert_close(run(ours, params, gradients), {name: p.detach().numpy() for name, p in theirs.items()})


@pytest.mark.parametrize("make", [optim.sgd, optim.adamw, optim.lars])
def test_the_global_norm_is_clipped(make):
    params, gradients = problem()
    norm = np.sqrt(sum(np.sum(g**2) for g in gradients[0].values()))
    clipped = {name: g / norm * 0.5 for name, g in gradients[0].items()}
    assert_close(run(make(LR, clip=0.5), params, gradients[:1]), run(make(LR), params, [clipped]))


def test_cosine_7_16():
    lr = optim.cosine_7_16(0.03, 2**20)
    assert float(lr(0)) == pytest.approx(0.03)
    assert float(lr(2**19)) == pytest.approx(0.03 * np.cos(7 * np.pi / 32))
    assert float(lr(2**20)) == pytest.approx(0.03 * np.cos(7 * np.pi / 16))
    assert float(lr(3 * 2**20)) == 0  # never uphill again


def test_warmup_cosine():
    lr = optim.warmup_cosine(2.0, 110, 10, end=0.5)
    assert [float(lr(k)) for k in (0, 5, 10, 60, 110, 200)] == pytest.approx([0, 1, 2, 1.25, 0.5, 0.5])
    assert float(optim.warmup_cosine(2.0, 100)(0)) == 2


def test_linspace_cosine():
    lr = optim.linspace_cosine(2.0, 14, 4, start=0.5, end=0.1)
    assert [float(lr(k)) for k in range(5)] == pytest.approx([*np.linspace(0.5, 2, 4), 2])
    assert [float(lr(k)) for k in (9, 14, 20)] == pytest.approx([1.05, 0.1, 0.1])
    assert [float(optim.linspace_cosine(2.0, 10, w)(0)) for w in (0, 1)] == [2, 0]


def test_sgd_decays_vectors_where_it_is_asked_to():
    """As PyTorch's SGD with a single parameter group, which CoOp and CoCoOp use."""
    params = {"b": jnp.array([1.0, -2.0])}
    zero = {"b": jnp.zeros(2)}
    for decayed, factor in ((None, 1 - 0.1 * DECAY), (optim.matrices, 1.0)):
        tx = optim.sgd(0.1, nesterov=False, weight_decay=DECAY, decayed=decayed)
        changes, _ = tx.update(zero, tx.init(params), params)
        np.testing.assert_allclose(params["b"] + changes["b"], factor * params["b"], rtol=1e-6)
