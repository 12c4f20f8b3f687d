"""Every semi-supervised method against a training loop in PyTorch: automatic derivatives through batch normalisation.

Three float64 steps of a net with batch statistics. What passes together shares them, and its gradients; what passes by
itself has its own, and leaves the running ones as they are. The loops follow the published descriptions, TorchSSL's
where these differ (USB's for Dash and AdaMatch).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from infojax.objectives import Batch, Context, Facts, Optimizer, Seeds, init_state, with_settings
from infojax.objectives.semisup import METHODS
from infojax.objectives.semisup.common import interleaving
from infojax.train.networks import as_net
from tests.objectives.test_semisup import Normed, Turns

torch = pytest.importorskip("torch")
F = torch.nn.functional

CLASSES, N, RATIO, TOTAL, RATE, KEPT, STEPS = 3, 6, 2, 20, 0.1, 0.8, 3
COUNTS = (3, 2, 1)
LIKE = jax.ShapeDtypeStruct((2, 4, 4, 1), jnp.float64)
CHANGES = {
    "pseudo_label": dict(threshold=0.5), "uda": dict(threshold=0.5), "fixmatch": dict(threshold=0.5),
    "flexmatch": dict(threshold=0.7, warm=False), "freematch": dict(decay=0.9, fairness=0.5),
    "softmatch": dict(decay=0.9), "adamatch": dict(decay=0.9, threshold=0.9),
    "dash": dict(warmup=1, averaged=1, period=1, least=0.3, growth=1.5),
    "remixmatch": dict(model_decay=0.9), "vat": dict(radius=0.5), "mpl": dict(threshold=0.45, uda_steps=2),
}  # fmt: skip


def method_of(name):
    settings = {"batch_size": N, "ratio": min(METHODS[name].ratio, RATIO), "ema_decay": KEPT}
    return with_settings(METHODS[name], settings | CHANGES.get(name, {}))


def context(name):
    net = as_net(Normed(), LIKE)
    nets, optimizers = {"net": net}, {"main": Optimizer(optax.sgd(RATE))}
    if name == "remixmatch":
        nets["rotation"] = as_net(Turns(), jax.ShapeDtypeStruct((2, 5), jnp.float64))
    if name == "mpl":
        nets["teacher"] = net
        optimizers = {key: Optimizer(optax.sgd(RATE), (own,)) for key, own in (("main", "net"), ("teacher", "teacher"))}
    return Context(nets, optimizers, Facts(CLASSES, TOTAL, COUNTS, num_unlabelled=20))


def batch_of(method, step):
    rng = np.random.default_rng(step)
    y, count = np.repeat(np.arange(CLASSES), COUNTS), N * method.ratio
    means = 1.5 * np.random.default_rng(9).normal(size=(CLASSES, 4, 4, 1))
    seen = rng.integers(0, CLASSES, count)
    views = {name: means[seen] + rng.normal(size=(count, 4, 4, 1)) for name in method.unlabelled}
    index = rng.integers(0, 20, count)
    index[-1] = index[0]
    return {
        "labelled": Batch({"weak": means[y] + rng.normal(size=(N, 4, 4, 1))}, y, np.arange(N)),
        "unlabelled": Batch(views, seen, index),
    }


# In MixMatch's all samples count; FlexMatch and FreeMatch begin with thresholds that all pass.
WHOLE = ("mixmatch", "remixmatch", "flexmatch", "freematch")


class Loop:
    """The net, its running statistics, its average and a method's numbers, in PyTorch."""

    def __init__(self, state, method, batch, draws):
        self.m, self.s, self.k = method, {}, 0
        self.nets = {name: tensors(params) for name, params in state.params.items()}
        self.ema = {name: tensors(state.params[name]) for name in self.nets if name != "teacher"}
        self.running = {name: tensors(found, False) for name, found in statistics(state).items()}
        self.load(batch, draws)

    def load(self, batch, draws):
        self.x, self.y = torch.tensor(batch["labelled"].views["weak"]), torch.tensor(batch["labelled"].labels)
        self.u = {name: torch.tensor(x) for name, x in batch["unlabelled"].views.items()}
        self.index = batch["unlabelled"].index
        self.draws = jax.tree.map(lambda x: torch.tensor(np.array(x)), draws)

    def net(self, x, follow=True, params=None, name="net"):
        """(logits, embedding)."""
        p = self.nets[name] if params is None else params
        h = x.reshape(len(x), -1) @ p["first.kernel"] + p["first.bias"]
        mean, var = h.mean(0), h.var(0, unbiased=False)
        if follow:
            for key, now in (("mean", mean), ("var", var)):
                self.running[name][key] = 0.9 * self.running[name][key] + 0.1 * now.detach()
        e = F.relu((h - mean) / torch.sqrt(var + 1e-5) * p["bn.scale"] + p["bn.bias"])
        return e @ p["head.kernel"] + p["head.bias"], e

    def joint(self, name="net"):
        """Logits of labelled samples and both views, which pass together; the weak ones without a gradient."""
        views = self.u["weak"], self.u["strong"]
        known, weak, strong = self.net(torch.cat([self.x, *views]), name=name)[0].split([N, *map(len, views)])
        return known, weak.detach(), strong

    def ramp(self, fraction):
        return min(self.k / (fraction * TOTAL), 1.0)

    def ema_of(self, name, now, start=None):
        old, decay = self.s.get(name, start), getattr(self.m, "decay", 0.9)
        self.s[name] = now if old is None else decay * old + (1 - decay) * now
        return self.s[name]

    def step(self, loss):
        """Descends on the loss in all nets; moves the average."""
        value = loss(self)
        self.descend(value, self.nets)
        self.follow()
        return float(value.detach())

    def descend(self, value, nets):
        leaves = [p for params in nets.values() for p in params.values()]
        for p, g in zip(leaves, torch.autograd.grad(value, leaves, allow_unused=True), strict=True):
            if g is not None:
                p.data -= RATE * g

    def follow(self):
        for name, params in self.ema.items():
            for key in params:
                params[key] = KEPT * params[key] + (1 - KEPT) * self.nets[name][key].detach()
        self.k += 1


