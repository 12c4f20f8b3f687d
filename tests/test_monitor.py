"""`infojax.Monitor`: the right rows at the right steps, values against NumPy, thresholds, and how PyTorch feeds it."""

import errno
import io
import json
import shutil
import subprocess
import sys
import types
import warnings

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import infojax as ij
import infojax.monitor
from infojax.monitor import ThresholdError, buffer, hooks, rules, values, writers
from infojax.report.runs.rows import read_history

CHEAP = ("effective_rank",)  # needs one compiled program


def effective_rank(z):
    s = np.linalg.svd(np.asarray(z, np.float64), compute_uv=False)
    p = s[s > 0] / s.sum()
    return np.exp(-np.sum(p * np.log(p)))


def unit(a):
    return a / np.linalg.norm(a, axis=1, keepdims=True)


def entropy(k):
    p = np.linalg.eigvalsh(k / np.trace(k))
    p = p[p > 1e-12]
    return -np.sum(p * np.log(p))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_word_on_time(monkeypatch):
    """Steps that do nothing take no time, so that the monitor's share of it is always large."""
    monkeypatch.setattr(infojax.monitor, "MOST_OVERHEAD", 1.0)


# The buffer


def test_the_ring_holds_the_last_samples_in_order(rng):
    ring = buffer.Buffer(7)
    for sizes in ([3], [3, 3, 3], [7], [9], [5, 20, 2], [1] * 10):
        parts = [rng.normal(size=(n, 2)).astype(np.float32) for n in sizes]
        labels = [np.arange(n) for n in sizes]
        for z, y in zip(parts, labels, strict=True):
            assert ring.add({"": z, "deep": 2 * z}, y) == len(z)
        found, of_found = ring.take()
        np.testing.assert_array_equal(found[""], np.concatenate(parts)[-7:])
        np.testing.assert_array_equal(found["deep"], 2 * found[""])
        np.testing.assert_array_equal(of_found, np.concatenate(labels)[-7:])
        assert ring.take() == ({}, None) and found[""].dtype == np.float32


