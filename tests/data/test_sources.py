"""Every source, written here in its published format and read back; and what a broken one says."""

import gzip
import io
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from formats import cifar_members, idx, refused, tar, write_fashion
from PIL import Image

from infojax.data import (
    DATASETS,
    DataError,
    channel_moments,
    constant_channels,
    in_memory,
    labelled,
    open_dataset,
    options_of,
    order,
    stream,
)
from infojax.data.official import FASHION_FILES
from infojax.data.options import RANGES, check_options
from infojax.data.source import Arrays, check_labels
from infojax.data.splits import CIFAR10_ONE_A_CLASS, balanced

SHARED = Path(__file__).parents[3] / "shared" / "data"
rng = np.random.default_rng(0)


def same(dataset, expected):
    for split, (images, labels) in expected.items():
        source = dataset.split(split)
        assert len(source) == len(images) and source.shape == images.shape[1:]
        everything = in_memory(source)
        np.testing.assert_array_equal(everything.x, images)
        np.testing.assert_array_equal(source.labels, labels)
        picked = np.array([3, 0, 3])
        x, y = source.read(picked)
        assert x.dtype == np.uint8 and y.dtype == np.int32
        np.testing.assert_array_equal(x, images[picked])
        np.testing.assert_array_equal(y, np.asarray(labels)[picked])


# Round trips


@pytest.mark.parametrize("place", ["", "fashion_mnist", "FashionMNIST/raw"])
def test_fashion_mnist(tmp_path, place):
    expected = write_fashion(tmp_path / place)
    dataset = open_dataset("fashion_mnist", tmp_path)
    same(dataset, expected)
    assert dataset.num_classes == 10 and dataset.class_names[9] == "Ankle boot"


def test_fashion_mnist_unpacked(tmp_path):
    expected = write_fashion(tmp_path)
    for name in FASHION_FILES:
        (tmp_path / name.removesuffix(".gz")).write_bytes(gzip.decompress((tmp_path / name).read_bytes()))
        (tmp_path / name).unlink()
    same(open_dataset("fashion_mnist", tmp_path), expected)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", ["binary", "python"])
@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar(tmp_path, name, classes, kind, packed):
    members, expected = cifar_members(name, kind, classes, n=20 if classes == 10 else 100)
    folder = {"cifar10": f"cifar-10-batches-{kind[:3] if kind == 'binary' else 'py'}"}.get(name, f"cifar-100-{kind}")
    if packed:
        tar(tmp_path / f"cifar-{classes}-{kind}.tar.gz", members, folder)
    else:
        (tmp_path / name / folder).mkdir(parents=True)
        for member, content in members.items():
            (tmp_path / name / folder / member).write_bytes(content)
    dataset = open_dataset(name, tmp_path)
    same(dataset, expected)
    assert dataset.num_classes == classes and dataset.mean[0] > 100


@pytest.mark.parametrize("packed", [True, False])
def test_stl10(tmp_path, packed):
    images = {"train": 10, "test": 10, "unlabeled": 4}
    images = {split: rng.integers(0, 256, (n, 96, 96, 3), dtype=np.uint8) for split, n in images.items()}
    members = {f"{split}_X.bin": x.transpose(0, 3, 2, 1).tobytes() for split, x in images.items()}
    labels = {split: np.arange(10)[::-1].astype(np.uint8) for split in ("train", "test")}
    members |= {f"{split}_y.bin": (y + 1).tobytes() for split, y in labels.items()}
    members["fold_indices.txt"] = b"0 2 4\n1 3 5\n"
    if packed:
        tar(tmp_path / "stl10_binary.tar.gz", members, "stl10_binary")
    else:
        (tmp_path / "stl10_binary").mkdir()
        for member, content in members.items():
            (tmp_path / "stl10_binary" / member).write_bytes(content)
    dataset = open_dataset("stl10", tmp_path)
    same(dataset, {split: (images[split], y) for split, y in labels.items()})
    same(dataset, {"unlabelled": (images["unlabeled"], np.full(4, -1))})
    np.testing.assert_array_equal(labelled(dataset, 3, 1, protocol="fold"), [1, 3, 5])
    with refused("no fold 2 of 3 labels", "2 of 3 labels"):
        labelled(dataset, 3, 2, protocol="fold")


