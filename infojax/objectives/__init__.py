"""What is minimised. Every objective reads like its paper's equation; networks and optimisers come in a context."""

from infojax.objectives.bottleneck import Bottleneck
from infojax.objectives.contract import (
    Aux,
    Average,
    Batch,
    Context,
    Facts,
    Head,
    Model,
    Net,
    Optimizer,
    Seeds,
    State,
    View,
    stream,
)
from infojax.objectives.epochs import Decoder, Epochs
from infojax.objectives.nets import Nets, descend
from infojax.objectives.objective import (
    Objective,
    flat_settings,
    float_settings,
    init_state,
    move_averages,
    objective,
    with_settings,
)
from infojax.objectives.regularizers import InformationTerm, information_term
from infojax.objectives.supervised import Supervised

OBJECTIVES = {"supervised": Supervised, "bottleneck": Bottleneck, "epochs": Epochs, "decoder": Decoder}

__all__ = [
    "Aux", "Average", "Batch", "Bottleneck", "Context", "Decoder", "Epochs", "Facts", "Head", "InformationTerm",
    "Model", "Net", "Nets", "OBJECTIVES", "Objective", "Optimizer", "Seeds", "State", "Supervised", "View", "descend",
    "flat_settings", "float_settings", "information_term", "init_state", "move_averages", "objective", "stream",
    "with_settings",
]  # fmt: skip
