"""The address of a remote machine: ssh://[user@]host[:port][/target]."""

import re
from dataclasses import dataclass

from emca_deploy.errors import InputError

__all__ = ["SCHEME", "Address", "parse_address"]

SCHEME = "ssh://"
# A host or user that begins with a dash would be an option to ssh; one with a space or a quote could inject shell words.
_FORM = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.+-]*)@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\]|[A-Za-z0-9_][A-Za-z0-9_.-]*)"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?:/(?P<target>cpu|gpu(?::[0-9]+)?|jetson)?)?"
)


@dataclass(frozen=True)
class Address:
    """The address of a machine.

    Attributes:
        host: Host name, alias of ssh's configuration, or IP address.
        user: User name; None leaves it to ssh's configuration.
        port: Port; None leaves it to ssh's configuration.
        target: Target on that machine ("cpu", "gpu:1", "jetson"); None means jetson on a Jetson board and cpu elsewhere.
    """

    host: str
    user: str | None = None
    port: int | None = None
    target: str | None = None

    def __str__(self) -> str:
        """Return it without the target, as results name it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = "" if self.user is None else f"{self.user}@"
        port = "" if self.port is None else f":{self.port}"
        return f"{SCHEME}{user}{host}{port}"

    def options(self) -> list[str]:
        """Return its command-line arguments to ssh."""
        user = [] if self.user is None else ["-l", self.user]
        port = [] if self.port is None else ["-p", str(self.port)]
        return [*user, *port, "--", self.host]


def parse_address(text: str) -> Address:
    """Return the address in a text.

    Raises:
        InputError: the text is not of that form.
    """
    found = _FORM.fullmatch(text.removeprefix(SCHEME)) if text.startswith(SCHEME) else None
    port = None if found is None or found["port"] is None else int(found["port"])
    if found is None or (port is not None and not 1 <= port <= 65535):
        raise InputError(
            f"target '{text}' names no machine", "write ssh://[user@]host[:port], and add /gpu or /cpu to choose one"
        )
    return Address(found["host"].strip("[]"), found["user"], port, found["target"])
