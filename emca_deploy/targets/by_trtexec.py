"""`profile` and `build` by the trtexec of a remote machine whose Python cannot run the agent."""

import secrets
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from emca_deploy._progress import Progress
from emca_deploy._version import __version__
from emca_deploy.artifacts import read_manifest, this_command, write_manifest
from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.records import names_where
from emca_deploy.backends.tensorrt.model_facts import read_facts
from emca_deploy.backends.tensorrt.runner_checks import check_profile, profile_of
from emca_deploy.backends.tensorrt.settings import TrtSettings, batches_of
from emca_deploy.backends.tensorrt.tool.beside import Beside
from emca_deploy.backends.tensorrt.tool.builder import TrtexecBuilder, trtexec_build
from emca_deploy.backends.tensorrt.tool.dialects import EngineShapes, TrtexecBuild, TrtexecTiming
from emca_deploy.backends.tensorrt.tool.find import Trtexec
from emca_deploy.backends.tensorrt.tool.results import Timed
from emca_deploy.backends.tensorrt.tool.run import EngineBuild, build_engine, time_engine
from emca_deploy.errors import InputError, MissingError, WorkerError
from emca_deploy.harness.measure.raw_samples import RawCandidate, RawSamples
from emca_deploy.machines.jetson.facts import check_dla_core
from emca_deploy.remote.address import Address
from emca_deploy.remote.errors import ConnectionLostError
from emca_deploy.remote.files import Blob, fetch, send
from emca_deploy.remote.protocol import RECONNECT_AFTER_S
from emca_deploy.remote.trtexec import RemoteTrtexec, remote_trtexec
from emca_deploy.requests import BuildRequest, ProfileRequest
from emca_deploy.results.latency import LatencyResult, ProfileReport
from emca_deploy.targets.base import Built, Profiled
from emca_deploy.targets.building import run_options, trt_settings
from emca_deploy.targets.local import OFFLINE_BATCH
from emca_deploy.targets.named_artifacts import split_artifact
from emca_deploy.targets.shipment import Shipment

__all__ = ["build_by_trtexec", "profile_by_trtexec"]

(BACKEND,) = names_where(trtexec=True)


def build_by_trtexec(address: Address, path: str | None, request: BuildRequest, progress: Progress | None = None) -> Built:
    """Build an engine with a remote machine's trtexec, and write it on this machine.

    The path is trtexec's; without one, the usual places are searched. `progress` is called while the model is sent.

    Raises:
        EmcaError: trtexec fails, or the machine cannot be used.
        ConnectionLostError: the connection was lost.
    """
    if request.backend != BACKEND:
        raise InputError(f"backend '{request.backend}' is not built with trtexec", f"use --backend {BACKEND}")
    core, output = request.choices.dla_core, Path(request.output)
    with remote_trtexec(address, path, request.power_mode) as remote:
        if core is not None and remote.board is not None:
            check_dla_core(remote.board.facts, core)
        manifest = _RemoteBuilder(request, remote, progress).build(Path(request.model), output, run_options(request))
    board = remote.record()
    details = {**manifest.details, "built_on": str(address), **({"board": board} if board else {})}
    written = write_manifest(output, replace(manifest, command=this_command(), details=details))
    return Built(written, (f"built by {address}'s {remote.tool.path} {remote.tool.version_text}", *remote.warnings))


class _RemoteBuilder(TrtexecBuilder):
    """The builder whose tool and files are a remote machine's."""

    def __init__(self, request: BuildRequest, remote: RemoteTrtexec, progress: Progress | None) -> None:
        super().__init__(trt_settings(request), float_layers=request.float_layers)
        self._remote, self._progress = remote, progress

    def _find(self) -> Trtexec:
        return self._remote.tool

    def _build(self, tool: Trtexec, wanted: TrtexecBuild) -> EngineBuild:
        engine, built = _built(self._remote, wanted, self._timeout_s, self._progress)
        fetch(self._remote.connection, engine, None, Path(wanted.engine))
        return built

    def _machine(self) -> dict[str, Any]:
        board, address = self._remote.board, self._remote.connection.address
        capability = board.facts.capability if board else None
        if board is None and self._remote.architecture is None:
            raise WorkerError(f"{address}: its architecture cannot be read", "check that `uname -m` works on it")
        return {
            "model": board.facts.model if board else f"a GPU of {address}",
            "architecture": self._remote.architecture,
            "instruction_sets": [f"sm_{capability.replace('.', '')}"] if capability else [],
        }