@pytest.mark.parametrize(
    ("second", "labels", "said"),
    [
        ({"": (3, 2)}, 4, "labels has shape (4,), expected (3,): the number of samples since the last labels"),
        ({"": (3, 2)}, None, "labels of the monitor: given with some batches and not with others"),
        ({"": (3, 4)}, 3, "features has 4 columns, and had 2 before"),
        ({"": (3, 2), "deep": (2, 2)}, 3, "deep has 2 rows, features has 3"),
        ({"deep": (3, 2)}, 3, "features, deep: given with some batches"),
    ],
)
def test_batches_that_do_not_fit(second, labels, said):
    ring = buffer.Buffer(10)
    ring.add({"": np.ones((3, 2))}, np.arange(3))
    with pytest.raises(ValueError) as caught:
        ring.add({k: np.ones(s) for k, s in second.items()}, None if labels is None else np.arange(labels))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_arrays_of_every_library(rng):
    z = rng.normal(size=(4, 3)).astype(ml_dtypes.bfloat16)
    want = z.astype(np.float32)
    for given in (z, want, jnp.asarray(z), want.astype(np.float64), want.tolist()):
        found = buffer.to_host(given, "", "mean")
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, want)
    tokens = np.stack([want, want], 1)  # what waits for its labels is a copy: the training may overwrite it
    assert not np.shares_memory(buffer.to_host(want, "", "mean"), want)
    assert not np.shares_memory(buffer.to_host(tokens, "", "last"), tokens)
    maps = rng.normal(size=(4, 5, 6, 3))
    np.testing.assert_allclose(buffer.to_host(maps, "", "mean"), maps.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(buffer.to_host(maps[:, 0], "", "last"), maps[:, 0, -1], rtol=1e-6)
    np.testing.assert_allclose(buffer.to_host(maps, "", lambda x: x[:, 0, 0]), maps[:, 0, 0], rtol=1e-6)
    for bad, said in ((np.ones(3), "has shape (3,)"), (np.array([["a"]]), "dtype <U1"), (np.ones((0, 2)), "(0, 2)")):
        with pytest.raises(ValueError) as caught:
            buffer.to_host(bad, "", "mean")
        assert said in str(caught.value)
    with pytest.raises(ValueError, match="labels has shape .* whole numbers"):
        buffer.to_host(np.ones(3), "labels", None)


def test_tokens_are_pooled_over_the_real_ones(rng):
    x, mask = rng.normal(size=(3, 4, 2)), np.array([[1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 0, 0]])
    means = np.stack([x[i, mask[i] == 1].mean(0) for i in range(3)])
    np.testing.assert_allclose(buffer.pooled(x, "mean", False, mask), means)
    np.testing.assert_array_equal(buffer.pooled(x, "last", False, mask), x[[0, 1, 2], [1, 3, 0]])
    mask[1] = 0
    for pool in ("mean", "last"):  # a sample without tokens has no features, and is left out as others that are nan
        assert np.isnan(buffer.pooled(x, pool, False, mask)).all(1).tolist() == [False, True, False]
        with pytest.raises(
            ValueError, match=r"deep has shape \(3, 4, 2\), and attention_mask \(3, 3\), expected \(3, 4\)"
        ):
            buffer.to_host(x, "deep", pool, mask[:, 1:])


def test_flax_intermediates_are_layers(rng):
    z = rng.normal(size=(2, 3))
    tree = {"Dense_0": {"__call__": (z,)}, "block": {"Dense_1": {"__call__": (2 * z,)}}, "embedding": 3 * z}
    found = buffer.layers_of(tree)
    assert {name: float(x[0, 0] / z[0, 0]) for name, x in found.items()} == {"Dense_0": 1, "block/Dense_1": 2, "": 3}
    from flax import nnx

    assert list(buffer.layers_of(nnx.state({"a": nnx.Param(jnp.ones((2, 3)))}))) == ["a"]
    with pytest.raises(ValueError, match="features is an empty dict"):
        buffer.layers_of({})


# Values


def test_values_against_numpy(rng):
    y, w = np.arange(24) % 3, rng.normal(size=(3, 5)).astype(np.float32)
    z = (w[y] + 0.5 * rng.normal(size=(24, 5))).astype(np.float32)
    found = values.measured(None, z, y, w, np.zeros(3, np.float32))
    g, v = (unit(a.astype(np.float64)) @ unit(a.astype(np.float64)).T for a in (z, w[y]))
    h1, h2, joint = entropy(g), entropy(v), entropy(g * v)
    want = {"entropy_features": h1, "effective_rank_from_gram": np.exp(h1), "effective_rank": effective_rank(z)}
    want |= {"mir": (h1 + h2 - joint) / min(h1, h2), "hdr": abs(h1 - h2) / max(h1, h2)}
    want |= {"entropy_head_weights": entropy(unit(w.astype(np.float64)) @ unit(w.astype(np.float64)).T)}
    for name, value in want.items():
        assert found[name] == pytest.approx(value, rel=1e-4), name
    nearest = np.argmin([np.linalg.norm(z - z[y == c].mean(0), axis=1) for c in range(3)], axis=0)
    assert found["nc4"] == pytest.approx(np.mean((z @ w.T).argmax(1) != nearest))
    assert 0 <= found["limit_hdr"] < 1 and 0 < found["limit_mir"] <= 2
    assert {"nc1", "nc3", "cdnv", "mean_energy", "stable_rank"} <= found.keys()
    assert not {"mir", "nc3", "limit_mir"} & values.measured(None, z, y).keys()


def test_names_of_measures_are_checked():
    assert values.checked(["rankme", "rankme", "coding_rate"]) == ("rankme", "coding_rate")
    with pytest.raises(ValueError, match=r"measures: 'effective_rnk' is none .* did you mean effective_rank"):
        ij.Monitor(measures=["effective_rnk"])
    with pytest.raises(ValueError, match="expected a list of names"):
        ij.Monitor(measures="mir")
    for bad in ({"every": 0}, {"capacity": 2.5}, {"pool": "max"}, {"writers": ["csv"]}, {"warn_if": "mir"}):
        with pytest.raises(
            ValueError, match=next(iter(bad)).removesuffix("_if")[:4] if "warn_if" not in bad else "no threshold"
        ):
            ij.Monitor(**bad)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"measures": []}, r"measures is \[\]; expected a list of names"),
        ({"measures": ["prompt_entropy"]}, "none that the monitor knows"),  # of groups of rows
        ({"split": ""}, "split is ''; expected a name"),
        ({"gather": "yes"}, "gather is 'yes'; expected True or False"),
        ({"warn_if": "effectiv_rank < 3"}, "effectiv_rank is not measured; did you mean effective_rank"),
        ({"warn_if": "mir < 1", "measures": ["nc1"]}, "mir is not measured; there is nc1"),
        ({"warn_if": "nc1_deep < 3"}, "nc1_deep is not measured"),
        ({"warn_if": "limit_nc1 < 3"}, "limit_nc1 is not measured"),
        ({"warn_if": "alpha_req < 1"}, "alpha_req is not measured; did you mean alpha_req_"),  # has several numbers
        ({"warn_if": "mir@layer1 < 1"}, "mir needs the head, and layers have none; expected mir without @layer1"),
        ({"warn_if": "limit_entropy_features@a < 1"}, "needs the head"),
        ({"warn_if": "nc1@ < 3"}, "no threshold"),
        ({"warn_if": "nc1 < 1e999"}, "no threshold"),
        ({"stop_if": 3}, "3 is no threshold"),
        ({"folder": ""}, "folder is ''; expected a path"),
        ({"folder": __file__}, "is a file, or in one"),
        ({"folder": f"{__file__}/deep/er"}, "is a file, or in one"),
    ],
)
def test_what_a_monitor_refuses_before_a_training_begins(wrong, said):
    with pytest.raises(ValueError, match=said):
        ij.Monitor(**wrong)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m, z: m.step(step=1.5), "step is 1.5; expected a whole number"),
        (lambda m, z: m.step(step=-1), "step is -1; expected a whole number"),
        (lambda m, z: m.head_is(z), "head_is takes a function"),
        (
            lambda m, z: (m.head_is(lambda: z), m.add(z), m.measure()),
            r"must return \(head, bias\); it returned ndarray",
        ),
        (lambda m, z: m.add(z, bias=z[0]), "bias was given without a head"),
        (lambda m, z: m.add({"a": {1, 2}}), "a is a set; expected an array of numbers"),
        (lambda m, z: (m.add(z, [0, 9], head=z), m.measure()), "labels go up to 9, and head has 2 classes"),
        (lambda m, z: m.trainer_callback(hed="fc"), "no argument 'hed'; watch takes head, layers, labels"),
    ],
)
def test_what_steps_and_batches_refuse(call, said):
    with pytest.raises((ValueError, TypeError), match=said):
        call(ij.Monitor(every=1, capacity=12), np.eye(2, 3, dtype=np.float32))


