"""BERT as a sentence encoder, and a linear map of its sentences into another space.

References:
  Devlin et al. 2019 (BERT); Reimers and Gurevych 2019 (mean pooling); Wang et al. 2020 (MiniLM).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from infojax.models.clip.blocks import project
from infojax.models.clip.model import unit
from infojax.models.clip.text import embed


def _norm(dtype, name):
    return nn.LayerNorm(1e-12, dtype=dtype, use_fast_variance=False, name=name)


class BertLayer(nn.Module):
    """norm(x + attention(x)), then norm(x + mlp(x)), with the exact GELU; (n, length, width) in and out.

    Args:
      heads: of the attention; hidden: units of the MLP; dtype: of the computation.
    Call:
      seen: (n, length), the tokens that are attended to.
    """

    heads: int
    hidden: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, seen: jax.Array) -> jax.Array:
        n, length, width = x.shape

        def dense(y, size, name):
            return nn.Dense(size, kernel_init=nn.initializers.normal(0.02), dtype=self.dtype, name=name)(y)

        q, k, v = (dense(x, width, name).reshape(n, length, self.heads, -1) for name in ("query", "key", "value"))
        y = jax.nn.dot_product_attention(q, k, v, mask=seen[:, None, None, :])
        x = _norm(self.dtype, "attention_norm")(x + dense(y.reshape(n, length, width), width, "out"))
        y = dense(nn.gelu(dense(x, self.hidden, "fc"), approximate=False), width, "proj")
        return _norm(self.dtype, "output_norm")(x + y)


class SentenceBert(nn.Module):
    """BERT, the mean over a text's tokens, unit length, then a linear map (that of a ridge regression).

    Tokens behind `end` are neither attended to nor in the mean: texts may be cut to the longest of them.

    Args:
      features: of the joint space (E).
      width, layers, heads, hidden: of the layers; context: largest length; vocabulary: number of tokens.
      remat: compute each layer again in the backward pass instead of keeping what it computed.
      dtype: of the computation; parameters are float32.
    Call:
      x: (n, length) token ids, 0 after the end, or (n, length, width) embeddings of tokens, which may be learnt.
      end: (n,) index of each text's last token, [SEP]; by default that of the last id that is not 0.
      train: without effect.
    Returns:
      (n, E) float32, not normalised.
    Raises:
      ValueError: texts longer than the context, or embeddings without `end`.
    """

    features: int
    width: int = 384
    layers: int = 6
    heads: int = 12
    hidden: int = 1536
    context: int = 512
    vocabulary: int = 30522
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, end: jax.Array | None = None, train: bool = False) -> jax.Array:
        init = nn.initializers.normal(0.02)
        table = self.param("token_embedding", init, (self.vocabulary, self.width))
        positions = self.param("positional_embedding", init, (self.context, self.width))
        kinds = self.param("type_embedding", init, (2, self.width))  # of the first and of a second sentence
        length = x.shape[1]
        if length > self.context:
            raise ValueError(f"texts have {length} tokens, but the context is {self.context}")
        if x.ndim == 2:
            end = jnp.sum(x != 0, axis=1) - 1 if end is None else end
            x = embed(table, x)
        if end is None:
            raise ValueError("embeddings need `end`, the index of each text's last token")
        seen = jnp.arange(length)[None] <= end[:, None]
        x = _norm(self.dtype, "embedding_norm")((x + positions[None, :length] + kinds[None, :1]).astype(self.dtype))
        layer = nn.remat(BertLayer) if self.remat else BertLayer
        for i in range(self.layers):
            x = layer(self.heads, self.hidden, self.dtype, name=f"layer{i}")(x, seen)
        total = jnp.sum(jnp.where(seen[..., None], x.astype(jnp.float32), 0), axis=1)  # its direction is the mean's
        into = self.param("text_projection", nn.initializers.normal(self.width**-0.5), (self.width, self.features))
        return project(unit(total), into)