def profile_by_trtexec(address: Address, path: str | None, request: ProfileRequest, progress: Progress | None = None) -> Profiled:
    """Build and time with a remote machine's trtexec, one artifact after the other, so nothing is compared.

    If the connection is lost, trtexec ends, and the current artifact is measured again once the machine can be reached. What was
    measured before is kept, also after Ctrl-C.

    Raises:
        EmcaError: an artifact is not for TensorRT, or trtexec fails.
        ConnectionLostError: the connection was lost before anything was measured, and cannot be made again.
        KeyboardInterrupt: interrupted before anything was measured.
    """
    run = _Run(address, path, request, progress)
    lost: ConnectionLostError | None = None
    for pause_s in (0.0, *RECONNECT_AFTER_S):
        try:
            time.sleep(pause_s)
            run.resume()
            lost = None
            break
        except ConnectionLostError as exc:
            lost = exc
        except KeyboardInterrupt:
            if not run.results:
                raise
            break
    if lost is not None and not run.results:
        raise lost
    return run.report(lost)


class _Run:
    """Artifacts that are measured one after the other, over several connections if need be."""

    def __init__(self, address: Address, path: str | None, request: ProfileRequest, progress: Progress | None) -> None:
        self.results: list[LatencyResult] = []
        self._address, self._path, self._request, self._progress = address, path, request, progress
        self._remote: RemoteTrtexec | None = None
        self._bytes = [0, 0]

    def resume(self) -> None:
        """Measure what is not measured yet."""
        artifacts = self._request.artifacts
        with remote_trtexec(self._address, self._path, self._request.power_mode) as remote:
            self._remote = remote
            try:
                for artifact in artifacts[len(self.results) :]:
                    result = _measure(remote, self._request, artifact)
                    remote.check()
                    self.results.append(result)
                    if self._progress is not None:
                        self._progress(len(self.results), len(artifacts))
            finally:
                self._bytes[0] += remote.connection.sent_bytes
                self._bytes[1] += remote.connection.received_bytes

    def report(self, lost: ConnectionLostError | None) -> Profiled:
        """Return what was measured."""
        assert self._remote is not None  # there is a result
        complete = len(self.results) == len(self._request.artifacts)
        tool, board = self._remote.tool, self._remote.record()
        notes = [f"measured with {tool.path} {tool.version_text}, without comparisons: its Python cannot run the agent"]
        if lost is not None:
            notes.append("the connection was lost: this is what was measured until then")
        results = [replace(result, warnings=(*result.warnings, *self._remote.warnings)) for result in self.results]
        environment = {
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "emca_deploy": __version__,
            "ssh": {
                "destination": str(self._address),
                "sent_bytes": self._bytes[0],
                "received_bytes": self._bytes[1],
                "python": None,
                "notes": notes,
            },
            **({"board": board} if board else {}),
        }
        report = ProfileReport(tuple(results), (), environment, protocol=results[0].protocol, complete=complete)
        return Profiled(report, RawSamples(tuple(_raw(result) for result in results), {"tool": "trtexec"}))


class _Engine(NamedTuple):
    """An engine on the remote machine, and how to time it."""

    path: str
    precision: str
    shapes: EngineShapes | None
    batch: int
    dla_core: int | None = None


