"""Mixup and CutMix pixel by pixel, and the loss of mixed labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infojax.models import build
from infojax.objectives import Batch, Context, Facts, InformationTerm, Optimizer, Seeds, Supervised, init_state
from infojax.objectives.mixing import Mix, Mixing
from infojax.objectives.nets import Nets
from infojax.train import optim
from infojax.train.networks import as_net

X = np.random.default_rng(0).normal(size=(4, 9, 7, 2)).astype(np.float32)


def by_hand(x, share, row, column):
    """CutMix as the paper's code draws its box, one pixel after another."""
    height, width = x.shape[1:3]
    side = np.sqrt(1 - share)
    tall, wide = int(height * side), int(width * side)
    top, left = int(row * height) - tall // 2, int(column * width) - wide // 2
    found, replaced = x.copy(), 0
    for i in range(max(top, 0), min(top + 2 * (tall // 2), height)):
        for j in range(max(left, 0), min(left + 2 * (wide // 2), width)):
            found[:, i, j], replaced = x[::-1][:, i, j], replaced + 1
    return found, 1 - replaced / (height * width)


@pytest.mark.parametrize(
    ("share", "row", "column"), [(0.3, 0.5, 0.5), (0.2, 0.05, 0.95), (0.9, 0.7, 0.1), (1.0, 0.5, 0.5)]
)
def test_pictures(share, row, column):
    mix = Mixing("both")
    for cut in (False, True):
        found, stays = mix(jnp.asarray(X), Mix(*map(jnp.asarray, (share, cut, row, column))))
        expected = by_hand(X, share, row, column) if cut else (share * X + (1 - share) * X[::-1], share)
        np.testing.assert_allclose(found, expected[0], rtol=1e-6, atol=1e-6)
        assert stays == pytest.approx(expected[1], abs=1e-6)


@pytest.mark.parametrize("kind", ["mixup", "cutmix", "both"])
def test_draws(kind):
    """Shares have the moments of Beta(0.8, 0.8) and Beta(1, 1): mean 1/2, variance 1 / (4 (2 a + 1))."""
    drawn = jax.vmap(Mixing(kind).draw)(jax.random.split(jax.random.key(0), 4000))
    cut = np.asarray(drawn.cut)
    assert abs(cut.mean() - {"mixup": 0, "cutmix": 1, "both": 0.5}[kind]) < 0.03
    for alpha, own in ((0.8, np.asarray(drawn.share)[~cut]), (1.0, np.asarray(drawn.share)[cut])):
        if len(own):
            assert abs(own.mean() - 0.5) < 0.03 and own.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)


def test_the_loss_is_that_of_mixed_labels():
    """Cross-entropy of the mixed pictures with mixed and smoothed labels, from a step's own draws."""
    labels = jnp.array([0, 2, 1, 1])
    net = as_net(build("mlp", 3, widths=(5,)), jax.ShapeDtypeStruct((2, 9, 7, 2), jnp.float32))
    ctx = Context({"net": net}, {"main": Optimizer(optim.sgd(0.1))}, Facts(3, 10))
    task = Supervised(transform="plain", batch_size=4, label_smoothing=0.1, mix=Mixing("both"))
    state = init_state(task, Seeds(), ctx)
    batch = {"train": Batch({"plain": jnp.asarray(X)}, labels, jnp.arange(4))}
    for number in range(3):
        drawn = task.draws(jax.random.key(number), batch, ctx)
        nets = Nets(state, {}, jax.random.key(0), ctx)
        value, aux = task.loss(nets, state, {}, batch, drawn, ctx)
        mixed, share = task.mix(jnp.asarray(X), drawn)
        logits = np.asarray(net.apply(state.params["net"], {}, mixed, train=False)[0].logits, np.float64)
        smooth = 0.9 * np.eye(3)[np.asarray(labels)] + 0.1 / 3
        targets = float(share) * smooth + (1 - float(share)) * smooth[::-1]
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        assert value == pytest.approx(-(targets * log_p).sum(1).mean(), rel=1e-5)
        assert aux.metrics["cross_entropy"] == value and 0 < share < 1
    assert Supervised().draws(jax.random.key(0), batch, ctx) == ()


def test_mixed_labels_have_no_information_term():
    with pytest.raises(
        ValueError, match="mixing is mixup: mixed samples have no label for the term; turn one of them off"
    ):
        Supervised(InformationTerm(0.1, "mi"), mix=Mixing("mixup"))
