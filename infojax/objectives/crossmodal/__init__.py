"""Prompts learnt on frozen CLIP towers: CoOp, CoCoOp, and the cross-modal alignment loss with either."""

from infojax.objectives.crossmodal.alignment import GroupEntropies, cross_modal_alignment, group_entropies

__all__ = ["GroupEntropies", "cross_modal_alignment", "group_entropies"]
