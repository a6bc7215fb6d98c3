"""Transfers files to and from a remote machine: named by their hash, resumed after an interruption, and verified.

The remote side is a shell with coreutils, which needs no Python.
"""

import hashlib
import io
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from emca_deploy._progress import Progress
from emca_deploy.artifacts import sha256_file
from emca_deploy.atomic import atomic_write
from emca_deploy.errors import EmcaError, MissingError, WorkerError
from emca_deploy.remote.call import Call, call, new_mark
from emca_deploy.remote.connection import Connection

__all__ = ["Arriving", "Blob", "disk_error", "fetch", "send"]

PIECE = 1 << 17
ATTEMPTS = 2
KEEP_BYTES = 8 << 30
"""Largest size of a remote machine's cache; the least recently used files are removed first."""
NO_SPACE = 28
"""ENOSPC."""

# Two runs that send the same file at the same time take turns, if the machine has flock. A file gets its name once its hash is
# right. Its date is always the same, because kept logits know their images by size and date; its access time is its last use.
_RECEIVE = """mark=$1 digest=$2 size=$3 most=$4 LC_ALL=C
export LC_ALL
folder=${XDG_CACHE_HOME:-$HOME/.cache}/emca-deploy/blobs
file=$folder/$digest part=$folder/$digest.part
say() { printf '\\n%s%s\\n' "$mark" "$1"; }
fail() { say '{"error": "'"${1##*: }"'", "code": '"$2"', "path": "'"$folder"'"}'; exit 5; }
hash() { sha256sum <"$1" | cut -c1-64; }
ready() {
  [ -f "$file" ] && [ "$(hash "$file")" = "$digest" ] || return 1
  touch -a "$file"; rm -f "$part"
  say '{"done": true, "path": "'"$file"'"}'
  exit 0
}
error=$(umask 077; mkdir -p "$folder" 2>&1) || fail "$error" 13
ready
error=$( (: >>"$part") 2>&1) || fail "$error" 13
exec 9>>"$part"
command -v flock >/dev/null 2>&1 && flock 9
ready
rm -f "$file"
have=$(wc -c <"$part" | tr -d ' ')
[ "$have" -le "$size" ] || { : >"$part"; have=0; }
total=$((size - have))
for name in $(ls -tu "$folder"); do
  case $name in *.part) continue ;; esac
  total=$((total + $(wc -c <"$folder/$name")))
  [ "$total" -le "$most" ] || rm -f "$folder/$name"
done
say '{"done": false, "have": '"$have"'}'
{ error=$(cat 2>&1 >&8) || { rm -f "$part"; fail "$error" 28; }; } 8>>"$part"
[ "$(wc -c <"$part")" -eq "$size" ] || exit 4
if [ "$(hash "$part")" = "$digest" ]; then
  TZ=UTC0 touch -m -t 200109090146.40 "$part"
  mv -f "$part" "$file"
  say '{"done": true, "path": "'"$file"'"}'
else
  rm -f "$part"
  say '{"done": true, "wrong": true}'
fi
"""

_GIVE = """mark=$1 path=$2 start=$3 digest=$4 LC_ALL=C
export LC_ALL
error=$( (: <"$path") 2>&1) || {
  printf '\\n%s{"error": "%s", "code": 2, "path": "%s"}\\n' "$mark" "${error##*: }" "$path"
  exit 5
}
[ -n "$digest" ] || digest=$(sha256sum <"$path" | cut -c1-64)
printf '\\n%s{"size": %s, "sha256": "%s"}\\n' "$mark" "$(wc -c <"$path" | tr -d ' ')" "$digest"
exec tail -c "+$((start + 1))" "$path"
"""


