"""The numbers of the rows as TensorBoard events, if tensorboardX is installed; metrics.jsonl remains authoritative."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infojax.train.schema import COORDINATES


class Board:
    """Events in a folder, which is created when the first number is written.

    Args:
      folder: where the event files go.
      step: TensorBoard drops what earlier files hold past it, as `RunFolder.continue_from` drops rows.
    """

    def __init__(self, folder: str | Path, step: int) -> None:
        self._folder, self._step = str(folder), step
        self._writer: Any = None

    def row(self, kind: str, step: int, time: float, values: Mapping[str, Any]) -> None:
        """Writes the floats of a row as "eval/test/mir"; with several runs in one program as "run0/eval/test/mir",
        for a layer as "eval/test/layer1/nc1".

        Rows along a coordinate other than time are left out: they have many values at one step.
        """
        if COORDINATES.keys() & values.keys():
            return
        if self._writer is None:
            try:
                from tensorboardX import SummaryWriter
            except ImportError:
                return
            self._writer = SummaryWriter(self._folder, purge_step=self._step + 1)
        place = [f"run{values['run']}"] if "run" in values else []
        tag = "/".join([*place, kind, *(values[name] for name in ("split", "layer") if name in values)])
        for name, value in values.items():
            if isinstance(value, float):
                self._writer.add_scalar(f"{tag}/{name}", value, step, walltime=time)

    def flush(self) -> None:
        """Writes out what is buffered."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Writes out what is buffered and closes the event file."""
        if self._writer is not None:
            self._writer.close()
