"""A connection to a remote machine by the system's ssh, with one login for all commands."""

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from emca_deploy.errors import InputError, MissingError
from emca_deploy.remote.address import Address
from emca_deploy.remote.errors import CONFIG_VARIABLE

__all__ = ["CONFIG_VARIABLE", "LOST", "Connection"]

LOST = 255
"""ssh's own exit status; a command's is anything else."""
ASK_EVERY_S = 3
"""Pause between ssh's keep-alive messages; the connection is lost when three in a row have no answer."""

_OPTIONS = (
    "BatchMode=yes",  # no question in the middle of a run
    "StrictHostKeyChecking=yes",
    "ConnectTimeout=10",
    "ServerAliveCountMax=3",
    "ControlMaster=auto",
    "ControlPersist=60",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "RequestTTY=no",
    "RemoteCommand=none",
    "PermitLocalCommand=no",
    "LogLevel=ERROR",
)
_CLOSE_S = 5.0


class Connection:
    """A remote machine that runs commands. A context manager, which closes the connection.

    `sent_bytes` counts command lines and their standard input before encryption, `reached` is whether the machine has answered.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.sent_bytes = 0
        self.received_bytes = 0
        self.reached = False
        self._folder: Path | None = None

    def __enter__(self) -> "Connection":
        if shutil.which("ssh") is None:
            raise MissingError(f"{self.address}: this machine has no ssh", "install OpenSSH's client (openssh-client)")
        config = os.environ.get(CONFIG_VARIABLE)
        if config and not Path(config).is_file():
            raise InputError(f"{CONFIG_VARIABLE}={config}: no such file", "name an ssh configuration file, or unset it")
        # The path of a socket has 104 bytes at most, and TMPDIR may be longer.
        self._folder = Path(tempfile.mkdtemp(prefix="emca-", dir="/tmp"))
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._run("-O", "exit")
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def start(self, command: Sequence[str], stderr: int) -> "subprocess.Popen[bytes]":
        """Start a command, with pipes to its standard input and output. The words arrive unchanged.

        `stderr` must not be a pipe that is read to its end: the connection's master keeps it open.
        """
        line = shlex.join(command)
        self.sent_bytes += len(line.encode("utf-8", "surrogateescape"))
        return subprocess.Popen(
            [*self._ssh(), *self.address.options(), line],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
            start_new_session=True,  # Ctrl-C must not end ssh: the agent still has to send its measurements
        )

    def is_up(self) -> bool:
        """Return whether the connection exists."""
        checked = self._run("-O", "check")
        return checked is not None and checked.returncode == 0

    def resolved(self) -> dict[str, str]:
        """Return ssh's configuration for the address, by keyword; empty if it cannot be read."""
        shown = self._run("-G")
        pairs = (line.partition(" ") for line in shown.stdout.splitlines()) if shown else ()
        return {name: value for name, _, value in pairs}

    def _run(self, *options: str) -> "subprocess.CompletedProcess[str] | None":
        """Run ssh with options for its own actions; None if it fails to start or to end."""
        words = [*self._ssh(), *options, *self.address.options()]
        with suppress(OSError, subprocess.TimeoutExpired):
            return subprocess.run(words, timeout=_CLOSE_S, capture_output=True, text=True, errors="replace", check=False)
        return None

    def _ssh(self) -> list[str]:
        assert self._folder is not None, "enter the connection first"
        config = os.environ.get(CONFIG_VARIABLE)
        words = ["ssh", "-F", config] if config else ["ssh"]
        for option in (*_OPTIONS, f"ServerAliveInterval={ASK_EVERY_S}", f"ControlPath={self._folder}/s"):
            words += ["-o", option]
        return words
