"""PyTorch modules, torch.distributed, Hugging Face's Trainer and Lightning, without importing any of them.

They are there already when somebody hands over a module; what is needed of a package is taken from `sys.modules`.
"""

import difflib
import fnmatch
import inspect
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from infojax.monitor.buffer import to_host

if TYPE_CHECKING:
    from infojax.monitor import Monitor


WRAPPER = re.compile(r"^(?:(?:module|_orig_mod)\.)+")  # of DistributedDataParallel and torch.compile

# PyTorch


def watch(monitor: "Monitor", model: Any, head: Any, layers: Sequence[str], labels: str | None) -> list[Any]:
    """Registers the hooks of `Monitor.watch`; returns their handles."""
    if not hasattr(model, "named_modules"):
        raise ValueError(f"model is a {type(model).__name__}; expected a torch.nn.Module, or pass features to add")
    if head is None and not layers:
        linear = [name for name, module in model.named_modules() if type(module).__name__ == "Linear"]
        raise ValueError(f"pass head= or layers=; the linear layers are {', '.join(linear[-5:]) or 'none'}")
    _leave_the_accelerator()
    modules = {WRAPPER.sub("", name): module for name, module in model.named_modules()}
    last = None if head is None else _module(modules, head)
    if labels is not None and not takes(model, labels):
        raise ValueError(f"labels: {type(model).__name__}.forward has no argument {labels!r}; pass labels to step")
    chosen = {name: modules[name] for pattern in layers for name in _matching(modules, pattern)}
    of_call: dict[str | None, Any] = {}
    never_compiled = getattr(getattr(sys.modules.get("torch"), "compiler", None), "disable", lambda hook: hook)

    def wanted() -> bool:
        return model.training and monitor.wants and not _in_backward()

    def capture(name: str, output: Any) -> None:
        if not wanted():
            return
        begun = time.perf_counter()
        value = to_host(_first(output), name, monitor.pool, of_call.get("attention_mask"))
        monitor.pending.setdefault(name, []).append(value)
        monitor.seconds += time.perf_counter() - begun

    order = _arguments(model)

    def before(_: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        given: dict[Any, Any] = dict(zip(order, args, strict=False)) | dict(kwargs)
        of_call.update((name, given.get(name)) for name in ("attention_mask", labels))

    def after(_: Any, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        found = of_call.get(labels)
        if getattr(found, "ndim", 0) == 1 and wanted():  # (n, T) are tokens to predict
            monitor.add(labels=found)

    handles = [model.register_forward_pre_hook(never_compiled(before), with_kwargs=True)]
    if last is not None:
        hook = never_compiled(lambda _, args: capture("", args[0]))
        handles.append(last.register_forward_pre_hook(hook))
        monitor.head_is(lambda: (last.weight, getattr(last, "bias", None)))
    for name, module in chosen.items():
        hook = never_compiled(lambda _, args, output, name=name: capture(name, output))
        handles.append(module.register_forward_hook(hook))
    if labels is not None:
        handles.append(model.register_forward_hook(never_compiled(after), with_kwargs=True))
    return handles


def _in_backward() -> bool:
    """Whether a backward pass runs, in which gradient checkpointing calls modules a second time."""
    task = getattr(getattr(sys.modules.get("torch"), "_C", None), "_current_graph_task_id", None)
    return task is not None and task() != -1


def _module(modules: Mapping[str, Any], head: Any) -> Any:
    found = modules[_matching(modules, head)[0]] if isinstance(head, str) else head
    if hasattr(found, "named_modules") and not any(found is module for module in modules.values()):
        raise ValueError(f"head is a {type(found).__name__} that is no module of the model")
    if getattr(getattr(found, "weight", None), "ndim", 0) != 2:
        raise ValueError(f"head is {type(found).__name__}; expected a linear layer, with a weight (C, D)")
    return found


def _arguments(model: Any) -> list[str]:
    """The names of forward's arguments in order; of the model inside, where a wrapper passes on whatever it gets."""
    while hasattr(model, "forward"):
        of = inspect.signature(model.forward).parameters
        inner = getattr(model, "module", None) or getattr(model, "_orig_mod", None)
        if inner is None or all(one.kind is not inspect.Parameter.VAR_POSITIONAL for one in of.values()):
            return list(of)
        model = inner
    return []


def takes(model: Any, name: str) -> bool:
    """Whether model.forward has an argument of this name, or takes any."""
    of = inspect.signature(model.forward).parameters if hasattr(model, "forward") else {}
    return name in of or any(one.kind is inspect.Parameter.VAR_KEYWORD for one in of.values())


def arguments_of_watch(monitor: "Monitor", watched: Mapping[str, Any]) -> Mapping[str, Any]:
    """The keywords, which are checked before a training begins."""
    known = list(inspect.signature(monitor.watch).parameters)[1:]
    for name in watched:
        if name not in known:
            raise TypeError(f"there is no argument {name!r}; watch takes {', '.join(known)}")
    return watched


def _matching(modules: Mapping[str, Any], pattern: str) -> list[str]:
    """The modules of a pattern, in which * stays within one level: layer* is layer1, and not layer1.0.conv."""

    def matches(name: str) -> bool:
        parts, patterns = name.split("."), pattern.split(".")
        return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))

    found = [name for name in modules if name and matches(name)]
    if not found:
        close = difflib.get_close_matches(pattern, list(modules), n=3, cutoff=0.3) or list(modules)[1:6]
        raise ValueError(f"{pattern!r} matches no module of the model; there are {', '.join(close)}")
    return found


