"""Every semi-supervised method against a separate float64 NumPy computation: loss, gradients, state, statistics.

The network of the oracle is linear, logits = x @ table + bias, and samples are one-hot: the gradient in the table is
the gradient in every logit. The oracle's gradients are central differences of its loss, whose constants (guesses,
masks, targets) are held at the point where the derivative is taken.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from infojax.bench.collectives import collectives
from infojax.models import Output
from infojax.objectives import Batch, Context, Facts, Head, Net, Optimizer, Seeds, init_state, with_settings
from infojax.objectives.semisup import METHODS
from infojax.objectives.semisup.common import interleaving, joint
from infojax.objectives.semisup.flexmatch import Learnt, remembered
from infojax.objectives.semisup.remixmatch import turned
from infojax.objectives.semisup.softmatch import Usual
from infojax.train.networks import as_net
from infojax.train.step import make_step

CLASSES, DIM, LABELLED, TOTAL = 3, 4, 3, 10
RATE = 0.3
RNG = np.random.default_rng(0)


def small(name):
    """The method with a small batch, and thresholds that some of the samples pass."""
    ratio = min(METHODS[name].ratio, 2)
    changes = {"batch_size": LABELLED, "ratio": ratio}
    changes |= {
        "pseudo_label": dict(threshold=0.6), "uda": dict(threshold=0.6), "fixmatch": dict(threshold=0.6),
        "flexmatch": dict(threshold=0.7, warm=False), "freematch": dict(decay=0.02), "freematch_mi": dict(decay=0.02),
        "freematch_hd": dict(decay=0.02), "otmatch": dict(decay=0.02, cost_decay=0.6), "softmatch": dict(decay=0.5),
        "adamatch": dict(decay=0.5, threshold=0.8),
        "dash": dict(warmup=2, averaged=1, period=1, least=0.2, growth=4.0), "remixmatch": dict(model_decay=0.5),
        "mpl": dict(uda_steps=2, threshold=0.4, baseline_rate=0.2), "vat": dict(radius=0.7),
    }.get(name, {})  # fmt: skip
    return with_settings(METHODS[name], changes)


# Name -> method, settings, first step: options, and defaults that `small` replaces.
VARIANTS = {
    "fixmatch, soft labels": ("fixmatch", dict(labels="soft"), 0),
    "uda, linear": ("uda", dict(tsa="linear"), 4),
    "uda, exp": ("uda", dict(tsa="exp"), 7),
    "uda, log": ("uda", dict(tsa="log"), 0),
    "mixmatch, a coefficient per sample": ("mixmatch", dict(mix="sample"), 1),
    "flexmatch, warm": ("flexmatch", dict(warm=True, threshold=0.95), 0),
    "freematch, bounded": ("freematch", dict(least=0.5, most=0.6), 0),
}


# The network of the oracle


def linear(rows):
    """logits = x @ table + bias, embedding = x @ features, a head of its own."""

    def init(key):
        values = np.random.default_rng(7)
        table = {"logits": (rows, CLASSES), "bias": (CLASSES,), "features": (rows, DIM), "head": (CLASSES, DIM)}
        return {name: jnp.asarray(1.5 * values.normal(size=size)) for name, size in table.items()}, {}

    def apply(params, model_state, x, train, rngs=None, start=None, stop=None):
        x = x.reshape(len(x), -1)
        logits = x @ params["logits"] + params["bias"][None]
        return Output(logits, x @ params["features"], {}), model_state

    return Net(init, apply, lambda params: Head(params["head"], jnp.zeros(CLASSES)))


def rotation():
    def init(key):
        return {"kernel": jnp.asarray(np.random.default_rng(8).normal(size=(DIM, 4)))}, {}

    def apply(params, model_state, z, train, rngs=None, start=None, stop=None):
        return z @ params["kernel"], model_state

    return Net(init, apply)


def batch_of(method, repeats=True):
    """One-hot samples: a row of the table for each sample of each view; an unlabelled sample comes twice."""
    count = LABELLED * method.ratio
    names = list(method.unlabelled)
    side = int(np.ceil(np.sqrt(LABELLED + count * len(names))))  # as square pictures, which can be turned
    rows = side * side
    eye = np.eye(rows).reshape(rows, side, side, 1)
    labelled = Batch({"weak": jnp.asarray(eye[:LABELLED])}, jnp.asarray(np.arange(LABELLED) % CLASSES), jnp.arange(3))
    views = {name: jnp.asarray(eye[LABELLED + i * count :][:count]) for i, name in enumerate(names)}
    index = np.arange(count) + 5
    index[-1] = index[0] if repeats else index[-1]
    labels = RNG.integers(0, CLASSES, count)
    return {"labelled": labelled, "unlabelled": Batch(views, jnp.asarray(labels), jnp.asarray(index))}, rows


def context(method, rows):
    nets = {"net": linear(rows)}
    optimizers = {"main": Optimizer(optax.sgd(RATE))}
    if "rotation" in method.averages["ema"].nets:
        nets["rotation"] = rotation()
    if type(method).__name__ == "MPL":
        teacher = linear(rows)
        nets["teacher"] = teacher._replace(init=lambda key: (jax.tree.map(lambda x: x[::-1], teacher.init(key)[0]), {}))
        optimizers = {"main": Optimizer(optax.sgd(RATE), ("net",)), "teacher": Optimizer(optax.sgd(0.2), ("teacher",))}
    counts = (4, 2, 3)
    return Context(nets, optimizers, Facts(CLASSES, TOTAL, counts, num_unlabelled=40))


# NumPy: a loss of (params, constants at params0)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def ce(z, q):
    """(n,) with classes or distributions."""
    log_p = z - z.max(-1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(-1, keepdims=True))
    q = np.eye(z.shape[-1])[q] if np.ndim(q) == 1 else q
    return -(q * log_p).sum(-1)


def sharpen(p, t):
    return p ** (1 / t) / (p ** (1 / t)).sum(-1, keepdims=True)


def ramp(k, fraction):
    return min(k / (fraction * TOTAL), 1)


def flat(x):
    return np.asarray(x).reshape(len(x), -1)


class Oracle:
    """What a method's loss is made of, at params p, with constants at p0."""

    def __init__(self, method, batch, draws, k, state, ema):
        self.m, self.k, self.state, self.draws, self.ema = method, k, state, draws, ema
        self.y = np.asarray(batch["labelled"].labels)
        self.xl = flat(batch["labelled"].views["weak"])
        self.u = {name: flat(x) for name, x in batch["unlabelled"].views.items()}
        self.index = np.asarray(batch["unlabelled"].index)

    def z(self, p, x):
        return x @ p["net"]["logits"] + p["net"]["bias"]

    def supervised(self, p):
        return ce(self.z(p, self.xl), self.y).mean()

    def weak(self, p0):
        p = softmax(self.z(p0, self.u["weak"]))
        return p, p.max(1), p.argmax(1)


