"""PyTorch's files: the tensors of a `.pt`, `.pth`, `.ckpt` or `.bin` file by name, without torch or unpickling.

torch.save writes a zip archive: the numbers of each storage as in memory, and a pickle, `data.pkl`, that describes the
tensors made of them; before PyTorch 1.6 it wrote pickles and numbers one after the other. A pickle can run any code, so
its instructions are read one by one: those that build dicts, lists and tensors are carried out, and any other gives a
one-line error.
"""

import pickletools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from infojax.features.layouts import Checksum, Layout, data_of, raw_parts
from infojax.features.sources import FeatureFileError, StoredArray, held

MOST_PICKLE = 2**26  # bytes; the pickle of a network with 100,000 tensors has about 20 MB
DEEPEST = 50  # levels of nested dicts and lists
BEFORE_1_6 = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")  # the format that torch.save wrote before PyTorch 1.6
FLOATS = {"Float": "f4", "Double": "f8", "Half": "f2", "BFloat16": ml_dtypes.bfloat16}
WHOLE = {"Long": "i8", "Int": "i4", "Short": "i2", "Char": "i1", "Byte": "u1", "Bool": "?"}
COMPLEX = {"ComplexFloat": "c8", "ComplexDouble": "c16"}  # rejected later, by name
STORAGES = {f"{name}Storage": np.dtype(code) for name, code in (FLOATS | WHOLE | COMPLEX).items()}
DTYPES = {
    **{f"uint{bits}": np.dtype(f"uint{bits}") for bits in (16, 32, 64)},
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
}


class Storage(NamedTuple):
    """Numbers in a member of the archive; the dtype of an untyped storage is given by the tensor."""

    key: str
    dtype: np.dtype | None
    numbers: int


