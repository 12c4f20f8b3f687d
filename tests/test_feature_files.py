"""Readers against the libraries that write the formats, damaged files, and memory."""

import io
import os
import subprocess
import sys
import zipfile

import h5py
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from infojax.features import sources
from infojax.features.files import open_arrays
from infojax.features.sources import FeatureFileError


def save_npy(path, array, version=None):
    with open(path, "wb") as file:
        np.lib.format.write_array(file, array, version=version)


def save_zip(path, array, method):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, values in {"first": np.arange(3), "a": array}.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, values)


def save_hdf5(path, array, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=array, **options)


def save_tiles(path, array):
    tile = (min(5, len(array)), *array.shape[1:])
    save_hdf5(path, array, chunks=tile, compression="gzip")


def fortran(array):
    return np.asfortranarray(array)


# name -> (file name, key of the array, function that writes it)
FORMATS = {
    "npy": ("f.npy", "features", save_npy),
    "npy version 2": ("f.npy", "features", lambda p, a: save_npy(p, a, (2, 0))),
    "npy version 3": ("f.npy", "features", lambda p, a: save_npy(p, a, (3, 0))),
    "npy fortran": ("f.npy", "features", lambda p, a: save_npy(p, fortran(a))),
    "npz": ("f.npz", "a", lambda p, a: np.savez(p, first=np.arange(3), a=a)),
    "npz fortran": ("f.npz", "a", lambda p, a: np.savez(p, a=fortran(a))),
    "npz deflate": ("f.npz", "a", lambda p, a: np.savez_compressed(p, a=a)),
    "npz deflate fortran": ("f.npz", "a", lambda p, a: np.savez_compressed(p, a=fortran(a))),
    "npz lzma": ("f.npz", "a", lambda p, a: save_zip(p, a, zipfile.ZIP_LZMA)),
    "safetensors": ("f.safetensors", "a", lambda p, a: save_file({"b": np.arange(3), "a": a}, p)),
    "hdf5": ("f.h5", "a", save_hdf5),
    "hdf5 tiles": ("F.HDF5", "a", save_tiles),
}


@pytest.fixture(params=FORMATS, ids=lambda name: name.replace(" ", "-"))
def kind(request):
    return FORMATS[request.param]


def stored(tmp_path, kind, array):
    file_name, key, write = kind
    write(tmp_path / file_name, array)
    return open_arrays(tmp_path / file_name)[key]


@pytest.mark.parametrize("shape", [(37, 5), (23, 3, 4, 2), (1, 1)], ids=str)
def test_blocks_are_the_rows_in_order_in_every_pass(tmp_path, kind, shape):
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    rows = stored(tmp_path, kind, array)
    assert rows.shape == (shape[0], array[0].size) and rows.full_shape == shape
    assert rows.dtype == np.float32 and not rows.in_memory
    for chunk in (1, 7, 8192):
        for _ in range(2):
            blocks = list(rows.blocks(chunk))
            assert [len(b) for b in blocks[:-1]] == [min(chunk, shape[0])] * (len(blocks) - 1)
            np.testing.assert_array_equal(np.concatenate(blocks), array.reshape(rows.shape))
    np.testing.assert_array_equal(rows.load(), array)


def test_take_reads_the_rows_asked_for(tmp_path, kind, monkeypatch):
    array = np.random.default_rng(1).normal(size=(301, 2, 3))
    rows = stored(tmp_path, kind, array)
    monkeypatch.setattr(sources, "GAP_BYTES", 4 * 48)  # a gap of four rows, blocks of sixteen
    monkeypatch.setattr(sources, "BLOCK_BYTES", 16 * 48)
    for indices in ([], [0], [300], [0, 1, 2, 9, 9, 150, 299], range(0, 301, 3), range(301)):
        indices = np.array(indices, np.int64)
        np.testing.assert_array_equal(rows.take(indices), array.reshape(301, 6)[indices])
    assert [len(b) for b in rows.blocks(8192)][:2] == [16, 16]  # wide rows come in smaller blocks


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<f2", "<i8", "|u1", "|b1"])
def test_every_format_keeps_the_dtype(tmp_path, kind, dtype):
    array = np.arange(24).reshape(12, 2).astype(dtype)
    rows = stored(tmp_path, kind, array)
    assert rows.dtype == np.dtype(dtype) and rows.take(np.array([3, 5])).dtype == np.dtype(dtype)
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks(5))), array)


