"""What a run reports: its cost before it starts, its progress while it runs."""

import io
import json

import jax
import jax.numpy as jnp
import pytest

from infojax.objectives import View
from infojax.train.cost import Cost, duration, estimate
from infojax.train.progress import Progress
from infojax.train.runlog import RunFolder
from infojax.train.step import Step


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59, "59 s"), (90, "2 min"), (3 * 3600, "3.0 h"), (72 * 3600, "3 days")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_cost_of_a_run():
    cost = Cost(flops=2e9, seconds=0.5, compile_seconds=3.0)
    line = cost.line(1000, (View("train", size=64), View("unlabelled", size=448)), runs=3)
    assert "1,000 steps" in line and "1,536,000 images" in line
    assert "2e+09 FLOPs a step, 2e+12 in all" in line and "about 8 min" in line and "compiled in 3 s" in line


def test_estimate_counts_and_leaves_the_state_alone():
    def step(objective, state, constants, seeds, fed=None):
        return state @ constants, {"loss": jnp.sum(state)}

    state, constants = jnp.eye(64), jnp.ones((64, 64))
    cost = estimate(Step(step, None), (None, state, constants, jnp.zeros(1)))
    assert cost.flops == pytest.approx(2 * 64**3, rel=0.05) and cost.seconds > 0
    assert float(jnp.sum(state)) == 64  # not donated


def measured(split, accuracy, mir, run=None):
    values = {"evaluator": "classifier", "split": split, "accuracy": accuracy, "mir": mir, "limit_mir": 0.95}
    return values if run is None else values | {"run": run}


def test_lines_where_there_is_no_terminal(tmp_path):
    said, folder = io.StringIO(), RunFolder(tmp_path, {})
    progress = Progress(100, stream=said)
    with progress.shown(folder):
        progress(0, {"phase": "compiling, first step"})
        progress(10, {"loss": jnp.float32(0.25)})
        progress(10, {"phase": "classifier"})
        progress(10, measured("train", 0.5, 0.6))
        progress(10, measured("test", 0.25, 0.75))
        assert json.loads((tmp_path / "status.json").read_text())["state"] == "running"
    lines = said.getvalue().splitlines()
    assert lines[0] == "step 0 of 100: compiling, first step"
    assert lines[-1] == "step 10 of 100, loss 0.25, accuracy 50.0% / 25.0%, MIR 0.7500, +0.2000 to its limit"
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "finished"


def test_a_line_that_says_nothing_new_is_not_repeated(monkeypatch):
    monkeypatch.setattr("infojax.train.progress.LINE_SECONDS", -1.0)
    out = io.StringIO()
    progress = Progress(10, stream=out)
    for values in ({"loss": 1.0}, {"evaluator": "features", "split": "test"}, {"evaluator": "views"}):
        progress(4, values)
    progress(5, {"loss": 1.0})
    assert [line[:7] for line in out.getvalue().splitlines()] == ["step 4 ", "step 5 "]


def test_several_runs_are_shown_as_their_mean():
    progress = Progress(100, runs=2, stream=io.StringIO())
    for run, accuracy in enumerate((0.5, 1.0)):
        progress(10, measured("test", accuracy, 0.9, run))
    assert "accuracy 75.0%" in progress.line(10)


def test_a_stopped_run_is_not_finished(tmp_path):
    with pytest.raises(KeyboardInterrupt), Progress(100, stream=io.StringIO()).shown(RunFolder(tmp_path, {})):
        raise KeyboardInterrupt
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "stopped"


def test_a_terminal_gets_one_line(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    said = Terminal()
    progress = Progress(10, stream=said)
    with progress.shown():
        progress(5, {"loss": 0.125})
    assert "step 5 of 10" in said.getvalue() and "loss 0.125" in said.getvalue()
    assert jax.process_index() == 0


def test_evaluations_of_derived_networks_keep_the_heartbeat_but_are_not_shown(tmp_path):
    """A long evaluation keeps the heartbeat; the accuracy it reports for other networks is not the run's."""
    stream = io.StringIO()
    progress, folder = Progress(10, 2, stream), RunFolder(tmp_path, {})
    with progress.shown(folder):
        for run in (0, 1):
            progress(10, {"run": run, "evaluator": "classifier", "split": "test", "accuracy": 0.9})
        (tmp_path / "status.json").unlink()
        progress.beaten = -float("inf")
        progress(10, {"run": 0, "evaluator": "path", "split": "test", "weight": 0.5, "accuracy": 0.1})
        assert json.loads((tmp_path / "status.json").read_text())["step"] == 10
        assert "90.0%" in progress.line(10)


class Closed(io.StringIO):
    """A stream whose reader has gone."""

    def write(self, text):
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [Closed(), None])
def test_a_closed_terminal_is_no_reason_to_stop(stream, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stderr", stream)
    progress, folder = Progress(10), RunFolder(tmp_path, {})
    with progress.shown(folder):
        progress(0, {"phase": "compiling"})
        progress(10, {"loss": 1.0})
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "finished"


def test_the_status_does_not_hide_what_ended_the_run(monkeypatch, tmp_path):
    def full(self, **values):
        raise OSError("status")

    monkeypatch.setattr(RunFolder, "status", full)
    with pytest.raises(ZeroDivisionError), Progress(10, stream=io.StringIO()).shown(RunFolder(tmp_path, {})):
        raise ZeroDivisionError
    with pytest.raises(OSError, match="status"), Progress(10, stream=io.StringIO()).shown(RunFolder(tmp_path, {})):
        pass
