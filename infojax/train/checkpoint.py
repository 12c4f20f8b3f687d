"""Checkpoints of a `State`. The only module that uses orbax."""

import itertools
import json
import math
import os
import warnings
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np

from infojax.processes import same, share, together

LARGEST_STEP = 2**53
PASSING = ("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED")  # may pass


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or does not fit; the message is one line."""


class UnwrittenError(CheckpointError):
    """The system could not write a checkpoint: the disk is full, or the folder was removed."""


class Checkpoints:
    """The checkpoints of a run: each is written whole or not at all, in the background. Every process makes each call.

    Args:
      folder: created if missing; every process must see it.
      keep: number of recent checkpoints kept.
      best: name of a measurement such as "test accuracy"; the checkpoint with its largest value is kept too.
      read_only: nothing in the folder is made, renamed or removed: it belongs to a run that may still be writing to it.
    """

    def __init__(self, folder: str | Path, keep: int = 2, best: str | None = None, *, read_only: bool = False) -> None:
        import orbax.checkpoint as ocp
        from orbax.checkpoint import checkpoint_managers as policies

        self._ocp, self.folder, self._read_only = ocp, Path(folder).absolute(), read_only
        self._newest: int | None = None  # the last saved step
        if os.path.lexists(self.folder) and not self.folder.is_dir():
            raise CheckpointError(f"{self.folder} is no folder; remove it, or choose another workdir")
        preserved = [policies.LatestN(keep)]
        if best:
            preserved.append(policies.BestN(get_metric_fn=lambda found: (found or {}).get(best, -math.inf), n=1))
        of_run = {
            "save_decision_policy": policies.FixedIntervalPolicy(1),  # the caller of `save` decides
            "preservation_policy": policies.AnyPreservationPolicy(preserved),
        }
        of_reader = {"read_only": True, "create": False, "save_interval_steps": 0}
        options = ocp.CheckpointManagerOptions(**(of_reader if read_only else of_run))
        self._manager = ocp.CheckpointManager(
            self.folder, options=options, item_handlers=ocp.StandardCheckpointHandler()
        )

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, ascending."""
        found = sorted(self._manager.all_steps())
        if found and found[-1] > LARGEST_STEP:
            raise CheckpointError(f"{self.folder / str(found[-1])[:40]}: no step of a run; remove it")
        return found

    def save(
        self, step: int, state: Any, metrics: Mapping[str, float] | None = None, facts: Mapping[str, Any] | None = None
    ) -> None:
        """Writes the state of a step; returns before it is on disk, and its arrays may be donated right away.

        Args:
          metrics: values by which the best checkpoint is chosen; facts: further plain values, returned by `facts`.
        Raises:
          UnwrittenError: this checkpoint or the last could not be written, as on a full disk; earlier ones are intact.
        """
        try:
            known = {"sums": sums(state), "facts": facts or {}, "step": int(step)}
            known["sum"] = _sum_of(known)
            self._manager.wait_until_finished()  # as `save` would
            newest = None if self._newest is None else self.folder / str(self._newest)
            if newest and self.folder.parent.is_dir() and not newest.is_dir():
                warnings.warn(f"{newest} was removed by somebody; the run goes on", stacklevel=2)
            args = self._ocp.args.StandardSave(state)
            self._manager.save(step, args=args, metrics=metrics, custom_metadata=known)
            self._newest = int(step)
        except (OSError, ValueError) as error:
            raise self._failed(step, error) from None

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
          UnwrittenError: as for `save`.
        """
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise self._failed("newest", error) from None

    def close(self) -> None:
        """Waits for the writes in progress and stops the writer; raises as `wait`."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        """Closes, unless a collective broke because another process died: what is being saved then stays partial."""
        if jax.process_count() > 1 and kind and issubclass(kind, jax.errors.JaxRuntimeError):
            return
        with suppress(*[Exception] * bool(kind)):  # report what ended the run
            self.close()

    def _failed(self, step, error):
        if not self.folder.is_dir():
            return UnwrittenError(f"{self.folder}: checkpoint {step} was not written, the folder is gone")
        return UnwrittenError(f"{self.folder}: checkpoint {step} was not written ({_line(error)}); earlier ones stay")

    def facts(self, step: int) -> dict[str, Any]:
        """The facts given to `save` at a step; {} for a checkpoint from before they were stored."""
        return self._known(step).get("facts", {})

    def _known(self, step):
        """What `save` wrote along with the state; {} for a checkpoint from before it did.

        Raises:
          ValueError: it is damaged, or belongs to another step.
        """
        if not (self.folder / str(step) / "default").is_dir():
            raise ValueError("its data are missing")
        json.loads((self.folder / str(step) / "_CHECKPOINT_METADATA").read_text())  # orbax ignores a damaged one
        known = dict(getattr(self._manager.metadata(step), "custom_metadata", None) or {})
        if known and known.pop("sum", None) != _sum_of(known):
            raise ValueError("its checksums are damaged")
        if known.get("step", step) != step:
            raise ValueError(f"it is of step {known['step']}")
        return known

    def restore(self, like: Any) -> tuple[int, Any] | None:
        """(step, state) of the newest readable checkpoint, or None if there is none.

        A checkpoint that cannot be read is skipped with a warning and, unless the folder is read-only, moved aside.

        Args:
          like: a State whose leaves have the shapes, types and shardings to restore to.
        Raises:
          CheckpointError: leaves differ in shape or type; or none of several can be read. ProcessError: processes see
            different checkpoints.
        """
        abstract = jax.tree.map(_abstract, like)
        same(checkpoints=[int(step) for step in self.steps()])
        for step in reversed(self.steps()):
            read: list[Any] = []
            damage = self._damage(step, lambda step=step: self._same(step, abstract))  # before a collective
            damage = damage or self._damage(step, lambda step=step, read=read: read.append(self._read(step, abstract)))
            if damage is None:
                return step, read[0]
            if self._read_only and not (self.folder / str(step)).exists():  # its run has moved on
                self._manager.reload()
                return self.restore(like)
            _warn(f"{self.folder}: checkpoint {step} is damaged, skipped ({damage})")
            if self._read_only:
                continue
            with together():
                if jax.process_index() == 0:
                    names = (f"damaged.{step}{f'.{n}' * (n > 0)}" for n in itertools.count())
                    free = next(name for name in names if not (self.folder / name).exists())
                    (self.folder / str(step)).rename(self.folder / free)
            self._manager.reload()
        if self.steps() or any(self.folder.glob("damaged.*")):
            raise CheckpointError(f"{self.folder}: no checkpoint can be read; choose another workdir")
        return None

    def _damage(self, step, look):
        """What is wrong with the data that `look` reads, in any process; None if they are good.

        Raises:
          CheckpointError: they cannot be read now but may be intact, and readable later or elsewhere.
        """
        found = None
        with together():
            try:
                look()
            except (CheckpointError, MemoryError, jax.errors.JaxRuntimeError):
                raise
            except Exception as error:  # whatever a damaged file makes orbax raise
                found = _line(error)
                if isinstance(_cause(error), PermissionError) or found.startswith(PASSING):
                    raise CheckpointError(f"{self.folder}: checkpoint {step} cannot be read ({found})") from None
                if isinstance(_cause(error), KeyError | json.JSONDecodeError | FileNotFoundError):
                    found = "its metadata is damaged"
                elif found.startswith("NOT_FOUND"):  # TensorStore appends its whole specification
                    found = "a part of its data is missing"
        return next(filter(None, share(found)), None)

    def _read(self, step, abstract):
        state = self._manager.restore(step, args=self._ocp.args.StandardRestore(abstract))
        self._verify(step, state)
        return state

    def _verify(self, step, state):
        """Compares the checksums: compression detects only some of the flipped bits."""
        stored, found = self._known(step).get("sums"), sums(state)
        if stored is None:
            _warn(
                f"{self.folder}: checkpoint {step} has no checksums; its data and the rows before it are not verified"
            )
            return
        if wrong := [place for place in found if stored.get(place) != found[place]]:
            raise ValueError(f"the checksum of {wrong[0]} is wrong")

    def _same(self, step, abstract):
        """Orbax casts types silently and reports shapes under another name: compare first."""

        def described(tree):
            leaves = jax.tree_util.tree_leaves_with_path(tree)
            return {_place(path): (tuple(leaf.shape), np.dtype(leaf.dtype)) for path, leaf in leaves}

        self._known(step)
        there, here = described(self._manager.item_metadata(step)), described(abstract)
        if not there:
            raise ValueError("its metadata is missing")
        for place in sorted(there.keys() | here.keys()):
            a, b = there.get(place), here.get(place)
            if a != b:
                found = f"{place} is {_text(a)} there, {_text(b)} here"
                raise CheckpointError(f"{self.folder}: checkpoint {step} does not fit this run: {found}")


def sums(tree: Any) -> dict[str, int]:
    """Dotted path -> CRC-32 of the bytes of each leaf that this process holds in full."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not isinstance(leaf, jax.Array) or leaf.is_fully_replicated:
            data = leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf
            found[_place(path)] = zlib.crc32(np.ascontiguousarray(data).tobytes())
    return found


def _sum_of(known):
    return zlib.crc32(json.dumps(known, sort_keys=True).encode())


def _warn(text):
    if jax.process_index() == 0:
        warnings.warn(text, stacklevel=3)


def _abstract(leaf):
    leaf = leaf if hasattr(leaf, "sharding") else jax.numpy.asarray(leaf)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _place(path):
    """Dotted path; fields of tuples and keys of dicts are written alike."""
    return ".".join(str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part)))) for part in path)


def _text(found):
    return "absent" if found is None else f"{found[1]}{list(found[0])}"


def _line(error):
    """The first cause on one line."""
    error = _cause(error)
    return " ".join(str(error).split())[:300] or type(error).__name__


def _cause(error):
    """The underlying error, which orbax wraps."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
