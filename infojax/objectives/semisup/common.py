"""What semi-supervised methods share: their batch, the ramp, the three conventions of batch statistics, the metrics.

Formulas and defaults are those of TorchSSL, which produced the published table, unless a method says otherwise.
Losses of unlabelled samples are means over the whole unlabelled batch: what a mask leaves out counts as zero.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from infojax.objectives.contract import Average, Context, Model, State, View
from infojax.objectives.nets import Nets
from infojax.objectives.objective import Objective, objective


@objective
class SemiSupervised(Objective):
    """Base of the methods: net "net", sources "labelled" and "unlabelled", an evaluated average.

    Attributes:
      ema_decay: of the evaluated average of the parameters; evaluation uses the net's own batch statistics.
      lr_scale: factor of the learning rate.
      batch_size: labelled samples per step.
      ratio: unlabelled samples for each labelled one (mu).
      replacement: samples are drawn independently, as TorchSSL does, instead of one permutation per epoch.
    Class attributes:
      unlabelled: name -> transform of each unlabelled sample.
      guessing: the net whose guesses are selected.
    """

    ema_decay: float = 0.999
    lr_scale: float = 1.0
    batch_size: int = 64
    ratio: int = 7
    replacement: bool = True

    unlabelled = {"weak": "weak", "strong": "strong"}
    guessing = "net"

    @property
    def views(self):
        labelled = View("labelled", ("weak",), self.batch_size, replacement=self.replacement)
        size = self.batch_size * self.ratio
        return labelled, View("unlabelled", self.unlabelled, size, replacement=self.replacement)

    @property
    def averages(self):
        return {"ema": Average(("net",), self.ema_decay)}

    def selected(self, state: State, logits: jax.Array) -> jax.Array:
        """How much unlabelled samples with these logits (n, C) count in the loss, at the state's step: (n,) in [0, 1].

        The method's own mask, of its thresholds as they are; all samples where it has none.
        """
        return jnp.ones(len(logits))

    def evaluated(self, state, constants, ctx):
        """Adds what an evaluator needs to select as the method does: its own state, and the net that guesses."""
        found, own = super().evaluated(state, constants, ctx), State(state.step, {}, {}, {}, {}, state.method)
        guessing = Model(state.params[self.guessing], state.model_state[self.guessing], ctx.nets[self.guessing])
        extra = {"objective": self, "state": own, "guessing": guessing}
        return found | {"raw": replace(found["raw"], extra=extra)}


def ramp(state: State, ctx: Context, fraction: float | jax.Array) -> jax.Array:
    """min(k / (fraction K), 1) at step k of K: the linear warm-up of an unsupervised loss."""
    return jnp.clip(state.step / (fraction * ctx.facts.total_steps), 0, 1)


# Cross-entropies, means over the batch


def hard(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy of logits (n, C) with integer labels (n,)."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def soft(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean cross-entropy of logits (n, C) with distributions (n, C)."""
    return jnp.mean(optax.softmax_cross_entropy(logits, targets))


def masked(mask: jax.Array, losses: jax.Array) -> jax.Array:
    """Mean over all n samples of mask (n,) times losses (n,); a mask holds booleans or weights in [0, 1]."""
    return jnp.mean(mask * losses)


def consistency(one: jax.Array, two: jax.Array) -> jax.Array:
    """Mean squared difference of the probabilities of logits (n, C) over samples and classes.

    The mean over classes makes the weight of a sum over them weight / C.
    """
    return jnp.mean((jax.nn.softmax(one) - jax.nn.softmax(two)) ** 2)


def sharpened(p: jax.Array, temperature: float | jax.Array) -> jax.Array:
    """p^(1/T) over its sum, for p (n, C) >= 0: rows sum to one."""
    powered = p ** (1 / temperature)
    return powered / jnp.sum(powered, -1, keepdims=True)


def inverse(x: jax.Array) -> jax.Array:
    """1 / x elementwise for x > 0, else 0."""
    return jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1), 0)


