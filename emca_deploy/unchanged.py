"""A cache of values read from files, valid while the files are unchanged."""

import os
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

__all__ = ["Remembered", "Stamp", "set_apart", "stamp_of"]

MOST = 64
SETTLED_NS = 50_000_000
"""Age from which a file's next change surely changes its time: file systems' clocks tick every few ms."""

Stamp = tuple[int, int, int]
"""Time of the last change in ns, size in bytes, and inode of a file."""

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """Values by file, the latest `MOST` of them."""

    def __init__(self) -> None:
        self._known: OrderedDict[Path, tuple[Stamp, Value]] = OrderedDict()

    def get(self, path: Path) -> Value | None:
        """Return the value of an unchanged file, else None.

        Raises:
            OSError: the file does not exist.
        """
        stamp, value = self._known.get(path.absolute(), (None, None))
        return value if stamp == stamp_of(path) else None

    def put(self, path: Path, before: Stamp, value: Value, *, apart: bool = False) -> None:
        """Keep a value that was read from a file.

        Args:
            path: file it was read from.
            before: stamp of the file before it was read.
            value: value to keep.
            apart: whether `set_apart` gave the file a time that no later change can have.
        """
        if apart or time.time_ns() - before[0] > SETTLED_NS:
            self._known[path.absolute()] = before, value
            while len(self._known) > MOST:
                self._known.popitem(last=False)


def set_apart(path: Path) -> Stamp | None:
    """Give a file that was just written a time that no later change can have: a nanosecond earlier.

    Returns:
        The new stamp, or None if the time could not be set.
    """
    with suppress(OSError):
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - 1))
        stamp = stamp_of(path)
        if stamp[0] == status.st_mtime_ns - 1:
            return stamp
    return None


def stamp_of(path: Path) -> Stamp:
    """Return a file's stamp, which changes with its content.

    Raises:
        OSError: the file does not exist.
    """
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