def jpeg(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG")
    return buffer.getvalue(), np.asarray(Image.open(buffer))


def test_cifar10_jpeg(tmp_path):
    arrays, expected = {}, {}
    for split, n in (("train", 12), ("test", 5)):
        pairs = [jpeg(image) for image in rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)]
        arrays[f"{split}_jpeg"] = np.frombuffer(b"".join(content for content, _ in pairs), np.uint8)
        arrays[f"{split}_offsets"] = np.cumsum([0, *(len(content) for content, _ in pairs)])
        arrays[f"{split}_labels"] = np.arange(n) % 10
        expected[split] = np.stack([image for _, image in pairs]), np.arange(n) % 10
    np.savez(tmp_path / "cifar10_jpeg_q75.npz", **arrays)
    same(open_dataset("cifar10_jpeg", tmp_path), expected)
    arrays["test_jpeg"] = np.zeros_like(arrays["test_jpeg"])
    np.savez(tmp_path / "cifar10_jpeg_q75.npz", **arrays)
    with refused("cifar10_jpeg_q75.npz: image 0: not a readable picture"):
        open_dataset("cifar10_jpeg", tmp_path).split("test")


def write_pictures(root):
    """Two classes of three PNGs per split, of different sizes."""
    for split in ("train", "test"):
        for c, name in enumerate(("ant", "bee")):
            for i in range(3):
                path = root / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((20 + 4 * i, 30, 3), 100 * c + 10 * i, np.uint8)).save(path)
    return root


def test_folder_by_class(tmp_path):
    dataset = open_dataset("folder", write_pictures(tmp_path), size=16)
    assert dataset.class_names == ("ant", "bee") and set(dataset.splits) == {"train", "test"}
    levels = np.array([0, 10, 20, 100, 110, 120], np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (6, 16, 16, 3))
    same(dataset, {"train": (images, [0, 0, 0, 1, 1, 1])})


def test_folder_with_a_split_file(tmp_path):
    write_pictures(tmp_path)
    rows = {
        "train": [["train/bee/0.png", 1, "a bee"], ["train/ant/1.png", 0, "an ant"]],
        "val": [["test/ant/0.png", 0]],
    }
    (tmp_path / "split.json").write_text(json.dumps(rows))
    dataset = open_dataset("folder", tmp_path, split_file="split.json", size=8)
    assert dataset.class_names == ("an ant", "a bee") and set(dataset.splits) == {"train", "val"}
    x, y = dataset.split("train").read(np.arange(2))
    np.testing.assert_array_equal(y, [1, 0])
    np.testing.assert_array_equal(x[:, 0, 0, 0], [100, 10])


def test_resizing_keeps_the_middle(tmp_path):
    """The shorter side becomes the size; of the longer one the middle stays."""
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 255
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.fromarray(wide).save(tmp_path / "train" / "a" / "wide.png")
    x, _ = open_dataset("folder", tmp_path, size=8).split("train").read([0])
    assert np.all(x == 255)


def test_hidden_files_are_no_data(tmp_path):
    """What operating systems and tools leave in folders."""
    write_pictures(tmp_path)
    for hidden in (
        tmp_path / "train" / ".cache" / "x.png",
        tmp_path / "train" / "ant" / "._0.png",
        tmp_path / ".git" / "a" / "b.png",
    ):
        hidden.parent.mkdir(parents=True, exist_ok=True)
        hidden.write_bytes(b"not a picture")
    dataset = open_dataset("folder", tmp_path, size=8)
    assert dataset.class_names == ("ant", "bee") and set(dataset.splits) == {"train", "test"}
    assert len(in_memory(dataset.split("train"))) == 6


