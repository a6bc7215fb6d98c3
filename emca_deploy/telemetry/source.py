"""Interface of telemetry sources, and the meaning of the names in their readings."""

import time
from collections.abc import Sequence

__all__ = ["Reading", "TelemetrySource", "power_channel"]

Reading = dict[str, float]
"""Values by name, with the unit in the name; a value that could not be read is absent, never zero.

Names that end in `energy_j` are counters that only grow; names that end in `power_w` or `power_mw` are the power now. The part
before is the channel ("package_0", "VDD_IN"); no part, or "total", is the source's whole. Every other name is a gauge.
"""

_UNITS = {"energy_j": None, "power_w": 1.0, "power_mw": 1e-3}


class TelemetrySource:
    """A context manager that reads nothing before it is entered, and may be entered again after it was left.

    Entering raises MissingError where the source is unavailable. A subclass overrides `read`, or `drain` where readings come at
    times of their own.

    Attributes:
        interval_s: Shortest time between two samples.
        owner: Name of the candidate that the readings describe; None for the machine.
        notes: Values that could not be read, with what to do; filled while the source is open.
    """

    name = ""
    interval_s = 0.0
    owner: str | None = None
    notes: Sequence[str] = ()

    def __enter__(self) -> "TelemetrySource":
        return self

    def __exit__(self, *error: object) -> None:
        """Close the source."""

    def read(self) -> Reading:
        """Return the values now."""
        return {}

    def drain(self) -> list[tuple[int, Reading]]:
        """Return the readings since the last call, each with its time.monotonic_ns: by default one, read now."""
        begin_ns = time.monotonic_ns()
        values = self.read()
        return [((begin_ns + time.monotonic_ns()) // 2, values)]


def power_channel(name: str) -> tuple[str, float | None] | None:
    """Return the channel of a power reading and its factor to watts, None for a counter of joules; None for other readings."""
    for unit, factor in _UNITS.items():
        if name == unit:
            return "total", factor
        if name.endswith(f"_{unit}"):
            return name.removesuffix(f"_{unit}"), factor
    return None
