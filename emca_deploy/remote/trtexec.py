"""A remote machine's trtexec with what it needs: a temporary folder, the board's facts, and its power mode."""

import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from emca_deploy.backends.tensorrt.tool.find import Trtexec, find_trtexec
from emca_deploy.backends.tensorrt.tool.process import run_to_end
from emca_deploy.backends.tensorrt.tool.run import Host
from emca_deploy.errors import EmcaError, InputError, MissingError
from emca_deploy.machines.jetson.clocks import Clocks
from emca_deploy.machines.jetson.files import BOARD_ROOT
from emca_deploy.machines.jetson.modes import PowerMode, parse_query
from emca_deploy.machines.jetson.session import BoardState
from emca_deploy.machines.jetson.switch import FOLDER, LOCK, NOTE
from emca_deploy.remote.address import Address
from emca_deploy.remote.board import FoundBoard, remote_board
from emca_deploy.remote.connection import Connection
from emca_deploy.remote.errors import ConnectionLostError
from emca_deploy.remote.hold import RemoteHold, hold, spawn_on
from emca_deploy.results.codec import to_json

__all__ = ["RemoteTrtexec", "remote_trtexec"]

# Folders that are a week old were left by a machine that lost its power.
_MAKE = """folder=${XDG_CACHE_HOME:-$HOME/.cache}/emca-deploy/by-shell
umask 077
mkdir -p "$folder/$1" || exit 1
find "$folder" -mindepth 1 -maxdepth 1 -mtime +7 -exec rm -rf {} + >/dev/null 2>&1
printf %s "$folder/$1"
"""
_REMOVE = 'rm -rf "${XDG_CACHE_HOME:-$HOME/.cache}/emca-deploy/by-shell/$1"'
# Lock and note are those of `jetson.switch`, so runs on the board and runs over ssh respect each other. nvpmodel gets no input:
# its question about a reboot is never answered with yes. Its exit status is not trusted; -q is run afterwards.
_TOOLS = "PATH=$PATH:/usr/sbin:/sbin; "
_FOLDER = f"${{{BOARD_ROOT}:-}}/{FOLDER}"
_NOTE = (
    _TOOLS
    + f"""note="{_FOLDER}/{NOTE}"
"""
    + """current() { nvpmodel -q | sed -n '/^NV Power Mode/{n;p;}'; }
noted() { sed -n 's/.*"'"$1"'": *\\([0-9][0-9]*\\).*/\\1/p' "$note" 2>/dev/null; }
"""
)
_SET = (
    _NOTE
    + """nvpmodel -q
restore=$(current)
[ -n "$restore" ] || { echo "the power mode that is on now cannot be read"; exit 1; }
left=$(noted restore)
[ -z "$left" ] || [ "$(noted held)" != "$restore" ] || restore=$left
echo "restore: $restore"
printf '{"restore": %s, "name": "%s", "held": %s}\n' "$restore" "$restore" "$1" >"$note.part" || exit 1
mv -f "$note.part" "$note" || exit 1
nvpmodel -m "$1" || true
"""
)
_PUT_BACK = (
    _NOTE
    + """[ "$(noted held)" = "$1" ] || exit 0
restore=$(noted restore)
nvpmodel -m "$restore"
[ "$(current)" != "$restore" ] || rm -f "$note"
"""
)
_RESTORE = re.compile(r"^restore: (\d+)$", re.MULTILINE)
_QUERY_S = 30.0


@dataclass(frozen=True)
class RemoteTrtexec:
    """A remote machine's trtexec, and what is held for it.

    Attributes:
        machine: Where trtexec runs, with its folder.
        architecture: Architecture of the processor, such as "aarch64".
        power_mode: Current power mode; None if unknown.
        warnings: Causes of slower results, each with what to do.
        held: The folder, and the power mode if it was set.
    """

    connection: Connection
    tool: Trtexec
    machine: Host
    architecture: str | None
    board: FoundBoard | None
    power_mode: PowerMode | None
    warnings: list[str]
    held: list[RemoteHold]

    def check(self) -> None:
        """Check that everything is still held.

        Raises:
            ConnectionLostError: the connection was lost; ssh has made a new one, which does not hold the power mode.
        """
        for held in self.held:
            held.check()
        if any(held.lost for held in self.held):
            raise ConnectionLostError.to(self.connection.address)

    def record(self) -> dict[str, Any]:
        """Return what a result or manifest records of the board; empty if it is none."""
        if self.board is None:
            return {}
        before, power = self.board.modes.current, replace(self.board.modes, current=self.power_mode).to_dict()
        power["before"] = before.name if before else None
        return {**to_json(self.board.facts), "power_mode": power, "warnings": list(self.warnings)}


