"""The contract that every method is written on: one small method of each kind, its numbers computed by hand."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import infojax as ij
from infojax.evaluate import Sample, classify, forward, interplay, neural_collapse, on_sample
from infojax.models import Output
from infojax.objectives import (
    Aux,
    Average,
    Batch,
    Context,
    Facts,
    InformationTerm,
    Model,
    Net,
    Nets,
    Objective,
    Optimizer,
    Seeds,
    Supervised,
    View,
    descend,
    flat_settings,
    init_state,
    move_averages,
    objective,
    with_settings,
)
from infojax.train.draw import draw
from infojax.train.networks import as_net
from infojax.train.step import make_step, map_runs, stack

RNG = np.random.default_rng(0)
N, DIM, CLASSES = 48, 6, 3
LABELS = np.arange(N) % CLASSES
X = (RNG.normal(size=(CLASSES, DIM))[LABELS] + RNG.normal(size=(N, DIM))).astype(np.float32)
SOURCE = {"x": jnp.asarray(X), "labels": jnp.asarray(LABELS)}
LABELLED = {name: array[:12] for name, array in SOURCE.items()}
CONSTANTS = {"data": {"train": SOURCE, "labelled": LABELLED}}
LIKE = jax.ShapeDtypeStruct((2, DIM), jnp.float32)
TRANSFORMS = {
    "plain": lambda key, x: x,
    "weak": lambda key, x: x + 0.1 * jax.random.normal(key, x.shape),
    "strong": lambda key, x: x + 0.5 * jax.random.normal(key, x.shape),
}
RATE = 0.1


class Classifier(nn.Module):
    width: int = 5

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(not train, momentum=0.9, name="bn")(nn.Dense(self.width, name="first")(x))
        embedding = nn.relu(x)
        return Output(nn.Dense(CLASSES, name="head")(embedding), embedding, {"first": x})


class Encoder(nn.Module):
    """No classifier."""

    @nn.compact
    def __call__(self, x, train):
        embedding = nn.tanh(nn.Dense(4, name="first")(x))
        return Output(None, embedding, {})


class Projector(nn.Module):
    """With its own batch normalisation."""

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(4)(nn.relu(nn.BatchNorm(not train, momentum=0.9, name="bn")(nn.Dense(5)(x))))


class Prompt(nn.Module):
    @nn.compact
    def __call__(self, train):
        return self.param("prompt", nn.initializers.normal(0.1), (1, DIM))


NET = as_net(Classifier(), LIKE)


def context(**nets):
    return Context({"net": NET} | nets, {"main": Optimizer(optax.sgd(RATE))}, FACTS)


FACTS = Facts(num_classes=CLASSES, total_steps=100, num_unlabelled=N)


def ce(logits, labels):
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def stepped(method, ctx, steps=2, constants=CONSTANTS, seeds=Seeds()):  # noqa: B008
    """The states from the first to the last, and the last metrics."""
    step = jax.jit(make_step(ctx, TRANSFORMS))
    states = [jax.jit(lambda method, seeds: init_state(method, seeds, ctx))(method, seeds)]
    for _ in range(steps):
        state, metrics = step(method, states[-1], constants, seeds)
        states.append(state)
    return states, metrics


def batch_of(method, state, seeds=Seeds(), constants=CONSTANTS):  # noqa: B008
    """The batch that the step at a state draws."""
    return jax.jit(lambda data, seeds, step: draw(data, method.views, TRANSFORMS, seeds, step))(
        constants["data"], seeds, state.step
    )


def apply(net, params, statistics, x, train=True):
    return net.apply(params, statistics, x, train=train)


def close(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **({"rtol": 2e-5, "atol": 2e-6} | tolerance))


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def minus(params, gradients, rate=RATE):
    return jax.tree.map(lambda p, g: np.asarray(p) - rate * np.asarray(g), params, gradients)


# The batch


@objective
class PiModel(Objective):
    """Two noisy passes of each sample agree: one transform twice, the statistics follow the first pass only."""

    views = (View("labelled", size=6), View("train", {"weak1": "weak", "weak2": "weak"}, 12, name="unlabelled"))
    weight: float = 2.0

    def loss(self, nets, state, constants, batch, draws, ctx):
        labelled, unlabelled = batch["labelled"], batch["unlabelled"].views
        supervised = ce(nets("net", labelled.views["plain"]).logits, labelled.labels)
        one, two = (
            jax.nn.softmax(nets("net", unlabelled[name], update_statistics=False).logits) for name in unlabelled
        )
        return supervised + self.weight * jnp.mean((one - two) ** 2), Aux()


def test_one_transform_twice_and_statistics_of_one_pass():
    method, ctx = PiModel(), context()
    states, metrics = stepped(method, ctx, 1)
    before, after = states
    batch = batch_of(method, before)
    one, two = batch["unlabelled"].views.values()
    assert list(batch["unlabelled"].views) == ["weak1", "weak2"] and np.all(one != two)

    def loss(params):
        labelled, statistics = apply(NET, params, before.model_state["net"], batch["labelled"].views["plain"])
        soft = [jax.nn.softmax(apply(NET, params, before.model_state["net"], x)[0].logits) for x in (one, two)]
        value = ce(labelled.logits, batch["labelled"].labels) + 2 * jnp.mean((soft[0] - soft[1]) ** 2)
        return value, statistics

    (value, statistics), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(before.params["net"])
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-5)
    close(after.params["net"], minus(before.params["net"], gradients))
    close(after.model_state["net"], statistics)


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ((View("train"), View("train", ("weak",))), "two views are called 'train'; give one of them a name"),
        ((View("train", ("weak", "weak")),), "'train' has a transform twice"),
    ],
)
def test_duplicate_names_of_arrays_are_refused_when_the_objective_is_built(views, message):
    clash = objective(type("Clash", (Objective,), {"views": views}))
    with pytest.raises(ValueError, match=message):
        clash()


def test_a_batch_has_views_labels_indices_and_the_other_arrays_of_its_source():
    data = {"train": SOURCE | {"digits": SOURCE["labels"][:, None] * 10, "index_of_mine": jnp.arange(N)}}
    views = (View("train", ("plain", "weak"), 8), View("train", ("plain",), "all", name="everything"))
    batch = draw(data, views, TRANSFORMS, Seeds(), 3)
    some, everything = batch["train"], batch["everything"]
    np.testing.assert_array_equal(some.views["plain"], X[some.index])
    np.testing.assert_array_equal(some.labels, LABELS[some.index])
    np.testing.assert_array_equal(some.extra["digits"][:, 0], 10 * LABELS[some.index])
    np.testing.assert_array_equal(some.extra["index_of_mine"], some.index)
    np.testing.assert_array_equal(everything.views["plain"], X)
    np.testing.assert_array_equal(everything.index, np.arange(N))


# State that a loss does not mention


@objective
class FlexMatch(Objective):
    """Pseudo-labels above a threshold of their class; each unlabelled sample's last confident guess is remembered."""

    views = (View("train", ("weak", "strong"), 16),)
    threshold: float = 0.4
    remembers: bool = True

    def init(self, key, ctx):
        return jnp.full(ctx.facts.num_unlabelled, -1)

    def loss(self, nets, state, constants, batch, draws, ctx):
        rows = batch["train"]
        soft = jax.nn.softmax(jax.lax.stop_gradient(nets("net", rows.views["weak"]).logits))
        guess, sure = jnp.argmax(soft, -1), jnp.max(soft, -1) > self.threshold
        strong = nets("net", rows.views["strong"], update_statistics=False).logits
        losses = optax.softmax_cross_entropy_with_integer_labels(strong, guess)
        memory = state.method.at[rows.index].set(jnp.where(sure, guess, state.method[rows.index]))
        return jnp.mean(sure * losses), Aux(memory if self.remembers else None, {"confident": jnp.mean(sure)})


