"""ArrayRecord sets: prepared from official files without TensorFlow, read back in the official order."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from formats import cifar_members, refused, tar, write_fashion

from infojax.data import DataError, in_memory, open_dataset, prepare
from infojax.data.official import CHECKSUMS, FASHION_FILES


@pytest.fixture(autouse=True)
def own_checksums(monkeypatch):
    """The test's files are not the published ones; what is checked is that a wrong checksum is reported."""
    monkeypatch.setattr(prepare, "CHECKSUMS", {})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    expected = write_fashion(root / "source")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "CHECKSUMS", {})
        assert prepare.main(["fashion_mnist", "--source", str(root / "source"), "--out", str(root)]) == 0
    return root, expected


def test_fashion_mnist(prepared):
    root, expected = prepared
    dataset = open_dataset("tfds:fashion_mnist", root)
    assert dataset.num_classes == 10 and dataset.class_names[9] == "Ankle boot" and dataset.mean is not None
    for split, (images, labels) in expected.items():
        source = dataset.split(split)
        assert len(source) == len(images) and source.shape == (28, 28, 1)
        x, y = source.read(np.array([5, 0, 5]))
        np.testing.assert_array_equal(x, images[[5, 0, 5]])
        np.testing.assert_array_equal(y, labels[[5, 0, 5]])
        np.testing.assert_array_equal(in_memory(source, block=7).x, images)
        np.testing.assert_array_equal(source.labels, labels)
        assert source.labels.dtype == np.int32


def test_parts_of_splits(prepared):
    root, expected = prepared
    dataset = open_dataset("tfds:fashion_mnist", root, train_split="train[:40%]", test_split="train[40%:]")
    np.testing.assert_array_equal(in_memory(dataset.split("train")).x, expected["train"][0][:12])
    np.testing.assert_array_equal(in_memory(dataset.split("test")).x, expected["train"][0][12:])
    assert "tfds:fashion_mnist: split train[40%:] serves as test" in dataset.notes
    assert "tfds:fashion_mnist: not used: split test" in dataset.notes
    for part in ("train[:x]", "trian[:40%]"):
        with refused("tfds:fashion_mnist", part):
            open_dataset("tfds:fashion_mnist", root, train_split=part).split("train")
    with refused("train_split is 'trian'; did you mean train?"):
        open_dataset("tfds:fashion_mnist", root, train_split="trian")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_damaged_metadata(prepared, tmp_path, content):
    shutil.copytree(prepared[0] / "fashion_mnist", tmp_path / "fashion_mnist")
    for name in ("features.json", "dataset_info.json"):
        (tmp_path / "fashion_mnist" / "3.0.1" / name).write_text(content)
        with refused(tmp_path / "fashion_mnist" / "3.0.1"):
            open_dataset("tfds:fashion_mnist", tmp_path)


def test_tfds_itself_reads_the_same(prepared):
    import tensorflow_datasets as tfds

    root, expected = prepared
    builder = tfds.builder("fashion_mnist", data_dir=root)
    assert builder.is_prepared() and builder.info.splits["train"].num_examples == 30
    rows = list(builder.as_data_source("test"))
    np.testing.assert_array_equal([row["image"] for row in rows], expected["test"][0])


