"""Whether a board's clocks are locked: what `jetson_clocks --show` prints, or without root what the kernel has."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emca_deploy.errors import EmcaError
from emca_deploy.targets.jetson.files import board_root, core_numbers, read_number, read_text, run_tool
from emca_deploy.targets.jetson.gpu_clock import find_gpu, read_gpu_clock

__all__ = ["ClockRange", "Clocks", "parse_show", "read_clocks"]

NUMBERS = r"MinFreq=(\d{1,12})\s+MaxFreq=(\d{1,12})\s+CurrentFreq=(\d{1,12})"
CORE = re.compile(rf"^\s*cpu(\d{{1,3}}):\s+(?:Online=([01])\s+)?.*?{NUMBERS}", re.MULTILINE)
OTHER = re.compile(rf"^\s*((?:GPU|EMC)\S*)\s+{NUMBERS}(?:\s+FreqOverride=([01]))?", re.MULTILINE)
ONLINE = re.compile(r"^\s*Online CPUs:[ \t]*([\d,\- ]+)", re.MULTILINE)
KHZ, HZ = 1000, 1_000_000


@dataclass(frozen=True)
class ClockRange:
    """A clock: between what it may vary, and where it is."""

    min_mhz: float
    max_mhz: float
    current_mhz: float

    @property
    def is_locked(self) -> bool:
        """Whether it cannot change."""
        return self.min_mhz == self.max_mhz

    def to_list(self) -> list[float]:
        """Return lowest, highest and current."""
        return [self.min_mhz, self.max_mhz, self.current_mhz]


@dataclass(frozen=True)
class Clocks:
    """The clocks of a board.

    Attributes:
        cores: of the cores that are on, by number.
        gpu: None where it could not be read.
        emc: of the memory controller; only root can read it.
        emc_locked: whether its frequency is overridden; None where that could not be read.
        source: "jetson_clocks" or "kernel".
        notes: what could not be had, and what to do.
    """

    cores: dict[int, ClockRange] = field(default_factory=dict)
    gpu: ClockRange | None = None
    emc: ClockRange | None = None
    emc_locked: bool | None = None
    source: str = "kernel"
    notes: tuple[str, ...] = ()

    @property
    def locked(self) -> bool | None:
        """Whether processor and GPU cannot change their clocks; None where nothing could be read."""
        known = [*self.cores.values(), *([self.gpu] if self.gpu else [])]
        return all(clock.is_locked for clock in known) if known else None

    def to_dict(self) -> dict[str, Any]:
        """Return its JSON; each clock is [lowest, highest, current] in MHz."""
        return {
            "locked": self.locked,
            "source": self.source,
            "cores_mhz": {str(core): clock.to_list() for core, clock in self.cores.items()},
            "gpu_mhz": self.gpu.to_list() if self.gpu else None,
            "emc_mhz": self.emc.to_list() if self.emc else None,
            "emc_locked": self.emc_locked,
        }


def parse_show(text: str) -> Clocks | None:
    """Return what `jetson_clocks --show` printed, in the form of any release; None where it is no such output."""
    found = ONLINE.search(text)
    online = core_numbers(found[1]) if found else None
    cores = {
        int(core[1]): _range(core, 3, KHZ)
        for core in CORE.finditer(text)
        if core[2] != "0" and (core[2] is not None or online is None or int(core[1]) in online)
    }
    others = {match[1]: match for match in OTHER.finditer(text)}
    gpu = next((match for name, match in others.items() if name.startswith("GPU")), None)
    emc = others.get("EMC")
    if not cores and gpu is None:
        return None
    return Clocks(
        cores,
        _range(gpu, 2, HZ) if gpu else None,
        _range(emc, 2, HZ) if emc else None,
        emc[5] == "1" if emc and emc[5] else None,
        "jetson_clocks",
    )


def _range(match: re.Match[str], group: int, per_mhz: int) -> ClockRange:
    low, high, current = (int(match[group + index]) / per_mhz for index in range(3))
    return ClockRange(low, high, current)


def read_clocks(root: Path | None = None) -> Clocks:
    """Return the clocks of this board now; nothing here raises or changes anything.

    Args:
        root: of the file system; None is /.
    """
    root = board_root() if root is None else root
    try:
        shown = parse_show(run_tool(root, "jetson_clocks", "--show").text)
    except EmcaError as exc:
        return _kernel_clocks(root, f"{exc.problem}: {exc.remedy}")
    return shown or _kernel_clocks(root, "the memory controller's clock is unknown: jetson_clocks --show needs root (sudo)")


def _kernel_clocks(root: Path, note: str) -> Clocks:
    cores = {}
    for folder in sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq")):
        if read_text(folder.parent / "online") == "0":
            continue
        values = [read_number(folder / f"scaling_{name}_freq") for name in ("min", "max", "cur")]
        if None not in values:
            low, high, current = (value / KHZ for value in values if value is not None)
            cores[int(folder.parent.name.removeprefix("cpu"))] = ClockRange(low, high, current)
    device = find_gpu(root)
    clock = read_gpu_clock(device) if device else None
    gpu = None
    if clock and clock.min_mhz is not None and clock.max_mhz is not None and clock.current_mhz is not None:
        gpu = ClockRange(clock.min_mhz, clock.max_mhz, clock.current_mhz)
    return Clocks(dict(sorted(cores.items())), gpu, notes=(note,))