def test_a_memory_by_sample():
    method, ctx = FlexMatch(), context()
    states, metrics = stepped(method, ctx, 2)
    expected = np.full(N, -1)
    for state in states[:2]:
        rows = batch_of(method, state)["train"]
        logits = apply(NET, state.params["net"], state.model_state["net"], rows.views["weak"])[0].logits
        soft = np.asarray(jax.nn.softmax(logits))
        sure = soft.max(1) > 0.4
        expected[np.asarray(rows.index)[sure]] = soft.argmax(1)[sure]
    assert 0 < np.sum(expected >= 0) < N
    np.testing.assert_array_equal(states[-1].method, expected)
    assert float(metrics["confident"]) == pytest.approx(np.mean(sure))


def test_what_a_loss_omits_stays_unchanged():
    ctx = context()
    state = init_state(FlexMatch(), Seeds(), ctx)._replace(method=jnp.arange(N))
    after, _ = jax.jit(make_step(ctx, TRANSFORMS))(FlexMatch(remembers=False), state, CONSTANTS, Seeds())
    np.testing.assert_array_equal(after.method, np.arange(N))


# Statistics


@objective
class MixMatch(Objective):
    """Labelled and unlabelled rows are mixed and pass in chunks; the running statistics follow the first chunk."""

    views = (View("labelled", ("weak",), 6), View("train", ("weak",), 12, replacement=True))

    def draws(self, key, batch, ctx):
        mix, order = jax.random.split(key)
        return {"mix": jax.random.beta(mix, 0.75, 0.75), "order": jax.random.permutation(order, 18)}

    def loss(self, nets, state, constants, batch, draws, ctx):
        rows = jnp.concatenate([batch["labelled"].views["weak"], batch["train"].views["weak"]])
        share = jnp.maximum(draws["mix"], 1 - draws["mix"])
        mixed = jnp.split(share * rows + (1 - share) * rows[draws["order"]], 3)
        logits = [nets("net", x, update_statistics=i == 0).logits for i, x in enumerate(mixed)]
        return ce(logits[0], batch["labelled"].labels) + jnp.mean(jnp.concatenate(logits[1:]) ** 2), Aux()


