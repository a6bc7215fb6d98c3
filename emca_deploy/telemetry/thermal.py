"""Temperatures that the kernel reports: thermal zones, and the processor's own sensor."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from emca_deploy._machine import read_file
from emca_deploy.telemetry.source import Reading, TelemetrySource

__all__ = ["ThermalSource", "read_temperatures_c"]

_PROCESSOR_SENSORS = frozenset({"coretemp", "k10temp", "zenpower"})
_PLAUSIBLE_C = (-60.0, 200.0)


class ThermalSource(TelemetrySource):
    """`<zone or sensor>_temperature_c`; a zone that is switched off is left out."""

    name = "temperature"
    interval_s = 0.5  # heat is slow, and some sensors are on a slow bus

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._places: dict[str, Path] = {}

    @classmethod
    def is_available(cls, root: Path = Path("/")) -> bool:
        """Return whether the system reports any temperature; virtual machines and most containers report none."""
        return bool(read_temperatures_c(root))

    def __enter__(self) -> "ThermalSource":
        self._places = dict(_places(self._root))
        return self

    def read(self) -> Reading:
        """Return the temperatures now."""
        return {f"{name}_temperature_c": value for name, value in _read(self._places.items()).items()}


def read_temperatures_c(root: Path = Path("/")) -> dict[str, float]:
    """Return the temperatures now in degrees Celsius, by zone or sensor; empty where there is none."""
    return _read(_places(root))


def _read(places: Iterable[tuple[str, Path]]) -> dict[str, float]:
    return {name: value for name, place in places if (value := _celsius(place)) is not None}


def _places(root: Path) -> Iterator[tuple[str, Path]]:
    taken: set[str] = set()
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*"), key=lambda zone: (len(zone.name), zone.name)):
        yield _unused(read_file(zone / "type") or zone.name, zone.name.removeprefix("thermal_zone"), taken), zone / "temp"
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if (kind := read_file(chip / "name")) not in _PROCESSOR_SENSORS:
            continue
        for place in sorted(chip.glob("temp*_input")):
            label = read_file(place.with_name(place.name.replace("_input", "_label"))) or place.name.removesuffix("_input")
            if not label.startswith("Core "):  # the package's is the hottest of them
                yield _unused(f"{kind}_{label}".replace(" ", "_"), chip.name, taken), place


def _unused(name: str, suffix: str, taken: set[str]) -> str:
    """Return `name`, made unique with the suffix: several zones may be called "acpitz"."""
    if name in taken:
        name = f"{name}_{suffix}"
    taken.add(name)
    return name


def _celsius(place: Path) -> float | None:
    try:
        value = int(read_file(place)) / 1000
    except ValueError:
        return None
    return value if _PLAUSIBLE_C[0] <= value <= _PLAUSIBLE_C[1] else None