@contextmanager
def remote_trtexec(address: Address, path: str | None, power_mode: str | None = None) -> Iterator[RemoteTrtexec]:
    """Connect, and yield a machine's trtexec; at the end its folder is removed and its power mode restored.

    Without a path, trtexec is searched in the usual places.

    Raises:
        InputError: a power mode is given, and the machine is no Jetson board.
        UnknownNameError: the board has no such power mode.
        MissingError: there is no trtexec, no folder can be made, or the power mode cannot be set.
        ConnectionLostError: the connection was lost.
    """
    held: list[RemoteHold] = []
    with Connection(address) as connection, _lost_is_lost(connection, held), ExitStack() as stack:
        spawn, warnings = spawn_on(connection), list[str]()
        tool = find_trtexec(spawn, path)
        board = remote_board(connection)
        architecture = run_to_end(spawn, ["uname", "-m"], _QUERY_S).output.split()
        mode = (_power_mode(connection) or board.modes.current) if board else None
        if power_mode is not None:
            mode = stack.enter_context(_held(connection, board, power_mode, warnings, held))
        if board is not None:
            warnings += BoardState(replace(board.modes, current=mode), Clocks()).warnings
        held.append(stack.enter_context(hold(connection, _MAKE, _REMOVE, secrets.token_hex(8))))
        machine = Host(spawn, held[-1].said.splitlines()[-1], str(address))
        name = architecture[-1] if architecture else None
        remote = RemoteTrtexec(connection, tool, machine, name, board, mode, warnings, held)
        yield remote
        remote.check()


@contextmanager
def _lost_is_lost(connection: Connection, held: list[RemoteHold]) -> Iterator[None]:
    """Turn errors that come from a lost connection into that of a lost connection."""
    try:
        yield
    except ConnectionLostError:
        raise
    except EmcaError as exc:
        if connection.is_up() and not any(one.lost for one in held):
            raise
        raise ConnectionLostError.to(connection.address) from exc


def _power_mode(connection: Connection) -> PowerMode | None:
    """Return the current power mode, or None if it is unknown."""
    found = parse_query(run_to_end(spawn_on(connection), ["sh", "-c", _TOOLS + "nvpmodel -q"], _QUERY_S).output)
    return None if found is None else PowerMode(found[1], found[0])


@contextmanager
def _held(
    connection: Connection, board: FoundBoard | None, wanted: str, warnings: list[str], all_held: list[RemoteHold]
) -> Iterator[PowerMode]:
    """Hold a power mode; the remote machine restores the old one itself, even if the connection is lost."""
    where = connection.address
    if board is None:
        raise InputError(f"--power-mode {wanted}: the remote machine is no Jetson board", "leave the option out")
    mode = board.modes.find(wanted)
    by_hand = f"set it on the board yourself before, and leave --power-mode out: sudo nvpmodel -m {mode.id}"
    with hold(connection, _SET, _PUT_BACK, str(mode.id), lock=f"{_FOLDER}/{LOCK}") as held:
        all_held.append(held)
        now = _power_mode(connection)
        if now is None or now.id != mode.id:
            reason = "it needs a reboot" if "reboot" in held.said.lower() else " ".join(held.said.split())[-200:]
            raise MissingError(f"{where}: power mode {mode.name} cannot be set: {reason or 'no reason given'}", by_hand)
        yield mode
    before, after = _RESTORE.search(held.said), _power_mode(connection)
    if before is not None and (after is None or after.id != int(before[1])):
        warnings.append(f"the power mode {before[1]} could not be restored: sudo nvpmodel -m {before[1]}")
