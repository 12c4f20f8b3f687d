"""The step: any objective through one contract, several runs in one program, the same on any number of devices."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from infojax.data import channel_moments, open_dataset, transforms
from infojax.models import MLP, Output
from infojax.objectives import (
    Batch,
    Context,
    Facts,
    InformationTerm,
    Nets,
    Optimizer,
    Seeds,
    Supervised,
    View,
    init_state,
    stream,
)
from infojax.train.draw import Fed, draw, indices
from infojax.train.networks import as_net
from infojax.train.optim import sgd
from infojax.train.step import make_step, map_runs, stack

DIGITS = open_dataset()
TRAIN = DIGITS.split("train")
CONSTANTS = {"data": {"train": {"x": jnp.asarray(TRAIN.x), "labels": jnp.asarray(TRAIN.labels)}}}
VIEWS = transforms(*channel_moments(TRAIN), pad=1, flip=False)
IMAGES = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
FACTS = Facts(num_classes=10, total_steps=100)


class Normed(nn.Module):
    """A small classifier with batch normalisation: no convolutions, which take long to compile."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(not train, momentum=0.9)(nn.Dense(16)(x.reshape(len(x), -1)))
        embedding = nn.relu(x)
        return Output(nn.Dense(10, name="head")(embedding), embedding, {})


def context(module=None, **nets):
    nets = {"net": as_net(module or MLP(10, widths=(32,)), IMAGES)} | nets
    return Context(nets, {"main": Optimizer(sgd(0.05))}, FACTS)


def run(task, ctx, steps, seeds=Seeds(), constants=CONSTANTS, state=None):  # noqa: B008
    step = jax.jit(make_step(ctx, VIEWS))
    state = init_state(task, seeds, ctx) if state is None else state
    losses = []
    for _ in range(steps):
        state, metrics = step(task, state, constants, seeds)
        losses.append(float(metrics["loss"]))
    return state, losses


def same(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if tolerance:
            np.testing.assert_allclose(x, y, **tolerance)
        else:
            np.testing.assert_array_equal(x, y)


def test_supervised_learning_is_optax_by_hand():
    """Three steps written out: batches from the order, gradient of the mean cross-entropy, SGD, average."""
    task, ctx = Supervised(transform="plain", batch_size=100, ema_decay=0.9), context()
    found, losses = run(task, ctx, 3)
    state, tx = init_state(task, Seeds(), ctx), sgd(0.05)
    params, opt_state, mean = state.params, tx.init(state.params), state.params["net"]

    from infojax.data import order
    from infojax.objectives.contract import stream

    for k in range(3):
        chosen = np.asarray(order(jax.random.fold_in(stream("order", 0), 0), k, 100, len(TRAIN)))
        x = VIEWS["plain"](None, jnp.asarray(TRAIN.x[chosen]))

        def loss(params, x=x, y=TRAIN.labels[chosen]):
            logits = MLP(10, widths=(32,)).apply({"params": params["net"]}, x, train=True).logits
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))

        value, gradients = jax.value_and_grad(loss)(params)
        assert losses[k] == pytest.approx(float(value), rel=1e-5)
        changes, opt_state = tx.update(gradients, opt_state, params)
        params = optax.apply_updates(params, changes)
        mean = jax.tree.map(lambda m, p: 0.9 * m + 0.1 * p, mean, params["net"])
    same(found.params, params, rtol=1e-4, atol=1e-6)
    same(found.averages["ema"]["net"], mean, rtol=1e-4, atol=1e-6)
    evaluated = task.evaluated(found, CONSTANTS, ctx)
    same(evaluated["raw"].params, found.params["net"])
    same(evaluated["ema"].params, found.averages["ema"]["net"])


def test_it_learns():
    _, losses = run(Supervised(transform="plain"), context(), 60)
    assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[:5])


@pytest.mark.parametrize("log_softmax", ["float32", "float64"])
def test_label_smoothing_and_temperature(log_softmax):
    ctx = context()
    state = init_state(Supervised(), Seeds(), ctx)
    x = VIEWS["plain"](None, jnp.asarray(TRAIN.x[:9]))
    batch = {"train": Batch({"weak": x}, jnp.asarray(TRAIN.labels[:9]), jnp.arange(9))}
    task = Supervised(temperature=4.0, label_smoothing=0.2, log_softmax=log_softmax)
    value, _ = task.loss(Nets(state, {}, jax.random.key(0), ctx), state, {}, batch, (), ctx)
    logits = MLP(10, widths=(32,)).apply({"params": state.params["net"]}, x, train=True).logits / 4
    target = 0.8 * np.eye(10)[TRAIN.labels[:9]] + 0.02
    assert float(value) == pytest.approx(
        float(np.mean(-(target * np.asarray(jax.nn.log_softmax(logits))).sum(1))), rel=1e-5
    )


