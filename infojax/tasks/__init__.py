"""Tasks: what a config selects. Each is a function of (config, workdir) composed of the packages below."""

import importlib
from types import ModuleType

NAMES = (
    "bottleneck", "compression", "connectivity", "crossmodal", "grokking", "probe", "pruning", "selfsup", "semisup",
    "simplex", "smoke", "supervised", "temperature",
)  # fmt: skip
TASKS = {name: f"infojax.tasks.{name}" for name in NAMES}


def load(name: str) -> ModuleType:
    """The module of a task; `run(config, workdir, dry_run)` is its entry."""
    return importlib.import_module(TASKS[name])