def test_a_second_run_changes_nothing(prepared, capsys):
    root, _ = prepared
    files = {path: path.stat().st_mtime_ns for path in (root / "fashion_mnist").rglob("*")}
    assert prepare.main(["fashion_mnist", "--source", "/nowhere", "--out", str(root)]) == 0
    assert files == {path: path.stat().st_mtime_ns for path in (root / "fashion_mnist").rglob("*")}
    assert str(root / "fashion_mnist" / "3.0.1") in capsys.readouterr().out


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar(tmp_path, name, classes):
    members, expected = cifar_members(name, "binary", classes, n=100)
    tar(tmp_path / f"cifar-{classes}-binary.tar.gz", members, "folder")
    assert prepare.main([name, "--source", str(tmp_path), "--out", str(tmp_path)]) == 0
    dataset = open_dataset(f"tfds:{name}", tmp_path)
    for split, (images, labels) in expected.items():
        found = in_memory(dataset.split(split))
        np.testing.assert_array_equal(found.x, images)
        np.testing.assert_array_equal(found.labels, labels)
    coarse = open_dataset(f"tfds:{name}", tmp_path, label_key="coarse_label") if classes == 100 else None
    if coarse:
        assert coarse.num_classes == 20
        np.testing.assert_array_equal(coarse.split("test").labels, expected["test"][1] // 5)


def test_wrong_checksum(tmp_path, monkeypatch, capsys):
    write_fashion(tmp_path)
    monkeypatch.setattr(prepare, "CHECKSUMS", CHECKSUMS)
    assert prepare.main(["fashion_mnist", "--source", str(tmp_path), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert (
        error.startswith("error: ")
        and "sha256 is" in error
        and f"published is {CHECKSUMS[FASHION_FILES[0]][1]}" in error
    )
    assert not (tmp_path / "fashion_mnist").exists()


def test_missing_files(tmp_path, capsys):
    assert prepare.main(["cifar10", "--source", str(tmp_path), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "found no cifar-10-binary.tar.gz" in error and "curl" in error


def test_interrupted_runs_leave_nothing_and_start_again(tmp_path):
    """Killed in the middle of writing: no set, no wrong one; the next run cleans up and finishes."""
    write_fashion(tmp_path, n=(40, 20))
    script = (
        "import os, sys, infojax.data.prepare as p\n"
        "from PIL import Image\n"
        "p.CHECKSUMS = {}\n"
        "real, count = Image.fromarray, [0]\n"
        "def dies(x):\n"
        "    count[0] += 1\n"
        "    if count[0] == 25: os.kill(os.getpid(), 9)\n"
        "    return real(x)\n"
        "Image.fromarray = dies\n"
        f"p.main(['fashion_mnist', '--source', {str(tmp_path)!r}, '--out', {str(tmp_path)!r}])\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert killed.returncode == -9
    left = [path.name for path in (tmp_path / "fashion_mnist").iterdir()]
    assert len(left) == 1 and left[0].startswith("incomplete.")
    with refused("tfds:fashion_mnist: no prepared set in"):
        open_dataset("tfds:fashion_mnist", tmp_path)
    prepare.prepare("fashion_mnist", tmp_path, tmp_path)
    assert [path.name for path in (tmp_path / "fashion_mnist").iterdir()] == ["3.0.1"]
    assert len(open_dataset("tfds:fashion_mnist", tmp_path).split("train")) == 40


def test_absent_set(tmp_path):
    with refused("tfds:cifar10: no prepared set in", "infojax.data.prepare cifar10", "tfds build cifar10"):
        open_dataset("tfds:cifar10", tmp_path)
    with pytest.raises(DataError) as error:
        open_dataset("tfds:nothing", tmp_path)
    assert "tfds build nothing" in str(error.value) and "prepare nothing" not in str(error.value)


def test_only_what_is_read_is_checked(tmp_path, monkeypatch, capsys):
    """A damaged archive of another set does not matter; unpacked files have no published sum, and a note says so."""
    members, _ = cifar_members("cifar10", "binary")
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for member, content in members.items():
        (folder / member).write_bytes(content)
    (tmp_path / "stl10_binary.tar.gz").write_bytes(b"damaged")
    monkeypatch.setattr(prepare, "CHECKSUMS", CHECKSUMS)
    assert prepare.main(["cifar10", "--source", str(tmp_path), "--out", str(tmp_path)]) == 0
    assert f"{folder} is unpacked or unknown: there is no published checksum" in capsys.readouterr().err


def test_other_file_format_and_features(prepared, tmp_path):
    root, _ = prepared
    with refused("feature 'picture' is not a Image", "set image_key"):
        open_dataset("tfds:fashion_mnist", root, image_key="picture")
    shutil.copytree(root / "fashion_mnist", tmp_path / "fashion_mnist")
    info = tmp_path / "fashion_mnist" / "3.0.1" / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    with refused("is stored as tfrecord", "tfds convert_format"):
        open_dataset("tfds:fashion_mnist", tmp_path)


def test_labels_out_of_range_are_told_when_read(prepared):
    root, _ = prepared
    source = open_dataset("tfds:fashion_mnist", root).split("train")
    source._num_classes = 5  # as if a record held a class that its set does not have
    with refused("tfds:fashion_mnist, split train: label 7", "outside 0 to 4"):
        source.read([1, 7])


def test_truncated_records(prepared, tmp_path):
    root, _ = prepared
    shutil.copytree(root / "fashion_mnist", tmp_path / "fashion_mnist")
    (shard,) = (tmp_path / "fashion_mnist" / "3.0.1").glob("*train*")
    shard.write_bytes(shard.read_bytes()[:1000])
    with refused("prepare the set anew"):
        open_dataset("tfds:fashion_mnist", tmp_path).split("train").read([29])