@pytest.mark.parametrize("name", ["npy", "npz", "npz deflate", "hdf5"])
def test_big_endian_files_give_native_rows(tmp_path, name):
    array = np.arange(24, dtype=">f4").reshape(12, 2)
    rows = stored(tmp_path, FORMATS[name], array)
    [block] = rows.blocks(100)
    assert block.dtype.isnative and rows.dtype.isnative
    np.testing.assert_array_equal(block, array)


@pytest.mark.parametrize("name", ["npy", "npy fortran", "npz", "npz deflate", "safetensors"])
def test_bfloat16_also_where_numpy_saved_it_as_raw_bytes(tmp_path, name):
    array = np.random.default_rng(2).normal(size=(12, 3)).astype(ml_dtypes.bfloat16)
    rows = stored(tmp_path, FORMATS[name], array)
    assert rows.dtype == ml_dtypes.bfloat16
    [block] = rows.blocks(100)
    assert block.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(block.astype(np.float32), array.astype(np.float32))


def test_hdf5_groups_give_nested_names(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["train/layer1/z"] = np.ones((4, 2))
        file["y"] = np.arange(4)
    assert sorted(open_arrays(tmp_path / "f.h5")) == ["train/layer1/z", "y"]


def test_digits_are_bundled():
    arrays = open_arrays("digits")
    assert arrays["features"].shape == (1797, 64) and arrays["features"].in_memory
    assert np.bincount(arrays["labels"].load()).min() == 174
    assert sum(len(b) for b in arrays["features"].blocks(500)) == 1797
    np.testing.assert_array_equal(arrays["features"].take(np.array([5, 9])), arrays["features"].load()[[5, 9]])


# Damaged and unusable files: one line each


def write(path, data: bytes):
    path.write_bytes(data)
    return path


def npy_bytes(array=None, **changes) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones((20, 3), np.float32) if array is None else array, allow_pickle=True)
    data = file.getvalue()
    for old, new in changes.items():
        data = data.replace(old.encode(), new)
    return data


def message(path, key=None) -> str:
    with pytest.raises(FeatureFileError) as caught:
        arrays = open_arrays(path)
        list(arrays[key or next(iter(arrays))].blocks(8))
    text = str(caught.value)
    assert str(path) in text and "\n" not in text
    return text


def test_truncated_npy(tmp_path):
    text = message(write(tmp_path / "f.npy", npy_bytes()[:-5]))
    assert "truncated: the array needs 240 bytes, the file has 235" in text


def test_npy_that_shrinks_after_it_was_opened(tmp_path):
    path = write(tmp_path / "f.npy", npy_bytes())
    rows = open_arrays(path)["features"]
    write(path, npy_bytes()[:-5])
    with pytest.raises(FeatureFileError, match="the data end 5 bytes too early"):
        list(rows.blocks(8))


@pytest.mark.parametrize("cut", [0, 5, 20, 70])
def test_npy_without_a_whole_header(tmp_path, cut):
    assert "cannot be read" in message(write(tmp_path / "f.npy", npy_bytes()[:cut]))


def test_not_a_zip(tmp_path):
    assert "File is not a zip file" in message(write(tmp_path / "f.npz", b"not a zip at all"))


def test_truncated_npz(tmp_path):
    np.savez(tmp_path / "f.npz", z=np.ones((20, 3)))
    whole = (tmp_path / "f.npz").read_bytes()
    assert "File is not a zip file" in message(write(tmp_path / "f.npz", whole[:-40]))


def test_npz_with_a_truncated_member(tmp_path):
    with zipfile.ZipFile(tmp_path / "f.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("z.npy", npy_bytes()[:-5])
    assert "truncated: z needs 240 bytes, the file has 235" in message(tmp_path / "f.npz")


def test_long_doubles_are_those_that_float64_holds(tmp_path):
    rows = np.random.default_rng(0).normal(size=(5, 2)).astype(np.longdouble)
    for power, fits in ((0, True), (300, True), (4000, False), (-4000, False)):
        np.save(tmp_path / "f.npy", np.ldexp(rows, power))
        found = open_arrays(tmp_path / "f.npy")["features"]
        if fits:
            assert found.load().dtype == np.float64
            continue
        with pytest.raises(FeatureFileError, match="has values that float64 cannot hold"):
            found.load()


def test_a_broken_member_is_named(tmp_path):
    path = tmp_path / "f.npz"
    np.savez(path, z=np.ones((4, 2)), y=np.arange(4))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"\x93NUMPY", b"\x93NUMPX", 1))  # of the first, which is z
    with pytest.raises(FeatureFileError, match=r"f.npz: z: cannot be read"):
        open_arrays(path)


