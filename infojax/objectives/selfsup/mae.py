"""MAE: pixels of hidden patches are predicted from the others."""

import jax
import jax.numpy as jnp

from infojax.objectives.contract import Aux, Context, Metrics, View
from infojax.objectives.objective import objective
from infojax.objectives.selfsup.common import SelfSupervised, online
from infojax.objectives.selfsup.patches import patchify


def normalised(target: jax.Array, ddof: int = 1) -> jax.Array:
    """(t - mean) / sqrt(var + 1e-6) of each patch of target (..., pixels), which MAE predicts with norm_pix.

    var divides by pixels - ddof.
    """
    deviation = target - jnp.mean(target, axis=-1, keepdims=True)
    variance = jnp.sum(deviation**2, axis=-1, keepdims=True) / (target.shape[-1] - ddof)
    return deviation / jnp.sqrt(variance + 1e-6)


def masked_error(prediction: jax.Array, target: jax.Array, mask: jax.Array) -> jax.Array:
    """sum of mask times each patch's mean squared error, over the sum of the mask.

    Args:
      prediction, target: (n, L, pixels); mask: (n, L), 1 where the patch was hidden.
    References:
      He et al. 2022; facebookresearch/mae models_mae.py.
    """
    errors = jnp.mean((prediction.astype(target.dtype) - target) ** 2, axis=-1)
    return jnp.sum(mask * errors) / jnp.sum(mask)


@objective
class MAE(SelfSupervised):
    """`masked_error` of the hidden patches, and a regulariser of the class token where a method has one.

    The net "net" takes (images, noise) and returns prediction, mask, latent and token, see `infojax.models.mae`; every
    sample has its own mask, from noise drawn by the method.

    Attributes:
      patch: side of a patch of the net.
      norm_pix: whether the target is `normalised`.
      norm_ddof: 1 as in MAE's code, unbiased; 0 in JAX ports of it (scenic, KAIST), whose targets of patches of 4 x 4 x
        3 pixels are larger by 1%.
    """

    patch: int = 16
    norm_pix: bool = True
    norm_ddof: int = 1

    @property
    def views(self):
        return (View("train", ("view1",), self.batch_size),)

    def draws(self, key, batch, ctx):
        """Uniform noise, (n, L)."""
        n, height, width, _ = batch["train"].views["view1"].shape
        return jax.random.uniform(key, (n, (height // self.patch) * (width // self.patch)))

    def regulariser(self, token: jax.Array, ctx: Context) -> tuple[jax.Array, Metrics]:
        """(value, metrics) of the class tokens (n, D) of the masked pass."""
        return jnp.zeros(()), {}

    def loss(self, nets, state, constants, batch, draws, ctx):
        images = batch["train"].views["view1"]
        output = nets("net", images, draws)
        target = patchify(images.astype(jnp.promote_types(images.dtype, jnp.float32)), self.patch)
        target = normalised(target, self.norm_ddof) if self.norm_pix else target
        value = masked_error(output.prediction, target, output.mask)
        term, metrics = self.regulariser(output.token, ctx)
        linear, found = online(nets, ctx, output.latent[:, 0], batch["train"].labels)
        return value + term + linear, Aux(metrics={"loss_method": value + term, "loss_pixels": value} | metrics | found)


def scaled_gradient(x: jax.Array, scale: float | jax.Array) -> jax.Array:
    """x (any shape) as it is, whose gradient is `scale` times as large."""
    return scale * x + jax.lax.stop_gradient(x - scale * x)
