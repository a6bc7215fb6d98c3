"""What every source of telemetry is, and what the names in its readings mean."""

from types import TracebackType
from typing import Protocol, runtime_checkable

__all__ = ["Reading", "StampedSource", "TelemetrySource", "energy_channel", "power_channel"]

Reading = dict[str, float]
"""Values by name, the unit in the name; what could not be read is absent, never zero.

Names that end in `energy_j` are counters that only grow; names that end in `power_w` or `power_mw` are power now. What stands
before is the channel ("package_0", "VDD_IN"); nothing, or "total", is all that the source sees. Every other name is a gauge.
"""

_POWER_UNITS_W = {"power_w": 1.0, "power_mw": 1e-3}


class TelemetrySource(Protocol):
    """A context manager: nothing is asked before it is entered. It may be entered again after it was left.

    A source may also have `interval_s` (float: sample it no more often), `owner` (str: its readings are about this candidate
    only) and `notes` (list of str: what it could not get, and what to do; filled while it is open).
    """

    name: str

    def __enter__(self) -> "TelemetrySource":
        """Open it; MissingError where it is not there."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close it."""

    def read(self) -> Reading:
        """Return what it says now."""


@runtime_checkable
class StampedSource(Protocol):
    """A source that speaks when it wants to, not when it is asked."""

    def drain(self) -> list[tuple[int, Reading]]:
        """Return what came since the last call, each with its time.monotonic_ns."""


def energy_channel(name: str) -> str | None:
    """Return the channel of a counter of joules, or None where the reading is something else."""
    return _channel(name, "energy_j")


def power_channel(name: str) -> tuple[str, float] | None:
    """Return the channel of a power and what to multiply it by for watts, or None where the reading is something else."""
    for unit, factor in _POWER_UNITS_W.items():
        channel = _channel(name, unit)
        if channel is not None:
            return channel, factor
    return None


def _channel(name: str, unit: str) -> str | None:
    if name == unit:
        return "total"
    return name.removesuffix(f"_{unit}") if name.endswith(f"_{unit}") else None