@pytest.mark.parametrize("channels", [1, 3])
def test_kinds_of_pictures(tmp_path, channels):
    """Grey, 16 bits, palette, alpha and CMYK files all become the same grey ramp."""
    ramp = np.linspace(0, 255, 8).round().astype(np.uint8)[None].repeat(8, 0)
    grey = Image.fromarray(ramp)
    kinds = {
        "grey.png": grey, "deep.png": Image.fromarray(ramp.astype(np.uint16) * 257), "rgb.png": grey.convert("RGB"),
        "palette.png": grey.convert("P"), "alpha.png": grey.convert("RGBA"),
        "cmyk.tif": grey.convert("RGB").convert("CMYK"),
    }  # fmt: skip
    for name, image in kinds.items():
        path = tmp_path / "train" / name.split(".")[0] / name
        path.parent.mkdir(parents=True)
        image.save(path)
    x, _ = open_dataset("folder", tmp_path, size=8, channels=channels).split("train").read(np.arange(len(kinds)))
    np.testing.assert_array_equal(x, np.broadcast_to(ramp[None, :, :, None], (len(kinds), 8, 8, channels)))


def test_digits():
    dataset = open_dataset()
    train, test = dataset.split("train"), dataset.split("test")
    assert (len(train), len(test)) == (1442, 355) and train.shape == (8, 8, 1) and train.x.max() == 255
    assert np.bincount(test.labels).min() >= 34
    from sklearn.datasets import load_digits

    pictures = {row.tobytes() for row in load_digits().data}
    ours = np.concatenate([train.x, test.x]).reshape(-1, 64) * (16 / 255)
    assert {np.rint(row).astype(float).tobytes() for row in ours} == pictures


def test_synthetic_has_classes_that_can_be_told_apart():
    from sklearn.neighbors import KNeighborsClassifier

    def score(noise):
        dataset = open_dataset(
            "synthetic", num_classes=4, size=12, channels=1, num_train=600, num_test=200, noise=noise
        )
        train, test = dataset.split("train"), dataset.split("test")
        knn = KNeighborsClassifier(1).fit(train.x.reshape(600, -1), train.labels)
        return knn.score(test.x.reshape(200, -1), test.labels)

    assert score(0.05) > 0.95 and score(2.0) < 0.6
    first, again, other = (open_dataset("synthetic", num_train=20, seed=s).split("train").x for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_modular_is_the_split_of_nanda():
    dataset = open_dataset("modular")
    train, test = dataset.split("train"), dataset.split("test")
    assert (len(train), len(test)) == (3830, 8939) and dataset.num_classes == 113
    pairs = [(a, b) for a in range(113) for b in range(113)]
    import random

    random.seed(0)
    random.shuffle(pairs)
    np.testing.assert_array_equal(train.x[:, :2], pairs[:3830])
    np.testing.assert_array_equal(train.labels, train.x[:, :2].sum(1) % 113)
    assert np.all(train.x[:, 2] == 113)


@pytest.mark.parametrize(
    ("operation", "check"),
    [
        ("subtract", lambda a, b, y: (a - b - y) % 11),
        ("multiply", lambda a, b, y: (a * b - y) % 11),
        ("divide", lambda a, b, y: (b * y - a) % 11),
    ],
)
def test_modular_operations(operation, check):
    dataset = open_dataset("modular", p=11, operation=operation, train_fraction=0.5)
    parts = [dataset.split(split) for split in ("train", "test")]
    x, y = np.concatenate([p.x for p in parts]), np.concatenate([p.labels for p in parts])
    assert len(np.unique(x, axis=0)) == len(x) == (110 if operation == "divide" else 121)
    assert np.all(check(x[:, 0], x[:, 1], y) == 0)


# Labels


def test_labelled_split_is_torchssls():
    """The procedure of its sample_labeled_data, written out with the global generator it uses."""
    y = rng.permutation(np.arange(500) % 10)
    np.random.seed(3)  # noqa: NPY002
    expected = np.concatenate([np.random.choice(np.where(y == c)[0], 4, False) for c in range(10)])  # noqa: NPY002
    np.testing.assert_array_equal(balanced(y, 40, 10, seed=3), expected)


def test_ten_labels_of_cifar10():
    class Named:
        name, folds = "cifar10", None

    for seed, first in ((0, 4255), (1, 1156), (2, 12830)):
        assert labelled(Named, 10, seed)[0] == first
    assert len({i for row in CIFAR10_ONE_A_CLASS for i in row}) == 80
    with refused("seeds 0 to 7, got 8"):
        labelled(Named, 10, 8)


@pytest.mark.parametrize("num_labels", [15, 2000])
def test_impossible_labelled_split(num_labels):
    with refused("multiple of 10", "at most 1400", f"got {num_labels}"):
        labelled(open_dataset(), num_labels, 0)


def test_labels_out_of_range():
    with refused("here: label 10 of sample 2 is outside 0 to 9 (1 of 4 are)"):
        check_labels(np.array([0, 9, 10, 3]), 10, "here")
    check_labels(np.full(4, -1), 10, "here", unlabelled=True)
    with refused("label -1 of sample 0"):
        check_labels(np.full(4, -1), 10, "here")
    with refused("label 3 of sample 1 is not -1 (1 of 2 are)"):
        check_labels(np.array([-1, 3]), 10, "here", unlabelled=True)


def test_labels_out_of_range_in_a_file(tmp_path):
    members, _ = cifar_members("cifar10", "binary", classes=11)
    tar(tmp_path / "cifar-10-binary.tar.gz", members, "cifar-10-batches-bin")
    with refused("cifar10, split train: label 10", "outside 0 to 9"):
        open_dataset("cifar10", tmp_path).split("train")


# Bad input


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-binary.tar.gz"),
        ("cifar100", "cifar-100-binary.tar.gz"),
        ("stl10", "stl10_binary.tar.gz"),
        ("fashion_mnist", "train-images-idx3-ubyte.gz"),
    ],
)
def test_missing_set_says_where_it_was_looked_for_and_how_to_get_it(tmp_path, name, file):
    with refused(
        f"{name}: found no", f"in {tmp_path} or {tmp_path / name}", f"curl -L --create-dirs -o {tmp_path / file} "
    ):
        open_dataset(name, tmp_path).split("train")


