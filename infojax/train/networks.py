"""Flax modules as `Net`s: the engine sees functions of (params, model_state)."""

import jax
import jax.numpy as jnp

from infojax.objectives import Net


def as_net(module, *inputs, stages=()):
    """A `Net` of a module that is called as module(*inputs, train=...).

    Args:
      inputs: arrays or ShapeDtypeStructs, a batch of what it is called with; sizes of the batch do not matter.
      stages: where `apply` may start and stop, if the module takes `start` and `stop`.
    """

    @jax.jit
    def variables(key):
        return dict(module.init(key, *[jnp.zeros(x.shape, x.dtype) for x in inputs], train=False))

    def init(key):
        found = variables(key)
        return found.pop("params"), found

    def apply(params, model_state, *inputs, train, rngs=None, start=None, stop=None):
        cut = {name: value for name, value in (("start", start), ("stop", stop)) if value is not None}
        variables = {"params": params, **model_state}
        mutable = list(model_state) if train else False
        found = module.apply(variables, *inputs, train=train, rngs=rngs, mutable=mutable, **cut)
        return found if train else (found, model_state)

    def head(params):
        rows = params["head"]["kernel"].T[: getattr(module, "num_classes", None)]  # a transformer's are of all tokens
        return rows, params["head"].get("bias", jnp.zeros(len(rows)))

    return Net(init, apply, tuple(stages), head)
