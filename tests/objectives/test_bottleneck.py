"""The decodable information bottleneck: who is moved by what, when decoders are fresh, what fresh ones then read."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from infojax.data import channel_moments, open_dataset, transforms
from infojax.measures.usable import relabel
from infojax.models import MLP
from infojax.objectives import Batch, Bottleneck, Context, Facts, Nets, Optimizer, Seeds, init_state
from infojax.objectives.bottleneck import copies, read
from infojax.train.networks import as_net
from infojax.train.step import make_step

CLASSES, DIM = 4, 6
rng = np.random.default_rng(0)
LABELS = np.arange(64) % CLASSES
BATCH = {
    "train": Batch(
        {"plain": jnp.asarray(rng.normal(size=(64, DIM)), jnp.float32)},
        jnp.asarray(LABELS),
        jnp.arange(64),
        {"digits": relabel(LABELS, CLASSES)},  # 16 of each class: two digits, each value as often as any other
    )
}
DIGITS = BATCH["train"].extra["digits"]
ENTROPIES = {"entropies": {"labels": jnp.log(4.0), "digits": jnp.log(jnp.full(2, 4.0))}}
KEY = jax.random.key(3)


def setting(widths=(12, 10), classes=CLASSES, digits=2, shape=(DIM,), lr=1e-2, decay=0.0, layer="layer1"):
    module = MLP(classes, widths=widths)
    net = as_net(module, jax.ShapeDtypeStruct((2, *shape), jnp.float32))
    encoded = jax.ShapeDtypeStruct((2, widths[int(layer[-1]) - 1]), jnp.float32)
    decoders = copies(as_net(module, encoded, start=layer), digits)
    tx = optax.adamw(lr, weight_decay=decay)
    optimizers = {"main": Optimizer(tx, ("net",)), "decoders": Optimizer(tx, ("digits",))}
    return Context({"net": net, "digits": decoders}, optimizers, Facts(classes, 100))


CTX = setting()


def begun(ctx=CTX, **options):
    objective = Bottleneck(layer="layer1", **options)
    return objective, init_state(objective, Seeds(), ctx)


def losses(params, state):
    """(cross-entropy of the labels, of each digit) at any parameters."""
    h, _ = CTX.nets["net"].apply(params["net"], {}, BATCH["train"].views["plain"], train=True, stop="layer1")
    output, _ = CTX.nets["net"].apply(params["net"], {}, h, train=True, start="layer1")
    labels = optax.softmax_cross_entropy_with_integer_labels(output.logits, LABELS)
    return jnp.mean(labels), read(nets(state, params), h, DIGITS)


def nets(state, params, ctx=CTX):
    return Nets(state._replace(params=state.params | params), {}, KEY, ctx)


def loss(objective, state, constants, params):
    return objective.loss(nets(state, params), state, constants, BATCH, (), CTX)


def gradient(objective, state, constants=ENTROPIES):
    """In the parameters of the net, which are all that the optimiser "main" changes."""
    net = {"net": state.params["net"]}
    return jax.grad(lambda params: loss(objective, state, constants, params)[0])(net)


def along(direction, state, which):
    """Change of `which(losses)` as the net moves against the gradient."""
    net, own = direction["net"], state.params["net"]
    at = lambda t: state.params | {"net": jax.tree.map(lambda p, g: p - t * g, own, net)}  # noqa: E731
    change = lambda t: which(losses(at(t), state))  # noqa: E731
    return jax.jvp(change, (0.0,), (1.0,))[1]


def distance(a, b):
    return max(np.abs(x - y).max() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


HIGH = {"entropies": {"labels": jnp.log(4.0), "digits": jnp.full(2, 9.0)}}  # a cap that nothing reaches


def test_the_loss_is_equation_1_5():
    objective, state = begun(beta=0.7)
    label, digits = losses(state.params, state)
    for constants in (ENTROPIES, HIGH):
        value, aux = loss(objective, state, constants, {})
        entropies = constants["entropies"]
        usable = np.maximum(entropies["digits"] - digits, 0)
        assert value == pytest.approx(float(np.mean(usable) - 0.7 * (entropies["labels"] - label)), abs=1e-6)
        assert aux.metrics["sufficiency"] == pytest.approx(float((np.log(4) - label) / np.log(2)), abs=1e-6)
        expected = np.mean(entropies["digits"] - digits) / np.log(2)
        assert aux.metrics["minimality"] == pytest.approx(float(expected), abs=1e-6)


def test_the_net_lowers_the_labels_loss_and_raises_the_digits():
    objective, state = begun(beta=0.0)
    assert along(gradient(objective, state, HIGH), state, lambda found: jnp.mean(found[1])) > 1e-4
    objective = replace(objective, beta=1e3)
    assert along(gradient(objective, state, HIGH), state, lambda found: found[0]) < -1e-4


def test_the_digits_reach_the_encoder_alone_and_the_labels_the_whole_net():
    objective, state = begun(beta=0.0)
    found = gradient(objective, state, HIGH)
    assert distance(found["net"]["layer1"], jax.tree.map(jnp.zeros_like, found["net"]["layer1"])) > 1e-4
    for rest in (found["net"]["layer2"], found["net"]["head"]):
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(rest))
    found = gradient(replace(objective, beta=1.0), state, HIGH)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(found["net"]))


def test_decoders_lower_their_own_loss():
    objective, state = begun()
    before = losses(state.params, state)[1]
    h = objective.encode(nets(state, {}), BATCH)
    digits = state.params["digits"]
    found = jax.grad(lambda digits: jnp.mean(read(nets(state, {"digits": digits}), h, DIGITS)))(digits)
    moved = state.params | {"digits": jax.tree.map(lambda p, g: p - 0.01 * g, digits, found)}
    assert np.all(losses(moved, state)[1] < before)  # each its own


@pytest.mark.parametrize("capped", [0, 1])
def test_a_digit_that_is_read_worse_than_by_its_frequencies_moves_nothing(capped):
    objective, state = begun(beta=0.0)
    digits = losses(state.params, state)[1]
    entropies = jnp.asarray(digits) + jnp.where(jnp.arange(2) == capped, -0.1, 0.1)
    found = gradient(objective, state, {"entropies": {"labels": 0.0, "digits": entropies}})
    expected = jax.grad(lambda p: -losses(p, state)[1][1 - capped] / 2)(state.params)
    np.testing.assert_allclose(found["net"]["layer1"]["kernel"], expected["net"]["layer1"]["kernel"], atol=1e-7)
    both = {"entropies": {"labels": 0.0, "digits": digits - 0.1}}
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient(objective, state, both)))


def test_no_step_moves_what_belongs_to_the_other():
    """With a decay that would move everything."""
    ctx = setting(decay=0.5)
    objective, state = begun(ctx, inner=3)
    decoders_alone, net_alone = (
        ctx._replace(optimizers=ctx.optimizers | {name: Optimizer(optax.set_to_zero(), (net,))})
        for name, net in (("main", "net"), ("decoders", "digits"))
    )  # fmt: skip
    for own, other, alone in (("digits", "net", decoders_alone), ("net", "digits", net_alone)):
        start = state._replace(opt_state={name: o.tx.init(o.of(state.params)) for name, o in alone.optimizers.items()})
        after, _ = objective.update(start, ENTROPIES, BATCH, KEY, alone)
        assert equal(after.params[other], state.params[other]) and not equal(after.params[own], state.params[own])
    after, _ = objective.update(state, ENTROPIES, BATCH, KEY, ctx)
    assert after.step == 1
    moments = [optax.tree.get(after.opt_state[name], "count") for name in ("main", "decoders")]
    assert moments == [1, 3]


def test_decoders_begin_anew_at_their_steps():
    objective, state = begun(inner=1, reset_every=3, beta=1.0)
    update = jax.jit(lambda state, key: objective.update(state, ENTROPIES, BATCH, key, CTX)[0])
    anew = jax.jit(lambda state, key: objective.fresh(state, key, CTX))
    for step in range(8):
        key = jax.random.fold_in(KEY, step)
        found = anew(state, key)
        assert equal(found.params["net"], state.params["net"])
        assert equal(found.opt_state["main"], state.opt_state["main"])
        moments = jax.tree.leaves(found.opt_state["decoders"])
        if step in (3, 6):
            assert distance(found.params["digits"], state.params["digits"]) > 0.1
            assert not any(np.any(leaf) for leaf in moments)
        else:
            assert equal(found, state)
        state = update(state, key)
        assert optax.tree.get(state.opt_state["decoders"], "count") == (step % 3 + 1)
    again = [anew(state._replace(step=jnp.asarray(3)), jax.random.key(i)).params["digits"] for i in range(2)]
    assert distance(*again) > 0.1


def test_digit_decoders_differ_from_each_other():
    _, state = begun()
    first, second = (jax.tree.map(lambda leaf, k=k: leaf[k], state.params["digits"]) for k in range(2))
    assert distance(first, second) > 0.1
    assert set(state.params["digits"]) == {"layer2", "head"}


def test_a_large_beta_is_cross_entropy():
    objective, state = begun(beta=1e6)
    found = jax.tree.map(lambda g: g / 1e6, gradient(objective, state, HIGH)["net"])
    expected = jax.grad(lambda params: losses(params, state)[0])(state.params)["net"]
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


TRAIN = open_dataset().split("train")


def trained(beta, steps=300):
    """The first 100 of each digit, two of their digits in base 10, and the net after a number of steps."""
    chosen = np.sort(np.concatenate([np.flatnonzero(TRAIN.labels == c)[:100] for c in range(10)]))
    x, labels = jnp.asarray(TRAIN.x[chosen]), TRAIN.labels[chosen]
    data = {"train": {"x": x, "labels": jnp.asarray(labels), "digits": relabel(labels, 10)}}
    constants = {"data": data, "entropies": {"labels": jnp.log(10.0), "digits": jnp.log(jnp.full(2, 10.0))}}
    ctx = setting((64, 64), 10, 2, (8, 8, 1), lr=2e-3)
    views = transforms(*channel_moments(TRAIN), flip=False)
    objective = Bottleneck(layer="layer1", beta=beta, inner=5, batch_size=200)
    state, step = init_state(objective, Seeds(), ctx), jax.jit(make_step(ctx, views), donate_argnums=1)
    for _ in range(steps):
        state, metrics = step(objective, state, constants, Seeds())
    return ctx, state, views["plain"](None, x), data["train"]["digits"], metrics


def test_fresh_decoders_read_less_of_an_encoder_of_small_beta():
    read_by_fresh, accuracy = [], []
    for beta in (1e4, 0.5):
        ctx, state, x, digits, metrics = trained(beta)
        accuracy.append(metrics["accuracy"])
        h, _ = ctx.nets["net"].apply(state.params["net"], {}, x, train=False, stop="layer1")
        params, _ = ctx.nets["digits"].init(jax.random.key(7))
        tx = optax.adam(5e-3)

        @jax.jit
        def step(params, moments, h=h, digits=digits, state=state, ctx=ctx, tx=tx):
            loss = lambda params: jnp.mean(read(nets(state, {"digits": params}, ctx), h, digits))  # noqa: E731
            value, found = jax.value_and_grad(loss)(params)
            changes, moments = tx.update(found, moments)
            return optax.apply_updates(params, changes), moments, value

        moments = tx.init(params)
        for _ in range(200):
            params, moments, value = step(params, moments)
        read_by_fresh.append((np.log(10) - float(value)) / np.log(2))
    assert read_by_fresh[1] < 0.7 * read_by_fresh[0]
    assert accuracy[0] > 0.95 and accuracy[1] > 0.9