def test_chunks_and_recorded_draws():
    """The recorded coefficient and permutation replace the drawn ones."""
    method, ctx = MixMatch(), context()
    state = init_state(method, Seeds(), ctx)
    batch, order = batch_of(method, state), np.arange(18)[::-1].copy()
    recorded = {"mix": jnp.asarray(0.3), "order": jnp.asarray(order)}
    after, metrics = method.update(state, CONSTANTS, batch, jax.random.key(1), ctx, recorded)
    rows = np.concatenate([batch["labelled"].views["weak"], batch["train"].views["weak"]])
    mixed = np.split(0.7 * rows + 0.3 * rows[order], 3)
    params, statistics = state.params["net"], state.model_state["net"]
    outputs = [apply(NET, params, statistics, jnp.asarray(x)) for x in mixed]
    rest = np.concatenate([output.logits for output, _ in outputs[1:]])
    expected = ce(outputs[0][0].logits, batch["labelled"].labels) + np.mean(rest**2)
    assert float(metrics["loss"]) == pytest.approx(float(expected), rel=1e-5)
    close(after.model_state["net"], outputs[0][1])
    drawn = [method.update(state, CONSTANTS, batch, jax.random.key(seed), ctx)[1]["loss"] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_successive_passes_move_the_statistics_one_after_the_other():
    """As a module called twice does in PyTorch."""
    ctx = context()
    state = init_state(Supervised(), Seeds(), ctx)
    nets = Nets(state, {}, jax.random.key(0), ctx)
    first, second = jnp.asarray(X[:8]), jnp.asarray(X[8:16])
    nets("net", first)
    nets("net", second)
    nets("net", second, train=False)
    once = apply(NET, state.params["net"], state.model_state["net"], first)[1]
    close(nets.statistics["net"], apply(NET, state.params["net"], once, second)[1])


@objective
class VAT(Objective):
    """Divergence in the direction that changes the output most: a gradient in the input, inside the loss."""

    views = (View("train", ("weak",), 8),)
    radius: float = 0.5

    def draws(self, key, batch, ctx):
        return jax.random.normal(key, batch["train"].views["weak"].shape)

    def loss(self, nets, state, constants, batch, draws, ctx):
        x = batch["train"].views["weak"]
        logits = functools.partial(nets, "net", update_statistics=False)
        clean = jax.nn.log_softmax(jax.lax.stop_gradient(logits(x).logits))

        def divergence(d):
            return jnp.mean(jnp.sum(jnp.exp(clean) * (clean - jax.nn.log_softmax(logits(x + d).logits)), -1))

        _, d = jax.jvp(jax.grad(divergence), (jnp.zeros_like(x),), (draws,))
        d = jax.lax.stop_gradient(d / jnp.linalg.norm(d, axis=1, keepdims=True))
        return divergence(self.radius * d), Aux()


def test_a_gradient_in_the_input():
    """The direction is the Hessian times the draw: compared with finite differences in float64."""
    with jax.enable_x64(True):
        method, ctx = VAT(), context()
        state = jax.tree.map(
            lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, init_state(method, Seeds(), ctx)
        )
        x, direction = jnp.asarray(X[:8], jnp.float64), jnp.asarray(RNG.normal(size=(8, DIM)))
        batch = {"train": Batch({"weak": x}, jnp.asarray(LABELS[:8]), jnp.arange(8))}
        after, metrics = method.update(state, CONSTANTS, batch, jax.random.key(0), ctx, direction)
        params, statistics = state.params["net"], state.model_state["net"]

        def log_p(x, params=params):
            return jax.nn.log_softmax(apply(NET, params, statistics, x)[0].logits)

        def kl(d, params=params):
            clean = log_p(x)
            return jnp.mean(jnp.sum(jnp.exp(clean) * (clean - log_p(x + d, params)), -1))

        d = (jax.jit(jax.grad(kl))(1e-6 * direction) - jax.jit(jax.grad(kl))(-1e-6 * direction)) / 2e-6
        d = 0.5 * d / jnp.linalg.norm(d, axis=1, keepdims=True)
        assert float(metrics["loss"]) == pytest.approx(float(kl(d)), rel=1e-6)
        gradients = jax.jit(jax.grad(lambda params: kl(d, params)))(params)
        close(after.params["net"], minus(params, gradients), rtol=1e-6, atol=1e-9)
        assert equal(after.model_state, state.model_state)


# Averages


@objective
class BYOL(Objective):
    """A target that follows by averaging, with its own batch statistics; evaluators do not see it."""

    views = (View("train", {"one": "weak", "two": "strong"}, 16),)

    @property
    def averages(self):
        return {
            "target": Average(("net", "projector"), lambda step: 1 - 0.5 / step, statistics=True, evaluated=False),
            "ema": Average(("net",), 0.9),
        }

    def loss(self, nets, state, constants, batch, draws, ctx):
        def projected(nets, x):
            z = nets("projector", nets("net", x).embedding)
            return z / jnp.sqrt(jnp.sum(z**2, -1, keepdims=True) + 1e-12)

        x = batch["train"].views
        online, target = projected(nets, x["one"]), projected(nets.averaged("target"), x["two"])
        return jnp.mean(jnp.sum((online - target) ** 2, -1)), Aux()


PROJECTOR = as_net(Projector(), jax.ShapeDtypeStruct((2, 5), jnp.float32))


def test_a_target_with_statistics_of_its_own():
    method, ctx = BYOL(), context(projector=PROJECTOR)
    states, _ = stepped(method, ctx, 2)
    for before, after in zip(states, states[1:], strict=False):
        views = batch_of(method, before)["train"].views
        output, net = apply(NET, before.averages["target"]["net"], before.model_state["target/net"], views["two"])
        _, projector = apply(
            PROJECTOR, before.averages["target"]["projector"], before.model_state["target/projector"], output.embedding
        )
        close(after.model_state["target/net"], net)
        close(after.model_state["target/projector"], projector)
        online = apply(NET, before.params["net"], before.model_state["net"], views["one"])[1]
        close(after.model_state["net"], online)
        decay = 1 - 0.5 / int(after.step)
        mean = jax.tree.map(lambda m, p, d=decay: d * m + (1 - d) * p, before.averages["target"], after.params)
        close(after.averages["target"], mean)
    assert not equal(states[-1].model_state["target/net"], states[-1].model_state["net"])
    assert set(method.evaluated(states[-1], CONSTANTS, ctx)) == {"raw", "ema"}


def test_no_gradient_reaches_an_average():
    ctx = context(projector=PROJECTOR)
    state = init_state(BYOL(), Seeds(), ctx)

    def loss(averages):
        nets = Nets(state._replace(averages=averages), {}, jax.random.key(0), ctx)
        return jnp.sum(nets.averaged("target")("net", jnp.asarray(X)).embedding ** 2)

    assert not any(np.any(leaf) for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(state.averages)))


