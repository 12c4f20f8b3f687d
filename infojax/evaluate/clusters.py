"""How features cluster by class: silhouette, and the map of scikit-learn's t-SNE."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from infojax.evaluate.forward import Evaluation, Outputs, Sample
from infojax.measures.separation import silhouette


def clusters(evaluation: Evaluation) -> Iterator[tuple[str, Any]]:
    """silhouette: mean over samples of (b - a) / max(a, b), Euclidean (Rousseeuw 1987); nan if a feature is not finite.

    Davies-Bouldin's index is in `neural_collapse`.
    """
    z, labels = np.asarray(evaluation.outputs["raw"].embedding), np.asarray(evaluation.sample.labels)
    yield "silhouette", silhouette(z, labels) if np.isfinite(z).all() else float("nan")


def tsne(
    through: Callable[..., Outputs], sample: Sample, runs: Sequence[int], seed: int = 0
) -> Callable[..., Iterator[dict[str, Any]]]:
    """An `Evaluator.run` over all runs: for each selected run, a row with the two-dimensional map of its features.

    There is no map if a feature is not finite, or if fewer than three are distinct.

    Args:
      through: `forward` of the net; runs: numbers of the selected runs.
      seed: of scikit-learn's TSNE; everything else is its default (perplexity 30, started from principal components).
    """

    def run(models):
        from sklearn.manifold import TSNE

        for number in runs:
            z = np.asarray(through(models[number]["raw"], sample.x).embedding)
            if not np.isfinite(z).all() or z.shape[1] < 2 or len(np.unique(z, axis=0)) < 3:
                continue  # nothing to map; scikit-learn would divide by zero variance
            z = z - z.mean(axis=0, dtype=np.float64).astype(z.dtype)  # far from the origin distances lose their digits
            place = TSNE(perplexity=min(30, (len(z) - 1) / 3), init="pca", random_state=seed).fit_transform(z)
            x, y = np.round(place.T.astype(np.float64), 3).tolist()
            labels = np.asarray(sample.labels).tolist()
            yield {"run": number, "split": sample.split, "n": len(z), "tsne_x": x, "tsne_y": y, "labels": labels}

    return run
