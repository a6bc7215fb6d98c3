"""What a machine can do: Python, runtimes, the board it is, trtexec, disk and clock; this one, or one reached over ssh."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from emca_deploy.backends.registry import BACKENDS, available
from emca_deploy.backends.tensorrt.tool.find import Trtexec, find_trtexec
from emca_deploy.errors import EmcaError, MissingError, WorkerError
from emca_deploy.machines.jetson.facts import detect
from emca_deploy.machines.jetson.modes import read_power_modes
from emca_deploy.remote.address import Address
from emca_deploy.remote.board import FoundBoard, remote_board
from emca_deploy.remote.connection import Connection
from emca_deploy.remote.probe import Facts, check_python, look
from emca_deploy.remote.protocol import cache_root

__all__ = ["Capabilities", "Lack", "local_capabilities", "remote_capabilities"]


@dataclass(frozen=True)
class Lack:
    """What keeps a machine from being used, or makes it doubtful; `blocks` where nothing runs there before it is remedied."""

    problem: str
    remedy: str
    blocks: bool = True


@dataclass(frozen=True)
class Capabilities:
    """What a machine has. What nothing says is None or empty.

    `python` is the interpreter that runs the agent, and `python_version` its version, or that of the newest one where none does.
    `versions` are by package: runtimes and what they need. `free_mib` is on the disk that files go to, `clock_offset_s` what its
    clock is ahead of this one's, and `trip_s` the time from asking to having been answered, the connection included.
    """

    python: str | None = None
    python_version: str | None = None
    versions: dict[str, str | None] = field(default_factory=dict)
    machine: str | None = None
    system: str | None = None
    board: FoundBoard | None = None
    trtexec: str | None = None
    trtexec_version: str | None = None
    free_mib: float | None = None
    clock_offset_s: float | None = None
    trip_s: float = 0.0
    lacks: tuple[Lack, ...] = ()

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends whose library is there."""
        if self.python is None:
            return ()
        return tuple(name for name, backend in BACKENDS.items() if backend.module in self.versions)

    @property
    def usable(self) -> bool:
        """Whether something can be run there."""
        return not any(lack.blocks for lack in self.lacks)

    @property
    def can(self) -> tuple[str, ...]:
        """The commands that `--target` can have run there."""
        if not self.usable:
            return ()
        return ("profile", "validate", "build") if self.backends else ("profile", "build")

    def to_dict(self) -> dict[str, Any]:
        """Return its JSON."""
        board = None if self.board is None else self.board.to_dict()
        document = {
            **asdict(self),
            "versions": self.versions or {},
            "board": board,
            "lacks": [asdict(lack) for lack in self.lacks],
        }
        return {"usable": self.usable, "can": list(self.can), "backends": list(self.backends), **document}


def local_capabilities(lacks: tuple[Lack, ...] = ()) -> Capabilities:
    """Return what this machine can do. `lacks` keeps a target of it from being used."""
    import platform

    from emca_deploy._optional import installed_version

    found = {name: status.version for name, status in available().items() if status.version and BACKENDS[name].module}
    versions: dict[str, str | None] = {str(BACKENDS[name].module): version for name, version in found.items()}
    versions |= {module: installed_version(name) for module, name in (("numpy", "numpy"), ("PIL", "Pillow"))}
    facts, trtexec, cache = detect(), _local_trtexec(), cache_root()
    disk = next((each for each in (cache, *cache.parents) if each.is_dir()), None)
    return Capabilities(
        python=sys.executable,
        python_version=platform.python_version(),
        versions=versions,
        machine=platform.machine(),
        system=platform.system(),
        board=None if facts is None else FoundBoard(facts, read_power_modes()),
        trtexec=trtexec.path if trtexec else None,
        trtexec_version=trtexec.version_text if trtexec else None,
        free_mib=None if disk is None else shutil.disk_usage(disk).free / 2**20,
        clock_offset_s=0.0,
        lacks=lacks,
    )


def _local_trtexec() -> Trtexec | None:
    try:
        return find_trtexec()
    except (MissingError, WorkerError):
        return None


def remote_capabilities(address: Address) -> Capabilities:
    """Return what a machine that is reached over ssh can do.

    Raises:
        InputError: there is no host of that name, or ssh's configuration is in error.
        MissingError: it cannot be reached, its key is unknown or another, or it does not let us in.
    """
    with Connection(address) as connection:
        facts = look(connection)
        board = remote_board(connection)
        trtexec = _remote_trtexec(connection, facts.trtexec)
    found = Capabilities(
        python=facts.python,
        python_version=facts.python_version,
        versions=dict(facts.versions),
        machine=facts.machine,
        system=facts.system,
        board=board,
        trtexec=facts.trtexec,
        trtexec_version=trtexec,
        free_mib=facts.free_mib,
        # Without any Python nobody has asked.
        clock_offset_s=facts.clock_offset_s if facts.python_version else None,
        trip_s=facts.trip_s,
    )
    return replace(found, lacks=_remote_lacks(address, facts, found))


def _remote_lacks(address: Address, facts: Facts, found: Capabilities) -> tuple[Lack, ...]:
    lacks = []
    # trtexec builds and times by itself, so that a Python is wanted for the rest only.
    blocks = found.trtexec_version is None
    try:
        python = check_python(address, facts)
        if not found.backends:
            remedy = f"there: {python} -m pip install onnxruntime"
            lacks.append(Lack(f"{address}: its Python has no runtime", remedy, blocks=blocks))
        if "PIL" not in facts.versions:
            remedy = f"there: {python} -m pip install Pillow; arrays (.npz of float32) need none"
            lacks.append(Lack(f"{address}: Pillow is not installed there, to validate on images", remedy, blocks=False))
    except MissingError as exc:
        lacks.append(Lack(exc.problem, exc.remedy, blocks=blocks))
    if facts.clock_is_off:
        remedy = "set it there (timedatectl set-ntp true); results are told how far it is off"
        lacks.append(Lack(f"{address}: its clock is {facts.clock_told} this one's", remedy, blocks=False))
    return tuple(lacks)


def _remote_trtexec(connection: Connection, path: str | None) -> str | None:
    """Return the version of the trtexec there, None where it does not start or say."""
    if path is None:
        return None

    def spawn(arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
        return connection.start(["sh", "-c", 'exec "$0" "$@" </dev/null 2>&1', *arguments], subprocess.DEVNULL)

    try:
        return find_trtexec(spawn, path).version_text
    except (EmcaError, OSError):
        return None
