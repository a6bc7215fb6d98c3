"""Builds and timing of engines with trtexec, on this machine or on a remote one."""

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

from emca_deploy.backends.tensorrt.dla_log import DlaPlacement, read_placement
from emca_deploy.backends.tensorrt.inspect import EngineLayer, int8_convolutions, read_layers
from emca_deploy.backends.tensorrt.tool.beside import Beside
from emca_deploy.backends.tensorrt.tool.dialects import (
    TrtexecBuild,
    TrtexecTiming,
    build_options,
    dialect_of,
    timing_options,
)
from emca_deploy.backends.tensorrt.tool.exports import read_layer_info, read_profile, read_times
from emca_deploy.backends.tensorrt.tool.find import Trtexec
from emca_deploy.backends.tensorrt.tool.log import TrtexecLog, read_log
from emca_deploy.backends.tensorrt.tool.process import Finished, Spawn, run_to_end, spawn_here
from emca_deploy.backends.tensorrt.tool.results import Timed, latency_result, measured
from emca_deploy.errors import EmcaError, InputError, MissingError, ModelError, WorkerError
from emca_deploy.results.latency import LatencyResult

__all__ = ["EngineBuild", "Host", "build_engine", "time_engine"]

NO_GPU = re.compile(
    r"CUDA initialization failure|no CUDA-capable device|cudaError|Cuda failure|CUDA driver version", re.IGNORECASE
)
NO_MEMORY = re.compile(r"out of memory|OutOfMemory", re.IGNORECASE)
LOG_LINES = 80
BEYOND_MEASURING_S = 300.0
"""Seconds allowed for loading the engine and other work around the measurement."""


@dataclass(frozen=True)
class Host:
    """The machine that runs trtexec.

    Attributes:
        spawn: Callable that starts a command on it.
        folder: Existing folder on it for the files that trtexec exports.
        target: Its name in results.
    """

    spawn: Spawn = spawn_here
    folder: str = "/tmp"
    target: str = "local"


