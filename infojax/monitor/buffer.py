"""Recent features on the host: a ring of float32 rows per layer, and how arrays of any library come into it."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np


class Buffer:
    """The last `capacity` samples of each layer, with their labels.

    Attributes:
      capacity: samples that are held. count: samples that are held now.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.count, self._next = capacity, 0, 0
        self._rings: dict[str, np.ndarray] = {}

    def add(self, batch: Mapping[str, np.ndarray], labels: np.ndarray | None) -> int:
        """Adds a batch, {layer: (n, D)}, and its labels (n,); returns n.

        Raises:
          ValueError: layers or labels of other lengths, or other layers or widths than before.
        """
        name, n = next((name, len(rows)) for name, rows in batch.items())
        for other, rows in batch.items():
            if len(rows) != n:
                raise ValueError(
                    f"{_named(other)} has {len(rows)} rows, {_named(name)} has {n}; expected one per "
                    "sample: a module that is called several times in a forward pass cannot be a layer"
                )
        if labels is not None and labels.shape != (n,):
            raise ValueError(
                f"labels has shape {labels.shape}, expected ({n},): the number of samples since the last labels; call "
                "add(labels=y) after each forward pass where a step has several"
            )
        given = dict(batch) if labels is None else {**batch, "labels of the monitor": labels}
        if self.count and given.keys() != self._rings.keys():
            missing = ", ".join(map(_named, sorted(given.keys() ^ self._rings.keys())))
            raise ValueError(f"{missing}: given with some batches and not with others; expected the same each time")
        for key, rows in given.items():
            kind = np.int64 if rows.ndim == 1 else np.float32
            ring = self._rings.get(key)
            if ring is None or (ring.shape[1:] != rows.shape[1:] and not self.count):
                ring = self._rings[key] = np.zeros((self.capacity, *rows.shape[1:]), kind)
            if ring.shape[1:] != rows.shape[1:]:
                raise ValueError(f"{_named(key)} has {rows.shape[1]} columns, and had {ring.shape[1]} before")
            last = rows[-self.capacity :]
            begin = (self._next + n - len(last)) % self.capacity
            cut = min(len(last), self.capacity - begin)
            ring[begin : begin + cut] = last[:cut]
            ring[: len(last) - cut] = last[cut:]
        self._next, self.count = (self._next + n) % self.capacity, min(self.count + n, self.capacity)
        return n

    def take(self) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """({layer: rows (n, D)}, labels (n,) or None) of what is held, oldest first; the buffer is empty afterwards."""
        order = (self._next - self.count + np.arange(self.count)) % self.capacity
        found = {name: ring[order] for name, ring in self._rings.items()} if self.count else {}
        labels = found.pop("labels of the monitor", None)
        self.count, self._next, self._rings = 0, 0, {}
        return found, labels


def _named(layer: str) -> str:
    return layer or "features"


def layers_of(features: Any) -> dict[str, Any]:
    """{layer: array} of an array, of a nested dict, or of Flax intermediates; the name of an array alone is "".

    In a dict, "features" and "embedding" stand for the features of the head, whose name is "" too. Names are the path:
    the value of `sow` and of `capture_intermediates` in Linen, a tuple of one, goes by the name of its module.
    """
    if features is None:
        return {}
    if not isinstance(features, Mapping) and (hasattr(features, "shape") or isinstance(features, list)):
        return {"": features}
    found = {}
    leaves = jax.tree_util.tree_flatten_with_path(features, is_leaf=lambda x: hasattr(x, "detach"))[0]
    for path, leaf in leaves:
        parts = [str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part)))) for part in path]
        while len(parts) > 1 and parts[-1] in ("value", "__call__", "0"):
            parts.pop()
        name = "/".join(parts)
        found["" if name in ("features", "embedding") else name] = leaf
    if not found:
        raise ValueError(f"features is an empty {type(features).__name__}; expected arrays by layer")
    return found


def to_host(x: Any, name: str, pool: str | Callable[[Any], Any] | None, mask: Any = None) -> np.ndarray:
    """x in NumPy: rows (n, D) in float32, or with pool=None as they are, labels as int64.

    torch tensors, of any device and type, and arrays of JAX and NumPy; features are copied, as they wait
    here for their labels while the training may overwrite them (`ReLU(inplace=True)`, a buffer that is used again).

    Raises:
      ValueError: no array, or axes that `pool` does not turn into rows.
    """
    torch = hasattr(x, "detach")
    if torch:
        x = x.detach()
        x = x.float() if x.is_floating_point() else x
    if callable(pool):
        x = pool(x)
    elif pool is not None and getattr(x, "ndim", 0) > 2:
        x = pooled(x if torch else np.asarray(x).astype(np.float32, copy=False), pool, torch, mask, name)
    if not hasattr(x, "shape") and not isinstance(x, list | tuple | float | int):
        raise ValueError(f"{_named(name)} is a {type(x).__name__}; expected an array of numbers")
    array = x.cpu().numpy() if torch and hasattr(x, "cpu") else np.asarray(x)
    if array.dtype.kind in "iub" and array.ndim == 1 and pool is None:
        return array.astype(np.int64, copy=False)
    if not (array.dtype.kind in "fiub" or jax.dtypes.issubdtype(array.dtype, np.floating)):
        raise ValueError(f"{_named(name)} has dtype {array.dtype}; expected numbers")
    if pool is not None and (array.ndim != 2 or not array.size):
        raise ValueError(f"{_named(name)} has shape {array.shape}; expected (n, D), one row per sample")
    if name == "labels":
        raise ValueError(f"labels has shape {array.shape} and dtype {array.dtype}; expected (n,) whole numbers")
    with np.errstate(over="ignore"):  # what float32 cannot hold is inf, and left out with a warning
        return array.astype(np.float32, copy=pool is not None)


def pooled(x: Any, pool: str, channels_first: bool, mask: Any = None, name: str = "") -> Any:
    """Tokens (n, T, D) or maps of pixels as rows (n, D): their mean, or the last token.

    Args:
      x: torch or NumPy; maps are (n, D, H, W) with `channels_first`, else (n, H, W, D).
      mask: (n, T), 1 for real tokens, of the same library; None for all. A sample without any has a row of nan,
        which is left out with the others that are not finite.

    Raises:
      ValueError: a mask of another shape, as that of an encoder at a decoder; or "last" of pixels.
    """
    if x.ndim > 3:
        if pool == "last":
            raise ValueError(f"pool='last' is for tokens (n, T, D); got shape {tuple(x.shape)}")
        return x.mean(tuple(range(2, x.ndim)) if channels_first else tuple(range(1, x.ndim - 1)))
    if mask is None:
        return x[:, -1] if pool == "last" else x.mean(1)
    if tuple(mask.shape) != tuple(x.shape[:2]):
        raise ValueError(
            f"{_named(name)} has shape {tuple(x.shape)}, and attention_mask {tuple(mask.shape)}, expected "
            f"{tuple(x.shape[:2])}: it does not say which tokens are padding; pass a function as pool, as "
            "lambda x: x.mean(1)"
        )
    counts = (mask != 0).sum(1)[:, None]
    if pool == "last":  # the last real token, on whichever side the padding is
        counted = (mask != 0).cumsum(1)
        last = counted.argmax(1)  # the first place where all real tokens are counted
        kept, counts = x[range(len(x)), last] * (counts != 0), counts != 0
    else:
        kept = (x * (mask != 0)[..., None]).sum(1)
    with np.errstate(invalid="ignore"):
        return kept / counts
