"""The map that joins the towers: from sentences about classes to the rows of a classifier."""

import numpy as np


def ridge(x: np.ndarray, y: np.ndarray, strength: float = 0.1) -> np.ndarray:
    """(w, E) map P that minimises |x P - y|^2 + strength |P|^2 for x (n, w) and y (n, E), in float64.

    P = (x^T x + strength I)^-1 x^T y, without an intercept.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ y)


def targets(rows: np.ndarray) -> np.ndarray:
    """Rows (C, E) of a classifier, minus their mean, which no decision depends on, and of length one; float64."""
    rows = np.asarray(rows, np.float64)
    rows = rows - rows.mean(axis=0)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def retrieval(x: np.ndarray, y: np.ndarray, held: int, draws: int, strength: float = 0.1) -> tuple[float, float]:
    """(top-1, top-5) shares: how often a class that the map has not seen finds its own row among those held out.

    Args:
      x, y: (n, w) sentences and (n, E) rows of length one; held: classes left out at random, `draws` times over.
    """
    ranks = []
    for seed in range(draws):
        order = np.random.default_rng(seed).permutation(len(x))
        test, train = order[:held], order[held:]
        found = x[test] @ ridge(x[train], y[train], strength)
        cosines = found @ y[test].T  # up to the length of `found`, which ranks nothing
        ranks.append(np.sum(cosines > np.diag(cosines)[:, None], axis=1))
    return float(np.mean(np.array(ranks) < 1)), float(np.mean(np.array(ranks) < 5))
