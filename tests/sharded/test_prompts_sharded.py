"""Prompt learning over devices: the step is that of one device, and each device encodes its share of the prompts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infojax import parallel
from infojax.models import clip
from infojax.objectives import Context, Facts, Optimizer, Seeds, init_state
from infojax.objectives.crossmodal import PromptLearning, lay_out, prompt_net
from infojax.tasks.build import on_mesh
from infojax.tasks.build.study import Study
from infojax.train.networks import as_net
from infojax.train.optim import sgd
from infojax.train.step import make_step

SIZES = clip.Architecture(16, 32, 1, 32, 16, 32, 1, 77, 100, head_width=16)
CLASSES, TOKENS, BATCH = 6, 4, 8  # 4 devices do not divide the classes


def step(mesh, conditional):
    """(change of the parameters, metrics, FLOPs per device) of one step of CoOp or CoCoOp with CMA."""
    text = as_net(clip.text_tower(SIZES), jnp.zeros((1, 2), jnp.int32))
    condition = SIZES.features if conditional else 0
    nets = {"prompt": prompt_net((TOKENS, SIZES.text_width), condition=condition), "text": text}
    ctx = Context(nets, {"main": Optimizer(sgd(0.5))}, Facts(CLASSES, 10), frozen=("text",))
    method = PromptLearning(weight=0.5, alignment="released", conditional=conditional, batch_size=BATCH)
    study = on_mesh(Study(method, ctx, {"plain": lambda key, x: x}, {}, {}, lambda tools, due: (), None), mesh)
    names = [[1 + c] * (1 + c % 3) for c in range(CLASSES)]
    x = jax.random.normal(jax.random.key(1), (BATCH, SIZES.features))
    constants = {
        "data": {"train": {"x": x, "labels": jnp.arange(BATCH) % CLASSES}},
        "logit_scale": jnp.log(10.0),
        "prompts": lay_out(names, [[50]] * CLASSES, TOKENS, start=98, end=99),
        "frozen": {"text": text.init(jax.random.key(0))},
    }
    arguments = parallel.replicated((init_state(method, Seeds(), ctx), constants, Seeds()), mesh)
    before = jax.tree.map(np.asarray, arguments[0].params)
    program = jax.jit(make_step(study.ctx, study.transforms)).lower(method, *arguments).compile()
    state, metrics = program(method, *arguments)
    change = jax.tree.map(lambda a, b: np.asarray(a) - b, state.params, before)
    return change, metrics, program.cost_analysis()["flops"]


@pytest.mark.parametrize("conditional", [False, True])
def test_a_step_over_four_devices(conditional):
    change, metrics, work = step(None, conditional)
    found, over, share = step(parallel.make_mesh(4), conditional)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(change))
    assert largest > 1e-3
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(change), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * largest)
    assert metrics.keys() == over.keys() and 0 < metrics["cma"] < 1
    for name in metrics:
        np.testing.assert_allclose(over[name], metrics[name], rtol=1e-5)
    assert share < 0.45 * work  # 2 of 6 prompts, and what is not divided
