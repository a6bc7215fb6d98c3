"""`profile` on a machine without a Python of use: its own trtexec builds and times, one artifact after the other."""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from emca_deploy._progress import Progress
from emca_deploy._version import __version__
from emca_deploy.artifacts import Manifest, read_manifest
from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.records import names_where
from emca_deploy.backends.tensorrt.model_facts import read_facts
from emca_deploy.backends.tensorrt.runner_checks import check_profile, profile_of
from emca_deploy.backends.tensorrt.settings import TrtSettings, batches_of
from emca_deploy.backends.tensorrt.tool.beside import Beside
from emca_deploy.backends.tensorrt.tool.builder import trtexec_build
from emca_deploy.backends.tensorrt.tool.dialects import EngineShapes, TrtexecTiming
from emca_deploy.backends.tensorrt.tool.results import Timed
from emca_deploy.backends.tensorrt.tool.run import build_engine, time_engine
from emca_deploy.errors import EmcaError, InputError, MissingError
from emca_deploy.harness.measure.raw_samples import RawCandidate, RawSamples
from emca_deploy.remote.address import Address
from emca_deploy.remote.errors import LineLostError
from emca_deploy.remote.files import Blob, send
from emca_deploy.remote.probe import Facts
from emca_deploy.remote.protocol import RECONNECT_AFTER_S
from emca_deploy.remote.trtexec import RemoteTrtexec, remote_trtexec
from emca_deploy.requests import ProfileRequest
from emca_deploy.results.latency import LatencyResult, ProfileReport
from emca_deploy.targets.base import Profiled
from emca_deploy.targets.named_artifacts import split_artifact

__all__ = ["profile_by_trtexec"]

(BACKEND,) = names_where(trtexec=True)


def profile_by_trtexec(address: Address, facts: Facts, request: ProfileRequest, progress: Progress | None = None) -> Profiled:
    """Build and time with the far side's trtexec; nothing else runs there, so that there are no comparisons.

    Where the line goes down, trtexec is ended there, and the artifact that it was at is measured again once the line is up. What
    was measured before is kept in any case, also after Ctrl-C.

    Args:
        address: the machine.
        facts: of it.
        request: what to measure: .onnx files, which are built there first, and engines of TensorRT.
        progress: called with (artifacts done, in all).

    Raises:
        EmcaError: an artifact is not for TensorRT, or whatever trtexec says.
        LineLostError: the connection was lost before anything was measured, and is still down.
        KeyboardInterrupt: interrupted before anything was measured.
    """
    run = _Run(address, facts, request, progress)
    lost: LineLostError | None = None
    for pause_s in (0.0, *RECONNECT_AFTER_S):
        try:
            time.sleep(pause_s)
            run.go_on()
            lost = None
            break
        except LineLostError as exc:
            lost = exc
        except KeyboardInterrupt:
            if not run.results:
                raise
            break
    if lost is not None and not run.results:
        raise lost
    return run.report(lost)


class _Run:
    """Artifacts that are measured one after the other, over as many connections as it takes."""

    def __init__(self, address: Address, facts: Facts, request: ProfileRequest, progress: Progress | None) -> None:
        self.results: list[LatencyResult] = []
        self._destination, self._facts, self._request, self._progress = address, facts, request, progress
        self._far: RemoteTrtexec | None = None
        self._bytes = [0, 0]

    def go_on(self) -> None:
        """Measure what is not measured yet."""
        artifacts = self._request.artifacts
        with remote_trtexec(self._destination, self._facts.trtexec, self._request.power_mode) as far:
            self._far = far
            try:
                for artifact in artifacts[len(self.results) :]:
                    result = _There(far, self._request).measure(artifact)
                    far.check()
                    self.results.append(result)
                    if self._progress is not None:
                        self._progress(len(self.results), len(artifacts))
            finally:
                self._bytes[0] += far.connection.sent_bytes
                self._bytes[1] += far.connection.received_bytes

    def report(self, lost: LineLostError | None) -> Profiled:
        """Return what was measured."""
        assert self._far is not None  # there is a result
        complete = len(self.results) == len(self._request.artifacts)
        tool, board = self._far.tool, self._far.record()
        notes = [f"measured with {tool.path} {tool.version_text}: there is no Python of use there, so that nothing is compared"]
        if lost is not None:
            notes.append("the connection was lost: this is what was measured until then")
        results = [replace(result, warnings=(*result.warnings, *self._far.warnings)) for result in self.results]
        environment = {
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "emca_deploy": __version__,
            "ssh": {
                "destination": str(self._destination),
                "sent_bytes": self._bytes[0],
                "received_bytes": self._bytes[1],
                "python": None,
                "notes": notes,
            },
            **({"board": board} if board else {}),
        }
        report = ProfileReport(tuple(results), (), environment, protocol=results[0].protocol, complete=complete)
        return Profiled(report, RawSamples(tuple(_raw(result) for result in results), {"tool": "trtexec"}))


