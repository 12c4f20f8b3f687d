"""Measurements at fixed weights: generators of (name, value)."""

from infojax.evaluate.evaluators import classify, interplay, neural_collapse
from infojax.evaluate.forward import Said, Sample, fixed_sample, forward

__all__ = ["Said", "Sample", "classify", "fixed_sample", "forward", "interplay", "neural_collapse"]
