"""Commands on the remote machine: its interpreter, and marked messages among whatever else its shell prints."""

import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

from emca_deploy.errors import WorkerError
from emca_deploy.remote.connection import LOST, Connection
from emca_deploy.remote.errors import ConnectionLostError, failure

__all__ = ["Call", "call", "new_mark"]

_TAIL_BYTES = 4000
_TAIL_LINES = 3
_END_S = 10.0


class Call:
    """A command that runs there. Its messages begin with `mark`, a new one each time, so that no banner has it."""

    def __init__(self, connection: Connection, process: "subprocess.Popen[bytes]", mark: str, stderr: IO[bytes]) -> None:
        self.mark = mark
        self._connection = connection
        self._process = process
        self._stderr = stderr
        assert process.stdout is not None
        assert process.stdin is not None
        self._reader = os.fdopen(os.dup(process.stdout.fileno()), "rb")
        process.stdout.close()

    def message(self) -> dict[str, Any] | None:
        """Return the next message, what is no message left out, or None at the end."""
        begin = self.mark.encode()
        for line in self._reader:
            self._connection.received_bytes += len(line)
            _, found, text = line.partition(begin)
            if found and line.endswith(b"\n"):
                message: dict[str, Any] = json.loads(text)
                return message
        return None

    def read(self, most: int) -> bytes:
        """Return the raw bytes behind a message; none at the end."""
        piece = self._reader.read1(most)
        self._connection.received_bytes += len(piece)
        return piece

    def write(self, data: bytes) -> None:
        """Send bytes to its standard input.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        assert self._process.stdin is not None
        view = memoryview(data)
        while view:
            written = self._process.stdin.write(view) or 0
            self._connection.sent_bytes += written
            view = view[written:]

    def close_input(self) -> None:
        """Tell it that nothing more comes."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    @property
    def has_ended(self) -> bool:
        """Whether it has ended, or the connection is lost."""
        return self._process.poll() is not None

    def wait(self, timeout_s: float = _END_S) -> int:
        """Return its exit status, ssh's own 255 where the connection is lost."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.end()
            return LOST

    def end(self) -> None:
        """Stop ssh; the remote machine notices."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def said(self) -> str:
        """Return the last that came on standard error."""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _TAIL_BYTES))
        return self._stderr.read().decode(errors="replace")

    def last_lines(self, most: int) -> list[str]:
        """Wait for its end, and return the last lines of standard error, which travels beside the messages and may come later."""
        self.wait()
        lines = [line.strip() for line in self.said().splitlines() if line.strip()]
        return lines[-most:] or ["it does not say why"]

    def trouble(self, code: int) -> Exception:
        """Return the error for a command that ended too soon."""
        said, where = self.said(), self._connection.address
        if code == LOST and not self._connection.reached:
            return failure(where, said, self._connection.resolved())
        if code == LOST:
            return ConnectionLostError.to(where)
        reason = " | ".join(self.last_lines(_TAIL_LINES))
        return WorkerError(
            f"{where}: what ran there ended with exit code {code}: {reason}", "look at that machine: memory, or its Python"
        )


@contextmanager
def call(connection: Connection, command: Sequence[str], mark: str | None = None) -> Iterator[Call]:
    """Run a command there; it is stopped when the block is left, if it has not ended.

    `mark` is what begins its messages, where the command has been told already.
    """
    with tempfile.TemporaryFile() as stderr:
        running = Call(connection, connection.start(command, stderr.fileno()), mark or new_mark(), stderr)
        try:
            yield running
        finally:
            running.close_input()
            running.end()
            running._reader.close()


def new_mark() -> str:
    """Return a mark that nothing else begins with."""
    return f"emca-{secrets.token_hex(6)}:"
