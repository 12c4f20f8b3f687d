"""What a run will cost, before it starts."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from infojax.objectives import View
from infojax.train.step import Step


class Cost(NamedTuple):
    """The cost of one step of all runs.

    Attributes:
      flops: floating-point operations as XLA counts them, or None where it does not.
      seconds: duration of one step, or None; compile_seconds: duration of the first call, minus one step.
    """

    flops: float | None
    seconds: float
    compile_seconds: float

    def line(self, steps: int, views: Sequence[View], runs: int) -> str:
        """The cost of `steps` steps in one line; images are counted if views have a size."""
        parts = [f"{steps:,} steps"]
        sizes: list[Any] = [view.size for view in views if view.size != "all"]
        if sizes:
            parts.append(f"{steps * sum(sizes) * runs:,} images")
        if self.flops:
            parts.append(f"{self.flops:.2g} FLOPs a step, {self.flops * steps:.2g} in all")
        rate = f" ({1e3 * self.seconds:.3g} ms a step, compiled in {self.compile_seconds:.0f} s)"
        rate += "; evaluations come on top, and their time is printed after the second one"
        return "cost: " + ", ".join(parts) + f", about {duration(steps * self.seconds)}" + rate


def estimate(
    step: Step,
    arguments: tuple[Any, Any, Any, Any],
    progress: Callable[[int, dict[str, Any]], Any] = lambda step, values: None,
    repeats: int = 3,
    fed: Any = None,
) -> Cost:
    """Compiles a step and runs it a few times on a copy of the state.

    Args:
      step: `Step`, which `fit` will find compiled.
      arguments: (objective, state, constants, seeds); fed: rows that the host reads, or None.
    """
    objective, state, constants, seeds = arguments
    progress(0, {"phase": "compiling the step"})
    compiled, flops = step.compiled(), step.flops(*arguments, fed)
    copy, taken = jax.tree.map(jnp.copy, state), []
    for _ in range(1 + repeats):
        begun = time.perf_counter()
        copy, metrics = compiled(objective, copy, constants, seeds, fed)
        jax.block_until_ready((copy, metrics))
        taken.append(time.perf_counter() - begun)
    seconds = min(taken[1:])
    return Cost(flops, seconds, max(taken[0] - seconds, 0.0))


def duration(seconds: float) -> str:
    """'42 s', '3 min', '5.2 h', '12 days'."""
    for unit, size, digits in (("s", 60, 0), ("min", 3600, 0), ("h", 48 * 3600, 1)):
        if seconds < size:
            scale = {"s": 1, "min": 60, "h": 3600}[unit]
            return f"{seconds / scale:.{digits}f} {unit}"
    return f"{seconds / 86400:.0f} days"
