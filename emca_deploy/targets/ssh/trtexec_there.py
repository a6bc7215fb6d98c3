"""`profile` on a machine without a Python of use: its own trtexec builds and times, one artifact after the other."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emca_deploy._progress import Progress
from emca_deploy._version import __version__
from emca_deploy.artifacts import read_manifest
from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.trt.model_facts import read_facts
from emca_deploy.backends.trt.settings import TrtSettings, batches_of
from emca_deploy.backends.trt.trtexec import EngineShapes, TrtexecTiming
from emca_deploy.errors import EmcaError, InputError, MissingError
from emca_deploy.harness.latency_results import LatencyResult, ProfileReport
from emca_deploy.harness.raw_samples import RawCandidate, RawSamples
from emca_deploy.targets.local import split_artifact
from emca_deploy.targets.ssh.address import Destination
from emca_deploy.targets.ssh.by_shell import put
from emca_deploy.targets.ssh.commands import spawn_on
from emca_deploy.targets.ssh.connection import Connection
from emca_deploy.targets.ssh.probe import Facts
from emca_deploy.targets.ssh.transfer import Blob
from emca_deploy.targets.trtexec.beside import Beside
from emca_deploy.targets.trtexec.builder import trtexec_build
from emca_deploy.targets.trtexec.find import Trtexec, find_trtexec
from emca_deploy.targets.trtexec.process import run_to_end
from emca_deploy.targets.trtexec.results import Timed
from emca_deploy.targets.trtexec.run import Machine, build_engine, time_engine

if TYPE_CHECKING:
    from emca_deploy.targets.profiling import ProfileRequest

__all__ = ["profile_by_trtexec"]

BACKEND = "tensorrt"
_FOLDER = """folder=${XDG_CACHE_HOME:-$HOME/.cache}/emca-deploy/runs/$1
umask 077
mkdir -p "$folder" && printf '\\n%s%s\\n' "$1" "$folder"
"""


def profile_by_trtexec(
    destination: Destination, facts: Facts, request: "ProfileRequest", progress: Progress | None = None
) -> tuple[ProfileReport, RawSamples]:
    """Build and time with the far side's trtexec; nothing else runs there, so that there are no comparisons.

    Args:
        destination: the machine.
        facts: of it.
        request: what to measure: .onnx files, which are built there first, and engines of TensorRT.
        progress: called with (artifacts done, in all).

    Raises:
        EmcaError: an artifact is not for TensorRT, or whatever trtexec says.
    """
    results: list[LatencyResult] = []
    with Connection(destination) as connection:
        tool = find_trtexec(spawn_on(connection), facts.trtexec)
        with _folder(connection) as folder:
            there = _There(connection, tool, Machine(spawn_on(connection), folder, str(destination)), request)
            for index, artifact in enumerate(request.artifacts):
                results.append(there.measure(artifact))
                if progress is not None:
                    progress(index + 1, len(request.artifacts))
        record = {
            "destination": str(destination),
            "sent_bytes": connection.sent_bytes,
            "received_bytes": connection.received_bytes,
        }
    environment = {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "emca_deploy": __version__,
        "ssh": {
            **record,
            "python": None,
            "notes": [
                f"measured with {tool.path} {tool.version_text}: there is no Python of use there, so that nothing is compared"
            ],
        },
    }
    report = ProfileReport(tuple(results), (), environment, protocol=results[0].protocol)
    return report, RawSamples(tuple(_raw(result) for result in results), {"tool": "trtexec"})


@dataclass(frozen=True)
class _There:
    """trtexec on the far side, and what it is asked for."""

    connection: Connection
    tool: Trtexec
    machine: Machine
    request: "ProfileRequest"

    def measure(self, artifact: str) -> LatencyResult:
        """Build, if need be, and time one artifact."""
        backend, text = split_artifact(artifact)
        path = Path(text)
        if backend not in (None, BACKEND) or any(name != BACKEND for name in self.request.backends):
            raise MissingError(
                f"{self.connection.destination}: without a Python there, only backend '{BACKEND}' runs, by trtexec",
                "install Python 3.10 or newer with numpy and the runtime there, or leave --backend out",
            )
        if not path.is_file():
            raise InputError(f"{text}: no such file", "name an .onnx file, or an engine of TensorRT")
        if path.suffix.lower() == ".onnx":
            with _named(text, place := put(self.connection, Blob.of_file(path))):
                return self._time(artifact, *self._built(path, place))
        manifest = read_manifest(path)
        if manifest is None or manifest.backend != BACKEND:
            raise InputError(
                f"{text}: is no engine of TensorRT", "name an .onnx file, or an engine of TensorRT with its manifest"
            )
        batch = int(manifest.details.get("batch") or self.request.batch or 1)
        with _named(text, place := put(self.connection, Blob.of_file(path))):
            return self._time(artifact, place, manifest.precision, None, batch)

    def _built(self, path: Path, place: str) -> tuple[str, str, EngineShapes | None, int]:
        """Build there; return the engine's path there, its precision, shapes and batch."""
        facts = read_facts(path)
        batch = self.request.batch or (
            8 if self.request.scenario == "offline" and isinstance(facts.input.shape[0], str) else None
        )
        fixed = facts.input.shape[0]
        options = RunOptions(1, batch=batch if batch is not None or isinstance(fixed, int) else 1)
        settings = TrtSettings()
        engine = f"{self.machine.folder}/{secrets.token_hex(4)}.engine"
        wanted = trtexec_build(self.tool.version, facts, settings, batches_of(facts.input, settings, options), engine)
        wanted = replace(wanted, onnx=place)
        build_engine(self.tool, wanted, self.machine)
        return engine, facts.precision, wanted.shapes, fixed if isinstance(fixed, int) else wanted.shapes.batches[1]  # type: ignore[union-attr]

    def _time(self, name: str, engine: str, precision: str, shapes: EngineShapes | None, batch: int) -> LatencyResult:
        request = self.request
        timing = TrtexecTiming(
            engine,
            "times.json",
            shapes,
            duration_s=request.duration_s,
            warm_up_ms=request.warmup_s * 1000,
            one_at_a_time=request.scenario == "single-stream",
        )
        timed = Timed(name, precision, self.machine.target, batch, request.scenario, request.duration_s)
        beside = Beside(self.machine.spawn) if request.telemetry else None
        return time_engine(self.tool, timing, timed, self.machine, beside=beside)


