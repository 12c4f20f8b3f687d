"""Where a network may be cut into an encoder and a decoder, for V-information and the like.

A network's stages are the keys of its `Output.features`, in order. What prepares the input (a stem, an embedding)
belongs to the first, final normalisation and pooling to what follows the last. Every network can also be called as

  net(x, train, stop=s): encoder, the output of stage s itself;
  net(x, train, start=s): decoder, `Output` of what follows stage s, with x a batch of outputs of s; `init` creates the
    parameters of that part alone, under their names in the whole network.

net(net(x, train, stop=s), train, start=s) is net(x, train), its features those after s.
"""

from collections.abc import Mapping
from typing import Any


def cut(stages: Mapping[str, Any], start: str | None, stop: str | None) -> dict[str, Any]:
    """The stages after `start`, up to and including `stop`; None is the beginning, or the end.

    Args:
      stages: name -> anything, in order.
    Raises:
      ValueError: an unknown name, or `stop` before `start`.
    """
    names = list(stages)
    for name in (start, stop):
        if name is not None and name not in names:
            raise ValueError(f"no stage {name!r}; there are {', '.join(names)}")
    first = 0 if start is None else names.index(start) + 1
    last = len(names) if stop is None else names.index(stop) + 1
    if last < first:
        raise ValueError(f"stage {stop} is before {start}; they are {', '.join(names)}")
    return {name: stages[name] for name in names[first:last]}
