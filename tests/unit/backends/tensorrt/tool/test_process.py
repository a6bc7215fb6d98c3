"""How a command on this machine is ended."""

import os
import signal
import time
from contextlib import suppress

from emca_deploy.backends.tensorrt.tool.process import spawn_here, stop


def test_a_command_has_time_to_clean_up() -> None:
    command = spawn_here(["bash", "-c", "trap 'echo cleaned; exit 3' TERM; echo ready; while :; do sleep 0.05; done"])
    assert command.stdout is not None
    assert command.stdout.readline() == b"ready\n"
    stop(command)
    # bash may report first that its `sleep` was terminated.
    assert (command.returncode, command.stdout.read().splitlines()[-1:]) == (3, [b"cleaned"])


def test_the_children_of_a_command_end_with_it() -> None:
    command = spawn_here(["bash", "-c", "sleep 600 & echo $!; wait"])
    assert command.stdout is not None
    child = int(command.stdout.readline())
    stop(command)
    end = time.monotonic() + 10
    try:
        while time.monotonic() < end and _runs(child):
            time.sleep(0.02)
        assert not _runs(child)
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:  # noqa: PTH123
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