def guessed(logits: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of logits (n, C), without a gradient: probabilities (n, C), their maximum (n,), its class (n,)."""
    p = jax.nn.softmax(jax.lax.stop_gradient(logits))
    return p, jnp.max(p, -1), jnp.argmax(p, -1)


# Batch statistics: how samples pass through the net


def joint(nets: Nets, *groups: jax.Array, name: str = "net") -> list[Any]:
    """Outputs of groups of samples (n_i, ...) that pass together: batch statistics are of the mixture.

    Samples without a gradient in their logits still act on the others through the shared mean and variance, which is
    why they are part of the differentiated pass. The outputs have logits and embedding, but no other features.

    The batch is made of equal parts, each with its share of every group: devices that divide the groups then hold the
    rows of their part already, while one group after the other would move most of the batch between them.
    """
    parts = math.gcd(*(len(group) for group in groups))
    rows = jnp.concatenate([group.reshape(parts, -1, *group.shape[1:]) for group in groups], axis=1)
    output = nets(name, rows.reshape(-1, *rows.shape[2:]))
    ends = np.cumsum([len(group) // parts for group in groups])[:-1]

    def divided(x):
        shares = jnp.split(x.reshape(parts, -1, *x.shape[1:]), ends, axis=1)
        return [share.reshape(-1, *x.shape[1:]) for share in shares]

    outputs = zip(divided(output.logits), divided(output.embedding), strict=True)
    return [output._replace(logits=z, embedding=f, features={}) for z, f in outputs]


def apart(nets: Nets, x: jax.Array, name: str = "net") -> Any:
    """Output of samples (n, ...) that pass by themselves in training mode; the running statistics stay as they are."""
    return nets(name, x, update_statistics=False)


def interleaved(nets: Nets, rows: jax.Array, chunks: int) -> jax.Array:
    """Logits (chunks n, C) of rows that pass in interleaved chunks of n; running statistics follow the first chunk.

    Chunk i gives its i-th part to the first chunk and takes that one's: every chunk, the first above all, is a mixture.

    Args:
      rows: (chunks n, ...), the labelled ones first.
    References:
      Berthelot et al. 2019, MixMatch, in the released code.
    """
    places = interleaving(len(rows) // chunks, chunks)
    parts = jnp.split(rows[places], chunks)
    logits = [nets("net", part, update_statistics=i == 0).logits for i, part in enumerate(parts)]
    return jnp.concatenate(logits)[places]


def interleaving(size: int, chunks: int) -> np.ndarray:
    """The permutation of `interleaved`, its own inverse: (chunks * size,)."""
    share, rest = divmod(size, chunks)
    ends = np.cumsum([0] + [share + (i >= chunks - rest) for i in range(chunks)])
    places = np.arange(chunks * size).reshape(chunks, size)
    for i in range(1, chunks):
        part = slice(ends[i], ends[i + 1])
        places[0, part], places[i, part] = places[i, part].copy(), places[0, part].copy()
    return places.ravel()


# Mixing


def mixing(key: jax.Array, alpha: float | jax.Array, count: int, per_sample: bool = False) -> dict[str, jax.Array]:
    """How `count` samples are mixed.

    Returns:
      "share", max(b, 1 - b) with b of Beta(alpha, alpha), 0-d or, `per_sample`, (count,); "order", a permutation.
    """
    share, order = jax.random.split(key)
    b = jax.random.beta(share, alpha, alpha, (count,) if per_sample else ())
    return {"share": jnp.maximum(b, 1 - b), "order": jax.random.permutation(order, count)}


def mixed(draws: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    """share x + (1 - share) x[order] for x (count, ...), with the draws of `mixing`."""
    share = draws["share"].reshape(-1, *[1] * (x.ndim - 1)) if jnp.ndim(draws["share"]) else draws["share"]
    return share * x + (1 - share) * x[draws["order"]]


# Metrics


def judged(rows: Any, guess: jax.Array, weights: jax.Array) -> dict[str, jax.Array]:
    """How a method selects: share of the unlabelled samples, and how many guesses are right, of all and of these.

    Args:
      rows: unlabelled samples with `labels`, which are used only to count; unknown ones are negative.
      guess: (n,) classes; weights: (n,) in [0, 1].
    """
    known = rows.labels >= 0
    right = (guess == rows.labels) & known
    selected = weights * known
    return {
        "mask_ratio": jnp.mean(weights * 1.0),
        "pseudo_accuracy": jnp.sum(right) / jnp.maximum(jnp.sum(known), 1),
        "pseudo_accuracy_selected": jnp.sum(selected * right) / jnp.maximum(jnp.sum(selected), 1e-12),
    }
