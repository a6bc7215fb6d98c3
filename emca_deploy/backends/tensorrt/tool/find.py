"""The search for trtexec, and its version."""

from dataclasses import dataclass

from emca_deploy.backends.tensorrt.tool.dialects import dialect_of, version_name
from emca_deploy.backends.tensorrt.tool.log import read_log
from emca_deploy.backends.tensorrt.tool.process import Finished, Spawn, run_to_end, spawn_here
from emca_deploy.errors import EmcaError, MissingError

__all__ = ["PLACES", "Trtexec", "find_trtexec"]

PLACES = (
    "/usr/src/tensorrt/bin/trtexec",  # JetPack and Debian packages
    "/usr/local/tensorrt/bin/trtexec",
    "trtexec",  # on the PATH
    "/opt/tensorrt/bin/trtexec",  # NVIDIA's containers
    "/workspace/tensorrt/bin/trtexec",
)
"""Its usual places, in the order in which they are tried."""

NOT_THERE = (126, 127)
"""Exit codes of a shell that does not find a command or may not run it."""

BROKEN = "error while loading shared libraries"
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Trtexec:
    """A working trtexec: its path on its machine, and the version of TensorRT."""

    path: str
    version: tuple[int, int, int]

    @property
    def version_text(self) -> str:
        """The version as text: "10.3.0"."""
        return version_name(self.version)


def find_trtexec(spawn: Spawn = spawn_here, path: str | None = None, places: tuple[str, ...] = PLACES) -> Trtexec:
    """Find trtexec on the machine where `spawn` starts commands, at `path` or in the usual places, and read its version.

    Raises:
        MissingError: it is in none of the places, does not start, is too old, or does not print its version.
        WorkerError: it hangs.
    """
    refused: EmcaError | None = None
    for place in (path,) if path else places:
        finished = _asked(spawn, place)
        if finished is None:
            continue
        try:
            return _known(place, finished)
        except MissingError as exc:
            refused = refused or exc
    if refused is not None:
        raise refused
    looked = path or ", ".join(places)
    raise MissingError(
        f"there is no trtexec: looked for {looked}", "install TensorRT (libnvinfer-bin has it), or give the path of trtexec"
    )


def _asked(spawn: Spawn, place: str) -> Finished | None:
    """Run `trtexec --help`, whose first line has the version; None where there is no such command."""
    try:
        finished = run_to_end(spawn, [place, "--help"], TIMEOUT_S)
    except OSError:
        return None
    return None if finished.code in NOT_THERE and BROKEN not in finished.output else finished


def _known(place: str, finished: Finished) -> Trtexec:
    if BROKEN in finished.output:
        library = finished.output.split(BROKEN, maxsplit=1)[1].strip(": \n").split(":")[0]
        raise MissingError(f"{place} does not start: it lacks {library}", "reinstall TensorRT, or set LD_LIBRARY_PATH there")
    version = read_log(finished.output).version
    if version is None:
        said = " ".join(finished.output.split())[:120] or f"nothing (exit code {finished.code})"
        raise MissingError(f"{place} does not print its version, but {said}", "name TensorRT's own trtexec, 8.0 or newer")
    dialect_of(version)
    return Trtexec(place, version)
