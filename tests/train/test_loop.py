"""The loop: its order, exact continuation after any stop, nothing lost or doubled, nothing non-finite kept."""

import hashlib
import json
import os
import signal
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from infojax.data import channel_moments, open_dataset, transforms
from infojax.models import MLP
from infojax.objectives import Aux, Context, Facts, Objective, Optimizer, Seeds, Supervised, View, init_state, objective
from infojax.train import keeper
from infojax.train.checkpoint import Checkpoints
from infojax.train.feed import Feed
from infojax.train.keeper import NonFiniteError
from infojax.train.loop import Evaluator, Preempted, at, every, fit, log_spaced
from infojax.train.networks import as_net
from infojax.train.optim import sgd
from infojax.train.runlog import RunFolder, read_rows
from infojax.train.step import make_step, map_runs, stack

TRAIN = open_dataset().split("train")
CONSTANTS = {"data": {"train": {"x": jnp.asarray(TRAIN.x), "labels": jnp.asarray(TRAIN.labels)}}}
VIEWS = transforms(*channel_moments(TRAIN), pad=1, flip=False)


def setting(lr=0.05):
    net = as_net(MLP(10, widths=(16,)), jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32))
    return Context({"net": net}, {"main": Optimizer(sgd(lr))}, Facts(10, 100))


def weights(run):
    """An evaluator that yields an exact function of the weights."""
    yield "checksum", float(sum(jnp.sum(leaf) for leaf in jax.tree.leaves(run["raw"].params)))


def train(folder, until=20, lr=0.05, ctx=None, evaluators=None, **options):
    ctx, task = ctx or setting(lr), Supervised(batch_size=32)
    run, store = RunFolder(folder, {"lr": lr}), Checkpoints(Path(folder) / "checkpoints")
    evaluators = [Evaluator("weights", every(5, until), weights)] if evaluators is None else evaluators
    options = {"log": every(1, until), "save": every(4, until)} | options
    try:
        return fit(
            task, init_state(task, Seeds(), ctx), CONSTANTS, Seeds(), make_step(ctx, VIEWS),
            until=until, evaluators=evaluators, rows=run, checkpoints=store, **options,
        )  # fmt: skip
    finally:
        run.close()
        store.close()


def fingerprint(state):
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state))).hexdigest()


def rows_of(folder):
    """Rows without what depends on the clock."""
    return [
        {key: value for key, value in row.items() if key != "time"}
        for row in read_rows(folder)
        if row["kind"] != "timing"
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return fingerprint(train(folder)), rows_of(folder)


def test_rows_and_their_order(whole):
    kinds = [(row["step"], row["kind"]) for row in whole[1]]
    expected = []
    for step in range(21):
        expected += [(step, "train")] if step > 0 else []
        expected += [(step, "eval")] if step % 5 == 0 else []
    assert kinds == expected


class Stop(Exception):
    pass


@pytest.mark.parametrize("stopped", [1, 4, 5, 6, 13])
def test_a_stopped_run_continues_to_the_same_bits_and_rows(tmp_path, whole, stopped):
    def stop(step, values):
        if step == stopped and "loss" in values:
            raise Stop

    with pytest.raises(Stop):
        train(tmp_path, progress=stop)
    assert fingerprint(train(tmp_path)) == whole[0]
    assert rows_of(tmp_path) == whole[1]


def test_a_finished_run_does_nothing(tmp_path, whole):
    train(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    assert fingerprint(train(tmp_path)) == whole[0] and (tmp_path / "metrics.jsonl").read_bytes() == before


def test_several_updates_a_call_change_nothing(tmp_path, whole):
    state = train(tmp_path, log=every(4, 20), steps_per_call=4)
    mine = rows_of(tmp_path)
    assert fingerprint(state) == whole[0]
    assert mine == [row for row in whole[1] if row["kind"] == "eval" or row["step"] % 4 == 0]


def test_sigterm_saves_and_the_run_continues(tmp_path, whole):
    def kill(step, values):
        if step == 7 and "loss" in values:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match="step 7"):
        train(tmp_path, progress=kill)
    assert signal.getsignal(signal.SIGTERM) == before
    assert Checkpoints(tmp_path / "checkpoints").steps()[-1] == 7
    assert fingerprint(train(tmp_path)) == whole[0]
    assert rows_of(tmp_path) == whole[1]


def test_sigterm_after_the_last_check_is_passed_on(tmp_path):
    """If it arrives while the last checkpoint is written, the previous handler receives it."""
    heard = []

    class Late(Checkpoints):
        def save(self, step, *args):
            super().save(step, *args)
            if step == 20:
                os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        with Late(tmp_path) as store:
            ctx, task = setting(), Supervised(batch_size=32)
            start = init_state(task, Seeds(), ctx)
            fit(task, start, CONSTANTS, Seeds(), make_step(ctx, VIEWS), until=20, checkpoints=store, save=every(0, 20))
            assert heard == [1] and store.steps() == [20]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("lr", [float("inf"), 1e30])
def test_non_finite_training_stops_and_keeps_the_last_good_checkpoint(tmp_path, lr):
    schedule = lambda step: jnp.where(step < 10, 0.05, lr)  # noqa: E731
    with pytest.raises(NonFiniteError, match="step 1[0-3]"):
        train(tmp_path, ctx=setting(schedule))
    store = Checkpoints(tmp_path / "checkpoints")
    step, state = store.restore(init_state(Supervised(batch_size=32), Seeds(), setting(lambda step: 0.05)))
    assert step == 8 and all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))


