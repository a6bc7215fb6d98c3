"""One command on a local or remote machine, run to its end and always stopped."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from emca_deploy.errors import WorkerError

__all__ = ["Finished", "Spawn", "reading", "run_to_end", "spawn_here", "stop"]

Spawn = Callable[[Sequence[str]], "subprocess.Popen[bytes]"]
"""A callable that starts a command (argument vector) on a machine, with output and errors in one pipe and empty standard input.
Stopping the process it returns must stop the command on a remote machine, too."""

GRACE_S = 5.0
MOST_LINES = 400_000
"""Lines of a log that are kept; a verbose build prints some ten thousand."""


@dataclass(frozen=True)
class Finished:
    """A command that ended: its exit code (negative for a signal), and its output and errors in order, as text."""

    code: int
    output: str
    seconds: float


def spawn_here(arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start a command on this machine in a new session, which lets `stop` end its children; raise OSError if it cannot start."""
    return subprocess.Popen(
        list(arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


def run_to_end(
    spawn: Spawn, arguments: Sequence[str], timeout_s: float, on_line: Callable[[str], None] | None = None
) -> Finished:
    """Run a command and return its output; Ctrl-C and a timeout stop it first.

    Another thread calls `on_line` with each line when it is printed.

    Raises:
        OSError: the command cannot be started.
        WorkerError: it took longer than `timeout_s`.
        KeyboardInterrupt: Ctrl-C was pressed; the command has been stopped.
    """
    started = time.monotonic()
    process = spawn(arguments)
    lines: list[str] = []

    def keep(line: str) -> None:
        if len(lines) < MOST_LINES:
            lines.append(line)
        if on_line is not None:
            on_line(line)

    try:
        with reading(process, keep):
            code = process.wait(timeout_s)
    except subprocess.TimeoutExpired as exc:
        raise WorkerError(
            f"{arguments[0]} did not end within {timeout_s:g} s", "use a longer --timeout, or check the machine"
        ) from exc
    return Finished(code, "".join(lines), time.monotonic() - started)


@contextmanager
def reading(process: "subprocess.Popen[bytes]", on_line: Callable[[str], None]) -> Iterator[None]:
    """Call `on_line` from another thread with each line that a process prints, and stop the process when the block ends."""

    def follow() -> None:
        assert process.stdout is not None  # a Spawn gives a pipe
        with process.stdout as pipe:
            for raw in pipe:
                on_line(raw.decode("utf-8", errors="replace"))

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    try:
        yield
    finally:
        stop(process)
        reader.join(GRACE_S)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a process, and its children if it has its own session; a process that has ended is left alone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with suppress(ProcessLookupError):  # it ended in between
            if os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
