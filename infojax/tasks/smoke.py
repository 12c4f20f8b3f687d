"""A check of the machine: a sum, spectra, a training step and a checkpoint over all devices of all processes."""

import hashlib
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from ml_collections import ConfigDict

from infojax.measures.spectra import eigenvalues
from infojax.parallel import from_local_rows, local_copy, local_rows, make_mesh, map_matrices
from infojax.processes import same, share, together
from infojax.tasks.build import classification, prepare
from infojax.tasks.build.study import Study
from infojax.tasks.config import buildable
from infojax.tasks.faults import SystemFailed
from infojax.tasks.train import say_once
from infojax.train.checkpoint import Checkpoints


class SmokeError(SystemFailed):
    """A part failed; the message is one line."""


def run(config: Any, workdir: Path, dry_run: bool = False) -> None:
    """Lists processes and devices, tries each part, and says how long it took.

    Raises:
      SmokeError: a part failed, in any process.
    """
    begun = time.perf_counter()
    for line in machine():
        say_once(line)
    if dry_run:
        return
    batch = config.samples_per_device * jax.device_count()
    config = ConfigDict(config)
    config.objective.batch_size = config.data.options.num_train = batch
    with buildable("data, model and objective"):
        study = classification(config)
    mesh = make_mesh()
    with part(f"sum over {mesh.size} devices"):
        total_of_devices(mesh)
    with part(f"{config.matrices * mesh.size} spectra of {config.size} x {config.size}, {config.matrices} per device"):
        spectra(config.matrices * mesh.size, config.size, mesh)
    with part(f"training step of {batch} samples"):
        state, like = step(study, config)
    with part(f"checkpoint in {workdir}"):
        checkpoint(state, like, Path(workdir))
    say_once(f"all of it works; {time.perf_counter() - begun:.1f} s")


def machine() -> Iterator[str]:
    """Lines on the processes, their devices and where these are."""
    device, local = jax.devices()[0], jax.local_device_count()
    kind = f"{device.device_kind} ({device.platform})"
    yield f"jax {jax.__version__}: {jax.process_count()} processes, {jax.device_count()} devices: {kind}"
    coords = [[int(c) for c in found.coords] for found in jax.local_devices() if hasattr(found, "coords")]
    place = share([jax.process_index(), local, coords])
    for process, count, coords in place:
        yield f"  process {process}: {count} devices" + (f" at {coords[0]} to {coords[-1]}" if coords else "")
    everywhere = np.array([c for _, _, coords in place for c in coords])
    if everywhere.size:
        yield f"  topology {'x'.join(str(n) for n in np.ptp(everywhere, axis=0) + 1)}"


@contextmanager
def part(name: str) -> Iterator[None]:
    """One part: prints its name before it begins, so that one that hangs can be seen, and its time at the end."""
    say_once(f"{name} ...")
    begun = time.perf_counter()
    try:
        with together():
            yield
    except Exception as error:
        raise SmokeError(f"{name} failed: {error if str(error) else type(error).__name__}") from error
    say_once(f"  OK, {time.perf_counter() - begun:.2f} s")


def check(holds: Any, what: str) -> None:
    """Raises SmokeError with `what` was found, unless `holds`."""
    if not holds:
        raise SmokeError(what)


def total_of_devices(mesh: Mesh) -> Any:
    """1 + 2 + ... + n, one number per device."""
    numbers = from_local_rows(local_rows(mesh.size, mesh).astype(np.float32) + 1, mesh)
    total = jax.shard_map(
        lambda x: jax.lax.psum(x[0], "data"), mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec()
    )
    found, expected = float(jax.jit(total)(numbers)), mesh.size * (mesh.size + 1) / 2
    check(found == expected, f"the sum is {found}, expected {expected}")


def spectra(count: int, size: int, mesh: Mesh) -> Any:
    """Eigenvalues of matrices that have known ones: Q diag(1, ..., size) Q^T / size, times the number of the matrix."""
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))[0]
    expected = np.arange(1, size + 1) / size
    matrix = (basis * expected) @ basis.T
    mine = local_rows(count, mesh) + 1
    matrices = from_local_rows((mine[:, None, None] * matrix).astype(np.float32), mesh)
    found = (
        np.asarray(local_copy(jax.jit(map_matrices(eigenvalues, mesh))(matrices))) / np.arange(1, count + 1)[:, None]
    )
    worst = np.max(np.abs(np.sort(found) - expected))
    check(worst < 1e-4, f"eigenvalues are wrong by {worst:.2g}")


def step(study: Study, config: Any) -> tuple[Any, Any]:
    """(state after one training step, state before), checked to be finite, changed and equal in every process."""
    run = prepare(study, config)
    before = jax.tree.map(jnp.copy, run.state)
    state, metrics = run.step.compiled()(*run.arguments)
    loss = float(metrics["loss"])
    check(np.isfinite(loss), f"the loss is {loss}")
    check(int(state.step) == 1 and fingerprint(state) != fingerprint(before), "the update changed nothing")
    same(parameters=fingerprint(state))
    return state, before


def checkpoint(state: Any, like: Any, workdir: Path) -> None:
    """Writes a checkpoint, reads it back and compares all bits."""
    folder, made = workdir / ".smoke", not workdir.exists()
    with together():
        check(not folder.exists(), f"{folder} exists: remove it; this run did not make it")
    try:
        store = Checkpoints(folder)
        store.save(1, state)
        store.close()
        found = Checkpoints(folder).restore(like)
        check(found is not None, "nothing was found where it was written: every process must see the same workdir")
        same = fingerprint(found[1]) == fingerprint(state)  # type: ignore[index]  # `check` has raised on None
        check(same, "what was read is not what was written")
    finally:
        with together():
            if jax.process_index() == 0:
                shutil.rmtree(workdir if made else folder, ignore_errors=True)


def fingerprint(tree: Any) -> str:
    """Hash of all bits of all leaves."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(local_copy(tree)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]
