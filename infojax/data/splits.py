"""Which samples have labels: the splits of semi-supervised learning."""

import numpy as np

from infojax.data.source import Arrays, DataError, Dataset, check_whole

# CIFAR-10 with one label per class: the index sets of the FixMatch authors' most to least prototypical examples, as
# listed by TorchSSL (fixmatch.py). Its seeds 0, 1, 2 take the last three rows, from the end.
CIFAR10_ONE_A_CLASS = (
    (7408, 8148, 9850, 10361, 33949, 36506, 37018, 45044, 46443, 47447),
    (5022, 8193, 8902, 9601, 25226, 26223, 34089, 35186, 40595, 48024),
    (7510, 13186, 14043, 21305, 22805, 31288, 34508, 40470, 41493, 45506),
    (9915, 9978, 16631, 19915, 28008, 35314, 35801, 36149, 39215, 42557),
    (6695, 14891, 19726, 22715, 23999, 34230, 46511, 47457, 49181, 49397),
    (12830, 20293, 26835, 30517, 30898, 31061, 43693, 46501, 47310, 48517),
    (1156, 11501, 19974, 21963, 32103, 42189, 46789, 47690, 48229, 48675),
    (4255, 6446, 8580, 11759, 12598, 29349, 29433, 33759, 35345, 38639),
)


def labelled(dataset: Dataset, num_labels: int, seed: int, *, protocol: str = "torchssl") -> np.ndarray:
    """Indices of the labelled samples of the train split; every published method keeps them among the unlabelled too.

    Args:
      num_labels: in total; a multiple of the number of classes.
      seed: of the split.
      protocol: "torchssl": exactly the indices that TorchSSL draws with this seed, num_labels / C per class, and for
        CIFAR-10 with 10 labels row -(seed + 1) of the published list; "fold": official fold number `seed` (STL-10 with
        1,000 labels, as in FixMatch).
    Returns:
      (num_labels,) int64.
    Raises:
      DataError: the numbers do not fit.
    """
    check_whole("labelled", num_labels=num_labels)
    check_whole("labelled", 0, seed=seed)
    if protocol == "fold":
        folds = dataset.folds() if dataset.folds else []
        if not 0 <= seed < len(folds) or len(folds[seed]) != num_labels:
            sizes = f"{len(folds)} of {len(folds[0])} labels" if len(folds) else "none"
            raise DataError(f"{dataset.name}: no fold {seed} of {num_labels} labels; there are {sizes}")
        return folds[seed]
    if protocol != "torchssl":
        raise DataError(f"protocol must be torchssl or fold, got {protocol!r}")
    if dataset.name == "cifar10" and num_labels == 10:
        if not 0 <= seed < len(CIFAR10_ONE_A_CLASS):
            raise DataError(f"cifar10 with 10 labels has index sets for seeds 0 to 7, got {seed}")
        return np.array(CIFAR10_ONE_A_CLASS[-seed - 1])
    return balanced(dataset.split("train").labels, num_labels, dataset.num_classes, seed)


def balanced(labels: np.ndarray, num_labels: int, num_classes: int, seed: int) -> np.ndarray:
    """Indices (num_labels,) of num_labels / C samples of each class without replacement, classes in order.

    Drawn by NumPy's legacy generator, as TorchSSL does. Negative labels (N,) are never chosen.

    Raises:
      DataError: num_labels is not a multiple of C, or a class has too few samples.
    """
    each, rest = divmod(num_labels, num_classes)
    counts = np.bincount(labels[labels >= 0], minlength=num_classes)
    if rest or not 1 <= each <= counts.min():
        raise DataError(
            f"num_labels must be a multiple of {num_classes} (classes) and at most {num_classes * counts.min()}"
            f" ({counts.min()} samples in the smallest class), got {num_labels}"
        )
    random = np.random.RandomState(seed)
    return np.concatenate([random.choice(np.flatnonzero(labels == c), each, False) for c in range(num_classes)])


def shuffled(source: Arrays, seed: int = 0) -> Arrays:
    """A split in memory in an order independent of its classes, for networks whose output depends on the batch."""
    order = np.random.default_rng(seed).permutation(len(source))
    return Arrays(source.x[order], source.labels[order])