@contextmanager
def _named(here: str, there: str) -> Iterator[None]:
    """Have errors name the file of this machine."""
    try:
        yield
    except EmcaError as error:
        raise type(error)(error.problem.replace(there, here), error.remedy.replace(there, here)) from error


@contextmanager
def _folder(connection: Connection) -> Iterator[str]:
    """Make a folder there, and remove it at the end."""
    spawn, name = spawn_on(connection), secrets.token_hex(8)
    finished = run_to_end(spawn, ["sh", "-c", _FOLDER, "sh", name], 60.0)
    folder = finished.output.rpartition(f"\n{name}")[2].strip()
    if finished.code or not folder.startswith("/"):
        raise MissingError(
            f"{connection.destination}: no folder can be made there: {finished.output.strip()[-200:]}",
            "free space there, or set XDG_CACHE_HOME to another disk",
        )
    try:
        yield folder
    finally:
        run_to_end(spawn, ["rm", "-rf", folder], 60.0)


def _raw(result: LatencyResult) -> RawCandidate:
    """Return a result's samples; trtexec tells no blocks of its own, and no warm-up."""
    empty: Any = np.zeros(0)
    blocks = len(result.block_calls)
    return RawCandidate(
        name=result.artifact,
        builds=(result.artifact,),
        calls_ns=np.rint(np.array(result.samples_ms) * 1e6).astype(np.int64),
        block_calls=np.array(result.block_calls, np.int64),
        block_build=np.zeros(blocks, np.int64),
        windows_ns=np.zeros((blocks, 2), np.int64),
        warmup_ms=empty.astype(np.float64),
        warmup_build=empty.astype(np.int64),
    )
