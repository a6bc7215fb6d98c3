"""Runs plain commands, such as trtexec, on a remote machine whose Python cannot run the agent."""

import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from emca_deploy.backends.tensorrt.tool.process import Spawn
from emca_deploy.errors import MissingError
from emca_deploy.remote.call import Call, call, keep_alive, new_mark
from emca_deploy.remote.connection import Connection
from emca_deploy.remote.protocol import SILENCE_S

__all__ = ["RemoteHold", "hold", "spawn_on"]

LOCK_ATTEMPTS = 20
"""Number of attempts to lock, one per second."""
_END_S = 60.0

# A command without a terminal learns from its standard input that its user has gone: it ends, or it falls silent if a cable was
# pulled. A machine without `timeout` notices only the first.
_HEARD = """heard() {
  if command -v timeout >/dev/null 2>&1; then [ -n "$(timeout -s KILL "$silence" dd bs=16 count=1 <&3 2>/dev/null)" ]
  else cat <&3 >/dev/null 2>&1; false; fi
}
"""
_SCRIPT = (
    "silence=$1; shift\nexec 3<&0\n"
    + _HEARD
    + """"$@" </dev/null 2>&1 3<&- &
pid=$!
{
  while heard; do :; done
  kill "$pid"
  for second in 1 2 3 4 5; do kill -0 "$pid" || exit; sleep 1; done
  kill -9 "$pid"
} >/dev/null 2>&1 &
watch=$!
exec 3<&-
wait "$pid"
code=$?
kill "$watch" 2>/dev/null
exit "$code"
"""
)
# The shell itself holds the lock, so the kernel drops it however the shell ends. Another run whose connection was lost a moment
# ago may still be restoring its state, hence the wait.
_HOLD = (
    "mark=$1 silence=$2 lock=$3 attempts=$4 begin=$5 end=$6; shift 6\nexec 3<&0 </dev/null\ntrap '' HUP INT TERM PIPE\n"
    + _HEARD
    + """locked() {
  [ -n "$lock" ] || return 0
  eval "lock=\\"$lock\\""
  command -v flock >/dev/null 2>&1 || { said="it has no flock (util-linux)"; return 1; }
  said=$( (umask 022; mkdir -p "${lock%/*}" && : >>"$lock") 2>&1) || return 1
  exec 9>>"$lock"
  until flock -n 9; do
    attempts=$((attempts - 1))
    [ "$attempts" -gt 0 ] || { said="another emca-deploy holds it"; return 1; }
    sleep 1 9>&-
  done
}
tell() { printf '\\n%s{"code": %s, "hex": "%s"}\\n' "$mark" "$1" "$(printf %s "$said" | od -An -v -tx1 | tr -d ' \\n')"; }
locked || { tell 1; exit; }
said=$(eval "$begin" 2>&1 9>&-); tell $?
while heard 9>&-; do :; done
eval "$end" >/dev/null 2>&1 9>&-
"""
)


def spawn_on(connection: Connection) -> Spawn:
    """Return a function that starts a command on a remote machine; the command stops with its process, or the connection."""

    def spawn(arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
        # ssh's own messages come with the output, where reasons are looked for.
        words = ["sh", "-c", _SCRIPT, "emca-deploy", f"{SILENCE_S:g}", *arguments]
        process = connection.start(words, subprocess.STDOUT)
        stdin = process.stdin
        assert stdin is not None  # `start` gives a pipe

        def ended(pause_s: float) -> bool:
            time.sleep(pause_s)
            return process.poll() is not None

        keep_alive(lambda: stdin.write(b"x"), ended)
        return process

    return spawn


class RemoteHold:
    """A state that a remote machine is held in. It is `lost`, and undone early, if the connection was lost."""

    def __init__(self, running: Call, said: str) -> None:
        self._running, self.said, self.lost = running, said, False

    def check(self) -> None:
        """Set `lost` if the state is no longer held."""
        self.lost = self.lost or self._running.has_ended


@contextmanager
def hold(connection: Connection, begin: str, end: str, *words: str, lock: str = "") -> Iterator[RemoteHold]:
    """Hold a state on a remote machine in the block; it is undone even if the connection is lost.

    `begin` and `end` are shell commands with `words` as $1, $2, ...; nothing interrupts them. `lock` is the path of a file that
    is locked (flock) around both; the shell expands its variables.

    Raises:
        MissingError: `begin` fails, and `end` has been done; or the lock is not free, and neither has been done.
        ConnectionLostError: the connection was lost.
    """
    mark, over = new_mark(), threading.Event()
    command = ["sh", "-c", _HOLD, "emca-deploy", mark, f"{SILENCE_S:g}", lock, str(LOCK_ATTEMPTS), begin, end, *words]
    with call(connection, command, mark) as running:
        beating = keep_alive(lambda: running.write(b"x"), over.wait)
        try:
            answer = running.message()
            if answer is None:
                raise running.trouble(running.wait())
            said = bytes.fromhex(answer["hex"]).decode("utf-8", errors="replace").strip()
            if answer["code"]:
                raise MissingError(f"{connection.address}: {said[-200:] or 'a command failed'}", "run it on that machine by hand")
            held = RemoteHold(running, said)
            try:
                yield held
            finally:
                held.check()
        finally:
            over.set()
            beating.join(_END_S)
            running.close_input()
            running.wait(_END_S)
