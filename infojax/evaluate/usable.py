"""V-information of layers: what new decoders of the network's architecture learn from them of labels and samples.

Sufficiency I_V(h -> y): a decoder learns the labels. Minimality I_V(h -> Dec(x, y)): one decoder per digit learns the
digits, in base C, of the sample's index within its class (`relabel`). V = {f^{L:l+1}}, all parameters of what follows
the layer; the encoder is frozen. In bits; negative where a decoder does worse than knowing the frequencies alone.

References:
  Xu et al. 2020; Dubois et al. 2020; Cheong 2025, sections 1.3 and 2.2.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from infojax.evaluate.forward import Sample
from infojax.evaluate.layers import INPUT, partition
from infojax.measures.arrays import AnyArray
from infojax.measures.classification import cross_entropy
from infojax.measures.usable import relabel
from infojax.objectives import Context, Decoder, Epochs, Facts, Net, Optimizer, Seeds, init_state
from infojax.parallel import local_copy, replicated, sharded_views
from infojax.train.keeper import NonFiniteError
from infojax.train.loop import every, fit
from infojax.train.step import Step, make_step, map_runs, stack

DIGITS = {"mean": np.mean, "sum": np.sum}
CONDITIONS = ("none", "label")
VALUES = ("evaluated", "running")
ENTROPIES = ("empirical", "log_c")
ENCODINGS = ("auto", "once", "each_batch")


class Decoding(NamedTuple):
    """How decoders are trained, and which number is their V-information.

    Attributes:
      net_of: layer -> `Net` of what follows it, the whole network for "input".
      tx: the optimiser of a decoder.
      transform: of stored samples.
      num_classes: C.
      batch_size: of training; epochs: at most.
      measured_batch: batch size of encoding and of the final evaluation, see `partition`.
      rest_loss: a decoder stops once the mean loss of an epoch's batches is this low; 0: never.
      digits: "mean" over the digits (the thesis), "sum" (the decodable information bottleneck).
      condition: "none": one decoder per digit for all classes (the thesis and its code); "label": one per class and
        digit, averaged over classes, as I_V(h | y -> n_y) is defined.
      value: "evaluated": the cross-entropy of the trained decoder on the sample; "running": the mean loss of the last
        epoch's batches, each before its update (released code).
      entropy: "empirical", of the label frequencies; "log_c", which is the same if they are uniform.
      encodings: "once", by the `partition` of the sample; "each_batch", with the training batch around each sample
        (released code; matters for networks with batch statistics); "auto": once if they fit into `budget` bytes. With
        condition "label" always once: the encoder never sees batches of one class otherwise.
      how: of `map_runs` over the digits; fused: an epoch is one device call.
    """

    net_of: Callable
    tx: Any
    transform: Callable
    num_classes: int
    batch_size: int = 400
    measured_batch: int = 400
    epochs: int = 50
    rest_loss: float = 0.02
    digits: str = "mean"
    condition: str = "none"
    value: str = "evaluated"
    entropy: str = "empirical"
    encodings: str = "auto"
    budget: float = 4 << 30
    how: str = "dispatch"
    fused: bool = False
    mesh: Any = None


class _Layer(NamedTuple):
    """Functions of one layer, compiled once. encode: (params, model_state, x) -> batch encodings; None for "input"."""

    name: str
    depth: int
    encode: Callable | None
    decoder: Any
    logits: Callable
    trainers: dict


def usable(
    kind: str,
    net: Net,
    samples: Sequence[Sample],
    shapes: Mapping[str, tuple[int, ...]],
    layers: Sequence[str],
    decoding: Decoding,
    seeds: Sequence[Any],
) -> Callable[..., Iterator[dict[str, Any]]]:
    """An `Evaluator.run` over all runs: one row per layer and split with `kind`, "sufficiency" or "minimality"; bits.

    Sufficiency comes with sufficiency_held_out: the information of this split's decoder on the labels of the other one.
    Digits do not carry over to another sample, so minimality has none. The decoders of a run have the same
    initialisation and order at every evaluation, so that values differ by the encoder alone; those of "input" are
    trained once.

    Args:
      samples: two `Sample`s, whole splits in their stored order.
      shapes: from `layer_shapes`; layers: names of some.
      seeds: of the runs.
    """
    known = {name: _layer(name, net, shapes, decoding) for name in layers}
    unchanging = {}

    def run(models):
        for number, of_run in enumerate(models):
            encoder = of_run["raw"].params, of_run["raw"].model_state
            for name, layer in known.items():
                if name != INPUT:
                    yield from rows(number, layer, encoder)
                    continue
                if number not in unchanging:
                    unchanging[number] = list(rows(number, layer, encoder))
                yield from [dict(row) for row in unchanging[number]]

    def rows(number, layer, encoder):
        given_label = kind == "minimality" and decoding.condition == "label"
        views = [_View(layer, encoder, sample, decoding, given_label) for sample in samples]
        for view, other in zip(views, reversed(views), strict=True):
            place = {"run": number, "split": view.sample.split, "n": len(view.sample.labels)}
            place |= {"layer": layer.name, "depth": layer.depth, "estimate": estimate_of(kind, decoding, view.once)}
            found = (_sufficiency if kind == "sufficiency" else _minimality)(view, other, decoding, seeds[number])
            numbers = [name for name, value in found.items() if isinstance(value, float)]
            yield place | found | {"below_zero": [name for name in numbers if found[name] < 0]}

    return run


def estimate_of(kind: str, decoding: Decoding, once: bool) -> str:
    """The conventions behind a value, in words."""
    ways = [decoding.value, f"{decoding.entropy} entropy", "encoded " + ("once" if once else "each batch")]
    if kind == "minimality":
        ways = [f"{decoding.digits} over digits", f"condition {decoding.condition}", *ways]
    return ", ".join(ways)


def _sufficiency(view, other, decoding, seed):
    labels, entropy = view.sample.labels, partial(_entropy, decoding)
    found = _decoded(view, None, labels[:, None], seed, decoding)
    held_out = found.evaluate(other, None, other.sample.labels[:, None])[0]
    return {
        "sufficiency": _bits(entropy(labels) - found.loss[0]),
        "sufficiency_held_out": _bits(entropy(other.sample.labels) - held_out),
        "sufficiency_rested": found.rested,
    }


def _minimality(view, other, decoding, seed):
    labels = np.asarray(view.sample.labels)
    digits = shuffled_digits(labels, decoding.num_classes)
    every_class = [np.flatnonzero(labels == c) for c in range(decoding.num_classes)]
    parts = [None] if decoding.condition == "none" else [chosen for chosen in every_class if len(chosen)]
    by_part, rested = [], 0
    for chosen in parts:
        columns = digits if chosen is None else digits[chosen]
        found = _decoded(view, chosen, columns, seed, decoding)
        by_part.append([_bits(_entropy(decoding, column) - x) for column, x in zip(columns.T, found.loss, strict=True)])
        rested += found.rested
    by_digit = np.mean(by_part, axis=0)
    value = float(DIGITS[decoding.digits](by_digit))
    return {"minimality": value, "minimality_digits": by_digit.tolist(), "minimality_rested": rested}


def shuffled_digits(labels: AnyArray, num_classes: int, seed: int = 0) -> np.ndarray:
    """`relabel` after a fixed shuffle of each class, (N, N_D).

    The index in the order of the sample would not be an arbitrary label: neighbours share a batch of the partition, and
    with batch statistics every one of them would know its first digit (digits, f-: 0.9 instead of 1.9 bits).
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    digits = np.empty_like(found := np.asarray(relabel(labels[order], num_classes)))
    digits[order] = found
    return digits


