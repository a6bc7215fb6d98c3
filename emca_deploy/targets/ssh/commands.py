"""Plain commands on a machine without a Python of use, such as trtexec: `spawn_on` is what `targets.trtexec` runs them by."""

import subprocess
from collections.abc import Sequence

from emca_deploy.targets.ssh.connection import Connection
from emca_deploy.targets.trtexec.process import Spawn

__all__ = ["spawn_on"]

# Without a terminal nothing tells a command that its user has gone: standard input does, by ending. `cat` waits for that.
_SCRIPT = """exec 3<&0
"$@" </dev/null 2>&1 3<&- &
pid=$!
{ cat <&3; kill "$pid" && sleep 5 && kill -9 "$pid"; } >/dev/null 2>&1 &
watch=$!
exec 3<&-
wait "$pid"
code=$?
kill "$watch" 2>/dev/null
exit "$code"
"""


def spawn_on(connection: Connection) -> Spawn:
    """Return what starts a command on another machine; stopping what that returns, or losing the line, stops it there, too.

    Args:
        connection: to the machine, which stays open for as long as commands run.
    """

    def spawn(arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
        # What ssh itself has to say comes with the output: that is where the reason is looked for.
        return connection.start(["sh", "-c", _SCRIPT, "emca-deploy", *arguments], subprocess.STDOUT)

    return spawn
