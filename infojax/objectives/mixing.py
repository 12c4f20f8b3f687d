"""Mixup and CutMix of a batch with itself in reverse order, as in timm and MAE's fine-tuning.

  mixup:  x <- s x + (1 - s) x', s ~ Beta(a, a)
  cutmix: a box of x' replaces that of x; its sides are sqrt(1 - s) of the image's, s ~ Beta(a, a), its centre is
    uniform, the part outside is cut off; s <- the share of pixels that stay
  loss <- s CE(logits, y) + (1 - s) CE(logits, y'), which is the cross-entropy with mixed labels

References:
  Zhang et al. 2018, mixup; Yun et al. 2019, CutMix, algorithm A1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from infojax.objectives.objective import objective

MIXINGS = ("off", "mixup", "cutmix", "both")


class Mix(NamedTuple):
    """The draws for a batch, 0-d each: s, whether it is CutMix, the centre of its box as shares of the sides."""

    share: jax.Array
    cut: jax.Array
    row: jax.Array
    column: jax.Array


@objective
class Mixing:
    """Mixing as a part of an objective.

    Attributes:
      mixing: "off", "mixup", "cutmix", or "both", each with probability 1/2.
      mixup_alpha, cutmix_alpha: a; MAE has 0.8 and 1.
    """

    mixing: str = "off"
    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0

    def draw(self, key: jax.Array) -> Mix:
        """The `Mix` of a batch: share of Beta(a, a), whether it is CutMix, and the uniform centre of its box."""
        keys = jax.random.split(key, 4)
        cut = {"mixup": jnp.zeros((), bool), "cutmix": jnp.ones((), bool)}.get(
            self.mixing, jax.random.bernoulli(keys[0])
        )
        alpha = jnp.where(cut, self.cutmix_alpha, self.mixup_alpha)
        share = jax.random.beta(keys[1], alpha, alpha)
        return Mix(share, cut, jax.random.uniform(keys[2]), jax.random.uniform(keys[3]))

    def __call__(self, x: jax.Array, drawn: Mix) -> tuple[jax.Array, jax.Array]:
        """(mixed x (N, H, W, channels), s); the i-th of N is mixed with the i-th from the end."""
        height, width = x.shape[1:3]
        other, side = x[::-1], jnp.sqrt(1 - drawn.share)
        inside = _between(drawn.row, side, height)[:, None] & _between(drawn.column, side, width)[None]
        stays = 1 - jnp.mean(inside.astype(x.dtype))
        cut = jnp.where(inside[None, :, :, None], other, x)
        mixed = drawn.share * x + (1 - drawn.share) * other
        return jnp.where(drawn.cut, cut, mixed), jnp.where(drawn.cut, stays, drawn.share)


def _between(centre, side, size):
    """(size,) whether a pixel is in the box along one axis: rounded to whole pixels as in the papers' code."""
    middle, half = jnp.floor(centre * size), jnp.floor(side * size) // 2
    pixels = jnp.arange(size)
    return (pixels >= middle - half) & (pixels < middle + half)
