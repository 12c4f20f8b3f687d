"""Supervised learning by epochs against the plain one, step by step; decoders against learning of their column."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import infojax as ij
from infojax.models import build
from infojax.objectives import Context, Decoder, Epochs, Facts, Optimizer, Seeds, Supervised, init_state
from infojax.train.checkpoint import Checkpoints
from infojax.train.loop import Evaluator, at, every, fit
from infojax.train.networks import as_net
from infojax.train.runlog import RunFolder, read_rows
from infojax.train.step import make_step, map_runs, stack

RNG = np.random.default_rng(0)
LABELS = np.arange(60) % 3
X = (RNG.normal(size=(3, 5))[LABELS] + RNG.normal(size=(60, 5))).astype(np.float32)
DATA = {"data": {"train": {"x": jnp.asarray(X), "labels": jnp.asarray(LABELS)}}}
NET = as_net(build("mlp", 3, widths=(8, 6)), jax.ShapeDtypeStruct((2, 5), jnp.float32))
CTX = Context({"net": NET}, {"main": Optimizer(optax.adam(0.02))}, Facts(3, 100))
STEP = make_step(CTX, {"plain": lambda key, x: x})
SEEDS = Seeds(1, 2, 3)
PLAIN = Supervised(transform="plain", batch_size=20)
SMALL = dict(inner=PLAIN, epoch_steps=3)


def trained(objective, steps, ctx=CTX, step=STEP, constants=DATA, seeds=SEEDS):
    """[(state, metrics)] after each step; before the first without metrics."""
    found = [(init_state(objective, seeds, ctx), None)]
    once = jax.jit(step)
    for _ in range(steps):
        found.append(once(objective, found[-1][0], constants, seeds))
    return found


@pytest.fixture(scope="module")
def plainly():
    return trained(PLAIN, 12)


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)


def test_the_mean_loss_of_an_epoch(plainly):
    found = trained(Epochs(**SMALL), 7)
    same(found[7][0].params, plainly[7][0].params)
    losses = [float(metrics["cross_entropy"]) for _, metrics in plainly[1:]]
    for k, begin in ((3, 0), (6, 3)):
        assert float(found[k][1]["epoch_loss"]) == pytest.approx(np.mean(losses[begin:k]), rel=1e-5)
        assert float(found[k][0].method.mean) == pytest.approx(np.mean(losses[begin:k]), rel=1e-5)
    assert float(found[7][1]["epoch_loss"]) == pytest.approx(losses[6], rel=1e-5)
    assert float(found[7][0].method.mean) == pytest.approx(np.mean(losses[3:6]), rel=1e-5)


def test_it_rests_at_the_loss_of_a_whole_epoch(plainly):
    losses = [float(metrics["cross_entropy"]) for _, metrics in plainly[1:]]
    second, third = np.mean(losses[3:6]), np.mean(losses[6:9])
    assert second > third
    found = trained(Epochs(rest_loss=(second + third) / 2, **SMALL), 12)
    resting = [bool(state.method.resting) for state, _ in found]
    assert resting == [False] * 9 + [True] * 4
    same(found[9][0].params, plainly[9][0].params)
    for leaf, rested in zip(jax.tree.leaves(found[12][0].params), jax.tree.leaves(found[9][0].params), strict=True):
        np.testing.assert_array_equal(leaf, rested)
    assert int(found[12][0].step) == 12 and float(found[12][1]["epoch_loss"]) == float(found[9][1]["epoch_loss"])
    assert bool(Epochs(**SMALL).finished(found[12][0])) and not bool(Epochs(**SMALL).finished(found[8][0]))


def test_each_run_rests_by_itself(plainly):
    objective, seeds = Epochs(rest_steps=jnp.array([4.0, 9.0]), **SMALL), SEEDS
    state = stack([init_state(Epochs(**SMALL), seeds, CTX)] * 2)
    step = jax.jit(map_runs(STEP, "vmap"))
    for _ in range(11):
        state, _ = step(objective, state, DATA, stack([seeds] * 2))
    for run, rest in enumerate((4, 9)):
        same(jax.tree.map(lambda leaf, run=run: leaf[run], state.params), plainly[rest][0].params)
    assert np.all(objective.finished(state))


def test_moments_are_of_the_weights_of_each_step():
    objective = Epochs(moments=(("layer2", 6),), **SMALL)
    found = trained(objective, 5)
    parts = []
    for state, _ in found[3:5]:  # the second epoch so far
        batch = batch_at(objective, state)
        output, _ = NET.apply(state.params["net"], {}, batch.views["plain"], train=True)
        parts.append((output.features["layer2"], batch.labels))
    z, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    expected, moments = ij.class_stats(z, labels, 3), found[5][0].method.moments["layer2"]
    np.testing.assert_array_equal(moments.count, expected.count)
    np.testing.assert_allclose(moments.mean, expected.mean, rtol=1e-5, atol=1e-6)
    assert objective.evaluated(found[5][0], DATA, CTX)["raw"].extra["moments"]["layer2"] is moments
    plain = Epochs(**SMALL)
    assert plain.evaluated(trained(plain, 0)[0][0], DATA, CTX)["raw"].extra == {}


def batch_at(objective, state, seeds=SEEDS):
    from infojax.train.draw import draw

    return draw(DATA["data"], objective.views, {"plain": lambda key, x: x}, seeds, state.step)["train"]


@pytest.mark.parametrize("encoded", ["once", "each batch"])
def test_a_decoder_learns_its_column_of_what_the_encoder_gives(encoded):
    """The same as plain learning of that column from the encodings."""
    encoder, _ = NET.init(jax.random.key(5))
    h = NET.apply(encoder, {}, jnp.asarray(X), train=False, stop="layer1")[0] if encoded else None
    tail = as_net(build("mlp", 3, widths=(8, 6)), jax.ShapeDtypeStruct((2, 8), jnp.float32), start="layer1")
    columns = np.stack([LABELS, (LABELS + np.arange(60) // 30) % 3], axis=1)

    def ctx(**more):
        return Context({"net": tail, **more}, {"main": Optimizer(optax.adam(0.02))}, Facts(3, 100), tuple(more))

    def encode(params, model_state, x, train, **_):
        return NET.apply(params, model_state, x, train=train, stop="layer1")[0], {}

    plain = {"data": {"train": {"x": h, "labels": jnp.asarray(columns[:, 1])}}}
    step = make_step(ctx(), {"plain": lambda key, x: x})
    expected = trained(PLAIN, 6, ctx(), step, plain)[6][0]

    own = ctx() if encoded == "once" else ctx(encoder=NET._replace(apply=encode))
    source = {"x": h if encoded == "once" else jnp.asarray(X), "labels": jnp.asarray(columns)}
    constants = {"data": {"train": source}} | ({} if encoded == "once" else {"frozen": {"encoder": (encoder, {})}})
    step = make_step(own, {"plain": lambda key, x: x})
    found = trained(Epochs(Decoder(jnp.asarray(1), batch_size=20), epoch_steps=3), 6, own, step, constants)[6][0]
    same(found.params["net"], expected.params["net"])


# The loop


@pytest.mark.parametrize("count", [1, 3])
def test_the_loop_ends_where_the_objective_is_finished(count, tmp_path):
    """With the end's evaluations, a checkpoint, and nothing left to do for a second call."""
    objective, seeds, looked = Epochs(rest_steps=5.0, **SMALL), SEEDS, []

    def look(networks):
        looked.append(networks["raw"])
        yield "value", 1.0

    for _ in range(2):
        with Checkpoints(tmp_path / "checkpoints", 2) as store:
            folder = RunFolder(tmp_path, {"steps": 60})
            state = fit(
                objective, init_state(objective, seeds, CTX), DATA, seeds, STEP,
                until=60, steps_per_call=count, rows=folder, checkpoints=store, log=every(3, 60),
                evaluators=[Evaluator("end", at(60), look)],
            )  # fmt: skip
            folder.close()
            assert store.steps()[-1] == 6
    rows = [row for row in read_rows(tmp_path) if row["kind"] != "timing"]
    assert [(row["kind"], row["step"]) for row in rows] == [("train", 3), ("train", 6), ("eval", 6)]
    assert len(looked) == 1 and int(state.step) == 6 and rows[1]["resting"] == 1.0
