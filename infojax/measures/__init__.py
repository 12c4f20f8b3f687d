"""Pure functions of arrays: information measures, collapse statistics, usable information and their theory."""

from infojax.measures.collapse import NeuralCollapse, PerClass, collapse_from_passes, neural_collapse
from infojax.measures.divergence import eigenspace_jsd, matrix_cross_entropy, matrix_jsd, spectrum_jsd
from infojax.measures.entropy import (
    coding_rate,
    effective_rank,
    effective_rank_from_gram,
    gram,
    matrix_entropy,
    matrix_entropy_from_gram,
    rankme,
    stable_rank,
)
from infojax.measures.estimate import (
    Estimate,
    InterplayEstimate,
    estimate_interplay,
    estimate_interplay_from_stats,
    estimate_joint_entropy,
    estimate_matrix_entropy,
    estimate_matrix_entropy_from_gram,
)
from infojax.measures.head_interplay import Interplay, head_rows, interplay, interplay_from_stats
from infojax.measures.joint import (
    hdr,
    hdr_from_gram,
    joint_entropy,
    joint_entropy_from_gram,
    mir,
    mir_from_gram,
    mutual_information,
    mutual_information_from_gram,
)
from infojax.measures.least_squares import SquaredError, squared_error, squared_error_from_stats
from infojax.measures.moments import ClassStats, class_stats
from infojax.measures.passes import SecondPass, nc4, second_pass
from infojax.measures.separation import cdnv, cdnv_from_stats, davies_bouldin, davies_bouldin_from_sums
from infojax.measures.simplex import NC2, nc2, nc2_from_means, nc2_from_stats, nc3, nc3_from_stats
from infojax.measures.spectra import unit_rows
from infojax.measures.theory import etf, nc_limits, random_head_entropy
from infojax.measures.usable import relabel, v_information
from infojax.measures.variability import (
    NC1_CONVENTIONS,
    OnePass,
    between_inverse,
    equi_separation,
    nc1,
    nc1_from_energy,
    nc1_from_stats,
    nc1_one_pass,
    within_energy,
)
from infojax.measures.views import LIDAR_CONVENTIONS, lidar

__all__ = [
    "ClassStats",
    "Estimate",
    "Interplay",
    "InterplayEstimate",
    "LIDAR_CONVENTIONS",
    "NC1_CONVENTIONS",
    "NC2",
    "NeuralCollapse",
    "OnePass",
    "PerClass",
    "SecondPass",
    "SquaredError",
    "between_inverse",
    "cdnv",
    "cdnv_from_stats",
    "class_stats",
    "coding_rate",
    "collapse_from_passes",
    "davies_bouldin",
    "davies_bouldin_from_sums",
    "effective_rank",
    "effective_rank_from_gram",
    "eigenspace_jsd",
    "equi_separation",
    "estimate_interplay",
    "estimate_interplay_from_stats",
    "estimate_joint_entropy",
    "estimate_matrix_entropy",
    "estimate_matrix_entropy_from_gram",
    "etf",
    "gram",
    "hdr",
    "hdr_from_gram",
    "head_rows",
    "interplay",
    "interplay_from_stats",
    "joint_entropy",
    "joint_entropy_from_gram",
    "lidar",
    "matrix_cross_entropy",
    "matrix_entropy",
    "matrix_entropy_from_gram",
    "matrix_jsd",
    "mir",
    "mir_from_gram",
    "mutual_information",
    "mutual_information_from_gram",
    "nc1",
    "nc1_from_energy",
    "nc1_from_stats",
    "nc1_one_pass",
    "nc2",
    "nc2_from_means",
    "nc2_from_stats",
    "nc3",
    "nc3_from_stats",
    "nc4",
    "nc_limits",
    "neural_collapse",
    "random_head_entropy",
    "rankme",
    "relabel",
    "second_pass",
    "spectrum_jsd",
    "squared_error",
    "squared_error_from_stats",
    "stable_rank",
    "unit_rows",
    "v_information",
    "within_energy",
]
