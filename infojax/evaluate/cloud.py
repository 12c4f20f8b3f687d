"""Three-dimensional features, with the class means and the head's rows."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from infojax.evaluate.forward import Evaluation

MOST = 300  # samples in a row


def cloud(evaluation: Evaluation) -> Iterator[tuple[str, Any]]:
    """cloud_x, cloud_y, cloud_z, labels: up to 300 evenly spaced samples; class means (C, 3) of all samples; head.

    The mean of all samples is subtracted from samples and means, not from the head's rows. Four decimals. The mean of
    an absent class is nan.

    Raises:
      ValueError: the embedding is not three-dimensional.
    References:
      Cheong, Explaining Deep Neural Networks using Information Theory and Geometry, Fig. 1.3.
    """
    z, labels = np.asarray(evaluation.outputs["raw"].embedding, np.float64), np.asarray(evaluation.sample.labels)
    if z.shape[1] != 3:
        raise ValueError(f"a cloud is drawn of an embedding of 3 dimensions; this one has {z.shape[1]}")
    head = np.asarray(evaluation.head.weights, np.float64)  # type: ignore[union-attr]  # classifiers only
    z = z - z.mean(axis=0)
    shown = np.unique(np.linspace(0, len(z) - 1, min(len(z), MOST)).astype(int))
    means = [z[labels == c].mean(axis=0) if np.any(labels == c) else np.full(3, np.nan) for c in range(len(head))]
    for axis, place in zip("xyz", z[shown].T, strict=True):
        yield f"cloud_{axis}", np.round(place, 4).tolist()
    yield "labels", labels[shown].tolist()
    yield "means", np.round(means, 4).tolist()
    yield "head", np.round(head, 4).tolist()