def test_default_folder_is_that_of_tfds(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with refused(f"in {tmp_path} or"):
        open_dataset("cifar10").split("train")


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.9])
@pytest.mark.parametrize("file", ["cifar-10-binary.tar.gz", "train-images-idx3-ubyte.gz"])
def test_truncated_archive(tmp_path, file, keep):
    write_fashion(tmp_path)
    tar(tmp_path / "cifar-10-binary.tar.gz", cifar_members("cifar10", "binary")[0], "cifar-10-batches-bin")
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    name = "cifar10" if "cifar" in file else "fashion_mnist"
    with refused(tmp_path / file, "truncated or damaged" if keep else ""):
        open_dataset(name, tmp_path).split("test" if name == "cifar10" else "train")


def test_truncated_member(tmp_path):
    members, _ = cifar_members("cifar10", "binary")
    members["data_batch_3.bin"] = members["data_batch_3.bin"][:-5]
    tar(tmp_path / "cifar-10-binary.tar.gz", members, "cifar-10-batches-bin")
    with refused("data_batch_3.bin has 61455 bytes, no multiple of 3073"):
        open_dataset("cifar10", tmp_path).split("train")
    del members["data_batch_3.bin"]
    tar(tmp_path / "cifar-10-binary.tar.gz", members, "cifar-10-batches-bin")
    with refused("has no member data_batch_3.bin"):
        open_dataset("cifar10", tmp_path).split("train")


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


def test_a_pickle_cannot_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    members = {f"data_batch_{i}": pickle.dumps({b"data": Attack()}) for i in range(1, 6)}
    tar(tmp_path / "cifar-10-python.tar.gz", members, "cifar-10-batches-py")
    with refused("cifar-10-python.tar.gz is truncated or damaged", "mkdir"):
        open_dataset("cifar10", tmp_path).split("train")
    assert not (tmp_path / "attacked").exists()