def _bits(nats):
    return float(nats) / math.log(2)


def _entropy(decoding, labels):
    return math.log(decoding.num_classes) if decoding.entropy == "log_c" else label_entropy(labels)


def label_entropy(labels: AnyArray) -> float:
    """Entropy of the frequencies of integer labels, nats."""
    share = np.unique(np.asarray(labels), return_counts=True)[1] / len(labels)
    return float(-np.sum(share * np.log(share)))


# A layer, and a sample as the layer sees it


def _layer(name, net, shapes, decoding):
    decoder = decoding.net_of(name)

    @jax.jit
    def encode(params, model_state, x):
        return net.apply(params, model_state, decoding.transform(None, x), train=False, stop=name)[0]

    @jax.jit
    def logits(params, model_state, h):
        x = decoding.transform(None, h) if name == INPUT else h
        return decoder.apply(params, model_state, x, train=False)[0].logits

    depth = list(shapes).index(name)
    return _Layer(name, depth, None if name == INPUT else encode, decoder, logits, {})


class _View:
    """A sample as encoded by a frozen encoder for decoders; encoded once, on first use, or each time."""

    def __init__(self, layer, encoder, sample, decoding, given_label):
        self.layer, self.encoder, self.sample, self.mesh = layer, encoder, sample, decoding.mesh
        self.parts = partition(len(sample.x), decoding.measured_batch)
        size = 0
        if layer.encode is not None:
            one = jax.eval_shape(layer.encode, *encoder, sample.x[self.parts[0]])
            size = one.size // len(one) * one.dtype.itemsize * len(sample.x)
        ways = {"auto": size <= decoding.budget, "once": True, "each_batch": False}
        self.once = layer.encode is None or given_label or ways[decoding.encodings]
        self._whole = sample.x if layer.encode is None else None

    def whole(self):
        if self._whole is None:
            self._whole = jnp.concatenate([self.batch(part) for part in self.parts])
        return self._whole

    def batch(self, part):
        if self._whole is not None:
            return self._whole[part]
        return replicated(local_copy(self.layer.encode(*self.encoder, self.sample.x[part])), self.mesh)


