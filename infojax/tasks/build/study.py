"""A study: everything that is trained, and what its evaluators are made from."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from infojax.data import Source
from infojax.objectives import Context, Net, Objective, Seeds


class Run(NamedTuple):
    """One of the networks that are trained together.

    Attributes:
      facts: what identifies it in its rows, as {"temperature": 10.0, "seed": 0}.
      seeds: where its randomness comes from.
      floats: fields of the objective for which it has its own values.
    """

    facts: dict[str, Any]
    seeds: Seeds
    floats: Mapping[str, float] = {}


def one_of(seed: Any) -> list[tuple[dict[str, Any], Seeds]]:
    """The usual single network of a seed, with its own parameters, order and noise."""
    return [({"seed": seed}, Seeds(seed, seed, seed))]


class Study(NamedTuple):
    """What a task trains.

    Attributes:
      objective, ctx: what is minimised, with which networks and optimisers.
      transforms: name -> function of (key, samples as stored), as of `infojax.data.transforms`.
      data: source -> {"x", "labels"}, what is trained on, on the devices.
      streams: source -> `Source` of what is trained on and does not fit there: the host reads it step by step.
      splits: split -> what is evaluated on.
      evaluators: (`Tools`, due) -> yields `Evaluator`s; `due` is the config's choice of steps.
      per_epoch: steps per epoch, a float; None where a step is an epoch.
      members: seed -> (facts, `Seeds`) of each of its networks: usually one, two for the ends of a path.
      constants: what else the objective needs, and does not train.
      intervals: "log", "evaluate", "checkpoint" -> steps between these if the config says 0.
      files: name -> text of files that are written into the run folder.
      notes: on the data: what was read, left out, converted or estimated, one line each.
    """

    objective: Objective
    ctx: Context
    transforms: Mapping[str, Callable]
    data: Mapping[str, Any]
    splits: Mapping[str, Any]
    evaluators: Callable
    per_epoch: float | None
    members: Callable = one_of
    constants: Mapping[str, Any] = {}
    intervals: Mapping[str, int] = {}
    files: Mapping[str, str] = {}
    notes: Sequence[str] = ()
    streams: Mapping[str, Source] = {}


class Tools(NamedTuple):
    """What evaluators are made from.

    Attributes:
      net: the network that is evaluated; transform: of stored samples; through: the one compiled `forward` of both.
      sample: split -> the config's fixed part of it.
      runs: numbered as in the rows.
      mesh: of the devices that share a batch; None for a single device.
    """

    net: Net
    transform: Callable
    through: Callable
    sample: Callable
    runs: Sequence[Run]
    mesh: Any

    @property
    def devices(self) -> int:
        """The number of devices of the mesh, 1 without one."""
        return 1 if self.mesh is None else self.mesh.size
