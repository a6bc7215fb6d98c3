"""The fingerprint of a machine, and its parts by name; results of equal fingerprints may be compared.

It covers what decides how fast the same program runs: processor, cores and quota of this process, memory, clock policy, kernel,
accelerators. It leaves out what varies from run to run (clocks now, temperature, load), of which warnings are given, and the
versions of runtimes and of Python, which a comparison on one machine may compare.
"""

import hashlib
import json
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emca_deploy._machine import cpu_info, find_gpus, read_file, read_governors, read_memory_mib

__all__ = ["differing_parts", "fingerprint_of", "machine_parts"]

_CPUS = "sys/devices/system/cpu"
_CHARACTERS = 16


def machine_parts(root: Path = Path("/")) -> dict[str, Any]:
    """Return what must be equal for two results to be comparable; None is unknown. Tests replace /sys by `root`."""
    cpu = cpu_info()
    cpus = root / _CPUS
    memory_mib = read_memory_mib()
    max_khz = read_file(cpus / "cpu0/cpufreq/cpuinfo_max_freq")
    return {
        "architecture": cpu.architecture,
        "cpu": cpu.model,
        "instruction_sets": sorted(cpu.instruction_sets),
        "physical_cores": cpu.physical_cores,
        "online_cores": cpu.online_cores,
        "usable_cores": cpu.logical_cores,
        "quota_cores": None if cpu.quota_cores is None else round(cpu.quota_cores, 2),
        "smt": {"1": True, "0": False}.get(read_file(cpus / "smt/active")),
        "numa_nodes": len(list((root / "sys/devices/system/node").glob("node[0-9]*"))) or None,
        "governors": list(read_governors(cpus)),
        "boost": _boost(cpus),
        "max_frequency_mhz": int(max_khz) / 1000 if max_khz.isdecimal() else None,
        "memory_gib_class": None if memory_mib is None else memory_class_gib(memory_mib),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "gpus": list(find_gpus(root)),
    }


def memory_class_gib(memory_mib: float) -> int:
    """Return the nominal size of the memory: what the kernel reserves for itself varies from version to version."""
    gib = memory_mib / 1024
    step = 2 ** max(0, math.floor(math.log2(gib)) - 3) if gib > 1 else 1
    return max(1, math.ceil(gib / step) * step)


def fingerprint_of(parts: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that are equal if and only if the parts are."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_CHARACTERS]


def differing_parts(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return a line for each part that differs, such as "governors: performance, not powersave", a's value first."""
    names = [*a, *(name for name in b if name not in a)]
    return [f"{name}: {_show(a.get(name))}, not {_show(b.get(name))}" for name in names if a.get(name) != b.get(name)]


def _show(value: Any) -> str:
    if value is None:
        return "unknown"
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _boost(cpus: Path) -> bool | None:
    if (off := read_file(cpus / "intel_pstate/no_turbo")) in {"0", "1"}:
        return off == "0"
    return {"1": True, "0": False}.get(read_file(cpus / "cpufreq/boost"))