def test_images_and_labels_differ_in_number(tmp_path):
    write_fashion(tmp_path)
    (tmp_path / FASHION_FILES[1]).write_bytes(gzip.compress(idx(np.zeros(7, np.uint8))))
    with refused("train-images-idx3-ubyte.gz has 30 images", "7 labels"):
        open_dataset("fashion_mnist", tmp_path).split("train")


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        (FASHION_FILES[0], idx(np.zeros((30, 14, 14), np.uint8)), "samples of [14, 14], not [28, 28]"),
        (FASHION_FILES[0], idx(np.zeros((30, 28), np.uint8)), "no IDX file of bytes with 3 axes"),
        (FASHION_FILES[0], idx(np.zeros((30, 28, 28), np.uint8))[:9], "truncated or damaged"),
        (FASHION_FILES[0], b"\0\0\x08\x03" + b"\xff" * 12, "truncated or damaged"),
        (FASHION_FILES[0], b"\0\0\x08\0\0", "no IDX file of bytes with 3 axes"),
        (FASHION_FILES[1], idx(np.zeros((30, 1), np.uint8)), "no IDX file of bytes with 1 axes"),
    ],
)
def test_idx_of_another_kind(tmp_path, file, content, says):
    write_fashion(tmp_path)
    (tmp_path / file).write_bytes(gzip.compress(content))
    with refused(tmp_path / file, says):
        open_dataset("fashion_mnist", tmp_path).split("train")


@pytest.mark.parametrize("kind", ["binary", "python"])
def test_a_flipped_byte_is_noticed(tmp_path, kind):
    """Also where the members that are wanted come before it."""
    path = tmp_path / f"cifar-10-{kind}.tar.gz"
    tar(path, cifar_members("cifar10", kind)[0], "folder")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with refused(path, "truncated or damaged"):
        open_dataset("cifar10", tmp_path).split("train")


def test_an_archive_comes_before_an_empty_folder(tmp_path):
    members, expected = cifar_members("cifar10", "binary")
    tar(tmp_path / "cifar-10-binary.tar.gz", members, "cifar-10-batches-bin")
    (tmp_path / "cifar-10-batches-bin").mkdir()
    same(open_dataset("cifar10", tmp_path), expected)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({b"data": np.zeros((4, 3072)), b"labels": [0] * 4}, "data is no (N, 3072) uint8"),
        ({b"data": np.zeros((4, 3072), np.uint8), b"labels": [0] * 3}, "images and labels differ in number"),
        ({b"labels": [0] * 3}, "data"),
    ],
)
def test_pickles_of_another_kind(tmp_path, content, says):
    members = {f"data_batch_{i}": pickle.dumps(content, 2) for i in range(1, 6)}
    tar(tmp_path / "cifar-10-python.tar.gz", members, "cifar-10-batches-py")
    with refused("cifar-10-python.tar.gz is truncated or damaged", says):
        open_dataset("cifar10", tmp_path).split("train")


@pytest.mark.parametrize(
    "change",
    [
        {"train_offsets": np.array([0])},
        {"train_offsets": np.zeros((2, 2), int)},
        {"train_labels": np.zeros(3, int)},
        {"train_jpeg": np.zeros(0, np.uint8)},
    ],
)
def test_damaged_jpeg_packs(tmp_path, change):
    content = np.frombuffer(jpeg(np.zeros((32, 32, 3), np.uint8))[0], np.uint8)
    arrays = {"train_jpeg": content, "train_offsets": np.array([0, len(content)]), "train_labels": np.zeros(1, int)}
    np.savez(tmp_path / "cifar10_jpeg_q75.npz", **arrays | change)
    with refused("cifar10_jpeg_q75.npz"):
        open_dataset("cifar10_jpeg", tmp_path).split("train")
    np.savez(tmp_path / "cifar10_jpeg_q75.npz", **arrays)
    assert len(open_dataset("cifar10_jpeg", tmp_path).split("train")) == 1


