"""Whether a board's clocks are locked, from `jetson_clocks --show`, or from the kernel's files without root."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from emca_deploy.errors import EmcaError
from emca_deploy.machines.jetson.files import board_root, core_numbers, read_number, read_text, run_tool
from emca_deploy.machines.jetson.gpu_clock import find_gpu, read_gpu_clock

__all__ = ["ClockRange", "Clocks", "parse_show", "read_clocks"]

NUMBERS = re.compile(r"MinFreq=(\d{1,12})[ \t]+MaxFreq=(\d{1,12})[ \t]+CurrentFreq=(\d{1,12})")
CORE = re.compile(r"[ \t]*cpu(\d{1,3}):")
CORE_ONLINE = re.compile(r"Online=([01])[ \t]")
OTHER = re.compile(r"[ \t]*((?:GPU|EMC)\S*)[ \t]+(?=MinFreq=)")
OVERRIDE = re.compile(r"[ \t]+FreqOverride=([01])")
ONLINE = re.compile(r"[ \t]*Online CPUs:[ \t]*([\d,\- ]+)")
KHZ, HZ = 1000, 1_000_000


class ClockRange(NamedTuple):
    """The limits of a clock, and its current frequency."""

    min_mhz: float
    max_mhz: float
    current_mhz: float

    @property
    def is_locked(self) -> bool:
        """Whether it cannot change."""
        return self.min_mhz == self.max_mhz


@dataclass(frozen=True)
class Clocks:
    """The clocks of a board.

    Attributes:
        cores: Clocks of the cores that are on, by core number.
        gpu: Clock of the GPU; None if it could not be read.
        emc: Clock of the memory controller; only root can read it.
        emc_locked: Whether the memory controller's frequency is overridden; None if it could not be read.
        source: Where the clocks were read: "jetson_clocks" or "kernel".
        notes: Values that could not be read, with what to do.
    """

    cores: dict[int, ClockRange] = field(default_factory=dict)
    gpu: ClockRange | None = None
    emc: ClockRange | None = None
    emc_locked: bool | None = None
    source: str = "kernel"
    notes: tuple[str, ...] = ()

    @property
    def locked(self) -> bool | None:
        """Whether the clocks of processor and GPU are fixed; None if none could be read."""
        known = [*self.cores.values(), *([self.gpu] if self.gpu else [])]
        return all(clock.is_locked for clock in known) if known else None

    def to_dict(self) -> dict[str, Any]:
        """Return its JSON; each clock is [lowest, highest, current] in MHz."""
        return {
            "locked": self.locked,
            "source": self.source,
            "cores_mhz": {str(core): list(clock) for core, clock in self.cores.items()},
            "gpu_mhz": list(self.gpu) if self.gpu else None,
            "emc_mhz": list(self.emc) if self.emc else None,
            "emc_locked": self.emc_locked,
        }


def parse_show(text: str) -> Clocks | None:
    """Return the clocks that `jetson_clocks --show` of any release printed, or None if the text is something else."""
    cores: dict[int, ClockRange] = {}
    others: dict[str, ClockRange] = {}
    listed: set[int] | None = None
    stated: set[int] = set()
    override = None
    for line in text.splitlines():
        if listed is None and (online := ONLINE.match(line)):
            listed = set(core_numbers(online[1]))
        elif (core := CORE.match(line)) and (numbers := NUMBERS.search(line, core.end())):
            state = CORE_ONLINE.search(line, core.end())
            if state is not None:
                stated.add(int(core[1]))
            if state is None or state[1] == "1":
                cores[int(core[1])] = _range(numbers, KHZ)
        elif (other := OTHER.match(line)) and (numbers := NUMBERS.match(line, other.end())):
            others[other[1]] = _range(numbers, HZ)
            if other[1] == "EMC":
                override = OVERRIDE.match(line, numbers.end())
    cores = {core: clock for core, clock in cores.items() if listed is None or core in listed or core in stated}
    gpu = next((clock for name, clock in others.items() if name.startswith("GPU")), None)
    if not cores and gpu is None:
        return None
    return Clocks(cores, gpu, others.get("EMC"), override[1] == "1" if override else None, "jetson_clocks")


def _range(match: re.Match[str], per_mhz: int) -> ClockRange:
    low, high, current = (int(number) / per_mhz for number in match.groups())
    return ClockRange(low, high, current)


def read_clocks(root: Path | None = None) -> Clocks:
    """Return the clocks of this board now; never raises or changes anything."""
    root = board_root() if root is None else root
    try:
        shown = parse_show(run_tool(root, "jetson_clocks", "--show"))
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
