"""A real terminal (pty) that runs a program, for tests of what people see."""

import os
import pty
import re
import select
import time
from collections.abc import Mapping, Sequence

__all__ = ["Terminal"]

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[()][A-Z0-9]|[=>])")
LONGEST_S = 60.0


class Terminal:
    """A program on a terminal of its own. A context manager: the program has ended whenever the block is left.

    Its environment is that of this process, with these values; a value of None removes a variable.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str | None] | None = None) -> None:
        self.raw = ""
        self._command = list(command)
        wanted = {**os.environ, **(environment or {})}
        self._environment = {name: value for name, value in wanted.items() if value is not None}

    def __enter__(self) -> "Terminal":
        self._pid, self._descriptor = pty.fork()
        if self._pid == 0:
            try:
                os.execvpe(self._command[0], self._command, self._environment)
            finally:
                os._exit(127)
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)  # hangs up
        os.waitpid(self._pid, 0)

    @property
    def text(self) -> str:
        """All output so far, without escape sequences."""
        return _ESCAPES.sub("", self.raw)

    def send(self, text: str) -> None:
        """Type a text."""
        os.write(self._descriptor, text.encode())

    def wait_for(self, text: str) -> None:
        """Read until a text appears."""
        deadline = time.monotonic() + LONGEST_S
        while text not in self.text:
            assert time.monotonic() < deadline, f"{text!r} is not in {self.text!r}"
            assert self._read(0.1), f"the program ended without {text!r}: {self.text!r}"

    def finish(self) -> str:
        """Read to the end of the program, and return all output with its escape sequences."""
        deadline = time.monotonic() + LONGEST_S
        while self._read(0.1):
            assert time.monotonic() < deadline, self.raw
        return self.raw

    def _read(self, wait_s: float) -> bool:
        if not select.select([self._descriptor], [], [], wait_s)[0]:
            return True
        try:
            piece = os.read(self._descriptor, 1 << 16)
        except OSError:  # Linux reports the end of a terminal as an error
            return False
        self.raw += piece.decode("utf-8", "replace")
        return bool(piece)
