"""Measurements of images together with the texts of their classes."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infojax.evaluate.evaluators import classify, interplay
from infojax.evaluate.forward import Evaluation, Outputs, Sample, not_finite
from infojax.measures import joint
from infojax.measures.spectra import support, unit_rows
from infojax.objectives import Model
from infojax.objectives.crossmodal import own_texts
from infojax.parallel import local_copy

MOST = 4096  # samples of a joint entropy if each image has its own texts


def cross_modal(
    sample: Sample, logit_scale: float, batch_size: int = 512, also: Callable[[Model, dict], Any] = lambda *_: ()
) -> Callable[[Mapping[str, Model]], Iterator[tuple[str, Any]]]:
    """An evaluator's `run`, for a sample whose x are image features.

    loss, accuracy and, if texts do not depend on the image, all of `interplay` between images and class texts; else
    mir and hdr of each image and its own text. `similarities`, `alignment`.

    Args:
      logit_scale: ln of the factor of the cosines.
      also: (model, found) -> further (name, value).
    """

    def run(models):
        model = models["raw"]
        logits, z, own = matched(model, sample, batch_size)
        outputs = {"raw": Outputs(logits, z)}
        yield "split", sample.split
        yield "n", len(sample.labels)
        lost = not_finite(outputs)
        if lost:
            yield "not_finite", lost
            return
        evaluation = Evaluation(sample, outputs, local_copy(model.head))
        found = dict(classify(evaluation))
        if evaluation.head is not None:
            found |= dict(interplay(evaluation))
        else:
            chosen = np.linspace(0, len(z) - 1, min(MOST, len(z))).astype(int)
            found |= {"mir": float(joint.mir(z[chosen], own[chosen])), "hdr": float(joint.hdr(z[chosen], own[chosen]))}
        found |= similarities(np.asarray(logits, np.float64) / np.exp(logit_scale), np.asarray(sample.labels))
        found |= alignment(z, own, np.asarray(sample.labels))
        yield from found.items()
        yield from also(model, found)

    return run


def matched(model: Model, sample: Sample, batch_size: int = 512) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(logits (n, C), unit image features (n, E), the text of each image's class (n, E)).

    Texts that do not depend on the image are computed once.
    """
    if model.head is not None:
        head, z = model.head, unit_rows(sample.x)[0]
        return z @ head.weights.T, z, unit_rows(head.weights)[0][sample.labels]
    batch, count = _batch(model.net), len(sample.x)
    size = min(batch_size, count)
    parts = []
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)  # one program: the last batch is padded
        parts.append(local_copy(batch(model.params, sample.x[rows], sample.labels[rows])))
    logits, z, own = (jnp.concatenate(part)[:count] for part in zip(*parts, strict=True))
    return logits, z, own


@functools.cache
def _batch(net):
    @jax.jit
    def batch(params, x, labels):
        found = net.apply(params, {}, x, train=False)[0]
        return found.logits, found.embedding, own_texts(found.texts, labels)

    return batch


def similarities(cosines: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Means over images of the cosine with the text of

    class_similarity: its own class; modal_similarity: all classes, its own included; hardest_similarity: the nearest
    other class (absent for one class).

    Args:
      cosines: (n, C); labels: (n,).
    References:
      Song et al. 2024, Table 1; skingorz/CMA, trainers/cocoop.py, which also prints the third.
    """
    place = np.arange(len(labels))
    own = cosines[place, labels]
    found = {"class_similarity": float(own.mean()), "modal_similarity": float(cosines.mean())}
    if cosines.shape[1] > 1:
        others = cosines.copy()
        others[place, labels] = -np.inf
        found["hardest_similarity"] = float(others.max(axis=1).mean())
    return found


def alignment(images: Any, texts: Any, labels: np.ndarray) -> dict[str, float]:
    """CMA of a whole sample: "cma", the released form (mean over classes, in units of ln |F_c|), and "cma_sum", nats.

    Args:
      images, texts: (n, E) unit features; for each class the text of its first image is used.
    """
    images, texts = np.asarray(images, np.float64), np.asarray(texts, np.float64)
    entropies, sizes = [], []
    for c in np.unique(labels):
        members = np.flatnonzero(labels == c)
        group = np.concatenate([images[members], texts[members[:1]]])
        small = group.T @ group if len(group) > group.shape[1] else group @ group.T
        w = support(np.linalg.eigvalsh(small / len(group)))
        w = w[w > 0]
        entropies.append(-np.sum(w * np.log(w)))
        sizes.append(len(group))
    return {"cma": float(np.mean(np.divide(entropies, np.log(sizes)))), "cma_sum": float(np.sum(entropies))}
