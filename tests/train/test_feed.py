"""Batches that the host reads are those that a step draws from the devices, to the bit."""

from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from infojax.data import Arrays, Chosen, Joined
from infojax.data.source import DataError
from infojax.objectives import Seeds, View
from infojax.parallel import make_mesh, replicated
from infojax.train import feed as feeding
from infojax.train.draw import draw
from infojax.train.feed import Feed
from infojax.train.step import pick, stack

N = 50
X = np.random.default_rng(0).integers(0, 256, (N, 4, 4, 3), np.uint8)
SOURCE = Arrays(X, np.arange(N) % 7)
PLAIN = {"plain": lambda key, x: x}
ON_DEVICE = {"pictures": {"x": jnp.asarray(X), "labels": jnp.asarray(SOURCE.labels)}}
# The second view is of a source on the devices, so the number of the others in the draw must be kept.
VIEWS = (
    View("pictures", size=16),
    View("few", size=8),
    View("pictures", size=24, name="again", replacement=True),
)
DATA = ON_DEVICE | {"few": {"x": jnp.arange(9.0), "labels": jnp.arange(9)}}
SEEDS = Seeds(1, 2, 3)


def drawn(seeds, step):
    return draw(DATA, VIEWS, PLAIN, seeds, step)


def same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_rows_of_steps_are_those_that_would_be_drawn(monkeypatch):
    """From the middle of an epoch, across its end and that of a block of drawn steps, one step or three at a time."""
    monkeypatch.setattr(feeding, "BLOCK", 4)
    rest = {"few": DATA["few"]}
    with closing(Feed({"pictures": SOURCE}, VIEWS, SEEDS, 12, steps=3)) as feed:
        for step in (2, 3, 4):
            fed = feed(step)
            assert int(fed.step) == step
            same(draw(rest, VIEWS, PLAIN, SEEDS, step, fed), drawn(SEEDS, step))
        for first in (5, 8):
            fed = feed(first, 3)
            for i in range(3):
                same(draw(rest, VIEWS, PLAIN, SEEDS, first + i, pick(fed, i)), drawn(SEEDS, first + i))
        with pytest.raises(ValueError, match="step 4 was asked for, 11 is next"):
            feed(4)


def test_runs_of_a_group_have_their_own_rows_and_equal_ones_are_read_once():
    class Counting(Arrays):
        read_rows = 0

        def read(self, indices):
            Counting.read_rows += len(indices)
            return super().read(indices)

    seeds = [Seeds(0, 5, 0), Seeds(1, 5, 1), Seeds(2, 6, 2, trunk=5, fork=2)]
    with closing(Feed({"pictures": Counting(X, SOURCE.labels)}, VIEWS[:1], stack(seeds), 4, steps=2)) as feed:
        for first in (0, 2):
            fed = feed(first, 2)
            for run, own in enumerate(seeds):
                for i in range(2):
                    found = draw({}, VIEWS[:1], PLAIN, own, first + i, pick(pick(fed, i), run))
                    same(found["pictures"], drawn(own.at(first + i), first + i)["pictures"])
    assert 4 * 16 < Counting.read_rows <= (2 * 1 + 2 * 2) * 16  # before the fork all three are one


def test_rows_over_a_mesh_lie_where_transforms_leave_them():
    mesh = make_mesh(8)
    with closing(Feed({"pictures": SOURCE}, VIEWS[:1], replicated(stack([SEEDS] * 2), mesh), 4, mesh, 2)) as feed:
        fed, like = feed(0, 2), feed.like(2)
        x = fed.rows["pictures"]["x"]
        assert x.shape == (2, 2, 16, 4, 4, 3) and x.sharding.spec == PartitionSpec(None, None, "data")
        same(x[1, 1], drawn(SEEDS, 1)["pictures"].views["plain"])
        for a, b in zip(jax.tree.leaves(fed), jax.tree.leaves(like), strict=True):
            assert (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding)


def test_an_error_of_reading_comes_at_its_step():
    class Broken(Arrays):
        def read(self, indices):
            if 30 in indices:
                raise DataError("sample 30 is broken")
            return super().read(indices)

    first = next(k for k in range(9) if 30 in drawn(SEEDS, k)["pictures"].index)
    with closing(Feed({"pictures": Broken(X, SOURCE.labels)}, VIEWS[:1], SEEDS, 9)) as feed:
        for step in range(first):
            feed(step)
        with pytest.raises(DataError, match="sample 30 is broken"):
            feed(first)


def test_parts_of_sources_read_what_they_say():
    part = Chosen(SOURCE, np.array([7, 3, 40]))
    both, asked = Joined(part, SOURCE), np.array([3, 2, 0, 52, 1])
    x, labels = both.read(asked)
    np.testing.assert_array_equal(x, X[[0, 40, 7, 49, 3]])
    np.testing.assert_array_equal(labels, SOURCE.labels[[0, 40, 7, 49, 3]])
    np.testing.assert_array_equal(both.labels[asked], labels)
    assert len(both) == 53
    renamed = Chosen(SOURCE, np.array([7, 3]), np.array([1, 0], np.int32))
    assert renamed.labels.tolist() == renamed.read(np.arange(2))[1].tolist() == [1, 0]
    with pytest.raises(DataError, match="cannot be trained on together"):
        Joined(SOURCE, Arrays(X[:, :3], SOURCE.labels))
