"""The cross-modal alignment loss (CMA): matrix entropy of the images of a class together with its text.

With F_c the image features of class c in the batch and the text feature of c, and G the cosine Gram matrix
(the division by |F_c| is part of the paper's definition of H):

  "paper"     sum_c H(G(F_c) / |F_c|)                     in nats, over the classes present
  "released"  mean_c H(G(F_c) / |F_c|) / ln |F_c|         in [0, 1], skingorz/CMA's trainer of CoOp

A class with one image has H = h((1 + s) / 2), h the binary entropy and s the cosine of image and text; most classes
are such in random batches of 32 of many classes. A class that is absent adds nothing: the entropy of its text alone is
0. The released code adds 1e-6 to the diagonal, which moves a term by up to 9e-6; here there is no ridge.

References:
  Song et al. 2024, "Exploring Information-Theoretic Metrics Associated with Neural Collapse in Supervised Training";
  https://github.com/skingorz/CMA, trainers/cma.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from infojax.measures.arrays import safe_divide
from infojax.measures.entropy import density_from_gram, entropy_of_density, gram
from infojax.measures.scalars import one_of

FORMS = ("paper", "released")
TEXTS = ("once", "per_image")


class GroupEntropies(NamedTuple):
    """One number per group; groups after the last class that is present have size 0.

    Attributes:
      entropy: (G,) H(G(F_c)) in nats; size: (G,) vectors of F_c; label: (G,) class.
    """

    entropy: jax.Array
    size: jax.Array
    label: jax.Array


def group_entropies(
    images: jax.Array,
    texts: jax.Array,
    labels: jax.Array,
    *,
    num_classes: int | None = None,
    weights: jax.Array | None = None,
    count: str = "once",
    map_matrices: Callable = jax.vmap,
) -> GroupEntropies:
    """Entropy of each class's images with its text, of static shape.

    Args:
      images: (n, E) features, of any norm.
      texts: (n, E) feature of each image's own text, t[labels] or one that depends on the image.
      labels: (n,) int.
      num_classes: C; there are G = min(n, C) groups, n where it is not given.
      weights: (n,) zeros and ones: which images count; None for all.
      count: how often a class's text is in F_c: "once" (that of its first image) or "per_image".
      map_matrices: maps over a batch of matrices, see `Context`.
    """
    n = len(labels)
    groups = n if num_classes is None else min(n, num_classes)
    used = jnp.ones(n, bool) if weights is None else weights > 0
    same = (labels[:, None] == labels[None, :]) & used[None, :] & used[:, None]
    place = jnp.arange(n)
    first = used & (jnp.argmax(same, axis=1) == place)
    leaders = jnp.nonzero(first, size=groups, fill_value=n)[0]
    real = leaders < n
    leaders = jnp.where(real, leaders, 0)
    members = same[leaders] & real[:, None]
    if count == "once":  # one row for the text, that of the first image: matrices of n + 1 rows, not 2 n
        rows = jnp.concatenate([jnp.broadcast_to(place[None], (groups, n)), n + leaders[:, None]], axis=1)
        chosen = jnp.concatenate([members, real[:, None]], axis=1)
    else:
        rows = jnp.broadcast_to(jnp.arange(2 * n)[None], (groups, 2 * n))
        chosen = jnp.concatenate([members, members], axis=1)
    chosen, k = chosen.astype(images.dtype), gram(jnp.concatenate([images, texts]))

    def entropy(k, chosen):
        return entropy_of_density(density_from_gram(k, chosen))

    # The matrices are arguments: a mapped function that closes over k does not trace where k lies on several devices.
    found = map_matrices(entropy)(k[rows[:, :, None], rows[:, None, :]], chosen)
    return GroupEntropies(found, jnp.sum(chosen, axis=1), labels[leaders])


def cross_modal_alignment(
    images: jax.Array,
    texts: jax.Array,
    labels: jax.Array,
    *,
    form: str = "paper",
    num_classes: int | None = None,
    weights: jax.Array | None = None,
    count: str = "once",
    map_matrices: Callable = jax.vmap,
) -> jax.Array:
    """The loss above, a scalar; gradients reach images and texts. Nothing selected gives 0.

    Identical features give 0, orthonormal ones ln |F_c| ("paper") or 1 ("released"). The derivative is that on the
    support of each density: finite where features coincide.

    Args:
      form: "paper" or "released"; the others as of `group_entropies`.
    Raises:
      ValueError: unknown form or count.
    """
    one_of(form, "form", FORMS)
    one_of(count, "count", TEXTS)
    found = group_entropies(
        images, texts, labels,
        num_classes=num_classes, weights=weights, count=count, map_matrices=map_matrices,
    )  # fmt: skip
    if form == "paper":
        return jnp.sum(found.entropy)
    present = found.size > 0
    normalised = found.entropy / jnp.log(jnp.maximum(found.size, 2))
    return safe_divide(jnp.sum(jnp.where(present, normalised, 0)), jnp.sum(present).astype(normalised.dtype))
