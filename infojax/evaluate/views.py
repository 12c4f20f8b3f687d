"""Matrix information between two views of a fixed sample, during self-supervised training.

Two sides. Samples: K = cosines of the samples' rows, n x n. Features: the correlation matrix of the features over the
sample, D x D, the side on which Barlow Twins works. Entropies of K and of its elementwise product with that of the
other view are those of `infojax.joint_entropy`; they are at most log n, or log D.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infojax.evaluate.evaluators import classify
from infojax.evaluate.forward import Evaluation, Sample
from infojax.measures.coding import coding_rate
from infojax.measures.divergence import eigenspace_jsd, matrix_jsd, spectrum_jsd
from infojax.measures.entropy import gram, matrix_entropy, matrix_entropy_from_gram, rankme
from infojax.measures.joint import joint_entropy_from_gram, mi_of
from infojax.measures.views import lidar
from infojax.objectives import Model
from infojax.parallel import local_copy

Row = Iterator[tuple[str, Any]]


def online(evaluation: Evaluation) -> Row:
    """loss_online and accuracy_online, of the classifier trained alongside the method, to which no gradient passes."""
    for name, value in classify(evaluation):
        yield f"{name}_online", value


def spectrum(evaluation: Evaluation) -> Row:
    """rankme, matrix_entropy_alpha_2 and coding_rate of the embedding: label-free predictors of probe accuracy."""
    z = evaluation.outputs["raw"].embedding
    yield "rankme", float(rankme(z))
    yield "matrix_entropy_alpha_2", float(matrix_entropy(z, alpha=2))
    yield "coding_rate", float(coding_rate(z))


def view_information(
    transforms: Sequence[Callable[..., jax.Array]],
    sample: Sample,
    branches: Sequence[tuple[str, str]],
    seed: int = 0,
) -> Callable[[Mapping[str, Model]], Row]:
    """An evaluator's `run`: two views of a sample, drawn once, through the two branches of a method.

    Args:
      transforms: of the first view and of the second, (key, samples as stored) -> what a network takes.
      sample: `Sample`, processed in one batch.
      branches: for each view, the weights, "raw" or an average, and the feature, such as "projection".
      seed: of the draws.
    """

    @jax.jit
    def outputs(models, x):
        found = []
        for i, (transform, (which, feature)) in enumerate(zip(transforms, branches, strict=True)):
            output = models[which](transform(jax.random.fold_in(jax.random.key(seed), i), x))
            found.append({"projection": output.features[feature], "embedding": output.embedding})
        return found

    def run(models):
        models = {name: replace(model, extra={}) for name, model in models.items()}
        one, two = jax.tree.map(lambda z: z.astype(jnp.float32), local_copy(outputs(models, sample.x)))
        yield "split", sample.split
        yield "view_samples", len(sample.x)  # "n" is for the split
        for place in one:
            if not (jnp.all(jnp.isfinite(one[place])) and jnp.all(jnp.isfinite(two[place]))):
                yield "not_finite", place
                return
        yield "limit_view_information", float(np.log(len(sample.x)))
        for place, kind in (("projection", ""), ("embedding", "_embedding")):
            yield from between_grams(gram(one[place]), gram(two[place]), kind)
        z1, z2 = one["projection"], two["projection"]
        yield from between_grams(*(gram(correlated(z)) for z in (z1, z2)), "_features")
        yield from divergences(gram(z1), gram(z2))
        yield from bounds(z1, z2)

    return run


def view_lidar(
    transform: Callable[..., jax.Array], sample: Sample, count: int, seed: int = 0
) -> Callable[[Mapping[str, Model]], Row]:
    """An evaluator's `run`: `infojax.lidar` of the embeddings of `count` views of each sample, drawn once.

    Args:
      transform: of a view, (key, samples as stored) -> what the network takes.
      sample: `Sample`, each view of which is processed in one batch.
      seed: of the draws.
    """

    @jax.jit
    def embedding(model, x, i):
        return model(transform(jax.random.fold_in(jax.random.key(seed), i), x)).embedding.astype(jnp.float32)

    def run(models):
        model = replace(models["raw"], extra={})
        z = jnp.stack([local_copy(embedding(model, sample.x, i)) for i in range(count)], axis=1)
        yield "split", sample.split
        yield "lidar_samples", len(sample.x)  # "n" is for the split
        yield "lidar_views", count
        if jnp.all(jnp.isfinite(z)):
            yield "lidar", float(lidar(z))
        else:
            yield "not_finite", "embedding"

    return run


def between_grams(k1: jax.Array, k2: jax.Array, kind: str = "") -> Row:
    """("name", value) of mutual information and joint entropy, alpha = 1 and 2, of (n, n) Gram matrices; nats.

    `kind` is appended to the names; without one, the effective ranks of both matrices follow.
    """
    for alpha, order in ((1, ""), (2, "_alpha_2")):
        h1, h2 = (matrix_entropy_from_gram(k, alpha=alpha) for k in (k1, k2))
        joint = joint_entropy_from_gram(k1, k2, alpha=alpha)
        yield f"view_mutual_information{kind}{order}", float(mi_of(h1, h2, joint, alpha))
        yield f"view_joint_entropy{kind}{order}", float(joint)
        if alpha == 1 and not kind:
            yield "effective_rank_view1", float(jnp.exp(h1))
            yield "effective_rank_view2", float(jnp.exp(h2))


def correlated(z: jax.Array) -> jax.Array:
    """(D, n) features as rows, their means over the sample subtracted: the cosines of the rows are correlations."""
    return (z - jnp.mean(z, axis=0, keepdims=True)).T


def divergences(k1: jax.Array, k2: jax.Array) -> Row:
    """("name", value) of Jensen-Shannon divergences between two (n, n) Gram matrices; nats.

    Of the matrices, by their eigenspaces, and of their spectra.
    """
    for divergence in (matrix_jsd, eigenspace_jsd, spectrum_jsd):
        yield divergence.__name__, float(divergence(k1, k2))


def bounds(z1: jax.Array, z2: jax.Array) -> Row:
    """Lower bounds of I_2 and H_2 by the spectral contrastive loss, where they are above 0.

    I_2 >= log n - 2 log(1 + (2 + 2 / (n lambda)) (A + lambda C)), H_2 with one log, A = sum |u1_i - u2_i|^2 and C = sum
    of <u1_i, u2_j>^2 over i != j. They hold for every lambda; sqrt(A / (n C)) gives the highest.

    References:
      Tan et al. 2024, "Information Flow in Self-Supervised Learning", Theorems 4.3 and 4.4.
    """
    u1, u2 = (np.asarray(z, np.float64) / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-30) for z in (z1, z2))
    n, cosines = len(u1), u1 @ u2.T
    apart = float(np.sum((u1 - u2) ** 2))
    pairs = float(np.sum(cosines**2) - np.sum(np.diag(cosines) ** 2))
    lost = np.log1p(2 * apart + 2 * pairs / n + 4 * np.sqrt(apart * max(pairs, 0) / n))
    for name, times in (("view_mutual_information_bound", 2), ("view_joint_entropy_bound", 1)):
        if np.log(n) > times * lost:
            yield name, float(np.log(n) - times * lost)