def pi_model(o, p, p0):
    one, two = softmax(o.z(p, o.u["weak1"])), softmax(o.z(p0, o.u["weak2"]))
    return o.supervised(p) + 10 * ramp(o.k, 0.4) * ((one - two) ** 2).mean(), ()


def pseudo_label(o, p, p0):
    q = softmax(o.z(p0, o.u["weak"]))
    losses = ce(o.z(p, o.u["weak"]), q.argmax(1))
    return o.supervised(p) + ramp(o.k, 0.4) * ((q.max(1) >= 0.6) * losses).mean(), ()


def vat(o, p, p0):
    x, w = o.u["weak"], p0["net"]["logits"]
    q = softmax(o.z(p0, x))
    # Hessian of KL at 0 of z(x + r) = z + r w: w (diag q - q q^T) w^T, for each sample.
    d = np.stack([w @ (np.diag(a) - np.outer(a, a)) @ w.T @ u for a, u in zip(q, flat(o.draws), strict=True)])
    r = 0.7 * d / np.linalg.norm(d, axis=1, keepdims=True)
    own = softmax(o.z(p, x))
    kl = (ce(o.z(p, x + r), q) - ce(np.log(q), q)).mean()
    entropy = ce(o.z(p, x), own).mean()
    return o.supervised(p) + 0.3 * ramp(o.k, 0.4) * kl + 0.06 * entropy, ()


def mean_teacher(o, p, p0):
    teacher = softmax(o.z({"net": o.ema}, o.u["weak1"]))
    return o.supervised(p) + 50 * ramp(o.k, 0.4) * ((softmax(o.z(p, o.u["weak2"])) - teacher) ** 2).mean(), ()


def mix(o, x):
    share = np.reshape(o.draws["share"], (-1, 1))  # one, or one per sample
    return share * x + (1 - share) * x[o.draws["order"]]


def mixmatch(o, p, p0):
    q = sharpen((softmax(o.z(p0, o.u["weak1"])) + softmax(o.z(p0, o.u["weak2"]))) / 2, 0.5)
    x = mix(o, np.concatenate([o.xl, o.u["weak1"], o.u["weak2"]]))
    t = mix(o, np.concatenate([np.eye(CLASSES)[o.y], q, q]))
    z = o.z(p, x)
    rest = ((softmax(z[LABELLED:]) - t[LABELLED:]) ** 2).mean()
    return ce(z[:LABELLED], t[:LABELLED]).mean() + 100 * ramp(o.k, 0.4) * rest, ()


