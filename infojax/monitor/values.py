"""Measures of a buffer by name: collapse, the interplay with a head, and every public function of features alone."""

import inspect
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from operator import attrgetter
from typing import Any

import jax
import numpy as np

from infojax import measures
from infojax.measures.theory import Limits, nc_limits
from infojax.suggestions import suggest

OF_FEATURES = ("entropy_features", "effective_rank", "effective_rank_from_gram", "stable_rank")
OF_LABELS = ("nc1", "nc2_equiangularity", "cdnv")
# Functions of z that give no number, or whose z are views, a trajectory or groups.
OTHERS = ("gram", "unit_rows", "singular_values", "lidar", "curvature")
OTHERS += ("padded_groups", "prompt_entropy", "dataset_entropy")  # of groups of rows
OF_HEAD = ("mir", "hdr", "mean_energy", "entropy_head_weights", "nc3", "nc4")
QUICK = (*OF_FEATURES, *OF_LABELS, *OF_HEAD)


class Sample:
    """Features (n, D), labels (n,) or None, head (C, D) or None, bias (C,) or None; what several measures share."""

    def __init__(self, z: Any, labels: Any = None, head: Any = None, bias: Any = None) -> None:
        self.z, self.labels, self.head, self.bias = z, labels, head, bias

    @cached_property
    def interplay(self) -> measures.Interplay:
        """The features with the head row of each label."""
        return measures.interplay(self.z, self.labels, self.head)

    @cached_property
    def collapse(self) -> measures.NeuralCollapse:
        """NC1 to NC4, over the classes that occur where there is no head."""
        labels = self.labels if self.head is not None else np.unique(self.labels, return_inverse=True)[1]
        return measures.neural_collapse(self.z, labels, self.head, self.bias)

    @cached_property
    def entropy(self) -> float:
        """Matrix entropy of the features, nats: of those that an interplay counts where there is a head."""
        return float(self.interplay.entropy_features if self.has("head") else measures.matrix_entropy(self.z))

    def has(self, needed: str) -> bool:
        """Whether it has what a measure needs: "features", "labels" or "head", which needs labels."""
        return {"features": True, "labels": self.labels is not None}.get(
            needed, self.labels is not None and self.head is not None
        )


def _of_features(function: Callable[..., Any], sample: Sample) -> Any:
    return function(sample.z)


def _table() -> dict[str, tuple[str, Callable[[Sample], Any]]]:
    """{name: (what it needs, function of a sample)}."""
    table: dict[str, tuple[str, Callable[[Sample], Any]]] = {}
    for name in dir(measures):
        function = getattr(measures, name)
        if name.startswith("_") or not callable(function) or inspect.isclass(function):
            continue
        needed = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
        if needed in (["z"], ["a"]) and name not in OTHERS and not name.startswith("estimate"):
            table[name] = ("features", partial(_of_features, function))
    for name in measures.NeuralCollapse._fields:
        if name != "per_class":
            needs = "head" if name.endswith("_head") or name[:3] in ("nc3", "nc4") else "labels"
            table[name] = (needs, attrgetter(f"collapse.{name}"))
    for name in ("entropy_head", "joint_entropy", "mutual_information", "mir", "hdr", "mean_energy"):
        table[name] = ("head", attrgetter(f"interplay.{name}"))
    centered = measures.matrix_entropy
    table |= {
        "entropy_features": ("features", lambda sample: sample.entropy),
        "effective_rank_from_gram": ("features", lambda sample: np.exp(sample.entropy)),
        "entropy_features_centered": ("features", lambda sample: centered(sample.z, center=True)),
        "entropy_head_weights": ("head", lambda sample: measures.matrix_entropy(sample.head)),
    }
    return table


TABLE = _table()


def checked(names: Sequence[str]) -> tuple[str, ...]:
    """The names, each once.

    Raises:
      ValueError: one that cannot be measured here; names the near ones.
    """
    if isinstance(names, str) or not names:
        raise ValueError(f"measures is {names!r}; expected a list of names, as [{names or 'mir'!r}]")
    for name in names:
        if name not in TABLE:
            raise ValueError(f"measures: {name!r} is none that the monitor knows{suggest(name, TABLE)}")
    return tuple(dict.fromkeys(names))


