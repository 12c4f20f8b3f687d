"""Evaluators of a classifier: each is a generator of (name, value) at fixed weights, on one fixed sample.

The classifier is net "net". Information and collapse are those of the raw weights: averages of parameters meet running
statistics that were gathered with others.
"""

import jax.numpy as jnp
import numpy as np
import optax

from infojax.evaluate.forward import forward
from infojax.measures import collapse, joint, theory
from infojax.measures.entropy import matrix_entropy


def classify(net, transform, sample, batch_size=500):
    """loss (mean cross-entropy, nats) and accuracy, of the raw weights and of each average ("accuracy_ema")."""
    said = forward(net, transform, batch_size)

    def run(evaluated):
        yield from _of(sample)
        for name, (params, model_state) in evaluated.items():
            logits = said(params["net"], model_state["net"], sample.x).logits
            suffix = "" if name == "raw" else f"_{name}"
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, sample.labels)
            yield f"loss{suffix}", float(jnp.mean(loss))
            yield f"accuracy{suffix}", float(jnp.mean(jnp.argmax(logits, -1) == sample.labels))

    return run


def interplay(net, transform, sample, batch_size=500):
    """Matrix information between the embedding and the head, beside its limits at collapse.

    entropy_features, entropy_head (of V = W[y]), joint_entropy, mutual_information, mir, hdr, mean_energy; their twins
    of centred features ("..._centered"); entropy_head_weights = H(G(W)); effective_rank_from_gram = exp H(G(Z)).
    "limit_..." beside each that has one: `nc_limits` with the sample's own class counts and the measured mean energy
    (zero for the twins). Theorem 3's own pair, of the centred class means M: entropy_means, effective_rank_means, and
    mir_means, hdr_means between G(W) and G(M).
    """
    said = forward(net, transform, batch_size)
    labels = np.asarray(sample.labels)

    def run(evaluated):
        params, model_state = evaluated["raw"]
        z = said(params["net"], model_state["net"], sample.x).embedding
        head, _ = net.head(params["net"])
        counts = np.bincount(labels, minlength=len(head))
        yield from _of(sample)
        for suffix, center in (("", False), ("_centered", True)):
            found = joint.interplay(z, sample.labels, head, center=center)
            energy = float(found.mean_energy)
            limits = theory.nc_limits(len(head), counts=counts, mean_energy=0.0 if center else energy)
            for name in theory.Limits._fields:
                yield name + suffix, float(getattr(found, name))
                yield f"limit_{name}{suffix}", float(getattr(limits, name))
            if not center:
                yield "mean_energy", energy
                yield "effective_rank_from_gram", float(jnp.exp(found.entropy_features))
        yield "entropy_head_weights", float(matrix_entropy(head))
        means = _class_means(z, labels, len(head))
        yield "entropy_means", float(matrix_entropy(means))
        yield "effective_rank_means", float(jnp.exp(matrix_entropy(means)))
        present = jnp.asarray(counts > 0, z.dtype)
        yield "mir_means", float(joint.mir(head, means, weights=present))
        yield "hdr_means", float(joint.hdr(head, means, weights=present))

    return run


def _class_means(z, labels, num_classes):
    """Class means less the global mean, (C, D); an empty class has a zero row."""
    sums = jnp.zeros((num_classes, z.shape[1]), z.dtype).at[labels].add(z)
    counts = np.bincount(labels, minlength=num_classes)[:, None]
    means = sums / np.maximum(counts, 1)
    return jnp.where(counts > 0, means - jnp.mean(z, axis=0, keepdims=True), 0)


def neural_collapse(net, transform, sample, convention="thesis", batch_size=500):
    """NC1 to NC4, CDNV and Davies-Bouldin of the embedding and the head; the convention of NC1 is in the row."""
    said = forward(net, transform, batch_size)

    def run(evaluated):
        params, model_state = evaluated["raw"]
        z = said(params["net"], model_state["net"], sample.x).embedding
        head, bias = net.head(params["net"])
        found = collapse.neural_collapse(z, sample.labels, head, bias, num_classes=len(head), convention=convention)
        yield from _of(sample)
        yield "convention", convention
        for name, value in found._asdict().items():
            if name != "per_class":
                yield name, float(value)

    return run


def _of(sample):
    yield "split", sample.split
    yield "n", len(sample.labels)
