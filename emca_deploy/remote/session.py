"""A session with an agent: probes the machine, sends what it lacks, and has one request run."""

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
from emca_deploy.remote.call import Call, call, keep_alive, new_mark
from emca_deploy.remote.connection import Connection
from emca_deploy.remote.files import Arriving, Blob, disk_error, fetch, send
from emca_deploy.remote.package import agent_bytes
from emca_deploy.remote.probe import Facts, check_python, look
from emca_deploy.remote.protocol import PROTOCOL, SILENCE_S

__all__ = ["Answer", "Session", "session"]

STOP_WITHIN_S = 30.0
"""Time in which an interrupted run finishes its block and reports what it has."""
_JOIN_S = 2.0


@dataclass
class Session:
    """A connection to a machine that was probed; `connect_s` is how long both took."""

    connection: Connection
    facts: Facts
    connect_s: float

    @contextmanager
    def ask(self, request: Mapping[str, Any], blobs: Mapping[str, Blob], progress: Progress | None = None) -> Iterator["Answer"]:
        """Send the agent and files, have a request run, and yield the answer. The machine keeps it if the block fails.

        Raises:
            EmcaError: the agent's error, of the same class, or files cannot be sent.
            ConnectionLostError: the connection was lost.
            KeyboardInterrupt: interrupted before there was anything to keep.
        """
        python = check_python(self.connection.address, self.facts)
        agent = send(self.connection, Blob.of_bytes(agent_bytes()), progress)
        for blob in {blob.digest: blob for blob in blobs.values()}.values():
            send(self.connection, blob, progress)
        files = {name: blob.digest for name, blob in blobs.items()}
        mark = new_mark()
        with call(self.connection, [python, agent, mark], mark) as running:
            teller = _Teller(running)
            teller.tell({"protocol": PROTOCOL, "silence_s": SILENCE_S, **request, "files": files})
            with teller:
                try:
                    answer = self._listen(running, teller, progress)
                except _StoppedError as exc:
                    raise KeyboardInterrupt from exc
                yield answer
                teller.tell({"do": "done"})
                running.wait()

    def _listen(self, running: Call, teller: "_Teller", progress: Progress | None) -> "Answer":
        """Return the agent's answer. Ctrl-C asks the agent for what it has; a second one does not wait for that."""
        inbox: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        threading.Thread(target=_read, args=(running, inbox), daemon=True).start()
        notes: list[str] = []
        stopped = waiting = False
        message: dict[str, Any] | None = None
        while True:
            try:
                if not waiting:
                    message = inbox.get()
                waiting = True  # an interrupt does not lose the message
                if message is None:
                    raise running.trouble(running.wait())
                if message.get("is") == "result":
                    log = tuple(line for line in running.error_output().splitlines() if line.strip())
                    return Answer(self, message["document"], message["files"], tuple(notes), stopped, log)
                self._note(message, notes, progress)
                waiting = False
            except KeyboardInterrupt:
                if stopped:
                    raise
                stopped = True
                teller.stop()

    def _note(self, message: Mapping[str, Any], notes: list[str], progress: Progress | None) -> None:
        """Handle a message that is not the answer; raise the error that it reports."""
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
        """Return what a result records of the connection."""
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
class Answer:
    """The answer to a request.

    Attributes:
        session: Session that it belongs to.
        document: JSON of the report.
        files: Remote path and sha256 of each file of the report, by name.
        notes: Lines for the user.
        stopped: Whether the user has stopped the run.
        log: Last lines that the runtimes printed.
    """

    session: Session
    document: dict[str, Any]
    files: dict[str, dict[str, Any]]
    notes: tuple[str, ...] = ()
    stopped: bool = False
    log: tuple[str, ...] = ()

    def fetch(self, name: str, path: Path) -> None:
        """Fetch a file of the report; see `files.fetch`."""
        fetch(self.session.connection, self.files[name]["path"], self.files[name]["sha256"], path)

    def fetch_rest(self, name: str, arriving: Arriving) -> None:
        """Fetch the missing part of a file of the report; see `Arriving.take`."""
        arriving.take(self.session.connection, self.files[name]["path"], self.files[name]["sha256"])


class _StoppedError(Exception):
    """The agent was stopped before there was anything to keep."""


def _error_of(message: Mapping[str, Any]) -> Exception:
    if message["kind"] == "KeyboardInterrupt":
        return _StoppedError()
    kind = getattr(errors, message["kind"], WorkerError) if message["kind"] in errors.__all__ else WorkerError
    error: EmcaError = kind(message["problem"], message["remedy"])
    return error


def _read(running: Call, inbox: "SimpleQueue[dict[str, Any] | None]") -> None:
    """Put the agent's messages into the inbox, and None at the end."""
    message: dict[str, Any] | None = {}
    while message is not None and message.get("is") != "result":
        try:
            message = running.message()
        except (OSError, ValueError):  # this side has closed the connection
            message = None
        inbox.put(message)


class _Teller:
    """Sends messages to the agent, and in its block one every few seconds to keep the connection alive."""

    def __init__(self, running: Call) -> None:
        self._running = running
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._late: threading.Timer | None = None

    def __enter__(self) -> None:
        self._beating = keep_alive(lambda: self.tell({"do": "alive"}), self._over.wait)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._late is not None:
            self._late.cancel()
        self._beating.join(_JOIN_S)

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message. If the agent no longer listens, the reading side finds out why."""
        with self._lock, suppress(OSError, ValueError):
            self._running.write(json.dumps(message).encode() + b"\n")

    def stop(self) -> None:
        """Ask the agent to report what it has, and hang up if it does not."""
        self.tell({"do": "stop"})
        self._late = threading.Timer(STOP_WITHIN_S, self._running.end)
        self._late.daemon = True
        self._late.start()


@contextmanager
def session(address: Address) -> Iterator[Session]:
    """Connect to a machine and probe it; nothing is sent yet.

    Raises:
        InputError: there is no host of that name, or ssh's configuration has an error.
        MissingError: the machine cannot be reached, or refuses the login.
    """
    with Connection(address) as connection:
        started = time.monotonic()
        facts = look(connection)
        yield Session(connection, facts, time.monotonic() - started)