def remixmatch(o, p, p0):
    q = softmax(o.z(p0, o.u["weak"]))
    model = q.mean(0) if o.k == 0 else 0.5 * o.state + 0.5 * q.mean(0)
    q = q * (np.array([4, 2, 3]) / 9 + o.m.epsilon) / (model + o.m.epsilon)
    q = sharpen(q / q.sum(1, keepdims=True), 0.5)
    x = mix(o, np.concatenate([o.xl, o.u["strong1"], o.u["strong2"], o.u["weak"]]))
    t = mix(o, np.concatenate([np.eye(CLASSES)[o.y], q, q, q]))
    z, warm = o.z(p, x), ramp(o.k, 1 / 64)
    value = ce(z[:LABELLED], t[:LABELLED]).mean() + 1.5 * warm * ce(z[LABELLED:], t[LABELLED:]).mean()
    value += 0.5 * warm * ce(o.z(p, o.u["strong1"]), q).mean()
    side = int(np.sqrt(o.xl.shape[1]))
    pictures = zip(o.u["strong1"].reshape(-1, side, side), o.draws["turns"], strict=True)
    turns = flat([np.rot90(x, k) for x, k in pictures]) @ p["net"]["features"] @ p["rotation"]["kernel"]
    return value + 0.5 * ce(turns, o.draws["turns"]).mean(), model


def uda(o, p, p0):
    weak = o.z(p0, o.u["weak"])
    mask, t = softmax(weak).max(1) >= 0.6, o.k / TOTAL
    known = ce(o.z(p, o.xl), o.y)
    if o.m.tsa != "none":
        most = {"linear": t, "exp": np.exp(5 * (t - 1)), "log": 1 - np.exp(-5 * t)}[o.m.tsa] * 2 / 3 + 1 / 3
        known = known * (softmax(o.z(p0, o.xl)).max(1) <= most)
    return known.mean() + (mask * ce(o.z(p, o.u["strong"]), softmax(weak / 0.4))).mean(), ()


def fixmatch(o, p, p0):
    _, top, guess = o.weak(p0)
    labels = guess if o.m.labels == "hard" else softmax(o.z(p0, o.u["weak"]) / 0.5)
    return o.supervised(p) + ((top >= 0.6) * ce(o.z(p, o.u["strong"]), labels)).mean(), ()


def dash(o, p, p0):
    if o.k < 2:
        now = o.supervised(p0)  # the last of the two steps of the warm-up
        return o.supervised(p), now if o.k == 1 else 0.0
    rho = max(1.0001 * o.state * 4.0 ** -(o.k - 2), 0.2)
    weak = o.z(p0, o.u["weak"])
    target = softmax(weak / 0.5) if rho > 0.2 else np.eye(CLASSES)[weak.argmax(1)]
    mask = ce(weak, target) <= rho
    return o.supervised(p) + (mask * ce(o.z(p, o.u["strong"]), target)).mean(), o.state


def flexmatch(o, p, p0):
    selected, effect = o.state["selected"].copy(), o.state["effect"]
    _, top, guess = o.weak(p0)
    counts = np.array([np.sum(selected == c) for c in range(-1, CLASSES)])
    if counts.max() < len(selected):
        effect = counts[1:] / max((counts if o.m.warm else counts[1:]).max(), 1)
    mask = top >= o.m.threshold * (effect / (2 - effect))[guess]
    value = o.supervised(p) + (mask * ce(o.z(p, o.u["strong"]), guess)).mean()
    for i, place in enumerate(o.index):
        if top[i] >= o.m.threshold:
            selected[place] = guess[i]
    counts = np.array([np.sum(selected == c) for c in range(-1, CLASSES)])
    return value, {"selected": selected, "counts": counts, "effect": effect}


def freematch(o, p, p0, state=None):
    state = o.state if state is None else state
    q, top, guess = o.weak(p0)
    shares = np.bincount(guess, minlength=CLASSES) / len(guess)
    tau, model, hist = (
        0.02 * state[name] + 0.98 * new
        for name, new in (("threshold", top.mean()), ("p_model", q.mean(0)), ("histogram", shares))
    )
    mask = top >= np.clip(tau * model / model.max(), o.m.least, o.m.most)[guess]
    strong = o.z(p, o.u["strong"])
    value = o.supervised(p) + (mask * ce(strong, guess)).mean()
    if mask.any():
        strong0 = o.z(p0, o.u["strong"])[mask]
        found = np.bincount(strong0.argmax(1), minlength=CLASSES) / mask.sum()
        b = softmax(strong[mask]).mean(0) * np.array([1 / x if x else 0 for x in found])
        a = model / hist
        value += 0.01 * (a / a.sum() * np.log(b / b.sum() + 1e-12)).sum()
    return value, {"threshold": tau, "p_model": model, "histogram": hist}


