"""The handler of signals that end the program: SIGINT, SIGTERM and SIGHUP."""

import shutil
import signal
import subprocess
import threading
import time
from types import FrameType

__all__ = ["interrupt", "was_interrupted"]

WAIT_S = 0.05

_UNDIVIDED = {
    shutil.__file__: ("rmtree", "_rmtree_safe_fd", "_rmtree_safe_fd_step"),
    subprocess.__file__: ("__init__",),
}
"""Functions of the standard library by file that close descriptors by number.

Interrupted right after that, they close the number again: "Bad file descriptor" hides the interrupt, or a thread loses a file
that got the number in between.
"""


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; during an import, the removal of a folder or the start of a process, after it.

    Extension modules run Python code while they are initialized. An exception there reaches C++ code that does not expect one
    (nanobind in `onnx`): the process aborts, and no `finally` runs.

    Raises:
        KeyboardInterrupt: none of these is under way.
    """
    if not _undivided(frame):
        raise KeyboardInterrupt
    threading.Thread(target=_again, args=(number,), daemon=True).start()


def was_interrupted(error: BaseException) -> bool:
    """Return whether an error is of cleaning up after an interrupt, which it hides."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, KeyboardInterrupt):
        found = found.__context__
    return found is not None


def _undivided(frame: FrameType | None) -> bool:
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith("<frozen importlib.") or frame.f_code.co_name in _UNDIVIDED.get(file, ()):
            return True
        frame = frame.f_back
    return False


def _again(number: int) -> None:
    main = threading.main_thread()
    time.sleep(WAIT_S)
    if main.ident is not None and main.is_alive():
        signal.pthread_kill(main.ident, number)