class Tensor(NamedTuple):
    """A tensor: its offset in the storage, shape and strides, all counted in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype


class Named(NamedTuple):
    """A function or type that the pickle refers to by name."""

    module: str
    name: str


def _tensor(storage: Storage, offset: int, shape: tuple, strides: tuple, dtype: Any = None) -> Tensor:
    kind = storage.dtype if dtype is None else DTYPES.get(getattr(dtype, "name", ""))
    whole = (offset, *shape, *strides)
    if kind is None or len(shape) != len(strides) or any(type(n) is not int or n < 0 for n in whole):
        raise ValueError("a tensor of an unknown kind")
    return Tensor(storage, offset, tuple(shape), tuple(strides), kind)


# What the pickle may call; the ignored arguments are requires_grad, hooks and metadata.
CALLS: dict[Named, Callable] = {
    Named("torch._utils", "_rebuild_tensor"): lambda s, o, n, k: _tensor(s, o, n, k),
    Named("torch._utils", "_rebuild_tensor_v2"): lambda s, o, n, k, *_: _tensor(s, o, n, k),
    Named("torch._utils", "_rebuild_tensor_v3"): lambda s, o, n, k, grad, hooks, dtype, *_: _tensor(s, o, n, k, dtype),
    Named("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    Named("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: data,
    Named("torch", "Size"): tuple,
    Named("torch", "device"): lambda *_: None,
    Named("collections", "OrderedDict"): dict,
}


class Machine:
    """Carries out the instructions of a pickle that build dicts, lists, numbers, text and tensors.

    Raises:
      FeatureFileError: any other instruction, function or type, by name.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def run(self, data: Any) -> Any:
        """What a pickle describes, of bytes or a file, which is read to its end; ValueError if it is damaged."""
        for instruction, argument, _ in pickletools.genops(data):
            if instruction.name == "STOP":
                return self.stack.pop()
            if instruction.name not in INSTRUCTIONS:
                self.refuse(f"the instruction {instruction.name}")
            INSTRUCTIONS[instruction.name](self, argument)
        raise ValueError("its pickle ends too early")

    def refuse(self, what: str) -> None:
        """Raises FeatureFileError that names what the file holds besides tensors."""
        raise FeatureFileError(
            f"{self.where}: holds {what[:80]}, which is not a tensor; code in a file is never run; save only tensors: "
            "torch.save of a dict of them"
        )

    def since_mark(self) -> list[Any]:
        """Takes what is on the stack since the last mark."""
        at = self.marks.pop()
        found, self.stack[at:] = self.stack[at:], []
        return found

    def named(self, module: str, name: str) -> None:
        """Pushes a function or type by name, if it is one that tensors need; it is never imported."""
        found = Named(module, name)
        storage = module in ("torch", "torch.storage") and (name in STORAGES or name == "UntypedStorage")
        if not (found in CALLS or storage or (module == "torch" and name in DTYPES)):
            self.refuse(f"{module}.{name}")
        self.stack.append(found)

    def call(self) -> None:
        """Calls a function of CALLS with the tuple on top of the stack, and pushes the result."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if not (isinstance(function, Named) and function in CALLS and isinstance(arguments, tuple)):
            self.refuse(f"a call of {'.'.join(function) if isinstance(function, Named) else type(function).__name__}")
        self.stack.append(CALLS[function](*arguments))

    def storage(self) -> None:
        """Pushes the `Storage` that a persistent id describes."""
        what, kind, key, _, numbers, *view = self.stack.pop()
        if (
            what != "storage"
            or any(view)
            or not isinstance(kind, Named)
            or type(key) is not str
            or type(numbers) is not int
        ):
            raise ValueError("a storage of an unknown kind")
        self.storages[key] = Storage(key, STORAGES.get(kind.name), numbers)
        self.stack.append(self.storages[key])

    def put(self, pairs: list[Any]) -> None:
        """Adds pairs, alternating keys and values, to the dict on top of the stack."""
        self.stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))

    def extend(self, items: list[Any]) -> None:
        """Adds items to the list on top of the stack."""
        self.stack[-1].extend(items)

    def drop(self, count: int) -> tuple[Any, ...]:
        """Takes the `count` uppermost values; ValueError if there are fewer."""
        found = tuple(self.stack[len(self.stack) - count :])
        if len(found) != count:
            raise ValueError("its pickle is damaged")
        del self.stack[len(self.stack) - count :]
        return found


def _constant(value: Any) -> Callable:
    return lambda machine, _: machine.stack.append(value() if isinstance(value, type) else value)


INSTRUCTIONS: dict[str, Callable[[Machine, Any], Any]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda m, _: None),
    **dict.fromkeys(
        ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE",
         "SHORT_BINUNICODE", "BINUNICODE8"),
        lambda m, value: m.stack.append(value),
    ),
    "NONE": _constant(None), "NEWTRUE": _constant(True), "NEWFALSE": _constant(False),
    "EMPTY_DICT": _constant(dict), "EMPTY_LIST": _constant(list), "EMPTY_TUPLE": _constant(()),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.since_mark())),
    "TUPLE1": lambda m, _: m.stack.append(m.drop(1)),
    "TUPLE2": lambda m, _: m.stack.append(m.drop(2)),
    "TUPLE3": lambda m, _: m.stack.append(m.drop(3)),
    "APPEND": lambda m, _: m.extend(list(m.drop(1))),
    "APPENDS": lambda m, _: m.extend(m.since_mark()),
    "SETITEM": lambda m, _: m.put(list(m.drop(2))),
    "SETITEMS": lambda m, _: m.put(m.since_mark()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "PUT"), lambda m, i: m.memo.__setitem__(i, m.stack[-1])),
    "MEMOIZE": lambda m, _: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    **dict.fromkeys(("BINGET", "LONG_BINGET", "GET"), lambda m, i: m.stack.append(m.memo[i])),
    "GLOBAL": lambda m, names: m.named(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.named(*map(str, m.drop(2))),
    "REDUCE": lambda m, _: m.call(),
    "BINPERSID": lambda m, _: m.storage(),
    "BUILD": lambda m, _: m.drop(1),  # attributes of the object, such as the versions in a state dict
}  # fmt: skip


def _leaves(value: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """(dotted name, tensor or other value) of nested dicts, lists and tuples; a list of numbers is one value."""
    if depth > DEEPEST:
        raise ValueError(f"its dicts and lists are nested more than {DEEPEST} deep")
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list | tuple) and not isinstance(value, Tensor | Named | Storage) and not _numbers(value):
        inner = enumerate(value)
    else:
        yield name or "features", value
        return
    for key, part in inner:
        yield from _leaves(part, f"{name}.{key}" if name else str(key), depth + 1)


def _numbers(value: Any) -> bool:
    return bool(value) and all(type(one) in (int, float) for one in value)


def open_torch(path: Path) -> dict[str, StoredArray]:
    """The tensors of a file written by torch.save, under the dotted names of its dicts and lists; a single tensor is
    named `features`. Other values are left out, except lists of numbers, which may be labels.

    Raises:
      FeatureFileError: an object that only running code could build, by name; or a damaged file.
    """
    with open(path, "rb") as file:
        if file.read(len(BEFORE_1_6)) == BEFORE_1_6:
            sequence = _Sequence(path, file)
            return _arrays(path, sequence.value, sequence.array)
        if not zipfile.is_zipfile(path):
            raise FeatureFileError(f"{path}: is not a file of torch.save, or is truncated")
        with zipfile.ZipFile(path) as archive:
            archive_of = _Archive(path, archive, file)
            return _arrays(path, Machine(str(path)).run(archive_of.pickle()), archive_of.array)


def _arrays(path: Path, value: Any, array: Callable[[str, Tensor], StoredArray]) -> dict[str, StoredArray]:
    """The tensors and lists of numbers of what a file describes."""
    arrays: dict[str, StoredArray] = {}
    for name, leaf in _leaves(value):
        if name in arrays:
            raise FeatureFileError(f"{path}: holds two tensors named {name}; save them under different names")
        if isinstance(leaf, Tensor):
            arrays[name] = array(name, leaf)
        elif isinstance(leaf, list | tuple):
            arrays[name] = held(f"{path}: {name}", np.array(leaf))
    return arrays


def _stored(path: Path, name: str, tensor: Tensor, begin: int, size: int, big: bool, crc: int = 0) -> StoredArray:
    """A tensor whose storage has `size` bytes from byte `begin` of the file; other tensors may share it."""
    width = tensor.dtype.itemsize
    last = tensor.offset + sum((n - 1) * k for n, k in zip(tensor.shape, tensor.strides, strict=True))
    if 0 not in tensor.shape and (last + 1) * width > size:
        raise FeatureFileError(
            f"{path}: truncated: {name} ends at byte {(last + 1) * width} of its numbers, of which there are {size}"
        )
    dtype = tensor.dtype.newbyteorder(">") if big and tensor.dtype.kind != "V" else tensor.dtype
    layout = Layout(tensor.shape, dtype, given=tuple(width * k for k in tensor.strides))
    # A checksum of zero means that there is none, as after torch.serialization.set_crc32_options(False).
    checksum = Checksum(begin, size, crc) if crc else None
    opener = raw_parts(path, begin + width * tensor.offset, layout, checksum)
    return StoredArray(f"{path}: {name}", tensor.shape, dtype, opener)


class _Sequence:
    """A file of PyTorch before 1.6: pickles of a magic number, a version, the byte order, the value and the keys of the
    storages; then each storage as the count of its numbers, 8 bytes, and the numbers.
    """

    def __init__(self, path: Path, file: Any) -> None:
        self.path = path
        file.seek(0)
        _, _, system = (Machine(str(path)).run(file) for _ in range(3))
        self.big_endian = not system["little_endian"]
        machine = Machine(str(path))
        self.value, keys = machine.run(file), Machine(str(path)).run(file)
        self.places, at, end = {}, file.tell(), path.stat().st_size
        for key in keys:
            storage = machine.storages.get(key)
            if storage is None or storage.dtype is None:
                raise FeatureFileError(f"{path}: the kind of the numbers {str(key)[:40]} is missing")
            size = storage.numbers * storage.dtype.itemsize
            self.places[key] = at + 8, min(size, max(0, end - at - 8))
            at += 8 + size

    def array(self, name: str, tensor: Tensor) -> StoredArray:
        """A tensor stored in memory that other tensors may share."""
        if tensor.storage.key not in self.places:
            raise FeatureFileError(f"{self.path}: the numbers of {name} are missing")
        return _stored(self.path, name, tensor, *self.places[tensor.storage.key], self.big_endian)


class _Archive:
    """The members of a file of torch.save; their common folder may have any name."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, file: Any) -> None:
        self.path, self.archive, self.file = path, archive, file
        self.members = {info.filename: info for info in archive.infolist()}
        found = [name for name in self.members if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(found) != 1:
            raise FeatureFileError(f"{path}: is not a file of torch.save: it has {len(found)} members data.pkl")
        self.folder = found[0].removesuffix("data.pkl")
        order = self.members.get(f"{self.folder}byteorder")
        self.big_endian = order is not None and archive.read(order)[:3] == b"big"

    def pickle(self) -> bytes:
        info = self.members[f"{self.folder}data.pkl"]
        if info.file_size > MOST_PICKLE:
            raise FeatureFileError(
                f"{self.path}: its data.pkl has {info.file_size} bytes, at most {MOST_PICKLE} are read"
            )
        return self.archive.read(info)

    def array(self, name: str, tensor: Tensor) -> StoredArray:
        """A tensor stored in memory that other tensors may share."""
        info = self.members.get(f"{self.folder}data/{tensor.storage.key}")
        if info is None or info.compress_type != zipfile.ZIP_STORED:
            raise FeatureFileError(f"{self.path}: the numbers of {name} are missing")
        begin = data_of(info, self.file)
        return _stored(self.path, name, tensor, begin, info.file_size, self.big_endian, info.CRC)