def selected(o, p0, state):
    q, top, guess = o.weak(p0)
    return top >= (state["threshold"] * state["p_model"] / state["p_model"].max())[guess], guess


def with_information(kind):
    def loss(o, p, p0):
        value, state = freematch(o, p, p0)
        mask, guess = selected(o, p0, state)
        assert mask.sum() > 1
        f, v = (cosines(x) for x in ((o.u["strong"] @ p["net"]["features"])[mask], p["net"]["head"][guess[mask]]))
        if kind == "mi":
            return value - 0.1 * (entropy(f) + entropy(v) - entropy(f * v)), state
        return value + 0.1 * abs(entropy(f) - entropy(v)), state

    return loss


def cosines(x):
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit @ unit.T


def entropy(gram):
    values = np.linalg.eigvalsh(gram / len(gram))
    values = values[values > 1e-12]
    return -np.sum(values * np.log(values))


def otmatch(o, p, p0):
    value, state = freematch(o, p, p0, o.state["confidence"])
    mask, guess = selected(o, p0, state)
    unit = p0["net"]["head"] / np.linalg.norm(p0["net"]["head"], axis=1, keepdims=True)
    cost = 0.6 * o.state["cost"] + 0.4 * (1 - unit @ unit.T) * (1 - np.eye(CLASSES))
    value += 0.5 * (mask * (cost[guess] * softmax(o.z(p, o.u["strong"]))).sum(1)).mean()
    return value, {"confidence": state, "cost": cost}


def softmatch(o, p, p0):
    q, top, guess = o.weak(p0)
    ours = softmax(o.z(p0, o.xl)).mean(0)
    new = {"mean": top.mean(), "variance": top.var(ddof=1), "p_labelled": ours, "p_unlabelled": q.mean(0)}
    state = {name: 0.5 * o.state[name] + 0.5 * new[name] for name in new}
    aligned = q * state["p_labelled"] / state["p_unlabelled"]
    aligned = (aligned / aligned.sum(1, keepdims=True)).max(1)
    w = np.exp(-(np.minimum(aligned - state["mean"], 0) ** 2) / (2 * state["variance"] / 4))
    return o.supervised(p) + (w * ce(o.z(p, o.u["strong"]), guess)).mean(), state


def adamatch(o, p, p0):
    q, ours = o.weak(p0)[0], softmax(o.z(p0, o.xl))
    new = q.mean(0) if o.k == 0 else 0.5 * o.state["p_unlabelled"] + 0.5 * q.mean(0)
    state = {"p_labelled": 0.5 * o.state["p_labelled"] + 0.5 * ours.mean(0), "p_unlabelled": new}
    state["confidence"] = ours.max(1).mean()
    q = q * (state["p_labelled"] + 1e-6) / (state["p_unlabelled"] + 1e-6)
    q = q / q.sum(1, keepdims=True)
    mask = q.max(1) >= 0.8 * state["confidence"]
    return o.supervised(p) + (mask * ce(o.z(p, o.u["strong"]), q.argmax(1))).mean(), state


ORACLES = {
    "supervised": lambda o, p, p0: (o.supervised(p), ()), "pi_model": pi_model, "pseudo_label": pseudo_label,
    "vat": vat, "mean_teacher": mean_teacher, "mixmatch": mixmatch, "remixmatch": remixmatch, "uda": uda,
    "fixmatch": fixmatch, "dash": dash, "flexmatch": flexmatch, "freematch": freematch,
    "freematch_mi": with_information("mi"), "freematch_hd": with_information("hd"), "otmatch": otmatch,
    "softmatch": softmatch, "adamatch": adamatch,
}  # fmt: skip


def plain(tree):
    """Nested dicts of float64 arrays."""
    if hasattr(tree, "_asdict"):
        return {name: plain(value) for name, value in tree._asdict().items()}
    if isinstance(tree, dict):
        return {name: plain(value) for name, value in tree.items()}
    return (
        tree if isinstance(tree, tuple) else np.asarray(tree, np.float64 if np.asarray(tree).dtype.kind == "f" else int)
    )


def gradient(loss, params, step=1e-6):
    """Central differences of loss(params) in every entry."""
    found = {}
    for net, arrays in params.items():
        found[net] = {}
        for name, array in arrays.items():
            slope = np.zeros_like(array)
            for place in np.ndindex(array.shape):
                ends = []
                for sign in (1, -1):
                    moved = array.copy()
                    moved[place] += sign * step
                    ends.append(loss({**params, net: {**arrays, name: moved}}))
                slope[place] = (ends[0] - ends[1]) / (2 * step)
            found[net][name] = slope
    return found


def compare(a, b, **tolerance):
    if isinstance(b, dict):
        assert set(a) == set(b)
        for name in b:
            compare(a[name], b[name], **tolerance)
    elif not isinstance(b, tuple):
        np.testing.assert_allclose(a, b, **tolerance)


