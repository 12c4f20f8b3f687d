"""Prompts learnt on frozen CLIP towers: CoOp, CoCoOp, and the cross-modal alignment loss with either."""

from infojax.objectives.crossmodal.cma import FORMS, TEXTS, GroupEntropies, cross_modal_alignment, group_entropies
from infojax.objectives.crossmodal.learning import (
    Matched,
    PromptLearning,
    ZeroShot,
    cosines,
    fixed_texts,
    match,
    own_texts,
    prompted,
)
from infojax.objectives.crossmodal.prompts import POSITIONS, Prompts, assemble, lay_out, prompt_features, prompt_net

__all__ = [
    "FORMS", "GroupEntropies", "Matched", "POSITIONS", "PromptLearning", "Prompts", "TEXTS", "ZeroShot", "assemble",
    "cosines", "cross_modal_alignment", "fixed_texts", "group_entropies", "lay_out", "match", "own_texts",
    "prompt_features", "prompt_net", "prompted",
]  # fmt: skip
