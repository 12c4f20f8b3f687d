"""Writers of the published data formats, from their descriptions; and what a refused one must say."""

import gzip
import io
import pickle
import tarfile

import numpy as np
import pytest

from infojax.data import DataError

rng = np.random.default_rng(0)


def refused(*parts):
    """A one-line DataError that contains all of these."""

    class Check:
        def __enter__(self):
            self.raised = pytest.raises(DataError)
            self.info = self.raised.__enter__()

        def __exit__(self, *found):
            caught = self.raised.__exit__(*found)
            message = str(self.info.value)
            assert "\n" not in message
            for part in parts:
                assert str(part) in message
            return caught

    return Check()


def idx(values):
    return b"\0\0\x08" + bytes([values.ndim]) + np.array(values.shape, ">i4").tobytes() + values.tobytes()


def write_fashion(folder, n=(30, 20)):
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for split, stem, size in zip(("train", "test"), ("train", "t10k"), n, strict=True):
        x, y = rng.integers(0, 256, (size, 28, 28), dtype=np.uint8), (np.arange(size) % 10).astype(np.uint8)
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(x)))
        (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(y)))
        found[split] = (x[..., None], y)
    return found


def tar(path, members, folder):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def cifar_members(name, kind, classes=10, n=20):
    """{member: bytes} and the images and labels of both splits."""
    batches = {
        "cifar10": {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]},
        "cifar100": {"train": ["train"], "test": ["test"]},
    }[name]
    members, expected = {}, {}
    for split, files in batches.items():
        images, labels = [], []
        for file in files:
            x = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
            y = rng.permutation(np.arange(n) % classes).astype(np.uint8)
            flat = x.transpose(0, 3, 1, 2).reshape(n, 3072)
            coarse = y // 5
            if kind == "binary":
                columns = [y[:, None], flat] if name == "cifar10" else [coarse[:, None], y[:, None], flat]
                members[f"{file}.bin"] = np.concatenate(columns, 1).tobytes()
            else:
                content = {b"data": flat, b"labels" if name == "cifar10" else b"fine_labels": y.tolist()}
                if name == "cifar100":
                    content[b"coarse_labels"] = coarse.tolist()
                members[file] = pickle.dumps(content, protocol=2)
            images.append(x)
            labels.append(y)
        expected[split] = (np.concatenate(images), np.concatenate(labels))
    return members, expected