@dataclass(frozen=True)
class Blob:
    """A file or bytes to be sent, with sha256 and size in bytes."""

    digest: str
    size: int
    content: Path | bytes

    @classmethod
    def of_file(cls, path: Path) -> "Blob":
        """Hash a file, with an InputError if it cannot be read."""
        return cls(sha256_file(path), path.stat().st_size, path)

    @classmethod
    def of_bytes(cls, content: bytes) -> "Blob":
        """Hash bytes."""
        return cls(hashlib.sha256(content).hexdigest(), len(content), content)

    def open(self) -> IO[bytes]:
        """Open it for reading."""
        return io.BytesIO(self.content) if isinstance(self.content, bytes) else self.content.open("rb")


def send(connection: Connection, blob: Blob, progress: Progress | None = None) -> str:
    """Send content, or the part of it that the remote machine lacks, and return its remote path.

    Raises:
        MissingError: the remote disk is full, or its folder cannot be written.
        ConnectionLostError: the connection was lost; what arrived is kept for the next attempt.
        WorkerError: the content arrives damaged.
    """
    for _ in range(ATTEMPTS):
        mark = new_mark()
        words = [mark, blob.digest, str(blob.size), str(KEEP_BYTES)]
        with call(connection, ["sh", "-c", _RECEIVE, "emca-deploy", *words], mark) as running:
            answer = _answer(connection, running)
            if not answer["done"]:
                with blob.open() as stream, suppress(BrokenPipeError):
                    stream.seek(answer["have"])
                    while piece := stream.read(PIECE):
                        running.write(piece)
                        if progress is not None:
                            progress(stream.tell(), blob.size)
                running.close_input()
                answer = _answer(connection, running)
            if not answer.get("wrong"):
                return str(answer["path"])
    raise WorkerError(f"{connection.address}: a file that is sent there arrives damaged", "check its disk and memory")


def _answer(connection: Connection, running: Call) -> dict[str, Any]:
    """Return the remote machine's next message, or raise its error."""
    message = running.message()
    if message is None:
        raise running.trouble(running.wait())
    if "error" in message:
        raise disk_error(connection, message)
    return message


def disk_error(connection: Connection, message: Mapping[str, Any]) -> EmcaError:
    """Return the error for a remote file that could not be read or written."""
    where, path = connection.address, message["path"]
    if message["code"] == NO_SPACE:
        return MissingError(f"{where}: its disk is full: {path}", "free space on it, or set XDG_CACHE_HOME to another disk")
    return MissingError(f"{where}: {path}: {message['error']}", "check who owns that folder, or set XDG_CACHE_HOME to another")


def fetch(connection: Connection, path: str, digest: str | None, output: Path) -> None:
    """Fetch a file, whole or not at all. Without a sha256 the remote machine computes it first.

    Raises:
        OutputError: the local file cannot be written.
        ConnectionLostError: the connection was lost.
        WorkerError: the file arrives damaged.
    """
    with atomic_write(output) as temporary, temporary.open("wb") as stream:
        Arriving(stream.write).take(connection, path, digest)


class Arriving:
    """A file that is fetched, over several connections if need be; `have` is the number of bytes that have arrived."""

    def __init__(self, write: Callable[[bytes], Any]) -> None:
        self.have = 0
        self._write, self._total = write, hashlib.sha256()

    def take(self, connection: Connection, path: str, digest: str | None) -> None:
        """Fetch the missing part; see `fetch`. After a ConnectionLostError, call it again on another connection."""
        mark = new_mark()
        words = [mark, path, str(self.have), digest or ""]
        with call(connection, ["sh", "-c", _GIVE, "emca-deploy", *words], mark) as running:
            running.close_input()
            answer = _answer(connection, running)
            size = int(answer["size"])
            while self.have < size and (piece := running.read(min(PIECE, size - self.have))):
                self._write(piece)
                self._total.update(piece)
                self.have += len(piece)
            if self.have < size:
                raise running.trouble(running.wait())
        if self._total.hexdigest() != answer["sha256"]:
            raise WorkerError(f"{connection.address}: {Path(path).name} arrives damaged", "run the same command again")
