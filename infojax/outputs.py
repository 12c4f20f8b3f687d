"""Files that commands write: complete, or left as they were.

A regular file appears or is replaced in one step: its content goes to a temporary file in the same folder, which is
then renamed. The target of a symbolic link is replaced and the link stays; an existing file keeps its permissions.
FIFOs and character devices (/dev/null, a terminal) are written through, as a shell's `>` would.
"""

import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write(path: str | Path, content: str | bytes) -> None:
    """Writes one file; see `at_once`."""
    with at_once() as add:
        add(path, content)


@contextmanager
def at_once() -> Iterator[Callable[[str | Path, str | bytes], None]]:
    """Yields `add(path, content)`; the files appear when the block ends, and none of them if it fails.

    Missing folders are created. Text is UTF-8; what UTF-8 cannot encode (file names that are not text) is escaped.

    Raises:
      OSError: the system refused; the old files are then unchanged.
    """
    staged, streams, made = [], [], []

    def add(path: str | Path, content: str | bytes) -> None:
        data = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
        if _is_stream(path):
            streams.append((path, data))
            return
        target = Path(os.path.realpath(path))
        missing = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            made.append(folder)
        # Its name does not grow with the target's, which may already have the maximum length.
        temporary = target.with_name(f".infojax.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        staged.append((temporary, target))
        with _naming(path):
            _create(temporary, data, target)

    try:
        yield add
        while staged:
            with _naming(staged[0][1]):
                os.replace(*staged[0])
            staged.pop(0)
        made.clear()
        for path, data in streams:
            with _naming(path), open(os.open(path, os.O_WRONLY), "wb") as stream:
                stream.write(data)
    finally:
        for temporary, _ in staged:
            with suppress(OSError):
                temporary.unlink()
        for folder in reversed(made):
            with suppress(OSError):  # another process may have put something there
                folder.rmdir()


def refusal(path: str | Path, folder: bool = False) -> str:
    """Why no file (or folder of files) can be written at `path`, or "" if it can."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None
    except OSError as error:
        return error.strerror or str(error)
    if mode is None and not folder and os.fspath(path).endswith(os.sep):
        return "names a folder, expected a file"
    if mode is not None and stat.S_ISDIR(mode) != folder:
        return "is a file, expected a folder" if folder else "is a folder, expected a file"
    if mode is not None and not (folder or stat.S_ISREG(mode) or _is_stream(path)):
        return "is a block device or a socket, expected a file"
    needed = [path] if mode is not None else []
    if not (needed and folder) and not _is_stream(path):  # a file is replaced, which changes its folder
        parent = Path(os.path.realpath(path) if os.path.islink(path) else path).absolute().parent
        if not parent.is_dir():
            return f"no folder {parent}; make it first"
        needed.append(parent)
    if not all(os.access(place, os.W_OK) for place in needed):
        return "no permission to write there"
    if folder:  # some file systems, such as /proc, refuse only when one is made
        try:
            with tempfile.TemporaryDirectory(prefix=".infojax.", dir=needed[0]):
                pass
        except OSError as error:
            return f"no folder can be made there ({error.strerror})"
    return ""


def is_stdout(path: str | Path) -> bool:
    """Whether `path` is the regular file that stdout or stderr goes to: replacing it would lose what is there."""
    for number in (1, 2):
        with suppress(OSError):
            found = os.fstat(number)
            if stat.S_ISREG(found.st_mode) and os.path.samestat(found, os.stat(path)):
                return True
    return False


def same_file(first: str | Path, second: str | Path) -> bool:
    """Whether two paths name one file, which need not exist yet."""
    if os.path.realpath(first) == os.path.realpath(second):
        return True
    with suppress(OSError):
        return os.path.samefile(first, second)
    return False


def _is_stream(path: str | Path) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Makes errors name the requested file, not a temporary one or none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _create(temporary: Path, data: bytes, target: str | Path) -> None:
    """Creates a file that has the target's owner and permissions from the start, or those of the umask if it is new."""
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
        with suppress(FileNotFoundError):
            old, new = os.stat(target), os.stat(temporary)
            with suppress(OSError):  # only root may change owners, and not on every file system
                os.chown(temporary, old.st_uid, old.st_gid)
            if old.st_mode != new.st_mode:
                os.chmod(temporary, stat.S_IMODE(old.st_mode))
        file.write(data)