def test_what_cannot_be_measured_is_told(rng):
    z = rng.normal(size=(12, 4))
    monitor = ij.Monitor(every=2, measures=CHEAP)
    with pytest.warns(RuntimeWarning, match="step 2: nothing could be measured so far: no features came"):
        [monitor.step() for _ in range(4)]
    monitor = ij.Monitor(every=1, capacity=12, measures=["mir", "effective_rank"])
    monitor.add(z)
    with pytest.warns(RuntimeWarning, match="step 1: mir cannot be measured without labels and a head"):
        assert list(monitor.step()) == ["effective_rank"]
    monitor = ij.Monitor(every=1, capacity=12, measures=CHEAP)
    monitor.add(z)
    with pytest.warns(RuntimeWarning, match="step 1: all 12 labels are negative, and leave every row out"):
        monitor.step(labels=np.full(12, -1))


def test_features_without_a_finite_row_break_a_threshold(rng):
    monitor = ij.Monitor(every=1, capacity=12, measures=CHEAP, stop_if="effective_rank@deep < 0.5 * start")
    monitor.add({"features": rng.normal(size=(12, 4)), "deep": np.full((12, 4), np.nan)})
    with (
        pytest.warns(RuntimeWarning, match="12 of 12 rows of deep hold nan"),
        pytest.raises(ThresholdError, match="effective_rank@deep is nan"),
    ):
        monitor.step()


# Steps