def test_a_certain_network_still_has_a_gradient():
    """Losses of 1e-12, which a log-softmax in float32 rounds to nothing."""
    logits, labels = jnp.zeros((4, 3)).at[:, 1].set(28.0), jnp.ones(4, jnp.int32)
    exact, rounded = (Supervised(log_softmax=kind).cross_entropy(logits, labels) for kind in ("float64", "float32"))
    np.testing.assert_allclose(exact, 2 * np.exp(-28), rtol=1e-5)
    assert not np.any(rounded)


def test_seeds_fork():
    seeds = Seeds(1, 2, 3, trunk=9, fork=5)
    assert [tuple(int(x) for x in seeds.at(step)[:3]) for step in (0, 4, 5, 6)] == [
        (1, 9, 9), (1, 9, 9), (1, 2, 3), (1, 2, 3),
    ]  # fmt: skip
    assert [int(x) for x in Seeds(1, 2, 3).at(0)[:3]] == [1, 2, 3]


def test_the_information_term_enters_with_its_strength():
    ctx = context()
    losses = {}
    for strength in (0.0, 0.5):
        task = Supervised(InformationTerm(strength, "mi"), transform="plain")
        _, metrics = jax.jit(make_step(ctx, VIEWS))(task, init_state(task, Seeds(), ctx), CONSTANTS, Seeds())
        losses[strength] = metrics
    difference = losses[0.5]["loss"] - losses[0.0]["loss"]
    assert float(difference) == pytest.approx(-0.5 * float(losses[0.0]["mi"]), rel=1e-4)


def test_it_continues_from_any_state_exactly():
    task, ctx = Supervised(), context(Normed())
    whole, _ = run(task, ctx, 5)
    half, _ = run(task, ctx, 2)
    rest, _ = run(task, ctx, 3, state=jax.tree.map(np.asarray, half))
    same(whole, rest)


@pytest.mark.parametrize("part", ["init", "order", "noise"])
def test_each_seed_moves_its_own_randomness(part):
    ctx, seeds = context(), Seeds(0, 0, 0)
    other = seeds._replace(**{part: 1})
    task = Supervised()
    start, moved = init_state(task, seeds, ctx), init_state(task, other, ctx)
    parameters_differ = np.any(
        np.asarray(start.params["net"]["layer1"]["kernel"] != moved.params["net"]["layer1"]["kernel"])
    )
    assert parameters_differ == (part == "init")
    step = jax.jit(make_step(ctx, VIEWS))
    losses = [float(step(task, start, CONSTANTS, s)[1]["loss"]) for s in (seeds, other)]
    assert (losses[0] != losses[1]) == (part != "init")


def test_full_batch_takes_every_sample_in_its_order():
    task, ctx = Supervised(batch_size="all", transform="plain"), context()
    _, metrics = jax.jit(make_step(ctx, VIEWS))(task, init_state(task, Seeds(), ctx), CONSTANTS, Seeds())
    params = init_state(task, Seeds(), ctx).params["net"]
    everything = VIEWS["plain"](None, CONSTANTS["data"]["train"]["x"])
    logits = MLP(10, widths=(32,)).apply({"params": params}, everything, train=True).logits
    assert float(metrics["accuracy"]) == pytest.approx(float(np.mean(np.argmax(logits, 1) == TRAIN.labels)), abs=1e-6)


def test_views_change_from_step_to_step():
    views = (View("train", ("weak", "strong"), "all"),)
    first, again, next_ = (draw(CONSTANTS["data"], views, VIEWS, Seeds(), step)["train"] for step in (0, 0, 1))
    for name in views[0].named:
        same(first.views[name], again.views[name])
        assert np.any(first.views[name] != next_.views[name])
    same(first.labels, next_.labels)


def test_a_fed_batch_replaces_the_draw():
    """What a host streams: the same rows give the same step."""
    task, ctx = Supervised(), context()
    step = jax.jit(make_step(ctx, VIEWS))
    state = init_state(task, Seeds(), ctx)
    rows = np.asarray(indices(task.views[0], 0, Seeds(), 0, len(TRAIN)))
    x, y = TRAIN.read(rows)
    fed = Fed(0, {"train": {"x": jnp.asarray(x), "labels": jnp.asarray(y), "index": rows}})
    same(step(task, state, {"data": {}}, Seeds(), fed), step(task, state, CONSTANTS, Seeds()))


# Several runs


