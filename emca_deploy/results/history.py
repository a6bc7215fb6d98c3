"""The report of `history show`: a figure over time by machine and candidate, with its lasting changes."""

from dataclasses import dataclass
from pathlib import Path

from emca_deploy.results.codec import version

__all__ = ["HistoryChange", "HistoryPoint", "HistoryReport", "HistorySeries"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class HistoryPoint:
    """A figure of one result.

    Attributes:
        created: Time of the measurement, ISO 8601.
        version: Version of emca-deploy that measured it; "" where unknown.
        runtime: Version of the backend's library; "" where unknown.
        ci95: 95 % interval; None where the result has none.
    """

    created: str
    version: str
    runtime: str
    value: float
    ci95: tuple[float, float] | None


@dataclass(frozen=True)
class HistoryChange:
    """A lasting change.

    Attributes:
        index: Index of the first point after the change.
        earliest: Smallest index in the 95 % interval of `index`.
        latest: Largest index in the 95 % interval of `index`.
        before: Mean of the points before; the geometric mean where the change is in percent.
        after: Mean of the points after.
        change: Size of the change, in `unit`.
        change_ci95: 95 % interval of the size.
        unit: "%" for figures that are always positive, else the figure's unit.
    """

    index: int
    earliest: int
    latest: int
    before: float
    after: float
    change: float
    change_ci95: tuple[float, float]
    unit: str


@dataclass(frozen=True)
class HistorySeries:
    """The figure of one candidate on one machine.

    Attributes:
        machine: Fingerprint of the machine; "" where unknown.
        processor: Name of its processor; "" where unknown.
        artifact: Name of the artifact; of a deployment, its title and the candidate's name.
        points: Figures in the order of their time.
    """

    machine: str
    processor: str
    artifact: str
    backend: str
    precision: str
    target: str
    scenario: str
    batch: int
    points: tuple[HistoryPoint, ...]
    changes: tuple[HistoryChange, ...]


@dataclass(frozen=True)
class HistoryReport:
    """The output of `history show --json`.

    Attributes:
        store: File of the history.
        unit: Unit of the figure.
    """

    store: Path
    figure: str
    unit: str
    series: tuple[HistorySeries, ...]
    schema_version: int = version(SCHEMA_VERSION)
