"""Files to a machine without a Python: the same protocol, spoken by a shell with coreutils."""

from emca_deploy._progress import Progress
from emca_deploy.errors import WorkerError
from emca_deploy.targets.ssh.connection import Connection
from emca_deploy.targets.ssh.far import call, new_mark
from emca_deploy.targets.ssh.transfer import ATTEMPTS, Blob, send_once

__all__ = ["put"]

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
