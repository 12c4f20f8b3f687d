"""Prompts with learnt tokens and what is minimised of them, against loops in NumPy and jax.grad of plain formulas."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from infojax.models import clip
from infojax.objectives import Context, Facts, Model, Net, Optimizer, Seeds, init_state, stream, with_settings
from infojax.objectives.contract import Batch, State
from infojax.objectives.crossmodal import (
    PromptLearning,
    ZeroShot,
    assemble,
    cross_modal_alignment,
    fixed_texts,
    lay_out,
    prompt_features,
    prompt_net,
)
from infojax.objectives.nets import Nets
from infojax.train.draw import draw
from infojax.train.networks import as_net
from infojax.train.step import make_step, map_runs, stack

START, END, WIDTH, CONTEXT = 30, 31, 16, 12
SIZES = clip.Architecture(8, 4, 1, 16, 2, WIDTH, 1, CONTEXT, 32, head_width=8)
NAMES, AFTER = [[5], [6, 7, 8], [9, 1]], [[2], [2], [2]]
RNG = np.random.default_rng(0)
LABELS = np.array([0, 1, 2, 1, 0, 2, 1, 0])
FEATURES = RNG.normal(size=(8, 8)).astype(np.float32)
IMAGES = RNG.integers(0, 256, (8, 4, 4, 3)).astype(np.uint8)
SCALE = 1.5


def prompts_of(position="end", count=3, names=NAMES):
    return lay_out(names, AFTER[: len(names)], count, start=START, end=END, position=position, context=CONTEXT)


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ("end", [START, "v0", "v1", "v2", 6, 7, 8, 2, END]),
        ("middle", [START, "v0", 6, 7, 8, "v1", "v2", 2, END]),
        ("front", [START, 6, 7, 8, "v0", "v1", "v2", 2, END]),
    ],
)
@pytest.mark.parametrize("specific", [False, True])
def test_where_tokens_stand(position, expected, specific):
    prompts = prompts_of(position)
    table = RNG.normal(size=(32, WIDTH)).astype(np.float32)
    context = RNG.normal(size=(3, 3, WIDTH) if specific else (3, WIDTH)).astype(np.float32)
    found = np.asarray(assemble(jnp.asarray(context), jnp.asarray(table), prompts))
    own = context[1] if specific else context
    rows = [own[int(word[1])] if isinstance(word, str) else table[word] for word in expected]
    np.testing.assert_array_equal(found[1], rows)
    np.testing.assert_array_equal(prompts.end, [6, 8, 7])
    assert found.shape == (3, 9, WIDTH)
    np.testing.assert_array_equal(found[0, 7:], np.stack([table[0]] * 2))  # after the end


def test_a_prompt_that_is_too_long():
    with pytest.raises(ValueError, match="class 1 has 14 tokens with start and end, 8 of them learnt; at most 12 fit"):
        prompts_of(count=8)
    with pytest.raises(ValueError, match="position must be one of end, middle, front; got 'left'"):
        prompts_of("left")


# The objectives, on one text tower


@pytest.fixture(scope="module")
def towers():
    """Net and variables of both towers."""
    image, text = clip.image_tower(SIZES), clip.text_tower(SIZES, remat=True)
    nets = {
        "image": as_net(image, jnp.zeros((1, 4, 4, 3))),
        "text": as_net(text, jnp.zeros((1, 3), jnp.int32)),
    }
    variables = {name: net.init(jax.random.key(i)) for i, (name, net) in enumerate(nets.items())}
    params = variables["text"][0]
    params["token_embedding"] = params["token_embedding"] * 20  # prompts that matter
    return nets, variables


def context_of(towers, prompt, *frozen):
    nets = {"prompt": prompt} | {name: towers[0][name] for name in frozen}
    return Context(nets, {"main": Optimizer(optax.sgd(0.1))}, Facts(3, 10), frozen=frozen)


def constants_of(towers, *frozen, x=FEATURES, **more):
    data = {"train": {"x": jnp.asarray(x), "labels": jnp.asarray(LABELS)}}
    return {
        "data": data, "frozen": {name: towers[1][name] for name in frozen}, "prompts": prompts_of(),
        "logit_scale": jnp.float32(SCALE),
    } | more  # fmt: skip


TRANSFORMS = {"plain": lambda key, x: x, "pixels": lambda key, x: x.astype(jnp.float32) / 128 - 1}


def plain_logits(towers, context, features):
    """exp(s) cosines of unit images and prompts, one image after the other where the context depends on it."""
    text, (params, state) = towers[0]["text"], towers[1]["text"]
    prompts, table = prompts_of(), params["token_embedding"]

    def texts(context):
        return clip.unit(text.apply(params, state, assemble(context, table, prompts), prompts.end, train=False)[0])

    if context.ndim == 2:
        found = texts(context)
        return jnp.exp(SCALE) * features @ found.T, found[LABELS]
    each = jnp.stack([texts(own) for own in context])
    return jnp.exp(SCALE) * jnp.stack([each[i] @ f for i, f in enumerate(features)]), each[np.arange(8), LABELS]


def one_step(method, ctx, constants):
    before = init_state(method, Seeds(), ctx)
    after, metrics = jax.jit(make_step(ctx, TRANSFORMS).update)(method, before, constants, Seeds(), None)
    return before, after, metrics


def precisions(function, *arguments):
    """The precision of every product in the program of a function, as StableHLO states it."""
    text = jax.jit(function).lower(*arguments).as_text()
    lines = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    return [re.search(r"precision = \[(\w+)", line)[1] if "precision" in line else "DEFAULT" for line in lines]


@pytest.mark.parametrize("conditional", [False, True])
def test_products_of_features_are_float32_on_every_device(conditional):
    """Logits and Gram matrices, with their derivatives; this test's text tower has no products."""
    tower = Net(lambda key: ({"token_embedding": jnp.ones((32, 8)), "text_projection": jnp.eye(8)}, {}),
                lambda params, state, x, end, **_: (x.sum(1), state))  # fmt: skip
    prompt = prompt_net((3, 8), condition=0)
    if conditional:  # one prompt per image, without a meta-network
        prompt = prompt._replace(apply=lambda params, state, x, **_: (params["context"][None] + x[:, :1, None], state))
    ctx = Context({"prompt": prompt, "text": tower}, {}, Facts(3, 10), frozen=("text",))
    method = PromptLearning(weight=0.5, alignment="released", conditional=conditional)
    frozen = tower.init(None)
    constants = {"frozen": {"text": frozen}, "prompts": prompts_of(), "logit_scale": jnp.float32(SCALE)}
    batch = {"train": Batch({"plain": jnp.asarray(FEATURES)}, jnp.asarray(LABELS), jnp.arange(8))}
    params = prompt.init(jax.random.key(0))[0]

    def loss(params):
        state = State(jnp.int32(0), {"prompt": params}, {"prompt": {}}, {}, {})
        return method.loss(Nets(state, constants, jax.random.key(0), ctx), state, constants, batch, (), ctx)[0]

    def shown(params):
        whole = params, frozen, prompts_of(), constants["logit_scale"]
        return method.network(ctx).apply(whole, {}, FEATURES)[0].logits

    for function in (jax.value_and_grad(loss), shown):
        found = precisions(function, params)
        assert found and set(found) == {"HIGHEST"}, found
    fixed = ZeroShot().network(ctx)
    texts = jnp.ones((3, 8))
    assert precisions(lambda t: fixed.apply((t, jnp.float32(0)), {}, FEATURES)[0].logits, texts) == ["HIGHEST"]


