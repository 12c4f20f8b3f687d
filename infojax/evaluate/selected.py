"""What a semi-supervised method selects: the accuracy of its pseudo-labels, and the information in their features."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp

from infojax.evaluate.forward import Outputs, Sample, not_finite
from infojax.measures.estimate import estimate_interplay
from infojax.objectives import Model
from infojax.objectives.semisup.common import judged
from infojax.parallel import local_copy

SPLIT = "unlabelled_selected"
MEASURED = ("entropy_features", "mutual_information", "mir", "hdr")


def selection(
    through: Callable[..., Outputs], sample: Sample
) -> Callable[[Mapping[str, Model]], Iterator[tuple[str, Any]]]:
    """An evaluator's `run`, on unlabelled samples as stored, without a random view.

    The method's own mask at fixed weights (`SemiSupervised.selected`): mask_ratio, pseudo_accuracy of all pseudo-labels
    and of the selected ones; entropy_features, mutual_information, MIR and HDR of the selected samples' features with
    the head rows of their pseudo-labels, weighted by sample. "n" is the number of samples with a weight; if it is 0
    the information is left out.
    """

    def run(models):
        raw = models["raw"]
        objective, state = raw.extra["objective"], raw.extra["state"]
        output = through(raw, sample.x)
        logits = output.logits if objective.guessing == "net" else through(raw.extra["guessing"], sample.x).logits
        yield "split", SPLIT
        if found := not_finite({"raw": output}) or not_finite({"raw": output._replace(logits=logits)}):
            yield "n", 0
            yield "not_finite", found
            return
        guess = jnp.argmax(logits, -1)
        weights = objective.selected(local_copy(state), logits) * jnp.ones(len(guess))
        count = int(jnp.sum(weights > 0))
        yield "n", count
        yield from ((name, float(value)) for name, value in judged(sample, guess, weights).items())
        if count:
            head = local_copy(raw.head).weights
            values = estimate_interplay(output.embedding, guess, head, weights=weights).values
            yield from ((name, float(getattr(values, name))) for name in MEASURED)

    return run
