"""`emca-deploy doctor`: what this machine can do, and which traps it has."""

import platform
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from emca_deploy.backends.records import names_where
from emca_deploy.commands._console import console_for, json_option, print_json

if TYPE_CHECKING:
    from emca_deploy._machine import CpuInfo
    from emca_deploy.backends.registry import BackendStatus
    from emca_deploy.errors import MissingError

__all__ = ["MachineFacts", "Trap", "command", "find_traps", "gpu_failure", "load_failure"]

SCHEMA_VERSION = 1
LOAD_TIMEOUT_S = 120
ARM_INT8 = {"asimddp", "i8mm"}


@dataclass(frozen=True)
class Trap:
    """Something about this machine that makes a measurement or an INT8 model worse than it need be."""

    id: str
    problem: str
    remedy: str


@dataclass(frozen=True)
class MachineFacts:
    """What the traps are judged by.

    Attributes:
        governors: distinct frequency governors; empty where unknown.
        gpus: names; empty where there are none.
        usable: backends that can be used here.
        with_cuda: backends whose library is built for CUDA and can use the GPU.
    """

    cpu: "CpuInfo"
    governors: tuple[str, ...]
    gpus: tuple[str, ...]
    usable: tuple[str, ...]
    with_cuda: tuple[str, ...] = ()


def find_traps(facts: MachineFacts) -> list[Trap]:
    """Return the traps of a machine, worst first."""
    candidates = (_no_dot_product(facts.cpu), _quota(facts.cpu), _bf16(facts.cpu), _governor(facts.governors), _gpu(facts))
    return [trap for trap in candidates if trap is not None]


def _no_dot_product(cpu: "CpuInfo") -> Trap | None:
    if cpu.architecture in ("aarch64", "arm64") and cpu.model != "unknown" and not ARM_INT8 & set(cpu.instruction_sets):
        return Trap(
            "no-int8-dot-product",
            "this ARM core has no INT8 dot product (asimddp): INT8 gains little over float32",
            "measure with `emca-deploy profile` before choosing INT8",
        )
    if not cpu.saturates_int8:
        return None
    return Trap(
        "no-int8-dot-product",
        "this processor has no VNNI: pairs of u8*s8 products are summed in 16 bits and saturate, so that weights of 8 bits give "
        "wrong answers in OpenVINO (ONNX Runtime is told to compute exactly, which is slower), and INT8 gains less speed",
        "calibrate here, or with --weight-bits 7, and check: emca-deploy validate MODEL --reference FLOAT_MODEL --data VAL",
    )


def _quota(cpu: "CpuInfo") -> Trap | None:
    if cpu.quota_cores is None or cpu.quota_cores >= cpu.online_cores:
        return None
    return Trap(
        "cgroup-quota",
        f"this container may use {cpu.quota_cores:g} of {cpu.online_cores} cores: threads beyond that get stopped over and over",
        f"keep --threads at {max(1, int(cpu.quota_cores))} or below, or raise the limit (docker run --cpus)",
    )


def _bf16(cpu: "CpuInfo") -> Trap | None:
    if "avx512_bf16" not in cpu.instruction_sets or "amx_bf16" in cpu.instruction_sets:
        return None
    return Trap(
        "bf16-default",
        "AVX512_BF16 without AMX: OpenVINO by itself computes in bfloat16 here, less exact than float32 and not always faster",
        "emca-deploy asks for f32, and `tune --allow-precision bf16` measures both; elsewhere set INFERENCE_PRECISION_HINT",
    )


def _governor(governors: tuple[str, ...]) -> Trap | None:
    slow = [name for name in governors if name != "performance"]
    if not slow:
        return None
    return Trap(
        "governor",
        f"the frequency governor is {', '.join(slow)}: latencies depend on how busy the cores were just before",
        "sudo cpupower frequency-set -g performance",
    )


def _gpu(facts: MachineFacts) -> Trap | None:
    if not facts.gpus or facts.with_cuda or set(facts.usable) & set(names_where(needs_gpu=True)):
        return None
    return Trap(
        "gpu-unused",
        f"{facts.gpus[0]} is here, but no backend that runs on it: everything measured is the processor's",
        "pip install 'emca-deploy[gpu,tensorrt-rtx]' for TensorRT-RTX, or TensorRT for this GPU; then --target gpu",
    )


