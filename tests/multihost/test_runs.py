"""Training in several processes: the numbers of one process, one writer, one end for all."""

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from multihost.processes import ROOT, TIMEOUT, finished, run, serving, started

from infojax.main import main
from infojax.train.runlog import read_rows

TINY = f"--config={Path(__file__).parent / 'tiny.py'}"
UNMEASURED = ["--config.evaluate.points=0"]  # measuring takes most of the time


def arguments(folder, *flags):
    return [TINY, *flags, f"--workdir={folder}"]


def command(folder, *flags):
    return ["-m", "infojax.main", *arguments(folder, *flags)]


def rows_of(folder):
    return [{k: v for k, v in row.items() if k != "time"} for row in read_rows(folder) if row["kind"] != "timing"]


def close(found, expected):
    """The same rows, up to what 200 steps make of sums in another order."""
    assert [place(row) for row in found] == [place(row) for row in expected]
    for mine, other in zip(found, expected, strict=True):
        assert mine.keys() == other.keys()
        for name in ("loss", "entropy_features", "mir", "hdr", "nc1", "cdnv"):
            if name in mine:
                np.testing.assert_allclose(mine[name], other[name], rtol=1e-3, err_msg=f"{name} of {place(mine)}")


def place(row):
    return row["kind"], row["step"], row.get("split")


def trained(rows):
    return [row for row in rows if row["kind"] == "train"]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A run of two processes with two devices each: its folder, and what they printed."""
    folder = tmp_path_factory.mktemp("two")
    return folder, run(*[command(folder, "--config.report.draw=True")] * 2)


@pytest.fixture(scope="module")
def pair():
    """Runs commands in two joined processes that stay."""
    with serving() as ask:
        yield ask


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The same in one process with four devices."""
    folder = tmp_path_factory.mktemp("one")
    assert main([TINY, "--config.devices=4", f"--workdir={folder}"]) == 0
    return folder


def test_one_process_writes_and_speaks(two):
    folder, ((first, said, _), (second, silent, errors)) = two
    assert (first, second, silent, errors) == (0, 0, "", "")
    assert "4 of 4 devices (cpu) in 2 processes" in said and "report.html" in said
    assert json.loads((folder / "env.json").read_text())["processes"] == 2
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    assert (folder / "report.html").exists() and len(list((folder / "figures").glob("*.png"))) > 1
    places = [place(row) for row in rows_of(folder)]
    assert len(set(places)) == len(places) and len(trained(rows_of(folder))) == 10


def test_two_processes_are_one(two, one, tmp_path):
    close(rows_of(two[0]), rows_of(one))
    assert main([TINY, *UNMEASURED, "--config.devices=1", f"--workdir={tmp_path}"]) == 0
    close(trained(rows_of(two[0])), rows_of(tmp_path))


def test_a_checkpoint_of_one_process_continues_in_two(one, pair, tmp_path):
    shutil.copytree(one, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "200")
    assert [code for code, _, _ in pair(*[arguments(tmp_path / "run", *UNMEASURED)] * 2)] == [0, 0]
    before, after = ([row for row in rows_of(folder) if row["step"] <= 150] for folder in (one, tmp_path / "run"))
    assert after == before
    close(trained(rows_of(tmp_path / "run")), trained(rows_of(one)))


def wait_for(path, text):
    deadline = time.monotonic() + TIMEOUT
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < deadline, f"no {text} in {path}"
        time.sleep(0.01)


def test_sigterm_to_one_stops_both_and_one_process_continues(two, tmp_path):
    with started(*[command(tmp_path, *UNMEASURED)] * 2) as running:
        wait_for(tmp_path / "config.json", "}")  # it arrives while they compile, and is heard within two seconds
        running[1].send_signal(signal.SIGTERM)
        found = finished(running)
    assert [code for code, _, _ in found] == [143, 143], found
    stopped = [err.splitlines()[-1] for _, _, err in found]
    assert "stopped at step" in stopped[0] and stopped[0] == stopped[1]
    step = int(stopped[0].split("stopped at step ")[1].split(";")[0])
    assert (tmp_path / "checkpoints" / str(step)).is_dir() and step < 200
    assert main([TINY, *UNMEASURED, "--config.devices=4", f"--workdir={tmp_path}"]) == 0
    close(rows_of(tmp_path), trained(rows_of(two[0])))


