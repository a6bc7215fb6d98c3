"""A figure of the history over time, by machine and candidate, and what earlier runs say about a new one."""

from collections.abc import Iterable
from math import exp, log
from pathlib import Path

from emca_deploy.harness.measure.comparing import differences
from emca_deploy.history_store.store import StoredFigure, StoredResult, figures_in, newest_documents
from emca_deploy.requirements.documents import MeasuredCandidate, MeasuredDocument, document_of
from emca_deploy.requirements.estimates import Spread
from emca_deploy.results.history import HistoryChange, HistoryPoint, HistoryReport, HistorySeries
from emca_deploy.results.requirements import FIGURES
from emca_deploy.stats.between_runs import FEWEST_CHANGES, spread_between_runs
from emca_deploy.stats.change_points import ChangePoint, change_points

__all__ = ["history_of", "newest_comparable", "spread_of"]

_DIFFERENCES = ("points", "%")
"""Units of figures whose changes are differences; the others' are ratios."""

Rows = list[tuple[StoredResult, StoredFigure]]


def history_of(figure: str, store: Path, artifact: str | None = None) -> HistoryReport:
    """Return a figure over time, of all artifacts or of one.

    Raises:
        InputError: the history cannot be read.
    """
    unit = FIGURES[figure].unit
    series = tuple(_series(rows, unit) for rows in _grouped(figures_in(store, figure, artifact)))
    return HistoryReport(store, figure, unit, series)


def _grouped(rows: Rows) -> Iterable[Rows]:
    groups: dict[tuple[object, ...], Rows] = {}
    for result, figure in rows:
        key = (result.machine, figure.artifact, figure.backend, figure.precision, figure.target, figure.scenario, figure.batch)
        groups.setdefault(key, []).append((result, figure))
    return groups.values()


def _series(rows: Rows, unit: str) -> HistorySeries:
    result, figure = rows[-1]
    points = tuple(HistoryPoint(one.created, one.version, each.runtime, each.value, each.ci95) for one, each in rows)
    values = [point.value for point in points]
    ratios = unit not in _DIFFERENCES and min(values) > 0
    changes = change_points([log(value) for value in values] if ratios else values)
    return HistorySeries(
        result.machine,
        result.processor,
        figure.artifact,
        figure.backend,
        figure.precision,
        figure.target,
        figure.scenario,
        figure.batch,
        points,
        tuple(_ratio(change) if ratios else _difference(change, unit) for change in changes),
    )


def _difference(found: ChangePoint, unit: str) -> HistoryChange:
    return HistoryChange(found.index, found.earliest, found.latest, found.before, found.after, found.size, found.size_ci95, unit)


def _ratio(found: ChangePoint) -> HistoryChange:
    """Return a change of logarithms as one in percent."""
    low, high = (100 * (exp(end) - 1) for end in found.size_ci95)
    size = 100 * (exp(found.size) - 1)
    return HistoryChange(found.index, found.earliest, found.latest, exp(found.before), exp(found.after), size, (low, high), "%")


def spread_of(store: Path, machine: str, figure: str) -> Spread | None:
    """Return how much a figure differs between runs on a machine; None where the history has too few runs of it.

    Raises:
        InputError: the history cannot be read.
    """
    rows = [(result, each) for result, each in figures_in(store, figure) if result.machine == machine and each.value > 0]
    series = [[each.value for _, each in group] for group in _grouped(rows)]
    if not machine or sum(max(0, len(runs) - 1) for runs in series) < FEWEST_CHANGES:
        return None
    deviation, degrees = spread_between_runs(series)
    runs = sum(len(each) for each in series if len(each) > 1)
    return Spread(deviation, degrees, f"{100 * deviation:.1f} %, from {runs} runs in the history")


def newest_comparable(store: Path, candidate: MeasuredCandidate, document: MeasuredDocument) -> MeasuredCandidate | None:
    """Return the newest run of a candidate in the history, of the same machine, protocol, backend and precision.

    Raises:
        InputError: the history cannot be read.
    """
    if candidate.run is None or candidate.latency is None:
        return None
    machine, label = str(candidate.run.report.environment.get("fingerprint") or ""), document.label(candidate)
    for key, created, values in newest_documents(store, machine, label):
        if key == document.key:
            continue
        other = document_of(values, Path(f"{store}: the result of {created}"))
        for each in other.all:
            same = other.label(each) == label and each.run is not None and each.latency is not None
            if same and _alike(candidate, each):
                return each
    return None


def _alike(one: MeasuredCandidate, other: MeasuredCandidate) -> bool:
    assert one.run is not None
    assert one.latency is not None
    assert other.run is not None
    assert other.latency is not None
    as_run = (one.latency.backend, one.latency.precision, one.latency.target)
    return as_run == (other.latency.backend, other.latency.precision, other.latency.target) and not differences(
        one.run.report, other.run.report
    )
