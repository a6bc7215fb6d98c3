"""Energy counters of Intel and AMD processors (RAPL) in the kernel's powercap tree; ARM and most virtual machines have none."""

import os
from dataclasses import dataclass
from pathlib import Path

from emca_deploy.errors import MissingError
from emca_deploy.telemetry.source import Reading, TelemetrySource

__all__ = ["RaplSource"]

_TREE = "sys/class/powercap"
_UJ_PER_J = 1e6


@dataclass
class _Zone:
    """One counter.

    Attributes:
        name: Such as "package_0" or "package_0_dram".
        counts: Whether the total includes it; no other counted zone includes it as well.
        range_uj: Largest value, after which the counter starts at zero again; None where the kernel does not report it.
        sum_uj: Energy since the source was opened.
    """

    name: str
    counts: bool
    range_uj: int | None
    descriptor: int
    last_uj: int
    sum_uj: int = 0

    def advance(self) -> bool:
        """Add the energy since the last read; return False where the counter went back by an unknown amount."""
        now_uj = _number(self.descriptor)
        step_uj = now_uj - self.last_uj
        if step_uj < 0:
            if self.range_uj is None:
                return False
            step_uj += self.range_uj
        self.last_uj = now_uj
        self.sum_uj += step_uj
        return True


class RaplSource(TelemetrySource):
    """Joules since the source was opened: `<zone>_energy_j`, and `total_energy_j`.

    The total is the sum of every package and its memory (dram). Cores and graphics are included in their package, and "psys",
    where there is one, is the whole platform: these have values of their own, and the total does not add them.
    """

    name = "rapl"

    def __init__(self, root: Path = Path("/")) -> None:
        self.notes: list[str] = []
        self._tree = root / _TREE
        self._zones: list[_Zone] = []
        self._whole = True  # no total where one of its parts is missing

    @classmethod
    def is_available(cls, root: Path = Path("/")) -> bool:
        """Return whether the kernel has energy counters, readable or not."""
        return any((root / _TREE).glob("*rapl*:*/energy_uj"))

    def __enter__(self) -> "RaplSource":
        denied = False
        for folder in self._folders():
            try:
                self._zones.append(_open_zone(folder))
            except PermissionError:
                denied = True
            except (OSError, ValueError):
                continue
        if not self._zones and denied:
            remedy = f"sudo chmod a+r {self._tree}/*/energy_uj (until the next boot; it opens a side channel to every user)"
            raise MissingError("only root can read the energy counters", remedy)
        if not self._zones:
            remedy = "modprobe intel_rapl_msr; virtual machines and ARM have none"
            raise MissingError(f"no energy counters in {self._tree}", remedy)
        return self

    def __exit__(self, *error: object) -> None:
        zones, self._zones = self._zones, []  # first: a read that is late in another thread must not close them again
        for zone in zones:
            os.close(zone.descriptor)

    def read(self) -> Reading:
        """Return the joules since the source was opened."""
        for zone in tuple(self._zones):
            try:
                sensible = zone.advance()
            except (OSError, ValueError):
                sensible = False
            if not sensible and zone in self._zones:
                self.notes.append(f"rapl: the counter {zone.name} can no longer be read: its values and the total end there")
                self._zones.remove(zone)
                os.close(zone.descriptor)
                self._whole = self._whole and not zone.counts
        values = {f"{zone.name}_energy_j": zone.sum_uj / _UJ_PER_J for zone in self._zones}
        parts = [zone.sum_uj for zone in self._zones if zone.counts]
        return {**values, "total_energy_j": sum(parts) / _UJ_PER_J} if parts and self._whole else values

    def _folders(self) -> list[Path]:
        """Return the zones in order; a zone that the kernel also shows through another register window comes once."""
        folders = sorted(folder for folder in self._tree.glob("*rapl*:*") if (folder / "energy_uj").exists())
        if any("mmio" not in folder.name for folder in folders):
            folders = [folder for folder in folders if "mmio" not in folder.name]
        return folders


def _open_zone(folder: Path) -> _Zone:
    own = (folder / "name").read_text(encoding="utf-8").strip()
    control, *indices = folder.name.split(":")
    name = own
    if len(indices) > 1:
        parent = folder.with_name(f"{control}:{indices[0]}")
        name = f"{(parent / 'name').read_text(encoding='utf-8').strip()}_{own}"
    try:
        range_uj = int((folder / "max_energy_range_uj").read_text(encoding="utf-8")) or None
    except (OSError, ValueError):
        range_uj = None
    descriptor = os.open(folder / "energy_uj", os.O_RDONLY | os.O_CLOEXEC)
    try:
        last_uj = _number(descriptor)
    except (OSError, ValueError):
        os.close(descriptor)
        raise
    counts = own.startswith("package") or own == "dram"
    return _Zone(name.replace("-", "_"), counts, range_uj, descriptor, last_uj)


def _number(descriptor: int) -> int:
    return int(os.pread(descriptor, 32, 0))  # one call on an open file: it happens ten times a second during the run
