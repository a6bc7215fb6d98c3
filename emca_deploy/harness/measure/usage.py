"""Counts what the system did to a process around each of its calls."""

import sys
from typing import Any

import numpy as np

from emca_deploy.arrays import Int64Array

__all__ = ["UsageLog"]


class UsageLog:
    """Rows of (involuntary context switches, page faults without and with a read from disk) of all threads, one for each call.

    A row counts from the one before. On a system that does not count there are no rows.
    """

    def __init__(self) -> None:
        self._read = _reader()
        self._rows: list[tuple[int, int, int]] = []
        self.start()

    def start(self) -> None:
        """Count the next row from now."""
        self._last = None if self._read is None else self._read()

    def note(self) -> None:
        """Add the row of the call that has just ended."""
        if self._read is not None and self._last is not None:
            now = self._read()
            self._rows.append((now[0] - self._last[0], now[1] - self._last[1], now[2] - self._last[2]))
            self._last = now

    def rows(self) -> Int64Array:
        """Return the rows, (calls, 3) or (0, 3) int64."""
        return np.array(self._rows, np.int64).reshape(-1, 3)


def _reader() -> Any:
    if sys.platform == "win32":
        return None
    from resource import RUSAGE_SELF, getrusage

    def read() -> tuple[int, int, int]:
        usage = getrusage(RUSAGE_SELF)
        return usage.ru_nivcsw, usage.ru_minflt, usage.ru_majflt

    return read
