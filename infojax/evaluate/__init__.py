"""Measurements at fixed weights: generators of (name, value)."""

from infojax.evaluate.clusters import clusters, tsne
from infojax.evaluate.derived import along_path, by_sparsity, looking, refreshing
from infojax.evaluate.evaluators import CLASSIFIER, classify, interplay, neural_collapse
from infojax.evaluate.forward import Said, Sample, Seen, fixed_sample, forward, on_sample

__all__ = [
    "CLASSIFIER", "Said", "Sample", "Seen", "along_path", "by_sparsity", "classify", "clusters", "fixed_sample",
    "forward", "interplay", "looking", "neural_collapse", "on_sample", "refreshing", "tsne",
]  # fmt: skip
