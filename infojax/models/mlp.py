"""A plain multi-layer perceptron."""

import flax.linen as nn
import jax.numpy as jnp

from infojax.models.initializers import fan_in_uniform
from infojax.models.output import Output


class MLP(nn.Module):
    """Linear layers with ReLU, PyTorch's default initialisation, no normalisation.

    Args:
      num_classes: C.
      widths: of the hidden layers.
      dtype: of the computation; parameters, embedding and logits are float32.
    Call:
      x: (N, ...) floats, flattened; train: without effect.
    Returns:
      `Output`; embedding (N, widths[-1]), after its ReLU; features "layer1", ..., (N, width) each.
    """

    num_classes: int
    widths: tuple[int, ...] = (512, 512, 512)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        x, features = x.reshape(x.shape[0], -1), {}
        for i, width in enumerate(self.widths, 1):
            init = fan_in_uniform(x.shape[1])
            x = nn.Dense(width, kernel_init=init, bias_init=init, dtype=self.dtype, name=f"layer{i}")(x)
            x = features[f"layer{i}"] = nn.relu(x)
        embedding, init = x.astype(jnp.float32), fan_in_uniform(x.shape[1])
        logits = nn.Dense(self.num_classes, kernel_init=init, bias_init=init, name="head")(embedding)
        return Output(logits, embedding, features)
