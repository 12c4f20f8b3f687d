"""Joining, sharing and ending; data and files in several processes."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from multihost.processes import ROOT, TIMEOUT, run, started
from multihost.shared import samples

import infojax as ij
from infojax import main, measure
from infojax.objectives import Seeds, View
from infojax.tasks.build import mesh_of
from infojax.tasks.config import ConfigError
from infojax.train.draw import indices


def test_every_process_reads_its_slice_of_the_order():
    found = run(*[[str(Path(__file__).parent / "fed.py")]] * 2)
    assert [code for code, _, _ in found] == [0, 0], found
    first, second = (json.loads(said.splitlines()[-1]) for _, said, _ in found)
    assert first["same"] and second["same"]  # to the bit
    for own, process in ((first, 0), (second, 1)):
        wholes = [indices(View("train", size=32), 0, Seeds(3, 4, 5), step, 1442) for step in range(5)]
        halves = [whole[16 * process : 16 * process + 16].tolist() for whole in wholes]
        assert sorted(own["taken"]) == sorted(halves * 2)  # two runs; threads read ahead


def test_measures_of_rows_that_processes_share():
    """Exact and estimated, the same in both, and those of one process."""
    found = run(*[[str(Path(__file__).parent / "shared.py")]] * 2)
    assert [code for code, _, _ in found] == [0, 0], found
    first, second = (json.loads(said.splitlines()[-1]) for _, said, _ in found)
    assert first == second
    z, labels, head = samples()
    exact = float(ij.interplay(z, labels, head).mir)
    assert first["squares"] == pytest.approx(float(ij.class_stats(z, labels, 20).squares.sum()), rel=1e-5)
    value, lower, upper = first["exact"]
    assert first["mir"] == pytest.approx(exact, rel=1e-4) and value == pytest.approx(exact, rel=1e-4)
    assert lower <= exact <= upper and upper - lower < 2e-3
    for key, truth in (("estimated", exact), ("entropy", float(ij.matrix_entropy(z)))):
        _, lower, upper = first[key]
        assert lower - 1e-5 <= truth <= upper + 1e-5 and upper - lower < 0.06, key


HEADLESS = ["--head", "none", "--bias", "none"]  # MIR and HDR are of the same moments


def features(path, rows=5003, bad=None):
    rng, labels = np.random.default_rng(0), np.arange(rows) % 5
    head = rng.normal(size=(5, 12))
    z = head[labels] + rng.normal(size=(rows, 12))
    if bad is not None:
        z[bad, 3] = np.nan
    np.savez(path, features=z, labels=labels, head=head, bias=np.ones(5))
    return str(path)


def test_measure_shares_the_rows(tmp_path):
    """More rows than are measured in one go; the JSON alone on the stdout of the first."""
    file = features(tmp_path / "f.npz")
    command = ["-m", "infojax.measure", file, "--json", "-", "--chunk", "1000", *HEADLESS]
    (first, said, _), (second, silent, _) = run(command, command)
    assert (first, second, silent) == (0, 0, "")
    assert measure.main([file, "--json", str(tmp_path / "one.json"), *HEADLESS]) == 0
    alone = json.loads((tmp_path / "one.json").read_text())[file]["features"]
    together = json.loads(said)[file]["features"]
    assert together["warnings"] == alone["warnings"] and together["measures"].keys() == alone["measures"].keys()
    for name, value in alone["measures"].items():
        assert together["measures"][name] == pytest.approx(value, rel=1e-10, abs=1e-12), name


def test_measure_names_a_bad_row_in_both(tmp_path):
    command = ["-m", "infojax.measure", features(tmp_path / "f.npz", bad=4000)]
    for code, said, err in run(command, command):
        assert (code, said) == (2, "") and "row 4000 holds nan" in err and err.count("\n") == 1


FLAGS = {
    "no cluster": (["--distributed"], "give --coordinator=HOST:PORT --num_processes=N --process_id=I"),
    "some of them": (["--distributed", "--coordinator=localhost:1", "--num_processes=2"], "give --process_id=I"),
    "no port": (["--distributed", "--coordinator=localhost"], "must be HOST:PORT"),
    "outside": (["--distributed", "--num_processes=2", "--process_id=2"], "--process_id 2 must be from 0 to below"),
    "not a number": (["--distributed", "--num_processes=many"], "invalid int value: 'many'"),
    "not distributed": (["--process_id=1"], "need --distributed"),
}


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("command", [main, measure])
def test_flags(name, command, capsys, monkeypatch):
    monkeypatch.setattr(jax._src.xla_bridge, "backends_are_initialized", lambda: False)
    flags, says = FLAGS[name]
    given = ["digits"] if command is measure else [f"--config={ROOT}/configs/smoke.py"]
    assert command.main([*given, *flags]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


@pytest.mark.parametrize("process", [0, 1])
def test_one_that_waits_in_vain(process):
    where = ["--coordinator=127.0.0.1:9", "--num_processes=2", f"--process_id={process}", "--timeout=2"]
    command = [sys.executable, "-m", "infojax.main", f"--config={ROOT}/configs/smoke.py", "--distributed", *where]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "127.0.0.1:9" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the process ends as JAX ends it")
@pytest.mark.parametrize("killed", [0, 1])
def test_one_that_is_killed_ends_the_others_in_one_line(killed):
    """Process 0 is where the others' connections end; another one is missed when its heartbeats are."""
    with started(*[[str(Path(__file__).parent / "waiting.py"), "--timeout=10"]] * 3, devices=1) as running:
        for process in running:
            assert process.stdout.readline() == "joined\n"
        running[killed].kill()
        for process in {*running} - {running[killed]}:
            assert process.wait(TIMEOUT) == 1
            assert process.stderr.read() == (
                "waiting: another process ended (killed, or its machine is gone); start all again, "
                "the same command continues\n"
            )


def test_sigterm_to_one_that_nobody_hears_ends_all_with_143():
    """As while they compile: JAX's own handler takes the signal, and Python's loop does not look for it."""
    with started(*[[str(Path(__file__).parent / "waiting.py"), "deaf"]] * 2, devices=1) as running:
        for process in running:
            assert process.stdout.readline() == "joined\n"
        running[1].send_signal(signal.SIGTERM)
        for process in running:
            assert process.wait(20) == 143
            assert process.stderr.read() == (
                "waiting: stopped by SIGTERM within a long computation; the same command continues from the last "
                "checkpoint\n"
            )


@pytest.mark.parametrize(
    ("flag", "size", "processes", "found"), [(0, 64, 2, 8), (0, 6, 2, 2), (0, 9, 2, None), (1, 64, 2, None)]
)
def test_devices_of_a_mesh_are_shared_evenly(flag, size, processes, found, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    monkeypatch.setattr("infojax.tasks.build.prepared.make_mesh", lambda count: count)
    study = type("Study", (), {"objective": type("Task", (), {"views": (View("train", size=size),)})})
    if found is None:
        with pytest.raises(ConfigError, match="2 processes cannot share 1 devices"):
            mesh_of(study, flag)
    else:
        assert mesh_of(study, flag) == found
