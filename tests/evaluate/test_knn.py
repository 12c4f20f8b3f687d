"""Nearest neighbours against brute force in float64, with ties, across blocks; and against scikit-learn's vote."""

import jax.numpy as jnp
import numpy as np
import pytest

from infojax.evaluate.knn import Neighbours, knn_accuracies, neighbours, votes


def brute(queries, bank, labels, classes, k, rule, temperature):
    """(index, votes) of one query after another; a stable sort keeps the first of equal rows."""
    indices, totals = [], []
    for z in np.asarray(queries, np.float64):
        rows = np.asarray(bank, np.float64)
        if rule == "cosine":
            norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(z)
            closeness = np.divide(rows @ z, norms, out=np.zeros(len(rows)), where=norms > 0)
            weight = np.exp(closeness / temperature)
        else:
            distance = np.sqrt(((rows - z) ** 2).sum(1))
            closeness, weight = -distance, 1 / (distance + 1e-5)
        nearest = np.argsort(-closeness, kind="stable")[:k]
        indices.append(nearest)
        totals.append([weight[nearest][labels[nearest] == c].sum() for c in range(classes)])
    return np.array(indices), np.array(totals)


@pytest.mark.parametrize("rule", ["cosine", "euclidean"])
@pytest.mark.parametrize("ties", [False, True])
def test_neighbours_and_votes_are_those_of_brute_force(rule, ties):
    """With ties: rows of +-1, whose norm is 4 and whose products and distances are exact, most of them repeated."""
    rng = np.random.default_rng(0)
    queries, bank = (rng.choice([-1.0, 1.0], (n, 16)) if ties else rng.normal(size=(n, 16)) for n in (13, 47))
    labels = rng.integers(0, 5, 47)
    if ties:
        bank[20:40] = bank[:20]
        queries[:5] = bank[:5]
    for block, query_block in ((1000, 1000), (10, 4), (3, 13)):
        found = neighbours(queries, bank, 7, rule, block=block, query_block=query_block)
        index, totals = brute(queries, bank, labels, 5, 7, rule, 0.07)
        np.testing.assert_array_equal(found.index, index)
        voted = np.asarray(votes(found, labels, 5, rule, 0.07))
        totals, voted = (x / x.sum(1, keepdims=True) for x in (totals, voted))
        np.testing.assert_allclose(voted, totals, rtol=1e-3, atol=1e-5)


def test_equal_votes_go_to_the_first_class():
    found = Neighbours(jnp.zeros((1, 2)), jnp.array([[0, 1]]))
    assert np.argmax(votes(found, [3, 1], 5)) == 1


def test_accuracy_is_scikit_learns():
    """Weights 1 / d are its "distance" where no distance is 0; several k of one pass."""
    neighbors = pytest.importorskip("sklearn.neighbors")
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(4, 6))
    labels, right = rng.integers(0, 4, 120), rng.integers(0, 4, 40)
    bank, queries = (centres[y] + 1.2 * rng.normal(size=(len(y), 6)) for y in (labels, right))
    found = knn_accuracies(queries, right, bank, labels, 4, (1, 5, 20), "euclidean")
    for k, accuracy in found.items():
        model = neighbors.KNeighborsClassifier(k, weights="distance").fit(bank, labels)
        assert accuracy == pytest.approx(model.score(queries, right), abs=1e-6)
    assert len(set(found.values())) > 1


def test_zero_rows_and_small_temperatures():
    """A zero row has the cosine 0 with everything; exp(1 / 0.001) is beyond float32, its quotients are not."""
    found = neighbours(np.zeros((1, 3)), np.eye(3), 2)
    np.testing.assert_array_equal(found.closeness, [[0, 0]])
    near = neighbours(np.eye(3)[:1], np.eye(3), 2)
    np.testing.assert_array_equal(votes(near, [2, 0, 1], 3, temperature=0.001), [[0, 0, 1]])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((np.ones((2, 3)), np.ones((4, 3)), 5), "k must be from 1 to 4, the rows of the bank; got 5"),
        ((np.ones((2, 3)), np.ones((4, 3)), 0), "got 0"),
        ((np.ones((2, 3)), np.ones((4, 2)), 1), r"got \(2, 3\) and \(4, 2\)"),
        ((np.ones((2, 3)), np.ones((4, 3)), 1, "manhattan"), "rule must be one of cosine, euclidean; got 'manhattan'"),
    ],
)
def test_bad_requests(arguments, says):
    with pytest.raises(ValueError, match=says):
        neighbours(*arguments)
