"""The one-layer transformer in which Nanda et al. 2023 analysed grokking."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from infojax.models.output import Output
from infojax.models.stages import cut


class Transformer(nn.Module):
    """One layer of causal attention and a ReLU MLP on a residual stream without normalisation; logits at the end.

    Every matrix is drawn from N(0, 1 / dim), the unembedding from N(0, 1 / tokens); no biases but the MLP's two, which
    start at zero. 226,816 parameters for 113 classes.

    Only the last position is computed: in a single layer nothing else reaches its logits. It holds "=" in every sample,
    so that attention scores and values are computed once per token and position and then looked up.

    Args:
      num_classes: p; tokens are 0 to p - 1 and the sign "=", number p.
      dim: of the residual stream; heads: their number, each of size dim / heads; width: of the ReLU MLP.
      length: tokens per sample.
      dtype: of the computation; parameters, embedding and logits are float32.
    Call:
      x: (N, length) integer tokens, the last one always "=", which the query assumes; train: without effect.
      start, stop: names of features, see `infojax.models.stages`: x is then the output of stage `start`, and the result
        the array of stage `stop`.
    Returns:
      `Output`; logits (N, p + 1), of every token as in the reference; embedding (N, dim), the residual stream at the
      last position; features "attention" and "mlp", (N, dim), the stream after each part.
    Raises:
      ValueError: heads do not divide dim, or samples have the wrong length.
    References:
      Nanda, Chan, Lieberum, Smith, Steinhardt 2023, Progress measures for grokking via mechanistic interpretability.
    """

    num_classes: int
    dim: int = 128
    heads: int = 4
    width: int = 512
    length: int = 3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, start: str | None = None, stop: str | None = None) -> Any:
        if self.dim % self.heads:
            raise ValueError(f"heads must divide dim; got {self.heads} and {self.dim}")
        if start is None and x.shape[1] != self.length:
            raise ValueError(f"length is {self.length}, but samples have {x.shape[1]} tokens")
        features = {}
        for name, layer in cut({"attention": self._attention, "mlp": self._mlp}, start, stop).items():
            x = features[name] = layer(x)
        if stop:
            return x
        tokens, embedding = self.num_classes + 1, x.astype(jnp.float32)
        init = nn.initializers.normal(tokens**-0.5)
        logits = nn.Dense(tokens, use_bias=False, kernel_init=init, name="head")(embedding)
        return Output(logits, embedding, features)

    def _attention(self, x):
        """Tokens (N, length) to the stream at the last position (N, dim)."""
        tokens, dim, split = self.num_classes + 1, self.dim, (self.heads, self.dim // self.heads)
        init = nn.initializers.normal(dim**-0.5)

        def matrix(name, *shape):
            return self.param(name, init, shape).astype(self.dtype)

        embed, positions = matrix("embed", tokens, dim), matrix("positions", self.length, dim)

        def heads(rows, name):
            return (rows @ matrix(name, dim, dim)).reshape(*rows.shape[:-1], *split)

        placed, sign = embed[:, None] + positions[None], embed[-1] + positions[-1]
        places = jnp.arange(self.length)[None]
        scores = jnp.einsum("vthk,hk->vth", heads(placed, "key"), heads(sign, "query"))
        attention = nn.softmax(scores[x, places] * split[1] ** -0.5, axis=1)
        value = heads(placed, "value")[x, places]
        mixed = jnp.einsum("nth,nthk->nhk", attention, value).reshape(len(x), dim)
        return sign[None] + mixed @ matrix("out", dim, dim)

    def _mlp(self, stream):
        init = nn.initializers.normal(self.dim**-0.5)
        hidden = nn.relu(nn.Dense(self.width, kernel_init=init, dtype=self.dtype, name="mlp_in")(stream))
        return stream + nn.Dense(self.dim, kernel_init=init, dtype=self.dtype, name="mlp_out")(hidden)