def measure_of(name: str, layer: str, names: Sequence[str] | None, text: str) -> str:
    """The measure that gives `name`: itself, or that of which it is a number (rankme of spectral_ranks) or the limit.

    Args:
      layer: "" for the features. names: the measures that are asked for; None for any. text: the threshold, for errors.
    Raises:
      ValueError: no measurement can have that name.
    """
    known = TABLE if names is None else names
    given = {f"{one}_{part}" if part else one: one for one in known for part in _parts(one)}
    given |= {f"limit_{one}": one for one in Limits._fields if one in known}
    if name not in given:
        raise ValueError(f"{text!r}: {name} is not measured{suggest(name, given)}")
    if layer and (TABLE[given[name]][0] == "head" or name.startswith("limit_")):
        raise ValueError(f"{text!r}: {name} needs the head, and layers have none; expected {name} without @{layer}")
    return given[name]


def _parts(name: str) -> Sequence[str]:
    """The names of a measure's numbers where it has several, a NamedTuple; else one that is empty."""
    function = getattr(measures, name, None)
    returned = inspect.signature(function).return_annotation if callable(function) else None
    return getattr(returned, "_fields", ("",))


def lacking(names: Sequence[str], labels: Any, head: Any) -> str:
    """Which of the named measures have not what they need, in words; "" where all have."""
    given = Sample(None, labels, head)
    missing = [name for name in names if not given.has(TABLE[name][0])]
    what = " and ".join(word for word, part in (("labels", labels), ("a head", head)) if part is None)
    return f"{', '.join(missing)} cannot be measured without {what}" if missing else ""


def measured(
    names: Sequence[str] | None, z: np.ndarray, labels: np.ndarray | None, head: Any = None, bias: Any = None
) -> dict[str, float]:
    """{name: value} of the named measures that labels and head allow; None for a quick choice. On the CPU.

    A measure with several numbers, a NamedTuple, gives one entry for each, named MEASURE_FIELD. With a head, those that
    have a limit at collapse get it beside them, which figures draw: limit_mir, limit_hdr, ...
    """
    wanted = QUICK if names is None else names
    if labels is not None and head is not None and (most := int(labels.max())) >= len(head):
        raise ValueError(f"labels go up to {most}, and head has {len(head)} classes (rows); expected labels below that")
    found: dict[str, float] = {}
    with jax.default_device(_cpu()):
        sample = Sample(z, labels, head, bias)
        for name in wanted:
            needs, function = TABLE[name]
            if sample.has(needs):
                value = function(sample)
                parts = value._asdict() if hasattr(value, "_asdict") else {"": value}
                found |= {f"{name}_{part}" if part else name: float(x) for part, x in parts.items()}
        if sample.has("head") and found.keys() & set(OF_HEAD):
            limits = _limits(sample)
            found |= {f"limit_{name}": limit for name, limit in limits.items() if name in found}
    return found


def _limits(sample: Sample) -> dict[str, float]:
    """The values of MIR, HDR and the entropies at collapse, with these counts and this mean energy."""
    counts = np.bincount(sample.labels, minlength=len(sample.head))[: len(sample.head)]
    if np.sum(counts > 0) < 2 or len(sample.head) > sample.z.shape[1] + 1:
        return {}
    try:
        energy = float(sample.interplay.mean_energy)
        limits = nc_limits(len(counts), counts=counts, mean_energy=energy, dim=sample.z.shape[1])
    except ValueError:  # less mean energy than unequal counts alone give a simplex
        limits = nc_limits(len(counts), counts=counts)
    found = {name: float(getattr(limits, name)) for name in Limits._fields}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _cpu() -> Any:
    """The CPU of this process, beside the training's accelerator; JAX's default device where it has no CPU."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
