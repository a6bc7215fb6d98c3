"""How long work tells where it stands, without knowing who watches."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

__all__ = ["Counter", "Progress", "Stage", "silent"]

Progress = Callable[[int, int], None]
"""Called with (done, in all)."""

Stage = Callable[[str], AbstractContextManager[Progress | None]]
"""Opens a stage of the work by its name; yields what to call in it, or None where nobody watches."""


class Counter:
    """Adds up what is done, piece by piece, for a callback that wants to know where all of it stands."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total

    def __call__(self, count: int) -> None:
        """Say that so many more are done."""
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._total)


def silent(_: str) -> AbstractContextManager[Progress | None]:
    """Open a stage that nobody watches."""
    return nullcontext()