def _measure(remote: RemoteTrtexec, request: ProfileRequest, artifact: str) -> LatencyResult:
    """Build, if need be, and time one artifact."""
    backend, text = split_artifact(artifact)
    path = Path(text)
    if backend not in (None, BACKEND) or any(name != BACKEND for name in request.backends):
        raise MissingError(
            f"{remote.connection.address}: without a Python it runs only backend '{BACKEND}', by trtexec",
            "install Python 3.10 or newer with numpy and the runtime on it, or leave --backend out",
        )
    if not path.is_file():
        raise InputError(f"{text}: no such file", "name an .onnx file, or an engine of TensorRT")
    engine = (_build_model if path.suffix.lower() == ".onnx" else _send_engine)(remote, request, path)
    timing = TrtexecTiming(
        engine.path,
        "times.json",
        engine.shapes,
        duration_s=request.duration_s,
        warm_up_ms=request.warmup_s * 1000,
        one_at_a_time=request.scenario == "single-stream",
        profile="profile.json",
        layer_info="layers.json",
        dla_core=engine.dla_core,
    )
    timed = Timed(artifact, engine.precision, remote.machine.target, engine.batch, request.scenario, request.duration_s)
    beside = Beside(remote.machine.spawn) if request.telemetry else None
    with Shipment(names={engine.path: text}).naming():
        return time_engine(remote.tool, timing, timed, remote.machine, beside=beside)


def _send_engine(remote: RemoteTrtexec, request: ProfileRequest, path: Path) -> _Engine:
    manifest = read_manifest(path)
    if manifest is None or manifest.backend != BACKEND:
        raise InputError(f"{path}: is no engine of TensorRT", "name an .onnx file, or an engine of TensorRT with its manifest")
    details = manifest.details.get("tensorrt", {})
    profile, spec = profile_of(manifest), details.get("input")
    own = manifest.details.get("batch") or (1 if profile else int(spec["shape"][0]) if spec else request.batch or 1)
    batch = request.batch or (profile[1] if profile and request.scenario == "offline" else own)
    check_profile(path, profile or (own, own, own), batch)
    shapes = None  # those of the engine
    if profile is not None and spec is not None:
        shapes = EngineShapes(spec["name"], tuple(spec["shape"][1:]), (batch, batch, batch))
    elif profile is not None and batch > 1:  # without shapes trtexec takes 1
        raise InputError(f"{path}: its manifest lacks its input's name", "build it again, or leave --batch out")
    engine = send(remote.connection, Blob.of_file(path))
    return _Engine(engine, manifest.precision, shapes, batch, details.get("dla_core"))


def _build_model(remote: RemoteTrtexec, request: ProfileRequest, path: Path) -> _Engine:
    facts = read_facts(path)
    fixed = facts.input.shape[0] if isinstance(facts.input.shape[0], int) else None
    default = None if fixed is not None else OFFLINE_BATCH if request.scenario == "offline" else 1
    settings = TrtSettings()
    batches = batches_of(facts.input, settings, RunOptions(1, batch=request.batch or default))
    wanted = trtexec_build(remote.tool.version, facts, settings, batches, "")
    engine, _ = _built(remote, wanted)
    return _Engine(engine, facts.precision, wanted.shapes, fixed or (wanted.shapes.batches[1] if wanted.shapes else 1))


def _built(
    remote: RemoteTrtexec, wanted: TrtexecBuild, timeout_s: float = 7200.0, progress: Progress | None = None
) -> tuple[str, EngineBuild]:
    """Send a model and build it; return the engine's remote path, and trtexec's report with the model's local name."""
    engine = f"{remote.machine.folder}/{secrets.token_hex(4)}.engine"
    onnx = send(remote.connection, Blob.of_file(Path(wanted.onnx)), progress)
    cache = None if wanted.cache is None else send(remote.connection, Blob.of_file(Path(wanted.cache)))
    with Shipment(names={onnx: wanted.onnx}).naming():
        built = build_engine(remote.tool, replace(wanted, onnx=onnx, engine=engine, cache=cache), remote.machine, timeout_s)
    return engine, replace(built, options=tuple(option.replace(onnx, wanted.onnx) for option in built.options))


def _raw(result: LatencyResult) -> RawCandidate:
    """Return a result's samples; trtexec reports neither blocks of its own nor its warm-up."""
    blocks = len(result.block_calls)
    return RawCandidate(
        name=result.artifact,
        builds=(result.artifact,),
        calls_ns=np.rint(np.array(result.samples_ms) * 1e6).astype(np.int64),
        block_calls=np.array(result.block_calls, np.int64),
        block_build=np.zeros(blocks, np.int64),
        windows_ns=np.zeros((blocks, 2), np.int64),
        warmup_ms=np.zeros(0, np.float64),
        warmup_build=np.zeros(0, np.int64),
    )
