"""config.data.stream: studies whose samples are read step by step draw what they draw from the devices."""

import signal
from contextlib import closing

import jax
import numpy as np
import pytest
from PIL import Image

from infojax.data import open_dataset, use_workers, workers
from infojax.data.images import decode
from infojax.data.source import DataError
from infojax.evaluate import fixed_sample
from infojax.objectives import Seeds
from infojax.tasks import load
from infojax.tasks.build import data as build
from infojax.tasks.build import mesh_of
from infojax.tasks.config import ConfigError
from infojax.tasks.flags import parse
from infojax.train.draw import draw
from infojax.train.feed import Feed

CONFIGS = {  # name -> config, further flags
    "supervised": ("interplay.py:tiny,model=mlp", "--config.objective.batch_size=8"),
    "semisup": ("semisup.py:tiny,model=mlp,method=fixmatch,labels=8",),
    "selfsup": ("selfsup.py:tiny,model=mlp,method=simclr", "--config.objective.batch_size=8"),
    "crossmodal": ("crossmodal.py:tiny,shots=4", "--config.objective.transform=weak", "--config.towers.patch=8"),
    "crossmodal, two seeds": (
        "crossmodal.py:tiny,shots=4,seeds=2",
        "--config.objective.transform=weak",
        "--config.towers.patch=8",
    ),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """JPEGs of several sizes in folders of two classes, 24 to train and 8 to test."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(32):
        path = root / ("test" if i % 4 == 3 else "train") / ("cat", "dog")[i // 4 % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = rng.integers(40, 200, 2)
        row = rng.integers(0, 256, (1, width, 3), np.uint8)
        Image.fromarray(np.repeat(row, height, 0)).save(path)
    return root


def study_of(task, pictures, *flags):
    config, *more = CONFIGS[task]
    argv = [f"--config=configs/{config},data=folder", f"--config.data.dir={pictures}", "--config.data.options.size=16"]
    config = parse(["infojax.main", *argv, *more, *flags])[0]
    return load(config.task).study(config), config


@pytest.mark.parametrize("task", CONFIGS)
def test_a_streamed_study_draws_the_same_batches(task, pictures):
    held, _ = study_of(task, pictures, "--config.data.stream=never")
    read, _ = study_of(task, pictures, "--config.data.stream=always", "--config.data.workers=0")
    assert not held.streams and read.streams and held.data.keys() == read.data.keys() | read.streams.keys()
    assert any("read step by step" in note for note in read.notes)
    views, parts = held.objective.views, held.constants.get("parts", {})
    assert bool(parts) == ("two seeds" in task)
    seeds = Seeds(0, 1, 2, part=1 if parts else 0)
    with closing(Feed(read.streams, read.objective.views, seeds, 2, parts=read.constants.get("parts", {}))) as feed:
        for step in range(2):
            expected = draw(held.data, views, held.transforms, seeds, step, parts=parts)
            found = draw(read.data, read.objective.views, read.transforms, seeds, step, feed(step), parts)
            jax.tree.map(np.testing.assert_array_equal, found, expected)
    for split in held.splits:
        whole = fixed_sample(split, held.splits[split])
        unread = fixed_sample(split, read.splits[split], read=False)
        np.testing.assert_array_equal(unread.x[2:7], whole.x[2:7])
        np.testing.assert_array_equal(unread.labels, whole.labels)


def test_auto_streams_what_is_more_than_the_memory_for_data(pictures, monkeypatch):
    size = 24 * 16 * 16 * 3
    for room, streamed in ((size, False), (size - 1, True)):
        monkeypatch.setattr(build, "memory", lambda room=room: room)
        assert bool(study_of("selfsup", pictures, "--config.data.workers=0")[0].streams) == streamed


def test_a_step_that_takes_a_whole_source_cannot_be_streamed(pictures):
    study, _ = study_of("supervised", pictures, "--config.data.stream=always", "--config.data.workers=0")
    objective = type("Whole", (), {"views": [study.objective.views[0]._replace(size="all")]})
    with pytest.raises(ConfigError, match="a step takes all of train, which must be on the devices; give never"):
        mesh_of(study._replace(objective=objective))


@pytest.fixture
def two_workers():
    use_workers(2)
    yield workers._workers
    use_workers(0)


def test_worker_processes_decode_the_same_pixels_and_end_with_their_input(pictures, two_workers, tmp_path):
    train = open_dataset("folder", pictures, size=16).split("train")
    asked = np.arange(24)[::-1]
    found = train.read(asked)
    processes = [two_workers._idle.get() for _ in range(2)]
    assert sum(process is not None for process in processes) == 2  # 24 pictures are two chunks
    for process in processes:
        process.send_signal(signal.SIGTERM)  # as to a whole group; the one that started them ends them
        two_workers._idle.put(process)
    again = train.read(asked)
    use_workers(0)
    assert all(process.poll() is not None for process in processes)
    expected = train.read(asked)
    for pixels, labels in (found, again):
        np.testing.assert_array_equal(pixels, expected[0])
        np.testing.assert_array_equal(labels, expected[1])


def test_a_worker_that_fails_or_is_killed_is_one_line(pictures, two_workers, tmp_path):
    files = [str(path) for path in sorted(pictures.rglob("*.jpg"))]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.jpg: not a readable picture"):
        workers.decode_all(decode, [*files, str(broken)], [*files, str(broken)])
    process = two_workers._idle.get()
    process.kill()
    process.wait()
    two_workers._idle.put(process)
    with pytest.raises(DataError, match="a worker that decodes pictures ended with code -9; where memory is short"):
        for _ in range(2):  # either worker may be the next
            workers.decode_all(decode, files, files)
    assert len(workers.decode_all(decode, files, files)) == 32  # it was replaced


def test_large_jpegs_are_decoded_at_a_part_of_their_size(tmp_path):
    """Within the rounding that resizing from a half has; small ones, and other formats, as before."""
    rng = np.random.default_rng(0)
    smooth = np.asarray(Image.fromarray(rng.integers(0, 256, (10, 15, 3), np.uint8)).resize((480, 320)))
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    Image.open(tmp_path / "a.jpg").save(tmp_path / "a.png")  # the pixels of the whole
    for size, drafted in ((40, True), (80, True), (81, False), (160, False)):
        part, whole = decode(tmp_path / "a.jpg", size=size), decode(tmp_path / "a.png", size=size)
        assert (np.any(part != whole)) == drafted
        assert np.abs(part.astype(int) - whole).mean() < 1.0
