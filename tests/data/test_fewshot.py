"""Few-shot draws against CoOp's published lists; halves of the classes; random resized crops against Pillow.

tests/golden/few_shot.json has, of seven sets, the labels of CoOp's train and val lists (split_zhou_*.json) as runs
[label, count], and the SHA-256 of the fifteen published few-shot lists (1, 2, 4, 8, 16 shots, seeds 1, 2, 3 within
each; train, then val; from github.com/linzhiqiu/cross_modal_adaptation) as positions in those, a line per list.
"""

import hashlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from infojax.data.crops import random_resized_crop, resized_crops
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


# Not up to black and white: Pillow clips between its two passes.
IMAGES = np.random.default_rng(0).integers(90, 166, (3, 20, 24, 3)).astype(np.uint8)
CORNERS = np.array([[0.0, 0.0], [3.25, 5.5], [8.0, 1.0]])
SIDES = np.array([[20.0, 24.0], [9.5, 12.0], [12.0, 6.75]])


def test_crops_are_pillows():
    found = np.asarray(jax.jit(resized_crops)(*map(jnp.asarray, (IMAGES, CORNERS, SIDES))))
    np.testing.assert_array_equal(found[0], IMAGES[0])  # the whole
    for i in (1, 2):
        (top, left), (height, width) = CORNERS[i], SIDES[i]
        box = (left, top, left + width, top + height)
        theirs = np.asarray(Image.fromarray(IMAGES[i]).resize((24, 20), Image.Resampling.BICUBIC, box=box))
        difference = np.abs(found[i].astype(int) - theirs)
        assert difference.max() <= 1


def test_random_crops_are_parts_of_the_image():
    ramp = np.broadcast_to(np.linspace(40, 200, 32)[None, None, :, None], (64, 32, 32, 1)).astype(np.uint8)
    crop = jax.jit(random_resized_crop, static_argnames="flip")
    found = np.asarray(crop(jax.random.key(0), jnp.asarray(ramp), flip=True), float)
    assert found.min() >= 35 and found.max() <= 205
    slope = found[:, :, -1, 0].mean(1) - found[:, :, 0, 0].mean(1)
    assert 16 < np.sum(slope < 0) < 48  # mirrored
    assert np.abs(slope).min() < 80 < np.abs(slope).max()  # narrow and wide parts
    assert np.all(np.asarray(crop(jax.random.key(0), jnp.asarray(ramp), flip=False), float)[:, 0, -1] > 40)