def test_kill_minus_nine_of_one_ends_the_other_and_both_continue(two, pair, tmp_path):
    with started(*[command(tmp_path, *UNMEASURED, "--timeout=15")] * 2) as running:
        wait_for(tmp_path / "metrics.jsonl", '"step": 60')
        running[1].kill()
        code, _, err = finished(running)[0]
    said = [line for line in err.splitlines() if not line.startswith("step ")]
    assert code == 1 and len(said) == 1 and "another process ended" in said[0], err
    assert [code for code, _, _ in pair(*[arguments(tmp_path, *UNMEASURED)] * 2)] == [0, 0]
    assert rows_of(tmp_path) == trained(rows_of(two[0]))  # to the bit: the topology is the same


BAD = {
    "a flag of one process": ([], ["--config.log.every=often"], "log.every"),
    "another config in one process": ([], ["--config.seed=1"], "seed is 0 in process 0, 1 in process 1"),
    "a folder of another run": (["--config.steps=7"], ["--config.steps=7"], "another run: steps was 200, is 7"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_all_in_one_line(name, two, pair, tmp_path):
    first, second, says = BAD[name]
    folder = tmp_path / "run"
    if "folder" in name:
        shutil.copytree(two[0], folder)
        before = (folder / "metrics.jsonl").read_bytes()
    for code, _, err in pair(arguments(folder, *first), arguments(folder, *second)):
        assert code == 2 and says in err and err.count("\n") == 1, err
    assert (folder / "metrics.jsonl").read_bytes() == before if "folder" in name else not folder.exists()


def test_training_that_leaves_the_finite_numbers_ends_all_with_three(pair, tmp_path):
    found = pair(*[arguments(tmp_path, *UNMEASURED, "--config.optimizer.lr=1e30")] * 2)
    assert [code for code, _, _ in found] == [3, 3], found
    assert all("step 20: loss is" in err for _, _, err in found)


def test_smoke(pair, tmp_path):
    smoke = [f"--config={ROOT}/configs/smoke.py", f"--workdir={tmp_path / 'run'}"]
    (first, said, err), (second, silent, _) = pair(smoke, smoke)
    assert (first, second, silent, err) == (0, 0, "", "")
    assert "2 processes, 4 devices" in said and said.count("  OK, ") == 4 and "all of it works" in said
    assert not (tmp_path / "run").exists()


LAYERS = [
    f"--config={ROOT}/configs/compression.py:tiny,model=mlp", "--config.model.options.widths=12",
    "--config.model.options.widths=8", "--config.model.options.norm=True", "--config.epochs=1",
    "--config.usable.layers=layer1", "--config.usable.sufficiency_every=0", "--config.usable.minimality_epochs=1",
    "--config.report.draw=False",
]  # fmt: skip


def measured_layers(folder):
    names = ("nc1", "equi_separation", "minimality")
    rows = [row for row in read_rows(folder) if row.get("evaluator") in ("layers", "usable")]
    places = [(row["step"], row["split"], row.get("layer")) for row in rows]
    return places, [row[name] for row in rows for name in names if name in row]


def test_two_processes_measure_layers_as_one(pair, tmp_path):
    both = [*LAYERS, f"--workdir={tmp_path / 'two'}"]
    (first, _, errors), (second, _, _) = pair(both, both)
    assert (first, second) == (0, 0), errors
    assert main([*LAYERS, "--config.devices=4", f"--workdir={tmp_path / 'one'}"]) == 0
    (places, found), (expected_places, expected) = (measured_layers(tmp_path / name) for name in ("two", "one"))
    assert places == expected_places and len(found) == 16
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-3)  # bits of decoders that five steps trained