def test_an_average_without_statistics_takes_those_of_the_net():
    ctx = context()
    state = init_state(Supervised(), Seeds(), ctx)
    state = state._replace(model_state=jax.tree.map(lambda leaf: leaf + 0.5, state.model_state))
    nets = Nets(state, {}, jax.random.key(0), ctx)
    found = nets.averaged("ema")("net", jnp.asarray(X), train=False)
    expected = apply(NET, state.averages["ema"]["net"], state.model_state["net"], jnp.asarray(X), False)[0]
    close(found.logits, expected.logits)
    nets.averaged("ema")("net", jnp.asarray(X))
    assert equal(nets.statistics, state.model_state)
    with pytest.raises(ValueError, match="no average 'target'; there is ema"):
        nets.averaged("target")
    with pytest.raises(ValueError, match="the average 'ema' has no net 'projector', but net"):
        nets.averaged("ema")("projector", jnp.asarray(X))


def test_averages_of_some_nets():
    state = stepped(Supervised(transform="plain"), context(), 1)[0][-1]
    moved = move_averages({"ema": Average(("net",), 0.0)}, state)
    close(moved.averages["ema"]["net"], state.params["net"])


# Optimisers


@objective
class MetaPseudoLabels(Objective):
    """Two networks and two optimisers; the teacher's update depends on what the student's did."""

    views = (View("train", ("weak", "strong"), 16),)

    def optimise(self, state, constants, batch, draws, key, ctx):
        rows = batch["train"]
        before = self.labelled(Nets(state, constants, key, ctx), rows)
        state, student = descend(self.student, state, constants, batch, draws, key, ctx, optimizer="student")
        gain = before - self.labelled(Nets(state, constants, key, ctx), rows)

        def teacher(nets, state, constants, batch, draws, ctx):
            guess = nets("teacher", rows.views["strong"], update_statistics=False).logits
            own = ce(nets("teacher", rows.views["weak"]).logits, rows.labels)
            return own + gain * ce(guess, jnp.argmax(guess, -1)), Aux()

        state, metrics = descend(teacher, state, constants, batch, draws, key, ctx, optimizer="teacher")
        return state, {"loss": student["loss"], "teacher": metrics["loss"], "gain": gain}

    def labelled(self, nets, rows):
        return ce(nets("net", rows.views["weak"], train=False).logits, rows.labels)

    def student(self, nets, state, constants, batch, draws, ctx):
        guess = jnp.argmax(nets("teacher", batch["train"].views["weak"], update_statistics=False).logits, -1)
        return ce(nets("net", batch["train"].views["strong"]).logits, guess), Aux()


