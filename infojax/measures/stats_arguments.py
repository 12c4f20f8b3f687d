"""Checks of the arguments of functions that take `ClassStats`."""

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import ParamSpec, TypeVar

from infojax.measures import arrays, conversion
from infojax.measures.moments import ClassStats

P = ParamSpec("P")
R = TypeVar("R")

# Other arguments of functions of `ClassStats`: name -> axes, with C classes, D columns, or any number.
_BESIDES = {"head": "CD", "bias": "C", "inverse": "D*", "energy": "C", "distance": "C"}


def takes_stats(f: Callable[P, R], **besides: str) -> Callable[P, R]:
    """Decorator: checks the arguments of a function of `ClassStats` before JAX would reject them less clearly.

    besides: axes that differ from those in `_BESIDES`.
    """
    arguments_of, axes_of = signature(f), _BESIDES | besides

    @wraps(f)
    def checked(*arguments: P.args, **options: P.kwargs) -> R:
        bound = arguments_of.bind(*arguments, **options)
        given = bound.arguments
        stats = given["stats"]
        if not isinstance(stats, ClassStats):
            raise TypeError(f"stats must be ClassStats, as class_stats makes them; got {conversion.described(stats)}")
        _check_fields(stats)
        if "sums" in given and not hasattr(given["sums"], "disagreement"):
            found = conversion.described(given["sums"])
            raise TypeError(f"sums must be a SecondPass, as second_pass makes it; got {found}")
        if not isinstance(given.get("convention", ""), str):
            raise ValueError(f"convention must be a name; got {conversion.described(given['convention'])}")
        if given.get("bias") is not None and given.get("head") is None:
            raise ValueError("bias was given without a head; pass both or neither")
        sizes = dict(zip("CD", stats.mean.shape, strict=True))
        for name in axes_of.keys() & given.keys():
            if given[name] is None and arguments_of.parameters[name].default is None:
                continue
            given[name] = x = arrays.as_float(given[name], name)
            axes = axes_of[name]
            if x.ndim != len(axes) or any(sizes.get(axis, n) != n for axis, n in zip(axes, x.shape, strict=True)):
                form = ", ".join(str(sizes.get(axis, "...")) for axis in axes) + "," * (len(axes) == 1)
                fix = arrays.head_fix(x.shape, sizes["D"]) if axes == "CD" and x.ndim == 2 else ""
                raise ValueError(f"{name} must have shape ({form}); got {x.shape}{fix}")
            if name in ("energy", "distance"):
                arrays.check_not_negative(x, name)
        return f(*bound.args, **bound.kwargs)

    return checked


def _check_fields(stats):
    """Rejects statistics that were assembled by hand and are inconsistent."""
    shapes = [getattr(x, "shape", None) for x in (stats.count, stats.mean, stats.squares)]
    c, d = shapes[1] if shapes[1] is not None and len(shapes[1]) == 2 else (0, 0)
    scatter = () if stats.scatter is None else getattr(stats.scatter, "shape", None)
    if shapes != [(c,), (c, d), (c,)] or scatter not in ((), (d, d), (c, d, d)):
        raise ValueError(
            "stats must hold arrays count (C,), mean (C, D), squares (C,) and scatter, as class_stats makes them"
        )