class _Decoded(NamedTuple):
    """Trained decoders. loss: (K,) nats; rested: how many reached `rest_loss`; evaluate: (view, chosen, columns)."""

    loss: np.ndarray
    rested: int
    evaluate: Callable


def _decoded(view, chosen, columns, seed, decoding):
    """One new decoder per column of labels (n, K), trained on the chosen samples, or on all."""
    states = _trained(view, chosen, columns, seed, decoding)

    def loss(k, view, chosen, labels):
        if states[k] is None:
            return np.nan
        params, model_state = states[k].params["net"], states[k].model_state["net"]
        return _loss(view.layer, params, model_state, view, chosen, labels, decoding)

    def evaluate(view, chosen, columns):
        return np.array([loss(k, view, chosen, labels) for k, labels in enumerate(columns.T)])

    running = [np.nan if state is None else float(state.method.mean) for state in states]
    found = np.array(running) if decoding.value == "running" else evaluate(view, chosen, columns)
    return _Decoded(found, sum(state is not None and bool(state.method.resting) for state in states), evaluate)


def _trained(view, chosen, columns, seed, decoding):
    """The last state of each decoder, None if it became NaN or Inf.

    All in one program; with how="dispatch" in a program for one, column by column: a decoder that rests is done.
    """
    layer, count = view.layer, columns.shape[1]
    batch = min(decoding.batch_size, len(columns))
    epoch = -(-len(columns) // batch)
    if (batch, epoch, view.once) not in layer.trainers:
        layer.trainers[batch, epoch, view.once] = _trainer(layer, epoch, view.once, decoding)
    trainer = layer.trainers[batch, epoch, view.once]

    def objective(column):
        return Epochs(Decoder(column, batch_size=batch), rest_loss=decoding.rest_loss, epoch_steps=epoch)

    objectives = [objective(jnp.asarray(k)) for k in range(count)]
    seeds = [Seeds(*[(1000 * (1 + seed) + k) % 2**31] * 3) for k in range(count)]  # different from the network's
    states = [init_state(own, seed, trainer.step.ctx) for own, seed in zip(objectives, seeds, strict=True)]
    x = view.whole() if view.once else view.sample.x
    data = {"train": {"x": x if chosen is None else x[chosen], "labels": jnp.asarray(columns)}}
    constants = replicated({"data": data} | ({} if view.once else {"frozen": {"encoder": view.encoder}}), decoding.mesh)
    until = decoding.epochs * epoch

    def last(objective, state, seeds, runs=()):
        state, seeds = replicated((state, seeds), decoding.mesh)
        log = every(epoch, until)
        return fit(
            objective, state, constants, seeds, trainer.step,
            until=until, log=log, runs=runs, steps_per_call=trainer.steps_per_call,
        )  # fmt: skip

    found = [None] * count
    with suppress(NonFiniteError):
        if decoding.how == "dispatch":
            for k in range(count):
                with suppress(NonFiniteError):
                    found[k] = last(objectives[k], states[k], seeds[k])
        else:
            all_runs = last(objective(jnp.arange(count)), stack(states), stack(seeds), [{}] * count)
            fine = np.asarray(all_runs.step) == np.max(all_runs.step)  # a frozen one stays behind
            found = [jax.tree.map(lambda leaf, k=k: leaf[k], all_runs) if fine[k] else None for k in range(count)]
    return found


def _loss(layer, params, model_state, view, chosen, labels, decoding):
    """Mean cross-entropy on a sample, over the parts of its partition; on chosen samples, over parts of these."""
    total, labels = 0.0, jnp.asarray(labels)
    whole = view.whole()[chosen] if chosen is not None else None
    for part in partition(len(labels), decoding.measured_batch):
        h = view.batch(part) if whole is None else whole[part]
        total += jnp.sum(cross_entropy(layer.logits(params, model_state, h), labels[part]))
    return float(total) / len(labels)


class _Trainer(NamedTuple):
    step: Step
    steps_per_call: int


def _trainer(layer, epoch, once, decoding):
    """The step of the decoders of a layer."""

    def encoder(params, model_state, x, train, **_):
        return layer.encode(params, model_state, x), model_state

    nets = {"net": layer.decoder} | ({} if once else {"encoder": layer.decoder._replace(apply=encoder)})
    stored = layer.name == INPUT
    views = {"plain": decoding.transform if stored else lambda key, x: x}
    frozen = () if once else ("encoder",)
    ctx = Context(nets, {"main": Optimizer(decoding.tx)}, Facts(decoding.num_classes, 0), frozen)
    step = make_step(ctx, sharded_views(views, decoding.mesh))
    step = step if decoding.how == "dispatch" else map_runs(step, decoding.how)
    return _Trainer(step, epoch if decoding.fused else 1)