@pytest.mark.parametrize("how", ["vmap", "unroll", "loop", "dispatch"])
def test_runs_together_are_the_runs_alone(how):
    """Two seeds and two temperatures in one program."""
    ctx = context()
    tasks = [Supervised(InformationTerm(0.1, "mi"), temperature=t) for t in (1.0, 4.0)]
    seeds = [Seeds(0, 0, 0), Seeds(3, 4, 5)]
    alone = stack([run(task, ctx, 3, s)[0] for task, s in zip(tasks, seeds, strict=True)])
    together = stack([init_state(task, s, ctx) for task, s in zip(tasks, seeds, strict=True)])
    step = map_runs(make_step(ctx, VIEWS), how).compiled()
    for _ in range(3):
        together, metrics = step(stack(tasks), together, CONSTANTS, stack(seeds))
    assert metrics["loss"].shape == (2,)
    same(together, alone, rtol=2e-4, atol=1e-5)


def test_unknown_way_to_map():
    with pytest.raises(ValueError, match="vmap, unroll, loop, dispatch; got 'pmap'"):
        map_runs(None, "pmap")


@pytest.mark.parametrize("how", ["vmap", "dispatch"])
def test_a_run_that_is_not_finite_is_frozen(how):
    """It keeps its last finite state, is marked at every later step, and the others are unaffected."""
    ctx, seeds = context(), [Seeds(0, 0, 0), Seeds(1, 1, 1)]
    tasks = stack([Supervised(InformationTerm(value, "hd")) for value in (0.0, 1e38)])
    step = map_runs(make_step(ctx, VIEWS), how).compiled()
    state = stack([init_state(Supervised(), s, ctx) for s in seeds])
    start = jax.tree.map(np.array, state)
    for _ in range(3):
        state, metrics = step(tasks, state, CONSTANTS, stack(seeds))
        assert metrics["frozen"].tolist() == [False, True]
    assert state.step.tolist() == [3, 0]
    same(*(jax.tree.map(lambda leaf: leaf[1], tree) for tree in (state, start)))
    alone, _ = run(Supervised(InformationTerm(0.0, "hd")), ctx, 3)
    same(jax.tree.map(lambda leaf: leaf[0], state), alone, rtol=2e-4, atol=1e-5)


def test_a_ratio_of_zero_by_zero_freezes_nothing():
    """One class in the batch: MIR is 0 / 0 there, loss and gradients are finite."""
    ctx, seeds = context(), [Seeds(0, 0, 0), Seeds(1, 1, 1)]
    one_class = {"data": {"train": {name: a[TRAIN.labels == 3] for name, a in CONSTANTS["data"]["train"].items()}}}
    task = Supervised(InformationTerm(0.1, "mi"), batch_size=8)
    state = stack([init_state(task, s, ctx) for s in seeds])
    state, metrics = jax.jit(map_runs(make_step(ctx, VIEWS), "vmap"))(task, state, one_class, stack(seeds))
    assert np.all(np.isnan(metrics["mir"])) and not np.any(metrics["frozen"]) and state.step.tolist() == [1, 1]


# Devices


def test_the_loss_does_not_depend_on_the_number_of_devices():
    """Batch sharded over 1, 2, 4, 8 devices: BatchNorm and the information term see the whole batch."""
    task, ctx = Supervised(InformationTerm(0.3, "hd")), context(Normed())
    found = {}
    for devices in (1, 2, 4, 8):
        mesh = jax.make_mesh((devices,), ("data",), (AxisType.Auto,), devices=jax.devices()[:devices])
        rows = NamedSharding(mesh, PartitionSpec("data"))
        step = make_step(ctx, {name: functools.partial(_sharded, view, rows) for name, view in VIEWS.items()})
        step, state = (
            jax.jit(step),
            jax.device_put(init_state(task, Seeds(), ctx), NamedSharding(mesh, PartitionSpec())),
        )
        for _ in range(2):
            state, metrics = step(task, state, CONSTANTS, Seeds())
        found[devices] = float(metrics["loss"]), jax.tree.map(np.asarray, state)
    for devices in (2, 4, 8):
        assert found[devices][0] == pytest.approx(found[1][0], rel=1e-5)
        same(found[devices][1], found[1][1], rtol=1e-3, atol=5e-5)  # float32 sums in another order


def _sharded(view, rows, key, x):
    return jax.lax.with_sharding_constraint(view(key, x), rows)


def test_averages_and_parameters_do_not_share_buffers():
    """A step may donate the state: no array in it may appear twice."""
    ctx, task = context(), Supervised()
    step = make_step(ctx, VIEWS).compiled()
    state = init_state(task, Seeds(), ctx)
    for _ in range(2):
        state, metrics = step(task, state, CONSTANTS, Seeds())
    assert np.isfinite(float(metrics["loss"]))


def test_streams_of_equal_seeds_have_nothing_in_common():
    keys = [
        tuple(jax.random.key_data(stream(name, seed)).tolist())
        for name in ("init", "order", "noise")
        for seed in (0, 1)
    ]
    assert len(set(keys)) == 6