def statistics(state):
    """Net -> its running mean and variance."""
    return {name: found["batch_stats"]["bn"] for name, found in state.model_state.items() if found}


def tensors(tree, grad=True):
    flat = {".".join(k.key for k in path): x for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]}
    return {name: torch.tensor(np.array(x), requires_grad=grad) for name, x in flat.items()}


def soft_ce(z, q):
    return -(q * F.log_softmax(z, -1)).sum(-1).mean()


def masked_ce(z, guess, weights):
    return (F.cross_entropy(z, guess, reduction="none") * weights).mean()


def supervised(t):
    return F.cross_entropy(t.net(t.x)[0], t.y)


def pi_model(t):
    value, one, two = supervised(t), *(t.net(t.u[name], False)[0].softmax(-1) for name in ("weak1", "weak2"))
    return value + 10 * t.ramp(0.4) * F.mse_loss(one, two.detach())


def pseudo_label(t):
    value, z = supervised(t), t.net(t.u["weak"], False)[0]
    top, guess = z.detach().softmax(-1).max(-1)
    return value + t.ramp(0.4) * masked_ce(z, guess, top >= 0.5)


def vat(t):
    value, x = supervised(t), t.u["weak"]
    z = t.net(x, False)[0]
    q = z.detach().softmax(-1)

    def divergence(r):
        return (q * (q.log() - F.log_softmax(t.net(x + r, False)[0], -1))).sum(-1).mean()

    _, d = torch.autograd.functional.hvp(divergence, torch.zeros_like(x), t.draws)
    r = 0.5 * d / d.flatten(1).norm(dim=1)[:, None, None, None]
    return value + 0.3 * t.ramp(0.4) * divergence(r.detach()) + 0.06 * soft_ce(z, z.softmax(-1))


def mean_teacher(t):
    teacher = t.net(t.u["weak1"], False, t.ema["net"])[0].softmax(-1).detach()
    return supervised(t) + 50 * t.ramp(0.4) * F.mse_loss(t.net(t.u["weak2"], False)[0].softmax(-1), teacher)


def sharpen(p):
    return p**2 / (p**2).sum(-1, keepdim=True)


def mixed(t, rows, targets, chunks):
    """Logits and targets of mixed rows, which pass in interleaved chunks."""
    share, order, places = t.draws["share"], t.draws["order"], interleaving(N, chunks)
    rows, targets = (share * x + (1 - share) * x[order] for x in (torch.cat(rows), torch.cat(targets)))
    logits = [t.net(part, i == 0)[0] for i, part in enumerate(rows[places].split(N))]
    return torch.cat(logits)[places], targets