@pytest.mark.parametrize("case", (*ORACLES, *VARIANTS))
def test_loss_gradients_and_state_are_the_oracles(case):
    """Three steps, with the state of each as the next one's."""
    name, changes, first = VARIANTS.get(case, (case, {}, 0))
    with jax.enable_x64(True):
        method = with_settings(small(name), changes)
        batch, rows = batch_of(method)
        ctx = context(method, rows)
        state = init_state(method, Seeds(), ctx)._replace(step=jnp.asarray(first))
        if case == "flexmatch, warm":
            state = state._replace(method=learnt((16, 8, 15, 1)))
        update = jax.jit(lambda state, key, draws: method.update(state, {}, batch, key, ctx, draws))
        ratios = []
        for k in range(first, first + (4 if name == "dash" else 3)):
            draws = method.draws(jax.random.key(k), batch, ctx)
            if name == "mixmatch":
                assert draws["share"].shape == ((3 * LABELLED,) if case != name else ())
            before = plain(state.params)
            known = jax.tree.map(np.asarray, draws)
            oracle = Oracle(method, batch, known, k, plain(state.method), plain(state.averages["ema"]["net"]))
            value, after = ORACLES[name](oracle, before, before)
            slopes = gradient(lambda p, o=oracle, at=before: ORACLES[name](o, p, at)[0], before)
            state, metrics = update(state, jax.random.key(k), draws)
            ratios.append(float(metrics.get("mask_ratio", 0.5)))
            assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-6)
            compare(plain(state.method), after, rtol=1e-6, atol=1e-9)
            moved = {net: {n: a - RATE * slopes[net][n] for n, a in arrays.items()} for net, arrays in before.items()}
            compare(plain(state.params), moved, rtol=0, atol=2e-7)
        assert name in ("mixmatch", "remixmatch") or any(0 < ratio < 1 for ratio in ratios)  # some are left out


def learnt(counts):
    """FlexMatch's state with given numbers of samples whose last confident guess is -1 (none yet), 0, 1, ..."""
    selected = jnp.asarray(np.repeat(np.arange(-1, CLASSES), counts), jnp.int32)
    return Learnt(selected, jnp.asarray(counts, jnp.int32), jnp.zeros(CLASSES))


def test_the_last_confident_guess_of_a_sample_that_comes_twice_is_remembered():
    """A sample with two confident guesses and a later unsure one, and counts that are those of what is remembered."""
    before = learnt((4, 2, 1, 1))
    index, guess, sure = [0, 6, 0, 0, 5], [2, 0, 1, 0, 1], [True, True, True, False, False]
    after = remembered(before, *map(jnp.asarray, (index, guess, sure)))
    expected = np.array(before.selected)
    for i, c, certain in zip(index, guess, sure, strict=True):
        expected[i] = c if certain else expected[i]
    assert expected[0] == 1
    np.testing.assert_array_equal(after.selected, expected)
    np.testing.assert_array_equal(after.counts, np.bincount(expected + 1, minlength=CLASSES + 1))


def test_softmatch_without_any_spread_of_confidence_counts_what_is_as_confident_as_usual():
    """A variance of 0 divides nothing by nothing: the weight is 1 from the mean on, and 0 below it."""
    even = jnp.full(2, 0.5)
    usual = Usual(jnp.asarray(0.75), jnp.zeros(()), even, even)
    found = METHODS["softmatch"].weights(usual, jnp.asarray([[0.75, 0.25], [0.1, 0.9], [0.5, 0.5]]))
    np.testing.assert_array_equal(found, [1, 1, 0])


