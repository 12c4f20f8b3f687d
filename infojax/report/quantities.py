"""What runs measure: how a quantity is called, and where collapse takes it."""

import math
from typing import NamedTuple

from infojax.measures.theory import nc_limits


class Quantity(NamedTuple):
    """What is known of a name in the rows.

    Attributes:
      label: in tables and legends.
      limit: value at collapse, the name of the quantity that holds it, or "" where there is none.
      colour: index of the palette: 0 features, 1 head, 2 accuracy, 3 features with head, 4 mismatch, 5 loss.
    """

    label: str
    limit: float | str = ""
    colour: int = 0


QUANTITIES = {
    "accuracy": Quantity("accuracy", colour=2),
    "error": Quantity("error (%)", colour=2),
    "loss": Quantity("loss", colour=5),
    "cross_entropy": Quantity("cross-entropy", colour=5),
    "mir": Quantity("MIR", "limit_mir", 3),
    "hdr": Quantity("HDR", "limit_hdr", 4),
    "mir_centered": Quantity("MIR, centred", "limit_mir_centered", 3),
    "hdr_centered": Quantity("HDR, centred", "limit_hdr_centered", 4),
    "entropy_features": Quantity("H(features)", "limit_entropy_features", 0),
    "entropy_head_weights": Quantity("H(W)", "log(C-1)", 1),
    "nc1": Quantity("NC1", 0.0, 0),
    "nc2_equinorm": Quantity("NC2 equinorm, means", 0.0, 0),
    "nc2_equiangularity": Quantity("NC2 equiangularity, means", 0.0, 0),
    "nc2_etf_distance": Quantity("NC2 ETF distance, means", 0.0, 0),
    "nc2_equinorm_head": Quantity("NC2 equinorm, classifier", 0.0, 1),
    "nc2_equiangularity_head": Quantity("NC2 equiangularity, classifier", 0.0, 1),
    "nc2_etf_distance_head": Quantity("NC2 ETF distance, classifier", 0.0, 1),
    "nc3": Quantity("NC3", 0.0, 3),
    "nc4": Quantity("NC4", 0.0, 4),
    "cdnv": Quantity("CDNV", 0.0, 0),
    "davies_bouldin": Quantity("Davies-Bouldin", 0.0, 0),
    "effective_rank_from_gram": Quantity("effective rank", "limit_effective_rank", 0),
    "mean_energy": Quantity("mean energy", "", 0),
    "entropy_means": Quantity("H(class means)", "log(C-1)", 0),
    "effective_rank_means": Quantity("effective rank of class means", "C-1", 0),
    "mir_means": Quantity("MIR of class means", "collapsed MIR", 3),
    "hdr_means": Quantity("HDR of class means", 0.0, 4),
    "mse_nc1": Quantity("MSE: NC1", 0.0, 0),
    "mse_nc2_nc3": Quantity("MSE: NC2, NC3", 0.0, 3),
    "mse_head": Quantity("MSE: classifier", 0.0, 1),
    "silhouette": Quantity("silhouette", 1.0, 0),
    "sufficiency": Quantity("sufficiency (bits)", "log2(C)", 2),
    "minimality": Quantity("minimality (bits)", "log2(C)", 3),
    "sufficiency_held_out": Quantity("sufficiency, held out (bits)", "log2(C)", 2),
    "equi_separation": Quantity("equi-separation r", -1.0, 0),
    "mir_features": Quantity("MIR with the whole network", "", 3),
    "hdr_features": Quantity("HDR with the whole network", "", 4),
    "barrier_error": Quantity("barrier of error (%)", "", 2),
    "barrier_error_recomputed": Quantity("barrier of error (%), statistics recomputed", "", 2),
    "barrier_loss": Quantity("barrier of loss", "", 5),
    "barrier_loss_recomputed": Quantity("barrier of loss, statistics recomputed", "", 5),
}
# Those whose limits are those of a simplex of C classes, which needs C - 1 dimensions.
OF_A_SIMPLEX = {
    "entropy_head_weights", "entropy_means", "effective_rank_means", "mir_means", "nc2_equiangularity",
    "nc2_etf_distance", "nc2_equiangularity_head", "nc2_etf_distance_head",
}  # fmt: skip
# Variants of a quantity have its colour.
ENDINGS = ("_ema", "_recomputed", "_layerwise")
BARRIERS = tuple(name for name in QUANTITIES if name.startswith("barrier"))
# The columns of the layers' table.
BY_LAYER = {"nc1": "NC1", "sufficiency": "sufficiency", "minimality": "minimality"}
USABLE = ("sufficiency", "minimality", "sufficiency_held_out")  # in bits; no less than zero, if decoders were perfect
# The last evaluation in the terminal, and on the page.
BRIEF = ("accuracy", "loss", "entropy_features", "entropy_head_weights", "mir", "hdr", "nc1", "silhouette", *BARRIERS)
SUMMARY = (
    "accuracy", "loss", "mir", "hdr", "entropy_features", "entropy_head_weights", "nc1", "nc2_equinorm",
    "nc2_equiangularity", "nc3", "nc4", "cdnv", "davies_bouldin", "silhouette", "effective_rank_from_gram", *BARRIERS,
)  # fmt: skip


def known(quantity) -> Quantity:
    """What is known of a quantity, be it measured at a layer or not; its name where nothing is."""
    name, _, layer = quantity.partition("@")
    found = QUANTITIES.get(name, Quantity(name))
    return found._replace(label=f"{found.label} of {layer}") if layer else found


def closed_limits(classes) -> dict[str, float]:
    """Limits that depend on the number of classes alone."""
    return {
        "log(C-1)": math.log(classes - 1),
        "C-1": float(classes - 1),
        "collapsed MIR": nc_limits(classes).mir,
        "log2(C)": math.log2(classes),
    }
