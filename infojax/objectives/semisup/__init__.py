"""Semi-supervised learning: every row of Table 1 of Song et al. 2024 and AdaMatch, one small file for each method."""

from dataclasses import replace

from infojax.objectives.regularizers import InformationTerm
from infojax.objectives.semisup.adamatch import AdaMatch
from infojax.objectives.semisup.common import SemiSupervised
from infojax.objectives.semisup.dash import Dash
from infojax.objectives.semisup.fixmatch import FixMatch
from infojax.objectives.semisup.flexmatch import FlexMatch
from infojax.objectives.semisup.freematch import FreeMatch
from infojax.objectives.semisup.mean_teacher import MeanTeacher
from infojax.objectives.semisup.mixmatch import MixMatch
from infojax.objectives.semisup.mpl import MPL
from infojax.objectives.semisup.otmatch import OTMatch
from infojax.objectives.semisup.pi_model import PiModel
from infojax.objectives.semisup.pseudo_label import PseudoLabel
from infojax.objectives.semisup.remixmatch import ReMixMatch
from infojax.objectives.semisup.softmatch import SoftMatch
from infojax.objectives.semisup.supervised import LabelledOnly
from infojax.objectives.semisup.uda import UDA
from infojax.objectives.semisup.vat import VAT

# name -> the method with its defaults; the strengths of the information terms are ours, the paper states none.
METHODS = {
    "supervised": LabelledOnly(),
    "pi_model": PiModel(),
    "pseudo_label": PseudoLabel(),
    "vat": VAT(),
    "mean_teacher": MeanTeacher(),
    "mixmatch": MixMatch(),
    "remixmatch": ReMixMatch(),
    "uda": UDA(),
    "fixmatch": FixMatch(),
    "dash": Dash(),
    "mpl": MPL(),
    "flexmatch": FlexMatch(),
    "freematch": FreeMatch(),
    "otmatch": OTMatch(),
    "softmatch": SoftMatch(),
    "adamatch": AdaMatch(),
    "freematch_mi": replace(FreeMatch(), information=InformationTerm(0.1, "mi")),
    "freematch_hd": replace(FreeMatch(), information=InformationTerm(0.1, "hd")),
}

__all__ = ["METHODS", "SemiSupervised"]