def mixmatch(t):
    one, two = t.u["weak1"], t.u["weak2"]
    q = sharpen(sum(t.net(x, False)[0].softmax(-1) for x in (one, two)).detach() / 2)
    z, targets = mixed(t, [t.x, one, two], [F.one_hot(t.y, CLASSES), q, q], 3)
    return soft_ce(z[:N], targets[:N]) + 100 * t.ramp(0.4) * F.mse_loss(z[N:].softmax(-1), targets[N:])


def remixmatch(t):
    weak, one, two = (t.u[name] for name in ("weak", "strong1", "strong2"))
    p = t.net(weak, False)[0].softmax(-1).detach()
    q = p * torch.tensor(COUNTS) / N / t.ema_of("p_model", p.mean(0))
    q = sharpen(q / q.sum(-1, keepdim=True))
    z, targets = mixed(t, [t.x, one, two, weak], [F.one_hot(t.y, CLASSES), q, q, q], 4)
    view = soft_ce(t.net(one, False)[0], q)
    turned = torch.stack([x.rot90(int(k), (0, 1)) for x, k in zip(one, t.draws["turns"], strict=True)])
    p = t.nets["rotation"]
    turns = t.net(turned, False)[1] @ p["Dense_0.kernel"] + p["Dense_0.bias"]
    value = soft_ce(z[:N], targets[:N]) + 0.5 * F.cross_entropy(turns, t.draws["turns"].long())
    return value + t.ramp(1 / 64) * (1.5 * soft_ce(z[N:], targets[N:]) + 0.5 * view)


def uda(t):
    known, weak, strong = t.joint()
    losses = -((weak / 0.4).softmax(-1) * F.log_softmax(strong, -1)).sum(-1)
    return F.cross_entropy(known, t.y) + ((weak.softmax(-1).max(-1)[0] >= 0.5) * losses).mean()


def fixmatch(t):
    known, weak, strong = t.joint()
    top, guess = weak.softmax(-1).max(-1)
    return F.cross_entropy(known, t.y) + masked_ce(strong, guess, top >= 0.5)


def flexmatch(t):
    known, weak, strong = t.joint()
    last, effect = t.s.setdefault("last", np.full(20, -1)), t.s.setdefault("effect", torch.zeros(CLASSES))
    counts = np.array([(last == c).sum() for c in range(-1, CLASSES)])
    if counts.max() < 20:
        effect = t.s["effect"] = torch.tensor(counts[1:] / max(counts[1:].max(), 1))
    top, guess = weak.softmax(-1).max(-1)
    for place, sure, c in zip(t.index, top >= 0.7, guess, strict=True):
        if sure:
            last[place] = c
    return F.cross_entropy(known, t.y) + masked_ce(strong, guess, top >= 0.7 * (effect / (2 - effect))[guess])


def freematch(t):
    known, weak, strong = t.joint()
    p = weak.softmax(-1)
    (top, guess), even = p.max(-1), torch.full((CLASSES,), 1 / CLASSES, dtype=torch.float64)
    tau, model = t.ema_of("tau", top.mean(), even[0]), t.ema_of("model", p.mean(0), even)
    histogram = t.ema_of("histogram", torch.bincount(guess, minlength=CLASSES).double() / len(guess), even)
    mask = top >= (tau * model / model.max())[guess]
    kept = strong[mask].softmax(-1)
    found = torch.bincount(kept.argmax(-1), minlength=CLASSES).double() / len(kept)
    a, b = model / histogram, kept.mean(0) * torch.where(found > 0, 1 / found, 0)
    fairness = (a / a.sum() * torch.log(b / b.sum() + 1e-12)).sum()
    return F.cross_entropy(known, t.y) + masked_ce(strong, guess, mask) + 0.5 * fairness


def softmatch(t):
    known, weak, strong = t.joint()
    p, ours = weak.softmax(-1), known.detach().softmax(-1)
    (top, guess), even = p.max(-1), torch.full((CLASSES,), 1 / CLASSES, dtype=torch.float64)
    mean, var = t.ema_of("mean", top.mean(), even[0]), t.ema_of("var", top.var(), torch.tensor(1.0))
    aligned = p * t.ema_of("ours", ours.mean(0), even) / t.ema_of("theirs", p.mean(0), even)
    below = ((aligned / aligned.sum(-1, keepdim=True)).max(-1)[0] - mean).clamp(max=0)
    return F.cross_entropy(known, t.y) + masked_ce(strong, guess, torch.exp(-(below**2) / (2 * var / 4)))


