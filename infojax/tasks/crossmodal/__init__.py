"""Few-shot learning of prompts on frozen CLIP towers: CoOp, CoCoOp, the cross-modal alignment loss, zero-shot CLIP."""

from infojax.tasks.crossmodal.recipe import METHODS, UNTRAINED, defaults
from infojax.tasks.crossmodal.study import run, study

__all__ = ["METHODS", "UNTRAINED", "defaults", "run", "study"]
