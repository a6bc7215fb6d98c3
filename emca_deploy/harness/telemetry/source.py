"""What every source of telemetry is."""

from types import TracebackType
from typing import Protocol

__all__ = ["Reading", "TelemetrySource"]

Reading = dict[str, float]
"""Values by name, the unit in the name; what could not be read is absent, never zero."""


class TelemetrySource(Protocol):
    """A context manager: nothing is asked before it is entered.

    Attributes:
        name: of the source, for the result.
    """

    name: str

    def __enter__(self) -> "TelemetrySource":
        """Open it; MissingError where it is not there."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close it."""

    def read(self) -> Reading:
        """Return what it says now."""
