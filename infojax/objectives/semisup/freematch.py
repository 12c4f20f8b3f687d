"""FreeMatch: thresholds that follow the net's confidence, and a fairness term; with the papers' information terms."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from infojax.objectives.contract import Aux, State
from infojax.objectives.objective import objective
from infojax.objectives.regularizers import InformationTerm
from infojax.objectives.semisup.common import SemiSupervised, guessed, hard, inverse, joint, judged, masked
from infojax.objectives.semisup.fixmatch import selected_term


class Confidence(NamedTuple):
    """Method state of `FreeMatch`: moving averages over unlabelled batches.

    Attributes:
      threshold: of max p; p_model: (C,) of p; histogram: (C,) of the share of each class among the guesses.
    """

    threshold: jax.Array
    p_model: jax.Array
    histogram: jax.Array


@objective
class FreeMatch(SemiSupervised):
    """CE(labelled) + weight mean 1[max p_weak >= t(c)] CE(z_strong, c) + fairness L_f + information term, c = argmax.

    t(c) = threshold p_model(c) / max p_model, from averages that follow the batch before it is masked.
    L_f = sum a log b, a = Norm(p_model / histogram), b = Norm(mean p_strong / histogram of argmax p_strong), both of
    the selected samples, with 1 / 0 = 0; nothing selected gives 0.

    Attributes:
      decay: of the averages, which begin at 1 / C.
      fairness: weight of L_f (SAF); least, most: bounds of t(c), for SVHN.
      information: lambda MI or entropy difference between the strong view's features and the head rows of the guesses,
        of the selected samples (Song et al. 2024, section 5, who state neither the view nor lambda: ours).
    References:
      Wang et al. 2023; TorchSSL models/freematch_entropy, whose files say fairness 0.01.
    """

    weight: float = 1.0
    fairness: float = 0.01
    decay: float = 0.999
    least: float = 0.0
    most: float = 1.0
    information: InformationTerm = InformationTerm()

    def init(self, key, ctx):
        even = jnp.full(ctx.facts.num_classes, 1 / ctx.facts.num_classes)
        return Confidence(even[0], even, even)

    def selected(self, state: State, logits: jax.Array) -> jax.Array:
        return self.passing(state.method, *guessed(logits)[1:])

    def passing(self, confidence: Confidence, top: jax.Array, guess: jax.Array) -> jax.Array:
        """(n,) booleans: which guesses pass the threshold of their class.

        top, guess: (n,) the largest probability of each sample, and its class.
        """
        threshold = confidence.threshold * confidence.p_model / jnp.max(confidence.p_model)
        return top >= jnp.clip(threshold, self.least, self.most)[guess]

    def loss(self, nets, state, constants, batch, draws, ctx):
        labelled, rows = batch["labelled"], batch["unlabelled"]
        known, weak, strong = joint(nets, labelled.views["weak"], rows.views["weak"], rows.views["strong"])
        supervised = hard(known.logits, labelled.labels)
        p, top, guess = guessed(weak.logits)
        confidence = self.followed(state.method, p, top, guess)
        mask = self.passing(confidence, top, guess)
        unsupervised = masked(mask, optax.softmax_cross_entropy_with_integer_labels(strong.logits, guess))
        fairness = fairness_of(strong.logits, mask, confidence)
        value, metrics = selected_term(self.information, nets, strong, guess, mask, ctx)
        metrics |= {"supervised_loss": supervised, "unsupervised_loss": unsupervised, "fairness_loss": fairness}
        metrics |= {"threshold": confidence.threshold} | judged(rows, guess, mask)
        value = supervised + self.weight * unsupervised + self.fairness * fairness + value
        return value, Aux(confidence, metrics, (strong, guess, mask))

    def followed(self, confidence: Confidence, p: jax.Array, top: jax.Array, guess: jax.Array) -> Confidence:
        """The averages after a batch of probabilities p (n, C); top and guess as of `passing`."""
        shares = jnp.mean(jax.nn.one_hot(guess, p.shape[1]), 0)
        seen = Confidence(jnp.mean(top), jnp.mean(p, 0), shares)
        return jax.tree.map(lambda old, new: self.decay * old + (1 - self.decay) * new, confidence, seen)


def fairness_of(logits: jax.Array, mask: jax.Array, confidence: Confidence) -> jax.Array:
    """L_f (0-d) of the strong views' logits (n, C), over the samples that mask (n,) selects; 0 if it selects none."""
    p, weights = jax.nn.softmax(logits), mask.astype(logits.dtype)
    count = jnp.maximum(jnp.sum(weights), 1)
    mean = weights @ p / count
    shares = weights @ jax.nn.one_hot(jnp.argmax(logits, -1), logits.shape[1]) / count
    a = normalised(confidence.p_model * inverse(confidence.histogram))
    b = normalised(mean * jax.lax.stop_gradient(inverse(shares)))
    return jnp.where(jnp.any(mask), jnp.sum(a * jnp.log(b + 1e-12)), 0)


def normalised(x: jax.Array) -> jax.Array:
    """x / sum x for x (C,) >= 0; zeros stay zeros."""
    total = jnp.sum(x)
    return x / jnp.where(total > 0, total, 1)