def test_mpl():
    """The student's step, its feedback, and the teacher's step, by hand; the feedback is not zero."""
    with jax.enable_x64(True):
        method = small("mpl")
        batch, rows = batch_of(method)
        ctx = context(method, rows)
        state = init_state(method, Seeds(), ctx)
        update = jax.jit(lambda state, key: method.update(state, {}, batch, key, ctx))
        y, xl = np.asarray(batch["labelled"].labels), flat(batch["labelled"].views["weak"])
        weak, strong = (flat(batch["unlabelled"].views[name]) for name in ("weak", "strong"))

        def z(params, x):
            return x @ params["logits"] + params["bias"]

        for k in range(3):
            old = plain(state.params)
            student, teacher = old["net"], old["teacher"]
            guess = z(teacher, strong).argmax(1)

            def student_loss(p, guess=guess):
                return ce(z(p["net"], strong), guess).mean()

            slopes = gradient(student_loss, {"net": student})["net"]
            moved = {name: array - RATE * slopes[name] for name, array in student.items()}
            h = ce(z(student, xl), y).mean() - ce(z(moved, xl), y).mean()
            average = 0.8 * float(state.method) + 0.2 * h
            soft = softmax(z(teacher, weak) / 0.7)

            def teacher_loss(p, soft=soft, guess=guess, h=h, average=average, k=k):
                known, last = z(p["teacher"], xl), z(p["teacher"], strong)
                smooth = 0.85 * np.eye(CLASSES)[y] + 0.05
                uda = ((soft.max(1) >= 0.4) * ce(last, soft)).mean()
                return ce(known, smooth).mean() + 8 * min(k / 2, 1) * uda + (h - average) * ce(last, guess).mean()

            slope = gradient(teacher_loss, {"teacher": teacher})["teacher"]
            state, metrics = update(state, jax.random.key(k))
            assert float(metrics["feedback"]) == pytest.approx(h, rel=1e-6) and abs(h) > 1e-3
            assert float(metrics["loss"]) == pytest.approx(student_loss({"net": student}), rel=1e-6)
            assert float(state.method) == pytest.approx(average, rel=1e-6)
            compare(plain(state.params["net"]), moved, rtol=0, atol=2e-7)
            taught = {name: array - 0.2 * slope[name] for name, array in teacher.items()}
            compare(plain(state.params["teacher"]), taught, rtol=0, atol=2e-7)
        assert int(state.step) == 3


def test_the_sign_and_the_labels_of_mpl():
    with jax.enable_x64(True):
        method = small("mpl")
        batch, rows = batch_of(method)
        ctx = context(method, rows)
        state = init_state(method, Seeds(), ctx)
        signs = [with_settings(method, {"sign": sign}) for sign in ("theory", "released")]
        theory, released = jax.jit(
            lambda state: [one.update(state, {}, batch, jax.random.key(0), ctx)[1]["feedback"] for one in signs]
        )(state)
        assert float(theory) == -float(released) != 0
        sampled = with_settings(method, {"labels": "sampled"})
        update = jax.jit(lambda key: sampled.update(state, {}, batch, key, ctx)[1]["loss"])
        losses = [float(update(jax.random.key(k))) for k in range(8)]
        assert len(set(losses)) > 1


# Gradients that have to be there, and those that must not


UNLABELLED = [name for name in METHODS if name != "supervised"]


@pytest.mark.parametrize("name", UNLABELLED)
def test_unlabelled_samples_have_gradients_where_they_belong(name):
    """Public codes shipped MeanTeacher with a loss of zero, and MPL with a feedback of none."""
    with jax.enable_x64(True):
        method = small(name)
        batch, rows = batch_of(method)
        ctx = context(method, rows)
        state = init_state(method, Seeds(), ctx)
        state = state._replace(step=jnp.asarray(4))  # after ramps and warm-ups
        if name == "dash":
            state = state._replace(method=jnp.asarray(2.0))
        if name == "mean_teacher":
            state = state._replace(averages=jax.tree.map(lambda x: 0.5 * x, state.averages))
        after, _ = jax.jit(lambda state: method.update(state, {}, batch, jax.random.key(0), ctx))(state)
        change = np.abs(np.asarray(after.params["net"]["logits"] - state.params["net"]["logits"])).sum(1)
        count = LABELLED * method.ratio
        moved = {view: change[LABELLED + i * count :][:count].max() > 1e-6 for i, view in enumerate(method.unlabelled)}
        still = {
            "pi_model": {"weak2"}, "mean_teacher": {"weak1"}, "uda": {"weak"}, "fixmatch": {"weak"}, "dash": {"weak"},
            "flexmatch": {"weak"}, "freematch": {"weak"}, "freematch_mi": {"weak"}, "freematch_hd": {"weak"},
            "otmatch": {"weak"}, "softmatch": {"weak"}, "adamatch": {"weak"}, "mpl": {"weak"},
        }.get(name, set())  # fmt: skip
        assert {view for view, does in moved.items() if not does} == still


