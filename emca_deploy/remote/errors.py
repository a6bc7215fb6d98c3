"""Turns what ssh prints when it cannot connect into this package's errors."""

import os
import re
import shlex
from collections.abc import Mapping

from emca_deploy.errors import EmcaError, InputError, MissingError
from emca_deploy.remote.address import Address

__all__ = ["CONFIG_VARIABLE", "ConnectionLostError", "failure"]

CONFIG_VARIABLE = "EMCA_DEPLOY_SSH_CONFIG"
_TOUCH = "connect once by hand and compare the key: {ssh}; or add it with ssh-keyscan {scan} >> {file}"


class ConnectionLostError(MissingError):
    """The connection was lost after it had been made."""

    @classmethod
    def to(cls, address: Address, when: str = "") -> "ConnectionLostError":
        """Return the error for a machine."""
        return cls(f"{address}: the connection was lost{when}", "once the machine can be reached, run the same command again")


# What ssh prints -> (what that means, what to do). The first that fits is taken: a changed key also fails the verification.
_COMPLAINTS: tuple[tuple[str, str, str], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Offending .* key",
        "its host key has changed: it is another machine, or somebody intercepts the connection",
        "find out why; if it was reinstalled: ssh-keygen -R {known} -f {file}, then " + _TOUCH,
    ),
    (r"Host key verification failed|No .* host key is known", "its host key is unknown", _TOUCH),
    (
        r"Permission denied|Too many authentication failures|no mutual signature|Authentication failed",
        "it refuses the login: it knows none of your keys",
        "make `{ssh}` work without a password: ssh-copy-id, ssh-add, or IdentityFile and User in ssh's configuration",
    ),
    (r"Could not resolve hostname", "there is no host of that name", "check the name, or give it a HostName in ~/.ssh/config"),
    (r"Connection refused", "nothing answers on that port", "start sshd on it, or name its port: ssh://host:port"),
    (r"timed out|Operation timed out", "it does not answer", "check that it is on and can be reached: {ssh}"),
    (r"No route to host|Network is unreachable", "it cannot be reached", "check the network and the address: {ssh}"),
    (
        r"kex_exchange_identification|banner exchange|Connection closed by|Connection reset",
        "it closes the connection at once",
        "check whether another service has that port, and that machine's sshd log",
    ),
    (
        r"Bad configuration option|Can't open user config file",
        "ssh's configuration has an error: {line}",
        "fix it; `{ssh} true` must work",
    ),
    (r"Bad owner or permissions", "ssh does not trust its configuration file's permissions", "chmod 600 that file"),
)


def failure(address: Address, said: str, resolved: Mapping[str, str] | None = None) -> EmcaError:
    """Return the error for a connection that was not made.

    `resolved` is the configuration that `ssh -G` prints: ssh-keyscan does not know the configuration's aliases.
    """
    names = _names(address, resolved or {})
    for pattern, problem, remedy in _COMPLAINTS:
        if found := re.search(pattern, said, re.IGNORECASE):
            kind = InputError if "no host of that name" in problem or "configuration" in problem else MissingError
            line = said[said.rfind("\n", 0, found.start()) + 1 :].partition("\n")[0].strip()
            return kind(f"{address}: {problem.format(line=line)}", remedy.format(**names))
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    reason = lines[-1] if lines else "ssh gives no reason"
    return MissingError(f"{address}: cannot be reached: {reason}", f"check that this works: {names['ssh']}")


def _names(address: Address, resolved: Mapping[str, str]) -> dict[str, str]:
    """Return the parts of commands for the user, for this machine, configuration and port."""
    config = os.environ.get(CONFIG_VARIABLE)
    words = ["ssh", *(["-F", config] if config else []), *([] if address.port is None else ["-p", str(address.port)])]
    user = "" if address.user is None else f"{address.user}@"
    host, port = resolved.get("hostname", address.host), resolved.get("port", str(address.port or 22))
    files = shlex.split(resolved.get("userknownhostsfile", ""))
    return {
        "ssh": shlex.join([*words, user + address.host]),
        "scan": shlex.join([*([] if port == "22" else ["-p", port]), host]),
        "known": shlex.quote(host if port == "22" else f"[{host}]:{port}"),
        "file": shlex.quote(files[0]) if files else "~/.ssh/known_hosts",
    }