def load_failure(module: str) -> str | None:
    """Return why a module does not import, or None where it does.

    Tried in a process of its own: a library built for another processor does not raise, it kills.
    """
    try:
        trial = subprocess.run(
            [sys.executable, "-c", f"import {module}"], capture_output=True, text=True, timeout=LOAD_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return str(exc)
    if trial.returncode == 0:
        return None
    lines = trial.stderr.strip().splitlines()
    return lines[-1] if trial.returncode > 0 and lines else f"its import ends with code {trial.returncode}"


def _checked(statuses: "Mapping[str, BackendStatus]") -> "dict[str, BackendStatus]":
    """Return the statuses with those libraries marked that are installed but do not load."""
    from emca_deploy.backends.registry import BACKENDS, BackendStatus

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


def gpu_failure() -> "MissingError | None":
    """Return why CUDA finds no GPU it can use, or None where it does."""
    from emca_deploy.backends.tensorrt.cuda import list_gpus
    from emca_deploy.errors import MissingError

    try:
        list_gpus()
    except MissingError as exc:
        return exc
    return None


def _examine() -> dict[str, Any]:
    from emca_deploy._machine import INSTRUCTION_SETS, cpu_info, default_threads, find_gpus, read_governors, read_memory_mib
    from emca_deploy._optional import has_cuda
    from emca_deploy.backends.registry import BACKENDS, available
    from emca_deploy.machines.jetson.traps import examine_board

    cpu = cpu_info()
    backends = _checked({name: status for name, status in available().items() if not BACKENDS[name].hidden})
    gpus, governors = find_gpus(), read_governors()
    usable = tuple(name for name, status in backends.items() if status.reason is None)
    built = tuple(name for name, backend in BACKENDS.items() if backend.package and has_cuda(backend.package))
    with_cuda = built if gpus and gpu_failure() is None else ()
    examined = examine_board()
    # On a board the governor is jetson_clocks' business, which is a trap of its own.
    traps = find_traps(MachineFacts(cpu, () if examined else governors, gpus, usable, with_cuda))
    board, board_traps = examined or (None, [])
    return {
        "schema_version": SCHEMA_VERSION,
        "backends": {name: {"usable": name in usable, **asdict(status)} for name, status in backends.items()},
        "cpu": {**asdict(cpu), "instruction_sets": {name: INSTRUCTION_SETS[name] for name in cpu.instruction_sets}},
        "gpus": list(gpus),
        "governors": list(governors),
        "threads": default_threads(),
        "memory_mib": read_memory_mib(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **({"board": board} if board else {}),
        "traps": [*map(asdict, board_traps), *map(asdict, traps)],
    }


@click.command("doctor")
@json_option
def command(as_json: bool) -> None:
    """What this machine can do, and which traps it has."""
    document = _examine()
    if as_json:
        print_json(document)
    else:
        _show(document)


def _show(document: dict[str, Any]) -> None:
    from rich.markup import escape

    from emca_deploy.machines.jetson.traps import board_rows

    console = console_for(highlight=False)
    for name, status in document["backends"].items():
        state = "[green]ready[/]" if status["usable"] else f"[yellow]{escape(status['reason'])}[/]"
        console.print(f"{name:14}{status['version'] or '-':14}{state}", soft_wrap=True)
        if not status["usable"]:
            console.print(f"{'':28}[dim]{escape(status['remedy'] or '')}[/]", soft_wrap=True)

    cpu = document["cpu"]
    rows = [
        ("processor", f"{cpu['model']}, {cpu['architecture']}"),
        ("cores", f"{cpu['logical_cores']} usable of {cpu['online_cores']} ({cpu['physical_cores']} physical)"),
        ("threads", f"{document['threads']} unless --threads says otherwise"),
        *(
            ("instructions" if not i else "", f"{name:13}{cpu['instruction_sets'][name]}")
            for i, name in enumerate(cpu["instruction_sets"])
        ),
        *(("GPU", gpu) for gpu in document["gpus"]),
        ("memory", f"{document['memory_mib'] / 1024:.1f} GiB" if document["memory_mib"] else "unknown"),
        ("python", f"{document['python']}, {document['platform']}"),
        *(board_rows(document["board"]) if "board" in document else ()),
    ]
    console.print()
    for name, value in rows:
        console.print(f"{name:14}{escape(value)}", soft_wrap=True)
    console.print()
    for trap in document["traps"]:
        console.print(f"[yellow]trap[/] {trap['id']}: {escape(trap['problem'])}\n  try: {escape(trap['remedy'])}", soft_wrap=True)
    if not document["traps"]:
        console.print("[green]no traps found[/]")