TEACHER = as_net(Classifier(7), LIKE)


def two_optimizers():
    decay = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(RATE))
    optimizers = {"student": Optimizer(decay, ("net",)), "teacher": Optimizer(optax.sgd(0.02), ("teacher",))}
    return Context({"net": NET, "teacher": TEACHER}, optimizers, FACTS)


def test_two_updates_in_a_step():
    """Each optimiser differentiates and moves its own net, decay included; the step is counted once."""
    method, ctx = MetaPseudoLabels(), two_optimizers()
    (before, after), metrics = stepped(method, ctx, 1)
    rows = batch_of(method, before)["train"]
    weak, strong, labels = rows.views["weak"], rows.views["strong"], rows.labels
    student, teacher = before.params["net"], before.params["teacher"]
    of_student, of_teacher = before.model_state["net"], before.model_state["teacher"]
    guess = jnp.argmax(apply(TEACHER, teacher, of_teacher, weak)[0].logits, -1)

    def student_loss(params):
        output, statistics = apply(NET, params, of_student, strong)
        return ce(output.logits, guess), statistics

    gradients, statistics = jax.jit(jax.grad(student_loss, has_aux=True))(student)
    moved = minus(student, jax.tree.map(lambda g, p: g + 0.5 * p, gradients, student))
    close(after.params["net"], moved)
    gain = ce(apply(NET, student, of_student, weak, False)[0].logits, labels) - ce(
        apply(NET, moved, statistics, weak, False)[0].logits, labels
    )
    assert float(metrics["gain"]) == pytest.approx(float(gain), abs=1e-5)

    def teacher_loss(params):
        z = apply(TEACHER, params, of_teacher, strong)[0].logits
        return ce(apply(TEACHER, params, of_teacher, weak)[0].logits, labels) + gain * ce(z, jnp.argmax(z, -1))

    close(after.params["teacher"], minus(teacher, jax.jit(jax.grad(teacher_loss))(teacher), 0.02))
    assert int(after.step) == 1


def test_parameters_do_not_depend_on_the_other_nets():
    alone, beside = (
        init_state(Supervised(), Seeds(3), ctx).params
        for ctx in (context(), Context({"a": PROJECTOR, "net": NET, "z": TEACHER}, {}, FACTS))
    )
    assert equal(alone["net"], beside["net"])
    assert equal(
        beside["z"], init_state(Supervised(), Seeds(3), Context({"net": NET, "z": TEACHER}, {}, FACTS)).params["z"]
    )
    assert not equal(beside["z"]["first"]["kernel"][:, :5], beside["net"]["first"]["kernel"])


