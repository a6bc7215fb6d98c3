"""Callbacks for the progress of long work."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

__all__ = ["Counter", "Progress", "Stage", "silent"]

Progress = Callable[[int, int], None]
"""A callback that gets (done, total)."""

Stage = Callable[[str], AbstractContextManager[Progress | None]]
"""A callback that opens a named stage of the work, and yields its progress callback or None."""


class Counter:
    """A sum of what is done, reported to a progress callback."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total

    def __call__(self, count: int) -> None:
        """Add `count` to what is done."""
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._total)


def silent(_: str) -> AbstractContextManager[Progress | None]:
    """Open a stage without progress."""
    return nullcontext()
