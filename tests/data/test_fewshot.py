"""Few-shot draws against CoOp's published lists; halves of the classes.

tests/golden/few_shot.json has, of seven sets, the labels of CoOp's train and val lists (split_zhou_*.json) as runs
[label, count], and the SHA-256 of the fifteen published few-shot lists (1, 2, 4, 8, 16 shots, seeds 1, 2, 3 within
each; train, then val; from github.com/linzhiqiu/cross_modal_adaptation) as positions in those, a line per list.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from infojax.data.fewshot import few_shot, halves, of_classes

PUBLISHED = json.loads((Path(__file__).parents[1] / "golden" / "few_shot.json").read_text())


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_lists(name):
    train, val = (np.repeat(*np.transpose(PUBLISHED[name][part])) for part in ("train", "val"))
    digest = hashlib.sha256()
    for shots in (1, 2, 4, 8, 16):
        for seed in (1, 2, 3):
            for part in few_shot(train, shots, seed, val):
                digest.update((" ".join(map(str, part)) + "\n").encode())
    assert digest.hexdigest() == PUBLISHED[name]["sha256"]


def test_classes_with_few_samples_give_all():
    (found,) = few_shot(np.array([3, 1, 3, 1, 1, 0]), 2, 1)
    labels = np.array([3, 1, 3, 1, 1, 0])[found]
    assert labels.tolist() == [3, 3, 1, 1, 0]  # in the order of their first samples
    assert len(set(found)) == 5


def test_halves():
    base, new = halves(5)
    assert base.tolist() == [0, 1, 2] and new.tolist() == [3, 4]
    chosen, labels = of_classes(np.array([4, 0, 3, 3, 2]), new)
    assert chosen.tolist() == [0, 2, 3] and labels.tolist() == [1, 0, 0]