def test_clip_compares_in_float32_on_every_device():
    """The projections into the joint space and the cosines; blocks compute at the default precision."""
    model = clip.CLIP(dataclasses.replace(SIZES, image_layers=0, text_layers=0))
    arguments = jnp.zeros((2, 4, 4, 3)), jnp.zeros((2, 3), jnp.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *arguments)
    assert precisions(model.apply, shapes, *arguments) == ["HIGHEST"] * 3


def test_coop_with_cma(towers):
    method = PromptLearning(weight=0.3, alignment="released", batch_size=8)
    ctx = context_of(towers, prompt_net((3, WIDTH)), "text")
    constants = constants_of(towers, "text")
    before, after, metrics = one_step(method, ctx, constants)
    order = draw(constants["data"], method.views, TRANSFORMS, Seeds(), 0)["train"].index
    assert sorted(np.asarray(order)) == list(range(8))
    features = clip.unit(jnp.asarray(FEATURES))

    def loss(context):
        logits, own = plain_logits(towers, context, features)
        ce = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, LABELS))
        cma = cross_modal_alignment(features, own, jnp.asarray(LABELS), form="released")
        return 0.7 * ce + 0.3 * cma, (ce, cma)

    gradient, (ce, cma) = jax.jit(jax.grad(loss, has_aux=True))(before.params["prompt"]["context"])
    assert metrics["cross_entropy"] == pytest.approx(float(ce), rel=1e-5)
    assert metrics["cma"] == pytest.approx(float(cma), abs=1e-5)
    moved = (before.params["prompt"]["context"] - after.params["prompt"]["context"]) / 0.1
    np.testing.assert_allclose(moved, gradient, atol=1e-5 + 1e-3 * np.abs(gradient).max())
    assert before.params.keys() == {"prompt"}


