"""Few-shot splits and base and new classes, as CoOp draws them."""

import random
from collections.abc import Iterable

import numpy as np


def few_shot(labels: np.ndarray, shots: int, seed: int, *others: np.ndarray) -> list[np.ndarray]:
    """Indices of `shots` samples per class, exactly those that CoOp draws from the same list with this seed.

    `random.seed(seed)`, classes in the order of their first sample, `random.sample` of each class; all samples of a
    class that has fewer. CoOp then draws min(shots, 4) per class of its validation list from the same generator.

    Args:
      labels: (N,) of the training list, in the order of the split file.
      shots: samples per class.
      seed: 1, 2, 3 in CoOp's tables.
      others: labels of further lists, each with min(shots, 4) shots, like the validation list.
    Returns:
      (n,) int64 for each list, class by class.
    References:
      KaiyangZhou/Dassl.pytorch, dassl/data/datasets/base_dataset.py (generate_fewshot_dataset).
    """
    generator, found = random.Random(seed), []
    for part, count in ((labels, shots), *((other, min(shots, 4)) for other in others)):
        members: dict[int, list[int]] = {}
        for index, label in enumerate(np.asarray(part).tolist()):
            members.setdefault(label, []).append(index)
        drawn: Iterable[list[int]] = (
            generator.sample(rows, count) if len(rows) >= count else rows for rows in members.values()
        )
        found.append(np.array([index for rows in drawn for index in rows], np.int64))
    return found


def halves(num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(base, new) classes: the first ceil(C / 2) labels, and the rest, as in CoCoOp."""
    middle = -(-num_classes // 2)
    return np.arange(middle), np.arange(middle, num_classes)


def of_classes(labels: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(indices of the samples of some classes, their labels counted from 0 in the order of `classes`)."""
    chosen = np.flatnonzero(np.isin(labels, classes))
    place = {int(c): i for i, c in enumerate(classes)}
    return chosen, np.array([place[int(label)] for label in labels[chosen]], np.int32)
