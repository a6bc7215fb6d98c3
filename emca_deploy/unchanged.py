"""What was read from files, remembered for as long as they stay unchanged: a deployment reads each of its models once."""

import os
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

__all__ = ["Remembered", "Stamp", "set_apart", "stamp_of"]

MOST = 64
SETTLED_NS = 50_000_000
"""A file that was written this long ago gets another time with its next change: file systems' clocks tick every few ms."""

Stamp = tuple[int, int, int]
"""Time of the last change in ns, bytes, and the number of a file."""

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """Values by file."""

    def __init__(self) -> None:
        self._known: OrderedDict[Path, tuple[Stamp, Value]] = OrderedDict()

    def get(self, path: Path) -> Value | None:
        """Return the value of a file that is unchanged, else None.

        Raises:
            OSError: there is no such file.
        """
        stamp, value = self._known.get(path.absolute(), (None, None))
        return value if stamp == stamp_of(path) else None

    def put(self, path: Path, before: Stamp, value: Value, *, apart: bool = False) -> None:
        """Keep a value that was read from a file.

        Args:
            path: the file.
            before: its stamp from before it was read.
            value: the value.
            apart: whether its time was set apart, so that any later change is seen.
        """
        if apart or time.time_ns() - before[0] > SETTLED_NS:
            self._known[path.absolute()] = before, value
            while len(self._known) > MOST:
                self._known.popitem(last=False)


def set_apart(path: Path) -> Stamp | None:
    """Give a file that was just written a time that no later change can have, and return its stamp; None where it cannot be.

    Its time goes back by a nanosecond; whatever is written from now on has the clock's.
    """
    with suppress(OSError):
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - 1))
        stamp = stamp_of(path)
        if stamp[0] == status.st_mtime_ns - 1:
            return stamp
    return None


def stamp_of(path: Path) -> Stamp:
    """Return what changes with a file's content.

    Raises:
        OSError: there is no such file.
    """
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