def test_what_is_no_array_of_an_archive_is_told(tmp_path):
    path = tmp_path / "f.npz"
    np.savez(path, z=np.ones((4, 2)))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.txt", "hello")
        archive.mkdir("folder")
    found = open_arrays(path)
    assert list(found) == ["z", "notes.txt"] and "is no array" in str(found["notes.txt"])
    with pytest.raises(FeatureFileError, match="notes.txt is no array, whose name in an .npz ends in .npy"):
        found["notes.txt"].load()


def test_npz_with_damaged_compression(tmp_path):
    array = np.random.default_rng(0).normal(size=(500, 3))
    np.savez_compressed(tmp_path / "f.npz", z=array)
    data = bytearray((tmp_path / "f.npz").read_bytes())
    data[5000:5040] = bytes(40)
    assert "f.npz: z: cannot be read:" in message(write(tmp_path / "f.npz", bytes(data)))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("read", ["blocks", "take", "load"])
def test_a_stored_member_is_held_to_its_checksum(tmp_path, order, read):
    array = np.random.default_rng(0).normal(size=(20_000, 3))  # more than zipfile reads with the header
    np.savez(tmp_path / "f.npz", z=np.asarray(array, order=order), y=np.arange(3))
    data = bytearray((tmp_path / "f.npz").read_bytes())
    data[300_000] ^= 1  # a value that looks as good as any
    arrays = open_arrays(write(tmp_path / "f.npz", bytes(data)))
    assert arrays["y"].load().tolist() == [0, 1, 2]  # the other member is intact
    with pytest.raises(FeatureFileError, match="f.npz: z: cannot be read: its CRC-32 is wrong: the data are damaged"):
        {"blocks": lambda z: list(z.blocks(8)), "take": lambda z: z.take(np.arange(5)), "load": lambda z: z.load()}[
            read
        ](arrays["z"])


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_compressed_member_is_held_to_its_checksum(tmp_path, order):
    array = np.asarray(np.random.default_rng(0).normal(size=(20_000, 3)), order=order)
    np.savez_compressed(tmp_path / "f.npz", z=array)
    with zipfile.ZipFile(tmp_path / "f.npz") as archive:
        crc = archive.infolist()[0].CRC.to_bytes(4, "little")
    data = (tmp_path / "f.npz").read_bytes()
    assert data.count(crc) == 2  # before the member and in the archive's directory
    write(tmp_path / "f.npz", data.replace(crc, bytes(4)))
    assert "Bad CRC-32" in message(tmp_path / "f.npz")


def header(shape, descr="<f8") -> bytes:
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ("(True, 8)", "shape (True, 8) in its header; expected whole numbers from 0 on"),
        ("(-1, 8)", "shape (-1, 8) in its header"),
        ("(1.0, 8)", "shape is not valid"),
        ("(10000000000000000000000000, 8)", "truncated: the array needs 640000000000000000000000000 bytes"),
        ("(" * 3000 + ")" * 3000, "cannot be read"),
    ],
)
def test_shapes_that_are_none(tmp_path, shape, problem):
    text = message(write(tmp_path / "f.npy", header(shape) + bytes(64)))
    assert problem in text and len(text) < 400


def test_an_array_behind_the_array_is_not_dropped(tmp_path):
    text = message(write(tmp_path / "f.npy", npy_bytes() * 2))
    assert "368 bytes follow the array; save one array only" in text


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive:
        archive.writestr("z.npy", npy_bytes())
        archive.writestr("z.npy", npy_bytes())
    assert "holds two arrays named z" in message(tmp_path / "f.npz")


