"""One run at a time in a run folder, whatever became of the one before."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infojax.train import lock as locks
from infojax.train.lock import InUseError, Lock, check_free
from infojax.train.runlog import RunFolder, RunFolderError

HOLD = """
import sys, time
from infojax.train import lock
lock.BEAT = 0.05
lock.Lock(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / ".lock")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_run_is_refused_and_a_killed_one_forgotten(tmp_path, holder):
    with pytest.raises(
        RunFolderError,
        match=f"in use: process {holder.pid} on {platform.node()} has used it since .*, last sign of life at .*; ",
    ):
        RunFolder(tmp_path, {"a": 1})
    assert not (tmp_path / "config.json").exists()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with RunFolder(tmp_path, {"a": 1}):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert (tmp_path / ".lock").read_text() == ""  # given up


def test_checking_the_lock_does_not_take_it(tmp_path, holder, capsys):
    """A second command is refused before it reads its data; one that only checks does not hinder others."""
    from infojax.main import main

    for _ in range(2):
        with pytest.raises(InUseError, match=f"process {holder.pid} on"):
            check_free(tmp_path / ".lock")
    config = Path(__file__).parents[2] / "configs/interplay.py"
    assert main([f"--config={config}:data=nosuch", f"--workdir={tmp_path}"]) == 2
    assert "in use: process" in capsys.readouterr().err
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    check_free(tmp_path / ".lock")
    check_free(tmp_path / "nowhere" / ".lock")
    assert not (tmp_path / "nowhere").exists()
    with RunFolder(tmp_path, {"a": 1}):
        pass


def test_one_that_has_not_written_its_name_yet_has_the_lock(tmp_path, holder):
    os.truncate(tmp_path / ".lock", 0)
    with pytest.raises(InUseError, match="process that has just begun"):
        Lock(tmp_path / ".lock")


def test_without_file_locks_a_killed_run_is_no_obstacle(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "BEAT", 0.02)
    (tmp_path / ".lock").write_text(json.dumps({"pid": os.getppid(), "host": platform.node(), "since": "yesterday"}))
    Lock(tmp_path / ".lock").release()


def test_without_file_locks_modification_times_decide(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "BEAT", 0.3)
    with pytest.raises(InUseError, match=f"process {holder.pid}"):
        Lock(tmp_path / ".lock")
    holder.kill()
    holder.wait()
    Lock(tmp_path / ".lock").release()


def test_a_run_of_another_host_is_alive_while_it_touches_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.02)
    path = tmp_path / ".lock"
    ours = Lock(path)
    here = platform.node()
    monkeypatch.setattr(platform, "node", lambda: "elsewhere")
    with pytest.raises(
        InUseError, match=f"process {os.getpid()} on {here}"
    ):  # a lock of one process is no obstacle here
        Lock(path)
    ours._stop.set()  # as if it had been killed there
    time.sleep(0.1)
    Lock(path).release()
    ours._file.close()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": 1}', "\x00\xff", "[" * 10_000])
def test_a_damaged_lock_does_not_count(tmp_path, content):
    (tmp_path / ".lock").write_text(content, encoding="latin-1")
    Lock(tmp_path / ".lock").release()
