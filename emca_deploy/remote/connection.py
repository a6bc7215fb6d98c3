"""One connection to another machine: the system's ssh, with one login for all commands."""

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from emca_deploy.errors import InputError, MissingError
from emca_deploy.remote.address import Address
from emca_deploy.remote.errors import CONFIG_VARIABLE

__all__ = ["CONFIG_VARIABLE", "LOST", "Connection"]

LOST = 255
"""ssh's own exit status; a command's is anything else."""
ASK_EVERY_S = 3
"""ssh here takes the connection to be lost when three such questions in a row stay without an answer."""

_OPTIONS = (
    "BatchMode=yes",  # nobody is asked anything in the middle of a run
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
    """A machine one can start commands on. A context manager: the connection is closed when the block is left.

    Bytes sent are command lines and what went to their standard input, before encryption. `reached` says whether it has answered.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.sent_bytes = 0
        self.received_bytes = 0
        self.reached = False
        self._folder: Path | None = None

    def __enter__(self) -> "Connection":
        if shutil.which("ssh") is None:
            raise MissingError(f"{self.address}: there is no ssh on this machine", "install OpenSSH's client (openssh-client)")
        config = os.environ.get(CONFIG_VARIABLE)
        if config and not Path(config).is_file():
            raise InputError(f"{CONFIG_VARIABLE}={config}: no such file", "name a configuration file of ssh's, or unset it")
        # The path of a socket has 104 bytes at most, so that TMPDIR is no place for it.
        self._folder = Path(tempfile.mkdtemp(prefix="emca-", dir="/tmp"))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._folder is not None:
            with suppress(OSError, subprocess.TimeoutExpired):
                words = [*self._ssh(), "-O", "exit", *self.address.options()]
                subprocess.run(words, timeout=_CLOSE_S, capture_output=True, check=False)
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def start(self, command: Sequence[str], stderr: int) -> "subprocess.Popen[bytes]":
        """Start a command there, with pipes to its standard input and output.

        The words arrive as they are, whatever is in them. `stderr` is never a pipe that somebody reads to its end: the
        connection's master keeps it open.
        """
        line = shlex.join(command)
        self.sent_bytes += len(line.encode("utf-8", "surrogateescape"))
        return subprocess.Popen(
            [*self._ssh(), *self.address.options(), line],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for us: we tell the other end, and then wait for what it has measured
        )

    def is_up(self) -> bool:
        """Return whether the connection is there."""
        try:
            words = [*self._ssh(), "-O", "check", *self.address.options()]
            return subprocess.run(words, timeout=_CLOSE_S, capture_output=True, check=False).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False

    def resolved(self) -> dict[str, str]:
        """Return what ssh's configuration makes of the address, by keyword; empty where it cannot be read."""
        try:
            words = [*self._ssh(), "-G", *self.address.options()]
            said = subprocess.run(words, timeout=_CLOSE_S, capture_output=True, text=True, errors="replace", check=False)
        except (OSError, subprocess.TimeoutExpired):
            return {}
        pairs = (line.partition(" ") for line in said.stdout.splitlines())
        return {name: value for name, _, value in pairs}

    def _ssh(self) -> list[str]:
        assert self._folder is not None, "enter the connection first"
        config = os.environ.get(CONFIG_VARIABLE)
        words = ["ssh", "-F", config] if config else ["ssh"]
        for option in (*_OPTIONS, f"ServerAliveInterval={ASK_EVERY_S}", f"ControlPath={self._folder}/s"):
            words += ["-o", option]
        return words
