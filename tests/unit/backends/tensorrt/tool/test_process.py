"""How a command on this machine is ended."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from emca_deploy.backends.tensorrt.tool.process import spawn_here, stop

CLEANS_UP = """
import signal, sys, time
def clean_up(*_):
    time.sleep(0.1)
    print("cleaned")
    sys.exit(3)
signal.signal(signal.SIGTERM, clean_up)
print("ready", flush=True)
time.sleep(600)
"""


def test_a_command_has_time_to_clean_up() -> None:
    command = spawn_here([sys.executable, "-c", CLEANS_UP])
    assert command.stdout is not None
    assert command.stdout.readline() == b"ready\n"
    stop(command)
    assert (command.returncode, command.stdout.read()) == (3, b"cleaned\n")


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
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