def test_only_the_batches_before_a_measurement_are_taken(rng, tmp_path):
    monitor = ij.Monitor(str(tmp_path / "run"), every=10, capacity=12, measures=CHEAP)
    taken, found = [], {}
    batches = rng.normal(size=(31, 6, 4)).astype(np.float32)
    for k in range(1, 31):
        if monitor.wants:
            monitor.add(batches[k])
            taken.append(k)
        if (result := monitor.step()) is not None:
            found[k] = result
    monitor.close()
    assert taken == [1, 2, 9, 10, 19, 20, 29, 30] and list(found) == [2, 10, 20, 30]
    for k, result in found.items():
        assert result["effective_rank"] == pytest.approx(
            effective_rank(np.concatenate(batches[k - 1 : k + 1])), rel=1e-4
        )
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    evals = [row for row in rows if row["kind"] == "eval"]
    assert [(row["step"], row["n"], row["split"]) for row in evals] == [(k, 12, "train") for k in found]
    assert [row["kind"] for row in rows] == ["eval", "timing"] * 4 and monitor.seconds > 0
    assert monitor.results == found[30]


def test_the_report_reads_the_rows(rng, tmp_path):
    folder = tmp_path / "run"
    labels = np.arange(12) % 3
    for start in (0, 2):  # a training that was resumed
        with ij.Monitor(str(folder), every=1, capacity=12, measures=("effective_rank", "nc4")) as monitor:
            for k in (1, 2):
                z = rng.normal(size=(12, 5))
                monitor.add({"embedding": z, "layer1": z[:, :2]}, labels, head=rng.normal(size=(3, 5)))
                result = monitor.step(step=start + k)
    assert list(result) == ["effective_rank", "nc4", "effective_rank@layer1"]
    history = read_history(folder)
    assert history.values["step", "train", "effective_rank"][0].keys() == {1, 2, 3, 4}
    assert history.values["step", "train", "effective_rank@layer1"][0][4] == result["effective_rank@layer1"]
    assert history.config["num_classes"] == 3 and history.dims == {"layer1": 2} and history.sizes == {"train": 12}
    (folder / "config.json").write_text('{"task": "supervised"}')
    with pytest.raises(ValueError, match="holds a run that is none of a Monitor"):
        ij.Monitor(str(folder))


def test_rows_that_are_not_finite_are_left_out_and_told(rng):
    monitor = ij.Monitor(every=1, capacity=12, measures=CHEAP)
    z = rng.normal(size=(13, 4)).astype(np.float32)
    z[3, 1] = np.nan
    monitor.add(z)
    with pytest.warns(RuntimeWarning, match="step 1: 1 of 12 rows of the features hold nan or inf"):
        found = monitor.step()
    assert found["effective_rank"] == pytest.approx(effective_rank(z[[1, 2, *range(4, 13)]]), rel=1e-4)


def test_a_monitor_that_takes_too_long_says_so(rng, monkeypatch):
    monitor = ij.Monitor(every=1, capacity=12, measures=CHEAP)
    monkeypatch.setattr(infojax.monitor, "MOST_OVERHEAD", 0.01)
    monkeypatch.setattr(values, "measured", lambda *_: {"effective_rank": 1.0})
    clock = iter(np.arange(0, 1000, 1.0))
    monkeypatch.setattr("infojax.monitor.time.perf_counter", lambda: next(clock))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(6):
            monitor.add(rng.normal(size=(12, 4)))
            monitor.step()
    [line] = [str(one.message) for one in told]
    assert line.startswith("infojax.Monitor takes ") and "of the training's time; every=" in line


def test_rows_of_a_damaged_or_shared_folder(rng, tmp_path, monkeypatch):
    """A cut line costs no new row, a second writer and lost rows are reported, and a full disk ends no training."""
    (tmp_path / "metrics.jsonl").write_text('{"kind": "ev')
    first, second = (ij.Monitor(str(tmp_path), every=1, capacity=12, measures=CHEAP) for _ in range(2))

    def one(monitor):
        monitor.add(rng.normal(size=(12, 4)))
        return monitor.step()

    one(first)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert lines[0] == '{"kind": "ev' and json.loads(lines[1])["kind"] == "eval"
    one(second)
    with pytest.warns(RuntimeWarning, match="was written by somebody else too"):
        one(first)
    shutil.rmtree(tmp_path)
    with pytest.warns(RuntimeWarning, match="lost rows since the last one"):
        one(first)
    assert read_history(tmp_path).last == 3  # config.json is there again

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "config.json").unlink()
    monkeypatch.setattr(first._written.rows, "row", full)
    monkeypatch.setattr(writers.outputs, "write", full)
    monkeypatch.setitem(writers.WRITERS, "wandb", full)
    first._written.boards.names = ["wandb"]
    with pytest.warns(RuntimeWarning, match="cannot be written, and is lost: .*No space left") as told:
        assert one(first)["effective_rank"] > 1
    lost = [str(one.message).split(" cannot be written")[0].split(": ")[-1] for one in told]
    assert lost == ["the row", "the row", "config.json", "wandb"]


