"""Logits of a run, batch by batch, in an array that is allocated once."""

import os
import tempfile

import numpy as np

from emca_deploy.arrays import Float32Array
from emca_deploy.tasks.task import Arrays, Collector

__all__ = ["LogitsRows"]

MOST_IN_MEMORY_BYTES = 256 << 20
"""Larger logits are mapped from a temporary file; fifty thousand images of a thousand classes stay below."""


class LogitsRows(Collector):
    """Collects logits in an array that is allocated once; a large one is in a file without a name."""

    def __init__(self, before: Float32Array | None) -> None:
        self._rows = np.empty((0, 0), np.float32) if before is None else before
        self.done = len(self._rows)

    def add(self, arrays: Arrays, total: int) -> None:
        """Append the logits (n, classes) of a batch of `total` rows."""
        logits = np.asarray(arrays["logits"], np.float32)
        if len(self._rows) < total:
            before, self._rows = self._rows, _allocate(total, logits.shape[1])
            self._rows[: self.done] = before.reshape(self.done, logits.shape[1])
        self._rows[self.done : self.done + len(logits)] = logits
        self.done += len(logits)

    def finish(self) -> Float32Array:
        """Return all rows."""
        return self._rows[: self.done]


def _allocate(count: int, width: int) -> Float32Array:
    size = count * width * np.dtype(np.float32).itemsize
    if size > MOST_IN_MEMORY_BYTES and hasattr(os, "posix_fallocate"):
        try:
            with tempfile.TemporaryFile() as file:
                os.posix_fallocate(file.fileno(), 0, size)  # so a full disk is an error here, not a signal during a write
                return np.memmap(file, np.float32, "r+", shape=(count, width))
        except OSError:  # no space there: use memory
            pass
    return np.empty((count, width), np.float32)
