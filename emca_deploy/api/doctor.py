"""`doctor`: what this machine can do, and its traps."""

import platform
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from emca_deploy._machine import INSTRUCTION_SETS, CpuInfo, cpu_info, default_threads, find_gpus, read_governors, read_memory_mib
from emca_deploy._optional import has_cuda
from emca_deploy.backends.records import BACKENDS, names_where
from emca_deploy.backends.registry import BackendStatus, available
from emca_deploy.errors import MissingError
from emca_deploy.machines.jetson.traps import Trap, examine_board
from emca_deploy.results.codec import left_out, version

__all__ = ["DoctorReport", "MachineFacts", "doctor", "find_traps", "gpu_failure", "load_failure"]

LOAD_TIMEOUT_S = 120
ARM_INT8 = {"asimddp", "i8mm"}


@dataclass(frozen=True, kw_only=True)
class DoctorReport:
    """Capabilities of this machine.

    Attributes:
        backends: "usable", "version", "reason" and "remedy" of each backend by name; the last two are None if it is usable.
        cpu: model, architecture and cores of the processor, and what each of its instruction sets means for INT8.
        gpus: names of the GPUs.
        governors: distinct frequency governors; empty if unknown.
        threads: default number of threads of every operation.
        memory_mib: memory in MiB; None if unknown.
        python: version of the interpreter.
        platform: operating system.
        board: Jetson board with its power mode and clocks; None on other machines.
        traps: settings that make measurements or INT8 models worse, worst first.
    """

    schema_version: int = version(1)
    backends: Mapping[str, Mapping[str, Any]]
    cpu: Mapping[str, Any]
    gpus: tuple[str, ...]
    governors: tuple[str, ...]
    threads: int
    memory_mib: float | None
    python: str
    platform: str
    board: Mapping[str, Any] | None = left_out()
    traps: tuple[Trap, ...]


@dataclass(frozen=True)
class MachineFacts:
    """The facts that traps depend on; `with_cuda` has the backends whose library can use the GPU."""

    cpu: CpuInfo
    governors: tuple[str, ...]
    gpus: tuple[str, ...]
    usable: tuple[str, ...]
    with_cuda: tuple[str, ...] = ()


def doctor() -> DoctorReport:
    """Examine this machine; every installed library is loaded in a process of its own."""
    cpu = cpu_info()
    backends = _checked({name: status for name, status in available().items() if not BACKENDS[name].hidden})
    gpus, governors = find_gpus(), read_governors()
    usable = tuple(name for name, status in backends.items() if status.reason is None)
    built = tuple(name for name, backend in BACKENDS.items() if backend.package and has_cuda(backend.package))
    with_cuda = built if gpus and gpu_failure() is None else ()
    board, board_traps = examine_board() or (None, [])
    # On a board, jetson_clocks sets the governor, and has a trap of its own.
    traps = find_traps(MachineFacts(cpu, () if board else governors, gpus, usable, with_cuda))
    return DoctorReport(
        backends={name: {"usable": name in usable, **asdict(status)} for name, status in backends.items()},
        cpu={**asdict(cpu), "instruction_sets": {name: INSTRUCTION_SETS[name] for name in cpu.instruction_sets}},
        gpus=gpus,
        governors=governors,
        threads=default_threads(),
        memory_mib=read_memory_mib(),
        python=platform.python_version(),
        platform=platform.platform(),
        traps=(*board_traps, *traps),
        board=board,
    )


def find_traps(facts: MachineFacts) -> list[Trap]:
    """Return the traps of a machine, worst first."""
    candidates = (_no_dot_product(facts.cpu), _quota(facts.cpu), _bf16(facts.cpu), _governor(facts.governors), _gpu(facts))
    return [trap for trap in candidates if trap is not None]


