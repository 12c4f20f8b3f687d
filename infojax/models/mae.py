"""Masked auto-encoder: a ViT that sees some of the patches, and a small decoder that predicts the pixels of the others.

  noise u (N, L); the int(L (1 - r)) patches with the least noise are kept, in order of their noise
  latent = norm(blocks([token, kept patches + positions]))
  prediction = linear(norm(decoder blocks(linear(latent), mask tokens in place of what was removed, + positions)))

Fixed sine and cosine positions in both, except for the class token. Kernels start from Xavier's uniform distribution,
query, key and value as one matrix, tokens from N(0, 0.02^2), the bias of the patches as in PyTorch. `ViT` with
position="sincos" has the same encoder with the same names.

References:
  He et al. 2022, Masked autoencoders are scalable vision learners; facebookresearch/mae models_mae.py.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from infojax.models.initializers import fan_in_uniform, flat_xavier
from infojax.models.output import Output
from infojax.models.vit import Block, ViT, grid, sincos_positions, with_token


class MAEOutput(NamedTuple):
    """The result of a masked forward pass, for N images of L patches.

    Attributes:
      prediction: (N, L, patch^2 * channels) float32, the pixels of every patch row by row, each as rows, columns,
        channels: `infojax.objectives.selfsup.patchify`.
      mask: (N, L) float32, 1 where a patch was removed.
      latent: (N, 1 + kept, width) float32, the encoder's output after its last norm, the class token first.
      restore: (N, L) the rank of each patch in order of noise: kept patch j of a sample is latent[1 + restore[j]] where
        restore[j] < kept.
      token: (N, width), the last norm of the encoder applied once more to the class token of `latent`: what the code of
        U-MAE and M-MAE regularises.
    """

    prediction: jax.Array
    mask: jax.Array
    latent: jax.Array
    restore: jax.Array
    token: jax.Array


class MAE(ViT):
    """Encoder and decoder; "base" with patches of 16 on 224 x 224 has 111,655,680 parameters, all of them trained.

    Args:
      num_classes: ignored, there is no classifier.
      size, patch, position, pool, drop_path, dtype: of the encoder, as in `ViT`.
      mask_ratio: r, the share of patches that is removed; int(L * (1 - r)) are kept.
      decoder: (width, depth, heads) of the decoder.
    Call:
      x: (N, H, W, channels) normalised images.
      noise: (N, L) numbers that decide what is removed, for instance uniform, independent for each sample; None for the
        encoder alone, which then sees all patches.
      train: whether blocks of the encoder are dropped.
      start, stop: of the encoder alone, as in `ViT`.
    Returns:
      `MAEOutput`; for the encoder alone `Output`, whose logits are None.
    Raises:
      ValueError: as for `ViT`; noise of the wrong shape, a ratio that keeps no patch, or an impossible decoder.
    """

    num_classes: int = 0
    position: str = "sincos"
    mask_ratio: float = 0.75
    decoder: tuple[int, int, int] = (512, 8, 16)

    @nn.compact
    def __call__(  # type: ignore[override]  # a decoder takes the noise
        self,
        x: jax.Array,
        noise: jax.Array | None = None,
        train: bool = False,
        start: str | None = None,
        stop: str | None = None,
    ) -> Any:
        if noise is None:
            x, features = self._encode(x, train, start, stop)
            return x if stop else Output(None, self._pooled(x), features)  # type: ignore[arg-type]  # no classifier
        rows, columns = grid(x.shape, self.patch)
        kept = self.kept(rows * columns)
        if noise.shape != (len(x), rows * columns):
            raise ValueError(
                f"noise must have shape {(len(x), rows * columns)}, one number per patch; got {noise.shape}"
            )
        order = jnp.argsort(noise, axis=1)
        restore = jnp.argsort(order, axis=1)
        tokens, _ = self._encode(x, train, chosen=order[:, :kept])
        norm = nn.LayerNorm(1e-6, name="norm")
        latent = norm(tokens.astype(jnp.float32))
        prediction = self._decode(latent, restore, rows, columns, self.patch**2 * x.shape[-1])
        return MAEOutput(prediction, (restore >= kept).astype(jnp.float32), latent, restore, norm(latent[:, 0]))

    def kept(self, patches: int) -> int:
        """How many of L patches the encoder sees, int(L (1 - r)) in floating point: 9 of 100 at r = 0.9.

        Raises:
          ValueError: it sees none.
        """
        count = int(patches * (1 - self.mask_ratio))
        if not 0 < count <= patches:
            raise ValueError(f"mask_ratio {self.mask_ratio} keeps {count} of {patches} patches; take another one")
        return count

    def _initializers(self):
        token = nn.initializers.normal(0.02)

        def bias(key, shape, dtype=jnp.float32):  # of RGB patches
            return fan_in_uniform(3 * self.patch**2)(key, shape, dtype)

        return nn.initializers.xavier_uniform(), flat_xavier, bias, token

    def _decode(self, latent, restore, rows, columns, pixels):
        width, depth, heads = self.decoder
        if width % heads or width % 4:
            raise ValueError(f"the width of decoder {self.decoder} must be a multiple of its heads and of 4")
        init, _, _, token_init = self._initializers()

        def dense(size, name, dtype):
            return nn.Dense(size, kernel_init=init, dtype=dtype, name=name)

        x = dense(width, "decoder_embed", self.dtype)(latent)
        mask = self.param("mask_token", token_init, (1, 1, width)).astype(x.dtype)
        n, patches = restore.shape
        removed = jnp.broadcast_to(mask, (n, patches + 1 - x.shape[1], width))
        shuffled = jnp.concatenate([x[:, 1:], removed], axis=1)
        x = jnp.concatenate([x[:, :1], jnp.take_along_axis(shuffled, restore[..., None], axis=1)], axis=1)
        x = x + with_token(sincos_positions(rows, columns, width), x.dtype)
        for i in range(depth):
            x = Block(heads, init, dtype=self.dtype, name=f"decoder_block{i + 1}")(x)
        x = nn.LayerNorm(1e-6, name="decoder_norm")(x.astype(jnp.float32))
        return dense(pixels, "prediction", jnp.float32)(x[:, 1:])
