"""Measurements at fixed weights: generators of (name, value)."""

from infojax.evaluate.clusters import clusters, tsne
from infojax.evaluate.crossmodal import cross_modal
from infojax.evaluate.derived import along_path, by_sparsity, looking, refreshing
from infojax.evaluate.evaluators import classify, interplay, neural_collapse
from infojax.evaluate.forward import Evaluation, Outputs, Sample, fixed_sample, forward, on_sample
from infojax.evaluate.layers import LayerError, chosen_layers, geometric, layer_shapes, layerwise_nc1
from infojax.evaluate.reconstruction import reconstructions
from infojax.evaluate.selected import selection
from infojax.evaluate.usable import Decoding, usable
from infojax.evaluate.views import online, spectrum, view_information, view_lidar

EVALUATORS = {"classify": classify, "interplay": interplay, "neural_collapse": neural_collapse, "clusters": clusters}

__all__ = [
    "Decoding", "EVALUATORS", "Evaluation", "LayerError", "Outputs", "Sample", "along_path", "by_sparsity",
    "chosen_layers", "classify", "clusters", "cross_modal", "fixed_sample", "forward", "geometric", "interplay",
    "layer_shapes", "layerwise_nc1", "looking", "neural_collapse", "on_sample", "online", "reconstructions",
    "refreshing", "selection", "spectrum", "tsne", "usable", "view_information", "view_lidar",
]  # fmt: skip
