"""The state of this machine at one moment: counters and clocks, read before and after a run and compared by `stability`.

Everything is read from the kernel's files below a `root`, for which tests use a recorded tree; what is missing is None.
"""

import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emca_deploy._machine import read_file, read_governors
from emca_deploy.machines.memory import unused_mib
from emca_deploy.telemetry.processor import read_frequencies_mhz
from emca_deploy.telemetry.thermal import read_temperatures_c

__all__ = ["CpuTimes", "MachineState", "QuotaThrottling", "read_cpu_times", "read_machine_state"]

_CPUS = "sys/devices/system/cpu"
_CGROUPS = "sys/fs/cgroup"
_PROCESSOR_COOLING = ("cpu", "gpu", "processor")


@dataclass(frozen=True)
class CpuTimes:
    """Seconds since boot, summed over all cores, from /proc/stat.

    Attributes:
        busy_s: Time in which something ran.
        steal_s: Time in which something was runnable, but the hypervisor ran another machine.
        total_s: Sum of busy, stolen and idle time.
    """

    busy_s: float
    steal_s: float
    total_s: float

    def since(self, before: "CpuTimes") -> "CpuTimes":
        """Return the time that has passed since `before`."""
        return CpuTimes(self.busy_s - before.busy_s, self.steal_s - before.steal_s, self.total_s - before.total_s)


@dataclass(frozen=True)
class QuotaThrottling:
    """How often this process's cgroups have paused it for using up its processor quota, since they were created."""

    periods: int
    throttled_periods: int
    throttled_s: float


@dataclass(frozen=True)
class MachineState:
    """The state of this machine at one moment; None is unknown. Counters start at boot, or when the cgroup was created.

    Attributes:
        time_ns: Reading of `time.monotonic_ns`.
        frequency_mhz: Mean frequency of the cores that this process may use.
        thermal_throttles: How often cores and packages have lowered their clock for heat; Intel processors count it.
        cooling_steps: Steps by which the kernel's cooling devices slow processors and GPUs down now.
        memory_stall_s: Time in which some task waited for memory (pressure stall information).
        io_stall_s: Time in which some task waited for storage.
        cpu_stall_s: Time in which some task waited for a core.
        swapped_mib: Size of what was read from and written to swap.
    """

    time_ns: int
    cpu_times: CpuTimes | None = None
    context_switches: int | None = None
    frequency_mhz: float | None = None
    governors: tuple[str, ...] = ()
    thermal_throttles: int | None = None
    cooling_steps: int | None = None
    temperature_c: float | None = None
    quota: QuotaThrottling | None = None
    memory_stall_s: float | None = None
    io_stall_s: float | None = None
    cpu_stall_s: float | None = None
    swapped_mib: float | None = None
    memory_available_mib: float | None = None
    load_average: tuple[float, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return its JSON."""
        loads = None if self.load_average is None else list(self.load_average)
        return {**asdict(self), "governors": list(self.governors), "load_average": loads}


def read_machine_state(root: Path = Path("/")) -> MachineState:
    """Return the state of the machine now; never raises."""
    frequencies = read_frequencies_mhz(root)
    return MachineState(
        time_ns=time.monotonic_ns(),
        cpu_times=read_cpu_times(root),
        context_switches=_table(root / "proc/stat").get("ctxt"),
        frequency_mhz=sum(frequencies.values()) / len(frequencies) if frequencies else None,
        governors=read_governors(root / _CPUS),
        thermal_throttles=_thermal_throttles(root / _CPUS),
        cooling_steps=_cooling_steps(root / "sys/class/thermal"),
        temperature_c=max(read_temperatures_c(root).values(), default=None),
        quota=_quota(root),
        memory_stall_s=_stall_s(root, "memory"),
        io_stall_s=_stall_s(root, "io"),
        cpu_stall_s=_stall_s(root, "cpu"),
        swapped_mib=_swapped_mib(root),
        memory_available_mib=unused_mib(root),
        load_average=_load_average(root),
    )


def read_cpu_times(root: Path = Path("/")) -> CpuTimes | None:
    """Return the counters, or None without /proc/stat."""
    try:
        fields = [int(field) for field in read_file(root / "proc/stat").splitlines()[0].split()[1:9]]
        ticks = os.sysconf("SC_CLK_TCK")
    except (IndexError, ValueError, OSError, AttributeError):
        return None
    if len(fields) < 8:
        return None
    user, nice, system, idle, iowait, irq, softirq, steal = (field / ticks for field in fields)
    return CpuTimes(user + nice + system + irq + softirq, steal, user + nice + system + idle + iowait + irq + softirq + steal)


def _number(path: Path) -> int | None:
    try:
        return int(read_file(path))
    except ValueError:
        return None


def _table(path: Path) -> dict[str, int]:
    """Return the number of each line that begins with a word and a number, by the word."""
    rows = (line.split() for line in read_file(path).splitlines())
    return {words[0]: int(words[1]) for words in rows if len(words) > 1 and _is_count(words[1])}


def _is_count(word: str) -> bool:
    return word.isdecimal() and len(word) <= 20


def _thermal_throttles(cpus: Path) -> int | None:
    cores = [_number(place) for place in cpus.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    packages = [_number(place) for place in cpus.glob("cpu[0-9]*/thermal_throttle/package_throttle_count")]
    known = [count for count in cores if count is not None]
    highest = max((count for count in packages if count is not None), default=None)  # every core repeats its package's
    return None if highest is None and not known else sum(known) + (highest or 0)


def _cooling_steps(thermal: Path) -> int | None:
    steps = []  # fans are cooling devices too, but slow nothing down
    for device in thermal.glob("cooling_device*"):
        kind, step = read_file(device / "type").lower(), _number(device / "cur_state")
        if step is not None and "fan" not in kind and any(word in kind for word in _PROCESSOR_COOLING):
            steps.append(step)
    return sum(steps) if steps else None


def _quota(root: Path) -> QuotaThrottling | None:
    """Sum over this process's group and those around it: a limit on any of them pauses it."""
    found = []
    for folder in _groups(root):
        table = _table(folder / "cpu.stat")
        if "nr_throttled" in table:
            seconds = table["throttled_usec"] / 1e6 if "throttled_usec" in table else table.get("throttled_time", 0) / 1e9
            found.append(QuotaThrottling(table.get("nr_periods", 0), table["nr_throttled"], seconds))
    if not found:
        return None
    return QuotaThrottling(
        max(one.periods for one in found), sum(one.throttled_periods for one in found), sum(one.throttled_s for one in found)
    )


def _groups(root: Path) -> Iterator[Path]:
    """Yield this process's cgroups of both versions. In a container only the top may be mounted, not the path itself."""
    seen: set[Path] = set()
    for line in ["::/", *read_file(root / "proc/self/cgroup").splitlines()]:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        tops = [root / _CGROUPS / name for name in ("cpu", "cpu,cpuacct")] if controllers else [root / _CGROUPS]
        for top in tops:
            own = top / path.strip("/")
            for folder in (own, *own.parents):
                if (folder == top or top in folder.parents) and folder not in seen:
                    seen.add(folder)
                    yield folder


def _stall_s(root: Path, what: str) -> float | None:
    for line in read_file(root / "proc/pressure" / what).splitlines():
        words = line.split()
        total = dict(word.partition("=")[::2] for word in words).get("total", "")
        if words[:1] == ["some"] and _is_count(total):
            return int(total) / 1e6
    return None


def _swapped_mib(root: Path) -> float | None:
    table = _table(root / "proc/vmstat")
    if "pswpin" not in table or "pswpout" not in table:
        return None
    return (table["pswpin"] + table["pswpout"]) * os.sysconf("SC_PAGESIZE") / 2**20


def _load_average(root: Path) -> tuple[float, ...] | None:
    try:
        loads = tuple(float(word) for word in read_file(root / "proc/loadavg").split()[:3])
    except ValueError:
        return None
    return loads if loads and all(map(math.isfinite, loads)) else None
