"""The handler of signals that end the program: SIGINT, SIGTERM and SIGHUP."""

import signal
import threading
import time
from types import FrameType

__all__ = ["interrupt"]

WAIT_S = 0.05


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; if a module is being imported, after the import.

    Extension modules run Python code while they are initialized. An exception there reaches C++ code that does not expect one
    (nanobind in `onnx`): the process aborts, and no `finally` runs.

    Raises:
        KeyboardInterrupt: no module is being imported.
    """
    if not _imports(frame):
        raise KeyboardInterrupt
    threading.Thread(target=_again, args=(number,), daemon=True).start()


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib."):
            return True
        frame = frame.f_back
    return False


def _again(number: int) -> None:
    main = threading.main_thread()
    time.sleep(WAIT_S)
    if main.ident is not None and main.is_alive():
        signal.pthread_kill(main.ident, number)
