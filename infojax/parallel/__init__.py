"""Measures over a mesh of devices: samples, a batch of matrices, or one large matrix are split over the axis "data".

With `mesh=None` every function runs unsharded, like its namesake in `infojax.measures`.
"""

from infojax.parallel.estimates import (
    estimate_interplay,
    estimate_interplay_from_stats,
    estimate_joint_entropy,
    estimate_matrix_entropy,
)
from infojax.parallel.large import eigenvalues
from infojax.parallel.matrices import map_matrices
from infojax.parallel.mesh import (
    from_local_rows,
    gather,
    local_copy,
    local_rows,
    make_mesh,
    over_processes,
    replicated,
    shard_rows,
    sharded_views,
    split,
)
from infojax.parallel.samples import class_stats, coding_rate, interplay, matrix_entropy, neural_collapse, second_moment

__all__ = [
    "class_stats", "coding_rate", "eigenvalues", "estimate_interplay", "estimate_interplay_from_stats",
    "estimate_joint_entropy", "estimate_matrix_entropy", "from_local_rows", "local_copy", "interplay", "make_mesh",
    "map_matrices", "matrix_entropy", "neural_collapse", "over_processes", "local_rows", "replicated", "second_moment",
    "shard_rows", "sharded_views", "gather", "split",
]  # fmt: skip
