"""What ends a run early: which code, and what the line says."""

import errno

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from infojax.tasks.faults import SystemFailed, explain, underway
from infojax.train.checkpoint import CheckpointError, UnwrittenError
from infojax.train.keeper import NonFiniteError
from infojax.train.loop import Preempted

CONFIG = ConfigDict(
    dict(
        seeds=1, objective=dict(batch_size=64, term="hd", strength=3.0, temperature=0.01),
        optimizer=dict(lr=0.1, clip=0.0, weight_decay=5.0), evaluate=dict(batch_size=512), sweep=dict(name=""),
        model=dict(options=dict(widths=(9, 9))),
    )
)  # fmt: skip


def numpy_out_of_memory():
    try:
        np.empty((1 << 40, 1 << 18), np.float64)
    except MemoryError as error:
        return error


def device_out_of_memory(text):
    return jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: {text}")


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "interrupted; the same command continues"),
        (Preempted("stopped at step 3"), 143, "stopped at step 3; the same command continues"),
        (CheckpointError("x: does not fit"), 2, "x: does not fit"),
        (UnwrittenError("x: not written"), 1, "x: not written; once that is fixed, the same command continues"),
        (SystemFailed("x"), 1, "x"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a/b"), 2, "a/b: No such file"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left on device"),
    ],
)  # fmt: skip
def test_codes(error, code, says):
    assert explain(error, CONFIG) == (code, says)


def test_what_is_not_known_keeps_its_traceback():
    assert explain(RuntimeError("?")) is None and explain(SystemExit(1)) is None
    assert explain(jax.errors.JaxRuntimeError("INTERNAL: ?")) is None


@pytest.mark.parametrize(
    ("error", "size"),
    [
        (numpy_out_of_memory(), ": 2 EiB"),  # 2^61 bytes
        (device_out_of_memory("Out of memory while trying to allocate 37.25GiB."), ": 37.2 GiB"),
        (device_out_of_memory("Out of memory allocating 36000000000000 bytes."), ": 32.7 TiB"),  # 36e12 / 2^40
        (device_out_of_memory("Failed to allocate request for 9.5KiB (9728B) on device ordinal 0"), ": 9.5 KiB"),
        (device_out_of_memory("no more"), ""),
        (MemoryError(), ""),
    ],
)
def test_out_of_memory_says_how_much_and_which_keys(error, size):
    code, line = explain(error, CONFIG)
    assert code == 1 and line.startswith(f"out of memory{size}{' asked for at once' * bool(size)}; lower ")
    assert "objective.batch_size (64) or evaluate.batch_size (512) or model.options ({'widths': (9, 9)})" in line
    assert "seeds" not in line  # one cannot be lowered
    assert explain(MemoryError()) == (1, "out of memory")


def test_training_that_is_not_finite_names_the_keys():
    code, line = explain(NonFiniteError("step 3: loss is nan"), CONFIG)
    assert code == 3 and line.startswith(
        "step 3: loss is nan. Lower optimizer.lr (0.1) or objective.strength (3.0) or "
    )
    assert "optimizer.weight_decay (5.0), raise objective.temperature (0.01), " in line and "another --workdir" in line
    scaled = ConfigDict(dict(optimizer=dict(lr=0.1), data=dict(scale=1e-39)))
    line = explain(NonFiniteError("step 0: embedding of train became NaN or Inf"), scaled)[1]
    assert "optimizer.lr" not in line and line.endswith("the data or the network is to blame, see data.scale (1e-39)")
    calm = ConfigDict(dict(optimizer=dict(lr=0.1), objective=dict(term="off", strength=3.0, temperature=1.0)))
    assert "strength" not in (line := explain(NonFiniteError("x"), calm)[1]) and "temperature" not in line


def test_of_a_run_that_has_begun_the_system_is_to_blame(tmp_path):
    with pytest.raises(SystemFailed, match=f"workdir {tmp_path}: No space left"), underway(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(SystemFailed, match="metrics.jsonl: No such file"), underway(tmp_path):
        open(tmp_path / "metrics.jsonl")
