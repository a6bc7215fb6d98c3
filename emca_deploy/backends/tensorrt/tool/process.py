"""Running one command of a machine to its end, wherever that machine is, and never leaving it behind."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from emca_deploy.errors import WorkerError

__all__ = ["Finished", "Spawn", "reading", "run_to_end", "spawn_here", "stop"]

Spawn = Callable[[Sequence[str]], "subprocess.Popen[bytes]"]
"""Starts a command (its argument vector) on a machine: standard output and error in one pipe, standard input empty. A connection
supplies its own; stopping what it returns must stop the command on the remote machine, too."""

GRACE_S = 5.0
MOST_LINES = 400_000
"""Kept of a log; a verbose build prints some ten thousand."""


@dataclass(frozen=True)
class Finished:
    """A command that ended.

    Attributes:
        code: exit status; negative for a signal.
        output: standard output and error, in order; bytes that are no text replaced.
    """

    code: int
    output: str
    seconds: float


def spawn_here(arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start a command on this machine, in a session of its own so that it can be stopped with all it started.

    Raises:
        OSError: there is no such command, or it is not executable.
    """
    return subprocess.Popen(
        list(arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


def run_to_end(
    spawn: Spawn, arguments: Sequence[str], timeout_s: float, on_line: Callable[[str], None] | None = None
) -> Finished:
    """Run a command and return what it printed; Ctrl-C and a timeout stop it first.

    `on_line` is called with every line as it comes, from another thread.

    Raises:
        OSError: it cannot be started.
        WorkerError: it ran longer.
        KeyboardInterrupt: Ctrl-C; it has been stopped.
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
            f"{arguments[0]} did not end within {timeout_s:g} s", "give it longer with --timeout, or look at the machine"
        ) from exc
    return Finished(code, "".join(lines), time.monotonic() - started)


@contextmanager
def reading(process: "subprocess.Popen[bytes]", on_line: Callable[[str], None]) -> Iterator[None]:
    """Call with each line that a process prints, from another thread, and end the process with the block."""

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
    """End a process, and what it started where it has a session of its own; nothing happens where it has ended."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        _signal(process, number)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            continue


def _signal(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    try:
        if os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
    except ProcessLookupError:  # it ended in between
        pass
