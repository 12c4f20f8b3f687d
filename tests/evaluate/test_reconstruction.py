"""Reconstructions: a network that is right gives the picture back, and what is drawn is what was hidden."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infojax.evaluate import Sample, reconstructions
from infojax.objectives import Model, Net
from infojax.objectives.selfsup import patchify
from infojax.report.runs.curves import Method
from infojax.report.runs.reconstructions import GREY, draw_reconstructions, pictured, unpacked
from infojax.report.runs.rows import history_of

MEAN, STD = (120.0, 100.0, 90.0), (60.0, 50.0, 40.0)
X = np.random.default_rng(0).integers(0, 256, (3, 8, 4, 3)).astype(np.uint8)  # 4 x 2 patches


class Output(NamedTuple):
    prediction: jax.Array
    mask: jax.Array


def plain(key, x):
    return (x - jnp.array(MEAN).reshape(1, 1, 1, 3)) / jnp.array(STD).reshape(1, 1, 1, 3)


def row_of(ddof):
    """A network that predicts the normalised patches exactly, plus `params`; half of the patches are hidden."""

    def apply(params, model_state, images, noise, train):
        target = patchify(images, 2)
        if ddof is not None:
            mean, var = jnp.mean(target, -1, keepdims=True), jnp.var(target, -1, keepdims=True, ddof=ddof)
            target = (target - mean) / jnp.sqrt(var + 1e-6)
        return Output(target + params, (jnp.argsort(jnp.argsort(noise, 1), 1) >= 4).astype(jnp.float32)), {}

    net = Net(None, apply)
    run = reconstructions(net, plain, Sample("test", jnp.asarray(X), jnp.zeros(3, int)), 2, ddof, (MEAN, STD))
    return lambda offset: dict(run({"raw": Model({"net": jnp.float32(offset)}, {"net": {}}, net)}))


@pytest.mark.parametrize("ddof", [None, 0, 1])
def test_a_network_that_is_right_gives_the_pictures_back(ddof):
    found = row_of(ddof)(0.0)
    pictures, predictions, hidden = unpacked(found)
    np.testing.assert_array_equal(pictures, X)
    np.testing.assert_array_equal(predictions, X)
    tiles = np.asarray(patchify(hidden, 2))
    assert (tiles == tiles[..., :1]).all() and (tiles[..., 0].sum(1) == 4).all()
    assert found["split"] == "test" and found["picture_samples"] == 3


def test_what_is_drawn(tmp_path):
    """Grey where it was hidden; pasted: the prediction there, the picture elsewhere; the error in levels of 255."""
    row = {"kind": "eval", "step": 7, "run": 0, "seed": 5} | row_of(None)(0.2)
    history = history_of([row], {"task": "selfsup"})
    figure, rows = draw_reconstructions([Method(history, [0], "mae")], "title")
    pictures, predictions, hidden = unpacked(row)
    expected = np.clip(np.rint(X + 0.2 * np.array(STD)), 0, 255)
    np.testing.assert_array_equal(predictions, expected)
    for i, parts in enumerate(pictured(row)):
        where = np.broadcast_to(hidden[i] > 0, X[i].shape)
        assert (parts["visible"][where] == GREY).all() and (parts["visible"][~where] == X[i][~where]).all()
        np.testing.assert_array_equal(parts["pasted"], np.where(where, expected[i], X[i]))
        error = np.sqrt(np.mean((X[i].astype(float) - expected[i])[where] ** 2))
        assert rows[i] == pytest.approx({"run": 0, "step": 7, "picture": i, "hidden": 0.5, "rmse_hidden": error})
    images = [axis.images[0].get_array() for axis in figure.axes if axis.images]
    np.testing.assert_array_equal(images[0], X[0])
    assert len(images) == 12 and figure.axes[0].get_title(loc="left") == "mae, seed 5, step 7, test"


@pytest.mark.parametrize("change", [{"pictures_shape": [3, 8, 4, 6]}, {"pictures": "???"}, {"pictures": 3}])
def test_damaged_pictures_are_left_out(change, tmp_path):
    import json

    from infojax.report.runs.reading import read_rows

    row = {"kind": "eval", "step": 7} | row_of(None)(0.0)
    (tmp_path / "rows").write_text(json.dumps(row) + "\n" + json.dumps(row | change) + "\n")
    rows, (note,) = read_rows(Path(tmp_path / "rows"))
    assert len(rows) == 1 and "1 of 2 lines are damaged and were skipped: pictures must be the bytes" in note