# Other networks than classifiers


@objective
class MaskedAutoencoder(Objective):
    """A part of each sample is hidden and guessed; the masks are drawn for all samples of the global batch."""

    views = (View("train", ("plain",), 16),)
    kept: int = 2

    def draws(self, key, batch, ctx):
        return jax.random.uniform(key, batch["train"].views["plain"].shape)

    def loss(self, nets, state, constants, batch, draws, ctx):
        x = batch["train"].views["plain"]
        hidden = jnp.argsort(jnp.argsort(draws, axis=1), axis=1) >= self.kept
        guess = nets("decoder", nets("net", jnp.where(hidden, 0, x)).embedding)
        return jnp.sum(hidden * (guess - x) ** 2) / jnp.sum(hidden), Aux()


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(DIM)(x)


ENCODER = as_net(Encoder(), LIKE)
DECODER = as_net(Linear(), jax.ShapeDtypeStruct((2, 4), jnp.float32))


def headless():
    return Context({"net": ENCODER, "decoder": DECODER}, {"main": Optimizer(optax.sgd(RATE))}, FACTS)


def test_masks_and_a_network_without_a_head():
    method, ctx = MaskedAutoencoder(), headless()
    state = init_state(method, Seeds(), ctx)
    batch, noise = batch_of(method, state), RNG.uniform(size=(16, DIM))
    _, metrics = method.update(state, CONSTANTS, batch, jax.random.key(0), ctx, jnp.asarray(noise))
    x, total = np.asarray(batch["train"].views["plain"]), 0.0
    for row, ranks in zip(x, noise, strict=True):
        visible = np.zeros(DIM)
        kept = np.argsort(ranks)[:2]
        visible[kept] = row[kept]
        params = state.params["net"]["first"]
        z = np.tanh(visible @ np.asarray(params["kernel"]) + np.asarray(params["bias"]))
        of = state.params["decoder"]["Dense_0"]
        error = (z @ np.asarray(of["kernel"]) + np.asarray(of["bias"]) - row) ** 2
        total += error.sum() - error[kept].sum()
    assert float(metrics["loss"]) == pytest.approx(total / (16 * 4), rel=1e-5)


def evaluated(method, ctx, state, constants=CONSTANTS):
    sample = Sample("test", jnp.asarray(X), jnp.asarray(LABELS))
    run = on_sample(forward(TRANSFORMS["plain"], 20), sample, (classify, interplay, neural_collapse))
    return dict(run(method.evaluated(state, constants, ctx)))


def test_evaluators_of_a_network_without_a_head():
    method, ctx = MaskedAutoencoder(), headless()
    state = init_state(method, Seeds(), ctx)
    found = evaluated(method, ctx, state)
    z = apply(ENCODER, state.params["net"], {}, jnp.asarray(X), False)[0].embedding
    assert found["entropy_features"] == pytest.approx(float(ij.matrix_entropy(z)), rel=1e-5)
    assert found["nc1"] == pytest.approx(float(ij.nc1(z, LABELS)), rel=1e-4)
    assert not {"accuracy", "loss", "mir", "nc3", "mse_head"} & found.keys()
    with pytest.raises(ValueError, match="the net 'net' has no classifier head"):
        Nets(state, {}, jax.random.key(0), ctx).head()


@objective
class Prompted(Objective):
    """Only a prompt is trained, in front of a frozen classifier; evaluators see both as one network."""

    views = (View("train", ("plain",), 16),)

    def loss(self, nets, state, constants, batch, draws, ctx):
        logits = nets("tower", batch["train"].views["plain"] + nets("prompt")).logits
        return ce(logits, batch["train"].labels), Aux()

    def network(self, ctx):
        return prompted(ctx.nets["tower"], ctx.nets["prompt"])

    def evaluated(self, state, constants, ctx):
        params, statistics = constants["frozen"]["tower"]
        return {"raw": Model((state.params["prompt"], params), statistics, self.network(ctx))}


@functools.cache
def prompted(tower, prompt):
    """A prompt and a tower as one network."""

    def both(params, model_state, x, train, **options):
        own, rest = params
        shift = prompt.apply(own, {}, train=train)[0]
        return tower.apply(rest, model_state, x + shift, train=train, **options)

    return Net(None, both, lambda params: tower.head(params[1]))