def adamatch(t):
    known, weak, strong = t.joint()
    p, ours = weak.softmax(-1), known.detach().softmax(-1)
    even = torch.full((CLASSES,), 1 / CLASSES, dtype=torch.float64)
    p = p * (t.ema_of("ours", ours.mean(0), even) + 1e-6) / (t.ema_of("theirs", p.mean(0)) + 1e-6)
    top, guess = (p / p.sum(-1, keepdim=True)).max(-1)
    return F.cross_entropy(known, t.y) + masked_ce(strong, guess, top >= 0.9 * ours.max(-1)[0].mean())


def dash(t):
    if t.k == 0:  # the warm-up, whose loss is rho_0
        value = supervised(t)
        t.s["rho"] = float(value.detach())
        return value
    known, weak, strong = t.joint()
    rho = max(1.0001 * t.s["rho"] * 1.5 ** -(t.k - 1), 0.3)
    target = (weak / 0.5).softmax(-1) if rho > 0.3 else F.one_hot(weak.argmax(-1), CLASSES)
    mask = -(target * F.log_softmax(weak, -1)).sum(-1) <= rho
    return F.cross_entropy(known, t.y) - (mask * (target * F.log_softmax(strong, -1)).sum(-1)).mean()


LOSSES = {f.__name__: f for f in (
    supervised, pi_model, pseudo_label, vat, mean_teacher, mixmatch, remixmatch, uda, fixmatch, flexmatch, freematch,
    softmatch, adamatch, dash,
)}  # fmt: skip


def mpl(t):
    """The student's step, then the teacher's; both nets pass their samples together."""
    known, weak, strong = t.joint("teacher")
    guess = strong.argmax(-1)
    learnt, before = t.net(torch.cat([t.u["strong"], t.x]))[0].split([len(guess), N])
    value, old = F.cross_entropy(learnt, guess), F.cross_entropy(before, t.y).detach()
    t.descend(value, {"net": t.nets["net"]})
    h = old - F.cross_entropy(t.net(t.x, False)[0], t.y).detach()
    t.s["h"] = 0.99 * t.s.get("h", 0.0) + 0.01 * h
    soft = (weak / 0.7).softmax(-1)
    losses = -(soft * F.log_softmax(strong, -1)).sum(-1)
    uda = ((soft.max(-1)[0] >= 0.45) * losses).mean()
    teacher = F.cross_entropy(known, t.y, label_smoothing=0.15) + 8 * min(t.k / 2, 1) * uda
    t.descend(teacher + (h - t.s["h"]) * F.cross_entropy(strong, guess), {"teacher": t.nets["teacher"]})
    t.follow()
    return float(value.detach())


@pytest.mark.parametrize("name", [*LOSSES, "mpl"])
def test_three_steps_are_those_of_a_loop_in_pytorch(name):
    with jax.enable_x64(True):
        method, ctx = method_of(name), context(name)
        state = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, init_state(
            method, Seeds(), ctx))  # fmt: skip
        update = jax.jit(lambda state, batch, key, draws: method.update(state, {}, batch, key, ctx, draws))
        loop, ratios = None, []
        for k in range(STEPS):
            batch, key = batch_of(method, k), jax.random.key(k)
            draws = method.draws(key, batch, ctx)
            loop = loop or Loop(state, method, batch, draws)
            loop.load(batch, draws)
            expected = mpl(loop) if name == "mpl" else loop.step(LOSSES[name])
            state, metrics = update(state, batch, key, draws)
            ratios.append(float(metrics.get("mask_ratio", 0.5)))
            assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-10)
        same(state.params, loop.nets)
        same(state.averages["ema"], loop.ema)
        same(statistics(state), loop.running)
        assert name in WHOLE or any(0 < ratio < 1 for ratio in ratios)  # some are left out


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tree in ours.items():
        found = {key: x.numpy() for key, x in tensors(tree, False).items()}
        assert found.keys() == theirs[name].keys()
        for key, value in found.items():
            np.testing.assert_allclose(
                value, theirs[name][key].detach(), rtol=1e-9, atol=1e-11, err_msg=f"{name} {key}"
            )