# Thresholds


@pytest.mark.parametrize(
    ("text", "value", "before", "holds"),
    [
        ("x < 0.5 * start", 4.9, [10, 3], True),
        ("x < 0.5 * start", 5.0, [10, 3], False),
        ("x<=.5*start", 5.0, [10, 3], True),
        ("x > last", 4, [10, 3], True),
        ("x >= 2e0 * least", 6, [10, 3], True),
        ("x > most", 10, [10, 3], False),
        ("x < -1.5", -2, [], True),
        ("x < start", 4, [], False),
        ("x > 1", float("nan"), [], True),
    ],
)
def test_thresholds(text, value, before, holds):
    line = rules.parse(text).broken({"x": value}, {"x": before})
    assert bool(line) == holds and (not holds or line.startswith(("x is nan", " ".join(text.split()))))


@pytest.mark.parametrize("text", ["x", "x < y", "x == 1", "x < 0.5 start", "< 1", "x < __import__('os')", "x < 2 * 3"])
def test_what_is_no_threshold(text):
    with pytest.raises(ValueError, match="is no threshold; expected NAME < VALUE"):
        rules.parse(text)


def test_thresholds_warn_and_stop_after_the_row_is_written(rng, tmp_path):
    monitor = ij.Monitor(
        str(tmp_path), every=1, capacity=12, measures=CHEAP,
        warn_if="effective_rank < 0.9 * start", stop_if=["effective_rank@deep < 0.5 * start"],
    )  # fmt: skip
    z = rng.normal(size=(12, 4))
    flat = z[:, :1] * np.ones(4)
    monitor.add({"embedding": z, "deep": z})
    monitor.step()
    monitor.add({"embedding": flat, "deep": z})
    with pytest.warns(RuntimeWarning, match=r"step 2: effective_rank < 0.9 \* start \(1(\.0\d*)? < 3"):
        monitor.step()
    monitor.add({"embedding": z, "deep": flat})
    with pytest.raises(ThresholdError, match=r"step 3: effective_rank@deep < 0.5 \* start \(1(\.0\d*)? < "):
        monitor.step()
    monitor.close()
    assert read_history(tmp_path).last == 3
    with pytest.raises(ValueError, match="mir is not measured; measured are effective_rank"):
        rules.parse("mir < 1").broken({"effective_rank": 1.0}, {})


def test_what_a_threshold_names_is_measured(monkeypatch):
    monkeypatch.setattr(values, "measured", lambda names, *_: dict.fromkeys(names, 1.0))
    monitor = ij.Monitor(every=1, capacity=4, warn_if="rankme < 0.5", stop_if="alpha_req_alpha@deep > 3 * most")
    assert monitor.measures == (*values.QUICK, "rankme", "alpha_req")
    monitor = ij.Monitor(every=1, capacity=4, warn_if="rankme < 0.5")
    monitor.add(np.eye(4))
    assert monitor.step()["rankme"] == 1


# Writers


def test_the_number_of_classes_does_not_fall(tmp_path):
    for labels in ([0, 4], [0, 1]):
        rows = writers.Rows(str(tmp_path))
        rows.settings(None, np.array(labels))
        rows.settings(None, np.array([0]))
        assert json.loads((tmp_path / "config.json").read_text())["num_classes"] == 5


def test_a_row_that_was_written_in_part_is_nobody_elses(tmp_path, monkeypatch):
    class FullDisk(io.FileIO):
        def write(self, line):
            super().write(line[:5])
            raise OSError(errno.ENOSPC, "No space left on device")

    rows = writers.Rows(str(tmp_path))
    assert rows.row("eval", 1) == ""
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(writers, "open", FullDisk, raising=False)
        rows.row("eval", 2)
    assert rows.row("eval", 3) == ""
    assert [json.loads(line)["step"] for line in rows.path.read_text().splitlines()[::2]] == [1, 3]