def _no_dot_product(cpu: CpuInfo) -> Trap | None:
    if cpu.architecture in ("aarch64", "arm64") and cpu.model != "unknown" and not ARM_INT8 & set(cpu.instruction_sets):
        return Trap(
            "no-int8-dot-product",
            "this ARM core has no INT8 dot product (asimddp): INT8 gains little over fp32",
            "measure with `emca-deploy profile` before choosing INT8",
        )
    if not cpu.saturates_int8:
        return None
    return Trap(
        "no-int8-dot-product",
        "this processor has no VNNI: sums of u8*s8 products saturate at 16 bits, 8-bit weights give wrong results in OpenVINO "
        "(ONNX Runtime is set to compute exactly, which is slower), and INT8 gains less speed",
        "calibrate on this machine, or with --weight-bits 7, and check with `emca-deploy validate MODEL --reference FP32_MODEL`",
    )


def _quota(cpu: CpuInfo) -> Trap | None:
    if cpu.quota_cores is None or cpu.quota_cores >= cpu.online_cores:
        return None
    return Trap(
        "cgroup-quota",
        f"this container may use {cpu.quota_cores:g} of {cpu.online_cores} cores: more threads are throttled again and again",
        f"keep --threads at {max(1, int(cpu.quota_cores))} or below, or raise the limit (docker run --cpus)",
    )


def _bf16(cpu: CpuInfo) -> Trap | None:
    if "avx512_bf16" not in cpu.instruction_sets or "amx_bf16" in cpu.instruction_sets:
        return None
    return Trap(
        "bf16-default",
        "AVX512_BF16 without AMX: OpenVINO computes in bf16 by default, which is less exact than fp32 and not always faster",
        "emca-deploy sets f32, and `tune --allow-precision bf16` measures both; in other programs set INFERENCE_PRECISION_HINT",
    )


def _governor(governors: tuple[str, ...]) -> Trap | None:
    slow = [name for name in governors if name != "performance"]
    if not slow:
        return None
    return Trap(
        "governor",
        f"the frequency governor is {', '.join(slow)}: latencies depend on the load just before",
        "sudo cpupower frequency-set -g performance",
    )


def _gpu(facts: MachineFacts) -> Trap | None:
    if not facts.gpus or facts.with_cuda or set(facts.usable) & set(names_where(needs_gpu=True)):
        return None
    return Trap(
        "gpu-unused",
        f"no backend can run on {facts.gpus[0]}: everything runs on the processor",
        "pip install 'emca-deploy[gpu,tensorrt-rtx]' for TensorRT-RTX, or TensorRT for this GPU; then --target gpu",
    )


def load_failure(module: str) -> str | None:
    """Return why a module does not import, or None if it does.

    The import runs in a process of its own, which a library built for another processor kills.
    """
    code = f"import {module}, gc; gc.freeze()"  # at exit, Python would collect all objects, which takes 0.6 s for torch's
    try:
        trial = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LOAD_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return str(exc)
    if trial.returncode == 0:
        return None
    lines = trial.stderr.strip().splitlines()
    return lines[-1] if trial.returncode > 0 and lines else f"its import ends with code {trial.returncode}"


def _checked(statuses: Mapping[str, BackendStatus]) -> dict[str, BackendStatus]:
    """Return the statuses, in which installed libraries that do not load are not usable."""
    modules = {name: module for name, status in statuses.items() if not status.reason and (module := BACKENDS[name].module)}
    with ThreadPoolExecutor() as pool:
        failures = dict(zip(modules, pool.map(load_failure, modules.values()), strict=True))
    checked = dict(statuses)
    for name, failure in failures.items():
        if failure is not None:
            remedy = f"reinstall it: pip install --force-reinstall {modules[name]}"
            checked[name] = BackendStatus(statuses[name].version, f"is installed but does not load: {failure}", remedy)
        elif BACKENDS[name].needs_gpu and (missing := gpu_failure()):
            checked[name] = BackendStatus(statuses[name].version, missing.problem, missing.remedy)
    return checked


def gpu_failure() -> MissingError | None:
    """Return why CUDA finds no usable GPU, or None if it does."""
    from emca_deploy.backends.tensorrt.cuda import list_gpus

    try:
        list_gpus()
    except MissingError as exc:
        return exc
    return None
