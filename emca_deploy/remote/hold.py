"""Runs plain commands, such as trtexec, on a remote machine that has no Python that the agent can use."""

import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from emca_deploy.backends.tensorrt.tool.process import Spawn
from emca_deploy.errors import MissingError
from emca_deploy.remote.call import Call, call, new_mark
from emca_deploy.remote.connection import Connection
from emca_deploy.remote.protocol import ALIVE_EVERY_S, SILENCE_S

__all__ = ["Held", "hold", "spawn_on"]

LOCK_ATTEMPTS = 20
"""One a second."""
_END_S = 60.0

# Without a terminal it is unknown a command that its user has gone. Standard input does, by ending, or by falling silent where a
# cable was pulled; a machine without `timeout` notices the first only.
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
# The lock is the shell's own: the kernel drops it however the shell ends. Another run whose connection was lost a moment ago may
# still be undoing its state, hence the wait.
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
    """Return what starts a command on another machine; stopping that, or losing the connection, stops the command, too."""

    def spawn(arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
        # What ssh itself has to say comes with the output: that is where the reason is looked for.
        words = ["sh", "-c", _SCRIPT, "emca-deploy", f"{SILENCE_S:g}", *arguments]
        process = connection.start(words, subprocess.STDOUT)
        threading.Thread(target=_tell, args=(process,), daemon=True).start()
        return process

    return spawn


def _tell(process: "subprocess.Popen[bytes]") -> None:
    """Tell a command's machine that this machine is still there."""
    assert process.stdin is not None  # `start` gives a pipe
    while process.poll() is None:
        try:
            process.stdin.write(b"x")
        except (OSError, ValueError):  # it has ended, or somebody has closed it
            return
        time.sleep(ALIVE_EVERY_S)


class Held:
    """A state that another machine is held in; `lost` where the connection was lost, so that it was undone before its time."""

    def __init__(self, running: Call, said: str) -> None:
        self._running, self.said, self.lost = running, said, False

    def check(self) -> None:
        """Note whether it is still held."""
        self.lost = self.lost or self._running.has_ended


@contextmanager
def hold(connection: Connection, begin: str, end: str, *words: str, lock: str = "") -> Iterator[Held]:
    """Hold a state on another machine until the block is left; it is undone there even where the connection is lost.

    `begin` and `end` are shell commands with `words` as $1, $2, ...; nothing interrupts them. `lock` is a file to lock (flock)
    around both, in which a shell expands variables.

    Raises:
        MissingError: `begin` fails, and `end` has been done; or the lock cannot be had, and neither has been done.
        ConnectionLostError: the connection was lost.
    """
    mark = new_mark()
    over = threading.Event()
    command = ["sh", "-c", _HOLD, "emca-deploy", mark, f"{SILENCE_S:g}", lock, str(LOCK_ATTEMPTS), begin, end, *words]
    with call(connection, command, mark) as running:

        def tell() -> None:
            try:
                running.write(b"x")
                while not over.wait(ALIVE_EVERY_S):
                    running.write(b"x")
            except (OSError, ValueError):
                return

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            answer = running.message()
            if answer is None:
                raise running.trouble(running.wait())
            said = bytes.fromhex(answer["hex"]).decode("utf-8", errors="replace").strip()
            if answer["code"]:
                raise MissingError(f"{connection.address}: {said[-200:] or 'a command fails there'}", "see what it says there")
            held = Held(running, said)
            try:
                yield held
            finally:
                held.check()
        finally:
            over.set()
            teller.join(_END_S)
            running.close_input()
            running.wait(_END_S)