def test_empty_and_wrong_jpeg_packs(tmp_path):
    path = tmp_path / "cifar10_jpeg_q75.npz"
    path.write_bytes(b"")
    with refused(path, "truncated or damaged"):
        open_dataset("cifar10_jpeg", tmp_path).split("train")
    np.save(tmp_path / "x.npy", np.zeros(3))
    (tmp_path / "x.npy").rename(path)
    with refused(path, "truncated or damaged"):
        open_dataset("cifar10_jpeg", tmp_path).split("train")
    path.unlink()
    (tmp_path / "CIFAR-10-images").mkdir()
    with refused("no train/airplane/*.jpg"):
        open_dataset("cifar10_jpeg", tmp_path).split("train")


def test_official_sets_of_other_sizes_are_said(tmp_path):
    write_fashion(tmp_path)
    dataset = open_dataset("fashion_mnist", tmp_path)
    assert not dataset.notes
    dataset.split("test"), dataset.split("test")
    assert dataset.notes == ["fashion_mnist: split test has 20 samples; 10,000 were published"]


def test_what_is_no_regular_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "cifar-10-binary.tar.gz")
    with refused("cifar10: found no"):
        open_dataset("cifar10", tmp_path).split("train")
    (tmp_path / "cifar-10-batches-bin").mkdir()
    for i in range(1, 6):
        os.mkfifo(tmp_path / "cifar-10-batches-bin" / f"data_batch_{i}.bin")
    with refused("has no data_batch_1.bin"):
        open_dataset("cifar10", tmp_path).split("train")


def test_a_flipped_byte_of_a_jpeg_pack(tmp_path):
    """Stored, so that only the checksum of the zip archive tells."""
    content = np.frombuffer(jpeg(np.zeros((32, 32, 3), np.uint8))[0], np.uint8)
    path = tmp_path / "cifar10_jpeg_q75.npz"
    np.savez(path, train_jpeg=content, train_offsets=np.array([0, len(content)]), train_labels=np.zeros(1, int))
    packed = bytearray(path.read_bytes())
    packed[packed.index(content.tobytes()[-40:]) + 20] ^= 1
    path.write_bytes(packed)
    with refused(path, "truncated or damaged", "CRC"):
        open_dataset("cifar10_jpeg", tmp_path).split("train")


def test_cifar10_jpeg_as_a_folder(tmp_path):
    image = tmp_path / "CIFAR-10-images" / "test" / "bird" / "0001.jpg"
    image.parent.mkdir(parents=True)
    content, pixels = jpeg(np.full((32, 32, 3), 90, np.uint8))
    image.write_bytes(content)
    (image.parent / "._0001.jpg").write_bytes(b"of macOS")
    x, y = open_dataset("cifar10_jpeg", tmp_path).split("test").read(np.arange(1))
    np.testing.assert_array_equal(x[0], pixels)
    assert y[0] == 2


def test_damaged_stl10(tmp_path):
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    (folder / "train_X.bin").write_bytes(b"")
    (folder / "train_y.bin").write_bytes(b"")
    with refused(folder, "truncated or damaged"):
        open_dataset("stl10", tmp_path).split("train")
    (folder / "train_X.bin").write_bytes(bytes(2 * 3 * 96 * 96))
    (folder / "train_y.bin").write_bytes(bytes(2))  # labels of 0, where the first is 1
    with refused("stl10, split train: label -1 of sample 0"):
        open_dataset("stl10", tmp_path).split("train")
    (folder / "fold_indices.txt").write_bytes(b"1 2 \xff")
    with refused("truncated or damaged"):
        labelled(open_dataset("stl10", tmp_path), 3, 0, protocol="fold")


def test_not_an_idx_file(tmp_path):
    write_fashion(tmp_path)
    (tmp_path / FASHION_FILES[0]).write_bytes(gzip.compress(b"hello"))
    with refused("no IDX file of bytes with 3 axes"):
        open_dataset("fashion_mnist", tmp_path).split("train")


