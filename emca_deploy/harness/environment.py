"""The machine a result comes from, and how much of it went to somebody else while measuring."""

import os
import platform
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from emca_deploy._machine import cpu_info, read_memory_mib
from emca_deploy._version import __version__

__all__ = ["CpuTimes", "collect_environment", "read_cpu_times"]

_DISTRIBUTIONS = ("numpy", "onnx", "onnxruntime", "openvino", "torch")
_CPUFREQ = Path("/sys/devices/system/cpu/cpu0/cpufreq")


@dataclass(frozen=True)
class CpuTimes:
    """Seconds since boot, of all cores together, from /proc/stat.

    Attributes:
        busy_s: running anything, on this machine's account.
        steal_s: runnable, but the hypervisor ran another machine.
        total_s: busy, stolen and idle.
    """

    busy_s: float
    steal_s: float
    total_s: float

    def since(self, before: "CpuTimes") -> "CpuTimes":
        """Return what went by since `before`."""
        return CpuTimes(self.busy_s - before.busy_s, self.steal_s - before.steal_s, self.total_s - before.total_s)


def read_cpu_times() -> CpuTimes | None:
    """Return the counters, or None where the system has no /proc/stat."""
    try:
        fields = [int(field) for field in _read("/proc/stat").splitlines()[0].split()[1:9]]
        ticks = os.sysconf("SC_CLK_TCK")
    except (IndexError, ValueError, OSError):
        return None
    if len(fields) < 8:
        return None
    user, nice, system, idle, iowait, irq, softirq, steal = (field / ticks for field in fields)
    return CpuTimes(user + nice + system + irq + softirq, steal, user + nice + system + idle + iowait + irq + softirq + steal)


def collect_environment() -> dict[str, Any]:
    """Return what is needed to judge, and to repeat, a measurement made now on this machine. Imports no runtime.

    Unknown values are None; nothing here raises.
    """
    memory = _memory_mib()
    cpu = asdict(cpu_info())
    times = read_cpu_times()
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "emca_deploy": __version__,
        "cpu": {**cpu, "instruction_sets": list(cpu["instruction_sets"]), **_frequency()},
        "memory_mib": read_memory_mib(),
        "memory_available_mib": memory.get("MemAvailable"),
        "steal_share_since_boot": round(times.steal_s / times.total_s, 4) if times and times.total_s else None,
        "load_average": _load_average(),
        "os": _os_name(),
        "kernel": platform.release(),
        "container": _container(),
        "python": platform.python_version(),
        "versions": {name: found for name in _DISTRIBUTIONS if (found := _version(name)) is not None},
    }


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _memory_mib() -> dict[str, float]:
    pairs = (line.split() for line in _read("/proc/meminfo").splitlines())
    return {words[0].rstrip(":"): int(words[1]) / 1024 for words in pairs if len(words) > 1 and words[1].isdigit()}


def _frequency() -> dict[str, Any]:
    current = _read(_CPUFREQ / "scaling_cur_freq").strip()
    highest = _read(_CPUFREQ / "cpuinfo_max_freq").strip()
    return {
        "governor": _read(_CPUFREQ / "scaling_governor").strip() or None,
        "frequency_mhz": int(current) / 1000 if current.isdigit() else _cpuinfo_mhz(),
        "max_frequency_mhz": int(highest) / 1000 if highest.isdigit() else None,
    }


def _cpuinfo_mhz() -> float | None:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("cpu MHz"):
            return float(line.partition(":")[2])
    return None


def _load_average() -> list[float] | None:
    try:
        return [round(load, 2) for load in os.getloadavg()]
    except OSError:
        return None


def _os_name() -> str:
    for line in _read("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return f"{platform.system()} {platform.release()}"


def _container() -> str | None:
    """Return the container's kind where the usual traces are there; None may also mean one that leaves none."""
    if Path("/.dockerenv").exists():
        return "docker"
    if Path("/run/.containerenv").exists():
        return "podman"
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    return os.environ.get("container")  # noqa: SIM112 - systemd-nspawn and podman write it in small letters


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
