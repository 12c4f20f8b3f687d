"""CLIP's text tower."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from infojax.models.clip.blocks import Block, layer_norm, project


class TextTransformer(nn.Module):
    """A causal transformer; the feature of a text is the projected output at its end-of-text token.

    No token sees a later one: what follows the end-of-text token is without effect, and texts may be cut to the longest
    of them (with 16 learnt tokens 22 to 35 of 77 positions) without changing a feature.

    Args:
      features: of the joint space (E).
      width, layers, heads: of the blocks; context: largest length; vocabulary: number of tokens.
      activation: "quick_gelu" (OpenAI) or "gelu".
      remat: recompute each block in the backward pass instead of keeping what it computed.
      dtype: of the computation; parameters are float32.
    Call:
      x: (n, length) token ids, or (n, length, width) embeddings of tokens, which may be learnt (`embed`).
      end: (n,) index of the end-of-text token; by default that of the largest id, as OpenAI's.
      train: without effect.
    Returns:
      (n, E) float32, not normalised.
    Raises:
      ValueError: texts longer than the context, or embeddings without `end`.
    """

    features: int
    width: int = 512
    layers: int = 12
    heads: int = 8
    context: int = 77
    vocabulary: int = 49408
    activation: str = "quick_gelu"
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, end: jax.Array | None = None, train: bool = False) -> jax.Array:
        table = self.param("token_embedding", nn.initializers.normal(0.02), (self.vocabulary, self.width))
        positions = self.param("positional_embedding", nn.initializers.normal(0.01), (self.context, self.width))
        if x.shape[1] > self.context:
            raise ValueError(f"texts have {x.shape[1]} tokens, but the context is {self.context}")
        if x.ndim == 2:
            end = jnp.argmax(x, axis=1) if end is None else end
            x = embed(table, x)
        if end is None:
            raise ValueError("embeddings need `end`, the index of each text's end-of-text token")
        x = (x + positions[None, : x.shape[1]]).astype(self.dtype)
        block = nn.remat(Block) if self.remat else Block
        for i in range(self.layers):
            x = block(self.heads, True, self.activation, self.dtype, name=f"block{i}")(x)
        x = jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0].astype(jnp.float32)
        init = nn.initializers.normal(self.width**-0.5)
        return project(layer_norm("ln_final")(x), self.param("text_projection", init, (self.width, self.features)))


def embed(table: jax.Array, ids: jax.Array) -> jax.Array:
    """(..., width) rows of the table of tokens, as float32."""
    return jnp.take(table, ids, axis=0).astype(jnp.float32)