def test_folder_with_a_broken_picture(tmp_path):
    path = write_pictures(tmp_path) / "train" / "bee" / "1.png"
    path.write_bytes(path.read_bytes()[:-30])  # its header is intact
    source = open_dataset("folder", tmp_path, size=8).split("train")
    source.read([0, 1])
    with refused(path, "not a readable picture"):
        source.read([0, 4])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not {split:"),
        ('{"train": [["nowhere.png", 0]]}', "nowhere.png, which does not exist"),
        ('{"train": [["' + "x" * 5000 + '", 0]]}', "which does not exist"),
        ('{"train": [["train/ant/0.png", -2]]}', "label -2"),
        ('{"train": [["train/ant/0.png", 1.7]]}', "label 1.7 of train/ant/0.png"),
        ('{"train": [["train/ant/0.png", Infinity]]}', "label inf of train/ant/0.png"),
        ('{"train": [["train/ant/0.png", "1"]]}', "label '1' of train/ant/0.png"),
        ('{"train": [["train/ant/0.png", 1000000000]]}', "no picture has label 0, but one has 1000000000"),
        ('{"train": [["train/ant/0.png", 0]], "test": []}', "split 'test' lists no pictures"),
        ("{}", "no splits"),
        ('[["train/ant/0.png", 0]]', "is not {split:"),
    ],
)
def test_bad_split_file(tmp_path, content, says):
    (write_pictures(tmp_path) / "split.json").write_text(content)
    with refused("split.json", says):
        open_dataset("folder", tmp_path, split_file="split.json")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: open_dataset("cifar11"), "did you mean cifar10?"),
        (lambda: open_dataset("nothing like it"), "there is digits,"),
        (lambda: open_dataset("tfds:"), "no data set 'tfds:'"),
        (lambda: open_dataset("digits").split("trian"), "did you mean train?"),
        (lambda: open_dataset("synthetic", num_clases=3), "did you mean num_classes?"),
        (lambda: open_dataset("synthetic", size=0), "at least 1"),
        (lambda: open_dataset("modular", p=12), "p must be a prime, got 12"),
        (lambda: open_dataset("modular", operation="plus"), "no operation 'plus'"),
        (lambda: open_dataset("modular", train_fraction=1.0), "leaves a split"),
        (lambda: open_dataset("folder", "/nowhere/at/all"), "is not a folder"),
        (lambda: open_dataset("folder", SHARED.parent / "nothing", split_file="x"), "is not a folder"),
        (lambda: open_dataset("folder", ".", size=0), "folder: size must be a whole number of at least 1, got 0"),
        (lambda: open_dataset("folder", ".", size="8"), "got '8'"),
        (lambda: open_dataset("folder", ".", channels=2), "channels must be 1 (grey) or 3 (RGB), got 2"),
        (
            lambda: open_dataset("synthetic", num_classes="3"),
            "num_classes must be a whole number of at least 1, got '3'",
        ),
        (lambda: open_dataset("synthetic", seed=-1), "seed must be a whole number of at least 0"),
        (lambda: open_dataset("synthetic", noise=-1.0), "noise must be at least 0"),
        (lambda: open_dataset("modular", p=7.0), "p must be a whole number of at least 2, got 7.0"),
        (lambda: open_dataset(None), "no data set None"),
        (lambda: labelled(open_dataset(), 10, 0, protocol="x"), "torchssl or fold"),
        (lambda: labelled(open_dataset(), 10.0, 0), "num_labels must be a whole number"),
        (lambda: labelled(open_dataset(), 0, 0), "at least 1, got 0"),
        (lambda: labelled(open_dataset(), 10, None), "seed must be a whole number"),
    ],
)
def test_bad_requests(call, says):
    with refused(says):
        call()


@pytest.mark.parametrize("name", [*DATASETS, "tfds:any"])
def test_options_have_ranges_that_hold_their_defaults(name):
    defaults = options_of(name)
    assert set(RANGES.get(name.partition(":")[0], {})) == set(defaults)
    check_options(name, defaults, defaults)
    with refused(f"{name} has no option 'sise'"):
        check_options(name, {"sise": 3}, defaults)
    assert options_of("no such set") == {}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(size=100_000), "synthetic: size must be at most 4,096, got 100000"),
        (dict(size=True), "size must be a whole number of at least 1, got True"),
        (dict(size=None), "size must be a whole number of at least 1, got None"),
        (dict(noise=float("inf")), "noise must be a finite number of at least 0, got inf"),
        (dict(noise="0.1"), "noise must be a finite number of at least 0, got '0.1'"),
        (dict(num_train=2**30), "synthetic: 79,164.8 GB are more than this machine's memory of "),
    ],
)
def test_options_out_of_range(options, says):
    with refused(says):
        open_dataset("synthetic", **options)


