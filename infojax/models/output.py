"""What every network returns."""

from typing import NamedTuple

import jax


class Output(NamedTuple):
    """logits (N, C) in float32; embedding (N, D) in float32, the classifier's input; features: layer name -> array."""

    logits: jax.Array
    embedding: jax.Array
    features: dict[str, jax.Array]
