"""Linear layers: heads in addition to a network's own, and probes of its features."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from infojax.models.output import Output


class Linear(nn.Module):
    """x W + b, W from Glorot's normal distribution and b = 0, as TorchSSL initialises its rotation head.

    Args:
      features: outputs.
    Call:
      x: (N, D); train: without effect.
    Returns:
      (N, features) float32.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        layer = nn.Dense(self.features, kernel_init=nn.initializers.xavier_normal(), name="head")
        return layer(x.astype(jnp.float32))


class LinearProbe(nn.Module):
    """Batch normalisation without scale and shift, then x W + b: MAE's probe of frozen features.

    W from a truncated normal distribution with standard deviation 0.01, b = 0; the running statistics have PyTorch's
    momentum 0.1, and the biased variance.

    Args:
      num_classes: C.
    Call:
      x: (N, D); train: statistics of the batch, which update `batch_stats`.
    Returns:
      `Output`; embedding (N, D), the normalised features.
    References:
      He et al. 2022, appendix A; facebookresearch/mae main_linprobe.py, whose epsilon is 1e-6.
    """

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> Output:
        norm = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-6, use_scale=False, use_bias=False, name="norm")
        x = norm(x.astype(jnp.float32))
        init = nn.initializers.truncated_normal(0.01)
        return Output(nn.Dense(self.num_classes, kernel_init=init, name="head")(x), x, {})