def test_a_header_of_python_2_raises_no_warning(tmp_path):
    array = np.arange(8.0).reshape(4, 2)
    write(tmp_path / "f.npy", header("(4L, 2L)") + array.tobytes())
    np.testing.assert_array_equal(open_arrays(tmp_path / "f.npy")["features"].load(), array)


def test_hdf5_rows_that_lie_in_other_files_are_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(range(96)))
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["here"] = np.ones((4, 3))
        file.create_dataset("outside", (4, 3), "f8", external=[(str(tmp_path / "secret"), 0, 96)])
        layout = h5py.VirtualLayout((4, 3), "f8")
        layout[:2] = h5py.VirtualSource("missing.h5", "z", (2, 3))
        file.create_virtual_dataset("parts", layout)
    arrays = open_arrays(tmp_path / "f.h5")
    assert arrays["here"].load().sum() == 12  # they are no obstacle to the others
    assert "outside is external storage: its rows lie elsewhere" in message(tmp_path / "f.h5", "outside")
    assert "parts is a virtual data set: its rows lie elsewhere" in message(tmp_path / "f.h5", "parts")


def test_hdf5_links(tmp_path):
    """A link inside the file is the array it points to; one to nothing, or to another file, is named and refused."""
    rows = np.random.default_rng(0).normal(size=(5, 2))
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["raw/z"] = rows
        file["z"] = h5py.SoftLink("/raw/z")
        file["gone"] = h5py.SoftLink("/raw/gone")
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/z")
    found = open_arrays(tmp_path / "f.h5")
    assert set(found) == {"raw/z", "z", "gone", "elsewhere"}
    np.testing.assert_array_equal(found["z"].load(), rows)
    for name, problem in (("gone", "is a link to /raw/gone, which is not there"), ("elsewhere", "other.h5")):
        with pytest.raises(FeatureFileError, match=problem):
            found[name].load()


def test_hdf5_names_that_are_not_text(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset(b"z\xff", data=np.ones((4, 3)))
    [(name, array)] = open_arrays(tmp_path / "f.h5").items()
    assert name == "z\udcff" and array.load().sum() == 12


def test_safetensors_of_a_dtype_without_a_number(tmp_path):
    text = b'{"z":{"dtype":"F8_E8M0","shape":[4,3],"data_offsets":[0,12]}}'
    write(tmp_path / "f.safetensors", len(text).to_bytes(8, "little") + text + bytes(12))
    assert "z has dtype F8_E8M0; save it as float32" in message(tmp_path / "f.safetensors")


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "f.npy")
    os.symlink("f.npy", tmp_path / "link.npy")
    os.symlink("nothing", tmp_path / "dangling.npy")
    for name in ("f.npy", "link.npy"):
        assert "is no regular file, and rows are read several times" in message(tmp_path / name)
    assert "is a symbolic link to nothing" in message(tmp_path / "dangling.npy")


def test_an_array_that_memory_cannot_hold_is_named(tmp_path, monkeypatch):
    np.savez(tmp_path / "f.npz", z=np.ones((20, 3)))
    monkeypatch.setattr(sources, "free_memory", lambda: 100.0)
    with pytest.raises(FeatureFileError, match=r"f.npz: z \(20, 3\) float64 needs .* GiB of memory, .* are free"):
        open_arrays(tmp_path / "f.npz")["z"].load()
    monkeypatch.undo()
    assert 2**26 < sources.free_memory() < 2**50


def test_archive_without_arrays(tmp_path):
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive:
        archive.writestr("readme.txt", "no arrays")
    assert message(tmp_path / "f.npz").endswith("f.npz: holds no arrays")


@pytest.mark.parametrize("cut", [4, 60, -5])
def test_truncated_safetensors(tmp_path, cut):
    save_file({"z": np.ones((20, 3), np.float32)}, tmp_path / "f.safetensors")
    whole = (tmp_path / "f.safetensors").read_bytes()
    assert "cannot be read" in message(write(tmp_path / "f.safetensors", whole[:cut]))


