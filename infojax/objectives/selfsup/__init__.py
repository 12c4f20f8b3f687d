"""Self-supervised learning: the methods of "Information Flow in Self-Supervised Learning" (Tan et al. 2024) and VICReg.

Each file has the loss as a function of arrays, and the method that trains with it.
"""

from dataclasses import replace

from infojax.objectives.selfsup.barlow import BarlowTwins, barlow_twins, cross_correlation
from infojax.objectives.selfsup.byol import BYOL, byol
from infojax.objectives.selfsup.common import HEADS, SelfSupervised
from infojax.objectives.selfsup.mae import MAE, masked_error
from infojax.objectives.selfsup.mmae import MMAE, total_coding_rate
from infojax.objectives.selfsup.patches import patchify, unpatchify
from infojax.objectives.selfsup.simclr import SimCLR, nt_xent
from infojax.objectives.selfsup.spectral import Spectral, spectral_contrastive
from infojax.objectives.selfsup.umae import UMAE, uniformity
from infojax.objectives.selfsup.vicreg import VICReg, vicreg

# name -> the method with its defaults. "..._released": as the authors' scripts really ran, on 8 GPUs.
METHODS = {
    "spectral": Spectral(),
    "barlow": BarlowTwins(),
    "simclr": SimCLR(),
    "byol": BYOL(),
    "vicreg": VICReg(),
    "mae": MAE(),
    "umae": UMAE(),
    "mmae": MMAE(),
    "umae_released": replace(UMAE(), gradient_scale=1 / 8),
    "mmae_released": replace(MMAE(), mu=3.0, center=True, gradient_scale=1 / 8),
}

__all__ = [
    "HEADS", "METHODS", "SelfSupervised", "barlow_twins", "byol", "cross_correlation", "masked_error", "nt_xent",
    "patchify", "spectral_contrastive", "total_coding_rate", "uniformity", "unpatchify", "vicreg",
]  # fmt: skip
