"""Real processes on loopback, for tests: started together, waited for together, killed if they hang."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMEOUT = 120  # seconds that a group of processes may take
# "[Gloo] Rank 0 is connected to 3 peer ranks. Expected ...": threads write the pieces of it between each other's.
GLOO = re.compile(r"(\[Gloo\] Rank |\d+| is connected to | peer ranks\. |Expected number of [a-z ]+: |\n)+")


@contextlib.contextmanager
def started(*commands, devices=2):
    """Processes of `python ARGUMENTS ... --distributed ...`, with a given number of CPU devices each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "PYTHONPATH": paths}
    running = []
    try:
        for process, command in enumerate(commands):
            flags = [f"--coordinator={address}", f"--num_processes={len(commands)}", f"--process_id={process}"]
            running.append(
                subprocess.Popen(
                    [sys.executable, *command, "--distributed", *flags],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env=env,
                    cwd=ROOT,
                )  # fmt: skip
            )
        yield running
    finally:
        for process in running:
            process.kill()
            process.communicate()


def finished(running):
    """[(exit code, stdout, stderr), ...]; what JAX's collectives say on stderr is left out."""
    found = []
    for process in running:
        out, err = process.communicate(timeout=TIMEOUT)
        lines = [line for line in err.splitlines(keepends=True) if not GLOO.fullmatch(line)]
        found.append((process.returncode, out, "".join(lines)))
    return found


def run(*commands, devices=2):
    with started(*commands, devices=devices) as running:
        return finished(running)


@contextlib.contextmanager
def serving(count=2):
    """A function of the arguments of a command for each of some joined processes -> [(exit code, stdout, stderr), ...].

    They are started once; see `serving.py`.
    """
    with started(*[[str(Path(__file__).parent / "serving.py")]] * count) as running:

        def ask(*commands):
            for process, command in zip(running, commands, strict=True):
                process.stdin.write(json.dumps([str(word) for word in command]) + "\n")
                process.stdin.flush()
            return [tuple(json.loads(answer(process))) for process in running]

        yield ask


def answer(process):
    """The line that a process prints next."""
    found = []
    reader = threading.Thread(target=lambda: found.append(process.stdout.readline()), daemon=True)
    reader.start()
    reader.join(TIMEOUT)
    assert found and found[0], f"no answer within {TIMEOUT} s, or the process ended"
    return found[0]
