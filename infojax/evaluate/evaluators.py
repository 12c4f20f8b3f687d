"""Measurements of a classifier: generators of (name, value) from its outputs for a sample.

Information and collapse are those of the raw weights: the running statistics were gathered with these, not with the
averaged parameters.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infojax.evaluate.forward import Evaluation
from infojax.measures import collapse, joint
from infojax.measures.classification import cross_entropy
from infojax.measures.entropy import matrix_entropy
from infojax.measures.estimate import estimate_interplay
from infojax.measures.least_squares import squared_error
from infojax.measures.limits import limits_at_collapse
from infojax.measures.theory import Limits


def classify(evaluation: Evaluation) -> Iterator[tuple[str, Any]]:
    """loss (mean cross-entropy, nats) and accuracy, for the raw weights and each average ("accuracy_ema").

    A network without logits has neither.
    """
    labels = evaluation.sample.labels
    for name, outputs in evaluation.outputs.items():
        if outputs.logits is not None:
            suffix = "" if name == "raw" else f"_{name}"
            loss, accuracy = _scores(outputs.logits, labels)
            yield f"loss{suffix}", float(loss)
            yield f"accuracy{suffix}", float(accuracy)


@jax.jit
def _scores(logits, labels):
    return jnp.mean(cross_entropy(logits, labels)), jnp.mean(jnp.argmax(logits, -1) == labels)


def interplay(evaluation: Evaluation) -> Iterator[tuple[str, Any]]:
    """Matrix information between the embedding and the head, with its limits at collapse.

    entropy_features, entropy_head (of V = W[y]), joint_entropy, mutual_information, mir, hdr, mean_energy; the same for
    centred features ("..._centered"); entropy_head_weights = H(G(W)); effective_rank_from_gram = exp H(G(Z)).
    Joint entropies of matrices with more than 4,096 rows are estimated: "mir_error" is half the width of the bounds.
    "limit_..." for each that has one: `limits_at_collapse` with the sample's own class counts and the measured mean
    energy. Theorem 3's own pair, with the centred class means M: entropy_means, effective_rank_means, and
    mir_means, hdr_means between G(W) and G(M).

    Without a head: entropy_features and its centred version, embedding_dim, effective_rank_from_gram.
    """
    z, labels = evaluation.outputs["raw"].embedding, evaluation.sample.labels
    if evaluation.head is None:
        entropies = [float(matrix_entropy(z, center=center)) for center in (False, True)]
        yield from zip(("entropy_features", "entropy_features_centered"), entropies, strict=True)
        yield "embedding_dim", z.shape[1]
        yield "effective_rank_from_gram", float(np.exp(entropies[0]))
        return
    head = evaluation.head.weights
    counts = np.bincount(np.asarray(labels), minlength=len(head))
    estimates = [estimate_interplay(z, labels, head, center=center) for center in (False, True)]
    raw, centered = (found.values for found in estimates)
    limits = (None, None) if np.sum(counts > 0) < 2 else limits_at_collapse(counts, float(raw.mean_energy), z.shape[1])
    for suffix, found, limit, of in (
        ("", raw, limits[0], estimates[0]),
        ("_centered", centered, limits[1], estimates[1]),
    ):
        if of.joint_entropy.route == "estimate":
            yield f"mir{suffix}_error", (of.mir.upper - of.mir.lower) / 2
        for name in Limits._fields:
            yield name + suffix, float(getattr(found, name))
            if limit is not None and np.isfinite(getattr(limit, name)):
                yield f"limit_{name}{suffix}", getattr(limit, name)
    yield "mean_energy", float(raw.mean_energy)
    yield "embedding_dim", z.shape[1]
    yield "effective_rank_from_gram", float(jnp.exp(raw.entropy_features))
    yield "entropy_head_weights", float(matrix_entropy(head))
    means = _class_means(z, labels, counts)
    entropy = matrix_entropy(means)
    yield "entropy_means", float(entropy)
    yield "effective_rank_means", float(jnp.exp(entropy))
    present = jnp.asarray(counts > 0, z.dtype)
    yield "mir_means", float(joint.mir(head, means, weights=present))
    yield "hdr_means", float(joint.hdr(head, means, weights=present))


@jax.jit
def _class_means(z, labels, counts):
    """Class means minus the global mean, (C, D); an empty class has a zero row."""
    sums = jnp.zeros((len(counts), z.shape[1]), z.dtype).at[labels].add(z)
    means = sums / jnp.maximum(counts, 1)[:, None]
    return jnp.where(counts[:, None] > 0, means - jnp.mean(z, axis=0, keepdims=True), 0)


def neural_collapse(evaluation: Evaluation, convention: str = "thesis") -> Iterator[tuple[str, Any]]:
    """NC1 (its convention is in the row) to NC4, CDNV, Davies-Bouldin, and the parts of the head's squared error.

    Without a head: only those that need none.
    """
    z, labels = evaluation.outputs["raw"].embedding, evaluation.sample.labels
    head, bias = evaluation.head or (None, None)
    num_classes = None if head is None else len(head)
    found = collapse.neural_collapse(z, labels, head, bias, num_classes=num_classes, convention=convention)
    yield "convention", convention
    for name, value in found._asdict().items():
        if name != "per_class" and value is not None:
            yield name, float(value)
    if head is None:
        return
    for name, value in squared_error(z, labels, head, bias)._asdict().items():
        yield f"mse_{name}", float(value)
