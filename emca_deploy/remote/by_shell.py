"""Files to a machine without a Python: the same protocol, spoken by a shell with coreutils."""

import hashlib
from pathlib import Path

from emca_deploy._progress import Progress
from emca_deploy.errors import WorkerError
from emca_deploy.remote.call import call, new_mark
from emca_deploy.remote.connection import Connection
from emca_deploy.remote.files import ATTEMPTS, PIECE, Blob, answer_of, send_once

__all__ = ["fetch_by_shell", "put"]

_SCRIPT = """mark=$1 digest=$2 size=$3 root=${XDG_CACHE_HOME:-$HOME/.cache}/emca-deploy
say() { printf '\\n%s%s\\n' "$mark" "$1"; }
hash() { sha256sum <"$1" | cut -c1-64; }
fail() { say '{"error": "cannot be written", "code": '"$1"', "path": "'"$root"'"}'; rm -f "$part"; exit 5; }
part=$root/blobs/$digest.part
place=$root/blobs/$digest
(umask 077; mkdir -p "$root/blobs") || fail 13
if [ -f "$place" ] && [ "$(hash "$place")" = "$digest" ]; then
  touch -a "$place"
  say '{"done": true, "place": "'"$place"'"}'
  exit 0
fi
rm -f "$place"
: >>"$part" || fail 13
[ "$(wc -c <"$part")" -le "$size" ] || : >"$part"
say '{"done": false, "have": '"$(wc -c <"$part" | tr -d ' ')"'}'
cat >>"$part" || fail 28
[ "$(wc -c <"$part")" -eq "$size" ] || exit 4
if [ "$(hash "$part")" = "$digest" ]; then
  mv -f "$part" "$place"
  say '{"done": true, "place": "'"$place"'"}'
else
  rm -f "$part"
  say '{"done": true, "wrong": true}'
fi
"""


def put(connection: Connection, blob: Blob, progress: Progress | None = None) -> str:
    """Send content, or what the far side lacks of it, and return its path there.

    Raises:
        EmcaError: as `transfer.send`.
    """
    for _ in range(ATTEMPTS):
        mark = new_mark()
        with call(connection, ["sh", "-c", _SCRIPT, "emca-deploy", mark, blob.digest, str(blob.size)], mark) as running:
            answer = send_once(connection, running, blob, progress)
            if not answer.get("wrong"):
                return str(answer["place"])
    raise WorkerError(f"{connection.destination}: a file arrives damaged there", "look at its disk and memory")


_GIVE = """mark=$1
[ -r "$2" ] || { printf '\\n%s{"error": "cannot be read", "code": 13, "path": "%s"}\\n' "$mark" "$2"; exit 5; }
printf '\\n%s{"size": %s, "sha256": "%s"}\\n' "$mark" "$(wc -c <"$2" | tr -d ' ')" "$(sha256sum <"$2" | cut -c1-64)"
exec cat "$2"
"""


def fetch_by_shell(connection: Connection, path: str, place: Path) -> None:
    """Bring a file home; its hash is taken there first.

    Args:
        connection: to the machine.
        path: of the file there.
        place: where to write it; the caller sees to it that nobody takes it for whole too soon.

    Raises:
        LineLostError: the connection was lost.
        WorkerError: what arrives is not what was sent.
    """
    mark, total = new_mark(), hashlib.sha256()
    with call(connection, ["sh", "-c", _GIVE, "emca-deploy", mark, path], mark) as running, place.open("wb") as stream:
        running.close_input()
        answer = answer_of(connection, running)
        missing = int(answer["size"])
        while missing and (piece := running.read(min(PIECE, missing))):
            stream.write(piece)
            total.update(piece)
            missing -= len(piece)
        if missing:
            raise running.trouble(running.wait())
    if total.hexdigest() != answer["sha256"]:
        raise WorkerError(f"{connection.destination}: {path} arrives damaged", "run the same command again")
