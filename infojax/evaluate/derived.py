"""Networks derived from trained ones: on the straight line between two, and without the smallest weights.

Many sets of weights, one sample: all of them go through the same compiled `forward`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infojax.evaluate.forward import Evaluation, Outputs, Sample, not_finite, on_sample
from infojax.measures.arrays import ArrayLike
from infojax.measures.estimate import assembled, estimate_joint_entropy, estimate_matrix_entropy
from infojax.objectives import Model, Net

SCOPES = {"global": "", "layer": "_layerwise"}  # scope of the smallest weights -> suffix of the quantity names


def looking(
    through: Callable[..., Outputs],
    sample: Sample,
    measures: Sequence[Callable[[Evaluation], Iterable[tuple[str, Any]]]],
) -> Callable[[Model], dict[str, Any]]:
    """`Model` -> {name: value}: the results of the measures on the sample; see `on_sample`."""
    look = on_sample(through, sample, measures)
    return lambda model: dict(look({"raw": model}))


# Between two networks


@jax.jit
def between(first: Any, second: Any, weight: float | jax.Array) -> Any:
    """(1 - weight) first + weight second, leaf by leaf of two trees of equal shapes; exact at both ends."""
    return jax.tree.map(lambda a, b: (1 - weight) * a + weight * b, first, second)


def barrier(weights: ArrayLike, values: ArrayLike) -> float:
    """Height of the highest of `values` over the straight line between its ends, at least 0.

    Args:
      weights: (P,) from 0 to 1, ascending, with both ends; values: (P,) of a loss or an error.
    References:
      Frankle, Dziugaite, Roy, Carbin 2020 use the mean of the ends instead of the line; Entezari et al. 2022 the line.
    """
    weights, values = np.asarray(weights, np.float64), np.asarray(values, np.float64)
    return float(np.max(values - ((1 - weights) * values[0] + weights * values[-1])))


def along_path(
    look: Callable[[Model], dict[str, Any]],
    pairs: Sequence[Sequence[int]],
    weights: Sequence[float],
    which: str = "raw",
    refreshed: Callable[[Model], Model] | None = None,
) -> Callable[..., Iterator[dict[str, Any]]]:
    """An `Evaluator.run` over all runs: one row per interpolated network of each pair, then the barriers.

    Args:
      look: from `looking`.
      pairs: numbers of two runs each; weights: of the second, from 0 to 1.
      which: the weights to interpolate, "raw" or the name of an average.
      refreshed: `Model` -> `Model` with its own batch statistics, or None. Without it statistics are interpolated like
        weights, and belong to no network; with it both are measured, the second as "..._recomputed".
    """

    def kept(name, value):
        return isinstance(value, float) or name == "not_finite"

    def run(models):
        for pair in pairs:
            ends, rows = [models[i][which] for i in pair], []
            for weight in weights:
                model = between(*ends, weight)
                row = look(model)
                if refreshed is not None:
                    again = look(refreshed(model))
                    row |= {f"{name}_recomputed": x for name, x in again.items() if kept(name, x)}
                rows.append(row)
                yield {"run": pair[0], "runs": list(pair), "weight": float(weight), **row}
            yield {"run": pair[0], "runs": list(pair), "split": rows[0]["split"], **dict(_barriers(weights, rows))}

    return run


def _barriers(weights, rows):
    for ending in ("", "_recomputed"):
        if any(f"loss{ending}" in row for row in rows):
            # An interpolated network whose outputs are not finite has neither: the barrier is nan.
            losses, accuracies = ([row.get(name + ending, np.nan) for row in rows] for name in ("loss", "accuracy"))
            yield f"barrier_loss{ending}", barrier(weights, losses)
            yield f"barrier_error{ending}", barrier(weights, [100 - 100 * accuracy for accuracy in accuracies])


def refreshing(
    net: Net, transform: Callable[..., jax.Array], x: jax.Array, batch_size: int
) -> Callable[[Model], Model]:
    """`Model` -> `Model` whose batch statistics are means over batches of x, as these weights see them.

    Args:
      net: its running statistics have decay 0: a training-mode call leaves the statistics of its batch in them.
      transform: of stored samples; x: stored samples (N, ...); an incomplete last batch is left out.
    """
    size = min(batch_size, len(x))
    starts = range(0, len(x) - size + 1, size)

    @jax.jit
    def of_batch(model, rows):
        return net.apply(model.params, model.model_state, transform(None, rows), train=True)[1]

    def run(model):
        # Each batch starts from the given statistics, not those of the previous batch: decay 0 forgets them.
        found = [of_batch(model, x[start : start + size]) for start in starts]
        return replace(model, model_state=jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *found))

    return run


# Without the smallest weights


def pruned(params: Any, sparsity: float, scope: str = "global") -> Any:
    """Parameters with the weights of least magnitude set to zero: round(sparsity * count); biases and scales are kept.

    Args:
      sparsity: in [0, 1).
      scope: "global": the smallest of all matrices and kernels together; "layer": the same share of each.
    """
    sizes = [leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
    sizes = [sum(sizes)] if scope == "global" else sizes
    return _without(params, [round(sparsity * size) for size in sizes])


@jax.jit
def _without(params, counts):
    """`counts`: the number of zeros of each kernel, or one number for all together."""
    leaves, tree = jax.tree.flatten(params)
    places = [i for i, leaf in enumerate(leaves) if leaf.ndim > 1]
    groups = [[i] for i in places] if len(counts) == len(places) else [places]
    for group, count in zip(groups, counts, strict=True):
        flat = jnp.concatenate([jnp.abs(leaves[i]).ravel() for i in group])
        rank = jnp.zeros(len(flat), jnp.int32).at[jnp.argsort(flat)].set(jnp.arange(len(flat)))
        ends = np.cumsum([leaves[i].size for i in group])[:-1]
        for i, ranks in zip(group, jnp.split(rank, ends), strict=True):
            leaves[i] = jnp.where(ranks.reshape(leaves[i].shape) >= count, leaves[i], 0)
    return jax.tree.unflatten(tree, leaves)


def by_sparsity(
    through: Callable[..., Outputs],
    sample: Sample,
    measures: Sequence[Callable[[Evaluation], Iterable[tuple[str, Any]]]],
    sparsities: Sequence[float],
) -> Callable[..., Iterator[dict[str, Any]]]:
    """An `Evaluator.run` over all runs: one row per network and sparsity, in both `SCOPES`.

    The measures also include `against`, with the features of the unpruned network.
    """

    def run(models):
        for number, of_run in enumerate(models):
            whole = of_run["raw"]
            before = through(whole, sample.x)
            compared = () if not_finite({"raw": before}) else (partial(against, before.embedding),)
            look = looking(through, sample, (*measures, *compared))
            for sparsity in sparsities:
                row = {"run": number, "sparsity": float(sparsity)}
                for scope, ending in SCOPES.items():
                    found = look(replace(whole, params=pruned(whole.params, sparsity, scope)))
                    row |= {x if x in ("split", "n") else x + ending: value for x, value in found.items()}
                yield row

    return run


def against(before: jax.Array, evaluation: Evaluation) -> Iterator[tuple[str, Any]]:
    """mir_features, hdr_features, joint_entropy_features between the sample's features now and `before`, (n, D).

    Exact where min(n, D^2) <= 4096, else estimated: then "..._error" of the first and the last is half the width of
    their bounds.
    """
    after = evaluation.outputs["raw"].embedding
    both = jnp.any(before != 0, axis=1) & jnp.any(after != 0, axis=1)  # as `mir` does: MI >= 0 needs one set of samples
    weights = both.astype(jnp.float32)
    h1, h2 = (estimate_matrix_entropy(z, weights=weights) for z in (before, after))
    found = assembled(h1, h2, estimate_joint_entropy(before, after, weights=weights), np.nan, len(after), 0)
    for name in ("mir", "hdr", "joint_entropy"):
        value = getattr(found, name)
        yield f"{name}_features", float(value.value)
        if value.route == "estimate" and name != "hdr":
            yield f"{name}_features_error", float(value.upper - value.lower) / 2