def test_cocoop_is_image_by_image(towers):
    method = PromptLearning(weight=0.3, alignment="paper", conditional=True, batch_size=8)
    ctx = context_of(towers, prompt_net((3, WIDTH), condition=8), "text")
    before, after, metrics = one_step(method, ctx, constants_of(towers, "text"))
    features = clip.unit(jnp.asarray(FEATURES))

    def loss(params):
        meta = params["meta"]
        hidden = jnp.maximum(features @ meta["w1"] + meta["b1"][None], 0)
        context = params["context"][None] + (hidden @ meta["w2"] + meta["b2"][None])[:, None]
        logits, own = plain_logits(towers, context, features)
        ce = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, LABELS))
        order = draw(constants_of(towers)["data"], method.views, TRANSFORMS, Seeds(), 0)["train"].index
        cma = cross_modal_alignment(features[order], own[order], jnp.asarray(LABELS)[order])
        return 0.7 * ce + 0.3 * cma

    value, gradient = jax.jit(jax.value_and_grad(loss))(before.params["prompt"])
    assert metrics["loss"] == pytest.approx(float(value), rel=1e-5)
    moved = jax.tree.map(lambda a, b: (a - b) / 0.1, before.params["prompt"], after.params["prompt"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 + 1e-3 * np.abs(b).max()), moved, gradient)
    assert np.abs(gradient["meta"]["w1"]).max() > 1e-5


def test_weight_zero_is_coop(towers):
    ctx, constants = context_of(towers, prompt_net((3, WIDTH)), "text"), constants_of(towers, "text")
    _, coop, _ = one_step(PromptLearning(batch_size=8), ctx, constants)
    aligned = PromptLearning(alignment="released", batch_size=8)
    step = map_runs(make_step(ctx, TRANSFORMS), "vmap")
    states = stack([init_state(aligned, Seeds(), ctx)] * 2)
    seeds = stack([Seeds()] * 2)
    both, _ = jax.jit(step.update)(with_settings(aligned, {"weight": jnp.array([0.0, 0.5])}), states, constants, seeds)
    context = both.params["prompt"]["context"]
    np.testing.assert_allclose(context[0], coop.params["prompt"]["context"], atol=1e-5)  # products of another shape
    assert np.abs(context[1] - context[0]).max() > 1e-3


def test_pixels_go_through_the_image_tower(towers):
    """The same prompt from pictures as from features computed beforehand."""
    pixels = TRANSFORMS["pixels"](None, jnp.asarray(IMAGES))
    features = jax.jit(lambda v, x: towers[0]["image"].apply(*v, x, train=False)[0])(towers[1]["image"], pixels)
    prompt = prompt_net((3, WIDTH))
    live = PromptLearning(cached=False, transform="pixels", batch_size=8)
    constants = constants_of(towers, "text", "image", x=IMAGES)
    _, after, _ = one_step(live, context_of(towers, prompt, "text", "image"), constants)
    _, cached, _ = one_step(
        PromptLearning(batch_size=8), context_of(towers, prompt, "text"), constants_of(towers, "text", x=features)
    )
    np.testing.assert_allclose(after.params["prompt"]["context"], cached.params["prompt"]["context"], atol=1e-6)


