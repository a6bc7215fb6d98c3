"""What a machine can do: Python, runtimes, the board it is, trtexec, disk and clock; of this one, or of one reached by ssh."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from emca_deploy.backends.registry import BACKENDS, available
from emca_deploy.backends.tensorrt.tool.find import Trtexec, find_trtexec
from emca_deploy.errors import EmcaError, MissingError, WorkerError
from emca_deploy.machines.jetson.facts import BOARD_FILES, BoardFacts, detect
from emca_deploy.machines.jetson.modes import PowerModes, read_power_modes
from emca_deploy.remote.address import Destination, is_ssh, parse_destination
from emca_deploy.remote.call import call, new_mark
from emca_deploy.remote.connection import Connection
from emca_deploy.remote.probe import Facts, check_python, look
from emca_deploy.remote.protocol import cache_root

__all__ = ["Board", "Capabilities", "Lack", "examine", "far_board"]

# Files come as hexadecimal digits in messages: nothing a shell prints can be taken for them, and `od` is on every machine.
# Of dpkg's list, which has megabytes, only the packages that tell a board's releases.
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
class Lack:
    """What keeps a machine from being used, or makes it doubtful.

    Attributes:
        problem: what is missing.
        remedy: what to do.
        blocks: whether nothing can be run there until that is done.
    """

    problem: str
    remedy: str
    blocks: bool = True


@dataclass(frozen=True)
class Board:
    """A Jetson board.

    Attributes:
        facts: what it is.
        modes: its power modes, and which is on, as far as its files tell.
    """

    facts: BoardFacts
    modes: PowerModes

    @property
    def power_mode(self) -> str | None:
        """The one that is on; None where nothing says."""
        return self.modes.current.name if self.modes.current else None

    @property
    def fastest_mode(self) -> str | None:
        """The fastest; None where nothing says."""
        return self.modes.fastest.name if self.modes.fastest else None

    def to_dict(self) -> dict[str, Any]:
        """Return its JSON."""
        return {**self.facts.to_dict(), "power_mode": self.power_mode, "fastest_mode": self.fastest_mode}


@dataclass(frozen=True)
class Capabilities:
    """What a machine has. What nothing says is None or empty.

    Attributes:
        python: the interpreter that runs what we send; None where none will do.
        python_version: its version, or that of the newest one where none will do.
        versions: version by package, of runtimes and what they need; None where a package does not say.
        machine: the processor's architecture ("aarch64").
        system: "Linux".
        board: the Jetson board it is.
        trtexec: where it is.
        trtexec_version: of its TensorRT.
        free_mib: on the disk that files go to.
        clock_offset_s: what its clock is ahead of this one's.
        trip_s: from asking to having been answered, the connection included; 0 for this machine.
        lacks: what is in the way.
    """

    python: str | None = None
    python_version: str | None = None
    versions: dict[str, str | None] = field(default_factory=dict)
    machine: str | None = None
    system: str | None = None
    board: Board | None = None
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


def examine(target: str, power_mode: str | None = None) -> Capabilities:
    """Return what a target can do.

    Args:
        target: "cpu", "gpu:1", "jetson" or "ssh://[user@]host[:port]"; no name of a device.
        power_mode: that runs there are to have.

    Raises:
        InputError: there is no host of that name, or ssh's configuration is in error.
        MissingError: it cannot be reached, its key is unknown or another, or it does not let us in.
    """
    there = parse_destination(target).there if is_ssh(target) else target
    found = _far(parse_destination(target)) if is_ssh(target) else _here(target)
    if found.board is None and there == "jetson":
        lack = Lack("it is no Jetson board", "name the board: ssh://user@board")
    elif found.board is None and power_mode is not None:
        lack = Lack(f"power mode '{power_mode}': it is no Jetson board", "leave the device's power mode out")
    else:
        return found
    return replace(found, lacks=(*found.lacks, lack))


def _here(target: str) -> Capabilities:
    import platform

    from emca_deploy._optional import installed_version

    found = {name: status.version for name, status in available().items() if status.version and BACKENDS[name].module}
    versions: dict[str, str | None] = {str(BACKENDS[name].module): version for name, version in found.items()}
    versions |= {module: installed_version(name) for module, name in (("numpy", "numpy"), ("PIL", "Pillow"))}
    facts = detect()
    board = None if facts is None else _board(facts, None)
    trtexec = _trtexec_here()
    return Capabilities(
        python=sys.executable,
        python_version=platform.python_version(),
        versions=versions,
        machine=platform.machine(),
        system=platform.system(),
        board=board,
        trtexec=trtexec.path if trtexec else None,
        trtexec_version=trtexec.version_text if trtexec else None,
        free_mib=_free_mib(cache_root()),
        clock_offset_s=0.0,
        lacks=_lacks_here(target),
    )


def _free_mib(folder: Path) -> float | None:
    place = next((each for each in (folder, *folder.parents) if each.is_dir()), None)
    return None if place is None else shutil.disk_usage(place).free / 2**20


def _lacks_here(target: str) -> tuple[Lack, ...]:
    if target.startswith("gpu"):
        from emca_deploy.backends.tensorrt.cuda import list_gpus

        try:
            count = len(list_gpus())
        except MissingError as exc:
            return (Lack(exc.problem, exc.remedy),)
        index = int(target.partition(":")[2] or 0)
        if index >= count:
            return (Lack(f"there is no GPU {index} here, only {count}", "`emca-deploy doctor` lists them"),)
    return ()


def _trtexec_here() -> Trtexec | None:
    try:
        return find_trtexec()
    except (MissingError, WorkerError):
        return None


def _far(destination: Destination) -> Capabilities:
    with Connection(destination) as connection:
        facts = look(connection)
        board = far_board(connection)
        trtexec = _far_trtexec(connection, facts.trtexec)
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
    return replace(found, lacks=_far_lacks(destination, facts, found))


def _far_lacks(destination: Destination, facts: Facts, found: Capabilities) -> tuple[Lack, ...]:
    lacks = []
    # trtexec builds and times by itself, so that a Python is wanted for the rest only.
    blocks = found.trtexec_version is None
    try:
        python = check_python(destination, facts)
        if not found.backends:
            remedy = f"there: {python} -m pip install onnxruntime"
            lacks.append(Lack(f"{destination}: its Python has no runtime", remedy, blocks=blocks))
        if "PIL" not in facts.versions:
            remedy = f"there: {python} -m pip install Pillow; arrays (.npz of float32) need none"
            lacks.append(Lack(f"{destination}: Pillow is not installed there, to validate on images", remedy, blocks=False))
    except MissingError as exc:
        lacks.append(Lack(exc.problem, exc.remedy, blocks=blocks))
    if facts.clock_is_off:
        ahead = f"{abs(facts.clock_offset_s):.0f} s {'ahead of' if facts.clock_offset_s > 0 else 'behind'}"
        remedy = "set it there (timedatectl set-ntp true); results are told how far it is off"
        lacks.append(Lack(f"{destination}: its clock is {ahead} this one's", remedy, blocks=False))
    return tuple(lacks)


def far_board(connection: Connection, below: str = "") -> Board | None:
    """Return what Jetson board is at the other end, or None where it is none. Needs no Python there.

    Args:
        connection: to it.
        below: the folder there that / is taken to be, without a slash at its end.

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
                place = Path(made) / message["name"]
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(bytes.fromhex(message["hex"]))
        if message is None:
            raise running.trouble(running.wait())
        facts = detect(Path(made))
        return None if facts is None else _board(facts, Path(made))


def _board(facts: BoardFacts, place: Path | None) -> Board:
    return Board(facts, read_power_modes(place))


def _far_trtexec(connection: Connection, path: str | None) -> str | None:
    """Return the version of the trtexec there, None where it does not start or say."""
    if path is None:
        return None

    def spawn(arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
        return connection.start(["sh", "-c", 'exec "$0" "$@" </dev/null 2>&1', *arguments], subprocess.DEVNULL)

    try:
        return find_trtexec(spawn, path).version_text
    except (EmcaError, OSError):
        return None