def test_truncated_hdf5(tmp_path):
    save_hdf5(tmp_path / "f.h5", np.ones((2000, 3)))
    whole = (tmp_path / "f.h5").read_bytes()
    assert "truncated file" in message(write(tmp_path / "f.h5", whole[:-5000]))


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.array([[1, "a"], [2, None]], object), "holds pickled Python objects, which are never"),
        (np.array([["a", "b"]]), "has dtype <U1, which is not a number"),
        (np.array([["2024-01-01"]], "datetime64[D]"), "has dtype datetime64[D], which is not"),
        (np.zeros((3, 2), [("a", "f4")]), "has dtype [('a', '<f4')], which is not a number"),
        (np.ones((3, 2), complex), "is complex (complex128); save its real and imaginary parts"),
        (np.ones((0, 4)), "is empty: shape (0, 4)"),
        (np.ones((4, 0)), "is empty: shape (4, 0)"),
        (np.array(3.0), "is a single number (shape ()), not an array of rows"),
    ],
    ids=["object", "string", "time", "record", "complex", "no-rows", "no-columns", "0-d"],
)
def test_arrays_that_are_not_rows_of_numbers(tmp_path, array, problem):
    assert problem in message(write(tmp_path / "f.npy", npy_bytes(array)))
    np.savez(tmp_path / "f.npz", z=array)
    assert problem in message(tmp_path / "f.npz")


def test_a_pickle_beside_the_features_is_no_obstacle_and_is_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was loaded",))

    np.savez(tmp_path / "f.npz", z=np.ones((3, 2)), paths=np.array([Bomb(), None], object))
    arrays = open_arrays(tmp_path / "f.npz")
    assert arrays["z"].load().sum() == 6
    with pytest.raises(FeatureFileError, match="never loaded"):
        arrays["paths"].load()


def test_missing_file_names_the_near_ones(tmp_path):
    write(tmp_path / "features.npz", b"")
    assert "no such file; did you mean features.npz?" in message(tmp_path / "feature.npz")


def test_unknown_suffix(tmp_path):
    text = message(write(tmp_path / "f.txt", b""))
    assert "unknown kind of file '.txt'; infojax reads .npy, .npz, .safetensors, .h5, .hdf5, .pt, .pth, .ckpt" in text


def test_folder_in_place_of_a_file(tmp_path):
    (tmp_path / "f.npz").mkdir()
    assert "no such file" in message(tmp_path / "f.npz")


def test_hdf5_without_h5py_says_what_to_install(tmp_path, monkeypatch):
    save_hdf5(tmp_path / "f.h5", np.ones((2, 2)))
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert message(tmp_path / "f.h5").endswith("reading HDF5 needs h5py: pip install infojax[h5]")


def test_random_damage_gives_rows_or_one_line(tmp_path, kind):
    file_name, _, write_file = kind
    path, random = tmp_path / file_name, np.random.default_rng(3)
    write_file(path, np.ones((20, 3), np.float32))
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    refused = 0
    for _ in range(60):
        damaged = whole.copy()
        at = random.integers(min(len(whole), 400), size=3)
        damaged[at] = random.integers(256, size=3)
        path.write_bytes(damaged.tobytes())
        try:
            for array in open_arrays(path).values():
                array.require_numbers()
                for block in array.blocks(8):
                    assert len(block) <= 8
        except FeatureFileError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 5


MEMORY = """
import resource, sys
import numpy as np
from infojax.features.files import open_arrays
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
for path in sys.argv[1:]:
    [rows] = open_arrays(path).values()
    assert sum(len(block) for block in rows.blocks(8192)) == 500_000
    rows.take(np.arange(0, 500_000, 10))
    print(path, peak() - before)
    assert peak() - before < 100, (path, peak() - before)
"""


def test_memory_does_not_grow_with_the_file(tmp_path):
    """Four files of 256 MB (with holes, so that they are written at once) within 100 MB."""
    shape, size = (500_000, 128), 256_000_000
    paths = [tmp_path / name for name in ("c.npy", "fortran.npy", "f.safetensors", "f.h5")]
    for path in paths[:2]:
        header = {"descr": "<f4", "fortran_order": path.stem == "fortran", "shape": shape}
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + size)
    with open(paths[2], "wb") as file:
        header = b'{"z":{"dtype":"F32","shape":[500000,128],"data_offsets":[0,256000000]}}'
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(file.tell() + size)
    with h5py.File(paths[3], "w") as file:
        file.create_dataset("z", shape, np.float32)
    command = [sys.executable, "-c", MEMORY, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
