"""The facts of a remote Jetson board. A shell reads its files, so the board needs no Python."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emca_deploy.machines.jetson.facts import BOARD_FILES, BoardFacts, detect
from emca_deploy.machines.jetson.modes import PowerModes, read_power_modes
from emca_deploy.remote.call import call, new_mark
from emca_deploy.remote.connection import Connection
from emca_deploy.results.codec import to_json

__all__ = ["FoundBoard", "remote_board"]

# Files come as hexadecimal digits in messages: no other text can be taken for them, and every machine has `od`. Of dpkg's list,
# which has megabytes, only the packages are sent that determine a board's releases.
_BOARD_SCRIPT = """mark=$1 root=${2:-${EMCA_DEPLOY_BOARD_ROOT:-}}; shift 2
for name do
  [ -f "$root/$name" ] && [ -r "$root/$name" ] || continue
  printf '\\n%s{"name": "%s", "hex": "' "$mark" "$name"
  case $name in
    */dpkg/status) awk 'BEGIN { RS = ""; ORS = "\\n\\n" } /^Package: (libnvinfer|cuda-cudart|nvidia-l4t-core)/' "$root/$name" ;;
    *) head -c 65536 "$root/$name" ;;
  esac 2>/dev/null | od -An -v -tx1 | tr -d ' \\n'
  printf '"}\\n'
done
printf '\\n%s{"end": true}\\n' "$mark"
"""


@dataclass(frozen=True)
class FoundBoard:
    """A Jetson board, and its power modes as far as its files contain them."""

    facts: BoardFacts
    modes: PowerModes

    @property
    def power_mode(self) -> str | None:
        """Name of the current power mode; None if unknown."""
        return self.modes.current.name if self.modes.current else None

    @property
    def fastest_mode(self) -> str | None:
        """Name of the fastest power mode; None if unknown."""
        return self.modes.fastest.name if self.modes.fastest else None

    def to_dict(self) -> dict[str, Any]:
        """Return its JSON."""
        return {**to_json(self.facts), "power_mode": self.power_mode, "fastest_mode": self.fastest_mode}


def remote_board(connection: Connection, below: str = "") -> FoundBoard | None:
    """Return the Jetson board at the other end, or None if it is none.

    `below` replaces the remote /, without a slash at its end.

    Raises:
        EmcaError: the connection was lost.
    """
    mark = new_mark()
    with (
        tempfile.TemporaryDirectory() as made,
        call(connection, ["sh", "-c", _BOARD_SCRIPT, "sh", mark, below, *BOARD_FILES], mark) as running,
    ):
        running.close_input()
        while (message := running.message()) is not None and not message.get("end"):
            if message["name"] in BOARD_FILES:
                copy = Path(made) / message["name"]
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(bytes.fromhex(message["hex"]))
        if message is None:
            raise running.trouble(running.wait())
        facts = detect(Path(made))
        return None if facts is None else FoundBoard(facts, read_power_modes(Path(made)))