@dataclass(frozen=True)
class EngineBuild:
    """The result of a build.

    Attributes:
        dla: Placement of the layers on DLA and GPU; None for an engine of the GPU alone, or where the log has none.
        log: Last lines that trtexec printed, without the verbose ones.
    """

    version: str
    options: tuple[str, ...]
    seconds: float
    layers: tuple[EngineLayer, ...]
    dla: DlaPlacement | None
    warnings: tuple[str, ...]
    log: tuple[str, ...] = ()

    @property
    def int8_convolutions(self) -> int:
        """The number of convolutions that compute in INT8, without those on a DLA, which the log does not list."""
        return int8_convolutions(self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return the record for a manifest."""
        return {
            "tool": "trtexec",
            "version": self.version,
            "options": list(self.options),
            "seconds": self.seconds,
            "layers": len(self.layers),
            "int8_convolutions": self.int8_convolutions,
            "warnings": list(self.warnings),
            "log": list(self.log),
        }


def build_engine(tool: Trtexec, build: TrtexecBuild, machine: Host | None = None, timeout_s: float = 3600.0) -> EngineBuild:
    """Build an engine on a machine (None: this one), whole or not at all: it gets its name when it is complete.

    The paths of `build` are that machine's.

    Raises:
        InputError: this version of TensorRT cannot build the engine, or memory is too small.
        ModelError: TensorRT does not accept the model.
        MissingError: trtexec cannot be started, or there is no GPU it can use.
        WorkerError: trtexec crashed or hung.
        KeyboardInterrupt: Ctrl-C was pressed; trtexec has been stopped, and no file remains.
    """
    machine = machine or Host()
    unfinished = f"{build.engine}.{secrets.token_hex(4)}.part"
    options = build_options(tool.version, replace(build, engine=unfinished))
    options += [dialect_of(tool.version).build_only, "--verbose"]
    if dialect_of(tool.version).layer_info:
        options.append("--profilingVerbosity=detailed")
    with _removed(machine, [unfinished]):
        finished = _run(machine, tool, options, timeout_s)
        log = read_log(finished.output)
        _check(tool, finished, log, f"{build.onnx}: trtexec cannot build it")
        moved = run_to_end(machine.spawn, ["mv", "-f", unfinished, build.engine], 60.0)
        if moved.code:
            raise WorkerError(f"{build.engine}: trtexec wrote no engine: {_last_line(moved.output)}", "look at its log")
    lines = finished.output.splitlines()
    return EngineBuild(
        tool.version_text,
        tuple(build_options(tool.version, build)),
        finished.seconds,
        tuple(read_layers(lines)),
        read_placement(lines) if build.dla_core is not None else None,
        tuple(text for text in log.warnings if "Profiling verbosity" not in text),
        _last(lines),
    )


def time_engine(
    tool: Trtexec, timing: TrtexecTiming, timed: Timed, machine: Host | None = None, *, beside: Beside | None = None
) -> LatencyResult:
    """Time an engine on a machine (None: this one), and return a result that records `timed`.

    `times`, `profile` and `layer_info` name files that trtexec exports to the machine's folder; they are read and removed.
    `beside` records power and load while the engine runs.

    Raises:
        InputError: the GPU's memory is too small.
        ModelError: trtexec cannot load the engine.
        MissingError: trtexec cannot be started, or there is no GPU it can use.
        WorkerError: trtexec crashed or hung, or its files are damaged.
        KeyboardInterrupt: Ctrl-C was pressed; trtexec has been stopped, and no file remains.
    """
    machine = machine or Host()
    prefix = f"{machine.folder.rstrip('/')}/emca-{secrets.token_hex(4)}."
    there = replace(
        timing,
        times=prefix + timing.times,
        profile=timing.profile and prefix + timing.profile,
        layer_info=timing.layer_info and prefix + timing.layer_info,
    )
    options = timing_options(tool.version, there)
    files = [path for path in (there.times, there.profile, there.layer_info) if path is not None]
    with _removed(machine, files), nullcontext() if beside is None else beside.running():
        limit_s = timing.duration_s * (2 if timing.profile else 1) + timing.warm_up_ms / 1000 + BEYOND_MEASURING_S
        finished = _run(machine, tool, options, limit_s, None if beside is None else beside.line)
        log = read_log(finished.output)
        _check(tool, finished, log, f"{timing.engine}: trtexec cannot run it")
        try:
            times = measured(tool, log, read_times(_read(machine, there.times), timing.times))
            profile = read_profile(_read(machine, there.profile), str(timing.profile)) if there.profile else None
            layers = _layers(machine, there.layer_info, options)
        except InputError as exc:  # the tool's own files are not the user's input
            raise WorkerError(f"trtexec left a damaged file: {exc.problem}", exc.remedy) from exc
    known = replace(
        timed,
        target=machine.target,
        options=tuple(timing_options(tool.version, timing)),
        details={**timed.details, **layers, "log": list(_last(finished.output.splitlines()))},
    )
    result = latency_result(tool, known, log, times, profile)
    return result if beside is None else replace(result, telemetry=beside.telemetry(result.throughput_images_per_s))


def _last(lines: Sequence[str]) -> tuple[str, ...]:
    """Return the last lines of a log, without the verbose ones."""
    return tuple([line for line in lines if line.strip() and "[V]" not in line][-LOG_LINES:])


def _layers(machine: Host, path: str | None, options: Sequence[str]) -> dict[str, Any]:
    """Return the engine's layers for the result, if this version writes them."""
    if path is None or not any(option.startswith("--exportLayerInfo") for option in options):
        return {}
    layers = read_layer_info(_read(machine, path), path.rpartition("/")[2])
    return {"layers": [{"name": layer.name, "kind": layer.kind, "outputs": list(layer.outputs)} for layer in layers]}


def _run(
    machine: Host, tool: Trtexec, options: Sequence[str], timeout_s: float, on_line: Callable[[str], None] | None = None
) -> Finished:
    try:
        return run_to_end(machine.spawn, [tool.path, *options], timeout_s, on_line)
    except OSError as exc:
        raise MissingError(
            f"{tool.path} cannot be started: {exc.strerror or exc}", "install TensorRT there, or give the path of trtexec"
        ) from exc


def _read(machine: Host, path: str) -> str:
    """Return a file of the machine; the mark separates it from what the machine's shell may print first."""
    mark = f"begin-{secrets.token_hex(8)}"
    finished = run_to_end(machine.spawn, ["sh", "-c", 'printf "%s\\n" "$0"; exec cat "$1"', mark, path], 300.0)
    _, found, text = finished.output.partition(f"{mark}\n")
    if finished.code or not found:
        raise WorkerError(f"trtexec succeeded, but wrote no {path.rpartition('/')[2]}", "check that the disk there is not full")
    return text


@contextmanager
def _removed(machine: Host, paths: Sequence[str]) -> Iterator[None]:
    """Remove files of the machine at the end, also after an error."""
    try:
        yield
    finally:
        with suppress(EmcaError, OSError):  # a lost connection has raised its own error already
            run_to_end(machine.spawn, ["rm", "-f", *paths], 30.0)


def _check(tool: Trtexec, finished: Finished, log: TrtexecLog, what: str) -> None:
    """Raise an error with the reason that trtexec printed, if the run failed."""
    if finished.code == 0 and log.passed is not False:
        return
    if log.unknown_options:
        named = ", ".join(log.unknown_options)
        raise WorkerError(f"trtexec {tool.version_text} has no {named}", "report this: the table of its options is wrong")
    reason = " ".join((log.errors or (_last_line(finished.output),))[0].split())[:240]
    everything = " ".join(log.errors)
    if NO_GPU.search(everything):
        raise MissingError(f"{tool.path} cannot use the GPU: {reason}", "check the driver, and end what else holds the GPU")
    if NO_MEMORY.search(everything):
        raise InputError(f"{what}: {reason}", "allow less workspace, use a smaller batch, or end what else uses the memory")
    if finished.code < 0 or finished.code > 128:
        number = -finished.code if finished.code < 0 else finished.code - 128
        raise WorkerError(f"{what}: signal {number} ended it", "check with dmesg whether memory ran out there")
    raise ModelError(f"{what}: {reason}", "`emca-deploy plan` shows what this version of TensorRT needs")


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