def prompt_context():
    nets = {"tower": NET, "prompt": as_net(Prompt())}
    return Context(nets, {"main": Optimizer(optax.sgd(RATE))}, FACTS, frozen=("tower",))


FROZEN = CONSTANTS | {"frozen": {"tower": NET.init(jax.random.key(5))}}


def test_a_prompt_on_a_frozen_tower():
    method, ctx = Prompted(), prompt_context()
    (before, after), _ = stepped(method, ctx, 1, FROZEN)
    assert set(before.params) == {"prompt"} == set(before.model_state)
    rows, (tower, statistics) = batch_of(method, before)["train"], FROZEN["frozen"]["tower"]

    def loss(prompt):
        x = rows.views["plain"] + prompt["prompt"]
        return ce(apply(NET, tower, statistics, x, False)[0].logits, rows.labels)

    close(after.params["prompt"], minus(before.params["prompt"], jax.jit(jax.grad(loss))(before.params["prompt"])))
    found = evaluated(method, ctx, after, FROZEN)
    shifted = jnp.asarray(X) + after.params["prompt"]["prompt"]
    logits = np.asarray(apply(NET, tower, statistics, shifted, False)[0].logits)
    assert found["accuracy"] == pytest.approx(np.mean(logits.argmax(1) == LABELS))
    assert found["entropy_head_weights"] == pytest.approx(float(ij.matrix_entropy(tower["head"]["kernel"].T)), rel=1e-5)


# The papers' terms, held by any objective


@objective
class PseudoLabels(Objective):
    """FixMatch's guesses with an information term between the strong view's features and the guessed rows."""

    views = (View("train", ("weak", "strong"), 16),)
    information: InformationTerm = InformationTerm(0.5, "mi")
    threshold: float = 0.4

    def loss(self, nets, state, constants, batch, draws, ctx):
        views = batch["train"].views
        soft = jax.nn.softmax(jax.lax.stop_gradient(nets("net", views["weak"]).logits))
        guess, sure = jnp.argmax(soft, -1), jnp.max(soft, -1) > self.threshold
        strong = nets("net", views["strong"], update_statistics=False)
        value = jnp.mean(sure * optax.softmax_cross_entropy_with_integer_labels(strong.logits, guess))
        term, metrics = self.information(strong.embedding, guess, nets.head(), ctx, weights=sure)
        return value + term, Aux(metrics=metrics)


def test_an_information_term_in_another_objective():
    method, ctx = PseudoLabels(), context()
    (before, _), metrics = stepped(method, ctx, 1)
    views = batch_of(method, before)["train"].views
    params, statistics = before.params["net"], before.model_state["net"]
    soft = np.asarray(jax.nn.softmax(apply(NET, params, statistics, views["weak"])[0].logits))
    strong, guess, sure = apply(NET, params, statistics, views["strong"])[0], soft.argmax(1), soft.max(1) > 0.4
    assert 1 < sure.sum() < 16
    head = np.asarray(params["head"]["kernel"]).T
    mi = ij.mutual_information(strong.embedding[sure], head[guess[sure]])
    losses = np.asarray(optax.softmax_cross_entropy_with_integer_labels(strong.logits, guess))
    assert float(metrics["loss"]) == pytest.approx(float(np.mean(sure * losses) - 0.5 * mi), abs=1e-4)


def test_settings_of_an_objective_and_its_parts_are_one_flat_list():
    method = PseudoLabels()
    assert flat_settings(method) == {"strength": 0.5, "term": "mi", "to": "both", "normalise": False, "threshold": 0.4}
    changed = with_settings(method, {"strength": 2.0, "threshold": 0.9})
    assert (changed.information.strength, changed.threshold, changed.information.term) == (2.0, 0.9, "mi")
    with pytest.raises(ValueError, match="PseudoLabels has no stength"):
        with_settings(method, {"stength": 1.0})


# Every method, in a group, on several devices, continued, and with all samples in a step

