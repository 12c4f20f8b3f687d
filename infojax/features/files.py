"""File formats: the arrays of a file by name. NumPy, safetensors and HDF5 are read in this module, PyTorch's files in
`torch_files`, tables in `columns`.

`open_arrays` reads headers and returns a `StoredArray` per array, which `infojax.analyze` accepts like a matrix in
memory. No code from a file is run (pickled arrays are rejected), and no other file is read (HDF5 data sets with
external storage are rejected). A broken file gives a one-line `FeatureFileError`.
"""

import json
import os
import stat
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import ml_dtypes
import numpy as np

from infojax.features.columns import open_table
from infojax.features.layouts import Checksum, Layout, compressed_parts, data_of, raw_parts
from infojax.features.sources import FeatureFileError, Read, StoredArray, held, one_line_errors
from infojax.features.torch_files import open_torch
from infojax.suggestions import suggest

DIGITS = "digits"  # the name of the bundled data set: scikit-learn's 8x8 digits
SAFETENSORS_DTYPES = {
    "BOOL": np.bool_,
    **{f"U{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"I{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"F{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}


def _npy_layout(stream: Any) -> Layout:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"unknown .npy version {version}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about headers written by Python 2
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        else:  # version 3 differs from 2 only in field names, and arrays with fields are rejected
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    if any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"shape {shape} in its header; expected whole numbers from 0 on")
    return Layout(shape, dtype, fortran)


def _open_npy(path: Path) -> dict[str, StoredArray]:
    with open(path, "rb") as file:
        layout, offset = _npy_layout(file), file.tell()
    layout.check_length(path, "the array", path.stat().st_size - offset)
    opener = raw_parts(path, offset, layout)
    return {"features": StoredArray(str(path), layout.shape, layout.dtype, opener)}


def _open_npz(path: Path) -> dict[str, StoredArray]:
    arrays, others = {}, {}
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name in arrays:
                raise FeatureFileError(f"{path}: holds two arrays named {name}; save them under different names")
            if name != info.filename:
                with one_line_errors(f"{path}: {name}"):
                    arrays[name] = _member(path, archive, info, file)
            elif not info.is_dir():
                others[name] = refused(path, name, "is no array, whose name in an .npz ends in .npy")
    return arrays | others if arrays else {}


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: BinaryIO) -> StoredArray:
    """An array of an .npz archive."""
    name = info.filename.removesuffix(".npy")
    with archive.open(info) as stream:
        layout, offset = _npy_layout(stream), stream.tell()
    layout.check_length(path, name, info.file_size - offset)
    if info.compress_type == zipfile.ZIP_STORED:
        begin = data_of(info, file)
        opener = raw_parts(path, begin + offset, layout, Checksum(begin, info.file_size, info.CRC))
    else:
        opener = compressed_parts(path, info.filename, offset, layout)
    return StoredArray(f"{path}: {name}", layout.shape, layout.dtype, opener)


def _never() -> NoReturn:
    raise AssertionError("a refused array is never opened")


def refused(path: Path, name: str, refusal: str) -> StoredArray:
    """A placeholder for an entry of a file that cannot be read as an array: it is listed, but never read."""
    return StoredArray(f"{path}: {name}", (), np.dtype("V1"), _never, refusal=refusal)


def _open_safetensors(path: Path) -> dict[str, StoredArray]:
    import safetensors

    # The library checks the header and all offsets. It would map the file into memory, so `raw_parts` reads instead.
    with safetensors.safe_open(path, framework="numpy"):
        pass
    with open(path, "rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_bytes))
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        supported = entry["dtype"] in SAFETENSORS_DTYPES
        dtype = np.dtype(SAFETENSORS_DTYPES[entry["dtype"]] if supported else "V1")
        refusal = "" if supported else f"has dtype {entry['dtype']}; save it as float32"
        begin = 8 + header_bytes + entry["data_offsets"][0]
        opener = raw_parts(path, begin, Layout(entry["shape"], dtype))
        arrays[name] = StoredArray(f"{path}: {name}", entry["shape"], dtype, opener, refusal=refusal)
    return arrays


def _open_hdf5(path: Path) -> dict[str, StoredArray]:
    try:
        import h5py
    except ImportError as error:
        need = "reading HDF5 needs h5py: pip install infojax[h5]"
        raise FeatureFileError(f"{path}: {need}") from error
    arrays: dict[str, StoredArray] = {}
    seen = set()

    def visit(group, place=""):
        seen.add(h5py.h5o.get_info(group.id).addr)
        for key in group:
            name = place + os.fsdecode(key)  # bytes if not UTF-8, whose link h5py cannot look up
            link = group.get(key, getlink=True) if isinstance(key, str) else None
            if isinstance(link, h5py.ExternalLink):
                arrays[name] = refused(path, name, f"is a link to another file, {link.filename}, which is not read")
            elif (item := group.get(key)) is None:
                arrays[name] = refused(
                    path, name, f"is a link to {getattr(link, 'path', 'nothing')}, which is not there"
                )
            elif isinstance(item, h5py.Dataset):
                arrays[name] = _dataset(path, name, item)
            elif isinstance(item, h5py.Group) and h5py.h5o.get_info(item.id).addr not in seen:
                visit(item, f"{name}/")

    with h5py.File(path, "r") as file:
        visit(file)
    return arrays


def _dataset(path: Path, name: str, item: Any) -> StoredArray:
    """An array of an HDF5 file."""
    import h5py

    text, where = h5py.check_string_dtype(item.dtype) is not None, f"{path}: {name}"

    @contextmanager
    def opener() -> Iterator[Read]:
        # HDF5 stores tiles: the cache avoids unpacking a tile once for every block it spans.
        with h5py.File(path, "r", rdcc_nbytes=2**26) as file:
            dataset = file[os.fsencode(name)]
            dataset = dataset.asstr() if text else dataset
            yield lambda index: dataset[index].astype(str) if text else dataset[index]

    if item.shape is None:
        return refused(path, name, "is empty: it has no shape")
    refusal = ""
    if item.external or item.is_virtual:  # could name any file of this machine; missing ones read as zeros
        kind = "external storage" if item.external else "a virtual data set"
        refusal = f"is {kind}: its rows lie elsewhere, and read as zeros where they are missing; save a copy of them"
    return StoredArray(where, item.shape, np.dtype(str) if text else item.dtype, opener, refusal=refusal)


def _open_digits() -> dict[str, StoredArray]:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return {"features": held(DIGITS, pixels), "labels": held(DIGITS, labels)}


OPENERS = {
    ".npy": _open_npy,
    ".npz": _open_npz,
    ".safetensors": _open_safetensors,
    **dict.fromkeys((".h5", ".hdf5"), _open_hdf5),
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin"), open_torch),
    **dict.fromkeys((".parquet", ".arrow", ".feather"), open_table),
}


def open_arrays(path: str | Path) -> dict[str, StoredArray]:
    """The arrays of a feature file by name; reads only headers.

    The array of a `.npy` file is named `features`; HDF5 groups give names such as `group/dataset`. The path `digits`
    is the bundled data set, scikit-learn's: features (1797, 64) in 0..16, labels 0..9.

    Raises:
      FeatureFileError: the file is missing, damaged, empty or of an unknown kind; one line.
    """
    if str(path) == DIGITS:
        return _open_digits()
    path = Path(path)
    with one_line_errors(path):
        mode = path.stat().st_mode if path.exists() else None
    if mode is not None and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise FeatureFileError(f"{path}: is no regular file, and rows are read several times; copy it into one")
    if mode is None and path.is_symlink():
        raise FeatureFileError(f"{path}: is a symbolic link to nothing")
    if mode is None or stat.S_ISDIR(mode):
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise FeatureFileError(f"{path}: no such file{suggest(path.name, beside, listed=False)}")
    suffix = path.suffix.lower()
    if suffix not in OPENERS:
        raise FeatureFileError(
            f"{path}: unknown kind of file {path.suffix!r}; infojax reads {', '.join(OPENERS)} "
            "(numpy.savez writes an .npz)"
        )
    with one_line_errors(path):
        arrays = OPENERS[suffix](path)
    if not arrays:
        raise FeatureFileError(f"{path}: holds no arrays")
    return arrays
