"""Measurements at fixed weights: generators of (name, value)."""

from infojax.evaluate.evaluators import CLASSIFIER, classify, interplay, neural_collapse
from infojax.evaluate.forward import Said, Sample, Seen, fixed_sample, forward, on_sample

__all__ = [
    "CLASSIFIER", "Said", "Sample", "Seen", "classify", "fixed_sample", "forward", "interplay",
    "neural_collapse", "on_sample",
]  # fmt: skip
