"""One run at a time in a run folder: a lock that the kernel releases when a process dies, however it dies.

POSIX record locks (`fcntl.lockf`) hold across the hosts of NFS and Lustre where these support them. Where they do not,
the lock holds on one host only, or there is none: then a run that no lock can tell of is alive if the file is touched
while we watch, as its owner does every few seconds. (Process ids say nothing: containers have their own.)
"""

import json
import os
import platform
import threading
import time
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # where it does not exist

BEAT = 5.0  # seconds between touches
PATIENCE = 3  # beats without a touch after which a run is considered gone


class InUseError(RuntimeError):
    """Another process has the lock; the message says which."""


def check_free(path: str | Path) -> None:
    """Raises InUseError if another process holds the lock of a file; acquires and creates nothing.

    An early check before long work; where locks are not supported it does nothing, and `Lock` decides.
    """
    with suppress(OSError), open(path, encoding="utf-8") as file:
        try:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise InUseError(_told(path, _owner(file))) from None


def _owner(file):
    """Who last wrote to a lock's file without emptying it."""
    file.seek(0)
    try:
        owner = json.loads(file.read())
        return owner if owner.keys() >= {"pid", "host", "since"} else None
    except (ValueError, AttributeError, RecursionError):
        return None


def _told(path, owner):
    if owner is None:  # the owner has not written its name yet
        owner = {"pid": "that has just begun", "host": "this or another host", "since": "this moment"}
    who = f"process {owner['pid']} on {owner['host']} has used it since {owner['since']}"
    seen = time.strftime("%H:%M:%S", time.localtime(os.stat(path).st_mtime))
    return f"{who}, last sign of life at {seen}; stop it or wait for it"


class Lock:
    """Holds `path` until `release`.

    Raises:
      InUseError: names the process, its host and since when. OSError: the file cannot be created.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self._stop = Path(path), threading.Event()
        self._file = open(self.path, "a+", encoding="utf-8")
        try:
            locked = self._lock()
            owner = _owner(self._file)
            if locked is False or (owner and self._alive(owner, locked)):
                raise InUseError(_told(self.path, owner))
        except BaseException:
            self._file.close()
            raise
        self._write({"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")})
        threading.Thread(target=self._beat, daemon=True).start()

    def release(self) -> None:
        """Releases the lock; the file stays, empty."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._write(None)
        self._file.close()  # closing unlocks

    def _lock(self):
        """True: acquired. False: another process holds it. None: locks are not supported."""
        if fcntl is None:
            return None
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            return None

    def _alive(self, owner, locked):
        if locked and owner["host"] == platform.node():
            return False
        before = os.stat(self.path).st_mtime_ns  # on the file server's clock, which all hosts share
        for _ in range(PATIENCE):
            time.sleep(BEAT)
            if os.stat(self.path).st_mtime_ns != before:
                return True
        return False

    def _write(self, owner):
        self._file.seek(0)
        self._file.truncate()
        if owner:
            self._file.write(json.dumps(owner))
        self._file.flush()

    def _beat(self):
        while not self._stop.wait(BEAT):
            try:
                os.utime(self.path)
            except OSError:
                return  # the folder was removed; the next write to it reports that
