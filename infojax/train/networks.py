"""Flax modules as `Net`s: the engine sees functions of (params, model_state)."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from infojax.objectives import Head, Net


def as_net(module: Any, *inputs: Any, start: str | None = None, param_dtype: Any = None) -> Net:
    """A `Net` from a module that is called as module(*inputs, train=...).

    Args:
      inputs: arrays or ShapeDtypeStructs, a batch of its inputs; the batch size does not matter.
      start: a stage; the net is then what follows it, and `inputs` are a batch of that stage's output.
      param_dtype: of the floating parameters that `init` creates; None keeps the module's own.
    Returns:
      The same `Net` for equal modules and shapes: JAX keeps the programs of every one, so that a process that works
      through many runs would otherwise grow by some with each.
    """
    shapes = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs)
    try:
        hash(module)
    except TypeError:  # a module with a list or a dict among its fields
        return _net.__wrapped__(module, shapes, start, param_dtype)
    return _net(module, shapes, start, param_dtype)


@lru_cache(maxsize=128)
def _net(module, inputs, start, param_dtype):
    begin = {} if start is None else {"start": start}

    def cast(leaf):
        return leaf.astype(param_dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    @jax.jit
    def init(key):
        found = dict(module.init(key, *[jnp.zeros(x.shape, x.dtype) for x in inputs], train=False, **begin))
        params = found.pop("params", {})
        return params if param_dtype is None else jax.tree.map(cast, params), found

    def apply(params, model_state, *inputs, train, rngs=None, start=None, stop=None):
        cut = begin | {name: value for name, value in (("start", start), ("stop", stop)) if value is not None}
        variables = {"params": params, **model_state}
        mutable = list(model_state) if train else False
        found = module.apply(variables, *inputs, train=train, rngs=rngs, mutable=mutable, **cut)
        return found if train else (found, model_state)

    def head(params):
        if "head" not in params:
            return None
        rows = params["head"]["kernel"].T[: getattr(module, "num_classes", None)]  # a transformer's cover all tokens
        return Head(rows, params["head"].get("bias", jnp.zeros(len(rows))))

    return Net(init, apply, head, getattr(module, "of_batch", False))
