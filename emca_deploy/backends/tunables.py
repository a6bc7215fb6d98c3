"""Which settings each backend has for `tune` to try, and which values a runner takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emca_deploy._machine import CpuInfo
from emca_deploy._optional import import_optional
from emca_deploy.errors import InputError, UnknownNameError
from emca_deploy.results.tuning import Tunable, Value

__all__ = ["RUN_OPTIONS", "TUNABLE_BACKENDS", "Situation", "check_settings", "tunables"]

RUN_OPTIONS = ("threads", "spin", "precision")
"""Tunables that every runner takes as options of its own; all others are in `RunOptions.settings`."""

HYBRID = Path("/sys/devices/cpu_core")
"""Linux names the kinds of cores of Intel's hybrid processors so."""

BOOL = (False, True)

AUTO = "AUTO"
"""OpenVINO chooses the number of streams."""

_SETTINGS: dict[str, dict[str, tuple[Value, ...] | None]] = {
    "onnxruntime": {
        "graph_optimization": ("all", "layout", "extended", "basic"),
        "execution_mode": ("sequential", "parallel"),
        "force_spinning_stop": BOOL,
        "flush_denormals": BOOL,
        "fastmath_bf16": BOOL,
        "exact_qdq": BOOL,  # Q/DQ pairs in float, as ONNX defines them, instead of integer kernels; slower, never tried
    },
    "openvino": {
        "streams": None,
        "hint": ("LATENCY", "THROUGHPUT"),
        "pinning": BOOL,
        "hyper_threading": BOOL,
        "core_type": ("ANY_CORE", "PCORE_ONLY", "ECORE_ONLY"),
        "flush_denormals": BOOL,
    },
    "fake": {"pace": ("steady", "quick", "slow", "broken")},
}
"""Backend -> setting -> the values it takes; None is a positive number, or the runtime's choice."""

TUNABLE_BACKENDS = tuple(name for name in _SETTINGS if name != "fake")


@dataclass(frozen=True)
class Situation:
    """What decides which settings are worth trying.

    Attributes:
        cpu: of this machine.
        offline: for throughput rather than for the latency of a call.
        threads_default: threads without tuning.
        threads_max: the most to try.
        engine: whether the graph is optimised already.
        precisions: compute precisions besides "f32" that may be tried, although they change the answers.
    """

    cpu: CpuInfo
    offline: bool
    threads_default: int
    threads_max: int
    engine: bool = False
    precisions: tuple[str, ...] = ()


def check_settings(backend: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings that a backend does not have, such as those of a manifest that was edited.

    Raises:
        UnknownNameError: it has none of that name.
        InputError: the value is none of those it takes.
    """
    known = _SETTINGS.get(backend, {})
    for name, value in settings.items():
        if name not in known:
            remedy = f"settings of '{backend}': {', '.join(known) or 'none'}"
            raise UnknownNameError.of(f"setting of backend '{backend}'", name, known, remedy)
        values = known[name]
        good = value in values if values else value == AUTO or (isinstance(value, int) and value > 0)
        if not good or isinstance(value, bool) != (values == BOOL):
            taken = ", ".join(map(str, values)) if values else f"a number from 1, or {AUTO}"
            raise InputError(f"setting '{name}' of backend '{backend}' is {value!r}", f"it takes: {taken}")


def tunables(backend: str, situation: Situation) -> tuple[Tunable, ...]:
    """Return the settings to try for a backend on this machine, the threads first.

    Raises:
        InputError: it has none, or not that precision.
        MissingError: its library is not installed.
    """
    if backend not in _SETTINGS:
        raise InputError(f"backend '{backend}' has no settings to tune", f"backends with some: {', '.join(TUNABLE_BACKENDS)}")
    own = {"onnxruntime": _onnxruntime, "openvino": _openvino}.get(backend, _fake)(situation)
    return (_threads(situation), *(tunable for tunable in own if tunable.others))


def _threads(situation: Situation) -> Tunable:
    """Every number up to 4, then twice as many each, and the physical and logical cores."""
    cpu, most = situation.cpu, situation.threads_max
    wanted = {1, 2, 3, 4, 8, 16, 32, 64, 128, cpu.physical_cores, cpu.logical_cores, most}
    values = sorted(number for number in wanted if number <= most and number != situation.threads_default)
    return Tunable("threads", situation.threads_default, tuple(values))


def _onnxruntime(situation: Situation) -> list[Tunable]:
    on_arm = situation.cpu.architecture in ("aarch64", "arm64")
    fastmath = on_arm and "bf16" in situation.precisions and "bf16" in situation.cpu.instruction_sets
    if situation.precisions and not fastmath:
        asked = ", ".join(situation.precisions)
        raise InputError(
            f"ONNX Runtime does not compute in {asked} on this processor", "leave out --allow-precision, or use openvino"
        )
    return [
        Tunable("spin", True, (False,), threaded=True),
        Tunable("force_spinning_stop", False, (True,), threaded=True),
        Tunable("execution_mode", "sequential", ("parallel",), threaded=True),
        Tunable("graph_optimization", "all", () if situation.engine else ("layout", "extended")),
        Tunable("flush_denormals", False, (True,)),
        Tunable("fastmath_bf16", False, (True,) if fastmath else ()),
    ]


def _openvino(situation: Situation) -> list[Tunable]:
    core = import_optional("openvino").Core()
    offered = {str(name).lower() for name in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")}
    able = {"bf16": "bf16", "f16": "fp16"}
    for precision in situation.precisions:
        if able.get(precision) not in offered:
            offers = ", ".join(sorted(offered))
            raise InputError(f"OpenVINO does not offer {precision} on this processor: it offers {offers}", "leave it out")
    properties = {str(name) for name in core.get_property("CPU", "SUPPORTED_PROPERTIES")}
    cpu = situation.cpu
    streams = tuple(n for n in (1, 2, 4, 8, 16) if n <= situation.threads_max) if situation.offline else ()
    hybrid = ("PCORE_ONLY", "ECORE_ONLY") if HYBRID.exists() else ()
    found = [
        Tunable("streams", AUTO if situation.offline else 1, streams),
        Tunable("hint", "THROUGHPUT" if situation.offline else "LATENCY", ("LATENCY",) if situation.offline else ()),
        Tunable("precision", "f32", situation.precisions),
        Tunable("pinning", True, (False,)),
        Tunable("hyper_threading", True, (False,) if cpu.online_cores > cpu.physical_cores else ()),
        Tunable("core_type", "ANY_CORE", hybrid),
        Tunable("flush_denormals", False, (True,)),
    ]
    names = {"pinning": "ENABLE_CPU_PINNING", "hyper_threading": "ENABLE_HYPER_THREADING", "core_type": "SCHEDULING_CORE_TYPE"}
    return [tunable for tunable in found if names.get(tunable.name, "NUM_STREAMS") in properties]


def _fake(situation: Situation) -> list[Tunable]:
    return [Tunable("pace", "steady", ("quick", "slow", "broken")), Tunable("precision", "f32", situation.precisions)]
