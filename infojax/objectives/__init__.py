"""What is minimised. Every objective reads like its paper's equation; networks and optimisers arrive in a context."""

from infojax.objectives.bottleneck import Bottleneck
from infojax.objectives.contract import (
    Aux,
    Average,
    Context,
    Facts,
    Net,
    Objective,
    Seeds,
    State,
    View,
    descend,
    init_state,
    move_averages,
    objective,
)
from infojax.objectives.epochs import Decoder, Epochs
from infojax.objectives.regularizers import information_term
from infojax.objectives.supervised import Supervised

__all__ = [
    "Aux", "Average", "Bottleneck", "Context", "Decoder", "Epochs", "Facts", "Net", "Objective", "Seeds", "State",
    "Supervised", "View", "descend", "information_term", "init_state", "move_averages", "objective",
]  # fmt: skip
