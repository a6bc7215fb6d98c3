"""Facts that a result records about its machine."""

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from emca_deploy._machine import cpu_info, read_file, read_memory_mib
from emca_deploy._optional import backend_packages, installed_version
from emca_deploy._version import __version__
from emca_deploy.machines.fingerprint import fingerprint_of, machine_parts
from emca_deploy.machines.machine_state import read_cpu_times, read_machine_state
from emca_deploy.machines.memory import unused_mib

__all__ = ["collect_environment", "extend_fingerprint"]

_CPUFREQ = Path("/sys/devices/system/cpu/cpu0/cpufreq")


def collect_environment() -> dict[str, Any]:
    """Return what is needed to judge and to repeat a measurement on this machine now. Imports no runtime, and never raises.

    Unknown values are None. "fingerprint" is equal for two results that may be compared, "fingerprint_parts" says what it
    consists of, and "state" is a `machine_state.MachineState`.
    """
    cpu = asdict(cpu_info())
    times = read_cpu_times()
    parts = machine_parts()
    recorded = [*((name, name) for name in ("numpy", "onnx")), *((one.distribution, one.module) for one in backend_packages())]
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "emca_deploy": __version__,
        "cpu": {**cpu, "instruction_sets": list(cpu["instruction_sets"]), **_frequency()},
        "memory_mib": read_memory_mib(),
        "memory_available_mib": unused_mib(),
        "steal_share_since_boot": round(times.steal_s / times.total_s, 4) if times and times.total_s else None,
        "load_average": _load_average(),
        "os": _os_name(),
        "kernel": platform.release(),
        "container": _container(),
        "python": platform.python_version(),
        "numa_nodes": parts["numa_nodes"],
        "smt": parts["smt"],
        "transparent_hugepages": _chosen(read_file(Path("/sys/kernel/mm/transparent_hugepage/enabled"))),
        "state": read_machine_state().to_dict(),
        "fingerprint": fingerprint_of(parts),
        "fingerprint_parts": parts,
        "versions": {name: found for name, module in recorded if (found := installed_version(module)) is not None},
    }


def extend_fingerprint(environment: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the environment with more parts in its fingerprint, such as a board's power mode."""
    parts = {**environment["fingerprint_parts"], **more}
    return {**environment, "fingerprint": fingerprint_of(parts), "fingerprint_parts": parts}


def _chosen(text: str) -> str | None:
    """Return the word in brackets: "always [madvise] never"."""
    return text.partition("[")[2].partition("]")[0] or None


def _frequency() -> dict[str, Any]:
    current = read_file(_CPUFREQ / "scaling_cur_freq")
    highest = read_file(_CPUFREQ / "cpuinfo_max_freq")
    return {
        "governor": read_file(_CPUFREQ / "scaling_governor") or None,
        "frequency_mhz": int(current) / 1000 if current.isdigit() else _cpuinfo_mhz(),
        "max_frequency_mhz": int(highest) / 1000 if highest.isdigit() else None,
    }


def _cpuinfo_mhz() -> float | None:
    for line in read_file(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("cpu MHz"):
            return float(line.partition(":")[2])
    return None


def _load_average() -> list[float] | None:
    try:
        return [round(load, 2) for load in os.getloadavg()]
    except OSError:
        return None


def _os_name() -> str:
    for line in read_file(Path("/etc/os-release")).splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return f"{platform.system()} {platform.release()}"


def _container() -> str | None:
    """Return the container's kind, or None if there is no container or it leaves none of the usual traces."""
    if Path("/.dockerenv").exists():
        return "docker"
    if Path("/run/.containerenv").exists():
        return "podman"
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    return os.environ.get("container")  # noqa: SIM112 - systemd-nspawn and podman write it in small letters
