"""SIGTERM wherever it comes, and the command in a thread of another program."""

import contextlib
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from infojax.main import main
from infojax.train.runlog import read_rows

ROOT = Path(__file__).parents[1]
TINY = f"--config={ROOT}/tests/multihost/tiny.py"


@contextlib.contextmanager
def started(*arguments):
    """Python with these arguments; its stdout and stderr are one."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([sys.executable, "-u", *arguments], cwd=ROOT, **pipes) as running:
        yield running
        running.kill()


def stopped(running):
    """(exit code, what the command printed) after SIGTERM."""
    running.send_signal(signal.SIGTERM)
    said = [line.rstrip() for line in running.stdout if line.startswith("infojax.main")]
    return running.wait(), said


def test_decoders_that_train_are_left(tmp_path):
    """They would train for hours."""
    flags = [
        f"--config={ROOT}/configs/compression.py:tiny,model=mlp", "--config.model.options.widths=8",
        "--config.model.options.widths=8", "--config.epochs=1", "--config.usable.layers=layer1",
        "--config.usable.sufficiency_every=0", "--config.usable.minimality_epochs=100000",
        "--config.usable.rest_loss=0.0", "--config.devices=1", f"--workdir={tmp_path}",
    ]  # fmt: skip
    with started("-m", "infojax.main", *flags) as running:
        while (
            "layers" not in (tmp_path / "metrics.jsonl").read_text() if (tmp_path / "metrics.jsonl").exists() else True
        ):
            assert running.poll() is None, running.stdout.read()
            time.sleep(0.05)
        code, said = stopped(running)
    assert (code, len(said)) == (143, 1) and "stopped while step 0 was measured" in said[0], said


BUSY = """
import hashlib, signal, sys, time
from infojax import main, processes

def busy(size):  # in C, as a compilation is: no handler is called before its end
    hashlib.pbkdf2_hmac("sha256", b"", b"", size)

def saves(*_):
    processes.heard.set()
    busy(4 * 10**6)
    sys.exit(7)

main.GRACE = 0.5
signal.signal(signal.SIGTERM, HANDLER)
main._watch()
print("busy")
busy(10**9)
"""


def test_what_cannot_hear_is_ended():
    with started("-c", BUSY.replace("HANDLER", "lambda *_: busy(10**9)")) as running:
        assert running.stdout.readline() == "busy\n"
        code, said = stopped(running)
    assert (code, len(said)) == (143, 1) and "stopped by SIGTERM within a long computation" in said[0]


def test_what_heard_has_the_time_it_needs():
    """Saving takes as long as it takes."""
    with started("-c", BUSY.replace("HANDLER", "saves").replace("busy(10**9)", "time.sleep(60)")) as running:
        assert running.stdout.readline() == "busy\n"
        assert stopped(running) == (7, [])


@pytest.mark.parametrize("times", [2])
def test_the_command_in_a_thread(times, tmp_path, capsys):
    """As Ray's workers call it: arguments in, exit code out, again and again; the handlers of the program stay."""
    flags = [TINY, "--config.steps=20", "--config.evaluate.points=0", "--config.log.every=10", "--config.devices=1"]
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    codes = []

    def worker():
        codes.extend(main([*flags, f"--workdir={tmp_path / 'run'}"]) for _ in range(times))
        codes.append(main([*flags, "--config.optimizer.lr=0.5", f"--workdir={tmp_path / 'run'}"]))

    thread = threading.Thread(target=worker)
    thread.start()
    thread.join()
    assert codes == [0] * times + [2] and "optimizer.lr was 0.02, is 0.5" in capsys.readouterr().err
    assert [row["step"] for row in read_rows(tmp_path / "run") if row["kind"] == "train"] == [10, 20]
    assert handlers == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
