"""Building and timing engines with trtexec, on this machine or on one that a connection reaches."""

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from emca_deploy.backends.tensorrt.dla_log import DlaPlacement, read_placement
from emca_deploy.backends.tensorrt.inspect import EngineLayer, int8_convolutions, read_layers
from emca_deploy.backends.tensorrt.tool.beside import Beside, watching
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
"""To load the engine, warm up, and profile as long again."""


@dataclass(frozen=True)
class Host:
    """Where trtexec runs.

    Attributes:
        spawn: starts a command there.
        folder: there, for what trtexec exports; must exist.
        target: its name in results.
    """

    spawn: Spawn = spawn_here
    folder: str = "/tmp"
    target: str = "local"


@dataclass(frozen=True)
class EngineBuild:
    """What a build came to.

    Attributes:
        version: TensorRT's version.
        dla: which of them run on the DLA; None for an engine of the GPU alone, or where the log does not say.
        log: the last lines that trtexec printed, the verbose ones left out.
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
        """Convolutions of the engine that compute in INT8, those on a DLA not counted: the log does not list them."""
        return int8_convolutions(self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return what a manifest records."""
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
    """Build an engine on a machine (None: this one), whole or not at all: it is written beside and renamed.

    The paths of `build` are that machine's.

    Raises:
        InputError: this version of TensorRT does not build so, or memory does not suffice.
        ModelError: TensorRT does not take the model.
        MissingError: trtexec is gone, or there is no GPU it can use.
        WorkerError: it crashed or hung.
        KeyboardInterrupt: Ctrl-C; trtexec has been stopped, and nothing is left.
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
            raise WorkerError(f"{build.engine}: trtexec wrote no engine: {_first_line(moved.output)}", "look at its log")
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
    """Time an engine on a machine (None: this one) and return a result of our schema; `timed` names it there.

    What trtexec exports is written into the machine's folder, read and removed. `times`, `profile` and `layer_info` are file
    names in that folder. `beside` watches power and load while the engine runs.

    Raises:
        InputError: the engine is not one that trtexec loads.
        MissingError: trtexec is gone, or there is no GPU it can use.
        WorkerError: it crashed or hung, or what it wrote is cut off.
        KeyboardInterrupt: Ctrl-C; trtexec has been stopped, and nothing is left.
    """
    machine = machine or Host()
    token = secrets.token_hex(4)
    there = replace(
        timing,
        times=_place(machine, timing.times, token),
        profile=_place(machine, timing.profile, token) if timing.profile else None,
        layer_info=_place(machine, timing.layer_info, token) if timing.layer_info else None,
    )
    options = timing_options(tool.version, there)
    files = [path for path in (there.times, there.profile, there.layer_info) if path is not None]
    with _removed(machine, files), watching(beside) as watch:
        limit_s = timing.duration_s * (2 if timing.profile else 1) + timing.warm_up_ms / 1000 + BEYOND_MEASURING_S
        finished = _run(machine, tool, options, limit_s, watch.line)
        log = read_log(finished.output)
        _check(tool, finished, log, f"{timing.engine}: trtexec cannot run it")
        try:
            times = measured(tool, log, read_times(_read(machine, there.times), timing.times))
            profile = read_profile(_read(machine, there.profile), str(timing.profile)) if there.profile else None
            layers = _layers(machine, there.layer_info, options)
        except InputError as exc:  # the tool's own files are nobody's input
            raise WorkerError(f"trtexec left a damaged file: {exc.problem}", exc.remedy) from exc
    known = replace(
        timed,
        target=machine.target,
        options=tuple(timing_options(tool.version, timing)),
        details={**timed.details, **layers, "log": list(_last(finished.output.splitlines()))},
    )
    result = latency_result(tool, known, log, times, profile)
    return replace(result, telemetry=watch.telemetry(result.throughput_images_per_s))


def _last(lines: Sequence[str]) -> tuple[str, ...]:
    """Return what of a log is worth keeping."""
    return tuple([line for line in lines if line.strip() and "[V]" not in line][-LOG_LINES:])


def _layers(machine: Host, path: str | None, options: Sequence[str]) -> dict[str, Any]:
    """Return the engine's layers for the result, where this version writes them."""
    if path is None or not any(option.startswith("--exportLayerInfo") for option in options):
        return {}
    layers = read_layer_info(_read(machine, path), path.rpartition("/")[2])
    return {"layers": [{"name": layer.name, "kind": layer.kind, "outputs": list(layer.outputs)} for layer in layers]}


def _place(machine: Host, name: str, token: str) -> str:
    return f"{machine.folder.rstrip('/')}/emca-{token}.{name}"


def _run(
    machine: Host, tool: Trtexec, options: Sequence[str], timeout_s: float, on_line: Callable[[str], None] | None = None
) -> Finished:
    try:
        return run_to_end(machine.spawn, [tool.path, *options], timeout_s, on_line)
    except OSError as exc:
        raise MissingError(
            f"{tool.path} cannot be started: {exc.strerror or exc}", "install TensorRT there, or say where it is"
        ) from exc


def _read(machine: Host, path: str) -> str:
    """Return a file of the machine's; what its shell prints of itself comes before the mark."""
    mark = f"begin-{secrets.token_hex(8)}"
    finished = run_to_end(machine.spawn, ["sh", "-c", 'printf "%s\\n" "$0"; exec cat "$1"', mark, path], 300.0)
    _, found, text = finished.output.partition(f"{mark}\n")
    if finished.code or not found:
        raise WorkerError(f"trtexec ended well and wrote no {path.rpartition('/')[2]}", "is the disk full there?")
    return text


@contextmanager
def _removed(machine: Host, paths: Sequence[str]) -> Iterator[None]:
    """Remove files of the machine's at the end, however it comes."""
    try:
        yield
    finally:
        with suppress(EmcaError, OSError):  # a lost connection has its own error by now
            run_to_end(machine.spawn, ["rm", "-f", *paths], 30.0)


def _check(tool: Trtexec, finished: Finished, log: TrtexecLog, what: str) -> None:
    """Refuse a run that did not end well, with the reason it printed."""
    if finished.code == 0 and log.passed is not False:
        return
    if log.unknown_options:
        named = ", ".join(log.unknown_options)
        raise WorkerError(f"trtexec {tool.version_text} does not know {named}", "report this: the table of its options is wrong")
    reason = " ".join((log.errors or (_first_line(finished.output),))[0].split())[:240]
    everything = " ".join(log.errors)
    if NO_GPU.search(everything):
        raise MissingError(f"{tool.path} cannot use the GPU: {reason}", "check the driver, and that nothing else holds the GPU")
    if NO_MEMORY.search(everything):
        raise InputError(f"{what}: {reason}", "allow less workspace, take a smaller batch, or stop what else uses the memory")
    if finished.code < 0 or finished.code > 128:
        number = -finished.code if finished.code < 0 else finished.code - 128
        raise WorkerError(f"{what}: it was ended by signal {number}", "look with dmesg whether memory ran out there")
    raise ModelError(f"{what}: {reason}", "`emca-deploy plan` says what this version of TensorRT wants")


def _first_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it does not say why"
