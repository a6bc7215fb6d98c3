"""A session with an agent: the machine is probed, given what it lacks, asked for one request, and left as it was."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from emca_deploy import errors
from emca_deploy._progress import Progress
from emca_deploy.errors import EmcaError, WorkerError
from emca_deploy.remote.address import Address
from emca_deploy.remote.call import Call, call, new_mark
from emca_deploy.remote.connection import Connection
from emca_deploy.remote.files import Arriving, Blob, disk_error, fetch, send
from emca_deploy.remote.package import agent_bytes
from emca_deploy.remote.probe import Facts, check_python, look
from emca_deploy.remote.protocol import ALIVE_EVERY_S, PROTOCOL, SILENCE_S

__all__ = ["Answer", "Session", "Working", "session"]

STOP_WITHIN_S = 30.0
"""Time in which an interrupted run finishes its block and reports what it has."""


@dataclass(frozen=True)
class Answer:
    """What came of a request: the result, lines for the user, whether the user stopped it, and the last that runtimes said."""

    document: dict[str, Any]
    notes: tuple[str, ...] = ()
    stopped: bool = False
    log: tuple[str, ...] = ()


@dataclass
class Session:
    """A machine that can be asked; `connect_s` is how long it took to connect and to look at it."""

    connection: Connection
    facts: Facts
    connect_s: float
    _agent: str = ""

    def give(self, blobs: Mapping[str, Blob], progress: Progress | None = None) -> dict[str, str]:
        """Send files, or what is not there yet, and the agent; return the hash of each by its name.

        Raises:
            EmcaError: as `transfer.send`.
        """
        check_python(self.connection.address, self.facts)
        self._agent = send(self.connection, Blob.of_bytes(agent_bytes()), progress)
        for blob in {blob.digest: blob for blob in blobs.values()}.values():
            send(self.connection, blob, progress)
        return {name: blob.digest for name, blob in blobs.items()}

    @contextmanager
    def ask(self, request: Mapping[str, Any], progress: Progress | None = None) -> Iterator["Working"]:
        """Have a request run, and yield what came of it; once the block is left without an error, the remote machine removes it.

        Raises:
            EmcaError: what went wrong there, of the same class.
            ConnectionLostError: the connection was lost.
            KeyboardInterrupt: interrupted before there was anything to keep.
        """
        mark = new_mark()
        python = check_python(self.connection.address, self.facts)
        with call(self.connection, [python, self._agent, mark], mark) as running:
            teller = _Teller(running)
            teller.tell({"protocol": PROTOCOL, "silence_s": SILENCE_S, **request})
            with teller:
                try:
                    answer = self._listen(running, teller, progress)
                except _StoppedError as exc:
                    raise KeyboardInterrupt from exc
                yield Working(self, answer)
                teller.tell({"do": "done"})
                running.wait()

    def _listen(self, running: Call, teller: "_Teller", progress: Progress | None) -> Answer:
        """Return the agent's answer; Ctrl-C asks it for what it has, a second one does not wait for that."""
        inbox: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        threading.Thread(target=_read, args=(running, inbox), daemon=True).start()
        notes: list[str] = []
        stopped = waiting = False
        message: dict[str, Any] | None = None
        while True:
            try:
                if not waiting:
                    message = inbox.get()
                waiting = True  # an interrupt does not lose it
                if message is None:
                    raise running.trouble(running.wait())
                if message.get("is") == "result":
                    log = tuple(line for line in running.said().splitlines() if line.strip())
                    return Answer({**message["document"], "files": message["files"]}, tuple(notes), stopped, log)
                self._note(message, notes, progress)
                waiting = False
            except KeyboardInterrupt:
                if stopped:
                    raise
                stopped = True
                teller.stop()

    def _note(self, message: Mapping[str, Any], notes: list[str], progress: Progress | None) -> None:
        """Take a message that is not the answer.

        Raises:
            EmcaError: it is an error.
            _StoppedError: it ended before there was anything to keep.
        """
        kind = message.get("is")
        if kind == "progress" and progress is not None:
            progress(message["done"], message["total"])
        elif kind == "note":
            notes.append(message["text"])
        elif "code" in message:
            raise disk_error(self.connection, message)
        elif kind == "error":
            raise _error_of(message)

    def record(self) -> dict[str, Any]:
        """Return what a result says about the connection."""
        facts, connection = self.facts, self.connection
        return {
            "destination": str(connection.address),
            "python": facts.python,
            "python_version": facts.python_version,
            "versions": dict(facts.versions),
            "clock_offset_s": facts.clock_offset_s,
            "connect_s": round(self.connect_s, 3),
            "sent_bytes": connection.sent_bytes,
            "received_bytes": connection.received_bytes,
        }


@dataclass(frozen=True)
class Working:
    """A request that is done, whose files are still on the remote machine."""

    session: Session
    answer: Answer

    def fetch(self, name: str, path: Path) -> None:
        """Fetch a file of the report.

        Raises:
            EmcaError: as `transfer.fetch`.
        """
        entry = self.answer.document["files"][name]
        fetch(self.session.connection, entry["path"], entry["sha256"], path)

    def go_on(self, name: str, arriving: Arriving) -> None:
        """Fetch what is missing of a file of the report.

        Raises:
            EmcaError: as `Arriving.take`.
        """
        entry = self.answer.document["files"][name]
        arriving.take(self.session.connection, entry["path"], entry["sha256"])


class _StoppedError(Exception):
    """The agent ended, as it was told, before there was anything to keep."""


def _error_of(message: Mapping[str, Any]) -> Exception:
    if message["kind"] == "KeyboardInterrupt":
        return _StoppedError()
    kind = getattr(errors, message["kind"], WorkerError) if message["kind"] in errors.__all__ else WorkerError
    error: EmcaError = kind(message["problem"], message["remedy"])
    return error


def _read(running: Call, inbox: "SimpleQueue[dict[str, Any] | None]") -> None:
    """Pass on what the agent says, and None at the end."""
    message: dict[str, Any] | None = {}
    while message is not None and message.get("is") != "result":
        try:
            message = running.message()
        except (OSError, ValueError):  # the line was closed on this side
            message = None
        inbox.put(message)


class _Teller:
    """Tells the agent that this machine is still there, and when to stop. A context manager."""

    def __init__(self, running: Call) -> None:
        self._running = running
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._late: threading.Timer | None = None

    def __enter__(self) -> "_Teller":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._late is not None:
            self._late.cancel()
        self._thread.join(ALIVE_EVERY_S)

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message; where nobody listens, the reading side finds out why."""
        with self._lock, suppress(OSError, ValueError):
            self._running.write(json.dumps(message).encode() + b"\n")

    def stop(self) -> None:
        """Ask the agent to end with what it has, and hang up where it does not."""
        self.tell({"do": "stop"})
        self._late = threading.Timer(STOP_WITHIN_S, self._running.end)
        self._late.daemon = True
        self._late.start()

    def _beat(self) -> None:
        while not self._over.wait(ALIVE_EVERY_S):
            self.tell({"do": "alive"})


@contextmanager
def session(address: Address) -> Iterator[Session]:
    """Connect to a machine, look at it, and yield it; nothing is sent yet.

    Raises:
        InputError: there is no host of that name, or ssh's configuration is in error.
        MissingError: it cannot be reached, or does not let us in.
    """
    with Connection(address) as connection:
        started = time.monotonic()
        facts = look(connection)
        yield Session(connection, facts, time.monotonic() - started)