METHODS = {
    "supervised": (Supervised(transform="weak", batch_size=16), context, CONSTANTS),
    "pi_model": (PiModel(), context, CONSTANTS),
    "flexmatch": (FlexMatch(), context, CONSTANTS),
    "mixmatch": (MixMatch(), context, CONSTANTS),
    "vat": (VAT(), context, CONSTANTS),
    "byol": (BYOL(), functools.partial(context, projector=PROJECTOR), CONSTANTS),
    "meta_pseudo_labels": (MetaPseudoLabels(), two_optimizers, CONSTANTS),
    "mae": (MaskedAutoencoder(), headless, CONSTANTS),
    "prompt": (Prompted(), prompt_context, FROZEN),
    "pseudo_labels": (PseudoLabels(), context, CONSTANTS),
}
ALL = pytest.mark.parametrize("name", METHODS)


@functools.cache
def alone(name, seed):
    method, make, constants = METHODS[name]
    return stepped(method, make(), 2, constants, Seeds(seed, seed, seed))


@ALL
def test_a_group_is_its_runs_alone(name):
    method, make, constants = METHODS[name]
    ctx, seeds = make(), [Seeds(seed, seed, seed) for seed in (0, 4)]
    state = stack([init_state(method, own, ctx) for own in seeds])
    step = map_runs(make_step(ctx, TRANSFORMS), "vmap").compiled()
    for _ in range(2):
        state, metrics = step(method, state, constants, stack(seeds))
    assert not np.any(metrics["frozen"])
    close(state, stack([alone(name, seed)[0][-1] for seed in (0, 4)]), rtol=2e-3, atol=2e-5)


@ALL
def test_one_device_and_eight(name):
    """The batch is sharded over the devices; sizes that they do not divide are padded by the compiler."""
    method, make, constants = METHODS[name]
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,), devices=jax.devices()[:8])
    rows, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec("data"), PartitionSpec()))
    divides = all(view.size % 8 == 0 for view in method.views)
    place = (lambda x: jax.lax.with_sharding_constraint(x, rows)) if divides else lambda x: x
    sharded = {key: lambda k, x, view=view: place(view(k, x)) for key, view in TRANSFORMS.items()}
    gather = lambda tree: jax.lax.with_sharding_constraint(tree, whole)  # noqa: E731
    ctx = make()._replace(gather=gather)
    state = jax.device_put(init_state(method, Seeds(0, 0, 0), ctx), whole)
    step = jax.jit(make_step(ctx, sharded))
    for _ in range(2):
        state, _ = step(method, state, constants, Seeds(0, 0, 0))
    close(state, alone(name, 0)[0][-1], rtol=2e-3, atol=2e-5)


@ALL
def test_it_continues_from_the_arrays_of_a_state(name):
    method, make, constants = METHODS[name]
    states, _ = alone(name, 0)
    step = jax.jit(make_step(make(), TRANSFORMS))
    again, _ = step(method, jax.tree.map(np.array, states[1]), constants, Seeds(0, 0, 0))
    assert equal(again, states[2])


def test_floats_of_an_objective_are_swept_with_those_of_its_parts():
    ctx, seeds = context(), [Seeds(1, 1, 1)] * 2
    methods = [with_settings(PseudoLabels(), {"strength": s, "threshold": t}) for s, t in ((0.0, 0.4), (1.0, 0.5))]
    state = stack([init_state(method, own, ctx) for method, own in zip(methods, seeds, strict=True)])
    step = map_runs(make_step(ctx, TRANSFORMS), "vmap").compiled()
    state, _ = step(stack(methods), state, CONSTANTS, stack(seeds))
    expected = stack([stepped(method, ctx, 1, seeds=seeds[0])[0][-1] for method in methods])
    close(state, expected, rtol=2e-3, atol=2e-5)
    assert not equal(*(jax.tree.map(lambda leaf, run=run: leaf[run], state.params) for run in (0, 1)))


def test_a_full_batch_of_one_view_beside_a_small_one_of_another():
    @objective
    class Full(Objective):
        views = (View("train", ("plain",), "all"), View("labelled", ("plain",), 4))

        def loss(self, nets, state, constants, batch, draws, ctx):
            return ce(nets("net", batch["train"].views["plain"]).logits, batch["train"].labels), Aux(
                metrics={"labelled": jnp.mean(batch["labelled"].labels)}
            )

    (before, _), metrics = stepped(Full(), context(), 1)
    logits = apply(NET, before.params["net"], before.model_state["net"], jnp.asarray(X))[0].logits
    assert float(metrics["loss"]) == pytest.approx(float(ce(logits, LABELS)), rel=1e-5)
    assert 0 <= float(metrics["labelled"]) <= 2
