"""Measures during somebody else's training: `Monitor`, fed by hand, by PyTorch hooks or by callbacks of trainers.

`buffer` holds recent features, `values` measures them by name, `rules` are thresholds, `writers` are where rows go, and
`hooks` is all that knows PyTorch, Hugging Face's Trainer and Lightning. None of these packages is imported before the
user has done so.
"""

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from infojax.monitor import hooks, values
from infojax.monitor.buffer import Buffer, layers_of, to_host
from infojax.monitor.rules import ThresholdError, Thresholds
from infojax.monitor.writers import Results, tell

__all__ = ["Monitor", "ThresholdError"]

MOST_OVERHEAD = 0.01  # share of the training's time


class Monitor:
    """Measures the features of recent batches every few steps of a training, in float32 on the CPU.

    Only the batches before a measurement are copied, as many as fill the buffer; the weights change a little in the
    meantime. The first measurement follows as soon as the buffer is full, and thresholds call it "start".

      monitor = ij.Monitor("runs/resnet").watch(model, head="fc")   # features: the input of model.fc
      for x, y in loader:
          ...                                                       # forward, backward, optimizer.step()
          monitor.step(labels=y)
      monitor.close()

    Without PyTorch, or with features at hand, `if monitor.wants: monitor.add(features, labels)` before `step`.

    Attributes:
      wants: whether features added now would be measured.
      now: number of the last step.
      results: of the last measurement, {name: value}; those of layers are named "effective_rank@layer4".
      seconds: spent in the monitor so far.
    """

    def __init__(
        self,
        folder: str | None = None,
        *,
        every: int = 500,
        capacity: int = 1024,
        measures: Sequence[str] | None = None,
        split: str = "train",
        writers: Sequence[str] = (),
        warn_if: str | Sequence[str] = (),
        stop_if: str | Sequence[str] = (),
        pool: str | Callable[[Any], Any] = "mean",
        gather: bool = False,
    ) -> None:
        """Args:
          folder: for metrics.jsonl, which `python -m infojax.report FOLDER` draws; None writes none.
          every: steps between measurements. capacity: samples that are measured.
          measures: names of the catalogue or of public functions of features; None for a quick choice of those that
            labels and head allow, and those of the thresholds.
          split: what the rows are said to be measured on.
          writers: "tensorboard", "wandb" or "trackio", to which the results go, too.
          warn_if, stop_if: thresholds such as "effective_rank < 0.5 * start", which warn or raise `ThresholdError`;
            see `rules`.
          pool: how tokens or pixels become one row: "mean" (of those that the attention mask keeps), "last" token, or a
            function of the output. A sample whose mask keeps no token is left out, as are rows of nan.
          gather: under torch.distributed, measure the features of all ranks; every rank then has to call `step` equally
            often. Otherwise rank 0 measures its own.
        Raises:
          ValueError: a name, threshold or writer that there is not; names the near ones.
        """
        for name, value in (("every", every), ("capacity", capacity)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is {value!r}; expected a whole number of at least 1")
        if not isinstance(split, str) or not split:
            raise ValueError(f"split is {split!r}; expected a name, as 'train'")
        if not isinstance(gather, bool):
            raise ValueError(f"gather is {gather!r}; expected True or False")
        if not (callable(pool) or pool in ("mean", "last")):
            raise ValueError(f"pool is {pool!r}; expected 'mean', 'last' or a function")
        self.every, self.split, self.pool, self.gather = every, split, pool, gather
        asked = None if measures is None else values.checked(measures)
        self._thresholds = Thresholds(_listed(warn_if), _listed(stop_if))
        named = [values.measure_of(rule.measure, rule.layer, asked, rule.text) for rule in self._thresholds.rules]
        self._asked = tuple(dict.fromkeys(named)) if asked is None else asked  # it is told where these are lacking
        self.measures = tuple(dict.fromkeys((*values.QUICK, *named))) if asked is None else asked
        self.buffer = Buffer(capacity)
        self._written = Results(folder, writers)
        self._head: Callable[[], tuple[Any, Any]] = lambda: (None, None)
        self._per_step: int | None = None
        self._added, self._measured = 0, 0
        self._handles: list[Any] = []
        self.pending: dict[str, list[np.ndarray]] = {}
        self.history = self._thresholds.history
        self.now, self.seconds = 0, 0.0
        self.results: dict[str, float] = {}
        self._since: tuple[float, float] | None = None
        self._told_time = self._told_nothing = self._told_lacking = False

    # What is measured

    @property
    def wants(self) -> bool:
        """Whether features of the coming step are needed: False costs nothing, on other ranks than those measured."""
        if not self._takes_part():
            return False
        if not self._measured or not self._per_step:
            return True
        needed = -(-self.buffer.capacity // (self._per_step * self._shared_by()))
        return self.every - self.now % self.every <= needed

    def _takes_part(self) -> bool:
        """Whether features of this process are measured. Asked anew: ranks may be given later."""
        return self.gather or hooks.place()[0] == 0

    def _shared_by(self) -> int:
        """The number of processes whose features are measured together."""
        return hooks.place()[1] if self.gather else 1

    def watch(
        self,
        model: Any,
        head: Any = None,
        layers: str | Sequence[str] = (),
        labels: str | None = None,
    ) -> "Monitor":
        """Captures features of a PyTorch module in training mode, by forward hooks; returns the monitor.

        Args:
          model: a torch.nn.Module.
          head: the last linear layer, as a module or its name ("fc"): its input are the features, its weight and bias
            the head of MIR, HDR, NC3 and NC4.
          layers: names or patterns of modules ("layer*", "encoder.*.mlp"), whose outputs are measured as layers.
          labels: the name of an argument of `model.forward` that holds the labels, as "labels" in Hugging Face models;
            None where `step` or `add` is given them.
        Raises:
          ValueError: there is no such module; names the near ones.
        """
        self._handles += hooks.watch(self, model, head, _listed(layers), labels)
        return self

    def head_is(self, head: Callable[[], tuple[Any, Any]]) -> None:
        """Takes head (C, D) and bias (C,) or None from a function, called at each measurement."""
        if not callable(head):
            raise ValueError(f"head_is takes a function that returns (head, bias); got {type(head).__name__}")
        self._head = head

    def add(self, features: Any = None, labels: Any = None, head: Any = None, bias: Any = None) -> None:
        """Adds a batch.

        Args:
          features: (n, D), or with further axes, which `pool` turns into one row; torch (any device and type), JAX,
            NumPy; or a dict, nested dict or Flax state of layers. None where hooks capture them.
          labels: (n,) whole numbers, of all features since the last labels, negative to leave samples out; None where
            `step` is given them, or nobody has any.
          head: (C, D), for Flax `kernel.T`; bias: (C,). Those of the last call count.
        Raises:
          ValueError: shapes that do not fit together.
        """
        begun = time.perf_counter()
        if bias is not None and head is None:
            raise ValueError("bias was given without a head; pass both or neither")
        if head is not None:
            self.head_is(lambda: (head, bias))
        if self.wants:
            for name, value in layers_of(features).items():
                self.pending.setdefault(name, []).append(to_host(value, name, self.pool))
            if labels is not None:
                self._pair(labels)
        self.seconds += time.perf_counter() - begun

    def _pair(self, labels: Any) -> None:
        """Puts what is pending into the buffer, with its labels."""
        if self.pending:
            batch = {
                name: parts[0] if len(parts) == 1 else np.concatenate(parts) for name, parts in self.pending.items()
            }
            self.pending = {}
            self._added += self.buffer.add(batch, None if labels is None else to_host(labels, "labels", None))

    # When it is measured

    def step(self, labels: Any = None, step: int | None = None) -> dict[str, float] | None:
        """Counts a step of the training; call it after the optimiser's. Returns the results if it was time to measure.

        Args:
          labels: of the features since the last labels, as in `add`.
          step: its number, where it is not one more than the last, as after resuming.
        Raises:
          ThresholdError: a `stop_if` holds; rows are written first.
        """
        begun = time.perf_counter()
        if step is not None and (isinstance(step, bool) or not hasattr(step, "__index__") or step < 0):
            raise ValueError(f"step is {step!r}; expected a whole number of at least 0")
        before, self.now = self.now, self.now + 1 if step is None else int(step)
        wanted = self._takes_part()
        if wanted:
            self._pair(labels)
        if self._added:
            self._per_step, self._added = self._added, 0
        due = self.now // self.every > before // self.every
        found = self.measure() if wanted and (due or (not self._measured and self._full())) else None
        self.seconds += time.perf_counter() - begun
        if found:
            self._watch_time()
        if wanted and due and not self._measured:
            self._say_nothing_came()
        return found

    def _say_nothing_came(self) -> None:
        """Says once, at a step of a measurement, that there has been nothing to measure since the beginning."""
        if not self._told_nothing:
            self._told_nothing = True
            why = "no features came; call watch, or add before step"
            if self._handles:
                why = "the watched modules were not called in training mode, model.train()"
            tell(f"step {self.now}: nothing could be measured so far: {why}", 3)

    def _full(self) -> bool:
        """Whether the buffers hold enough; with `gather` the same on every rank, whatever the sizes of its batches."""
        count = self.buffer.count
        return (hooks.total(count) if self._shared_by() > 1 else count) >= self.buffer.capacity

    def measure(self) -> dict[str, float]:
        """Measures what is in the buffer now, writes it and checks the thresholds; {} if it is empty."""
        self._pair(None)
        layers, labels = self.buffer.take()
        self._told_nothing |= bool(layers)  # what else keeps it from being measured is told below
        if self._shared_by() > 1:
            found = hooks.on_first(self._results, layers, labels)
        else:
            found = self._results(layers, labels)
        if not found:
            return {}
        self._measured += 1
        self.results = found
        self._thresholds.check(self.now, found)
        return found

    def _results(self, layers: Mapping[str, np.ndarray], labels: np.ndarray | None) -> dict[str, float]:
        begun, found = time.perf_counter(), dict[str, float]()
        if not layers:
            return found
        head, bias = self._parts_of_head()
        named = [name for name in layers if name]  # in the order of the forward pass
        if lacking := "" if self._told_lacking else values.lacking(self._asked, labels, head):
            self._told_lacking = True
            tell(f"step {self.now}: {lacking}")
        for name, z in sorted(layers.items(), key=lambda layer: layer[0] != ""):
            kept = np.isfinite(z).all(1)
            if not kept.all():
                tell(
                    f"step {self.now}: {np.sum(~kept)} of {len(z)} rows of {name or 'the features'} hold nan or inf, "
                    "and are left out"
                )
            if not kept.any():  # thresholds of this layer hold: a training that is lost is not one that is fine
                found |= {rule.name: math.nan for rule in self._thresholds.rules if rule.layer == name}
            kept &= True if labels is None else labels >= 0
            z, y = z[kept], None if labels is None else labels[kept]
            if not len(z):
                continue
            of_head = (head, bias) if name == "" else (None, None)
            of_layer = values.measured(self.measures, z, y, *of_head)
            found |= {f"{key}@{name}" if name else key: value for key, value in of_layer.items()}
            place = {"layer": name, "depth": named.index(name), "dim": z.shape[1]} if name else {}
            self._written.row("eval", self.now, split=self.split, n=len(z), **place, **of_layer)
        if labels is not None and not (labels >= 0).any():
            tell(f"step {self.now}: all {len(labels)} labels are negative, and leave every row out")
        self._written.row("timing", self.now, monitor_seconds=round(time.perf_counter() - begun, 4))
        if found:
            self._written.settings(self.now, None if head is None else len(head), labels)
        self._written.shown(self.now, found)
        return found

    def _parts_of_head(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        parts = self._head()
        if not isinstance(parts, tuple | list) or len(parts) != 2:
            raise ValueError(f"the function of head_is must return (head, bias); it returned {type(parts).__name__}")
        head, bias = (None if part is None else to_host(part, "head", None) for part in parts)
        return head, bias

    def _watch_time(self) -> None:
        """Says once, after the third measurement, if the monitor takes more than 1% of the training's time."""
        if self._measured == 1 and self._since is None:  # the first measurement compiled its programs
            self._since = time.perf_counter(), self.seconds
        if self._measured < 3 or self._since is None or self._told_time:
            return
        self._told_time = True
        share = (self.seconds - self._since[1]) / max(time.perf_counter() - self._since[0], 1e-9)
        if share > MOST_OVERHEAD:
            every = math.ceil(self.every * share / MOST_OVERHEAD / 100) * 100
            text = f"infojax.Monitor takes {share:.1%} of the training's time; every={every} would take 1%"
            warnings.warn(text, RuntimeWarning, stacklevel=3)

    # Other loops

    def trainer_callback(self, **watched: Any) -> Any:
        """A callback for Hugging Face's Trainer; `watched` are the arguments of `watch`, besides the model."""
        return hooks.trainer_callback(self, hooks.arguments_of_watch(self, watched))

    def lightning_callback(self, labels: Callable[[Any], Any] = lambda batch: batch[1], **watched: Any) -> Any:
        """A callback for Lightning's Trainer.

        Args:
          labels: those of a batch of the training loader, or None.
          watched: arguments of `watch`, besides the model.
        """
        return hooks.lightning_callback(self, labels, hooks.arguments_of_watch(self, watched))

    def close(self) -> None:
        """Removes the hooks and closes the boards."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._written.close(self.now)

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _listed(texts: Any) -> list[Any]:
    return list(texts) if isinstance(texts, list | tuple | set) else [texts]  # what is no text is refused later
