"""Measurements of images together with the texts of their classes."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infojax.evaluate.evaluators import classify, interplay
from infojax.evaluate.forward import Evaluation, Outputs, Sample, not_finite
from infojax.measures import joint
from infojax.measures.spectra import support, unit_rows
from infojax.objectives import Model
from infojax.objectives.crossmodal import cosines, own_texts
from infojax.parallel import local_copy

MOST = 4096  # samples of a joint entropy if each image has its own texts
MAPPED = 100  # classes, at most, of a map of similarities


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


def class_by_class(
    sample: Sample, logit_scale: float, names: Sequence[str], batch_size: int = 512
) -> Callable[[Mapping[str, Model]], Iterator[tuple[str, Any]]]:
    """An evaluator's `run`: a row of lists with a number per class, and the map of similarities of all classes.

    class_names, class_count; class_accuracy; class_entropy, H of a class's images with its text, nats; class_own and
    class_hardest, mean cosines with the own and with the nearest other text. similarity_map, of at most MAPPED
    classes: row c has the mean cosines of the images of class c with the text of every class. An absent class has None.
    """

    def run(models):
        logits, z, own = matched(models["raw"], sample, batch_size)
        yield "split", sample.split
        yield "n", len(sample.labels)
        cosines = np.asarray(logits, np.float64) / np.exp(logit_scale)
        yield from by_class(cosines, *(np.asarray(x, np.float64) for x in (z, own)), sample.labels, names).items()

    return run


def by_class(
    cosines: np.ndarray, images: np.ndarray, texts: np.ndarray, labels: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """The lists of `class_by_class`, for cosines (n, C), unit features (n, E) and own texts (n, E)."""
    labels, count = np.asarray(labels), len(names)
    others = np.where(labels[:, None] == np.arange(count), -np.inf, cosines)
    of_image = {
        "class_accuracy": np.argmax(cosines, axis=1) == labels, "class_own": cosines[np.arange(len(labels)), labels],
        "class_hardest": others.max(axis=1) if count > 1 else np.full(len(labels), np.nan),
    }  # fmt: skip
    members = [np.flatnonzero(labels == c) for c in range(count)]
    found: dict[str, Any] = {"class_names": list(names), "class_count": [len(rows) for rows in members]}
    found |= {
        name: [float(np.mean(x[rows])) if len(rows) else None for rows in members] for name, x in of_image.items()
    }
    found["class_entropy"] = [group_entropy(images[rows], texts[rows[0]]) if len(rows) else None for rows in members]
    if count <= MAPPED:
        found["similarity_map"] = [cosines[rows].mean(axis=0).tolist() if len(rows) else None for rows in members]
    return found


def matched(model: Model, sample: Sample, batch_size: int = 512) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(logits (n, C), unit image features (n, E), the text of each image's class (n, E)).

    Texts that do not depend on the image are computed once.
    """
    if model.head is not None:
        head, z = model.head, unit_rows(sample.x)[0]
        return cosines(z, head.weights), z, unit_rows(head.weights)[0][sample.labels]
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
    groups = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    entropies = [group_entropy(images[rows], texts[rows[0]]) for rows in groups]
    sizes = [len(rows) + 1 for rows in groups]
    return {"cma": float(np.mean(np.divide(entropies, np.log(sizes)))), "cma_sum": float(np.sum(entropies))}


def group_entropy(images: np.ndarray, text: np.ndarray) -> float:
    """H(G(F) / |F|) in nats of a class's unit image features (n, E) and its unit text (E,)."""
    group = np.concatenate([images, text[None]])
    small = group.T @ group if len(group) > group.shape[1] else group @ group.T
    w = support(np.linalg.eigvalsh(small / len(group)))
    w = w[w > 0]
    return float(-np.sum(w * np.log(w)))
