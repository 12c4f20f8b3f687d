"""infojax: matrix information theory and neural collapse in JAX.

Features, labels and a head in; entropies, mutual information, MIR, HDR and collapse statistics out. Every measure is
a pure function that works under jit, vmap, grad and shard_map; `analyze` runs them all and explains the result.
"""

from infojax.analysis import InputError, Interval, LayerReports, Report, analyze
from infojax.measures import *  # noqa: F403  the public face is infojax.measures.__all__ and the names below
from infojax.measures import __all__ as _measures
from infojax.monitor import Monitor, ThresholdError

__version__ = "0.1.0"
__all__ = [
    *_measures,
    "InputError",
    "Interval",
    "LayerReports",
    "Monitor",
    "Report",
    "ThresholdError",
    "analyze",
    "__version__",
]
