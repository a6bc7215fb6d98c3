"""The choice among the cells of a sweep under requirements: immutable records that convert to JSON and back."""

from dataclasses import dataclass
from typing import Literal

from emca_deploy.results.codec import left_out, version
from emca_deploy.results.latency import Scenario
from emca_deploy.results.requirements import Decision
from emca_deploy.results.sweep import SweepReport

__all__ = ["CellChange", "CellVerdict", "GroupChoice", "Interval", "Outcome", "SweepDocument", "Unknown"]

SCHEMA_VERSION = 1

Interval = tuple[float, float, float]
"""Lower end, estimate, upper end."""

Outcome = Literal["best", "close", "slower", "undecided", "fails", "front", "dominated", "failed", "pending"]


@dataclass(frozen=True)
class Unknown:
    """A requirement that cannot be decided about a cell because its figure was not measured.

    Attributes:
        requirement: Text of the requirement.
        reason: Why there is no figure.
    """

    requirement: str
    reason: str


@dataclass(frozen=True)
class CellVerdict:
    """What became of one cell.

    Attributes:
        outcome: "best"; "close" where it keeps all requirements and may be as fast as the best; "slower" where it keeps all;
            "undecided" or "fails" by its requirements; without requirements "front" or "dominated"; "failed" or "pending" for a
            cell without a result.
        against: Key of the cell that is better: the best one, or without requirements one that dominates it.
        time_ratio: Time per image divided by that of `against`, with its interval; None where unknown.
        decisions: Decisions about the requirements.
        unknown: Requirements whose figure was not measured.
    """

    key: str
    outcome: Outcome
    against: str | None = None
    time_ratio: Interval | None = None
    decisions: tuple[Decision, ...] = ()
    unknown: tuple[Unknown, ...] = ()


@dataclass(frozen=True)
class GroupChoice:
    """The choice among the cells of one machine, target and scenario, whose times can be compared.

    Attributes:
        best: Key of the fastest cell per image that keeps all requirements; None where none does, or none is stated.
        most_accurate: Key of the most accurate cell that keeps all, where no requirement limits the accuracy; else None.
        cells: Verdict on each cell, the finished ones from the fastest to the slowest.
        machine: Hardware and fingerprint of the machine, where that is another kind than the sweep's own.
    """

    target: str
    scenario: Scenario
    best: str | None
    most_accurate: str | None
    cells: tuple[CellVerdict, ...]
    machine: str | None = left_out()


@dataclass(frozen=True)
class CellChange:
    """The difference of a finished cell from the cell of the same name in another sweep.

    Attributes:
        before: Key of the other cell.
        time_ratio: Time per image divided by that of the other cell, with its interval; None on different machines, or where
            there are too few samples.
        accuracy_change: Accuracy minus that of the other cell, points; None where one is unknown.
    """

    key: str
    before: str
    time_ratio: Interval | None
    accuracy_change: float | None


@dataclass(frozen=True)
class SweepDocument:
    """The output of `report --format json` for a sweep.

    Attributes:
        requirements: Text of each requirement.
        confidence_percent: Confidence of the intervals that decide, percent.
        groups: Choice for each machine, target and scenario.
        sweep: Index of the sweep.
        against: Folder of the sweep that `changes` are relative to.
        changes: Differences of cells that both sweeps finished.
    """

    requirements: tuple[str, ...]
    confidence_percent: float
    groups: tuple[GroupChoice, ...]
    sweep: SweepReport
    against: str | None = left_out()
    changes: tuple[CellChange, ...] = left_out(())
    schema_version: int = version(SCHEMA_VERSION)
