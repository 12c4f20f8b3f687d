"""Vision transformer for classification, and the blocks that masked auto-encoders share.

Pre-normalised blocks with LayerNorm (epsilon 1e-6), one fused projection for query, key and value, biases everywhere,
exact (erf) GELU, no dropout, stochastic depth on request.

References:
  Dosovitskiy et al. 2021; Touvron et al. 2021 (tiny and small); facebookresearch/mae models_mae.py, models_vit.py.
"""

import math
import re
from collections.abc import Sequence
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
    "huge": (1280, 32, 16),  # with patches of 14
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


def resized_positions(table: np.ndarray, side: int) -> np.ndarray:
    """Learned positions (1, 1 + L, width) of a square grid for one of side x side: bicubic, as PyTorch (a = -0.75).

    The class token keeps its own. No antialiasing where the grid shrinks, pixels at the border are repeated: that of
    `torch.nn.functional.interpolate(size=..., mode="bicubic")`, which MAE's and timm's code use.

    Raises:
      ValueError: L is no square.
    """
    old = math.isqrt(table.shape[1] - 1)
    if old * old != table.shape[1] - 1:
        raise ValueError(f"positions of {table.shape[1] - 1} patches, which are no square grid, cannot be resized")
    place = (np.arange(side) + 0.5) * old / side - 0.5
    first = np.floor(place).astype(int)[:, None] + np.arange(-1, 3)  # four taps
    x, a = np.abs(place[:, None] - first), -0.75
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    weights = np.zeros((side, old))
    np.add.at(weights, (np.arange(side)[:, None], np.clip(first, 0, old - 1)), np.where(x <= 1, near, far))
    grid = np.asarray(table, np.float64)[0, 1:].reshape(old, old, -1)
    found = np.einsum("ip,jq,pqd->ijd", weights, weights, grid).reshape(1, side * side, -1)
    return np.concatenate([np.asarray(table)[:, :1], found], axis=1).astype(np.float32)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); (N, tokens, width) in and out.

    With `drop_path` p each of the two branches of a sample is left out of a training step with probability p, and
    divided by 1 - p otherwise.
    """

    heads: int
    kernel_init: nn.initializers.Initializer
    mlp_ratio: int = 4
    epsilon: float = 1e-6
    drop_path: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        n, tokens, width = x.shape

        def dense(size, name):
            return nn.Dense(size, kernel_init=self.kernel_init, dtype=self.dtype, name=name)

        def norm(name):
            return nn.LayerNorm(self.epsilon, dtype=self.dtype, name=name)

        def dropped(branch):
            return nn.Dropout(self.drop_path, broadcast_dims=(1, 2), deterministic=not train)(branch)

        y = dense(3 * width, "qkv")(norm("norm1")(x)).reshape(n, tokens, 3, self.heads, width // self.heads)
        y = jax.nn.dot_product_attention(y[:, :, 0], y[:, :, 1], y[:, :, 2]).reshape(n, tokens, width)
        x = x + dropped(dense(width, "out")(y))
        y = nn.gelu(dense(self.mlp_ratio * width, "mlp1")(norm("norm2")(x)), approximate=False)
        return x + dropped(dense(width, "mlp2")(y))


class ViT(nn.Module):
    """A plain classifier; "base" with patches of 16 on 224 x 224 and 1,000 classes has 86,567,656 parameters.

    Args:
      num_classes: C.
      size: "tiny", "small", "base", "large" or "huge" (see SIZES), or (width, depth, heads), also
        written "192x12x3", for flags.
      patch: side of a patch; the image's sides must be multiples of it.
      position: "learned", or fixed "sincos".
      pool: "cls": the class token after the last norm; "mean": the norm of the mean over patches.
      drop_path: of the last block, growing linearly from 0 at the first (stochastic depth); uses the key "dropout".
      head_std: of the classifier's initial weights; MAE's fine-tuning has 2e-5.
      dtype: of the computation; parameters, norms' statistics, embedding and logits are float32.
    Call:
      x: (N, H, W, channels) normalised images; train: whether blocks are dropped.
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
    drop_path: float = 0.0
    head_std: float = 0.02
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, start: str | None = None, stop: str | None = None) -> Any:
        x, features = self._encode(x, train, start, stop)
        if stop:
            return x
        embedding = self._pooled(x)
        init = nn.initializers.truncated_normal(self.head_std)
        logits = nn.Dense(self.num_classes, kernel_init=init, name="head")(embedding)
        return Output(logits, embedding, features)

    @property
    def dimensions(self) -> tuple[int, int, int]:
        """(width, depth, heads)."""
        own = re.fullmatch(r"(\d+)x(\d+)x(\d+)", self.size) if isinstance(self.size, str) else None
        size = tuple(map(int, own.groups())) if own else self.size
        known = {"position": POSITIONS, "pool": POOLS} | ({"size": SIZES} if isinstance(size, str) else {})
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} must be one of {', '.join(values)}; got {getattr(self, name)!r}")
        if not isinstance(size, str) and len(size) != 3:
            raise ValueError(f"size must be three numbers, width, depth and heads; got {self.size}")
        width, depth, heads = SIZES[size] if isinstance(size, str) else size
        if min(width, depth, heads) < 1 or width % heads or width % 4:
            raise ValueError(f"size: the width must be a multiple of heads and of 4; got {self.size}")
        return width, depth, heads

    def _initializers(self):
        """Initialisers of kernels, of the kernel and bias that embed patches, and of the class token."""
        init = nn.initializers.truncated_normal(0.02)
        return init, init, nn.initializers.zeros, nn.initializers.normal(1e-6)

    def _encode(self, x, train, start=None, stop=None, chosen=None):
        """(tokens after the last of the blocks, features); `chosen` selects patches of each sample, (N, kept)."""
        width, depth, heads = self.dimensions
        if start is None:
            x = self._tokens(x, width, chosen)
        names = [f"block{i + 1}" for i in range(depth)]
        rates = dict(zip(names, np.linspace(0, self.drop_path, depth).tolist(), strict=True))
        init, features = self._initializers()[0], {}
        blocks = {name: Block(heads, init, drop_path=rate, dtype=self.dtype, name=name) for name, rate in rates.items()}
        for name, block in cut(blocks, start, stop).items():
            x = features[name] = block(x, train)
        return x, features

    def _pooled(self, x):
        x, norm = x.astype(jnp.float32), nn.LayerNorm(1e-6, name="norm")
        return norm(x)[:, 0] if self.pool == "cls" else norm(jnp.mean(x[:, 1:], axis=1))

    def _tokens(self, x, width, chosen):
        """(N, 1 + patches, width): the class token and the embedded patches, each with its position."""
        n, size = len(x), (self.patch, self.patch)
        rows, columns = grid(x.shape, self.patch)
        _, kernel_init, bias_init, token_init = self._initializers()
        embed = nn.Conv(
            width, size, self.patch, "VALID", kernel_init=kernel_init, bias_init=bias_init, dtype=self.dtype,
            name="patches",
        )  # fmt: skip
        x = embed(x).reshape(n, rows * columns, width)
        token = self.param("token", token_init, (1, 1, width)).astype(x.dtype)
        if self.position == "learned":
            init = nn.initializers.truncated_normal(0.02)
            position = self.param("position", init, (1, 1 + rows * columns, width)).astype(x.dtype)
        else:
            position = with_token(sincos_positions(rows, columns, width), x.dtype)
        x, token = x + position[:, 1:], token + position[:, :1]
        if chosen is not None:
            x = jnp.take_along_axis(x, chosen[..., None], axis=1)
        return jnp.concatenate([jnp.broadcast_to(token, (n, 1, width)), x], axis=1)


def grid(shape: Sequence[int], patch: int) -> tuple[int, int]:
    """(rows, columns) of the patches of images (N, H, W, channels).

    Raises:
      ValueError: patches do not tile the images.
    """
    height, width = shape[1:3]
    if height % patch or width % patch:
        raise ValueError(f"patches of {patch} do not tile images of {height} x {width}")
    return height // patch, width // patch


def with_token(positions: np.ndarray, dtype: Any) -> jax.Array:
    """positions (patches, width) as (1, 1 + patches, width), after a row of zeros for the class token."""
    return jnp.asarray(np.pad(positions, ((1, 0), (0, 0)))[None], dtype)
