"""Capabilities of a machine, local or reached over ssh: Python, runtimes, its board, trtexec, disk and clock."""

import shutil
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

from emca_deploy.backends.registry import BACKENDS, available
from emca_deploy.backends.tensorrt.tool.find import find_trtexec
from emca_deploy.backends.tensorrt.tool.process import Spawn, spawn_here
from emca_deploy.errors import EmcaError, MissingError
from emca_deploy.machines.jetson.facts import detect
from emca_deploy.machines.jetson.modes import read_power_modes
from emca_deploy.remote.address import Address
from emca_deploy.remote.board import FoundBoard, remote_board
from emca_deploy.remote.connection import Connection
from emca_deploy.remote.hold import spawn_on
from emca_deploy.remote.probe import Facts, check_python, look
from emca_deploy.remote.protocol import cache_root

__all__ = ["Capabilities", "Lack", "local_capabilities", "remote_capabilities"]


@dataclass(frozen=True)
class Lack:
    """A problem with a machine; one that `blocks` keeps it from running anything."""

    problem: str
    remedy: str
    blocks: bool = True


@dataclass(frozen=True)
class Capabilities:
    """What a machine can do."""

    facts: Facts
    board: FoundBoard | None = None
    trtexec_version: str | None = None
    lacks: tuple[Lack, ...] = ()

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends whose library is installed."""
        if self.facts.python is None:
            return ()
        return tuple(name for name, backend in BACKENDS.items() if backend.module in self.facts.versions)

    @property
    def usable(self) -> bool:
        """Whether the machine can run something."""
        return not any(lack.blocks for lack in self.lacks)

    @property
    def can(self) -> tuple[str, ...]:
        """The commands that work with `--target`."""
        if not self.usable:
            return ()
        return ("profile", "validate", "build") if self.backends else ("profile", "build")

    def to_dict(self) -> dict[str, Any]:
        """Return its JSON."""
        facts = self.facts
        return {
            "usable": self.usable,
            "can": list(self.can),
            "backends": list(self.backends),
            **{name: getattr(facts, name) for name in ("python", "python_version", "versions", "machine", "system")},
            "board": None if self.board is None else self.board.to_dict(),
            "trtexec": facts.trtexec,
            "trtexec_version": self.trtexec_version,
            **{name: getattr(facts, name) for name in ("free_mib", "clock_offset_s", "trip_s")},
            "lacks": [asdict(lack) for lack in self.lacks],
        }


def local_capabilities(lacks: tuple[Lack, ...] = ()) -> Capabilities:
    """Return what this machine can do. `lacks` are problems with one of its targets."""
    import platform

    from emca_deploy._optional import installed_version

    found = {name: status.version for name, status in available().items() if status.version and BACKENDS[name].module}
    versions: dict[str, str | None] = {str(BACKENDS[name].module): version for name, version in found.items()}
    versions |= {module: installed_version(name) for module, name in (("numpy", "numpy"), ("PIL", "Pillow"))}
    board, cache = detect(), cache_root()
    disk = next((each for each in (cache, *cache.parents) if each.is_dir()), None)
    trtexec, version = _trtexec(spawn_here)
    facts = Facts(
        python=sys.executable,
        python_version=platform.python_version(),
        versions=versions,
        machine=platform.machine(),
        system=platform.system(),
        trtexec=trtexec,
        free_mib=None if disk is None else shutil.disk_usage(disk).free / 2**20,
        clock_offset_s=0.0,
    )
    return Capabilities(facts, None if board is None else FoundBoard(board, read_power_modes()), version, lacks)


def remote_capabilities(address: Address) -> Capabilities:
    """Return what a machine that is reached over ssh can do.

    Raises:
        InputError: there is no host of that name, or ssh's configuration has an error.
        MissingError: the machine cannot be reached, its key is unknown or has changed, or it refuses the login.
    """
    with Connection(address) as connection:
        facts = look(connection)
        board = remote_board(connection)
        _, version = _trtexec(spawn_on(connection), facts.trtexec) if facts.trtexec else (None, None)
    found = Capabilities(facts, board, version)
    return replace(found, lacks=_remote_lacks(address, found))


def _remote_lacks(address: Address, found: Capabilities) -> tuple[Lack, ...]:
    lacks, facts = [], found.facts
    blocks = found.trtexec_version is None  # trtexec builds and times without a Python
    try:
        python = check_python(address, facts)
        if not found.backends:
            remedy = f"on that machine: {python} -m pip install onnxruntime"
            lacks.append(Lack(f"{address}: its Python has no runtime", remedy, blocks=blocks))
        if "PIL" not in facts.versions:
            remedy = f"on that machine: {python} -m pip install Pillow; arrays (.npz of float32) do not need it"
            lacks.append(Lack(f"{address}: Pillow, which decodes images for validate, is not installed", remedy, blocks=False))
    except MissingError as exc:
        lacks.append(Lack(exc.problem, exc.remedy, blocks=blocks))
    if facts.clock_is_off:
        remedy = "set that machine's clock (timedatectl set-ntp true); results record how far it is off"
        lacks.append(Lack(f"{address}: its clock is {facts.clock_difference} this one's", remedy, blocks=False))
    return tuple(lacks)


def _trtexec(spawn: Spawn, path: str | None = None) -> tuple[str | None, str | None]:
    """Return path and version of a machine's trtexec; None if there is none, or if it does not work."""
    try:
        found = find_trtexec(spawn, path)
    except (EmcaError, OSError):
        return None, None
    return found.path, found.version_text
