"""How long work tells where it stands, without knowing who watches."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

__all__ = ["Progress", "Stage", "silent"]

Progress = Callable[[int, int], None]
"""Called with (done, in all)."""

Stage = Callable[[str], AbstractContextManager[Progress | None]]
"""Opens a stage of the work by its name; yields what to call in it, or None where nobody watches."""


def silent(_: str) -> AbstractContextManager[Progress | None]:
    """Open a stage that nobody watches."""
    return nullcontext()