def test_boards(monkeypatch, tmp_path):
    logged = []
    run = types.SimpleNamespace(define_metric=lambda *a, **k: logged.append((a, k)), log=logged.append)
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(run=run))
    monkeypatch.setitem(sys.modules, "trackio", types.SimpleNamespace(log=logged.append))
    boards = writers.Boards(["wandb", "trackio"], None)
    assert not logged
    for name in ("wandb", "trackio"):
        boards.write(name, 7, {"mir": 0.5})
        boards.close(name)
    assert logged == [(("infojax/*",), {"step_metric": "infojax/step"}), *[{"infojax/step": 7, "infojax/mir": 0.5}] * 2]
    monkeypatch.delitem(sys.modules, "trackio")
    monkeypatch.setattr(writers, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match="writers: trackio needs trackio: pip install trackio"):
        ij.Monitor(writers="trackio")
    monkeypatch.undo()
    pytest.importorskip("tensorboardX")
    with ij.Monitor(str(tmp_path), every=1, capacity=4, measures=CHEAP, writers=["tensorboard"]) as monitor:
        monitor.add(np.eye(4))
        monitor.step()
    assert list((tmp_path / "tensorboard").iterdir())


# PyTorch


@pytest.fixture
def network():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer1 = torch.nn.Conv2d(1, 4, 3)
            self.layer2 = torch.nn.Conv2d(4, 5, 3)
            self.fc = torch.nn.Linear(5, 3)

        def forward(self, x, labels=None):
            return self.fc(self.layer2(self.layer1(x).relu()).mean((2, 3)))

    return Network()


def test_hooks_of_a_network(network, tmp_path):
    import torch

    with ij.Monitor(every=3, capacity=8, measures=("effective_rank", "nc4")) as monitor:
        monitor.watch(network, head="fc", layers="layer*")
        seen = []
        network.fc.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().numpy()))
        for k in range(1, 7):
            x, y = torch.randn(8, 1, 8, 8), torch.arange(8) % 3
            loss = torch.nn.functional.cross_entropy(network(x), y)
            loss.backward()
            found = monitor.step(labels=y)
            assert (found is not None) == (k in (1, 3, 6))
            with torch.no_grad():
                network.eval()
                network(x)  # an evaluation is not measured
                network.train()
            assert not monitor.pending
        assert list(found) == ["effective_rank", "nc4", "effective_rank@layer1", "effective_rank@layer2"]
        assert found["effective_rank"] == pytest.approx(effective_rank(seen[-2]), rel=1e-4)
        z, w, b = seen[-2].astype(float), *(p.detach().numpy().astype(float) for p in network.fc.parameters())
        means = np.stack([z[y.numpy() == c].mean(0) for c in range(3)])
        nearest = np.linalg.norm(z[:, None] - means, axis=2).argmin(1)
        assert found["nc4"] == pytest.approx(np.mean((z @ w.T + b).argmax(1) != nearest))
        assert found["effective_rank@layer2"] == pytest.approx(found["effective_rank"], rel=1e-4)  # pooled alike
    network(x)
    assert not monitor.pending and not monitor._handles
    assert all(not module._forward_hooks for module in network.modules())


def test_several_forward_passes_of_a_step(network):
    import torch

    monitor = ij.Monitor(every=1, capacity=12, measures=CHEAP).watch(network, head=network.fc, labels="labels")
    for _ in range(3):
        network(torch.randn(4, 1, 8, 8), labels=torch.arange(4) % 3)
    assert monitor.buffer.count == 12
    assert monitor.step()["effective_rank"] > 1
    monitor.close()
    monitor = ij.Monitor(every=1, capacity=12, measures=CHEAP).watch(network, head=network.fc)
    network(torch.randn(4, 1, 8, 8))
    network(torch.randn(4, 1, 8, 8))
    with pytest.raises(ValueError, match=r"labels has shape \(4,\), expected \(8,\).*add\(labels=y\) after each"):
        monitor.step(labels=torch.arange(4))


def test_gradient_checkpointing_is_measured_once(network):
    import torch.utils.checkpoint

    for reentrant in (False, True):
        monitor = ij.Monitor(every=1, capacity=12, measures=CHEAP).watch(network, head="fc", layers="layer2")
        calls = []
        handle = network.layer2.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        h = network.layer1(torch.randn(4, 1, 8, 8)).relu()
        h = torch.utils.checkpoint.checkpoint(lambda h: network.layer2(h).sigmoid(), h, use_reentrant=reentrant)
        network.fc(h.mean((2, 3))).sum().backward()
        handle.remove()
        monitor.close()
        assert len(calls) == 2 and {name: len(parts) for name, parts in monitor.pending.items()} == {"layer2": 1, "": 1}


