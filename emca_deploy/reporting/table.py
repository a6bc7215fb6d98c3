"""The columns of the candidates' table, as text, for the terminal and the page."""

from collections.abc import Callable
from dataclasses import dataclass

from emca_deploy.reporting.formats import NONE, fixed, fixed_or_none, interval, plain, uniform
from emca_deploy.results.accuracy import ReferenceComparison
from emca_deploy.results.deploy import DeployCandidate, DeployReport

__all__ = ["Column", "deploy_columns"]


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        heading: Name with the unit.
        cells: Text for each row.
        interval: 95% interval of each cell, or "".
        rank: Order of removal where space is short, the highest first; 0 is never removed.
        interval_rank: Rank of the intervals.
    """

    heading: str
    cells: tuple[str, ...]
    interval: tuple[str, ...] = ()
    rank: int = 0
    interval_rank: int = 0


def deploy_columns(report: DeployReport) -> tuple[Column, ...]:
    """Return the columns of a deployment's table, with a row for each candidate in the report's order."""
    rows = report.candidates
    latencies = [c.latency.latency_ms for c in rows]
    milliseconds = uniform([value for latency in latencies for value in (latency.p50, latency.p99)])
    return (
        Column("candidate", tuple(plain(c.name) for c in rows)),
        Column("top-1 %", tuple(fixed_or_none(c.accuracy.top1) for c in rows)),
        Column(
            "drop, points",
            _each(report, lambda r: fixed_or_none(r.top1_drop)),
            _each(report, lambda r: _interval(r.top1_drop_ci95), ""),
        ),
        Column("agree %", _each(report, lambda r: fixed(r.agreement)), rank=4),
        Column("SQNR dB", _each(report, lambda r: "exact" if r.sqnr_db is None else fixed(r.sqnr_db, 1)), rank=6),
        Column("typical dB", _each(report, _typical), rank=8),
        Column("p50 ms", tuple(milliseconds[0::2])),
        Column("p99 ms", tuple(milliseconds[1::2]), rank=2),
        Column("images/s", tuple(uniform([c.latency.throughput_images_per_s for c in rows])), rank=7),
        Column("MiB", tuple(uniform([c.file_mib for c in rows])), rank=5),
        Column("speed-up", tuple(_speedup(report, c) for c in rows), tuple(_interval(c.speedup_ci95) for c in rows), 0, 3),
    )


def _each(report: DeployReport, cell: Callable[[ReferenceComparison], str], missing: str = NONE) -> tuple[str, ...]:
    """Return each candidate's cell about its comparison with the baseline, which itself has none."""
    references = (None if c.name == report.baseline else c.accuracy.reference for c in report.candidates)
    return tuple(missing if reference is None else cell(reference) for reference in references)


def _typical(reference: ReferenceComparison) -> str:
    if reference.typical_sqnr_db is None:
        return "exact" if reference.sqnr_db is None else NONE  # an older result does not have the field
    return fixed(reference.typical_sqnr_db, 1)


def _interval(limits: tuple[float, float] | None) -> str:
    return "" if limits is None else interval(limits)


def _speedup(report: DeployReport, candidate: DeployCandidate) -> str:
    return "baseline" if candidate.name == report.baseline else f"{fixed(candidate.speedup)}x"
