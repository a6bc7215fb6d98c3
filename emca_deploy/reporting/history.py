"""The report of `history show` on the terminal."""

from typing import TYPE_CHECKING

from emca_deploy.reporting.formats import interval, moment, plain, shortened, significant
from emca_deploy.reporting.output import say, show_table
from emca_deploy.results.history import HistoryChange, HistoryReport, HistorySeries

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_history"]


def print_history(report: HistoryReport, console: "Console") -> None:
    """Print a table for each series, with its changes in bold."""
    if not report.series:
        say(
            console, f"no result in {report.store} has {report.figure}; add some: emca-deploy history add RESULT.json", wrap=False
        )
    for series in report.series:
        say(console, _title(series), "bold")
        changes = {change.index: change for change in series.changes}
        rows = [
            (
                (
                    moment(point.created),
                    point.version,
                    plain(point.runtime),
                    significant(point.value),
                    "" if point.ci95 is None else f"{significant(point.ci95[0])} to {significant(point.ci95[1])}",
                    _change(changes[index], series) if index in changes else "",
                ),
                index in changes,
            )
            for index, point in enumerate(series.points)
        ]
        show_table(console, ("time", "version", "runtime", f"{report.figure}, {report.unit}", "95 %", "change"), rows, left=3)


def _title(series: HistorySeries) -> str:
    machine = f"{series.processor or 'unknown processor'} ({series.machine[:8] or 'unknown machine'})"
    how = (
        f"{series.backend} {series.precision}, {series.target}, {series.scenario}, batch {series.batch}; "
        if series.backend
        else ""
    )
    return plain(f"{shortened(series.artifact, 80)}: {how}{machine}")


def _change(change: HistoryChange, series: HistorySeries) -> str:
    sizes = f"{change.change:+.2f} {change.unit} ({interval(change.change_ci95)})"
    if change.earliest == change.latest:
        return sizes
    first, last = (moment(series.points[index].created) for index in (change.earliest, change.latest))
    return f"{sizes}, between {first} and {last}"