@dataclass(frozen=True)
class _There:
    """trtexec on the far side, and what it is asked for."""

    far: RemoteTrtexec
    request: ProfileRequest

    def measure(self, artifact: str) -> LatencyResult:
        """Build, if need be, and time one artifact."""
        backend, text = split_artifact(artifact)
        path = Path(text)
        if backend not in (None, BACKEND) or any(name != BACKEND for name in self.request.backends):
            raise MissingError(
                f"{self.far.connection.address}: without a Python there, only backend '{BACKEND}' runs, by trtexec",
                "install Python 3.10 or newer with numpy and the runtime there, or leave --backend out",
            )
        if not path.is_file():
            raise InputError(f"{text}: no such file", "name an .onnx file, or an engine of TensorRT")
        if path.suffix.lower() == ".onnx":
            with _named(text, place := send(self.far.connection, Blob.of_file(path))):
                return self._time(artifact, *self._built(path, place))
        manifest = read_manifest(path)
        if manifest is None or manifest.backend != BACKEND:
            raise InputError(
                f"{text}: is no engine of TensorRT", "name an .onnx file, or an engine of TensorRT with its manifest"
            )
        batch, shapes = self._shapes(path, manifest)
        dla_core = manifest.details.get("tensorrt", {}).get("dla_core")
        with _named(text, place := send(self.far.connection, Blob.of_file(path))):
            return self._time(artifact, place, manifest.precision, shapes, batch, dla_core)

    def _shapes(self, path: Path, manifest: Manifest) -> tuple[int, EngineShapes | None]:
        """Return the batch to time an engine with, and how trtexec is told; None where the engine has it.

        Raises:
            InputError: it was not built for that batch, or does not say its input's name.
        """
        profile, spec = profile_of(manifest), manifest.details.get("tensorrt", {}).get("input")
        own = manifest.details.get("batch") or (1 if profile else int(spec["shape"][0]) if spec else self.request.batch or 1)
        batch = self.request.batch or (profile[1] if profile and self.request.scenario == "offline" else own)
        if profile is None:
            check_profile(path, (own, own, own), batch)
            return batch, None
        check_profile(path, profile, batch)
        if spec is not None:
            return batch, EngineShapes(spec["name"], tuple(spec["shape"][1:]), (batch, batch, batch))
        if batch > 1:  # without shapes trtexec takes 1
            raise InputError(f"{path}: its manifest does not say its input's name", "build it again, or leave --batch out")
        return batch, None

    def _built(self, path: Path, place: str) -> tuple[str, str, EngineShapes | None, int]:
        """Build there; return the engine's path there, its precision, shapes and batch."""
        facts = read_facts(path)
        batch = self.request.batch or (
            8 if self.request.scenario == "offline" and isinstance(facts.input.shape[0], str) else None
        )
        fixed = facts.input.shape[0]
        options = RunOptions(1, batch=batch if batch is not None or isinstance(fixed, int) else 1)
        settings = TrtSettings()
        engine = f"{self.far.machine.folder}/{secrets.token_hex(4)}.engine"
        wanted = trtexec_build(self.far.tool.version, facts, settings, batches_of(facts.input, settings, options), engine)
        wanted = replace(wanted, onnx=place)
        build_engine(self.far.tool, wanted, self.far.machine)
        return engine, facts.precision, wanted.shapes, fixed if isinstance(fixed, int) else wanted.shapes.batches[1]  # type: ignore[union-attr]

    def _time(
        self, name: str, engine: str, precision: str, shapes: EngineShapes | None, batch: int, dla_core: int | None = None
    ) -> LatencyResult:
        request = self.request
        timing = TrtexecTiming(
            engine,
            "times.json",
            shapes,
            duration_s=request.duration_s,
            warm_up_ms=request.warmup_s * 1000,
            one_at_a_time=request.scenario == "single-stream",
            profile="profile.json",
            layer_info="layers.json",
            dla_core=dla_core,
        )
        timed = Timed(name, precision, self.far.machine.target, batch, request.scenario, request.duration_s)
        beside = Beside(self.far.machine.spawn) if request.telemetry else None
        return time_engine(self.far.tool, timing, timed, self.far.machine, beside=beside)


@contextmanager
def _named(here: str, there: str) -> Iterator[None]:
    """Have errors name the file of this machine."""
    try:
        yield
    except EmcaError as error:
        raise type(error)(error.problem.replace(there, here), error.remedy.replace(there, here)) from error


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
