"""Power of a board from its INA3221 monitors in sysfs, and the sum of its rails."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from emca_deploy.errors import MissingError
from emca_deploy.machines.jetson.files import board_root, read_number, read_text
from emca_deploy.telemetry.source import Reading, TelemetrySource

__all__ = ["Ina3221Source", "Rail", "find_rails", "total_power_mw"]

NOT_CONNECTED = "NC"
CHANNELS = (1, 2, 3)

# Nano; TX2, Xavier NX, Orin NX and Orin Nano; Thor. Each measures the board's input, which includes the other rails.
INPUTS = ("POM_5V_IN", "VDD_IN", "VIN")

# Boards without a monitor at their input. AGX Xavier: all rails. AGX Orin: not VDDQ_VDD2_1V8AO, which VIN_SYS_5V0 feeds.
SUMS = (("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"), ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"))


def total_power_mw(rails: Mapping[str, float]) -> float | None:
    """Return the power of the whole board in milliwatts from that of its rails; None if these do not determine it."""
    for name in INPUTS:
        if name in rails:
            return rails[name]
    for names in SUMS:
        if all(name in rails for name in names):
            return sum(rails[name] for name in names)
    return None


@dataclass(frozen=True)
class Rail:
    """A power rail.

    Attributes:
        factors: Files whose product is its power: one in milliwatts, or millivolts and milliamperes.
    """

    name: str
    factors: tuple[Path, ...]

    def read_mw(self) -> float | None:
        """Return its power now in milliwatts, or None if it cannot be read."""
        values = [read_number(place) for place in self.factors]
        if any(value is None for value in values):
            return None
        first, *others = (float(value) for value in values if value is not None)
        return first * others[0] / 1000 if others else first


def find_rails(root: Path | None = None) -> tuple[Rail, ...]:
    """Return the rails that the board's monitors measure."""
    drivers = (board_root() if root is None else root) / "sys/bus/i2c/drivers"
    found = {rail.name: rail for rail in (*_hwmon_rails(drivers / "ina3221"), *_iio_rails(drivers / "ina3221x"))}
    return tuple(found.values())


def _hwmon_rails(driver: Path) -> Iterator[Rail]:
    """Yield the rails of JetPack 5 and later. hwmon's numbers change from boot to boot; in7 is the sum of shunt voltages."""
    for monitor in sorted(driver.glob("*-00*/hwmon/hwmon*")):
        for channel in CHANNELS:
            name = read_text(monitor / f"in{channel}_label")
            if name and name != NOT_CONNECTED:
                yield Rail(name, (monitor / f"in{channel}_input", monitor / f"curr{channel}_input"))


def _iio_rails(driver: Path) -> Iterator[Rail]:
    """Yield the rails of JetPack 4."""
    for monitor in sorted(driver.glob("*/iio:device*")):
        for channel in range(3):
            name = read_text(monitor / f"rail_name_{channel}")
            if name and name != NOT_CONNECTED:
                yield Rail(name, (monitor / f"in_power{channel}_input",))


class Ina3221Source(TelemetrySource):
    """`<rail>_power_mw` and, if the board's rails determine it, `total_power_mw`; needs no root."""

    name = "ina3221"

    def __init__(self, root: Path | None = None) -> None:
        self._root = root
        self._rails: tuple[Rail, ...] = ()

    def __enter__(self) -> "Ina3221Source":
        """Find the rails.

        Raises:
            MissingError: none can be read.
        """
        self._rails = find_rails(self._root)
        if not self.read():
            raise MissingError("no INA3221 power monitor can be read", "some boards have none, such as the Jetson Nano 2GB")
        return self

    def __exit__(self, *error: object) -> None:
        self._rails = ()

    def read(self) -> Reading:
        """Return the power of every rail now. One that cannot be read is absent, and so is a total that needs it."""
        rails = {rail.name: value for rail in self._rails if (value := rail.read_mw()) is not None}
        found = {f"{name}_power_mw": value for name, value in rails.items()}
        total = total_power_mw(rails)
        return found if total is None else {**found, "total_power_mw": total}