def test_modules_that_there_are_not(network):
    import torch

    with pytest.raises(ValueError, match="'layer9' matches no module of the model; there are layer"):
        ij.Monitor().watch(network, layers="layer9")
    with pytest.raises(ValueError, match="pass head= or layers=; the linear layers are fc"):
        ij.Monitor().watch(network)
    with pytest.raises(ValueError, match="head is Conv2d; expected a linear layer"):
        ij.Monitor().watch(network, head="layer1")
    with pytest.raises(ValueError, match="head is a Linear that is no module of the model"):
        ij.Monitor().watch(network, head=torch.nn.Linear(3, 3))
    with pytest.raises(ValueError, match="forward has no argument 'label'; pass labels to step"):
        ij.Monitor().watch(network, head="fc", labels="label")
    with pytest.raises(ValueError, match="model is a dict; expected a torch.nn.Module"):
        ij.Monitor().watch({}, head="fc")


def wrapped(module):
    """A module in another that passes on what it gets, as DistributedDataParallel does."""
    import torch

    class Wrapper(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, *args, **kwargs):
            return self.module(*args, **kwargs)

    return Wrapper(module)


def test_names_of_wrapped_modules(network):
    import torch

    monitor = ij.Monitor(every=1, capacity=4, measures=CHEAP).watch(wrapped(network), head="fc")
    network(torch.randn(4, 1, 8, 8))
    labels = torch.tensor([0, -1, 2, 1])  # a negative label leaves its sample out
    assert list(monitor.pending) == [""] and monitor.step(labels=labels)["effective_rank"] <= 3


def test_arguments_by_position():
    torch = pytest.importorskip("torch")

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.fc = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 3)

        def forward(self, ids, attention_mask=None, labels=None):
            return self.fc(self.embed(ids))

    ids, mask, labels = torch.arange(8).view(4, 2), torch.tensor([[1, 0], [1, 1]] * 2), torch.tensor([0, 1, 2, 0])
    model = Model()
    rows = model.embed(ids).detach().numpy()
    for call in (model, wrapped(model)):
        monitor = ij.Monitor(every=1, capacity=4, measures=CHEAP).watch(call, head="fc", labels="labels")
        call(ids, mask, labels)
        monitor.close()
        layers, found = monitor.buffer.take()
        np.testing.assert_allclose(layers[""], np.where([[1], [0]] * 2, rows[:, 0], rows.mean(1)), rtol=1e-6)
        np.testing.assert_array_equal(found, labels)


def test_half_precision_of_torch_and_tensors_that_need_gradients():
    torch = pytest.importorskip("torch")
    z = torch.randn(4, 6, 3, requires_grad=True)
    for kind in (torch.bfloat16, torch.float16, torch.float64):
        found = buffer.to_host(z.to(kind), "", "mean")
        np.testing.assert_array_equal(found, z.to(kind).float().mean(1).detach().numpy())
    mask = torch.tensor([[1, 1, 0, 0, 0, 0]] * 4)
    last = buffer.to_host(z, "", "last", mask)
    np.testing.assert_array_equal(last, z[:, 1].detach().numpy())
    flat = torch.randn(4, 3)
    assert not np.shares_memory(buffer.to_host(flat, "", "mean"), flat.numpy())  # as ReLU(inplace=True) would change it
    maps = torch.randn(2, 5, 4, 4)
    np.testing.assert_array_equal(buffer.to_host(maps, "", "mean"), maps.mean((2, 3)).numpy())