@pytest.mark.parametrize(
    "name", ["fixmatch", "flexmatch", "freematch", "freematch_mi", "freematch_hd", "otmatch", "uda"]
)
def test_an_empty_mask_has_a_finite_loss_and_no_gradient(name):
    with jax.enable_x64(True):
        method = small(name)
        settings = {"threshold": 2.0} if "freematch" not in name and name != "otmatch" else {"least": 2.0, "most": 3.0}
        method = with_settings(method, settings | ({"warm": False} if name == "flexmatch" else {}))
        batch, rows = batch_of(method)
        ctx = context(method, rows)
        state = init_state(method, Seeds(), ctx)
        if name == "flexmatch":
            state = state._replace(method=state.method._replace(effect=jnp.ones(CLASSES)))
        after, metrics = jax.jit(lambda state: method.update(state, {}, batch, jax.random.key(0), ctx))(state)
        labelled, _ = METHODS["supervised"].update(state, {}, batch, jax.random.key(0), ctx)
        assert float(metrics["mask_ratio"]) == 0 and np.isfinite(float(metrics["loss"]))
        for one, other in zip(jax.tree.leaves(after.params), jax.tree.leaves(labelled.params), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_the_interleaving_is_mixmatchs():
    """Seven rows in three chunks: parts of 2, 2 and 3; chunk i and the first one swap their i-th parts."""
    a, b, c = (list(range(start, start + 7)) for start in (0, 7, 14))
    a[2:4], b[2:4] = b[2:4], a[2:4]
    a[4:7], c[4:7] = c[4:7], a[4:7]
    places = interleaving(7, 3)
    assert places.tolist() == [*a, *b, *c]
    np.testing.assert_array_equal(places[places], np.arange(21))


def test_pictures_are_turned_by_quarters():
    x = RNG.normal(size=(4, 3, 3, 2))
    found = turned(jnp.asarray(x), jnp.arange(4))
    for k in range(4):
        np.testing.assert_array_equal(found[k], np.float32(np.rot90(x[k], k)))


def test_pseudo_labels_are_judged_where_the_labels_are_known():
    from infojax.objectives.semisup.common import judged

    rows = Batch({}, jnp.array([0, 1, -1, 2]), jnp.arange(4))
    found = judged(rows, jnp.array([0, 2, 1, 2]), jnp.array([1, 1, 1, 0]))
    assert float(found["mask_ratio"]) == 0.75
    assert float(found["pseudo_accuracy"]) == pytest.approx(2 / 3)
    assert float(found["pseudo_accuracy_selected"]) == 0.5


# Batch statistics


class Normed(nn.Module):
    """Pictures to logits and an embedding, with batch normalisation."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(not train, momentum=0.9, name="bn")(nn.Dense(5, name="first")(x.reshape(len(x), -1)))
        embedding = nn.relu(x)
        return Output(nn.Dense(CLASSES, name="head")(embedding), embedding, {})


class Turns(nn.Module):
    @nn.compact
    def __call__(self, z, train):
        return nn.Dense(4)(z)


N, SIZE = 64, 4
PICTURES = RNG.normal(size=(N, SIZE, SIZE, 1)).astype(np.float32) + np.arange(N)[:, None, None, None] % 3
DATA = {"x": jnp.asarray(PICTURES), "labels": jnp.asarray(np.arange(N) % CLASSES)}
CONSTANTS = {"data": {"labelled": jax.tree.map(lambda x: x[:24], DATA), "unlabelled": DATA}}
TRANSFORMS = {
    "weak": lambda key, x: x + 0.1 * jax.random.normal(key, x.shape),
    "strong": lambda key, x: x * 1.5 + 0.5 * jax.random.normal(key, x.shape),
}
NORMED = as_net(Normed(), jax.ShapeDtypeStruct((2, SIZE, SIZE, 1), jnp.float32))


def trained(name):
    method = with_settings(METHODS[name], {"batch_size": 16, "ratio": min(METHODS[name].ratio, 2)})
    changes = {"threshold": 0.4} if hasattr(method, "threshold") else {}
    method = with_settings(method, changes | ({"warmup": 1, "averaged": 1} if name == "dash" else {}))
    nets, optimizers = {"net": NORMED}, {"main": Optimizer(optax.sgd(0.05))}
    if name == "remixmatch":
        nets["rotation"] = as_net(Turns(), jax.ShapeDtypeStruct((2, 5), jnp.float32))
    if name == "mpl":
        nets["teacher"] = NORMED
        optimizers = {net: Optimizer(optax.sgd(0.05), (own,)) for net, own in (("main", "net"), ("teacher", "teacher"))}
    return method, Context(nets, optimizers, Facts(CLASSES, 50, (8, 8, 8), num_unlabelled=N))


@functools.cache
def alone(name):
    method, ctx = trained(name)
    step, states = jax.jit(make_step(ctx, TRANSFORMS)), [init_state(method, Seeds(), ctx)]
    for _ in range(2):
        states.append(step(method, states[-1], CONSTANTS, Seeds())[0])
    return states


@pytest.mark.parametrize("name", METHODS)
def test_running_statistics_follow_the_samples_of_the_convention(name):
    """Joint: the mixture. Labelled: the labelled samples alone. Mixed: the first interleaved chunk."""
    from infojax.train.draw import draw

    method, ctx = trained(name)
    before, after = alone(name)[:2]
    batch = draw(CONSTANTS["data"], method.views, TRANSFORMS, Seeds(), 0)
    labelled = batch["labelled"].views["weak"]
    if name in ("supervised", "pi_model", "pseudo_label", "vat", "mean_teacher", "dash"):  # dash warms up
        rows = labelled
    elif name in ("mixmatch", "remixmatch"):
        return  # their rows depend on drawn coefficients: below
    elif name == "mpl":
        rows = jnp.concatenate([batch["unlabelled"].views["strong"], labelled])
    else:
        rows = jnp.concatenate([labelled, *batch["unlabelled"].views.values()])
    _, expected = NORMED.apply(before.params["net"], before.model_state["net"], rows, train=True)
    for one, other in zip(jax.tree.leaves(after.model_state["net"]), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "chunks"), [("mixmatch", 3), ("remixmatch", 4)])
def test_running_statistics_of_mixed_rows_follow_the_first_chunk(name, chunks):
    from infojax.train.draw import draw

    method, ctx = trained(name)
    state = alone(name)[0]
    batch = draw(CONSTANTS["data"], method.views, TRANSFORMS, Seeds(), 0)
    draws = method.draws(jax.random.key(3), batch, ctx)
    views = batch["unlabelled"].views
    order = list(views) if name == "mixmatch" else ["strong1", "strong2", "weak"]
    x = jnp.concatenate([batch["labelled"].views["weak"], *(views[view] for view in order)])
    x = draws["share"] * x + (1 - draws["share"]) * x[draws["order"]]
    first = x[interleaving(16, chunks)[:16]]
    after, _ = jax.jit(lambda state: method.update(state, {}, batch, jax.random.key(0), ctx, draws))(state)
    _, expected = NORMED.apply(state.params["net"], state.model_state["net"], first, train=True)
    for one, other in zip(jax.tree.leaves(after.model_state["net"]), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_one_device_and_eight(name):
    method, ctx = trained(name)
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,), devices=jax.devices()[:8])
    rows, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec("data"), PartitionSpec()))
    ctx = ctx._replace(gather=lambda tree: jax.lax.with_sharding_constraint(tree, whole))
    sharded = {key: lambda k, x, f=f: jax.lax.with_sharding_constraint(f(k, x), rows) for key, f in TRANSFORMS.items()}
    state, step = jax.device_put(alone(name)[0], whole), jax.jit(make_step(ctx, sharded))
    for _ in range(2):
        state, _ = step(method, state, CONSTANTS, Seeds())
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(alone(name)[-1]), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=3e-5)


@pytest.mark.parametrize("sizes", [(16, 32, 32), (24, 8), (5, 3, 7), (8,)])
def test_groups_that_pass_together_come_back_and_stay_on_their_devices(sizes):
    """Where devices divide the groups nothing moves between them; where not, the outputs are right all the same."""
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,), devices=jax.devices()[:8])
    groups = [jnp.arange(2.0 * n).reshape(n, 2) + 100 * i for i, n in enumerate(sizes)]
    outputs = jax.jit(lambda *groups: joint(lambda name, x: Output(x + 1, x * 2, {}), *groups))
    if all(n % 8 == 0 for n in sizes):
        groups = jax.device_put(groups, NamedSharding(mesh, PartitionSpec("data")))
        assert collectives(outputs.lower(*groups).compile()) == []
    for output, group in zip(outputs(*groups), groups, strict=True):
        np.testing.assert_array_equal(output.logits, group + 1)
        np.testing.assert_array_equal(output.embedding, group * 2)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_from_the_arrays_of_a_state_has_the_same_bits(name):
    method, ctx = trained(name)
    again, _ = jax.jit(make_step(ctx, TRANSFORMS))(method, jax.tree.map(np.array, alone(name)[1]), CONSTANTS, Seeds())
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(alone(name)[2]), strict=True):
        np.testing.assert_array_equal(one, other)


BEFORE = ("pseudo_label", "uda", "fixmatch", "flexmatch", "dash")  # whose mask is that of the state before the step


@pytest.mark.parametrize("name", (*BEFORE, "freematch", "otmatch", "softmatch", "adamatch", "mpl"))
def test_what_is_selected_at_fixed_weights_is_what_the_loss_selects(name):
    """The share that a step logs, from the logits before it and the method's state that the step masked with."""
    with jax.enable_x64(True):
        method = small(name)
        batch, rows = batch_of(method)
        ctx = context(method, rows)
        before = init_state(method, Seeds(), ctx)
        if name == "dash":
            before = before._replace(step=jnp.asarray(3), method=jnp.asarray(0.5))
        after, metrics = method.update(before, {}, batch, jax.random.key(0), ctx)
        x = batch["unlabelled"].views["weak"]
        net = method.guessing
        logits = ctx.nets[net].apply(before.params[net], {}, x, True)[0].logits
        state = before if name in BEFORE else before._replace(method=after.method)
        extra = method.evaluated(state, {}, ctx)["raw"].extra
        weights = np.asarray(extra["objective"].selected(extra["state"], logits))
        assert 0 < weights.mean() and weights.mean() == pytest.approx(float(metrics["mask_ratio"]), rel=1e-9)
