"""Vision transformer for classification, and the blocks that masked auto-encoders share.

Pre-normalised blocks with LayerNorm (epsilon 1e-6), one fused projection for query, key and value, biases everywhere,
exact (erf) GELU, no dropout.

References:
  Dosovitskiy et al. 2021; Touvron et al. 2021 (tiny and small); facebookresearch/mae models_mae.py, models_vit.py.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from infojax.models.output import Output
from infojax.models.stages import cut

SIZES = {  # width, depth, heads
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}
POSITIONS = ("learned", "sincos")
POOLS = ("cls", "mean")


def sincos_positions(rows: int, columns: int, width: int) -> np.ndarray:
    """(rows * columns, width) of sines and cosines: the first half encodes the column, the second half the row.

    Each half is [sin(p w), cos(p w)] with w_i = 10000^(-i / (width / 4)), i < width / 4, as in the code of MAE.
    """
    frequencies = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    row, column = np.divmod(np.arange(rows * columns), columns)
    angles = [np.outer(place, frequencies) for place in (column, row)]
    return np.concatenate([part for a in angles for part in (np.sin(a), np.cos(a))], axis=1).astype(np.float32)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); (N, tokens, width) in and out."""

    heads: int
    kernel_init: nn.initializers.Initializer
    mlp_ratio: int = 4
    epsilon: float = 1e-6
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n, tokens, width = x.shape

        def dense(size, name):
            return nn.Dense(size, kernel_init=self.kernel_init, dtype=self.dtype, name=name)

        def norm(name):
            return nn.LayerNorm(self.epsilon, dtype=self.dtype, name=name)

        y = dense(3 * width, "qkv")(norm("norm1")(x)).reshape(n, tokens, 3, self.heads, width // self.heads)
        y = jax.nn.dot_product_attention(y[:, :, 0], y[:, :, 1], y[:, :, 2]).reshape(n, tokens, width)
        x = x + dense(width, "out")(y)
        y = nn.gelu(dense(self.mlp_ratio * width, "mlp1")(norm("norm2")(x)), approximate=False)
        return x + dense(width, "mlp2")(y)


class ViT(nn.Module):
    """A plain classifier; "base" with patches of 16 on 224 x 224 and 1,000 classes has 86,567,656 parameters.

    Args:
      num_classes: C.
      size: "tiny", "small", "base" or "large" (see SIZES), or (width, depth, heads).
      patch: side of a patch; the image's sides are multiples of it.
      position: "learned", or fixed "sincos".
      pool: "cls": the class token after the last norm; "mean": the norm of the mean over patches.
      dtype: of the computation; parameters, norms' statistics, embedding and logits are float32.
    Call:
      x: (N, H, W, channels) normalised images; train: without effect.
      start, stop: names of features, see `infojax.models.stages`: x is then the output of stage `start`, and the result
        the array of stage `stop`.
    Returns:
      `Output`; embedding (N, width); features "block1", ..., (N, 1 + patches, width) each, the class token first.
    Raises:
      ValueError: unknown size, position or pool, or an image that patches do not tile.
    """

    num_classes: int
    size: str | tuple[int, int, int] = "tiny"
    patch: int = 16
    position: str = "learned"
    pool: str = "cls"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, start: str | None = None, stop: str | None = None) -> Any:
        known = {"position": POSITIONS, "pool": POOLS} | ({"size": SIZES} if isinstance(self.size, str) else {})
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} must be one of {', '.join(values)}; got {getattr(self, name)!r}")
        size, depth, heads = SIZES[self.size] if isinstance(self.size, str) else self.size
        init, features = nn.initializers.truncated_normal(0.02), {}
        if start is None:
            x = self._tokens(x, size, init)
        names = [f"block{i + 1}" for i in range(depth)]
        blocks = {name: Block(heads, init, dtype=self.dtype, name=name) for name in names}
        for name, block in cut(blocks, start, stop).items():
            x = features[name] = block(x)
        if stop:
            return x
        x = x.astype(jnp.float32)
        norm = nn.LayerNorm(1e-6, name="norm")
        embedding = norm(x)[:, 0] if self.pool == "cls" else norm(jnp.mean(x[:, 1:], axis=1))
        logits = nn.Dense(self.num_classes, kernel_init=init, name="head")(embedding)
        return Output(logits, embedding, features)

    def _tokens(self, x, size, init):
        """(N, 1 + patches, size): the class token and the embedded patches, each with its position."""
        n, height, width, _ = x.shape
        if height % self.patch or width % self.patch:
            raise ValueError(f"patches of {self.patch} do not tile images of {height} x {width}")
        embed = nn.Conv(
            size, (self.patch, self.patch), self.patch, "VALID", kernel_init=init, dtype=self.dtype, name="patches"
        )
        x = embed(x)
        rows, columns = x.shape[1:3]
        x = x.reshape(n, rows * columns, size)
        token = self.param("token", nn.initializers.normal(1e-6), (1, 1, size))
        x = jnp.concatenate([jnp.broadcast_to(token, (n, 1, size)).astype(x.dtype), x], axis=1)
        if self.position == "learned":
            position = self.param("position", init, (1, 1 + rows * columns, size))
        else:  # none for the class token
            position = np.pad(sincos_positions(rows, columns, size), ((1, 0), (0, 0)))[None]
        return x + jnp.asarray(position, x.dtype)