def test_callbacks_of_trainers(network, monkeypatch):
    """As Hugging Face's and Lightning's loops call them, without these packages."""
    import torch

    monitor = ij.Monitor(every=2, capacity=4, measures=CHEAP)
    callback = monitor.trainer_callback(head="fc")
    state = types.SimpleNamespace(global_step=0)
    callback.on_init_end(None, state, None)
    callback.on_train_begin(None, state, None, model=network)
    for step in (1, 2):
        network(torch.randn(4, 1, 8, 8), labels=torch.arange(4) % 3)
        state.global_step = step
        callback.on_step_end(None, state, None)
    callback.on_train_end(None, state, None)
    assert monitor.now == 2 and len(monitor.history["effective_rank"]) == 2

    class Callback:
        state_key = "key"

    monkeypatch.setitem(sys.modules, "lightning.pytorch", types.SimpleNamespace(Callback=Callback))
    monitor = ij.Monitor(every=2, capacity=8, measures=CHEAP)
    callback = monitor.lightning_callback(head="fc")
    assert isinstance(callback, Callback)
    trainer = types.SimpleNamespace(global_step=0)
    callback.on_fit_start(trainer, network)
    for batch in range(4):  # two batches are accumulated in a step
        data = torch.randn(4, 1, 8, 8), torch.arange(4) % 3
        network(data[0])
        trainer.global_step = (batch + 1) // 2
        callback.on_train_batch_end(trainer, network, None, data, batch)
    callback.on_fit_end(trainer, network)
    assert monitor.now == 2 and len(monitor.history["effective_rank"]) == 2


class Ranks:
    """torch.distributed of two ranks, of which this process is `rank`, and the other has sent `other`."""

    def __init__(self, rank, other, sent=({"effective_rank": 0.25}, None)):
        self.rank, self.other, self.sent = rank, other, sent

    def is_available(self):
        return True

    is_initialized = is_available

    def get_world_size(self):
        return 2

    def get_rank(self):
        return self.rank

    def gather_object(self, mine, parts):
        if parts is not None:
            parts[:] = [mine, self.other]

    def all_gather_object(self, parts, mine):
        parts[:] = [mine, len(self.other[1])]

    def broadcast_object_list(self, box):
        if self.rank:
            box[:] = self.sent
        else:
            self.sent = list(box)


def test_several_ranks(rng, monkeypatch, tmp_path):
    a, b = rng.normal(size=(2, 6, 3)).astype(np.float32)
    found = {}
    for rank in (0, 1):
        ranks = types.SimpleNamespace(distributed=Ranks(rank, ({"": b}, np.arange(6))))
        monkeypatch.setitem(sys.modules, "torch", ranks)
        alone = ij.Monitor(str(tmp_path / f"alone{rank}"), every=1, capacity=6, measures=CHEAP)
        assert alone.wants == (rank == 0)  # the others copy nothing
        gathering = ij.Monitor(str(tmp_path / "all"), every=1, capacity=12, measures=CHEAP, gather=True)
        for monitor in (alone, gathering):
            monitor.add(a, np.arange(6))
            found[rank, monitor is gathering] = monitor.step()
    assert found[0, False]["effective_rank"] == pytest.approx(effective_rank(a), rel=1e-4)
    assert found[0, True]["effective_rank"] == pytest.approx(effective_rank(np.concatenate([a, b])), rel=1e-4)
    assert found[1, False] is None and found[1, True] == {"effective_rank": 0.25}  # what rank 0 sent
    assert not (tmp_path / "alone1").exists() and hooks.place() == (1, 2)


def test_ranks_with_batches_of_different_sizes(rng, monkeypatch):
    z = rng.normal(size=(12, 3)).astype(np.float32)
    for rank, mine in ((0, 2), (1, 10)):
        ranks = Ranks(rank, ({"": z[mine:]}, np.arange(12)[mine:]))
        monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(distributed=ranks))
        monitor = ij.Monitor(every=100, capacity=12, measures=CHEAP, gather=True)
        monitor.add(z[:mine], np.arange(mine))
        assert monitor.step() == {"effective_rank": pytest.approx(0.25 if rank else effective_rank(z), rel=1e-4)}


def test_what_rank_0_cannot_measure_ends_every_rank(monkeypatch):
    ranks = Ranks(0, ({"deep": np.eye(4)}, np.arange(4)))
    for error, said in (
        (ValueError, "the ranks have different layers"),
        (RuntimeError, "rank 0 could not .*different"),
    ):
        monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(distributed=ranks))
        monitor = ij.Monitor(every=1, capacity=8, measures=CHEAP, gather=True)
        monitor.add(np.eye(4), np.arange(4))
        with pytest.raises(error, match=said):
            monitor.step()
        ranks = Ranks(1, ranks.other, ranks.sent)


def test_importing_infojax_imports_no_framework():
    script = "import sys, infojax; infojax.Monitor; print({'torch', 'flax', 'lightning', 'wandb'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
