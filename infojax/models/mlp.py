"""A plain multi-layer perceptron."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from infojax.models.initializers import fan_in_uniform
from infojax.models.normalisation import BatchStatistics
from infojax.models.output import Output
from infojax.models.stages import cut


class MLP(nn.Module):
    """Linear layers with ReLU, PyTorch's default initialisation.

    The network of constant width of He and Su 2023 (A law of data separation in deep learning) is
    `MLP(num_classes, widths=(100,) * L, norm=True)`.

    Args:
      num_classes: C.
      widths: of the hidden layers.
      norm: batch normalisation between each hidden layer's linear map and its ReLU, by the current batch's statistics.
      dtype: of the computation; parameters, embedding and logits are float32.
    Call:
      x: (N, ...) floats, flattened; train: without effect.
      start, stop: names of features, see `infojax.models.stages`: x is then the output of stage `start`, and the result
        the array of stage `stop`.
    Returns:
      `Output`; embedding (N, widths[-1]), after its ReLU; features "layer1", ..., (N, width) each.
    """

    num_classes: int
    widths: tuple[int, ...] = (512, 512, 512)
    norm: bool = False
    dtype: jnp.dtype = jnp.float32

    @property
    def of_batch(self) -> bool:
        """Whether an output depends on the other samples of the batch."""
        return self.norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, start: str | None = None, stop: str | None = None) -> Any:
        x, features = x.reshape(x.shape[0], -1), {}
        stages = {f"layer{i}": width for i, width in enumerate(self.widths, 1)}
        for name, width in cut(stages, start, stop).items():
            init = fan_in_uniform(x.shape[1])
            x = nn.Dense(width, kernel_init=init, bias_init=init, dtype=self.dtype, name=name)(x)
            x = features[name] = nn.relu(BatchStatistics(name=f"{name}_norm")(x) if self.norm else x)
        if stop:
            return x
        embedding, init = x.astype(jnp.float32), fan_in_uniform(x.shape[1])
        logits = nn.Dense(self.num_classes, kernel_init=init, bias_init=init, name="head")(embedding)
        return Output(logits, embedding, features)