def test_more_than_the_memory():
    class Large:
        shape = (4096, 4096, 3)

        def __len__(self):
            return 10**9

    with refused("1,000,000,000 samples of 4096 x 4096 x 3: 50,331,648.0 GB are more than"):
        in_memory(Large())


def test_folder_without_pictures(tmp_path):
    with refused("has no pictures as SPLIT/CLASS"):
        open_dataset("folder", tmp_path)
    with refused("found no split file s.json"):
        open_dataset("folder", tmp_path, split_file="s.json")


# Reading


def test_channel_moments():
    x = rng.integers(0, 256, (37, 5, 4, 3), dtype=np.uint8)
    mean, std = channel_moments(Arrays(x, np.zeros(37)), block=10)
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, x.std((0, 1, 2)), rtol=1e-12)


def test_channels_with_one_value():
    """0.1 in float32 has a mean that is rounded, and a deviation of 1e-17 instead of 0."""
    x = np.stack([np.full((37, 5, 4), 0.1), rng.normal(size=(37, 5, 4)), np.zeros((37, 5, 4))], -1).astype(np.float32)
    assert constant_channels(*channel_moments(Arrays(x, np.zeros(37)), block=10)) == [0, 2]


def test_stream_reads_the_rows_of_each_host_and_continues():
    import jax

    train = open_dataset().split("train")
    key = jax.random.key(0)

    def rows(step, host, hosts=2, batch=32):
        everything = np.asarray(order(key, step, batch, len(train)))
        return everything[host * batch // hosts : (host + 1) * batch // hosts]

    for step in range(3, 6):
        whole = train.read(np.asarray(order(key, step, 32, len(train))))
        parts = [next(iter(stream(train, lambda s, h=h: rows(s, h), range(step, 99)))) for h in range(2)]
        assert all(part[0] == step for part in parts)
        for k in (0, 1):
            np.testing.assert_array_equal(np.concatenate([part[k + 1] for part in parts]), whole[k])


def test_stream_gives_steps_in_order_and_stops():
    train = open_dataset().split("train")
    found = list(stream(train, lambda step: np.array([step, step + 1]), range(7), ahead=3))
    assert [step for step, _, _ in found] == list(range(7))
    np.testing.assert_array_equal([y for _, _, y in found], [train.labels[[s, s + 1]] for s in range(7)])


def test_stream_reads_a_few_steps_ahead_and_no_more():
    asked, train = [], open_dataset().split("train")

    def steps():
        for step in range(100):
            asked.append(step)
            yield step

    batches = stream(train, lambda step: np.array([step]), steps(), ahead=2)
    for _ in range(3):
        next(batches)
    assert asked == [0, 1, 2, 3, 4]
    batches.close()
    assert asked == [0, 1, 2, 3, 4]


def test_stream_raises_at_the_step_that_fails():
    class Breaks:
        def read(self, indices):
            if indices[0] == 2:
                raise DataError("record 2 is broken")
            return indices, indices

    seen = []
    with refused("record 2"):
        for step, _, _ in stream(Breaks(), lambda step: np.array([step]), range(9)):
            seen.append(step)
    assert seen == [0, 1]


# The official files, if they lie next to the checkout


@pytest.mark.skipif(not SHARED.exists(), reason="no official files beside the checkout")
def test_official_fashion_mnist():
    dataset = open_dataset("fashion_mnist", SHARED)
    train, test = dataset.split("train"), dataset.split("test")
    assert train.x.shape == (60000, 28, 28, 1) and test.x.shape == (10000, 28, 28, 1)
    assert set(np.bincount(train.labels)) == {6000} and set(np.bincount(test.labels)) == {1000}
    mean, std = channel_moments(train)
    np.testing.assert_allclose([*mean, *std], [*dataset.mean, *dataset.std], atol=0.01)
