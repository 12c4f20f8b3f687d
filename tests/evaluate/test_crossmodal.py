"""Measurements of images with texts, against plain loops."""

import numpy as np
import pytest

from infojax.evaluate.crossmodal import alignment, by_class, similarities

RNG = np.random.default_rng(0)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_similarities():
    cosines, labels = RNG.uniform(-1, 1, (6, 4)), np.array([0, 3, 1, 1, 2, 0])
    found = similarities(cosines, labels)
    own = [cosines[i, y] for i, y in enumerate(labels)]
    hardest = [max(c for j, c in enumerate(row) if j != y) for row, y in zip(cosines, labels, strict=True)]
    assert found["class_similarity"] == pytest.approx(np.mean(own))
    assert found["modal_similarity"] == pytest.approx(np.mean([np.mean(row) for row in cosines]))
    assert found["hardest_similarity"] == pytest.approx(np.mean(hardest))
    assert similarities(cosines[:, :1], 0 * labels).keys() == {"class_similarity", "modal_similarity"}


def test_numbers_by_class():
    """Against loops; class 1 has no samples."""
    labels, names = np.array([0, 2, 2, 0, 2]), ["cat", "dog", "sea lion"]
    images, texts = unit(RNG.normal(size=(5, 4))), unit(RNG.normal(size=(3, 4)))
    cosines = images @ texts.T
    found = by_class(cosines, images, texts[labels], labels, names)
    assert found["class_names"] == names and found["class_count"] == [2, 0, 3]
    for c in (0, 2):
        rows = [i for i, label in enumerate(labels) if label == c]
        assert found["class_own"][c] == pytest.approx(np.mean([images[i] @ texts[c] for i in rows]))
        hardest = [max(images[i] @ texts[d] for d in range(3) if d != c) for i in rows]
        assert found["class_hardest"][c] == pytest.approx(np.mean(hardest))
        assert found["class_accuracy"][c] == np.mean(
            [max(range(3), key=lambda d, i=i: images[i] @ texts[d]) == c for i in rows]
        )
        np.testing.assert_allclose(found["similarity_map"][c], [np.mean([images[i] @ t for i in rows]) for t in texts])
        group = np.concatenate([images[rows], texts[c : c + 1]])
        w = np.linalg.eigvalsh(group @ group.T / len(group))
        assert found["class_entropy"][c] == pytest.approx(-sum(x * np.log(x) for x in w if x > 1e-12))
    assert all(found[name][1] is None for name in ("class_own", "class_entropy", "class_accuracy", "similarity_map"))


@pytest.mark.parametrize("dim", [3, 16])  # below and above the sizes of the groups
def test_alignment_of_a_sample(dim):
    labels = np.array([2, 0, 2, 2, 0, 2, 5])
    images, texts = unit(RNG.normal(size=(7, dim))), unit(RNG.normal(size=(6, dim)))
    entropies = []
    for c in (0, 2, 5):
        group = np.concatenate([images[labels == c], texts[c : c + 1]])
        w = np.linalg.eigvalsh(group @ group.T / len(group))
        entropies.append((-sum(x * np.log(x) for x in w if x > 1e-12), len(group)))
    found = alignment(images, texts[labels], labels)
    assert found["cma_sum"] == pytest.approx(sum(h for h, _ in entropies))
    assert found["cma"] == pytest.approx(np.mean([h / np.log(n) for h, n in entropies]))
    assert alignment(np.ones((2, 1)), np.ones((2, 1)), np.zeros(2, int)) == {"cma": 0.0, "cma_sum": 0.0}
