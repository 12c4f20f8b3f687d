"""A drill: processes that are stopped at random moments, by kill -9 or SIGTERM, while they work through short runs.

  PYTHONPATH=. python tests/killed.py --kills=100                           # some minutes
  PYTHONPATH=. python tests/killed.py --minutes=30 --life=60 --limit=1000   # a soak: does the memory of a process grow?

Each process runs the command of one run after another and is stopped, every third one by SIGTERM; the next one repeats
the command in the same folder. Every second one ends anywhere between its start and twice the mean life, for instance
while it compiles, the others soon after they have written a row: while they train, measure, or save in the background.
Every run must end with the rows and the bits of one that nobody stopped. Lives are measured in CPU time, so that they
get as far on a busy machine. Programs are kept in a folder that is empty at first: writing them is cut off as well.
"""

import argparse
import json
import math
import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

TINY = Path(__file__).parent / "multihost" / "tiny.py"
FLAGS = [
    f"--config={TINY}", "--config.devices=2", "--config.log.every=10", "--config.checkpoint.every=10",
    "--config.evaluate.points=2",
]  # fmt: skip
LOADED = ["infojax.main", "infojax.tasks.train", "infojax.tasks.listing", "orbax.checkpoint", "optax", "flax.linen"]
SOON = 1.0  # seconds of CPU time after a row
WARM = 2  # runs of a process before its memory counts: one of each kind of reading
SPREAD = 1.4  # largest limit of memory over the smallest
TERMS = 3  # every third process is stopped by SIGTERM
PATIENCE = 300  # seconds for that, on a busy machine


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


def growth(rows: list[dict]) -> tuple[float, float]:
    """MiB that a process grows by per run, and the half width of its 95% interval; nan where no process lived so long.

    Least squares within the processes, without the first `WARM` runs of each; the interval takes them as the
    independent units (the sandwich estimate by clusters, Student's t), since sizes within one are correlated.
    """
    xs, ys = [], []
    for born in dict.fromkeys(row["born"] for row in rows):
        sizes = np.array([row["mib"] for row in rows if row["born"] == born][WARM:])
        if len(sizes) > 1:
            xs.append(np.arange(len(sizes)) - (len(sizes) - 1) / 2)
            ys.append(sizes - sizes.mean())
    if len(xs) < 2:
        return math.nan, math.nan
    square = sum(x @ x for x in xs)
    slope = sum(x @ y for x, y in zip(xs, ys, strict=True)) / square
    scores = sum((x @ (y - slope * x)) ** 2 for x, y in zip(xs, ys, strict=True))
    error = math.sqrt(scores * len(xs) / (len(xs) - 1)) / square
    return float(slope), float(stats.t.ppf(0.975, len(xs) - 1) * error)


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


def stop(process: multiprocessing.Process, sent: signal.Signals) -> float:
    """Sends a signal; returns the seconds of CPU time that the process still used."""
    before = used = spent(process.pid)
    os.kill(process.pid, sent)
    deadline = time.time() + PATIENCE
    while process.is_alive() and time.time() < deadline:
        used = max(used, now if (now := spent(process.pid)) < math.inf else 0)
        process.join(0.1)
    assert not process.is_alive(), f"{sent.name} was not obeyed within {PATIENCE} s"
    return used - before


def drill(
    root: Path,
    kills: int,
    life: float,
    seed: int = 0,
    limit: int | None = None,
    flags: Sequence[str] = (),
    minutes: float = math.inf,
) -> dict:
    """Stops a number of processes and compares the runs; returns what happened.

    Args:
      life: mean seconds, of CPU time.
      limit: MiB of data that a process may have, at most `SPREAD` times as much: drawn for each, so that some run out
        of memory in the middle of a run.
      flags: more of the command.
      minutes: after which no process is stopped any more.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)  # loaded once: each process begins as a copy without devices
    rng, expected, compared, begun = np.random.default_rng(seed), None, 0, time.time()
    by, last, obeyed = {"SIGKILL": 0, "SIGTERM": 0, "out_of_memory": 0}, False, 0.0
    while not last:
        stopped = sum(by.values())
        last = stopped == kills or time.time() - begun > 60 * minutes
        allowed = int(limit * rng.uniform(1, SPREAD)) if limit and not last else None
        process = context.Process(target=live, args=(root, flags, allowed), daemon=True)
        process.start()
        if not last:
            wait(process, root, rng.uniform(0, 2 * life) if stopped % 2 else None, rng.uniform(0, SOON))
        else:  # the last one may finish a run, and one more that nobody stopped
            target = len(done(root)) + 2
            while len(done(root)) < target and process.is_alive():
                process.join(0.1)
        said = (root / "said.txt").read_text() if (root / "said.txt").exists() else ""
        assert process.is_alive() or limit, said[-3000:]
        if process.is_alive():
            sent = signal.SIGTERM if stopped % TERMS == TERMS - 1 and not last else signal.SIGKILL
            took = stop(process, sent)
            obeyed = max(obeyed, took if sent == signal.SIGTERM else 0.0)
            by[sent.name] += not last
        else:
            by["out_of_memory"] += 1
        finished = len(done(root))
        for n in range(compared, finished):  # with the first, and so with the last, which nobody stopped
            expected = expected or outcome(root / "0")
            assert outcome(root / str(n)) == expected, f"{root / str(n)} differs from the first"
            shutil.rmtree(root / str(n))
        if finished > compared or last:
            slope, half = growth(done(root))
            took, ended = time.time() - begun, ", ".join(f"{count} {name}" for name, count in by.items())
            print(f"{took:.0f} s: {ended}, {finished} runs alike, {slope:.2f} ± {half:.2f} MiB a run", flush=True)
        compared = finished
    assert "Traceback" not in said, said[-3000:]
    slope, half = growth(done(root))
    return {
        **by, "runs": finished, "continued": said.count("continues from the checkpoint"),
        "damaged": said.count("is damaged"), "rows": len(expected[0]), "seconds": time.time() - begun,
        "mib": max(row["mib"] for row in done(root)), "mib_a_run": slope, "half_width": half, "term_cpu_s": obeyed,
    }  # fmt: skip


if __name__ == "__main__":
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"  # semaphores of those that were killed
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, help="processes to stop; 20 by default, or as many as the minutes allow")
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--life", type=float, default=4.0, help="mean CPU seconds of a process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="MiB of data that a process may have")
    parser.add_argument("--out", help="folder for the log of the runs; a temporary one by default")
    given = parser.parse_args()
    stops = given.kills or (20 if given.minutes == math.inf else 10**9)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.out or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(drill(folder, stops, given.life, given.seed, given.limit, minutes=given.minutes))
