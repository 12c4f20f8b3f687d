"""Checkpoints: exact, complete or absent, kept as requested, refused where they do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from infojax.objectives import State
from infojax.train.checkpoint import CheckpointError, Checkpoints


def state(step=0, width=3, dtype=jnp.float32):
    params = {"net": {"kernel": jnp.arange(2 * width, dtype=dtype).reshape(2, width) + step}}
    return State(
        step=jnp.int32(step),
        params=params,
        model_state={"net": {"batch_stats": {"mean": jnp.ones(3) / 3}}},
        opt_state={"main": optax.sgd(0.1, momentum=0.9).init(params)},
        averages={"ema": jax.tree.map(jnp.copy, params)},
        method=(jnp.zeros(4, jnp.int8), {"tau": jnp.float32(0.1)}),
    )


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def written(folder, steps, **options):
    with_metrics = options.pop("metrics", {})
    store = Checkpoints(folder, **options)
    for step in steps:
        store.save(step, state(step), with_metrics.get(step))
    store.close()
    return Checkpoints(folder, **options)


def test_round_trip(tmp_path):
    assert Checkpoints(tmp_path).restore(state()) is None
    step, found = written(tmp_path, [7]).restore(state())
    assert step == 7
    same(found, state(7))


def test_keeps_the_newest_and_the_best(tmp_path):
    metrics = {step: {"accuracy": float(step == 2)} for step in range(1, 7)}
    assert written(tmp_path / "a", range(1, 7), keep=2).steps() == [5, 6]
    assert written(tmp_path / "b", range(1, 7), keep=2, best="accuracy", metrics=metrics).steps() == [2, 5, 6]


def test_every_save_is_made(tmp_path):
    """None is skipped because the previous one is still being written."""
    store = Checkpoints(tmp_path, keep=10)
    for step in range(5):
        store.save(step, state(step))
    store.close()
    assert Checkpoints(tmp_path).steps() == [0, 1, 2, 3, 4]


def test_donated_after_save(tmp_path):
    store, now = Checkpoints(tmp_path), state(1)
    store.save(1, now)
    jax.jit(lambda s: jax.tree.map(lambda x: x * 0, s), donate_argnums=0)(now)
    store.close()
    same(Checkpoints(tmp_path).restore(state())[1], state(1))


DAMAGES = {
    "truncated": lambda path, i: path.write_bytes(path.read_bytes()[:7]),
    "removed": lambda path, i: path.unlink(),
    "zeroed": lambda path, i: path.write_bytes(bytes(path.stat().st_size)),
    "half removed": lambda path, i: path.unlink() if i < 6 else None,  # all but what one process wrote for itself
    "every other removed": lambda path, i: path.unlink() if i % 2 else None,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_is_skipped(tmp_path, damage):
    store = written(tmp_path, [1, 2])
    files = sorted(path for path in (tmp_path / "2" / "default").rglob("*") if path.is_file())
    assert len(files) > 3
    for i, path in enumerate(files):
        DAMAGES[damage](path, i)
    with pytest.warns(UserWarning, match="checkpoint 2 is damaged, skipped") as caught:
        step, found = store.restore(state())
    assert step == 1 and len(str(caught[0].message)) < 200 + len(str(tmp_path))
    same(found, state(1))
    store.save(2, state(2))  # the run gets there again
    store.close()
    assert Checkpoints(tmp_path).restore(state())[0] == 2


def test_a_second_damaged_checkpoint_gets_another_name(tmp_path):
    store = written(tmp_path, [1, 2])
    (tmp_path / "damaged.2" / "default").mkdir(parents=True)
    for path in (tmp_path / "2" / "default").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.warns(UserWarning, match="checkpoint 2 is damaged, skipped"):
        assert store.restore(state())[0] == 1
    assert {path.name for path in tmp_path.iterdir()} >= {"1", "damaged.2", "damaged.2.1"}


def test_an_unfinished_checkpoint_is_ignored(tmp_path):
    store = written(tmp_path, [1])
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    assert Checkpoints(tmp_path).restore(state())[0] == 1 and store.steps() == [1]


def test_a_reader_leaves_everything_in_its_place(tmp_path, monkeypatch):
    """It skips what is damaged, looks again for what the run removes meanwhile, and creates no missing folder."""
    written(tmp_path, [1, 2])
    (tmp_path / "2" / "default" / "_METADATA").write_text("{")
    files = sorted(map(str, tmp_path.rglob("*")))
    with pytest.warns(UserWarning, match="checkpoint 2 is damaged, skipped"):
        assert Checkpoints(tmp_path, read_only=True).restore(state())[0] == 1
    assert sorted(map(str, tmp_path.rglob("*"))) == files
    reader, removed = Checkpoints(tmp_path, read_only=True), tmp_path.parent / "removed"
    look = reader._known

    def known(step):
        if step == 2 and not removed.exists():
            written(tmp_path, [3])
            (tmp_path / "2").rename(removed)
        return look(step)

    monkeypatch.setattr(reader, "_known", known)
    assert reader.restore(state())[0] == 3
    assert Checkpoints(tmp_path / "none", read_only=True).restore(state()) is None
    assert not (tmp_path / "none").exists()


def test_no_checkpoint_can_be_read(tmp_path):
    store = written(tmp_path, [1])
    for path in (tmp_path / "1" / "default").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(CheckpointError, match="no checkpoint can be read"):
        store.restore(state())


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (lambda: state(width=4), r"kernel is float32\[2, 3\] there, float32\[2, 4\] here"),
        (lambda: state(dtype=jnp.bfloat16), r"kernel is float32\[2, 3\] there, bfloat16\[2, 3\] here"),
        (lambda: state()._replace(averages={}), r"averages\.ema\.net\.kernel is float32\[2, 3\] there, absent here"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_and_kept(tmp_path, other, says):
    store = written(tmp_path, [1])
    with pytest.raises(CheckpointError, match=says) as error:
        store.restore(other())
    assert "\n" not in str(error.value) and store.steps() == [1]


def test_restores_onto_other_devices(tmp_path):
    store = written(tmp_path, [3])
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    _, found = store.restore(jax.device_put(state(), everywhere))
    same(found, state(3))
    assert found.params["net"]["kernel"].sharding == everywhere


def test_a_full_disk_is_one_line_and_leaves_the_last_one(tmp_path, monkeypatch):
    store = written(tmp_path, [1])

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store._manager, "save", full)
    with pytest.raises(CheckpointError, match="checkpoint 2 was not written .*No space left") as error:
        store.save(2, state(2))
    assert "\n" not in str(error.value)
    same(Checkpoints(tmp_path).restore(state())[1], state(1))


def test_flipped_bits_are_found(tmp_path, monkeypatch):
    """Wherever bits flip in the data that orbax returns, they are found, and the previous checkpoint is used."""
    store = written(tmp_path, [1, 2])
    restored = store._manager.restore

    def flipped(step, **options):
        found = restored(step, **options)
        kernel = np.array(found.params["net"]["kernel"])
        kernel.view(np.uint8)[0, 1] ^= 1 if step == 2 else 0  # the least bit of a number
        return found._replace(params={"net": {"kernel": jnp.asarray(kernel)}})

    monkeypatch.setattr(store._manager, "restore", flipped)
    with pytest.warns(
        UserWarning, match="checkpoint 2 is damaged, skipped .the checksum of params.net.kernel is wrong"
    ):
        step, found = store.restore(state())
    assert step == 1
    same(found, state(1))


def test_facts_are_those_of_the_step_and_old_checkpoints_say_so(tmp_path, monkeypatch):
    with Checkpoints(tmp_path) as store:
        store.save(3, state(3), None, {"rows": [10, 2**32 - 1]})
        store.wait()
        assert store.facts(3) == {"rows": [10, 2**32 - 1]}
    old = Checkpoints(tmp_path)
    monkeypatch.setattr(old, "_known", lambda step: {})
    with pytest.warns(
        UserWarning, match="checkpoint 3 has no checksums; its data and the rows before it are not verified"
    ):
        assert old.restore(state())[0] == 3


def test_a_folder_that_is_not_a_step(tmp_path):
    written(tmp_path, [1]).close()
    (tmp_path / "12345678901234567890123").mkdir()
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(CheckpointError, match="12345678901234567890123: no step of a run; remove it"):
        Checkpoints(tmp_path).steps()


def test_a_checkpoint_of_another_step_or_with_other_checksums_is_skipped(tmp_path):
    written(tmp_path, [1, 2]).close()
    (tmp_path / "2").rename(tmp_path / "7")
    with pytest.warns(UserWarning, match="checkpoint 7 is damaged, skipped .it is of step 2"):
        assert Checkpoints(tmp_path).restore(state())[0] == 1
    written(tmp_path, [3]).close()
    known = tmp_path / "3" / "_CHECKPOINT_METADATA"
    known.write_text(known.read_text().replace('"facts": {}', '"facts": {"rows": [0, 0]}'))
    with pytest.warns(UserWarning, match="checkpoint 3 is damaged, skipped .its checksums are damaged"):
        assert Checkpoints(tmp_path).restore(state())[0] == 1
    known = tmp_path / "1" / "_CHECKPOINT_METADATA"
    known.write_text(known.read_text()[:-20])  # which orbax takes for one without
    with (
        pytest.warns(UserWarning, match="checkpoint 1 is damaged, skipped .its metadata is damaged"),
        pytest.raises(CheckpointError, match="no checkpoint can be read"),
    ):
        Checkpoints(tmp_path).restore(state())


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), ValueError("RESOURCE_EXHAUSTED: open files"), MemoryError()]
)
def test_a_checkpoint_that_cannot_be_read_now_is_not_put_aside(tmp_path, monkeypatch, error):
    store = written(tmp_path, [1, 2])
    monkeypatch.setattr(store._manager, "restore", lambda step, **_: (_ for _ in ()).throw(error))
    with pytest.raises(MemoryError if isinstance(error, MemoryError) else CheckpointError) as raised:
        store.restore(state())
    assert isinstance(error, MemoryError) or "checkpoint 2 cannot be read" in str(raised.value)
    assert store.steps() == [1, 2] and not list(tmp_path.glob("damaged*"))


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(CheckpointError, match="checkpoints is no folder"):
        Checkpoints(tmp_path / "checkpoints")