def test_a_non_finite_state_is_never_saved(tmp_path):
    """Nothing is logged, so only the check before saving can see it."""
    schedule = lambda step: jnp.where(step < 10, 0.05, jnp.inf)  # noqa: E731
    with pytest.raises(NonFiniteError, match="step 12: the state is not finite"):
        train(tmp_path, ctx=setting(schedule), log=every(0, 20))
    assert Checkpoints(tmp_path / "checkpoints").steps()[-1] == 8


def lost(steps, runs, what="logits"):
    """An evaluator that reports the network of these runs as not finite from a step on; other values may be nan."""
    seen = iter(range(99))

    def run(evaluated):
        k, number = divmod(next(seen), runs)
        yield "split", "test"
        yield "ratio", float("nan")
        if k in steps and number in steps[k]:
            yield "not_finite", what

    return run


def test_an_evaluation_that_is_not_finite_ends_the_run(tmp_path):
    """Its row is kept, and the message names step, quantity and checkpoint; a ratio 0 / 0 ends nothing."""
    evaluators = [Evaluator("looks", every(5, 20), lost({2: {0}}, 1))]
    with pytest.raises(NonFiniteError, match="step 10: logits of test became NaN or Inf; .* checkpoint is of step 8"):
        train(tmp_path, evaluators=evaluators)
    found = [(row["step"], row.get("not_finite")) for row in rows_of(tmp_path) if row["kind"] == "eval"]
    assert found == [(0, None), (5, None), (10, "logits")]


def group(tmp_path, evaluator, until=2):
    ctx, task = setting(), Supervised(batch_size=32)
    seeds = [Seeds(s, s, s) for s in range(2)]
    run = RunFolder(tmp_path, {})
    try:
        fit(
            task, stack([init_state(task, s, ctx) for s in seeds]), CONSTANTS, stack(seeds),
            map_runs(make_step(ctx, VIEWS), "vmap"), until=until, rows=run,
            evaluators=[evaluator], runs=[{"seed": s} for s in range(2)],
        )  # fmt: skip
    finally:
        run.close()


def test_of_a_group_only_all_networks_that_are_not_finite_end_it(tmp_path):
    with pytest.raises(NonFiniteError, match="step 2: logits of test became NaN or Inf, in every run"):
        group(tmp_path, Evaluator("looks", every(1, 2), lost({1: {1}, 2: {0, 1}}, 2)))
    found = [(row["step"], row["run"], row.get("frozen", False)) for row in rows_of(tmp_path)]
    assert found == [(0, 0, False), (0, 1, False), (1, 0, False), (1, 1, True), (2, 0, True), (2, 1, True)]


def test_derived_networks_that_are_not_finite_end_nothing(tmp_path):
    def pruned(networks):
        yield {"run": 0, "sparsity": 0.5, "not_finite": "embedding"}

    group(tmp_path, Evaluator("pruned", at(2), pruned, of_all_runs=True))
    assert [row.get("frozen", False) for row in rows_of(tmp_path)] == [False]


def test_several_runs_give_a_row_each(tmp_path):
    ctx, task = setting(), Supervised(batch_size=32)
    seeds = [Seeds(s, s, s) for s in range(3)]
    run = RunFolder(tmp_path, {})
    fit(
        task, stack([init_state(task, s, ctx) for s in seeds]), CONSTANTS, stack(seeds),
        map_runs(make_step(ctx, VIEWS), "vmap"), until=2, rows=run, log=every(1, 2),
        runs=[{"seed": s} for s in range(3)],
    )  # fmt: skip
    run.close()
    found = [(row["step"], row["run"]) for row in rows_of(tmp_path)]
    assert found == [(step, i) for step in (1, 2) for i in range(3)]
    assert len({row["loss"] for row in rows_of(tmp_path)}) == 6


