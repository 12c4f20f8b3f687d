"""`--list`: configs with their presets and choices, and the families that configs choose from by name."""

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from infojax.data import DATASETS
from infojax.data.official import OFFICIAL
from infojax.evaluate import EVALUATORS
from infojax.models import MODELS
from infojax.objectives import OBJECTIVES
from infojax.tasks.build import OPTIMIZERS, SCHEDULES
from infojax.tasks.config import ConfigError, Listing
from infojax.tasks.files import read_config, shipped_configs

FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "model.name": MODELS, "data.name": DATASETS, "optimizer.name": OPTIMIZERS, "optimizer.schedule": SCHEDULES,
    "objectives": OBJECTIVES, "evaluators": EVALUATORS,
}  # fmt: skip


def configs(folder: str = "configs") -> Iterator[str]:
    """Lines about the configs of a folder or, where it has none, about those that came with infojax."""
    paths = sorted(Path(folder).glob("*.py"))
    if not paths:
        folder = str(shipped_configs())
        paths = sorted(Path(folder).glob("*.py"))
    yield f"configs in {folder}" if paths else f"no configs in {folder}"
    for path in paths:
        yield from of_config(path)


def everything() -> Iterator[str]:
    """Lines of `python -m infojax.main --list`."""
    yield from configs()
    for title, family in FAMILIES.items():
        yield ""
        yield title
        width = max(map(len, family))
        yield from (f"  {name:<{width}}  {summary(builder)}".rstrip() for name, builder in family.items())
        if title == "data.name":
            yield f"  {'tfds:NAME':<{width}}  A set that TensorFlow Datasets prepared as ArrayRecord."


def of_config(path: Path) -> Iterator[str]:
    """Lines of one config: its title, presets and choices."""
    try:
        read_config(f"{path}:{Listing.STRING}")
    except Listing as found:
        yield f"  {path.name:<18}{first_line(ast.get_docstring(ast.parse(path.read_text())))}"
        yield f"  {'':<18}{', '.join(shown(name, value) for name, value in found.known.items())}"
    except ConfigError as error:
        yield f"  {path.name:<18}{error}"


def shown(name: str, value: Any) -> str:
    """A choice with what it may be: "seeds (3)", "term = mi | hd"."""
    if isinstance(value, tuple):
        return f"{name} = {' | '.join(value)}"
    return f"{name} ({value})" if value else name


def summary(builder: Callable) -> str:
    """The first line of a builder's docstring, and the arguments that its name stands for."""
    given = builder.keywords if isinstance(builder, partial) else {}
    bound = builder.args if isinstance(builder, partial) else ()
    function = builder.func if isinstance(builder, partial) else builder
    options = ", ".join(f"{name}={value!r}" for name, value in given.items())
    if bound and bound[0] in OFFICIAL:
        found = OFFICIAL[bound[0]]
        sizes = ", ".join(f"{count:,} {split}" for split, count in found.splits.items())
        files = "Lossy JPEG pictures" if bound[0].endswith("_jpeg") else "The official files"
        return f"{files}: {sizes}; {found.num_classes} classes."
    text = first_line(inspect.getdoc(function))
    return f"{text} ({options})" if options else text


def first_line(text: str | None) -> str:
    """The first line of a docstring, or ""."""
    return (text or "").strip().partition("\n")[0]