def _first(output: Any) -> Any:
    """The tensor of a module's output: itself, its last_hidden_state, or the first of a tuple."""
    if hasattr(output, "last_hidden_state"):
        return output.last_hidden_state
    return _first(output[0]) if isinstance(output, tuple | list) else output


def _leave_the_accelerator() -> None:
    """Keeps JAX on the CPU, if nobody has said otherwise: it would reserve most of the memory of the training's GPU.

    Without effect where JAX has begun to work already.
    """
    chosen: Any = jax.config
    if chosen.jax_platforms is None and "JAX_PLATFORMS" not in os.environ:
        jax.config.update("jax_platforms", "cpu")


# Several processes


def _distributed() -> Any:
    """torch.distributed, where it is in use; else None."""
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    return distributed if distributed and distributed.is_available() and distributed.is_initialized() else None


def place() -> tuple[int, int]:
    """(rank, number of ranks) of this process."""
    distributed = _distributed()
    if distributed is not None:
        return distributed.get_rank(), distributed.get_world_size()
    return (jax.process_index(), jax.process_count()) if jax.distributed.is_initialized() else (0, 1)


def total(count: int) -> int:
    """The sum over all ranks, which all have to call this."""
    distributed = _gathering()
    counts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(counts, count)
    return sum(counts)


def _gathering() -> Any:
    """torch.distributed.

    Raises:
      ValueError: it is not in use.
    """
    distributed = _distributed()
    if distributed is None:
        raise ValueError("gather=True needs torch.distributed; gather the features yourself, and add them in process 0")
    return distributed


def on_first(
    function: Callable[[dict[str, np.ndarray], np.ndarray | None], dict[str, float]],
    layers: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
) -> dict[str, float]:
    """What a function of the features and labels of all ranks returns or raises on rank 0, on every rank.

    So thresholds hold on all ranks or on none, and no rank waits for one that has failed.

    Args:
      function: of layers and labels, of all ranks together.
      layers: {layer: (n, D)} of this rank; labels: (n,) or None.
    """
    distributed = _gathering()
    first = distributed.get_rank() == 0
    parts: list[Any] | None = [None] * distributed.get_world_size() if first else None
    distributed.gather_object((dict(layers), labels), parts)
    found: dict[str, float] = {}
    failed: Exception | None = None
    if first:
        try:
            found = function(*_joined(parts or []))
        except Exception as error:
            failed = error
    box: list[Any] = [found, failed and f"{type(failed).__name__}: {failed}"]
    distributed.broadcast_object_list(box)
    if failed is not None:
        raise failed
    if box[1]:
        raise RuntimeError(f"rank 0 could not measure the features: {box[1]}")
    return box[0]


def _joined(parts: Sequence[Any]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """The features and labels of the ranks that have any, one after the other."""
    parts = [part for part in parts if part[0]]
    if not parts:
        return {}, None
    if any(part[0].keys() != parts[0][0].keys() or (part[1] is None) != (parts[0][1] is None) for part in parts):
        raise ValueError("gather=True: the ranks have different layers, or some have labels and some have none")
    joined = {name: np.concatenate([part[0][name] for part in parts]) for name in parts[0][0]}
    return joined, None if parts[0][1] is None else np.concatenate([part[1] for part in parts])


# Callbacks


def _base(*places: str) -> Any:
    """The class of a package that the user has imported, for callbacks that must inherit from it; else object."""
    for module, name in (place.rsplit(".", 1) for place in places):
        found = getattr(sys.modules.get(module), name, None)
        if isinstance(found, type):
            return found
    return object


def trainer_callback(monitor: "Monitor", watched: Mapping[str, Any]) -> Any:
    """A callback of Hugging Face's Trainer: it watches the model when training begins, and steps with the optimiser."""

    base: Any = _base("transformers.TrainerCallback", "transformers.trainer_callback.TrainerCallback")

    class MonitorCallback(base):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("on_"):
                return lambda *args, **kwargs: None
            raise AttributeError(name)

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            own = {"labels": "labels"} if takes(model, "labels") else {}
            monitor.watch(model, **(own | dict(watched)))
            monitor.now = state.global_step

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            monitor.step(step=state.global_step)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            monitor.close()

    return MonitorCallback()


def lightning_callback(monitor: "Monitor", labels: Callable[[Any], Any] | None, watched: Mapping[str, Any]) -> Any:
    """A callback of Lightning's Trainer: it watches the module when fitting begins, and steps with the optimiser."""

    places = "lightning.pytorch.Callback", "pytorch_lightning.Callback", "lightning.pytorch.callbacks.Callback"
    base: Any = _base(*places)

    class MonitorCallback(base):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            monitor.watch(pl_module, **watched)
            monitor.now = trainer.global_step

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if monitor.pending:
                monitor.add(labels=None if labels is None else labels(batch))
            if trainer.global_step > monitor.now:
                monitor.step(step=trainer.global_step)

        def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
            monitor.close()

    return MonitorCallback()