def test_a_balanced_batch_has_as_many_of_each_class(towers):
    method = PromptLearning(per_class=2, batch_size=4)
    shots = jnp.asarray(RNG.normal(size=(3, 5, 8)))
    batch = draw({"classes": {"x": shots, "labels": jnp.arange(3)}}, method.views, TRANSFORMS, Seeds(), 0)
    drawn = method.draws(stream("noise", 0), batch, None)
    x, labels = method.samples(batch, drawn)
    assert sorted(np.bincount(labels, minlength=3)) == [0, 2, 2]
    for row, label in zip(x, labels, strict=True):
        assert np.any(np.all(shots[label] == row[None], axis=1))
    assert not np.array_equal(x[0], x[1]) and not np.array_equal(x[2], x[3])


@pytest.mark.parametrize("specific", [False, True])
def test_chunks_are_exact(towers, specific):
    text, (params, state) = towers[0]["text"], towers[1]["text"]
    context = jnp.asarray(RNG.normal(size=(3, 3, WIDTH) if specific else (3, WIDTH)), jnp.float32)

    def value(context, chunk):
        def tower(x, end):
            return text.apply(params, state, x, end, train=False)[0]

        found = prompt_features(tower, context, params["token_embedding"], prompts_of(), chunk)
        return jnp.sum(found**2), found

    both = [jax.jit(jax.grad(value, has_aux=True), static_argnums=1)(context, chunk) for chunk in (0, 2)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), *both)


def test_evaluated_on_other_classes(towers):
    """The prompt with other names is the network with other `Prompts`; its head is what the logits come from."""
    method, ctx = PromptLearning(), context_of(towers, prompt_net((3, WIDTH)), "text")
    state = init_state(method, Seeds(), ctx)
    model = method.evaluated(state, constants_of(towers, "text"), ctx)["raw"]
    own, text, _, scale = model.params
    other = dataclasses.replace(model, params=(own, text, prompts_of(names=[[4], [3]]), scale))
    x = jnp.asarray(FEATURES)
    found = jax.jit(lambda model, x: model(x))(other, x)
    assert found.logits.shape == (8, 2)
    np.testing.assert_allclose(clip.unit(x) @ other.head.weights.T, found.logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(other.head.weights, axis=1), np.exp(SCALE), rtol=1e-5)
    assert method.network(ctx) is method.network(ctx)  # or each evaluation would be compiled


def test_words_begin_a_prompt_and_noise_otherwise():
    words = jnp.ones((2, WIDTH))
    np.testing.assert_array_equal(prompt_net((3, 2, WIDTH), initial=words).init(jax.random.key(0))[0]["context"], 1)
    drawn = prompt_net((500, WIDTH)).init(jax.random.key(0))[0]["context"]
    assert np.std(drawn) == pytest.approx(0.02, rel=0.05)


def test_zero_shot_changes_nothing():
    texts = clip.unit(jnp.asarray(RNG.normal(size=(3, 8)), jnp.float32))
    method = ZeroShot()
    ctx = Context({"prompt": fixed_texts(texts)}, {"main": Optimizer(optax.identity())}, Facts(3, 1))
    constants = {"data": {}, "logit_scale": jnp.float32(SCALE)}
    before, after, _ = one_step(method, ctx, constants)
    assert after.step == 1
    np.testing.assert_array_equal(after.params["prompt"]["texts"], texts)
    model: Model = method.evaluated(after, constants, ctx)["raw"]
    expected = np.exp(SCALE) * np.asarray(clip.unit(jnp.asarray(FEATURES)) @ texts.T)
    np.testing.assert_allclose(model(jnp.asarray(FEATURES)).logits, expected, rtol=1e-5, atol=1e-6)
