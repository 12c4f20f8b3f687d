"""Data that needs no file: the bundled digits, class-structured pictures, modular arithmetic."""

import itertools
import random
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from infojax.data.source import Arrays, DataError, Dataset, check_memory
from infojax.suggestions import suggest


def digits() -> Dataset:
    """scikit-learn's 1,797 handwritten digits, 8 x 8; every fifth one of a class is in the test split (355 in all)."""
    table = _digits_table()
    images, labels = table[:, :-1], table[:, -1].astype(int)
    images = np.rint(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    place = np.zeros(len(labels), int)  # position of a sample within its class
    for c in range(10):
        place[labels == c] = np.arange(np.sum(labels == c))
    test = place % 5 == 4
    splits = {"train": Arrays(images[~test], labels[~test]), "test": Arrays(images[test], labels[test])}
    return Dataset("digits", 10, tuple(map(str, range(10))), _ready(splits), flip=False)


def _digits_table():
    """(1797, 65) pixels and labels, read directly from scikit-learn's file: importing the package takes two seconds."""
    spec = find_spec("sklearn")
    file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz" if spec and spec.origin else None
    if file and file.is_file():
        return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    return np.column_stack(load_digits(return_X_y=True))


def synthetic(
    num_classes: int = 10,
    size: int = 32,
    channels: int = 3,
    num_train: int = 2000,
    num_test: int = 500,
    noise: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """Structured pictures: a smooth pattern per class, with random shifts, random contrast and Gaussian noise.

    Args:
      noise: standard deviation as a share of the range 0 to 1; about 1 hides the classes.
    """
    check_memory("synthetic", 3 * 8 * max(num_train, num_test, num_classes) * size**2 * channels)
    rng = np.random.default_rng(seed)
    waves = np.exp(2j * np.pi * np.outer(np.arange(-2, 3), np.arange(size) / size))  # five frequencies per axis
    weights = rng.normal(size=(num_classes, channels, 5, 5)) + 1j * rng.normal(size=(num_classes, channels, 5, 5))
    patterns = np.einsum("ckuv,uh,vw->chwk", weights, waves, waves, optimize=True).real
    patterns /= np.abs(patterns).max(axis=(1, 2, 3), keepdims=True) * 2

    def draw(n):
        labels = np.arange(n) % num_classes
        shift = rng.integers(-(size // 8), size // 8 + 1, (2, n, 1)) + np.arange(size)
        rows, columns = shift % size
        x = patterns[labels[:, None, None], rows[:, :, None], columns[:, None, :]] * rng.uniform(0.5, 1, (n, 1, 1, 1))
        x += rng.normal(0, noise, x.shape) + 0.5
        return Arrays(np.clip(np.rint(255 * x), 0, 255).astype(np.uint8), labels)

    splits = {"train": draw(num_train), "test": draw(num_test)}
    return Dataset("synthetic", num_classes, tuple(f"class {c}" for c in range(num_classes)), _ready(splits))


OPERATIONS = {
    "add": lambda a, b, p: (a + b) % p,
    "subtract": lambda a, b, p: (a - b) % p,
    "multiply": lambda a, b, p: a * b % p,
    "divide": lambda a, b, p: a * pow(b, -1, p) % p,  # b = 0 is left out
}


def modular(p: int = 113, operation: str = "add", train_fraction: float = 0.3, seed: int = 0) -> Dataset:
    """All pairs (a, b): tokens a, b and "=" (number p), label (a operation b) mod p; N = p^2; division: p (p - 1).

    The default is the split of Nanda et al. 2023: 3,830 of 12,769 pairs, shuffled by Python's `random` with the seed.

    Args:
      p: a prime.
      operation: a key of OPERATIONS.
    """
    if any(p % q == 0 for q in range(2, int(p**0.5) + 1)):
        raise DataError(f"modular: p must be a prime, got {p}")
    if operation not in OPERATIONS:
        raise DataError(f"modular: no operation {operation!r}{suggest(operation, OPERATIONS)}")
    pairs = list(itertools.product(range(p), range(operation == "divide", p)))
    cut = int(train_fraction * len(pairs))
    if not 0 < cut < len(pairs):
        raise DataError(f"modular: train_fraction {train_fraction} leaves a split of {len(pairs)} pairs empty")
    random.Random(seed).shuffle(pairs)

    def source(part):
        labels = [OPERATIONS[operation](a, b, p) for a, b in part]
        return Arrays(np.array([(a, b, p) for a, b in part], np.int32), labels)

    splits = {"train": source(pairs[:cut]), "test": source(pairs[cut:])}
    return Dataset("modular", p, tuple(map(str, range(p))), _ready(splits), flip=False)


def _ready(splits):
    return {name: (lambda source=source: source) for name, source in splits.items()}
