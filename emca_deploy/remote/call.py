"""Commands on a remote machine, and their messages, which are marked because its shell may print other text."""

import json
import os
import secrets
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

from emca_deploy.errors import WorkerError
from emca_deploy.remote.connection import LOST, Connection
from emca_deploy.remote.errors import ConnectionLostError, failure
from emca_deploy.remote.protocol import ALIVE_EVERY_S

__all__ = ["Call", "call", "keep_alive", "new_mark"]

_TAIL_BYTES = 4000
_TAIL_LINES = 3
_END_S = 10.0


class Call:
    """A command that runs on a remote machine. Its messages begin with `mark`, which is new for each call."""

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
        """Return the next message, or None at the end. Lines that are no messages are skipped."""
        begin = self.mark.encode()
        for line in self._reader:
            self._connection.received_bytes += len(line)
            _, found, text = line.partition(begin)
            if found and line.endswith(b"\n"):
                message: dict[str, Any] = json.loads(text)
                return message
        return None

    def read(self, most: int) -> bytes:
        """Return raw bytes that follow a message; none at the end."""
        piece = self._reader.read1(most)
        self._connection.received_bytes += len(piece)
        return piece

    def write(self, data: bytes) -> None:
        """Send bytes to its standard input.

        Raises:
            BrokenPipeError: the command no longer reads.
        """
        assert self._process.stdin is not None
        view = memoryview(data)
        while view:
            written = self._process.stdin.write(view) or 0
            self._connection.sent_bytes += written
            view = view[written:]

    def close_input(self) -> None:
        """Close its standard input."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    @property
    def has_ended(self) -> bool:
        """Whether it has ended, or the connection is lost."""
        return self._process.poll() is not None

    def wait(self, timeout_s: float = _END_S) -> int:
        """Return its exit status, or ssh's own 255 if the connection is lost."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.end()
            return LOST

    def end(self) -> None:
        """Stop ssh, which ends the command."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def error_output(self) -> str:
        """Return the end of its standard error."""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _TAIL_BYTES))
        return self._stderr.read().decode(errors="replace")

    def last_lines(self, most: int) -> list[str]:
        """Wait for its end, and return the last lines of standard error, which may arrive after the messages."""
        self.wait()
        lines = [line.strip() for line in self.error_output().splitlines() if line.strip()]
        return lines[-most:] or ["no reason given"]

    def trouble(self, code: int) -> Exception:
        """Return the error for a command that ended too soon."""
        where = self._connection.address
        if code == LOST and not self._connection.reached:
            return failure(where, self.error_output(), self._connection.resolved())
        if code == LOST:
            return ConnectionLostError.to(where)
        reason = " | ".join(self.last_lines(_TAIL_LINES))
        return WorkerError(
            f"{where}: the remote command ended with exit code {code}: {reason}", "check that machine's memory and Python"
        )


@contextmanager
def call(connection: Connection, command: Sequence[str], mark: str | None = None) -> Iterator[Call]:
    """Run a command on a remote machine; it is stopped at the end of the block. `mark` begins its messages."""
    with tempfile.TemporaryFile() as stderr:
        running = Call(connection, connection.start(command, stderr.fileno()), mark or new_mark(), stderr)
        try:
            yield running
        finally:
            running.close_input()
            running.end()
            running._reader.close()


def new_mark() -> str:
    """Return a unique mark."""
    return f"emca-{secrets.token_hex(6)}:"


def keep_alive(beat: Callable[[], object], over: Callable[[float], bool]) -> threading.Thread:
    """Call `beat` every few seconds in a thread, and return the thread.

    It ends when no reader is left, or when `over`, which waits for the given seconds, returns True.
    """

    def run() -> None:
        with suppress(OSError, ValueError):
            while not over(ALIVE_EVERY_S):
                beat()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread
