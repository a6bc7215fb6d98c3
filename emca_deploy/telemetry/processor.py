"""The clock of every core that this process may use."""

import math
import os
from pathlib import Path

from emca_deploy.telemetry.source import Reading, TelemetrySource

__all__ = ["CpuFrequencySource", "read_frequencies_mhz", "usable_cores"]

_TREE = "sys/devices/system/cpu"


class CpuFrequencySource(TelemetrySource):
    """`core_<n>_mhz` of each core that this process may run on, and `mean_mhz` of them."""

    name = "cpu_frequency"
    interval_s = 0.5  # the kernel asks each core, which costs microseconds a core

    def __init__(self, root: Path = Path("/"), cores: frozenset[int] | None = None) -> None:
        self._root = root
        self._cores = cores

    @classmethod
    def is_available(cls, root: Path = Path("/")) -> bool:
        """Return whether the system reports any frequency; many virtual machines and ARM boards report none."""
        return bool(read_frequencies_mhz(root))

    def read(self) -> Reading:
        """Return the clocks now."""
        found = read_frequencies_mhz(self._root, self._cores)
        values = {f"core_{core}_mhz": mhz for core, mhz in found.items()}
        return {**values, "mean_mhz": sum(found.values()) / len(found)} if found else {}


def read_frequencies_mhz(root: Path = Path("/"), cores: frozenset[int] | None = None) -> dict[int, float]:
    """Return each core's clock in MHz, by default of the cores that this process may run on; empty where none is reported."""
    wanted = usable_cores() if cores is None else cores
    found: dict[int, float] = {}
    for core in sorted(wanted):
        try:
            found[core] = int((root / _TREE / f"cpu{core}/cpufreq/scaling_cur_freq").read_text(encoding="ascii")) / 1000
        except (OSError, ValueError):
            continue
    return found or _from_cpuinfo(root, wanted)


def usable_cores() -> frozenset[int]:
    """Return the cores this process may run on."""
    try:
        return frozenset(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return frozenset(range(os.cpu_count() or 1))


def _from_cpuinfo(root: Path, cores: frozenset[int]) -> dict[int, float]:
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    found: dict[int, float] = {}
    core = -1
    for line in lines:
        key, _, value = line.partition(":")
        try:
            if key.strip() == "processor":
                core = int(value)
            elif key.strip() == "cpu MHz" and core in cores and math.isfinite(mhz := float(value)):
                found[core] = mhz
        except ValueError:
            continue
    return found