def test_the_time_of_coming_evaluations_is_reported_once(tmp_path, monkeypatch):
    """After the second one, since the first compiles; the time of a step, reported before, does not include them."""
    monkeypatch.setattr(keeper, "TOLD", 3.0)
    now = [0.0]  # a clock that only evaluations move
    monkeypatch.setattr(keeper, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def slow(run):
        yield "split", "test"
        now[0] += 0.05

    for name, interval, told in (("often", 1, [(1, "the evaluations to come take about 5 s")]), ("rarely", 5, [])):
        seen = []
        train(
            tmp_path / name,
            10,
            evaluators=[Evaluator("slow", every(interval, 100), slow)],
            progress=lambda *x, seen=seen: seen.append(x),
        )
        notes = [(step, values["note"]) for step, values in seen if "note" in values]
        assert [(step, note[:38]) for step, note in notes] == [(step, note[:38]) for step, note in told]


def test_an_evaluator_of_all_runs_writes_rows_of_its_own(tmp_path):
    ctx, task = setting(), Supervised(batch_size=32)
    seeds = [Seeds(s, s, s) for s in range(2)]
    seen = []

    def compare(networks):
        first, second = (network["raw"].params["head"]["bias"] for network in networks)
        for weight in (0.0, 1.0):
            seen.append(((1 - weight) * first + weight * second).tolist())
            yield {"run": 1, "runs": [0, 1], "split": "test", "weight": weight, "sum": float(sum(seen[-1]))}
        yield {"split": "test", "barrier": 0.5}

    run, kept = RunFolder(tmp_path, {}), Kept()
    state = fit(
        task, stack([init_state(task, s, ctx) for s in seeds]), CONSTANTS, stack(seeds),
        map_runs(make_step(ctx, VIEWS), "vmap"), until=2, rows=run, checkpoints=kept, save=at(2),
        evaluators=[Evaluator("pair", at(2), compare, of_all_runs=True)], runs=[{"seed": s} for s in range(2)],
    )  # fmt: skip
    run.close()
    np.testing.assert_allclose(seen, state.params["net"]["head"]["bias"])
    marks = [(row["run"], row["seed"], row["step"], row.get("weight"), row["evaluator"]) for row in rows_of(tmp_path)]
    assert marks == [(1, 1, 2, 0.0, "pair"), (1, 1, 2, 1.0, "pair"), (0, 0, 2, None, "pair")]
    assert "runs" not in rows_of(tmp_path)[0]
    assert kept.metrics == {"test barrier": 0.5}  # points on a line choose no checkpoint


class Kept:
    """In the place of checkpoints: what the last was saved with."""

    def restore(self, like):
        return None

    def save(self, step, state, metrics, facts=None):
        self.metrics = metrics

    def wait(self):
        pass


def test_rows_of_a_frozen_run_are_marked(tmp_path):
    """Run 1 becomes NaN or Inf at once; rows computed from it are marked, others are not."""
    ctx, task = setting(), Supervised(batch_size=32)
    seeds = [Seeds(s, s, s) for s in range(2)]
    state = stack([init_state(task, s, ctx) for s in seeds])
    state = state._replace(params=jax.tree.map(lambda leaf: leaf.at[1].set(jnp.nan), state.params))

    def rows(networks):
        yield {"run": 0}
        yield {"run": 1}
        yield {"run": 0, "runs": [0, 1]}

    run = RunFolder(tmp_path, {})
    fit(
        task, state, CONSTANTS, stack(seeds), map_runs(make_step(ctx, VIEWS), "vmap"), until=2, rows=run,
        evaluators=[Evaluator("all", at(2), rows, of_all_runs=True)], runs=[{"seed": s} for s in range(2)],
    )  # fmt: skip
    run.close()
    found = [(row.get("frozen", False), row.get("of_frozen", False)) for row in rows_of(tmp_path)]
    assert found == [(False, False), (True, False), (False, True)]


def test_a_fed_run_is_the_same_run(tmp_path, whole):
    """Also if it stops in the middle of an epoch and continues with several steps per call."""
    task = Supervised(batch_size=32)

    def fed(until, **options):
        with closing(Feed({"train": TRAIN}, task.views, Seeds(), 20, steps=4)) as feed:
            return fingerprint(train(tmp_path, until, feed=feed, **options))

    fed(7)
    assert rows_of(tmp_path)[-1]["step"] == 7
    assert fed(20, steps_per_call=4, log=every(4, 20)) == whole[0]
    assert json.loads(Path(tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["data_seconds"] >= 0


@objective
class Decoding(Objective):
    """A decoder on a frozen encoder, as V-information trains one."""

    views = (View("train", ("plain",), 64),)

    def loss(self, nets, state, constants, batch, draws, ctx):
        logits = nets("decoder", nets("net", batch["train"].views["plain"]).embedding)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["train"].labels)), Aux()


class Decoder(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(10)(x)


def test_an_evaluator_may_train(tmp_path, whole):
    """The same loop trains decoders inside an evaluator, without any effect on the run around it."""
    outer = setting()
    decoder = as_net(Decoder(), jax.ShapeDtypeStruct((2, 16), jnp.float32))
    ctx = Context(outer.nets | {"decoder": decoder}, {"main": Optimizer(sgd(0.1))}, outer.facts, frozen=("net",))
    step, lasts = make_step(ctx, VIEWS), []

    def readable(evaluated):
        encoder = evaluated["raw"]
        constants = CONSTANTS | {"frozen": {"net": (encoder.params, encoder.model_state)}}
        losses = []
        start = init_state(Decoding(), Seeds(), ctx)
        fit(
            Decoding(), start, constants, Seeds(), step, until=30, log=every(29, 30),
            progress=lambda k, values: losses.append(float(values["loss"])) if "loss" in values else None,
        )  # fmt: skip
        lasts.append(losses[-1])
        yield "cross_entropy", losses[-1]

    evaluators = [Evaluator("weights", every(5, 20), weights), Evaluator("decoder", every(20, 20), readable)]
    assert fingerprint(train(tmp_path, ctx=outer, evaluators=evaluators)) == whole[0]
    assert len(lasts) == 2 and lasts[1] < lasts[0]  # a trained encoder can be read more easily
    assert [row["cross_entropy"] for row in rows_of(tmp_path) if row.get("evaluator") == "decoder"] == lasts


def test_sigterm_while_an_evaluator_trains(tmp_path, whole):
    """The inner loop ends at once; the rows of this step are dropped, and measured anew when the run continues."""
    outer, task = setting(), Supervised(batch_size=32)
    step, came = make_step(outer, VIEWS), []

    def kill(inner_step, values):
        if len(steps) == 3 and not came:  # in the midst of the third inner training
            came.append(inner_step)
            os.kill(os.getpid(), signal.SIGTERM)

    def trains(evaluated):
        steps.append(1)
        state = fit(task, init_state(task, Seeds(), outer), CONSTANTS, Seeds(), step, until=2, progress=kill)
        yield "inner", int(state.step)

    steps, evaluators = [], [Evaluator("inner", every(5, 20), trains)]
    saved = {"save": every(4, 20)}
    with pytest.raises(Preempted, match="stopped while step 10 was measured; the last good checkpoint is of step 8"):
        train(tmp_path, ctx=outer, evaluators=evaluators, **saved)
    assert Checkpoints(tmp_path / "checkpoints").steps()[-1] == 8
    assert fingerprint(train(tmp_path, ctx=outer, evaluators=evaluators, **saved)) == whole[0]
    assert [(row["step"], row["inner"]) for row in rows_of(tmp_path) if row["kind"] == "eval"] == [
        (step, 2) for step in (0, 5, 10, 15, 20)
    ]


def test_the_end_is_saved_and_checked_whatever_the_cadence(tmp_path):
    state = train(tmp_path / "good", save=every(0, 20), log=every(0, 20))
    assert Checkpoints(tmp_path / "good" / "checkpoints").steps() == [20] and int(state.step) == 20
    with pytest.raises(NonFiniteError):
        train(tmp_path / "bad", lr=float("inf"), save=every(0, 20), log=every(0, 20))


@pytest.mark.parametrize(("interval", "total", "due"), [(4, 10, [0, 4, 8, 10]), (0, 10, []), (20, 10, [0, 10])])
def test_every(interval, total, due):
    assert [step for step in range(total + 1) if every(interval, total)(step)] == due


def test_evaluations_become_closer_towards_the_end():
    """TorchSSL's every 5,000 steps until 80%, then every 1,000, in thousandths of its 2^20 steps."""
    due = [step for step in range(21) if every(5, 20, late=1, late_from=0.8)(step)]
    assert due == [0, 5, 10, 15, 16, 17, 18, 19, 20]
    assert [step for step in range(21) if every(0, 20, late=1, late_from=0.8)(step)] == []
    due = [step for step in range(2**20 + 1) if every(5000, 2**20, late=1000, late_from=0.8)(step)]
    assert sum(step < 0.8 * 2**20 for step in due) == 168 and due[-2:] == [1_048_000, 2**20] and len(due) == 379


def test_log_spaced():
    due = [step for step in range(1001) if log_spaced(1000, 5, per_epoch=10)(step)]
    assert due == [0, 10, 30, 100, 320, 1000]  # epochs 1, 3, 10, 32, 100
    assert [step for step in range(4) if log_spaced(3, 5)(step)] == [0, 1, 2, 3]
