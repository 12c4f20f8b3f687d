"""A drill: processes that are killed (kill -9) at random moments while they work through short runs.

  PYTHONPATH=. python tests/killed.py --kills=100            # some minutes
  PYTHONPATH=. python tests/killed.py --kills=9 --life=200   # half an hour: does the memory of a process grow?

Each process runs the command of one run after another and is killed; the next one repeats the command in the same
folder. Every second one dies anywhere between its start and twice the mean life, for instance while it compiles, the
others soon after they have written a row: while they train, measure, or save in the background. Every run must end with
the rows and the bits of one that nobody killed. Lives are measured in CPU time, so that they get as far on a busy
machine. Programs are kept in a folder that is empty at first: writing them is cut off as well.
"""

import argparse
import json
import math
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

TINY = Path(__file__).parent / "multihost" / "tiny.py"
FLAGS = [
    f"--config={TINY}", "--config.devices=2", "--config.log.every=10", "--config.checkpoint.every=10",
    "--config.evaluate.points=2",
]  # fmt: skip
LOADED = ["infojax.main", "infojax.tasks.train", "infojax.tasks.listing", "orbax.checkpoint", "optax", "flax.linen"]
SOON = 1.0  # seconds of CPU time after a row
WARM = 60  # seconds of a life before its memory counts


def live(root: Path, flags: Sequence[str], limit: int | None) -> None:
    """Runs the command in one folder after another; for the whole life of a process."""
    with open(root / "said.txt", "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import jax

    from infojax.main import main

    os.environ["XDG_CACHE_HOME"] = str(root / "cache")
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_num_cpu_devices", 2)
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit << 20, limit << 20))
    born = time.time()
    for n in range(len(done(root)), 10**6):
        stream = ("never", "always")[n % 2]  # the same run, whether it is read from memory or step by step
        code = main([*FLAGS, *flags, f"--config.data.stream={stream}", f"--workdir={root / str(n)}"])
        with open(root / "done.jsonl", "a") as file:
            row = {"run": n, "code": code, "born": born, "age": time.time() - born, "mib": resident()}
            file.write(json.dumps(row) + "\n")
        if code or not multiprocessing.parent_process().is_alive():
            os._exit(code)


def spent(pid: int) -> float:
    """Seconds of CPU time of a process; inf if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return math.inf
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident() -> float:
    """MiB of this process that are in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def done(root: Path) -> list[dict]:
    """A row for each run that has ended."""
    path = root / "done.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [row for row in rows if row["code"] == 0]


def outcome(folder: Path) -> tuple[list, dict]:
    """(rows without what depends on the clock, checksum of each array of the last checkpoint)."""
    from infojax.train.runlog import read_rows

    rows = [{k: v for k, v in row.items() if k != "time"} for row in read_rows(folder) if row["kind"] != "timing"]
    last = max(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
    known = json.loads((folder / "checkpoints" / str(last) / "_CHECKPOINT_METADATA").read_text())["custom_metadata"]
    return rows, {"step": last} | known["sums"]


def growth(rows: list[dict]) -> float:
    """MiB per hour: least squares within each life, from `WARM` seconds on; nan if no life is that long."""
    ages, sizes = [], []
    for born in {row["born"] for row in rows}:
        life = [row for row in rows if row["born"] == born and row["age"] > WARM]
        if len(life) > 2:
            ages += list(np.array([row["age"] for row in life]) - np.mean([row["age"] for row in life]))
            sizes += list(np.array([row["mib"] for row in life]) - np.mean([row["mib"] for row in life]))
    return 3600 * float(np.dot(ages, sizes) / np.dot(ages, ages)) if ages else float("nan")


def wait(process: multiprocessing.Process, root: Path, age: float | None, soon: float) -> None:
    """Returns when a process has used `age` seconds of CPU time, or `soon` after its first new row; or has ended."""
    before = rows_written(root)
    while process.is_alive() and spent(process.pid) < (math.inf if age is None else age):
        process.join(0.01)
        if age is None and rows_written(root) > before:
            age = spent(process.pid) + soon


def rows_written(root: Path) -> int:
    """Bytes of rows, of all runs so far."""
    return sum(path.stat().st_size for path in root.glob("*/metrics.jsonl"))


def drill(
    root: Path, kills: int, life: float, seed: int = 0, limit: int | None = None, flags: Sequence[str] = ()
) -> dict:
    """Kills a number of processes and compares the runs; returns what happened.

    Args:
      life: mean seconds, of CPU time.
      limit: MiB of data that a process may have; one that ends because of it counts as killed.
      flags: more of the command.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)  # loaded once: each process begins as a copy without devices
    rng, expected, compared, begun = np.random.default_rng(seed), None, 0, time.time()
    for killed in range(kills + 1):
        process = context.Process(target=live, args=(root, flags, limit), daemon=True)
        process.start()
        if killed < kills:
            wait(process, root, rng.uniform(0, 2 * life) if killed % 2 else None, rng.uniform(0, SOON))
        else:  # the last one may finish a run, and one more that nobody killed
            target = len(done(root)) + 2
            while len(done(root)) < target and process.is_alive():
                process.join(0.1)
        said = (root / "said.txt").read_text() if (root / "said.txt").exists() else ""
        assert process.is_alive() or limit, said[-3000:]
        process.kill()
        process.join()
        finished = len(done(root))
        for n in range(compared, finished):  # with the first, and so with the last, which nobody killed
            expected = expected or outcome(root / "0")
            assert outcome(root / str(n)) == expected, f"{root / str(n)} differs from the first"
            shutil.rmtree(root / str(n))
        if finished > compared or killed == kills:
            took, slope = time.time() - begun, growth(done(root))
            print(f"{took:.0f} s: {killed} killed, {finished} runs alike, {slope:.1f} MiB/h", flush=True)
        compared = finished
    assert "Traceback" not in said, said[-3000:]
    return {
        "killed": kills, "runs": finished, "continued": said.count("continues from the checkpoint"),
        "damaged": said.count("is damaged"), "mib_per_hour": growth(done(root)),
        "mib": max(row["mib"] for row in done(root)), "rows": len(expected[0]), "seconds": time.time() - begun,
    }  # fmt: skip


if __name__ == "__main__":
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"  # semaphores of those that were killed
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--life", type=float, default=4.0, help="mean CPU seconds of a process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="MiB of data that a process may have")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(drill(Path(folder), given.kills, given.life, given.seed, given.limit))
