"""Files to and from the far side: by their hash, from where an earlier attempt ended, and checked when they are there."""

import hashlib
import io
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from emca_deploy._progress import Progress
from emca_deploy.artifacts import atomic_write, sha256_file
from emca_deploy.errors import EmcaError, MissingError, WorkerError
from emca_deploy.remote.call import Call, call, new_mark, program
from emca_deploy.remote.connection import Connection

__all__ = ["Arriving", "Blob", "answer_of", "disk_error", "fetch", "send", "send_once"]

PIECE = 1 << 17
ATTEMPTS = 2
ENOSPC = 28


@dataclass(frozen=True)
class Blob:
    """Content to be sent.

    Attributes:
        digest: its sha256.
        size: its bytes.
        content: a file, or the bytes themselves.
    """

    digest: str
    size: int
    content: Path | bytes

    @classmethod
    def of_file(cls, path: Path) -> "Blob":
        """Hash a file.

        Raises:
            InputError: it cannot be read.
        """
        digest = sha256_file(path)
        return cls(digest, path.stat().st_size, path)

    @classmethod
    def of_bytes(cls, content: bytes) -> "Blob":
        """Hash bytes."""
        return cls(hashlib.sha256(content).hexdigest(), len(content), content)

    def open(self) -> IO[bytes]:
        """Open it for reading."""
        return io.BytesIO(self.content) if isinstance(self.content, bytes) else self.content.open("rb")


def send(connection: Connection, python: str, blob: Blob, progress: Progress | None = None) -> None:
    """Send content, or what the far side lacks of it.

    Args:
        connection: to the machine.
        python: the interpreter there.
        blob: the content.
        progress: called with (bytes there, bytes in all).

    Raises:
        MissingError: the disk there is full, or the folder cannot be written.
        LineLostError: the connection was lost; what arrived stays, for the next attempt.
        WorkerError: what arrives there is not what was sent.
    """
    for _ in range(ATTEMPTS):
        mark = new_mark()
        with call(connection, [python, "-c", program(), "receive", mark, blob.digest, str(blob.size)], mark) as running:
            if not send_once(connection, running, blob, progress).get("wrong"):
                return
    raise WorkerError(f"{connection.destination}: a file arrives damaged there", "look at its disk and memory")


def send_once(connection: Connection, running: Call, blob: Blob, progress: Progress | None = None) -> dict[str, Any]:
    """Send content to a command there that takes it, and return its last answer: "wrong" where the hash was.

    Raises:
        EmcaError: as `send`.
    """
    answer = answer_of(connection, running)
    if not answer["done"]:
        with blob.open() as stream, suppress(BrokenPipeError):
            stream.seek(answer["have"])
            while piece := stream.read(PIECE):
                running.write(piece)
                if progress is not None:
                    progress(stream.tell(), blob.size)
        running.close_input()
        answer = answer_of(connection, running)
    return answer


def answer_of(connection: Connection, running: Call) -> dict[str, Any]:
    """Return the far side's next message.

    Raises:
        EmcaError: it is an error, or there is none.
    """
    message = running.message()
    if message is None:
        raise running.trouble(running.wait())
    if "error" in message:
        raise disk_error(connection, message)
    return message


def disk_error(connection: Connection, message: Mapping[str, Any]) -> EmcaError:
    """Return the error for a file there that could not be read or written."""
    where, path = connection.destination, message["path"]
    if message["code"] == ENOSPC:
        return MissingError(f"{where}: the disk there is full: {path}", "free space there, or set XDG_CACHE_HOME to another disk")
    return MissingError(
        f"{where}: {path}: {message['error']}", "see who owns that folder there, or set XDG_CACHE_HOME to another"
    )


def fetch(connection: Connection, python: str, path: str, digest: str, place: Path) -> None:
    """Bring a file home, whole or not at all.

    Args:
        connection: to the machine.
        python: the interpreter there.
        path: of the file there.
        digest: its sha256.
        place: where to write it.

    Raises:
        OutputError: it cannot be written here.
        LineLostError: the connection was lost.
        WorkerError: what arrives is not what was sent.
    """
    with atomic_write(place) as temporary, temporary.open("wb") as stream:
        Arriving(stream.write).take(connection, python, path, digest)


class Arriving:
    """A file on its way home, over as many connections as it takes.

    Args:
        write: takes the pieces, in order.

    Attributes:
        have: bytes that have arrived.
    """

    def __init__(self, write: Callable[[bytes], Any]) -> None:
        self.have = 0
        self._write, self._total = write, hashlib.sha256()

    def take(self, connection: Connection, python: str, path: str, digest: str) -> None:
        """Bring what is missing.

        Args:
            connection: to the machine.
            python: the interpreter there.
            path: of the file there.
            digest: its sha256.

        Raises:
            LineLostError: the connection was lost; call it again on another one.
            WorkerError: what arrives is not what was sent.
        """
        mark = new_mark()
        with call(connection, [python, "-c", program(), "send", mark, path, str(self.have)], mark) as running:
            running.close_input()
            size = int(answer_of(connection, running)["size"])
            while self.have < size and (piece := running.read(min(PIECE, size - self.have))):
                self._write(piece)
                self._total.update(piece)
                self.have += len(piece)
            if self.have < size:
                raise running.trouble(running.wait())
        if self._total.hexdigest() != digest:
            raise WorkerError(f"{connection.destination}: {Path(path).name} arrives damaged", "run the same command again")
